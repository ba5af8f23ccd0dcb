//! The gateway's API: what its document says and what it answers, and pushes that a Pushgateway does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;

use jobmon::exposition::{Limits, MetricType, protobuf};
use nix::sys::signal::Signal;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::harness::http::{Answer, get, request};
use crate::harness::{Gateway, gateway, gateway_with, peers, project, temporary_directory, wait_for};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const STATES: [&str; 5] = ["failed", "overdue", "expired", "up", "unpromised"];

fn document() -> String {
    fs::read_to_string(project().join("src/gateway/openapi.json")).expect("text")
}

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

/// Answers as they came, with the paths of the document that they belong to.
#[derive(Default)]
struct Seen(Vec<Value>);

impl Seen {
    fn ask(&mut self, gateway: &Gateway, method: &str, template: &str, path: &str, body: &str) -> Answer {
        self.ask_with(gateway, method, template, path, &[], body)
    }

    fn ask_with(
        &mut self,
        gateway: &Gateway,
        method: &str,
        template: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let answer = request(method, &format!("{}{path}", gateway.url), headers, body.as_bytes());
        let headers: BTreeMap<_, _> =
            answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let media_type = answer.header("content-type").and_then(|value| value.split(';').next());
        self.0.push(json!({
            "method": method, "template": template, "path": path, "status": answer.status,
            "headers": headers, "type": media_type, "body": answer.text(),
        }));
        answer
    }

    /// Validates all of them against the schemas of the document.
    fn validate(&self) {
        let directory = temporary_directory();
        let file = directory.path().join("seen.json");
        fs::write(&file, serde_json::to_vec(&self.0).expect("JSON")).expect("writable");
        let document = project().join("src/gateway/openapi.json");
        let paths = [&document, &file].map(|path| path.to_str().expect("a plain path"));
        let text = peers::python(VALIDATE, &paths);
        assert_eq!(text.trim(), self.0.len().to_string());
    }
}

/// Each answer must be among those of its operation, with its headers, and its body as the schema says. A member that the
/// schema does not know must not pass.
const VALIDATE: &str = r##"
import copy, json, sys
from jsonschema import Draft202012Validator
document, seen = (json.load(open(name)) for name in sys.argv[1:])
formats = Draft202012Validator.FORMAT_CHECKER
assert "date-time" in formats.checkers
def resolved(node):
    while "$ref" in node:
        name, node = node["$ref"], document
        for part in name.removeprefix("#/").split("/"): node = node[part]
    return node
for answer in seen:
    operation = document["paths"][answer["template"]][answer["method"].lower()]
    assert str(answer["status"]) in operation["responses"], answer
    response = resolved(operation["responses"][str(answer["status"])])
    for name, header in response.get("headers", {}).items():
        assert name.lower() in answer["headers"] or not header.get("required"), (name, answer)
    if "content" not in response:
        assert answer["body"] == "", answer
        continue
    schema = {"components": document["components"], **response["content"][answer["type"]]["schema"]}
    validator = Draft202012Validator(schema, format_checker=formats)
    body = json.loads(answer["body"]) if answer["type"] == "application/json" else answer["body"]
    errors = [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(body)]
    assert not errors, (errors, answer)
    if isinstance(body, dict) and isinstance(body.get("data"), dict):
        strange = copy.deepcopy(body)
        strange["data"]["nobody_knows"] = 1
        assert not validator.is_valid(strange), answer["template"]
print(len(seen))
"##;

#[test]
fn the_document_is_served_and_valid() {
    let gateway = gateway();
    let answer = get(&format!("{}/api/v1/openapi.json", gateway.url));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.text(), document());
    let parsed: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(parsed["openapi"], "3.1.0");
    assert_eq!(parsed["info"]["version"], env!("CARGO_PKG_VERSION"));
    let script = "import json, sys\nfrom openapi_spec_validator import OpenAPIV31SpecValidator\n\
                  for error in OpenAPIV31SpecValidator(json.load(open(sys.argv[1]))).iter_errors():\n    print(error)\n";
    let path = project().join("src/gateway/openapi.json");
    assert_eq!(peers::python(script, &[path.to_str().expect("a plain path")]), "");
}

/// What the router knows by name is in the document.
#[test]
fn every_path_is_in_the_document() {
    let document = document();
    let source = fs::read_to_string(project().join("src/gateway/route.rs")).expect("text");
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let paths: BTreeSet<&str> = code.split('"').filter(|text| text.starts_with('/')).collect();
    let paths: Vec<&str> = paths.into_iter().filter(|path| !path.contains(char::is_whitespace)).collect();
    assert!(paths.len() >= 12, "{paths:?}");
    for path in paths {
        assert!(document.contains(path), "{path} is not in the document");
    }
}

const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT", "TRACE"];

/// Follows a reference.
fn resolved<'d>(document: &'d Value, node: &'d Value) -> &'d Value {
    match node["$ref"].as_str() {
        Some(name) => document.pointer(&name[1..]).expect("it is there"),
        None => node,
    }
}

/// A request that an operation is meant for: its path with examples for parameters, and its query.
fn example(document: &Value, template: &str, operation: Option<&Value>) -> String {
    let shared = document["paths"][template]["parameters"].as_array();
    let own = operation.and_then(|operation| operation["parameters"].as_array());
    let (mut path, mut query) = (template.to_owned(), String::new());
    for parameter in shared.into_iter().chain(own).flatten() {
        let parameter = resolved(document, parameter);
        let name = parameter["name"].as_str().expect("a name");
        let example = match &parameter["example"] {
            Value::Array(values) => {
                let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
                values.join(",")
            }
            value => value.as_str().unwrap_or_default().to_owned(),
        };
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), &example);
        } else if parameter["in"] == "query" && parameter["required"] == true {
            write!(query, "?{}={}", encoded(name), encoded(&example)).expect("a String grows");
        }
    }
    path + &query
}

#[test]
fn every_operation_of_the_document_is_there_and_no_other() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let mut gateway = gateway_with(&["--web.enable-admin-api", "--web.enable-lifecycle"]);
    let mut operations = 0;
    for (template, item) in document["paths"].as_object().expect("paths") {
        for method in METHODS {
            let operation = item.get(method.to_ascii_lowercase());
            let path = example(&document, template, operation);
            gateway.done("PUT", "/metrics/job/backup/instance/db-1", "m 1\n");
            let body = operation.map_or(&Value::Null, |operation| {
                &operation["requestBody"]["content"]["text/plain"]["example"]
            });
            let answer = gateway.ask(method, &path, body.as_str().unwrap_or_default());
            let Some(operation) = operation else {
                assert_eq!(answer.status, 405, "{method} {path}");
                continue;
            };
            operations += 1;
            assert!(
                (200..300).contains(&answer.status),
                "{method} {path} {} {}",
                answer.status,
                answer.text()
            );
            assert!(operation["responses"].get(answer.status.to_string()).is_some(), "{method} {path}");
            if template == "/-/quit" {
                assert!(gateway.process.end().success());
                gateway = gateway_with(&["--web.enable-admin-api", "--web.enable-lifecycle"]);
            }
        }
        assert_eq!(gateway.ask("OPTIONS", &example(&document, template, None), "").status, 200);
    }
    assert!(operations > 40, "{operations}");
}

/// Where GET is, HEAD is: the same but for the body.
#[test]
fn head_answers_as_get_does() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let gateway = gateway();
    gateway.done("PUT", "/metrics/job/backup/instance/db-1", "m 1\n");
    for (template, item) in document["paths"].as_object().expect("paths") {
        let Some(operation) = item.get("get") else { continue };
        assert!(item.get("head").is_some(), "{template}");
        let path = example(&document, template, Some(operation));
        for path in [path.clone(), path.replace("L2", "x")] {
            let [whole, head] = ["GET", "HEAD"].map(|method| gateway.ask(method, &path, ""));
            assert_eq!((head.status, head.text().as_str()), (whole.status, ""), "{path}");
            // What changes with every request is as long as it may be.
            let names = |answer: &Answer| -> BTreeSet<_> {
                answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
            };
            assert_eq!(names(&head), names(&whole), "{path}");
            assert_eq!(head.header("content-type"), whole.header("content-type"), "{path}");
        }
    }
}

/// A native and a classic histogram with their count and sum.
fn native_histogram() -> Vec<u8> {
    use jobmon::exposition::family::{Count, Histogram, NativeBuckets, NativeHistogram, Span};
    use jobmon::exposition::{Labels, Metric, MetricFamily, Value};
    let native = NativeHistogram {
        positive: NativeBuckets {
            spans: vec![Span { offset: 0, length: 1 }],
            deltas: vec![3],
            counts: Vec::new(),
        },
        ..NativeHistogram::default()
    };
    let histogram = Histogram {
        count: Count::Integer(3),
        sum: 4.5,
        native: Some(Box::new(native)),
        ..Histogram::default()
    };
    let value = Value::Histogram(Box::new(histogram));
    let metrics = vec![Metric { labels: Labels::default(), value, timestamp_ms: None }];
    let mut body = Vec::new();
    protobuf::encode(
        &mut body,
        [&MetricFamily { metrics, ..MetricFamily::new("nh", MetricType::Histogram) }],
    );
    body
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

#[test]
fn answers_are_as_the_document_says() {
    let (gateway, mut seen) = (gateway(), Seen::default());
    push_every_state(&gateway);
    gateway.done("PUT", "/metrics/job/types/empty@base64/=", ALL_TYPES);
    let url = format!("{}/metrics/job/native", gateway.url);
    assert_eq!(request("PUT", &url, &[("Content-Type", PROTOBUF)], &native_histogram()).status, 200);
    let runs = "run_id=ab&earlier_run=ac,1699999999,3,1,failure&earlier_run=ad,1699999998,0,0,skipped";
    gateway.done("PUT", &format!("/metrics/job/runs?{runs}&expect=1.5"), RUN);

    let page = seen.ask(&gateway, "GET", "/api/v1/groups", "/api/v1/groups?limit=1000", "");
    let page: Value = serde_json::from_slice(&page.body).expect("JSON");
    let groups = page["data"]["groups"].as_array().expect("groups");
    let states: BTreeSet<_> = groups.iter().filter_map(|group| group["state"].as_str()).collect();
    assert_eq!(states, BTreeSet::from(STATES));
    for id in groups.iter().filter_map(|group| group["id"].as_str()) {
        let group = "/api/v1/groups/{id}";
        seen.ask(&gateway, "GET", group, &format!("/api/v1/groups/{id}"), "");
        seen.ask(&gateway, "GET", "/api/v1/groups/{id}/runs", &format!("/api/v1/groups/{id}/runs"), "");
    }
    for (method, template, path) in [
        ("GET", "/api/v1/groups", "/api/v1/groups?limit=1&sort=state"),
        ("GET", "/api/v1/groups", "/api/v1/groups?match[]={job=%22none%22}"),
        ("GET", "/api/v1/groups", "/api/v1/groups?limit=0"),
        ("GET", "/api/v1/groups/{id}", "/api/v1/groups/x"),
        ("GET", "/api/v1/groups/{id}/runs", "/api/v1/groups/x/runs"),
        ("GET", "/api/v1/status", "/api/v1/status"),
        ("GET", "/api/v1/metrics", "/api/v1/metrics"),
        ("GET", "/api/v1/openapi.json", "/api/v1/openapi.json"),
        ("GET", "/metrics", "/metrics"),
        ("GET", "/metrics/job/{job}", "/metrics/job/up"),
        ("GET", "/", "/"),
        ("GET", "/-/healthy", "/-/healthy"),
        ("GET", "/-/writable", "/-/writable"),
        ("PUT", "/-/quit", "/-/quit"),
        ("PUT", "/metrics", "/metrics"),
        ("PUT", "/metrics", "/metrics?group_by=instance"),
        ("PATCH", "/metrics/job/{job}", "/metrics/job/x?ttl=soon"),
        ("PUT", "/metrics/job/{job}/{labels}", "/metrics/job/x/a"),
        ("DELETE", "/api/v1/groups", "/api/v1/groups"),
        ("DELETE", "/api/v1/groups", "/api/v1/groups?dry_run=1&match[]={job=%22up%22}"),
        ("DELETE", "/api/v1/groups", "/api/v1/groups?match[]={job=~%22u.*%22}"),
        ("DELETE", "/metrics/job/{job}", "/metrics/job/none"),
    ] {
        seen.ask(&gateway, method, template, path, "");
    }
    let accept = [("Accept", PROTOBUF), ("Accept-Encoding", "zstd")];
    seen.ask_with(&gateway, "GET", "/metrics", "/metrics", &accept, "");
    seen.validate();
}

/// What only some gateways answer.
#[test]
fn refusals_are_as_the_document_says() {
    let mut seen = Seen::default();
    let gateway =
        gateway_with(&["--push.disable-consistency-check", "--limit.body-size=100B", "--limit.groups=3"]);
    seen.ask(&gateway, "PUT", "/metrics/job/{job}", "/metrics/job/a", "# TYPE m gauge\nm 1\n");
    seen.ask(&gateway, "POST", "/metrics/job/{job}", "/metrics/job/b", "# TYPE m counter\nm 1\n");
    let aside = seen.ask(
        &gateway,
        "GET",
        "/api/v1/groups/{id}",
        &format!("/api/v1/groups/{}", id_of(&gateway, "b")),
        "",
    );
    assert!(aside.text().contains("\"quarantined\":"), "{}", aside.text());
    seen.ask(&gateway, "GET", "/api/v1/metrics", "/api/v1/metrics", "");
    seen.ask(&gateway, "PATCH", "/metrics/job/{job}", "/metrics/job/a", &"# too long\n".repeat(10));
    for job in ["c", "d"] {
        seen.ask(&gateway, "PUT", "/metrics/job/{job}", &format!("/metrics/job/{job}"), "");
    }
    seen.ask(&gateway, "PUT", "/metrics", "/metrics?group_by=job", "m{job=\"e\"} 1\n");
    seen.ask(&gateway, "PUT", "/metrics/job/{job}", "/metrics/job/a/..", "");
    seen.ask(&gateway, "PUT", "/metrics/job/{job}", "/METRICS/job/a", "");
    seen.ask(&gateway, "PUT", "/api/v1/admin/wipe", "/api/v1/admin/wipe", "");
    let gateway = gateway_with(&["--limit.push-series=1", "--limit.header-size=8KiB"]);
    seen.ask(&gateway, "PATCH", "/metrics/job/{job}", "/metrics/job/a", "a 1\nb 1\n");
    let long = "x".repeat(9000);
    seen.ask_with(&gateway, "GET", "/metrics", "/metrics", &[("X", &long)], "");
    let (_directory, gateway) = gateway_with_tokens();
    seen.ask(&gateway, "GET", "/api/v1/groups", "/api/v1/groups", "");
    let reader = [("Authorization", "Bearer reader")];
    seen.ask_with(&gateway, "DELETE", "/api/v1/groups", "/api/v1/groups?match[]={a=%22b%22}", &reader, "");
    seen.ask_with(&gateway, "PUT", "/metrics", "/metrics?group_by=job", &reader, "");
    let statuses: BTreeSet<_> = seen.0.iter().filter_map(|answer| answer["status"].as_u64()).collect();
    for status in [200, 202, 301, 307, 401, 403, 404, 413, 422, 429, 431] {
        assert!(statuses.contains(&status), "{status} is not among {statuses:?}");
    }
    seen.validate();
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

/// The groups of all pages, and what is done between them.
fn all_pages(gateway: &Gateway, query: &str, mut between: impl FnMut(&Value)) -> Vec<Value> {
    let (mut groups, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.data("GET", &format!("/api/v1/groups?{query}{after}"));
        let of_page = page["groups"].as_array().expect("groups").clone();
        assert!(of_page.len() <= 4);
        groups.extend(of_page);
        let Some(next) = page["next"].as_str() else { return groups };
        assert_eq!(page["groups"].as_array().map(Vec::len), Some(4), "only the last page is not full");
        after = format!("&after={}", encoded(next));
        between(&page);
    }
}

/// What an order goes by: a state, a time, a key.
fn rank(order: &str, group: &Value) -> (usize, i64, Vec<(String, String)>) {
    let labels = group["labels"].as_object().expect("labels").iter();
    let key = labels.map(|(name, value)| (name.clone(), value.to_string())).collect();
    let time = group["push_time"].as_str().map(chrono::DateTime::parse_from_rfc3339);
    let time = time.map(|time| time.ok().and_then(|time| time.timestamp_nanos_opt()).expect("a time"));
    let state = STATES.iter().position(|state| group["state"] == *state);
    match order {
        "age" => (0, time.unwrap_or_default(), key),
        "state" => (state.expect("a state"), time.unwrap_or_default(), key),
        _ => (0, 0, key),
    }
}

#[test]
fn pages_give_each_group_once_and_in_order() {
    for order in ["key", "age", "state"] {
        let gateway = gateway();
        push_every_state(&gateway);
        // Not in the order of their names.
        for number in 0..19 {
            let promise = if number % 3 == 0 { "?expect=1h" } else { "" };
            gateway.done("PUT", &format!("/metrics/job/g{:02}/zone/a{promise}", number * 7 % 19), "k 1\n");
        }
        let query = format!("limit=4&sort={order}");
        let groups = all_pages(&gateway, &query, |_| ());
        assert_eq!(groups.len(), 25);
        let ranks: Vec<_> = groups.iter().map(|group| rank(order, group)).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{order} {ranks:?}");
        assert_eq!(gateway.data("GET", &format!("/api/v1/groups?sort={order}"))["groups"], json!(groups));

        // Groups come, and those go that were just seen, the last of each page among them.
        let mut seen = BTreeSet::new();
        let mut number = 0;
        let again = all_pages(&gateway, &query, |page| {
            number += 1;
            gateway.done("PUT", &format!("/metrics/job/a{number}"), "k 1\n");
            gateway.done("PUT", &format!("/metrics/job/z{number}?expect=1h"), "k 1\n");
            for group in [3, 1] {
                let labels = &page["groups"][group]["labels"];
                let known = labels["zone"].as_str().map(|zone| format!("/zone/{zone}")).unwrap_or_default();
                let job = labels["job"].as_str().expect("a job");
                gateway.done("DELETE", &format!("/metrics/job/{job}{known}"), "");
            }
        });
        for group in &again {
            assert!(seen.insert(group["id"].to_string()), "{order}: {group} is there twice");
        }
        let all = groups.iter().map(|group| group["id"].to_string());
        for id in all {
            assert!(seen.contains(&id), "{order}: {id} is missing");
        }
        assert!(again.iter().map(|group| rank(order, group)).is_sorted(), "{order}");
    }
}

fn selectors(all: &[&str]) -> String {
    all.iter().fold(String::new(), |query, one| query + "&match[]=" + &encoded(one))
}

#[test]
fn groups_are_selected_by_labels_and_state() {
    let gateway = gateway();
    push_every_state(&gateway);
    for (path, body) in
        [("a/zone/x", "m 1\n"), ("a/zone/y", "m 1\n"), ("b", "m 1\n"), ("b.c/zone/x", "m 1\n")]
    {
        gateway.done("PUT", &format!("/metrics/job/{path}"), body.replace('m', "k").as_str());
    }
    let all = ["a", "a", "b", "b.c", "expired", "failed", "failed", "overdue", "unpromised", "up"];
    for (query, expected) in [
        (selectors(&[]), &all[..]),
        (selectors(&["{job=\"a\"}"]), &["a", "a"]),
        (selectors(&["{job=\"a\",zone=\"y\"}"]), &["a"]),
        (selectors(&["{job!=\"a\",zone!=\"\"}"]), &["b.c"]),
        (selectors(&["{job=~\"b.?.?\"}"]), &["b", "b.c"]),
        (selectors(&["{job=~`b\\.c`}"]), &["b.c"]),
        (selectors(&["{job!~\".*[deo].*\"}"]), &["a", "a", "b", "b.c", "up"]),
        (selectors(&["{job=\"b\"}", "{zone=\"x\"}"]), &["a", "b", "b.c"]),
        (selectors(&["{zone=\"none\"}"]), &[]),
        ("state=up".to_owned(), &["up"]),
        ("state=failed&state=overdue".to_owned(), &["failed", "failed", "overdue"]),
        ("state=unpromised".to_owned() + &selectors(&["{job=~\"b.*|up\"}"]), &["b", "b.c"]),
    ] {
        assert_eq!(gateway.jobs(&query), expected, "{query}");
    }
    let labels = &gateway.data("GET", "/api/v1/groups?match[]={zone=%22y%22}")["groups"][0]["labels"];
    assert_eq!(*labels, json!({"job": "a", "zone": "y"}));
}

#[test]
fn exactly_the_selected_groups_are_deleted() {
    let gateway = gateway();
    for group in ["a", "a/zone/x", "b/zone/x", "c"] {
        gateway.done("PUT", &format!("/metrics/job/{group}"), "m 1\n");
    }
    gateway.done("PUT", "/metrics/job/c?expect=1h", "m 1\n");
    let delete = |query: &str| {
        let data = gateway.data("DELETE", &format!("/api/v1/groups?{query}"));
        (data["dry_run"] == true, data["deleted"].as_u64().expect("a number"), jobs(&data))
    };
    let zone = selectors(&["{zone=\"x\"}"]);
    let both = vec!["a".to_owned(), "b".to_owned()];
    for yes in ["1", "true", "YES", "on"] {
        assert_eq!(delete(&format!("dry_run={yes}{zone}")), (true, 0, both.clone()));
    }
    assert_eq!(gateway.jobs("").len(), 4);
    assert_eq!(delete(&format!("dry_run=0{zone}")), (false, 2, both));
    assert_eq!(delete(&zone), (false, 0, Vec::new()));
    assert_eq!(gateway.jobs(""), ["a", "c"]);
    assert!(!gateway.scrape().contains("zone"));
    assert_eq!(
        delete(&format!("state=up{}", selectors(&["{job=~\".+\"}"]))),
        (false, 1, vec!["c".to_owned()])
    );
    // Without a selector it is none: nobody means everything by accident.
    for query in ["", "state=unpromised", "match[]=", "match[]={}"] {
        let text = gateway.refused(400, "DELETE", &format!("/api/v1/groups?{query}"), "");
        assert!(text.contains("match[]"), "{text}");
    }
    assert_eq!(gateway.jobs(""), ["a"]);
}

#[test]
fn a_token_is_good_for_its_jobs_only() {
    let (_directory, gateway) = gateway_with_tokens();
    let ask = |token: &str, method: &str, path: &str, body: &str| {
        let credentials = format!("Bearer {token}");
        let headers = [("Authorization", credentials.as_str())];
        let answer = request(method, &format!("{}{path}", gateway.url), &headers, body.as_bytes());
        (answer.status, answer.text())
    };
    let jobs_of = |token: &str, method: &str, path: &str| {
        let (status, text) = ask(token, method, path, "");
        assert_eq!(status, 200, "{text}");
        jobs(&serde_json::from_str::<Value>(&text).expect("JSON")["data"])
    };
    let many = "m{job=\"a-x\"} 1\nm{job=\"b-x\"} 1\n";
    let together = "/metrics?group_by=job";
    assert_eq!(ask("team", "PUT", together, many).0, 403, "one of them is another team's");
    assert_eq!(ask("reader", "PUT", together, many).0, 403);
    assert_eq!(ask("all", "PUT", together, many).0, 200);
    assert_eq!(ask("team", "PUT", together, "m{job=\"a-x\"} 2\nm{job=\"a-y\"} 2\n").0, 200);
    assert_eq!(ask("team", "PATCH", "/metrics/job/b-x", "m 3\n").0, 403);
    assert_eq!(jobs_of("all", "GET", "/api/v1/groups"), ["a-x", "a-y", "b-x"]);
    assert_eq!(jobs_of("reader", "GET", "/api/v1/groups"), ["a-x", "a-y", "b-x"]);
    for order in ["key", "age", "state"] {
        assert_eq!(jobs_of("team", "GET", &format!("/api/v1/groups?sort={order}")), ["a-x", "a-y"]);
    }
    let (_, all) = ask("all", "GET", "/api/v1/groups?sort=age", "");
    let all: Value = serde_json::from_str(&all).expect("JSON");
    for group in all["data"]["groups"].as_array().expect("groups") {
        let is_theirs = group["labels"]["job"].as_str().is_some_and(|job| job.starts_with("a-"));
        for path in ["", "/runs"] {
            let path = format!("/api/v1/groups/{}{path}", group["id"].as_str().expect("an id"));
            assert_eq!(ask("team", "GET", &path, "").0, if is_theirs { 200 } else { 404 }, "{path}");
            assert_eq!(ask("all", "GET", &path, "").0, 200);
        }
    }
    assert_eq!(ask("team", "GET", "/metrics/job/b-x", ""), (200, String::new()));
    assert!(ask("team", "GET", "/metrics/job/a-x", "").1.contains("\nm{instance=\"\",job=\"a-x\"} 2\n"));
    let everything = format!("/api/v1/groups?{}", selectors(&["{job=~\".*\"}"]));
    assert_eq!(ask("reader", "DELETE", &everything, "").0, 403);
    assert_eq!(ask("reader", "DELETE", &format!("{everything}&dry_run=1"), "").0, 403);
    assert_eq!(jobs_of("team", "DELETE", &format!("{everything}&dry_run=1")), ["a-x", "a-y"]);
    assert_eq!(jobs_of("team", "DELETE", &everything), ["a-x", "a-y"]);
    assert_eq!(jobs_of("all", "GET", "/api/v1/groups"), ["b-x"]);
    assert_eq!(ask("nobody", "GET", "/api/v1/groups", "").0, 401);
}

#[test]
fn patch_changes_what_it_names_and_nothing_else() {
    let gateway = gateway();
    let group = "/metrics/job/x";
    let line = |text: &str| text.replace('}', ",instance=\"\",job=\"x\"}").replace("{,", "{");
    let expect = |all: &[&str]| {
        let all: Vec<_> = all.iter().map(|text| line(text)).collect();
        assert_eq!(gateway.pushed(group), all);
    };
    gateway.done("PATCH", group, "# HELP a old\n# TYPE a gauge\na{i=\"1\"} 1\na{i=\"2\"} 2\nb 1\n");
    expect(&["a{i=\"1\"} 1", "a{i=\"2\"} 2", "b{} 1"]);
    gateway.done("PATCH", group, "# HELP a new\n# TYPE a gauge\na{i=\"2\"} 3\na{i=\"0\"} 0\n");
    expect(&["a{i=\"0\"} 0", "a{i=\"1\"} 1", "a{i=\"2\"} 3", "b{} 1"]);
    assert!(gateway.scrape().contains("# HELP a new\n# TYPE a gauge\n"));
    // A sample without type has the one that is stored.
    gateway.done("PATCH", group, "a{i=\"1\"} 7\nc 1\n");
    expect(&["a{i=\"0\"} 0", "a{i=\"1\"} 7", "a{i=\"2\"} 3", "b{} 1", "c{} 1"]);
    assert!(gateway.scrape().contains("# HELP a new\n# TYPE a gauge\n"));
    gateway.done("PATCH", group, "# TYPE t counter\nt 1\n");
    gateway.done("PATCH", group, "t 2\n");
    assert!(gateway.scrape().contains("# TYPE t counter\nt{instance=\"\",job=\"x\"} 2\n"));
    let before = (gateway.pushed(group), gateway.sample("push_time_seconds{instance=\"\",job=\"x\"}"));
    for (body, problem) in [
        ("b 5\n# TYPE a counter\na{i=\"1\"} 5\n", "is not a GAUGE"),
        ("b 5\n# TYPE a histogram\na_count 1\n", "is not a GAUGE"),
        ("b 5\na{i=\"1\"} 5\na{i=\"1\"} 6\n", "collected before"),
        ("b 5\na{i=\"1\"} 5 7\n", "timestamps"),
    ] {
        let failed = "push_failure_time_seconds{instance=\"\",job=\"x\"}";
        let last = gateway.sample(failed);
        let text = gateway.refused(400, "PATCH", group, body);
        assert!(text.contains(problem), "{text}");
        assert!(gateway.sample(failed) > last, "the failure is noted");
        let after = (gateway.pushed(group), gateway.sample("push_time_seconds{instance=\"\",job=\"x\"}"));
        assert_eq!(after, before, "{body}");
    }
    gateway.refused(400, "PATCH", group, "b 5\nnonsense\n");
    assert_eq!(gateway.pushed(group), before.0);
    // Histograms and summaries are one metric each.
    gateway.done(
        "PUT",
        "/metrics/job/y",
        "# TYPE h histogram\nh_bucket{l=\"1\",le=\"1\"} 1\nh_count{l=\"1\"} 2\nh_count{l=\"2\"} 3\n",
    );
    gateway.done(
        "PATCH",
        "/metrics/job/y",
        "# TYPE h histogram\nh_bucket{l=\"1\",le=\"2\"} 4\nh_count{l=\"1\"} 5\n",
    );
    let h =
        |name: &str, labels: &str| gateway.sample(&format!("h_{name}{{instance=\"\",job=\"y\",l={labels}}}"));
    assert_eq!([h("bucket", "\"1\",le=\"1\""), h("bucket", "\"1\",le=\"2\"")], [None, Some(4.0)]);
    assert_eq!([h("count", "\"1\""), h("count", "\"2\"")], [Some(5.0), Some(3.0)]);
}

#[test]
fn groups_are_scraped_by_their_labels() {
    let gateway = gateway();
    for (path, body) in [
        ("x", "# HELP m what\n# TYPE m gauge\nm 1\n"),
        ("x/zone/a", "# TYPE m gauge\nm{l=\"1\"} 2\nn 2\n"),
        ("x/instance/i/zone/b", "# TYPE m gauge\nm 3\n"),
        ("y/zone/a", "# TYPE m gauge\nm 4\n"),
    ] {
        gateway.done("PUT", &format!("/metrics/job/{path}"), body);
    }
    let a = ["m{instance=\"\",job=\"x\",l=\"1\",zone=\"a\"} 2", "n{instance=\"\",job=\"x\",zone=\"a\"} 2"];
    let b = "m{instance=\"i\",job=\"x\",zone=\"b\"} 3";
    let bare = "m{instance=\"\",job=\"x\"} 1";
    for (path, expected) in [
        ("job/x", &[bare, a[0], b, a[1]][..]),
        ("job@base64/eA", &[bare, a[0], b, a[1]]),
        ("job/x/zone/a", &a),
        ("job/x/zone/b", &[b]),
        ("job/x/zone@base64/=", &[bare]),
        ("job/x/zone/c", &[]),
        ("job/none", &[]),
    ] {
        let lines: BTreeSet<_> = gateway.pushed(&format!("/metrics/{path}")).into_iter().collect();
        assert_eq!(lines, expected.iter().map(|line| (*line).to_owned()).collect(), "{path}");
    }
    let url = format!("{}/metrics/job/x", gateway.url);
    let text = get(&url).text();
    assert!(!text.contains("job=\"y\"") && !text.contains("pushgateway_"), "{text}");
    assert_eq!(text.matches("push_time_seconds{").count(), 3);
    assert!(text.starts_with("# HELP m what\n# TYPE m gauge\nm{"), "{text}");
    let nothing = get(&format!("{}/metrics/job/none", gateway.url));
    assert_eq!((nothing.status, nothing.text().as_str()), (200, ""));

    let answer = request("GET", &url, &[("Accept-Encoding", "gzip")], b"");
    let mut inflated = String::new();
    flate2::read::MultiGzDecoder::new(&answer.body[..]).read_to_string(&mut inflated).expect("gzip");
    assert_eq!(inflated, text);
    let answer = request("GET", &url, &[("Accept", PROTOBUF)], b"");
    let families = protobuf::decode(&answer.body, &Limits::NONE).expect("protobuf");
    let metrics: BTreeMap<_, _> =
        families.iter().map(|family| (family.name.as_str(), (family.kind, family.metrics.len()))).collect();
    assert_eq!(metrics["m"], (MetricType::Gauge, 3));
    assert_eq!(
        (metrics["n"], metrics["push_time_seconds"]),
        ((MetricType::Untyped, 1), (MetricType::Gauge, 3))
    );
    for accept in [&[][..], &[("Accept", PROTOBUF)], &[("Accept-Encoding", "gzip, zstd")]] {
        let answer = request("GET", &format!("{}/metrics/job/none", gateway.url), accept, b"");
        assert_eq!(answer.status, 200);
    }
    let client = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
                  print(sum(len(family.samples) for family in parse(sys.argv[1])))";
    assert_eq!(peers::python(client, &[&text]).trim(), "10");
}

const TOGETHER: &str = "/metrics?group_by=job,instance";

#[test]
fn many_groups_are_replaced_together_or_none() {
    let gateway = gateway();
    gateway.done("PUT", "/metrics/job/x/instance/1", "old 1\n");
    gateway.done("PUT", "/metrics/job/other", "other 1\n");
    let body = "# HELP m what\n# TYPE m gauge\nm{job=\"x\",instance=\"1\",l=\"1\"} 1\nm{job=\"x\",instance=\"2\"} 2\n\
                m{job=\"y\"} 3\n# TYPE c counter\nc{job=\"x\",instance=\"1\"} 4\n";
    gateway.done("PUT", TOGETHER, body);
    let all = |gateway: &Gateway| {
        let mut all = gateway.pushed("/metrics");
        all.retain(|line| ["c{", "m{", "old", "other", "bad"].iter().any(|name| line.starts_with(name)));
        all.sort();
        all
    };
    let expected = [
        "c{instance=\"1\",job=\"x\"} 4",
        "m{instance=\"\",job=\"y\"} 3",
        "m{instance=\"1\",job=\"x\",l=\"1\"} 1",
        "m{instance=\"2\",job=\"x\"} 2",
        "other{instance=\"\",job=\"other\"} 1",
    ];
    assert_eq!(all(&gateway), expected);
    let before = all(&gateway);
    let bad = "# TYPE m gauge\nm{job=\"x\",instance=\"1\"} 9\nm{job=\"z\"} 9\n";
    for (path, more, problem) in [
        (TOGETHER, "m{job=\"z\"} 9\n", "collected before"),
        (TOGETHER, "m{job=\"z\",a=\"b\"} 9 7\n", "timestamps"),
        (TOGETHER, "# TYPE other counter\nother{job=\"z\"} 9\n", "is not a UNTYPED"),
        (TOGETHER, "m{instance=\"1\"} 9\n", "no label job"),
        (TOGETHER, "m{job=\"\"} 9\n", "no label job"),
        (TOGETHER, "nonsense\n", "text format parsing error"),
        ("/metrics?group_by=instance", "", "group_by"),
        ("/metrics?group_by=", "", "group_by"),
        ("/metrics?group_by=job,job", "", "group_by"),
        ("/metrics?group_by=job,__x", "m{job=\"w\",__x=\"1\"} 9\n", "__x"),
    ] {
        let text = gateway.refused(400, "PUT", path, &format!("{bad}{more}"));
        assert!(text.contains(problem), "{path} {more}: {text}");
        assert_eq!(all(&gateway), before, "{path} {more}");
    }
    // The type changes in all groups at once.
    gateway.done("PUT", TOGETHER, &body.replace("gauge", "counter"));
    assert_eq!(all(&gateway), before);
    assert!(gateway.scrape().contains("# TYPE m counter\n"));
    // Nothing at all is no group.
    gateway.done("PUT", TOGETHER, "");
    assert_eq!(all(&gateway), before);
}

/// Groups that would be too many leave nothing behind, with checks or without.
#[test]
fn groups_together_are_not_more_than_there_may_be() {
    for flags in [&["--limit.groups=4"][..], &["--limit.groups=4", "--push.disable-consistency-check"]] {
        let gateway = gateway_with(flags);
        let taken = if flags.len() > 1 { 202 } else { 200 };
        let push = |groups: &[&str]| {
            let body: String = groups.iter().map(|job| format!("m{{job=\"{job}\"}} 1\n")).collect();
            gateway.ask("PUT", "/metrics?group_by=job", &body)
        };
        assert_eq!(push(&["a", "b"]).status, taken);
        gateway.ask("PUT", "/metrics/job/a", "m 7\n");
        let answer = push(&["a", "c", "d", "e"]);
        assert_eq!(answer.status, 429);
        assert!(answer.text().contains("--limit.groups") && answer.header("retry-after").is_some());
        assert_eq!(gateway.jobs(""), ["a", "b"], "{flags:?}");
        assert_eq!(gateway.pushed("/metrics/job/a"), ["m{instance=\"\",job=\"a\"} 7"]);
        assert_eq!(push(&["a", "b", "c", "d"]).status, taken);
        assert_eq!(gateway.jobs(""), ["a", "b", "c", "d"]);
    }
}

/// Where contradictions are taken, too, a push that is not takes nothing away.
#[test]
fn groups_together_are_all_or_none_without_checks_too() {
    let directory = temporary_directory();
    let flags =
        [&*format!("--storage.path={}", directory.path().display()), "--push.disable-consistency-check"];
    let mut gateway = gateway_with(&flags);
    gateway.ask("PUT", "/metrics/job/a", "m 1\n");
    gateway.ask("PUT", "/metrics?group_by=job", "m{job=\"a\"} 2\nm{job=\"b\"} 2 5\n");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        assert_eq!(gateway.pushed("/metrics/job/a"), ["m{instance=\"\",job=\"a\"} 1"]);
        assert_eq!(gateway.pushed("/metrics/job/b"), [""; 0]);
        assert_eq!(gateway.jobs("state=failed"), ["a", "b"]);
        // What was recorded is taken in again as it was.
        gateway.process.signal(signal);
        gateway.process.end();
        gateway = gateway_with(&flags);
    }
    let answer =
        gateway.ask("PUT", "/metrics?group_by=job", "m{job=\"a\"} 3\nm{job=\"b\"} 3\nm{job=\"b\"} 4\n");
    assert_eq!(answer.status, 202);
    assert_eq!(gateway.pushed("/metrics/job/a"), ["m{instance=\"\",job=\"a\"} 3"]);
}

#[test]
fn groups_together_promise_and_survive_a_restart() {
    let directory = temporary_directory();
    let storage = format!("--storage.path={}", directory.path().display());
    let mut gateway = gateway_with(&[&storage]);
    let path = format!("{TOGETHER}&ttl=2h&expect=1h");
    gateway.done("PUT", &path, "m{job=\"x\"} 1\nm{job=\"y\",instance=\"i\"} 2\n");
    gateway.done("PUT", TOGETHER, "m{job=\"x\"} 3\n");
    let state = |gateway: &Gateway| gateway.data("GET", "/api/v1/groups")["groups"].clone();
    let before = state(&gateway);
    for group in before.as_array().expect("groups") {
        assert_eq!((&group["state"], &group["ttl"]["seconds"]), (&json!("up"), &json!(7200.0)), "{group}");
        assert_eq!(group["expect"]["seconds"], 3600.0, "what was asked holds");
    }
    gateway.process.signal(Signal::SIGKILL);
    gateway.process.end();
    let gateway = gateway_with(&[&storage]);
    assert_eq!(state(&gateway), before);
    assert_eq!(gateway.pushed("/metrics/job/x"), ["m{instance=\"\",job=\"x\"} 3"]);
    assert_eq!(gateway.pushed("/metrics/job/y"), ["m{instance=\"i\",job=\"y\"} 2"]);
    gateway.done("PUT", &format!("{TOGETHER}&ttl=1ms&expect=0"), "m{job=\"y\",instance=\"i\"} 2\n");
    wait_for("the series to go", || (gateway.jobs("state=expired") == ["y"]).then_some(()));
    assert_eq!(gateway.pushed("/metrics/job/y"), [""; 0]);
}

#[test]
fn nonsense_parameters_are_named() {
    let gateway = gateway();
    let groups = "/api/v1/groups";
    for (method, path, name) in [
        ("PUT", "/metrics/job/x?ttl=soon", "ttl"),
        ("POST", "/metrics/job/x?ttl=-1", "ttl"),
        ("PATCH", "/metrics/job/x?expect=", "expect"),
        ("PUT", "/metrics/job/x?expect=1&expect=2", "expect"),
        ("PUT", "/metrics/job/x?run_id=zz", "run_id"),
        ("PUT", "/metrics/job/x?earlier_run=ab", "earlier_run"),
        ("PUT", "/metrics/job/x?earlier_run=ab,1,-5,0,success", "earlier_run"),
        ("PUT", "/metrics?group_by=job&ttl=x", "ttl"),
        ("PUT", "/metrics?group_by=a%20b", "group_by"),
        ("GET", "/api/v1/groups?limit=0", "limit"),
        ("GET", "/api/v1/groups?limit=1001", "limit"),
        ("GET", "/api/v1/groups?limit=x", "limit"),
        ("GET", "/api/v1/groups?after=%21", "after"),
        ("GET", "/api/v1/groups?sort=age&after=x.L2pvYi94", "after"),
        ("GET", "/api/v1/groups?sort=size", "sort"),
        ("GET", "/api/v1/groups?state=good", "state"),
        ("GET", "/api/v1/groups?match[]=up", "match[]"),
        ("GET", "/api/v1/groups?match[]={job=~%22(%22}", "match[]"),
        ("DELETE", "/api/v1/groups?match[]={job=%22x%22}&dry_run=perhaps", "dry_run"),
        ("DELETE", "/api/v1/groups?match[]={job=%22x%22}&dryrun=1", "dryrun"),
        ("DELETE", "/api/v1/groups?match[]={job=~%22x)|(?:.*%22}", "match[]"),
        ("GET", &format!("/api/v1/groups?{}", "match[]={job=~%22x%22}&".repeat(17)), "match[]"),
    ] {
        let text = gateway.refused(400, method, path, "m{job=\"x\"} 1\n");
        let text = if path.starts_with(groups) {
            let error: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!((&error["status"], &error["errorType"]), (&json!("error"), &json!("bad_data")));
            error["error"].as_str().expect("a text").to_owned()
        } else {
            text
        };
        assert!(text.starts_with(&format!("the parameter {name}=")), "{path}: {text}");
    }
    assert_eq!(gateway.jobs(""), [""; 0], "nothing was taken");
}

#[test]
fn a_label_without_value_is_none_to_patch() {
    let gateway = gateway();
    for (before, after) in [("e{l=\"\"}", "e"), ("e", "e{l=\"\"}"), ("e{a=\"b\",l=\"\"}", "e{a=\"b\"}")] {
        gateway.done("PUT", "/metrics/job/z", &format!("{before} 1\n"));
        gateway.done("PATCH", "/metrics/job/z", &format!("{after} 2\n"));
        let lines = gateway.pushed("/metrics/job/z");
        assert!(lines.len() == 1 && lines[0].ends_with(" 2"), "{lines:?}");
    }
}

/// Whatever a group is called, its id is its name.
#[test]
fn every_group_can_be_asked_for_by_its_id() {
    for flags in [&[][..], &["--push.enable-utf8-names"]] {
        let gateway = gateway_with(flags);
        let paths = [
            "x",
            "x/U__a_2e_b/1",
            "U__x",
            "..%20%25",
            "%C3%A4%0A/a@base64/Li4vLg",
            "x/a@base64/YQ/b/%40base64",
            "x/empty@base64/=/full/1",
            "x/zz/1/U__y/2",
        ];
        for path in paths {
            gateway.done("PUT", &format!("/metrics/job/{path}"), "m 1\n");
        }
        for order in ["key", "age", "state"] {
            let (mut seen, mut after) = (0, String::new());
            loop {
                let page = gateway.data("GET", &format!("/api/v1/groups?limit=1&sort={order}{after}"));
                let group = &page["groups"][0];
                let id = group["id"].as_str().expect("an id");
                assert_eq!(encoded(id).replace("%5F", "_").replace("%2D", "-"), id);
                let same = gateway.data("GET", &format!("/api/v1/groups/{id}"));
                assert_eq!(same["labels"], group["labels"]);
                gateway.data("GET", &format!("/api/v1/groups/{id}/runs"));
                seen += 1;
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(seen, paths.len(), "{flags:?} {order}");
        }
    }
}

/// A run may say that it ended whenever it likes.
#[test]
fn runs_of_any_time_are_listed() {
    let gateway = gateway();
    let path = "/metrics/job/x?earlier_run=a,1e300,1,0,success&earlier_run=b,-1e300,1,0,success&earlier_run=c,1e10,1,0,failure";
    gateway.done("PUT", path, &RUN.replace("1700000000.5", "1e15"));
    let id = id_of(&gateway, "x");
    let runs = gateway.data("GET", &format!("/api/v1/groups/{id}/runs"));
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(4));
    for run in runs["runs"].as_array().expect("runs") {
        let time = run["end_time"].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
}

/// What a path cannot name, a body cannot either: a group is deleted by its path, and its push times are scraped.
#[test]
fn groups_together_have_names_that_a_path_can_have() {
    let push = |gateway: &Gateway, labels: &[&str]| {
        use jobmon::exposition::{Labels, Metric, MetricFamily, Value};
        let names = [&["job"][..], labels].concat();
        let labels = Labels::from_pairs(names.iter().map(|name| (*name, "v")));
        let metrics = vec![Metric { labels, value: Value::Untyped(1.0), timestamp_ms: None }];
        let mut body = Vec::new();
        let family = MetricFamily { metrics, ..MetricFamily::new("m", MetricType::Untyped) };
        protobuf::encode(&mut body, [&family]);
        let url = format!("{}/metrics?group_by={}", gateway.url, encoded(&names.join(",")));
        request("PUT", &url, &[("Content-Type", PROTOBUF)], &body)
    };
    for flags in [&[][..], &["--push.disable-consistency-check"], &["--push.enable-utf8-names"]] {
        let gateway = gateway_with(flags);
        for labels in [&["__x"][..], &["__name__"], &[""], &["a\0b"], &["a.b", "a_b"], &["-name-", "-nam__"]]
        {
            let answer = push(&gateway, labels);
            assert_eq!(answer.status, 400, "{flags:?} {labels:?} {}", answer.text());
            assert_eq!(gateway.jobs(""), [""; 0], "{flags:?} {labels:?}");
        }
        let is_utf8 = flags == ["--push.enable-utf8-names"];
        for labels in [&["a.b"][..], &["1a"]] {
            assert_eq!(push(&gateway, labels).status, if is_utf8 { 200 } else { 400 }, "{labels:?}");
        }
        let taken = if flags == ["--push.disable-consistency-check"] { 202 } else { 200 };
        assert_eq!(push(&gateway, &["zone"]).status, taken);
        assert_eq!(gateway.jobs("").len(), if is_utf8 { 3 } else { 1 });
    }
    let text = gateway().refused(400, "PUT", "/metrics?group_by=job,", "");
    assert!(text.starts_with("the parameter group_by="), "{text}");
}

/// Groups that are one to Prometheus are not made, not even one of them.
#[test]
fn groups_together_are_told_apart() {
    for flags in
        [&["--push.enable-utf8-names"][..], &["--push.enable-utf8-names", "--push.disable-consistency-check"]]
    {
        let gateway = gateway_with(flags);
        let body = "m{job=\"x\",\"a.b\"=\"1\"} 1\nn{job=\"x\",a_b=\"1\"} 1\n";
        let text = gateway.refused(400, "PUT", "/metrics?group_by=job,a.b,a_b", body);
        assert!(text.contains("push_time_seconds") && text.contains("collected before"), "{text}");
        assert_eq!(gateway.jobs(""), [""; 0], "{flags:?}");
    }
}
