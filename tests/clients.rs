//! Clients of a Pushgateway, real ones: each pushes every kind of metric it knows, adds, replaces and deletes, and after
//! each step our gateway exposes what a real Pushgateway exposes.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::peers::{Suite, pushgateway, python};
use crate::harness::{gateway, project};

/// What a Pushgateway exposes of what was pushed, without times.
fn exposed(text: &str) -> Vec<String> {
    let own = ["pushgateway_", "process_", "go_", "jobmon_gateway_"];
    let shown = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        !own.iter().any(|prefix| name.starts_with(prefix))
    };
    let timeless = |line: &str| match line.rsplit_once("} ") {
        Some((series, value))
            if series.contains("_created{") || (series.starts_with("push_") && value != "0") =>
        {
            format!("{series}}} TIME")
        }
        _ => line.to_owned(),
    };
    text.lines().filter(shown).map(timeless).collect()
}

/// Runs a client step by step against both servers; `series` are lines that must be there after the first.
fn compare(client: impl Fn(&str, &str) -> Command, series: &[&str]) {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    for step in ["push", "add", "replace", "delete"] {
        for url in [&ours.url, &theirs.url] {
            let mut command = client(url, step);
            let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let our = exposed(&ours.scrape());
        assert_eq!(our, exposed(&theirs.metrics()), "{step}");
        let has = |series: &str| our.iter().any(|line| line == series);
        if step == "push" {
            series.iter().for_each(|series| assert!(has(series), "{series} is not in {our:#?}"));
        }
        let names = ["temperature{", "more{", "only{"];
        let expected = match step {
            "push" => [true, false, false],
            "add" => [true, true, false],
            "replace" => [false, false, true],
            _ => [false, false, false],
        };
        assert_eq!(names.map(|name| our.iter().any(|line| line.starts_with(name))), expected, "{step}");
    }
}

fn script(interpreter: &'static str, name: &'static str) -> impl Fn(&str, &str) -> Command {
    let path = project().join("tests/clients").join(name);
    move |url, step| {
        let mut command = Command::new(interpreter);
        command.arg(&path).args([url, step]);
        command.env("PYTHONPATH", project().join("target/peers/python"));
        command.env("NODE_PATH", project().join("target/peers/node/node_modules"));
        command
    }
}

#[test]
fn pythons_client_library() {
    let labels = r#"instance="",job="py",path="/a/b""#;
    compare(
        script("python3", "client.py"),
        &[
            &format!("items_total{{{labels}}} 3"),
            &format!(r#"temperature{{{labels},room="kitchen\n\""}} 21.5"#),
            &format!(r#"latency_bucket{{{labels},le="1"}} 1"#),
            &format!("size_sum{{{labels}}} 7"),
            "# HELP size How large.",
        ],
    );
}

#[test]
fn nodes_client_library() {
    let labels = r#"instance="",job="js",path="a b""#;
    compare(
        script("node", "client.js"),
        &[
            &format!("items_total{{{labels}}} 3"),
            &format!(r#"temperature{{{labels},room="kitchen\n\""}} 21.5"#),
            &format!(r#"size{{{labels},quantile="0.5"}} 7"#),
        ],
    );
}

#[test]
fn rubys_client_library() {
    let labels = r#"instance="a b",job="ruby""#;
    compare(
        script("ruby", "client.rb"),
        &[
            &format!("items_total{{{labels}}} 3"),
            &format!(r#"temperature{{{labels},room="kitchen\n\""}} 21.5"#),
        ],
    );
}

/// It pushes protobuf.
#[test]
fn rusts_client_library() {
    let program: PathBuf = project().join("target/peers/rust/release/client");
    let labels = r#"instance="",job="rust",path="x""#;
    compare(
        |url, step| {
            let mut command = Command::new(&program);
            // It wants no scheme.
            command.args([url.trim_start_matches("http://"), step]);
            command
        },
        &[
            &format!("items_total{{{labels}}} 3"),
            &format!(r#"temperature{{{labels},room="kitchen\n\""}} 21.5"#),
            r#"latency_bucket{instance="",job="rust",path="x",path_of="/a\"b",le="1"} 1"#,
        ],
    );
}

#[test]
fn curl() {
    let labels = r#"instance="",job="curl",path="/a/b""#;
    compare(
        script("sh", "client.sh"),
        &[
            &format!("plain{{{labels}}} 1e+21"),
            &format!(r#"temperature{{{labels},room="kitchen\n\""}} 21.5"#),
            &format!("size_count{{{labels}}} 1"),
        ],
    );
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
