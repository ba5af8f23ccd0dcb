//! Pushes that a Pushgateway does not know, and scrapes of some groups.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use jobmon::exposition::{Limits, MetricType, protobuf};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::*;
use crate::harness::http::{get, request};
use crate::harness::{Gateway, gateway, gateway_with, peers, wait_for};

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
        ("PUT", "/metrics/job/x?run_outcome=bad", "run_outcome"),
        ("PUT", "/metrics/job/x?ttl=inf", "ttl"),
        ("DELETE", "/api/v1/groups?match[]=%7Ba=%22b%22%7D&dry_run=1&dry_run=0", "dry_run"),
        ("GET", "/api/v1/groups?limit=1&limit=2", "limit"),
        ("GET", "/api/v1/groups?sort=age&after=L2pvYi94", "after"),
        ("GET", "/api/v1/groups?after=0.5.L2pvYi94", "after"),
        ("PUT", "/metrics/job/x?earlier_run=ab", "earlier_run"),
        ("PUT", "/metrics/job/x?earlier_run=ab,1,-5,0,success", "earlier_run"),
        ("PUT", "/metrics?group_by=job&ttl=x", "ttl"),
        ("PUT", "/metrics?group_by=a%20b", "group_by"),
        ("PUT", "/metrics/job/x?group_by=job", "group_by"),
        ("DELETE", "/metrics/job/x?dry_run=1", "dry_run"),
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
        let body = if method == "DELETE" { "" } else { "m{job=\"x\"} 1\n" };
        let text = gateway.refused(400, method, path, body);
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
