//! Reports arrive, or are told to be lost, in time.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::silent;
use crate::harness::peers::{Suite, free_port, node_exporter, pushgateway};
use crate::harness::{JOBMON, Process, gateway, http, job, sample, temporary_directory, wait_for};

#[test]
fn a_gateway_that_is_down_costs_a_line_and_the_deadline() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let start = Instant::now();
    let output =
        job(["--push-url", &url, "--push-deadline", "1s", "--", "sh", "-c", "echo hi; exit 7"]).run();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!((output.code, output.stdout.as_str()), (7, "hi\n"));
    assert!(output.stderr.starts_with(&format!(
        "jobmon: the result of the run could not be pushed url={url}/ error=\"Connection refused"
    )));
    assert_eq!(output.stderr.lines().count(), 1);
}

#[test]
fn a_gateway_that_comes_back_in_time_gets_the_result() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let directory = temporary_directory();
    let mark = directory.path().join("ended");
    let mark_path = mark.to_str().expect("plain");
    let mut run =
        job(["--push-url", &url, "--job", "x", "--push-deadline", "20s", "--", "touch", mark_path]).start();
    // The command has ended, so delivery begins, before the gateway starts.
    wait_for("the command to end", || mark.exists().then_some(()));
    let gateway = crate::harness::gateway_at(&format!("127.0.0.1:{port}"));
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"x\"}"), Some(1.0));
}

#[test]
fn a_gateway_that_never_answers_costs_the_deadline() {
    // The kernel accepts, nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let start = Instant::now();
    let output =
        job(["--push-url", &url, "--push-deadline", "1s", "--", "sh", "-c", "sleep 0.3; exit 7"]).run();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(output.code, 7);
    assert!(output.stderr.starts_with("jobmon: the result of the run could not be pushed"), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1);
}

/// However late the server answers what was pushed during the run, the end is what it knows last.
#[test]
fn the_last_report_arrives_last() {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    for (process, url) in [(&ours.process, &ours.url), (&theirs.process, &theirs.url)] {
        let directory = temporary_directory();
        let log = directory.path().join("log");
        let script =
            "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo \"big$i $i\"; done > $JOBMON_METRICS; sleep 0.4";
        process.signal(Signal::SIGSTOP);
        let arguments =
            ["--push-url", url, "--push-deadline", "20s", "--log-level", "debug", "--job", "x", "--"];
        let mut command = job(arguments).arguments(&["sh", "-c", script]).command();
        let mut run = Process(
            command.stderr(fs::File::create(&log).expect("a file")).spawn().expect("the program is built"),
        );
        // The last report is under way when its predecessor has been left alone.
        wait_for("the predecessor not to be waited for any more", || {
            let log = fs::read_to_string(&log).expect("readable");
            log.contains("progress not pushed in time").then_some(())
        });
        process.signal(Signal::SIGCONT);
        assert_eq!(run.end().code(), Some(0));
        let text = http::get(&format!("{url}/metrics")).text();
        let value = |name: &str| sample(&text, &format!("{name}{{instance=\"\",job=\"x\"}}"));
        assert_eq!((value("jobmon_running"), value("jobmon_success")), (Some(0.0), Some(1.0)), "{url}");
    }
}

/// A network that holds the first request up until the last one has been answered.
#[test]
fn what_is_served_after_the_last_report_is_not_what_stays() {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    for url in [&ours.url, &theirs.url] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let held_up = format!("http://{}", listener.local_addr().expect("bound"));
        let host = http::split(url).0.to_owned();
        let directory = temporary_directory();
        let go = directory.path().join("go");
        let script = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
        let (release, released) = std::sync::mpsc::channel();
        let network = std::thread::spawn(move || {
            let (first, _) = listener.accept().expect("the first push");
            fs::write(go, "").expect("writable");
            let (last, _) = listener.accept().expect("the last push");
            let last = std::thread::spawn({
                let host = host.clone();
                move || http::relay(last, &host)
            });
            released.recv().expect("it is released");
            http::relay(first, &host);
            last.join().expect("no panic");
        });
        let mut run = job(["--push-url", &held_up, "--job", "x", "--", "sh", "-c", &script]).start();
        let running = || {
            let text = http::get(&format!("{url}/metrics")).text();
            sample(&text, "jobmon_running{instance=\"\",job=\"x\"}")
        };
        wait_for("the last push", || (running()? < 0.5).then_some(()));
        release.send(()).expect("it waits");
        assert_eq!(run.end().code(), Some(0));
        network.join().expect("no panic");
        assert_eq!(running(), Some(0.0), "{url}");
    }
}

#[test]
fn a_short_deadline_still_tells_what_was_lost() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let output =
        job(["--push-url", &url, "--push-deadline", "300ms", "--", "sh", "-c", "sleep 0.3; exit 7"]).run();
    assert_eq!((output.code, output.stderr.lines().count()), (7, 1), "{output:?}");
}

#[test]
fn labels_that_could_spoil_every_push_do_not() {
    let gateway = gateway();
    for arguments in
        [&["--label", "a=1", "--label", "a=2"][..], &["--grouping", "kind=x"], &["--label", "kind=x"]]
    {
        let arguments =
            [&["--push-url", &gateway.url, "--job", "l"][..], arguments, &["--", "true"]].concat();
        let output = job(arguments).run();
        assert!(output.code == 0 && !output.stderr.contains("could not be pushed"), "{output:?}");
    }
    let text = gateway.scrape();
    assert!(sample(&text, "jobmon_context_switches{instance=\"\",job=\"l\",kind=\"voluntary\"}").is_some());
}

#[test]
fn a_job_whose_name_is_too_long_runs() {
    let name = "a".repeat(131_066);
    let output = job(["--no-push", "--job", &name, "--", "sh", "-c", "exit 7"]).run();
    assert_eq!(output, silent(7));
    let url = format!("http://127.0.0.1:{}", free_port());
    let output = job(["--push-url", &url, "--job", &name, "--", "sh", "-c", "exit 7"]).run();
    assert_eq!((output.code, output.stderr.lines().count()), (7, 1));
}

#[test]
fn a_supervised_supervisor_is_a_job_of_its_own() {
    let gateway = gateway();
    let script = format!("{JOBMON} -- sh -c 'exit 3'; true");
    let output =
        job(["--job", "outer", "--", "sh", "-c", &script]).env("JOBMON_PUSH_URL", &gateway.url).run();
    assert_eq!(output, silent(0));
    let code =
        |job_name: &str| gateway.sample(&format!("jobmon_exit_code{{instance=\"\",job=\"{job_name}\"}}"));
    assert_eq!((code("outer"), code("sh")), (Some(0.0), Some(3.0)));
}

/// A server that gives each connection the next of these answers, and keeps the requests.
pub fn scripted(answers: &[&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
    scripted_at("127.0.0.1:0", answers)
}

/// The same at an address.
pub fn scripted_at(
    address: &str,
    answers: &[&'static str],
) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let answers = answers.to_vec();
    let listener = TcpListener::bind(address).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let n = stream.read(&mut buffer).expect("readable");
                request.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|l| {
                        l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                    });
                    if length.and_then(|l| l.parse::<usize>().ok()) == Some(body.len()) {
                        requests.push(text);
                        break;
                    }
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
        requests
    });
    (url, server)
}

#[test]
fn what_may_pass_is_tried_again_with_the_whole_body() {
    let (url, server) = scripted(&[
        "HTTP/1.1 503 x\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 429 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ]);
    assert_eq!(job(["--push-url", &url, "--", "true"]).run(), silent(0));
    let requests = server.join().expect("no panic");
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert!(request.starts_with("POST /metrics/job/true?expect=0&run_id="), "{request}");
        let body = |request: &str| request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        assert_eq!(body(request), body(&requests[0]));
    }
}

#[test]
fn variables_are_options_and_several_servers_all_get_it() {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    let output = job(["--", "true"])
        .env("JOBMON_PUSH_URL", format!("{},{}/", ours.url, theirs.url))
        .env("JOBMON_JOB", "from env")
        .env("JOBMON_INSTANCE", "i")
        .env("JOBMON_GROUPING", "a=1,b=/x")
        .run();
    assert_eq!(output, silent(0));
    let series = "jobmon_success{a=\"1\",b=\"/x\",instance=\"i\",job=\"from env\"}";
    assert_eq!(ours.sample(series), Some(1.0));
    assert_eq!(sample(&theirs.metrics(), series), Some(1.0));
}

#[test]
fn a_name_is_looked_up_and_a_socket_is_found() {
    let gateway = gateway();
    let by_name = gateway.url.replace("127.0.0.1", "localhost");
    assert_eq!(job(["--push-url", &by_name, "--job", "named", "--", "true"]).run(), silent(0));
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"named\"}"), Some(1.0));

    let directory = temporary_directory();
    let path = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 24];
        stream.read_exact(&mut head).expect("readable");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("writable");
        // Read on, so that the rest of the request does not reset the connection.
        let _ = stream.read_to_end(&mut Vec::new());
        head
    });
    assert_eq!(job(["--push-url", &format!("unix:{}", path.display()), "--", "true"]).run(), silent(0));
    assert_eq!(&server.join().expect("no panic"), b"POST /metrics/job/true?e");
}

#[test]
fn a_dry_run_prints_what_would_be_sent() {
    let gateway = gateway();
    let url = gateway.url.replace("http://", "http://user:secret@") + "?token=secret";
    let script = "echo 'items 5' > $JOBMON_METRICS; exit 2";
    let output = job([
        "--push-url",
        &url,
        "--textfile-dir",
        "/d",
        "--job",
        "x",
        "--ttl",
        "1.5",
        "--dry-run",
        "--",
        "sh",
        "-c",
        script,
    ])
    .run();
    assert_eq!(output.code, 2);
    let start = format!("jobmon: would POST to {}/metrics/job/x?expect=0&ttl=1500ms&run_id=", gateway.url);
    let rest = output.stderr.strip_prefix(&start).unwrap_or_else(|| panic!("{output:?}"));
    let (run_id, rest) = rest.split_once("&run_outcome=failure\n").expect("more lines");
    assert!(run_id.len() == 32 && run_id.chars().all(|c| c.is_ascii_hexdigit()), "{run_id}");
    assert!(rest.starts_with("jobmon: would write /d/jobmon_x.prom\n# HELP jobmon_"), "{rest}");
    assert!(
        output.stderr.contains("\njobmon_exit_code 2\n")
            && output.stderr.ends_with("# TYPE items untyped\nitems 5\n")
    );
    assert!(!gateway.scrape().contains("job=\"x\""));
}

#[test]
fn a_short_run_sends_one_push_and_a_longer_one_its_start() {
    let gateway = gateway();
    let pushes =
        || gateway.sample("pushgateway_http_push_size_bytes_count{method=\"post\"}").unwrap_or_default();
    // On a busy machine even `true` may take long; what counts is how long it took.
    let short = wait_for("a short run", || {
        let before = pushes();
        job(["--push-url", &gateway.url, "--job", "x", "--", "true"]).run();
        let duration =
            gateway.sample("jobmon_duration_seconds{instance=\"\",job=\"x\"}").expect("a duration");
        (duration < 0.1).then(|| pushes() - before)
    });
    assert!((short - 1.0).abs() < 0.1, "{short}");
    let before = pushes();
    job(["--push-url", &gateway.url, "--push-interval", "0", "--", "sleep", "0.4"]).run();
    assert!((pushes() - before - 2.0).abs() < 0.1);
}

#[test]
fn node_exporter_serves_the_textfile() {
    let directory = temporary_directory();
    let exporter = node_exporter(directory.path());
    let dir = directory.path().to_str().expect("plain");
    let run = |ending: &str| {
        let script = format!("umask 077; echo 'items 5' > $JOBMON_METRICS; {ending}");
        job(["--textfile-dir", dir, "--job", "a/b", "--instance=h", "--", "sh", "-c", &script]).run()
    };
    assert_eq!(run("exit 0"), silent(0));
    assert_eq!(run("exit 4"), silent(4));
    let text = exporter.metrics();
    let own = |name: &str| sample(&text, &format!("{name}{{instance=\"h\",job=\"a/b\"}}"));
    assert_eq!((own("jobmon_exit_code"), own("items")), (Some(4.0), Some(5.0)), "{text}");
    assert!(own("jobmon_last_success_timestamp_seconds") <= own("jobmon_last_failure_timestamp_seconds"));
    assert!(own("jobmon_last_success_timestamp_seconds").is_some());
    assert_eq!(sample(&text, "node_textfile_scrape_error"), Some(0.0));

    let output = job(["--textfile-dir", "/does/not/exist", "--", "sh", "-c", "exit 3"]).run();
    assert_eq!(output.code, 3);
    assert!(
        output
            .stderr
            .starts_with("jobmon: the result of the run could not be written, see --textfile-dir path="),
        "{output:?}"
    );
}

/// Nothing that can come after the command's start comes before it.
#[test]
fn nothing_is_prepared_before_the_command_runs() {
    let directory = temporary_directory();
    let trace = directory.path().join("trace");
    let url = format!("http://127.0.0.1:{}", free_port());
    let status = Command::new("strace")
        .args(["-f", "-e", "trace=socket,connect,clone,clone3,fork,vfork,execve,openat,open", "-o"])
        .arg(&trace)
        .args([JOBMON, "--push-url", &url, "--push-deadline", "100ms", "--", "true"])
        .env("JOBMON_SPOOL_DIR", directory.path().join("spool"))
        .stderr(Stdio::null())
        .status()
        .expect("strace is there");
    assert!(status.success());
    let trace = fs::read_to_string(&trace).expect("written");
    let before: Vec<&str> = trace.lines().skip(1).take_while(|line| !line.contains("execve(")).collect();
    assert!(before.len() < trace.lines().count() - 2, "the command was executed: {trace}");
    let threads = before.iter().filter(|line| line.contains("CLONE_THREAD")).count();
    let forks = before.iter().filter(|line| line.contains("clone(") || line.contains("fork(")).count();
    assert_eq!((threads, forks), (0, 1), "{before:#?}");
    for word in ["socket(", "connect(", "resolv.conf", "/etc/hosts", "ssl", "certs"] {
        assert!(!before.iter().any(|line| line.contains(word)), "{word}: {before:#?}");
    }
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_gateway() {
    let gateway = gateway();
    let body: String = (0..50_000).map(|i| format!("a{{i=\"{i}\"}} 1\n")).collect();
    assert_eq!(http::put(&format!("{}/metrics/job/x", gateway.url), body.as_bytes()).status, 200);
    for _ in 0..20 {
        let (host, _) = http::split(&gateway.url);
        let mut stream = std::net::TcpStream::connect(host).expect("connected");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut some = [0; 100];
        stream.read_exact(&mut some).expect("an answer begins");
    }
    assert_eq!(http::get(&format!("{}/-/healthy", gateway.url)).status, 200);
}
