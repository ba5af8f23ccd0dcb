//! From a command to a real Prometheus.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::harness::peers::{Suite, prometheus, prometheus_every, pushgateway};
use crate::harness::{gateway, http, job, released_gateway, sample, wait_for};

/// Counts items until it is told how to end: by a code, or by a signal of its own.
const COUNTING_JOB: &str = r#"
    echo '# TYPE processed_items counter' > "$JOBMON_METRICS"
    i=0
    while [ ! -e "$1" ]; do
        i=$((i + 1))
        echo "processed_items $i" > "$JOBMON_METRICS"
        sleep 0.1
    done
    eval "$2"
"#;

#[test]
fn prometheus_sees_a_job_run_and_end() {
    let gateway = gateway();
    let prometheus = prometheus(Suite::Newest, &gateway.url);
    for (name, ending, exit_code, term_signal) in [
        ("succeeding", "exit 0", 0, 0.0),
        ("failing", "exit 3", 3, 0.0),
        ("signalled", "kill -KILL $$", 137, 9.0),
    ] {
        let directory = crate::harness::temporary_directory();
        let stop = directory.path().join("stop");
        let stop_path = stop.to_str().expect("a plain path");
        let mut run = job([
            "--job",
            name,
            "--push-url",
            &gateway.url,
            "--push-interval",
            "300ms",
            "--",
            "sh",
            "-c",
            COUNTING_JOB,
            "job",
            stop_path,
            ending,
        ])
        .start();
        let query = |metric: &str| prometheus.query(&format!("{metric}{{job=\"{name}\"}}"));

        let first = wait_for("the first items", || query("processed_items"));
        wait_for("more items", || query("processed_items").filter(|items| *items > first));
        assert_eq!(query("jobmon_running"), Some(1.0));
        assert_eq!(query("jobmon_success"), None, "a run that goes on has no result");

        std::fs::write(&stop, "").expect("writable");
        assert_eq!(run.end().code(), Some(exit_code));
        let duration = wait_for("the result", || query("jobmon_duration_seconds"));
        assert!(duration > 0.1, "{duration}");
        assert_eq!(query("jobmon_exit_code"), Some(f64::from(exit_code)));
        assert_eq!(query("jobmon_success"), Some(if exit_code == 0 { 1.0 } else { 0.0 }));
        assert_eq!(query("jobmon_term_signal"), Some(term_signal));
        assert_eq!(query("jobmon_running"), Some(0.0));
        // Everything that was written before the end has arrived.
        let last = query("processed_items").expect("the last items");
        assert_eq!(query("jobmon_child_samples"), Some(last));
        let when = if exit_code == 0 { "success" } else { "failure" };
        assert!(
            query(&format!("jobmon_last_{when}_timestamp_seconds")) > query("jobmon_start_timestamp_seconds")
        );
    }
    assert_eq!(prometheus.query("up"), Some(1.0));
}

/// The alerts of the README are queries that Prometheus understands, and the first one finds a failed job.
#[test]
fn the_alerts_of_the_readme_work() {
    let gateway = gateway();
    let prometheus = prometheus(Suite::Newest, &gateway.url);
    assert_eq!(
        job(["--job", "backup", "--push-url", &gateway.url, "--", "sh", "-c", "exit 1"]).run().code,
        1
    );
    wait_for("the result", || prometheus.query("jobmon_exit_code{job=\"backup\"}"));
    let readme = std::fs::read_to_string(crate::harness::project().join("README.md")).expect("text");
    let block =
        readme.split("```promql").nth(1).and_then(|rest| rest.split("```").next()).expect("the alerts");
    let alerts: Vec<&str> = block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(alerts.len(), 6);
    let fires: Vec<bool> = alerts.iter().map(|alert| prometheus.query(alert).is_some()).collect();
    assert_eq!(fires, [true, false, false, false, false, false]);
}

#[test]
fn the_supervisor_pushes_to_a_real_pushgateway() {
    for suite in [Suite::Release, Suite::Newest] {
        let pushgateway = pushgateway(suite);
        let script = r#"echo 'items{kind="a/b"} 5' > "$JOBMON_METRICS""#;
        let run = |job_name: &str, ending: &str| {
            let script = format!("{script}; {ending}");
            job([
                "--job",
                job_name,
                "--grouping",
                "path=/var/tmp",
                "--label",
                "env=x",
                "--push-url",
                &pushgateway.url,
                "--",
                "sh",
                "-c",
                &script,
            ])
            .run()
        };
        for (job_name, ending, code) in
            [("ok", "exit 0", 0), ("bad", "exit 9", 9), ("killed", "kill -TERM $$", 143)]
        {
            let output = run(job_name, ending);
            assert_eq!((output.code, output.stderr.as_str()), (code, ""), "{suite:?}");
            let text = pushgateway.metrics();
            let labels = format!("env=\"x\",instance=\"\",job=\"{job_name}\"");
            let own = |name: &str| sample(&text, &format!("{name}{{{labels},path=\"/var/tmp\"}}"));
            assert_eq!(own("jobmon_exit_code"), Some(f64::from(code)), "{text}");
            assert_eq!(own("jobmon_success"), Some(if code == 0 { 1.0 } else { 0.0 }));
            assert_eq!(
                sample(&text, &format!("items{{{labels},kind=\"a/b\",path=\"/var/tmp\"}}")),
                Some(5.0),
                "{text}"
            );
        }
        // The same group fails later: when it last ended well is still known.
        run("ok", "exit 1");
        let text = pushgateway.metrics();
        let own = |name: &str| {
            sample(&text, &format!("{name}{{env=\"x\",instance=\"\",job=\"ok\",path=\"/var/tmp\"}}"))
        };
        assert!(own("jobmon_last_success_timestamp_seconds") < own("jobmon_last_failure_timestamp_seconds"));
        assert_eq!(own("jobmon_success"), Some(0.0));
    }
}

/// A gateway that refuses the command's metrics still gets the exit code.
#[test]
fn one_bad_metric_never_costs_the_exit_code() {
    for suite in [Suite::Release, Suite::Newest] {
        let pushgateway = pushgateway(suite);
        let other = format!("{}/metrics/job/other", pushgateway.url);
        crate::harness::http::put(&other, b"# TYPE items counter\nitems 1\n");
        let script = "printf '# TYPE items gauge\\nitems 5\\n' > $JOBMON_METRICS; exit 4";
        let output = job(["--push-url", &pushgateway.url, "--job", "x", "--", "sh", "-c", script]).run();
        assert_eq!(output.code, 4);
        assert!(
            output
                .stderr
                .starts_with("jobmon: the command's metrics were refused, pushing without them url="),
            "{output:?}"
        );
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        let text = pushgateway.metrics();
        let own = |name: &str| sample(&text, &format!("{name}{{instance=\"\",job=\"x\"}}"));
        assert_eq!(own("jobmon_exit_code"), Some(4.0));
        assert_eq!(
            (own("jobmon_child_samples"), own("jobmon_child_samples_rejected")),
            (Some(0.0), Some(1.0))
        );
        assert_eq!(own("items"), None);
    }
}

#[test]
fn a_signal_reaches_the_command_and_its_result_prometheus() {
    let gateway = gateway();
    let prometheus = prometheus(Suite::Release, &gateway.url);
    let mut run = job(["--job", "stopped", "--push-url", &gateway.url, "--", "sleep", "1000"]).start();
    wait_for("the run to be seen", || prometheus.query("jobmon_running{job=\"stopped\"} == 1"));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(143));
    wait_for("its end to be seen", || prometheus.query("jobmon_exit_code{job=\"stopped\"} == 143"));
    assert_eq!(prometheus.query("jobmon_term_signal{job=\"stopped\"}"), Some(15.0));
}

const MANY_GROUPS: usize = 100_000;

/// Pushes ten series to each of many groups, over one connection, on which requests do not wait for answers.
fn push_many(host: &str, groups: std::ops::Range<usize>) {
    let stream = TcpStream::connect(host).expect("it listens");
    let mut answers = BufReader::new(stream.try_clone().expect("copied"));
    let body = (0..10).fold(String::new(), |mut body, i| {
        write!(body, "# TYPE many_{i} gauge\nmany_{i} {i}.5\n").expect("a String grows");
        body
    });
    let groups: Vec<usize> = groups.collect();
    for some in groups.chunks(100) {
        let requests = some.iter().fold(String::new(), |mut requests, group| {
            let path = format!("/metrics/job/many/instance/machine-{group}");
            write!(
                requests,
                "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .expect("a String grows");
            requests
        });
        (&stream).write_all(requests.as_bytes()).expect("taken");
        for _ in some {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(answers.read_line(&mut head).expect("an answer"), 0, "{head}");
            }
            assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 0\r\n"), "{head}");
        }
    }
}

/// All of what a large fleet pushes arrives in one scrape, compressed as Prometheus asks for it.
#[test]
fn a_real_prometheus_scrapes_more_than_a_million_series() {
    let gateway = released_gateway();
    let (host, _) = http::split(&gateway.url);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let groups = part * MANY_GROUPS / 4..(part + 1) * MANY_GROUPS / 4;
            scope.spawn(move || push_many(host, groups));
        }
    });
    let prometheus = prometheus_every(10, Suite::Newest, &gateway.url, &[]);
    wait_for("a scrape", || prometheus.query("up"));
    let samples = prometheus.query("scrape_samples_scraped").expect("it tells of each scrape");
    let error = http::get(&format!("{}/api/v1/targets", prometheus.url)).text();
    assert_eq!((prometheus.query("up"), samples >= 12.0 * MANY_GROUPS as f64), (Some(1.0), true), "{error}");
    assert!(error.contains(r#""lastError":"""#), "{error}");
    for i in 0..10_u32 {
        let query = |query: &str| prometheus.query(&query.replace('$', &format!("many_{i}")));
        assert_eq!(query("count($)"), Some(MANY_GROUPS as f64));
        assert_eq!(query("min($)"), Some(f64::from(i) + 0.5));
        assert_eq!(query("max($)"), Some(f64::from(i) + 0.5));
    }
    assert_eq!(prometheus.query("count(push_time_seconds)"), Some(MANY_GROUPS as f64));
    // It asked for gzip, and this is what it got.
    let zipped =
        http::request("GET", &format!("{}/metrics", gateway.url), &[("Accept-Encoding", "gzip")], b"");
    let mut text = String::new();
    flate2::bufread::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).expect("one stream of gzip");
    assert!(zipped.body.len() < text.len() / 5, "{} bytes", zipped.body.len());
    assert_eq!(text.lines().filter(|line| line.starts_with("many_")).count(), 10 * MANY_GROUPS);
}
