//! Who may do what at the gateway, tried with curl: right and wrong, beside a real Pushgateway with the same file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::certificates::{PASSWORD_HASH, make_certificates};
use crate::harness::http::{self, get, put, request};
use crate::harness::peers::{Suite, pushgateway_behind_tls};
use crate::harness::{Gateway, gateway_with, temporary_directory, wait_for};

/// The gateway with a web configuration; where it speaks TLS, its URL has the name in its certificate.
fn gateway_behind(config: &Path) -> Gateway {
    gateway_with(&["--web.config.file", config.to_str().expect("a plain path")])
}

fn https(gateway: &Gateway) -> String {
    gateway.url.replace("http://127.0.0.1", "https://localhost")
}

/// The status that curl is answered with; 000 where there is no answer.
fn curl(directory: &Path, arguments: &[&str], url: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"])
        .args(arguments)
        .arg(url)
        .current_dir(directory)
        .output()
        .expect("curl is there");
    String::from_utf8(output.stdout).expect("a status")
}

const CA: [&str; 2] = ["--cacert", "ca.pem"];
const CLIENT: [&str; 4] = ["--cert", "client.pem", "--key", "client.key"];
const STRANGER: [&str; 4] = ["--cert", "other.pem", "--key", "other.key"];
const RIGHT: [&str; 2] = ["--user", "jobs:pass word"];

#[test]
fn certificates_and_passwords_are_asked_for_as_by_a_pushgateway() {
    let directory = temporary_directory();
    let dir = directory.path();
    make_certificates(dir);
    let config = dir.join("web.yml");
    for (settings, cases) in [
        (
            "client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert",
            vec![
                ([&CA[..], &CLIENT, &RIGHT].concat(), "200"),
                ([&CA[..], &CLIENT].concat(), "401"),
                ([&CA[..], &CLIENT, &["--user", "jobs:wrong"]].concat(), "401"),
                ([&CA[..], &CLIENT, &["--user", "nobody:pass word"]].concat(), "401"),
                ([&CA[..], &CLIENT, &["--oauth2-bearer", "x"]].concat(), "401"),
                ([&CA[..], &RIGHT].concat(), "000"),
                ([&CA[..], &STRANGER, &RIGHT].concat(), "000"),
                ([&CLIENT[..], &RIGHT].concat(), "000"),
                ([&CA[..], &CLIENT, &RIGHT, &["--tls-max", "1.1"]].concat(), "000"),
            ],
        ),
        (
            "client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven, min_version: TLS13",
            vec![
                ([&CA[..], &RIGHT].concat(), "200"),
                ([&CA[..], &CLIENT, &RIGHT].concat(), "200"),
                ([&CA[..], &STRANGER, &RIGHT].concat(), "000"),
                ([&CA[..], &RIGHT, &["--tls-max", "1.2"]].concat(), "000"),
            ],
        ),
        (
            "client_auth_type: RequireAnyClientCert, max_version: TLS12, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
            vec![
                ([&CA[..], &RIGHT].concat(), "000"),
                ([&CA[..], &STRANGER, &RIGHT].concat(), "200"),
                ([&CA[..], &STRANGER, &RIGHT, &["--tlsv1.3"]].concat(), "000"),
                ([&CA[..], &STRANGER, &RIGHT, &["--ciphers", "ECDHE-RSA-AES256-GCM-SHA384"]].concat(), "000"),
            ],
        ),
        (
            "client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [localhost]",
            vec![([&CA[..], &CLIENT, &RIGHT].concat(), "200")],
        ),
        (
            "client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [elsewhere]",
            vec![([&CA[..], &CLIENT, &RIGHT].concat(), "000")],
        ),
        ("client_auth_type: RequestClientCert", vec![([&CA[..], &RIGHT].concat(), "200")]),
    ] {
        let text = format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key, {settings}}}\n\
             http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n\
             basic_auth_users: {{jobs: '{PASSWORD_HASH}'}}\n"
        );
        fs::write(&config, text).expect("writable");
        let ours = gateway_behind(&config);
        let theirs = pushgateway_behind_tls(Suite::Newest, &config);
        for (arguments, status) in cases {
            for url in [&https(&ours), &theirs.url] {
                let answered = curl(dir, &arguments, &format!("{url}/-/healthy"));
                assert_eq!(answered, status, "{url} {settings} {arguments:?}");
            }
        }
    }
}

#[test]
fn a_team_cannot_touch_anothers_groups() {
    let directory = temporary_directory();
    let dir = directory.path();
    make_certificates(dir);
    let digest = |secret: &str| {
        let output = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", secret]).output();
        String::from_utf8(output.expect("sh is there").stdout).expect("text")[..64].to_owned()
    };
    let config = dir.join("web.yml");
    let text = format!(
        "tls_server_config: {{cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, \
         client_auth_type: RequireAndVerifyClientCert}}\n\
         basic_auth_users: {{jobs: '{PASSWORD_HASH}'}}\n\
         tokens:\n\
         - {{name: team-a, sha256: {}, scopes: [push, delete, read], jobs: 'a-.*'}}\n\
         - {{name: prometheus, sha256: {}, scopes: [read]}}\n",
        digest("secret-a"),
        digest("secret-p")
    );
    fs::write(&config, text).expect("writable");
    let gateway = gateway_behind(&config);
    let url = https(&gateway);
    let ask = |method: &str, path: &str, credentials: &[&str]| {
        let arguments =
            [&CA[..], &CLIENT, credentials, &["--request", method, "--data-binary", "m 1\n"]].concat();
        curl(dir, &arguments, &format!("{url}{path}"))
    };
    let (team, scraper) = (["--oauth2-bearer", "secret-a"], ["--oauth2-bearer", "secret-p"]);
    for (method, path, credentials, status) in [
        ("PUT", "/metrics/job/a-backup", &team[..], "200"),
        ("PUT", "/metrics/job/b-backup", &team, "403"),
        ("PUT", "/metrics/job/xa-backup", &team, "403"),
        ("PUT", "/metrics/job/b-backup", &RIGHT, "200"),
        ("DELETE", "/metrics/job/b-backup", &team, "403"),
        ("PUT", "/metrics/job/a-backup", &scraper, "403"),
        ("GET", "/metrics", &scraper, "200"),
        ("GET", "/metrics", &["--oauth2-bearer", "guess"], "401"),
        ("GET", "/metrics", &[], "401"),
        ("GET", "/-/healthy", &team, "200"),
    ] {
        assert_eq!(ask(method, path, credentials), status, "{method} {path} {credentials:?}");
    }
    // One who may look at some jobs sees those.
    let scrape = |credentials: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "20"])
            .args(CA)
            .args(CLIENT)
            .args(credentials)
            .arg(format!("{url}/metrics"))
            .current_dir(dir)
            .output();
        String::from_utf8(output.expect("curl is there").stdout).expect("text")
    };
    let jobs = |text: &str| ["a-backup", "b-backup"].map(|job| text.contains(&format!("job=\"{job}\"")));
    assert_eq!(jobs(&scrape(&scraper)), [true, true]);
    assert_eq!(jobs(&scrape(&team)), [true, false]);
    assert_eq!(ask("DELETE", "/metrics/job/a-backup", &team), "202");
    assert_eq!(jobs(&scrape(&scraper)), [false, true]);
}

/// The file is read again when it has changed; one that has become wrong changes nothing.
#[test]
fn the_file_may_change_while_the_gateway_runs() {
    let directory = temporary_directory();
    let config = directory.path().join("web.yml");
    fs::write(&config, "").expect("writable");
    let gateway = gateway_behind(&config);
    let healthy = format!("{}/-/healthy", gateway.url);
    assert_eq!(get(&healthy).status, 200);
    fs::write(&config, format!("basic_auth_users: {{jobs: '{PASSWORD_HASH}'}}\n")).expect("writable");
    let answer = get(&healthy);
    assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized\n"));
    assert_eq!(answer.header("www-authenticate"), Some("Basic"));
    let right = [("Authorization", "Basic am9iczpwYXNzIHdvcmQ=")];
    assert_eq!(request("GET", &healthy, &right, b"").status, 200);
    fs::write(&config, "").expect("writable");
    assert_eq!(get(&healthy).status, 401, "a file that is being written opens nothing");
    fs::write(&config, "basic_auth_users: {jobs: plain}\n").expect("writable");
    assert_eq!(get(&healthy).status, 401, "what was there is used on");
    fs::write(&config, "http_server_config: {headers: {X-Frame-Options: deny}}\n").expect("writable");
    let answer = get(&healthy);
    assert_eq!((answer.status, answer.header("x-frame-options")), (200, Some("deny")));
}

#[test]
fn requests_are_limited_in_rate_before_anything_else() {
    let directory = temporary_directory();
    let config = directory.path().join("web.yml");
    let text =
        format!("rate_limit: {{interval: 1h, burst: 2}}\nbasic_auth_users: {{jobs: '{PASSWORD_HASH}'}}\n");
    fs::write(&config, text).expect("writable");
    let gateway = gateway_behind(&config);
    let healthy = format!("{}/-/healthy", gateway.url);
    assert_eq!([get(&healthy).status, get(&healthy).status], [401, 401]);
    let answer = get(&healthy);
    assert_eq!((answer.status, answer.text().as_str()), (429, "Too Many Requests\n"));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_wrong_file_keeps_the_gateway_from_starting_and_says_where_it_is_wrong() {
    let directory = temporary_directory();
    let config = directory.path().join("web.yml");
    for (text, expected) in [
        ("bogus: 1\n", "bogus"),
        ("tls_server_config: {cert_file: a.pem, bogus: 1}\n", "bogus"),
        ("tls_server_config: {cert_file: a.pem, key_file: b.pem}\n", "a.pem"),
        ("tls_server_config: {key_file: b.pem}\n", "missing one of cert or cert_file"),
        ("http_server_config: {headers: {X-Foo: x}}\n", "can not be configured"),
        ("basic_auth_users: {jobs: plain}\n", "no bcrypt hash"),
        ("tokens: [{name: t, sha256: abc, scopes: [push]}]\n", "sha256"),
        ("rate_limit: {interval: soon}\n", "rate_limit"),
        ("basic_auth_users: {jobs: [$2y$10$TOPSECRET]}\n", "line 1"),
    ] {
        fs::write(&config, text).expect("writable");
        let output = Command::new(crate::harness::JOBMON)
            .args(["gateway", "--web.listen-address=127.0.0.1:0", "--web.config.file"])
            .arg(&config)
            .output()
            .expect("the program is built");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text} {stderr}");
        assert!(stderr.contains("--web.config.file") && stderr.contains(expected), "{text} {stderr}");
        assert!(!stderr.contains("TOPSECRET"), "{stderr}");
    }
}

/// Whoever tries passwords waits in a line of its own: the pushes of others go on.
#[test]
fn wrong_passwords_do_not_hold_others_up() {
    let directory = temporary_directory();
    let config = directory.path().join("web.yml");
    // As exporter-toolkit's documentation recommends: about 60 ms a try.
    let hash = bcrypt::hash("pass word", 10).expect("a cost");
    fs::write(&config, format!("basic_auth_users: {{jobs: '{hash}'}}\n")).expect("writable");
    let gateway = gateway_behind(&config);
    let group = format!("{}/metrics/job/x", gateway.url);
    let right = [("Authorization", "Basic am9iczpwYXNzIHdvcmQ=")];
    assert_eq!(request("PUT", &group, &right, b"a 1\n").status, 200);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        for guesser in 0..8 {
            let (stop, group) = (&stop, &group);
            scope.spawn(move || {
                for guess in 0_u32.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    let credentials = base64(&format!("jobs:{guesser}-{guess}"));
                    let status =
                        request("PUT", group, &[("Authorization", &format!("Basic {credentials}"))], b"")
                            .status;
                    assert!(status == 401 || status == 429, "{status}");
                }
            });
        }
        let times: Vec<Duration> = (0..300)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(request("PUT", &group, &right, b"a 1\n").status, 200);
                start.elapsed()
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        times
    });
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(50), "{p99:?}");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A gateway that is sent away from the network listens on a socket in the file system.
#[test]
fn a_socket_in_the_file_system_is_listened_on() {
    let directory = temporary_directory();
    let socket = directory.path().join("gateway.sock");
    let address = format!("unix:{}", socket.display());
    let _gateway = gateway_with(&["--web.listen-address", &address]);
    let status = wait_for("an answer", || {
        let status = curl(directory.path(), &["--unix-socket", "gateway.sock"], "http://localhost/-/healthy");
        (status != "000").then_some(status)
    });
    assert_eq!(status, "200");
}

/// As systemd.socket(5) hands sockets over.
#[test]
fn sockets_of_systemd_are_listened_on() {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::process::CommandExt as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let fd = listener.as_raw_fd();
    let mut command = Command::new("sh");
    command.args(["-c", "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" gateway --web.systemd-socket"]);
    command.arg(crate::harness::JOBMON).stderr(std::process::Stdio::null());
    // SAFETY: dup2 and fcntl are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // Where it has that number already, nothing is duplicated.
            if libc::dup2(fd, 3) < 0 || libc::fcntl(3, libc::F_SETFD, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let _gateway = crate::harness::Process(command.spawn().expect("sh is there"));
    drop(listener);
    wait_for("an answer", || {
        let (host, _) = http::split(&url);
        http::exchange(host, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false).ok()
    });
    assert_eq!(put(&format!("{url}/metrics/job/x"), b"a 1\n").status, 200);
}

/// Who hangs up while waiting in the line of passwords loses the place in it.
#[test]
fn the_work_of_those_who_have_gone_is_not_done() {
    use std::io::Write as _;
    let directory = temporary_directory();
    let config = directory.path().join("web.yml");
    let hash = bcrypt::hash("pass word", 11).expect("a cost");
    fs::write(&config, format!("basic_auth_users: {{jobs: '{hash}'}}\n")).expect("writable");
    let gateway = gateway_behind(&config);
    let (host, _) = http::split(&gateway.url);
    let ask = |password: &str| {
        let credentials = base64(&format!("jobs:{password}"));
        let start = Instant::now();
        let status = request(
            "GET",
            &format!("{}/-/healthy", gateway.url),
            &[("Authorization", &format!("Basic {credentials}"))],
            b"",
        )
        .status;
        (status, start.elapsed())
    };
    let (status, one) = ask("wrong");
    assert_eq!(status, 401);
    for guess in 0..25 {
        let mut stream = std::net::TcpStream::connect(host).expect("connected");
        let credentials = base64(&format!("jobs:{guess}"));
        let head =
            format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
    }
    let (status, waited) = ask("pass word");
    assert_eq!(status, 200);
    assert!(waited < one * 12, "{waited:?} where one takes {one:?}");
}
