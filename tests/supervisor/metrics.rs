//! The metrics that the command writes.

use super::silent;
use crate::harness::{gateway, job, sample};

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
