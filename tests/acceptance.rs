//! Every row of the acceptance table, sent by curl to our gateway and to the newest Pushgateway.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::gateway;
use crate::harness::peers::{Suite, pushgateway};
use crate::table::{Answer, ROWS, Row, large_bodies};

/// `curl --data-binary`: the status and the text.
fn curl(url: &str, body: &[u8]) -> (String, String) {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--request", "PUT", "--data-binary", "@-"])
        .args(["--header", "Expect:", "--write-out", "\n%{http_code}", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is there");
    child.stdin.take().expect("piped").write_all(body).expect("curl reads all");
    let output = child.wait_with_output().expect("curl ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, status) = text.rsplit_once('\n').expect("the status is on the last line");
    (status.to_owned(), text.to_owned())
}

fn assert_answer(server: &str, url: &str, row: &Row) {
    let (status, text) = curl(url, row.body);
    let body = row.body.escape_ascii();
    let wrong = format!("{server} answered {status} {text:?} to {body}");
    let inconsistent = "pushed metrics are invalid or inconsistent with existing metrics: ";
    match &row.answer {
        Answer::Ok => assert!(status == "200" && text.is_empty(), "{wrong}"),
        Answer::Parse(line, message) => {
            let expected = format!("text format parsing error in line {line}: {message}\n");
            assert!(status == "400" && text == expected, "{wrong}");
        }
        Answer::Store(message) => {
            assert!(status == "400" && text.starts_with(inconsistent), "{wrong}");
            let text = &text[inconsistent.len()..];
            let fits = match message.strip_suffix('…') {
                Some(beginning) => text.starts_with(beginning),
                None => text == format!("{message}\n"),
            };
            assert!(fits, "{wrong}");
        }
    }
}

/// Each row has a group of its own, which goes again, so that rows do not meet.
fn assert_rows(server: &str, url: &str, rows: impl Iterator<Item = &'static Row>) {
    let group = format!("{url}/metrics/job/table");
    for row in rows {
        assert_answer(server, &group, row);
        crate::harness::http::request("DELETE", &group, &[], b"");
    }
}

#[test]
fn our_gateway_answers_every_row_as_the_table_says() {
    let gateway = gateway();
    assert_rows("our gateway", &gateway.url, ROWS.iter());
    for (name, body) in large_bodies() {
        let (status, text) = curl(&format!("{}/metrics/job/table", gateway.url), &body);
        assert_eq!((status.as_str(), text.as_str()), ("200", ""), "{name}");
    }
}

#[test]
fn a_real_pushgateway_agrees_with_the_table() {
    let pushgateway = pushgateway(Suite::Newest);
    assert_rows("the Pushgateway", &pushgateway.url, ROWS.iter().filter(|row| row.differs.is_none()));
}

/// What is stored is shown alike: the exposition of every accepted row is the same but for the times of the pushes.
#[test]
fn accepted_rows_are_exposed_as_by_a_real_pushgateway() {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    let pushed = |url: &str, body: &[u8]| {
        let group = format!("{url}/metrics/job/table/name/value");
        crate::harness::http::put(&group, body);
        let text = crate::harness::http::get(&format!("{url}/metrics")).text();
        let own = [
            "pushgateway_",
            "process_",
            "go_",
            "jobmon_gateway_",
            "push_time_seconds{",
            "push_failure_time_seconds{",
        ];
        let name = |line: &str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").to_owned();
        let lines = text.lines().filter(|line| !own.iter().any(|prefix| name(line).starts_with(prefix)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for row in ROWS.iter().filter(|row| matches!(row.answer, Answer::Ok)) {
        let body = row.body.escape_ascii();
        if DEDUPLICATED.iter().any(|part| row.body.starts_with(part)) {
            continue;
        }
        assert_eq!(pushed(&ours.url, row.body), pushed(&theirs.url, row.body), "{body}");
    }
}

/// Rows with two buckets or quantiles of one bound: a Pushgateway exposes both, and Prometheus drops one of them with a
/// warning at every scrape; we expose one.
const DEDUPLICATED: [&[u8]; 2] = [
    b"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"}",
    b"# TYPE s summary\ns{quantile=\"2\"}",
];
