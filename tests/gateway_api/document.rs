//! What the API's document says is what is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use jobmon::exposition::{MetricType, protobuf};
use serde_json::{Value, json};

use super::*;
use crate::harness::http::{Answer, get, request};
use crate::harness::{Gateway, gateway, gateway_with, peers, project, temporary_directory};

fn document() -> String {
    fs::read_to_string(project().join("src/gateway/openapi.json")).expect("text")
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
