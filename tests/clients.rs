//! Clients of a Pushgateway, against our gateway.

use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry, TextEncoder};

use crate::harness::http::put;
use crate::harness::peers::python;
use crate::harness::{gateway, sample};

#[test]
fn pythons_client_library_pushes_adds_and_deletes() {
    let gateway = gateway();
    let script = r#"
import sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, Info, Enum
from prometheus_client import push_to_gateway, pushadd_to_gateway, delete_from_gateway, instance_ip_grouping_key
url, step = sys.argv[1], sys.argv[2]
registry = CollectorRegistry()
if step == "push":
    Gauge("temperature", "How warm it is.", ["room"], registry=registry).labels("kitchen\n\"").set(21.5)
    Counter("items", "How many.", registry=registry).inc(3)
    Histogram("latency", "How long.", buckets=[0.1, 1], registry=registry).observe(0.5)
    Summary("size", "How large.", registry=registry).observe(7)
    Info("build", "What it is.", registry=registry).info({"version": "1"})
    Enum("state", "How it is.", states=["up", "down"], registry=registry).state("down")
    push_to_gateway(url, job="py", grouping_key={"path": "/a/b"}, registry=registry)
elif step == "add":
    Gauge("more", "What comes later.", registry=registry).set(1)
    pushadd_to_gateway(url, job="py", grouping_key={"path": "/a/b"}, registry=registry)
elif step == "replace":
    Gauge("only", "What is left.", registry=registry).set(1)
    push_to_gateway(url, job="py", grouping_key={"path": "/a/b"}, registry=registry)
elif step == "delete":
    delete_from_gateway(url, job="py", grouping_key={"path": "/a/b"})
"#;
    let labels = r#"instance="",job="py",path="/a/b""#;
    let value = |text: &str, name: &str| sample(text, &format!("{name}{{{labels}}}"));

    python(script, &[&gateway.url, "push"]);
    let text = gateway.scrape();
    assert_eq!(value(&text, "items_total"), Some(3.0), "{text}");
    assert_eq!(
        sample(&text, &format!("temperature{{{labels},room=\"kitchen\\n\\\"\"}}")),
        Some(21.5),
        "{text}"
    );
    assert_eq!(sample(&text, &format!("latency_bucket{{{labels},le=\"1\"}}")), Some(1.0), "{text}");
    assert_eq!((value(&text, "size_sum"), value(&text, "size_count")), (Some(7.0), Some(1.0)));
    assert!(text.contains("# TYPE latency histogram\n") && text.contains("# HELP size How large.\n"));

    python(script, &[&gateway.url, "add"]);
    let text = gateway.scrape();
    assert_eq!((value(&text, "items_total"), value(&text, "more")), (Some(3.0), Some(1.0)));

    python(script, &[&gateway.url, "replace"]);
    let text = gateway.scrape();
    assert_eq!((value(&text, "items_total"), value(&text, "only")), (None, Some(1.0)));

    python(script, &[&gateway.url, "delete"]);
    assert!(!gateway.scrape().contains("job=\"py\""));
}

#[test]
fn a_simulator_posts_with_nothing_but_urllib() {
    let gateway = gateway();
    let script = r##"
import sys, urllib.request
body = "# TYPE processed_items counter\nprocessed_items 5\n"
request = urllib.request.Request(sys.argv[1] + "/metrics/job/simulator", data=body.encode(), method="POST")
assert urllib.request.urlopen(request).status == 200
"##;
    python(script, &[&gateway.url]);
    assert_eq!(gateway.sample("processed_items{instance=\"\",job=\"simulator\"}"), Some(5.0));
}

#[test]
fn curl_posts_like_the_example() {
    let gateway = gateway();
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "echo 'processed_items 7' | curl --fail --silent --data-binary @- \"$0/metrics/job/curl\"",
        ])
        .arg(&gateway.url)
        .output()
        .expect("sh is there");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(gateway.sample("processed_items{instance=\"\",job=\"curl\"}"), Some(7.0));
}

#[test]
fn the_rust_clients_encoder_is_understood() {
    let gateway = gateway();
    let registry = Registry::new();
    let items = IntCounter::new("items_total", "How many.").expect("valid");
    let warm = IntGauge::new("warm", "Quotes \" and \\ and\nlines.").expect("valid");
    let latency =
        HistogramVec::new(HistogramOpts::new("latency", "How long.").buckets(vec![0.1, 1.0]), &["path"])
            .expect("valid");
    registry.register(Box::new(items.clone())).expect("new");
    registry.register(Box::new(warm.clone())).expect("new");
    registry.register(Box::new(latency.clone())).expect("new");
    items.inc_by(5);
    warm.set(-3);
    latency.with_label_values(&["/a\"b"]).observe(0.5);
    let mut body = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut body).expect("encoded");
    assert_eq!(put(&format!("{}/metrics/job/rust", gateway.url), &body).text(), "");
    let text = gateway.scrape();
    assert_eq!(sample(&text, "items_total{instance=\"\",job=\"rust\"}"), Some(5.0));
    assert_eq!(sample(&text, "warm{instance=\"\",job=\"rust\"}"), Some(-3.0));
    assert_eq!(
        sample(&text, "latency_bucket{instance=\"\",job=\"rust\",path=\"/a\\\"b\",le=\"1\"}"),
        Some(1.0),
        "{text}"
    );
}
