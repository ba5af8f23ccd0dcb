//! How pushes get into a server that does not let everybody in: a real Pushgateway with TLS and passwords.

use std::fs;

use std::process::Command;

use super::silent;
use crate::harness::certificates::make_certificates;
use crate::harness::peers::{Suite, free_port, pushgateway_behind_tls};
use crate::harness::{Output, gateway, job, temporary_directory};

#[test]
fn certificates_and_passwords_open_a_real_pushgateway() {
    let directory = temporary_directory();
    make_certificates(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().expect("plain").to_owned();
    let server = pushgateway_behind_tls(Suite::Newest, &directory.path().join("web.yml"));
    let (ca, cert, key, password) =
        (path("ca.pem"), path("client.pem"), path("client.key"), path("password"));
    let run = |options: &[&str]| {
        let words = [
            &["--push-url", &server.url, "--push-deadline", "2s", "--job", "tls"][..],
            options,
            &["--", "sh", "-c", "exit 3"],
        ]
        .concat();
        job(words).run()
    };
    let all = [
        "--push-ca-file",
        &ca,
        "--push-cert-file",
        &cert,
        "--push-key-file",
        &key,
        "--push-username",
        "jobs",
        "--push-password-file",
        &password,
    ];
    assert_eq!(run(&all), silent(3));
    // Each of them is needed; whoever lacks one is told so, in a line, without a secret.
    let (other, wrong) = (path("other.pem"), path("wrong"));
    let replaced =
        |from: &str, to: &str| all.map(|word| if word == from { to.to_owned() } else { word.to_owned() });
    for (options, told) in [
        (replaced(&ca, &other), "invalid peer certificate"),
        (
            replaced("--push-ca-file", "--push-header")
                .map(|word| if word == ca { "X-A: b".to_owned() } else { word }),
            "invalid peer certificate",
        ),
        (replaced(&password, &wrong), "answered 401 Unauthorized"),
        (replaced("jobs", "somebody"), "answered 401 Unauthorized"),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let output = run(&options);
        assert_eq!((output.code, output.stderr.lines().count()), (3, 1), "{output:?}");
        assert!(output.stderr.contains(told) && !output.stderr.contains("pass"), "{told}: {output:?}");
    }
    let without_certificate: Vec<&str> = all
        .iter()
        .copied()
        .filter(|word| ![cert.as_str(), &key, "--push-cert-file", "--push-key-file"].contains(word))
        .collect();
    let output = run(&without_certificate);
    assert!(output.code == 3 && output.stderr.contains("could not be pushed"), "{output:?}");
    // What waits with a wrong password holds up nobody else.
    let spool = directory.path().join("spool");
    let keep = |name: &str, password: &str| {
        let options =
            ["--push-url", &server.url, "--push-deadline", "0", "-q", "--job", name, "--push-ca-file", &ca];
        let more = [
            "--push-cert-file",
            &cert,
            "--push-key-file",
            &key,
            "--push-username",
            "jobs",
            "--push-password-file",
            password,
        ];
        let words = [&options[..], &more, &["--", "true"]].concat();
        job(words).env("JOBMON_SPOOL_DIR", &spool).env("JOBMON_NO_SPOOL", "0").run();
    };
    keep("kept-wrong", &wrong);
    keep("kept-right", &password);
    let flush = || {
        let output =
            Command::new(crate::harness::JOBMON).args(["spool", "flush", "--spool-dir"]).arg(&spool).output();
        String::from_utf8_lossy(&output.expect("built").stdout).into_owned()
    };
    assert_eq!(flush(), "1 delivered, 1 left, 0 refused\n");
    fs::write(&wrong, "pass word").expect("writable");
    assert_eq!(flush(), "1 delivered, 0 left, 0 refused\n", "it has been set right");
    // As part of the URL, and by the environment.
    let url = server.url.replace("https://", "https://jobs:pass%20word@");
    let output = job(["--push-url", &url, "--job", "tls", "--", "true"])
        .env("JOBMON_PUSH_CA_FILE", &ca)
        .env("JOBMON_PUSH_CERT_FILE", &cert)
        .env("JOBMON_PUSH_KEY_FILE", &key)
        .run();
    assert_eq!(output, silent(0));
}

#[test]
fn files_that_hold_no_certificate_are_named_and_the_job_runs() {
    let gateway = gateway();
    let directory = temporary_directory();
    let empty = directory.path().join("empty");
    fs::write(&empty, "").expect("writable");
    let empty = empty.to_str().expect("plain");
    let url = format!("https://127.0.0.1:{}", free_port());
    for option in ["--push-ca-file", "--push-cert-file"] {
        for file in [empty, "/does/not/exist"] {
            let arguments =
                ["--push-url", &url, "--push-deadline", "2s", option, file, "--push-key-file", empty];
            let Output { code, stderr, .. } =
                job(arguments.iter().chain(&["--", "sh", "-c", "exit 3"])).run();
            assert!(code == 3 && stderr.contains(&format!("see {option}")), "{stderr}");
        }
    }
    // A secret that hangs costs its own server, and that is told.
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let arguments = [
        "--push-url",
        &gateway.url,
        "--job",
        "fifo",
        "--push-bearer-token-file",
        fifo.to_str().expect("plain"),
        "--textfile-dir",
        directory.path().to_str().expect("plain"),
    ];
    assert_eq!(job(arguments.iter().chain(&["--", "sh", "-c", "exit 3"])).run().code, 3);
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"fifo\"}"), Some(3.0));
    assert!(directory.path().join("jobmon_fifo.prom").exists());
    // Without TLS nobody reads them.
    let arguments = ["--push-url", &gateway.url, "--push-ca-file", "/does/not/exist", "--", "true"];
    assert_eq!(job(arguments).run(), silent(0));
}

#[test]
fn tokens_and_headers_are_sent() {
    let directory = temporary_directory();
    let token = directory.path().join("token");
    fs::write(&token, "s3cret\n").expect("writable");
    let (url, server) =
        super::delivery::scripted(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]);
    let output =
        job(["--push-url", &url, "--push-header", "X-Scope-OrgID: team-a", "--push-header", "X-B:c", "-vv"])
            .env("JOBMON_PUSH_BEARER_TOKEN_FILE", &token);
    let output = output.arguments(&["--", "true"]).run();
    assert!(output.code == 0 && !output.stderr.contains("s3cret"), "{output:?}");
    let request = server.join().expect("no panic").remove(0).to_lowercase();
    for header in ["authorization: bearer s3cret", "x-scope-orgid: team-a", "x-b: c"] {
        assert!(request.contains(&format!("\r\n{header}\r\n")), "{request}");
    }
}
