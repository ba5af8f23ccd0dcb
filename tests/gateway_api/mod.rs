//! The gateway's API.

mod document;
mod groups;
mod pushes;

use std::fs;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::harness::http::{Answer, request};
use crate::harness::{Gateway, gateway_with, temporary_directory, wait_for};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const STATES: [&str; 5] = ["failed", "overdue", "expired", "up", "unpromised"];

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Gateway {
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        request(method, &format!("{}{path}", self.url), &[], body.as_bytes())
    }

    /// Sends what has to be done, and is answered with nothing but a status.
    fn done(&self, method: &str, path: &str, body: &str) {
        let answer = self.ask(method, path, body);
        let expected = if method == "DELETE" { 202 } else { 200 };
        assert_eq!((answer.status, answer.text().as_str()), (expected, ""), "{method} {path} {body}");
    }

    /// The text of a refusal.
    fn refused(&self, status: u16, method: &str, path: &str, body: &str) -> String {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body} {}", answer.text());
        answer.text()
    }

    /// The data of an answer of the API.
    fn data(&self, method: &str, path: &str) -> Value {
        let answer = self.ask(method, path, "");
        assert_eq!(answer.status, 200, "{method} {path} {}", answer.text());
        let mut answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["status"], "success");
        answer["data"].take()
    }

    /// The jobs of the groups that are listed for a query.
    fn jobs(&self, query: &str) -> Vec<String> {
        jobs(&self.data("GET", &format!("/api/v1/groups?limit=1000&{query}")))
    }

    /// What is stored, without the push times and the gateway's own.
    fn pushed(&self, path: &str) -> Vec<String> {
        let text = self.ask("GET", path, "").text();
        text.lines().filter(|line| !line.starts_with(['#', 'p'])).map(str::to_owned).collect()
    }
}

/// The jobs in a list of groups.
fn jobs(data: &Value) -> Vec<String> {
    let groups = data["groups"].as_array().expect("a list").iter();
    groups.map(|group| group["labels"]["job"].as_str().expect("a job").to_owned()).collect()
}

/// Makes a group in each state, of the job of its name.
fn push_every_state(gateway: &Gateway) {
    gateway.done("PUT", "/metrics/job/up?expect=1h&ttl=2h", "# HELP m what\n# TYPE m counter\nm 1\n");
    gateway.done("PUT", "/metrics/job/unpromised", "# TYPE m counter\nm 1\n");
    gateway.done("PUT", "/metrics/job/overdue?expect=1ms", "n 1\n");
    gateway.done("PUT", "/metrics/job/expired?ttl=1ms", "n 1\n");
    gateway.done("PUT", "/metrics/job/failed?expect=1h", "n 1\n");
    gateway.refused(400, "PUT", "/metrics/job/failed", "n 1 5\n");
    gateway.refused(400, "PUT", "/metrics/job/failed/never/pushed", "n 1 5\n");
    for state in ["overdue", "expired"] {
        wait_for(state, || (gateway.jobs(&format!("state={state}")) == [state]).then_some(()));
    }
}

const RUN: &str = "jobmon_end_timestamp_seconds 1700000000.5\njobmon_duration_seconds 9.25\njobmon_success 1\n\
                   jobmon_exit_code 0\n";
const ALL_TYPES: &str = "# HELP s with \"quotes\"\n# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 1e+21\ns_count 3\n\
    # TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum -Inf\nh_count 2\n\
    # TYPE c counter\nc{x=\"1\"} 1e-7\nc{x=\"2\"} 12345.678\n# TYPE g gauge\ng -0\nu +Inf\nlabels 1\n";

fn id_of(gateway: &Gateway, job: &str) -> String {
    let groups =
        gateway.data("GET", &format!("/api/v1/groups?match[]={}", encoded(&format!("{{job=\"{job}\"}}"))));
    groups["groups"][0]["id"].as_str().expect("it is there").to_owned()
}

/// A gateway where the token `team` may do everything with jobs of team a, and `reader` may read.
fn gateway_with_tokens() -> (tempfile::TempDir, Gateway) {
    let directory = temporary_directory();
    let config = directory.path().join("web.yml");
    let digest = |secret: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
        digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    };
    let text = format!(
        "tokens:\n- {{name: team, sha256: {}, scopes: [push, delete, read], jobs: 'a-.*'}}\n\
         - {{name: reader, sha256: {}, scopes: [read]}}\n\
         - {{name: all, sha256: {}, scopes: [push, delete, read]}}\n",
        digest("team"),
        digest("reader"),
        digest("all")
    );
    fs::write(&config, text).expect("writable");
    let gateway = gateway_with(&["--web.config.file", config.to_str().expect("a plain path")]);
    (directory, gateway)
}
