//! The metrics that the command writes.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{quiet, silent};
use crate::harness::{Output, gateway, job, sample, temporary_directory, wait_for};

#[test]
fn what_was_written_before_the_end_is_never_lost() {
    let gateway = gateway();
    for round in 0..20 {
        let script = format!(
            "for i in 1 2 3; do echo \"items {round}\" > $JOBMON_METRICS; done; printf 'last {round}' > $JOBMON_METRICS"
        );
        assert_eq!(
            job(["--push-url", &gateway.url, "--job", "x", "--", "sh", "-c", &script]).run(),
            silent(0)
        );
        let text = gateway.scrape();
        for name in ["items", "last"] {
            assert_eq!(sample(&text, &format!("{name}{{instance=\"\",job=\"x\"}}")), Some(f64::from(round)));
        }
    }
}

#[test]
fn a_grandchild_that_keeps_the_fifo_open_delays_nothing() {
    let script = "sleep 60 <> $JOBMON_METRICS & echo 'a 1' > $JOBMON_METRICS; exit 2";
    let start = Instant::now();
    let mut run = quiet(&["sh", "-c", script]).start();
    assert_eq!(run.end().code(), Some(2));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn bad_lines_are_counted_and_named_once() {
    let gateway = gateway();
    let script = r#"printf 'good 1\nbad x\njobmon_success 5\nlate 1 1395066363000\na{job="y"} 1\n' > "$JOBMON_METRICS""#;
    let output = job(["--push-url", &gateway.url, "--job", "x", "--", "sh", "-c", script]).run();
    assert_eq!(output.code, 0);
    assert_eq!(
        output.stderr,
        "jobmon: metrics of the command were refused refused=4 line=2 reason=\"expected float as value, got \\\"x\\\"\"\n"
    );
    let text = gateway.scrape();
    for (name, value) in [
        ("good", 1.0),
        ("jobmon_success", 1.0),
        ("jobmon_child_samples", 1.0),
        ("jobmon_child_samples_rejected", 4.0),
    ] {
        assert_eq!(sample(&text, &format!("{name}{{instance=\"\",job=\"x\"}}")), Some(value), "{name}");
    }
}

#[test]
fn a_metrics_file_works_like_the_fifo() {
    let gateway = gateway();
    let script = r#"[ -f "$JOBMON_METRICS" ] || exit 9; echo 'a 1' >> "$JOBMON_METRICS"; echo 'a 2' >> "$JOBMON_METRICS""#;
    assert_eq!(
        job(["--push-url", &gateway.url, "--metrics", "file", "--job", "x", "--", "sh", "-c", script]).run(),
        silent(0)
    );
    assert_eq!(gateway.sample("a{instance=\"\",job=\"x\"}"), Some(2.0));
    // Without a place to write to, scripts that write do not break.
    let script = r#"set -e; echo 'a 1' > "$JOBMON_METRICS""#;
    assert_eq!(job(["--no-push", "--metrics", "off", "--", "sh", "-c", script]).run(), silent(0));
}

#[test]
fn the_fifo_is_private_and_goes_with_the_run() {
    let directory = temporary_directory();
    let script = r#"stat -c '%a %F' "$JOBMON_METRICS" "$(dirname "$JOBMON_METRICS")"; echo "$JOBMON_JOB ${#JOBMON_RUN_ID}""#;
    for (ending, code) in [("exit 0", 0), ("kill -KILL $$", 137)] {
        let output = job(["--no-push", "--job", "x", "--", "sh", "-c", &format!("{script}; {ending}")])
            .env("TMPDIR", directory.path())
            .run();
        assert_eq!(
            output,
            Output { code, stdout: "600 fifo\n700 directory\nx 32\n".to_owned(), stderr: String::new() }
        );
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
    }
    // No usable TMPDIR: another place is found.
    let output =
        job(["--no-push", "--", "sh", "-c", "[ -p $JOBMON_METRICS ]"]).env("TMPDIR", "/does/not/exist").run();
    assert_eq!(output, silent(0));
}

/// The supervisor dies, the command neither hangs nor dies when it goes on writing.
#[test]
fn a_killed_supervisor_does_not_harm_the_command() {
    let directory = temporary_directory();
    let mark = directory.path().join("done");
    let script = format!(
        "echo up > {0}.up; while [ ! -e {0}.go ]; do sleep 0.02; done; for i in 1 2 3; do echo 'a 1' > $JOBMON_METRICS || exit 1; done; touch {0}",
        mark.display()
    );
    let mut run = quiet(&["sh", "-c", &script]).env("TMPDIR", directory.path()).start();
    wait_for("the command", || mark.with_extension("up").exists().then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    fs::write(mark.with_extension("go"), "").expect("writable");
    wait_for("the command to end well", || mark.exists().then_some(()));
}
