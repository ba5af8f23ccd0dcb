//! The page for people, in a real browser.

use std::path::Path;

use crate::harness::http::put;
use crate::harness::peers::python;
use crate::harness::{gateway_in, wait_for};

/// What jobmon pushes of a run that has ended.
fn run(end_seconds: u32, duration_seconds: f64, exit_code: u8) -> String {
    let success = u8::from(exit_code == 0);
    format!(
        "jobmon_end_timestamp_seconds {end_seconds}\njobmon_duration_seconds {duration_seconds}\n\
         jobmon_exit_code {exit_code}\njobmon_success {success}\n"
    )
}

#[test]
fn chromium_reads_unfolds_deletes_and_is_told_when_that_fails() {
    let gateway = gateway_in(&[("TZ", Path::new("UTC"))], &["--web.enable-admin-api"]);
    let accepted = |path: &str, body: &str| {
        let answer = put(&format!("{}{path}", gateway.url), body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    accepted("/metrics/job/backup?run_id=a1&expect=1h", &run(1_000_000_000, 1.5, 0));
    accepted("/metrics/job/backup?run_id=b2&expect=1h", &run(1_000_000_100, 3723.25, 3));
    accepted("/metrics/job/late?expect=1ms", "m 1\n");
    let markup = r#"<img src="x" onerror="window.pushed = 1">"#;
    let quoted = markup.replace('"', "\\\"");
    accepted("/metrics/job/markup", &format!("# HELP m {markup}\nm{{x=\"{quoted}\"}} 1\n"));
    put(&format!("{}/metrics/job/refused", gateway.url), b"m 1 5\n");
    wait_for("a group to be overdue", || {
        (gateway.sample(r#"push_up{instance="",job="late"}"#) == Some(0.0)).then_some(())
    });
    python(include_str!("page/visit.py"), &[&gateway.url, &gateway.process.id().to_string()]);
}
