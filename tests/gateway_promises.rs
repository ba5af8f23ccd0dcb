//! What pushes promise to a gateway, and what becomes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::http::{get, post, put, request};
use crate::harness::peers::{Suite, free_port, prometheus_with};
use crate::harness::{
    Gateway, JOBMON, gateway, gateway_at, gateway_in, gateway_with, job, sample, temporary_directory,
    wait_for,
};

fn accepted(url: &str, body: &str) {
    let answer = post(url, body.as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{url}");
}

/// What is known of the only group of a job.
fn group(gateway: &Gateway, job: &str) -> Option<Value> {
    let answer = get(&format!("{}/api/v1/groups?match[]=%7Bjob%3D%22{job}%22%7D", gateway.url));
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    answer["data"]["groups"].get(0).cloned()
}

fn runs(gateway: &Gateway, job: &str) -> Value {
    let id = group(gateway, job).expect("there is a group")["id"].as_str().expect("a text").to_owned();
    let answer = get(&format!("{}/api/v1/groups/{id}/runs", gateway.url));
    serde_json::from_slice::<Value>(&answer.body).expect("JSON")["data"].clone()
}

/// Whether a group exposes anything but when it was pushed and what it promised.
fn is_exposed(gateway: &Gateway, job: &str) -> bool {
    let exposition = gateway.scrape();
    let mut lines = exposition.lines();
    lines.any(|line| line.contains(&format!("job=\"{job}\"")) && !line.starts_with("push_"))
}

#[test]
fn series_go_and_push_times_stay_for_a_while() {
    let gateway = gateway_with(&["--push.tombstone-retention=1s"]);
    accepted(&format!("{}/metrics/job/x?ttl=1s&expect=500ms", gateway.url), "m 1\n");
    assert!(is_exposed(&gateway, "x"));
    assert_eq!(gateway.sample(r#"push_up{instance="",job="x"}"#), Some(1.0));
    let (pushed, expected) = (
        gateway.sample(r#"push_time_seconds{instance="",job="x"}"#).expect("it is there"),
        gateway.sample(r#"push_expected_time_seconds{instance="",job="x"}"#).expect("it is there"),
    );
    assert!((expected - pushed - 0.5).abs() < 0.001, "{expected} {pushed}");
    wait_for("the next push to be overdue", || {
        gateway.sample(r#"push_up{instance="",job="x"}"#).filter(|up| *up == 0.0)
    });
    wait_for("the series to go", || (!is_exposed(&gateway, "x")).then_some(()));
    assert_eq!(gateway.sample(r#"push_time_seconds{instance="",job="x"}"#), Some(pushed));
    assert_eq!(gateway.sample(r#"push_up{instance="",job="x"}"#), Some(0.0));
    wait_for("the rest to go", || group(&gateway, "x").is_none().then_some(()));
    assert!(!gateway.scrape().contains("job=\"x\""));
    accepted(&format!("{}/metrics/job/x", gateway.url), "m 1\n");
    assert!(is_exposed(&gateway, "x") && !gateway.scrape().contains("push_up{"), "nothing is left of it");
}

/// As people type it: `curl -g` sends all of it as it is.
#[test]
fn selectors_may_be_typed_as_they_are() {
    let gateway = gateway();
    for job in ["x", "y"] {
        accepted(&format!("{}/metrics/job/{job}", gateway.url), "m 1\n");
    }
    let mut curl = Command::new("curl");
    curl.args(["-gsfX", "DELETE"]).arg(format!("{}/api/v1/groups?match[]={{job=\"x\"}}", gateway.url));
    let output = curl.output().expect("curl is there");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"deleted\":1"), "{output:?}");
    assert!(group(&gateway, "x").is_none() && group(&gateway, "y").is_some());
}

#[test]
fn flags_say_what_holds_where_nothing_is_asked_for() {
    let gateway =
        gateway_with(&["--push.default-ttl=1s", "--push.max-ttl=36h", "--liveness.metric-name=job_up"]);
    accepted(&format!("{}/metrics/job/plain", gateway.url), "m 1\n");
    accepted(&format!("{}/metrics/job/long?ttl=1y&expect=1h", gateway.url), "m 1\n");
    accepted(&format!("{}/metrics/job/ever?ttl=0", gateway.url), "m 1\n");
    wait_for("the default to hold", || (!is_exposed(&gateway, "plain")).then_some(()));
    assert!(is_exposed(&gateway, "long"));
    // Nobody keeps series for longer than is allowed.
    let ever = group(&gateway, "ever").expect("it is there");
    assert_eq!(ever["ttl"]["seconds"], Value::from(36.0 * 3600.0));
    let long = group(&gateway, "long").expect("it is there");
    assert_eq!((&long["ttl"]["seconds"], &long["state"]), (&Value::from(36.0 * 3600.0), &Value::from("up")));
    assert_eq!(gateway.sample(r#"job_up{instance="",job="long"}"#), Some(1.0));
    assert!(!gateway.scrape().contains("push_up"));
    // It is the gateway's own now, and never taken from a push.
    accepted(&format!("{}/metrics/job/other", gateway.url), "# TYPE job_up counter\njob_up 7\npush_up 8\n");
    assert_eq!(gateway.sample(r#"job_up{instance="",job="other"}"#), None);
    assert_eq!(gateway.sample(r#"push_up{instance="",job="other"}"#), Some(8.0));
    assert_eq!(gateway.sample("jobmon_gateway_left_out_families_total"), Some(1.0), "and that is told");
}

#[test]
fn series_stay_for_ever_if_that_is_asked_for() {
    let gateway = gateway_with(&["--push.default-ttl=1s"]);
    for (job, query) in [("kept", "?ttl=0"), ("plain", "")] {
        accepted(&format!("{}/metrics/job/{job}{query}", gateway.url), "m 1\n");
    }
    accepted(&format!("{}/metrics/job/kept", gateway.url), "n 1\n");
    wait_for("the default to hold", || (!is_exposed(&gateway, "plain")).then_some(()));
    assert!(is_exposed(&gateway, "kept"), "that holds on");
}

/// The push of a skipped run is not the one that was promised.
#[test]
fn a_skipped_run_moves_no_promise() {
    let directory = temporary_directory();
    let storage = format!("--storage.path={}", directory.path().display());
    let mut gateway = gateway_with(&[&storage]);
    let url = format!("{}/metrics/job/x", gateway.url);
    let skip = |at: f64| format!("jobmon_last_skip_timestamp_seconds {at}\n");
    let expected = |gateway: &Gateway| {
        gateway.sample(r#"push_expected_time_seconds{instance="",job="x"}"#).expect("it is promised")
    };
    accepted(&format!("{url}?expect=1h"), &final_push(0));
    let promised = expected(&gateway);
    accepted(&url, &skip(1.8e9));
    assert_eq!(expected(&gateway).to_bits(), promised.to_bits());
    gateway.process.signal(nix::sys::signal::Signal::SIGKILL);
    gateway.process.end();
    gateway = gateway_with(&[&storage]);
    assert_eq!(expected(&gateway).to_bits(), promised.to_bits());
    // Whoever knows when the next run is due says so.
    let url = format!("{}/metrics/job/x", gateway.url);
    accepted(&format!("{url}?expect=2h"), &skip(1.9e9));
    assert!(expected(&gateway) > promised + 3500.0);
    accepted(&format!("{url}?expect=1ms"), "jobmon_running 1\n");
    let up = || gateway.sample(r#"push_up{instance="",job="x"}"#);
    wait_for("the next push to be overdue", || up().filter(|up| *up == 0.0));
    accepted(&url, &skip(2e9));
    assert_eq!(up(), Some(0.0), "it does not come by a skip");
    accepted(&format!("{url}?expect=1h&run_id=c&run_outcome=signal"), &final_push(143));
    assert_eq!(up(), Some(1.0));
    let counts = &runs(&gateway, "x")["counts"];
    let counts = ["success", "skipped", "signal", "failure"].map(|name| counts[name].as_u64());
    assert_eq!(counts, [Some(1), Some(3), Some(1), Some(0)]);
}

const RULES: &str = "
rules:
- match: '{job=~\"nightly-.*\"}'
  expect: 25h
  ttl: 36h
  limits: {series: 2, body_size: 40B}
- match: '{job=\"short\"}'
  ttl: 1s
";

#[test]
fn rules_say_what_holds_for_some_groups() {
    let directory = temporary_directory();
    let file = directory.path().join("rules.yml");
    fs::write(&file, RULES).expect("writable");
    let flag = format!("--push.rules-file={}", file.display());
    let gateway = gateway_with(&[&flag]);
    let url = |job: &str| format!("{}/metrics/job/{job}", gateway.url);
    accepted(&url("nightly-backup"), "m 1\n");
    accepted(&url("short"), "m 1\n");
    let nightly = || group(&gateway, "nightly-backup").expect("it is there");
    assert_eq!(
        (&nightly()["expect"]["seconds"], &nightly()["ttl"]["seconds"]),
        (&90_000.0.into(), &129_600.0.into())
    );
    // What a push asks for comes first, and when it takes that back, the rule holds again.
    accepted(&format!("{}?expect=1h", url("nightly-backup")), "m 1\n");
    assert_eq!(nightly()["expect"]["seconds"], 3600.0);
    accepted(&format!("{}?expect=0", url("nightly-backup")), "m 1\n");
    assert_eq!(nightly()["expect"]["seconds"], 90_000.0);
    wait_for("the other rule to hold", || (!is_exposed(&gateway, "short")).then_some(()));
    let answer = post(&url("nightly-backup"), b"a 1\nb 1\nc 1\n");
    assert_eq!(
        (
            answer.status,
            answer.text().contains("more than 2 series in one push, which a rule of --push.rules-file")
        ),
        (422, true),
        "{}",
        answer.text()
    );
    let answer = post(&url("nightly-backup"), &[b'#'; 41]);
    assert_eq!(
        (answer.status, answer.text().contains("--push.rules-file")),
        (413, true),
        "{}",
        answer.text()
    );
    accepted(&url("others"), "a 1\nb 1\nc 1\nd 1\ne 1\nf 1\ng 1\nh 1\ni 1\nj 1\nk 1\n");
}

#[test]
fn a_wrong_rules_file_is_told_at_the_start() {
    let directory = temporary_directory();
    let file = directory.path().join("rules.yml");
    for (text, problem) in [
        (Some("rules: [{match: 'up', ttl: 1h}]"), "rule 1, up: a selector begins with {"),
        (Some("rules: [{match: '{job=\"x\"}', ttl: soon}]"), ": write a duration such as"),
        (Some("rules: [{match: '{job=\"x\"}', tll: 1h}]"), "tll"),
        (None, "No such file"),
    ] {
        let _ = fs::remove_file(&file);
        text.into_iter().for_each(|text| fs::write(&file, text).expect("writable"));
        let mut command = Command::new(JOBMON);
        command.args(["gateway", "--web.listen-address=127.0.0.1:0", "--push.rules-file"]).arg(&file);
        let output = command.output().expect("it is built");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--push.rules-file: ") && stderr.contains(problem), "{stderr}");
    }
}

fn final_push(exit_code: u8) -> String {
    format!(
        "jobmon_end_timestamp_seconds 1.7e9\njobmon_duration_seconds 2.5\njobmon_exit_code {exit_code}\njobmon_success {}\n",
        u8::from(exit_code == 0)
    )
}

#[test]
fn each_run_counts_once() {
    let directory = temporary_directory();
    let storage = format!("--storage.path={}", directory.path().display());
    let mut gateway = gateway_with(&[&storage]);
    for round in 0..2 {
        for (id, code) in [("a1", 0), ("a1", 0), ("b2", 3), ("a1", 0), ("b2", 3)] {
            accepted(&format!("{}/metrics/job/x?run_id={id}", gateway.url), &final_push(code));
        }
        let told = runs(&gateway, "x");
        let counts = &told["counts"];
        assert_eq!(
            (&counts["success"], &counts["failure"], &counts["signal"]),
            (&1.into(), &1.into(), &0.into())
        );
        assert_eq!(told["runs"].as_array().map(Vec::len), Some(2), "{told}");
        let count = |outcome: &str| {
            gateway.sample(&format!(r#"jobmon_runs_total{{instance="",job="x",outcome="{outcome}"}}"#))
        };
        assert_eq!([count("success"), count("failure"), count("oom")], [Some(1.0), Some(1.0), Some(0.0)]);
        let duration = |rest: &str| gateway.sample(&format!("jobmon_run_duration_seconds_{rest}"));
        assert_eq!(duration(r#"count{instance="",job="x"}"#), Some(2.0));
        assert_eq!(duration(r#"sum{instance="",job="x"}"#), Some(5.0));
        assert_eq!(duration(r#"bucket{instance="",job="x",le="1"}"#), Some(0.0));
        assert_eq!(duration(r#"bucket{instance="",job="x",le="5"}"#), Some(2.0));
        if round == 0 {
            // Known runs are known after a crash, too.
            gateway.process.signal(nix::sys::signal::Signal::SIGKILL);
            gateway.process.end();
            gateway = gateway_with(&[&storage]);
        }
    }
}

/// Runs of which no push arrives are counted with the first that does.
#[test]
fn runs_of_an_outage_are_counted_when_it_is_over() {
    let spool = temporary_directory();
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let run = |code: &str| {
        let arguments =
            ["--push-url", &url, "--push-deadline", "100ms", "--job", "x", "-q", "--", "sh", "-c"];
        let job = job(arguments).env("JOBMON_SPOOL_DIR", spool.path()).env("JOBMON_NO_SPOOL", "0");
        job.arguments(&[&format!("exit {code}")]).run()
    };
    for code in ["0", "3", "0", "0"] {
        assert_eq!(run(code).code.to_string(), code);
    }
    let gateway = gateway_at(&address);
    let flush = || {
        job(["spool", "flush", "--spool-dir"])
            .env("JOBMON_NO_SPOOL", "0")
            .arguments(&[spool.path().to_str().expect("plain")])
            .run()
    };
    assert_eq!(flush().code, 0);
    let counts = || runs(&gateway, "x")["counts"].clone();
    assert_eq!((&counts()["success"], &counts()["failure"]), (&3.into(), &1.into()));
    run("0");
    assert_eq!((&counts()["success"], &counts()["failure"]), (&4.into(), &1.into()));
    assert_eq!(runs(&gateway, "x")["runs"].as_array().map(Vec::len), Some(5));
}

#[test]
fn prometheus_takes_the_histogram_of_runs_in_both_forms() {
    let gateway = gateway();
    for (id, duration) in [("1", 0.2), ("2", 3.0), ("3", 700.0), ("4", 700.0)] {
        let body = final_push(0).replace("2.5", &duration.to_string());
        accepted(&format!("{}/metrics/job/x?run_id={id}", gateway.url), &body);
    }
    let classic = prometheus_with(Suite::Release, &gateway.url, &[]);
    let native = prometheus_with(Suite::Newest, &gateway.url, &["--enable-feature=native-histograms"]);
    let count = wait_for("the native form", || native.query("histogram_count(jobmon_run_duration_seconds)"));
    assert!((count - 4.0).abs() < 0.1, "{count}");
    let median = native.query("histogram_quantile(0.75, jobmon_run_duration_seconds)").expect("it is there");
    assert!((640.0..750.0).contains(&median), "{median}");
    let count = wait_for("the classic form", || classic.query("jobmon_run_duration_seconds_count"));
    assert!((count - 4.0).abs() < 0.1, "{count}");
    assert_eq!(
        classic
            .query(r#"jobmon_run_duration_seconds_bucket{le="5.0"}"#)
            .or_else(|| { classic.query(r#"jobmon_run_duration_seconds_bucket{le="5"}"#) }),
        Some(2.0)
    );
    assert_eq!([&classic, &native].map(|prometheus| prometheus.query("up")), [Some(1.0), Some(1.0)]);
}

fn faketime_library() -> PathBuf {
    let found = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output();
    String::from_utf8_lossy(&found.expect("sh is there").stdout).trim().into()
}

/// The clock that everybody sees is set forward and back; what is promised falls due by the other one.
#[test]
fn a_clock_that_is_set_changes_nothing() {
    let directory = temporary_directory();
    let clock = directory.path().join("clock");
    let set = |offset: &str| {
        let new = directory.path().join("new");
        fs::write(&new, format!("{offset}\n")).expect("writable");
        fs::rename(&new, &clock).expect("one directory");
    };
    set("+0");
    let environment: [(&str, &Path); 4] = [
        ("LD_PRELOAD", &faketime_library()),
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_NO_CACHE", Path::new("1")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
    ];
    let gateway = gateway_in(&environment, &[]);
    let url = |job: &str, query: &str| format!("{}/metrics/job/{job}?{query}", gateway.url);
    accepted(&url("long", "expect=1h&ttl=2h"), "m 1\n");
    let pushed = gateway.sample(r#"push_time_seconds{instance="",job="long"}"#).expect("it is there");
    set("+1d");
    accepted(&url("clock", ""), "m 1\n");
    let now = gateway.sample(r#"push_time_seconds{instance="",job="clock"}"#).expect("it is there");
    assert!(now - pushed > 80_000.0, "the clock was set");
    accepted(&url("short", "expect=500ms"), "m 1\n");
    let up = |job: &str| gateway.sample(&format!(r#"push_up{{instance="",job="{job}"}}"#));
    wait_for("the short promise to be broken", || up("short").filter(|up| *up == 0.0));
    assert_eq!((up("long"), is_exposed(&gateway, "long")), (Some(1.0), true));
    set("-1d");
    accepted(&url("short", "expect=500ms"), "m 1\n");
    assert_eq!(up("short"), Some(1.0));
    wait_for("the short promise to be broken again", || up("short").filter(|up| *up == 0.0));
    assert_eq!(up("long"), Some(1.0));
}

#[test]
fn nonsense_promises_are_refused_by_name() {
    let gateway = gateway();
    for (query, text) in [
        ("ttl=soon", "the parameter ttl=\"soon\": write a duration such as 90s, 1m30s, 250ms"),
        ("expect=-1", "the parameter expect=\"-1\": write a duration"),
        ("expect=1&expect=2", "the parameter expect=\"2\": it is given twice"),
        ("run_id=%22", "the parameter run_id=\"\\\"\": write up to 32 hexadecimal digits"),
        ("earlier_run=1", "the parameter earlier_run=\"1\": write ID,END,DURATION,EXIT,OUTCOME"),
    ] {
        for method in ["PUT", "POST", "PATCH"] {
            let answer = request(method, &format!("{}/metrics/job/x?{query}", gateway.url), &[], b"m 1\n");
            assert_eq!(answer.status, 400, "{query}");
            assert!(answer.text().starts_with(text), "{}", answer.text());
        }
    }
    assert!(group(&gateway, "x").is_none(), "nothing was stored");
    // To a Pushgateway these mean nothing, and so they do here.
    let answer = put(&format!("{}/metrics/job/x?unknown=1&&=&ttl2=x", gateway.url), b"m 1\n");
    assert_eq!(answer.status, 200);
    assert_eq!(sample(&gateway.scrape(), r#"m{instance="",job="x"}"#), Some(1.0));
}
