//! The gateway, as clients meet it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use jobmon::exposition::family::{Bucket, Count, Histogram, NativeBuckets, NativeHistogram, Span};
use jobmon::exposition::{Labels, Metric, MetricFamily, MetricType, Value, protobuf};
use nix::sys::signal::Signal;

use crate::harness::http::{self, get, post, put, request};
use crate::harness::peers::{Suite, prometheus, pushgateway};
use crate::harness::{Gateway, gateway, sample, wait_for};

const PROTOBUF: (&str, &str) = (
    "Content-Type",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
);

fn accepted(gateway: &Gateway, path: &str, body: &str) {
    let answer = put(&format!("{}{path}", gateway.url), body.as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path} {body}");
}

/// The transcript of a Pushgateway: request, status, text.
#[test]
fn answers_are_the_pushgateways() {
    let gateway = gateway();
    let inconsistent = "pushed metrics are invalid or inconsistent with existing metrics: ";
    for (method, path, body, status, text) in [
        ("PUT", "/metrics/job/x", "a 1\n", 200, ""),
        ("POST", "/metrics/job/x", "", 200, ""),
        ("PUT", "/metrics/job/x?foo=bar", "a 1\n", 200, ""),
        ("PUT", "/metrics/job/x/a", "a 1\n", 400, "odd number of components in label string \"/a\"\n"),
        ("PUT", "/metrics/job/x/1a/b", "a 1\n", 400, "improper label name \"1a\"\n"),
        ("PUT", "/metrics/job@base64/=", "a 1\n", 400, "job name is required\n"),
        ("PUT", "/metrics/job@base64/", "a 1\n", 404, "404 page not found\n"),
        ("DELETE", "/metrics/job/nope", "", 202, ""),
        ("GET", "/-/healthy", "", 200, "OK"),
        ("GET", "/-/ready", "", 200, "OK"),
        ("PUT", "/metrics", "", 405, "Method Not Allowed\n"),
        ("PATCH", "/metrics/job/x", "", 405, "Method Not Allowed\n"),
        ("GET", "/nothing", "", 404, "404 page not found\n"),
        ("PUT", "/metrics/job/%zz", "a 1\n", 400, "400 Bad Request"),
        (
            "PUT",
            "/metrics/job/y",
            "a 1 5\n",
            400,
            &format!("{inconsistent}pushed metrics must not have timestamps\n"),
        ),
        (
            "PUT",
            "/metrics/job/y",
            "a 1\na 1\n",
            400,
            &format!(
                "{inconsistent}collected metric \"a\" {{ label:{{name:\"instance\"  value:\"\"}}  label:{{name:\"job\"  \
             value:\"y\"}}  untyped:{{value:1}}}} was collected before with the same name and label values\n"
            ),
        ),
        (
            "PUT",
            "/metrics/job/j",
            "m{x=\"1\"} 1\nm{x=\"1\"} 2\nq 1\nq 2\nw{__x=\"1\"} 1\n",
            400,
            &format!(
                "{inconsistent}3 error(s) occurred:\n\
             * collected metric \"m\" {{ label:{{name:\"instance\"  value:\"\"}}  label:{{name:\"job\"  value:\"j\"}}  \
             label:{{name:\"x\"  value:\"1\"}}  untyped:{{value:2}}}} was collected before with the same name and label values\n\
             * collected metric \"q\" {{ label:{{name:\"instance\"  value:\"\"}}  label:{{name:\"job\"  value:\"j\"}}  \
             untyped:{{value:2}}}} was collected before with the same name and label values\n\
             * collected metric \"w\" {{ label:{{name:\"__x\"  value:\"1\"}}  label:{{name:\"instance\"  value:\"\"}}  \
             label:{{name:\"job\"  value:\"j\"}}  untyped:{{value:1}}}} has a label with an invalid name: __x\n"
            ),
        ),
    ] {
        let answer = request(method, &format!("{}{path}", gateway.url), &[], body.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{method} {path} {body}");
        if answer.status == 200 && text.is_empty() {
            assert_eq!(answer.header("content-length"), Some("0"), "{method} {path}");
        }
    }
    let answer = request("PATCH", &format!("{}/metrics/job/x", gateway.url), &[], b"");
    assert_eq!(answer.header("allow"), Some("DELETE, OPTIONS, POST, PUT"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let answer = put(&format!("{}/metrics/job//a/b", gateway.url), b"a 1\n");
    assert_eq!((answer.status, answer.header("location")), (301, Some("/metrics/job/a/b")));
}

#[test]
fn pushes_are_exposed_with_the_labels_of_their_group() {
    let gateway = gateway();
    accepted(
        &gateway,
        "/metrics/job/%CE%A0/name/%CE%A0",
        "# HELP a what\n# TYPE a counter\na{x=\"1\"} 1e6\n",
    );
    accepted(
        &gateway,
        "/metrics/job@base64/L3Zhci90bXA/empty@base64/=",
        "b{job=\"other\",instance=\"i\"} 2\n",
    );
    let text = gateway.scrape();
    for expected in [
        "# HELP a what\n# TYPE a counter\na{instance=\"\",job=\"Π\",name=\"Π\",x=\"1\"} 1e+06\n",
        "# TYPE b untyped\nb{empty=\"\",instance=\"i\",job=\"/var/tmp\"} 2\n",
        "push_failure_time_seconds{instance=\"\",job=\"Π\",name=\"Π\"} 0\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(sample(&text, "push_time_seconds{instance=\"\",job=\"Π\",name=\"Π\"}").expect("a time") > 1.7e9);
}

#[test]
fn a_refused_push_leaves_what_was_there_and_its_time() {
    let gateway = gateway();
    let group = format!("{}/metrics/job/x", gateway.url);
    accepted(&gateway, "/metrics/job/x", "a 1\n");
    assert_eq!(put(&group, b"a 2 5\n").status, 400);
    assert_eq!(gateway.sample("a{instance=\"\",job=\"x\"}"), Some(1.0));
    assert!(gateway.sample("push_failure_time_seconds{instance=\"\",job=\"x\"}").expect("a time") > 1.7e9);
    // What cannot be read leaves no trace at all.
    assert_eq!(put(&format!("{}/metrics/job/new", gateway.url), b"a x\n").status, 400);
    assert!(!gateway.scrape().contains("job=\"new\""));
}

#[test]
fn a_body_that_does_not_arrive_changes_nothing() {
    let gateway = gateway();
    let (host, _) = http::split(&gateway.url);
    let mut stream = TcpStream::connect(host).expect("connected");
    let head =
        "PUT /metrics/job/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\na 1\n";
    stream.write_all(head.as_bytes()).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!gateway.scrape().contains("job=\"cut\""));
}

#[test]
fn large_bodies_are_refused() {
    let gateway = gateway();
    let group = format!("{}/metrics/job/x", gateway.url);
    let answer = put(&group, &vec![b'#'; 17 * 1024 * 1024]);
    let text = "the body is larger than 16777216 bytes, see --limit.body-size\n";
    assert_eq!((answer.status, answer.text().as_str()), (413, text));
    let (host, _) = http::split(&gateway.url);
    let answer = http::exchange(host, b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n", false)
        .expect("an answer");
    assert_eq!(answer.status, 400);
}

#[test]
fn protobuf_is_taken_in() {
    let gateway = gateway();
    let families = [
        MetricFamily {
            help: Some("how many".to_owned()),
            metrics: vec![Metric {
                labels: Labels::from_pairs([("x", "y")]),
                value: Value::counter(3.0),
                timestamp_ms: None,
            }],
            ..MetricFamily::new("items_total", MetricType::Counter)
        },
        MetricFamily {
            metrics: vec![Metric {
                labels: Labels::default(),
                value: Value::Histogram(Box::new(Histogram {
                    count: Count::Integer(3),
                    sum: 4.5,
                    buckets: vec![Bucket { upper_bound: 1.0, cumulative: Count::Integer(2), exemplar: None }],
                    native: Some(NativeHistogram {
                        positive: NativeBuckets {
                            spans: vec![Span { offset: 0, length: 1 }],
                            deltas: vec![3],
                            counts: Vec::new(),
                        },
                        ..NativeHistogram::default()
                    }),
                    ..Histogram::default()
                })),
                timestamp_ms: None,
            }],
            ..MetricFamily::new("h", MetricType::Histogram)
        },
    ];
    let mut body = Vec::new();
    protobuf::encode(&mut body, &families);
    let group = format!("{}/metrics/job/p", gateway.url);
    assert_eq!(request("PUT", &group, &[PROTOBUF], &body).text(), "");
    let text = gateway.scrape();
    assert!(text.contains(
        "# TYPE h histogram\nh_bucket{instance=\"\",job=\"p\",le=\"1\"} 2\nh_bucket{instance=\"\",job=\"p\",le=\"+Inf\"} 3\n\
         h_sum{instance=\"\",job=\"p\"} 4.5\nh_count{instance=\"\",job=\"p\"} 3\n# HELP items_total how many\n\
         # TYPE items_total counter\nitems_total{instance=\"\",job=\"p\",x=\"y\"} 3\n"
    ), "{text}");
    for (body, status, text) in [
        (&b"\x80\x80\x80\x80\x80\x02abc"[..], 400, "unexpected EOF\n"),
        (b"\x02\x08\x01", 400, "proto: cannot parse invalid wire-format data\n"),
        (
            b"\x02\x0a\x00",
            400,
            "pushed metrics are invalid or inconsistent with existing metrics: collected metric family has no name\n",
        ),
        (b"", 200, ""),
    ] {
        let answer = request("POST", &group, &[PROTOBUF], body);
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{}", body.escape_ascii());
    }
}

type Headers = &'static [(&'static str, &'static str)];

/// Pushes that take a Pushgateway's target down: here a real Prometheus goes on scraping, and the others' samples stay.
#[test]
fn no_push_breaks_a_scrape() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/good", "good 1\n");
    let prometheus = prometheus(Suite::Newest, &gateway.url);
    wait_for("a first scrape", || prometheus.query("good"));
    let poison: [(&str, &[u8], Headers); 9] = [
        ("/metrics/job/%FF", b"a 1\n", &[]),
        ("/metrics/job/x/a@base64/_w", b"a 1\n", &[]),
        ("/metrics/job/p", b"# HELP a \xff\na 1\n", &[]),
        ("/metrics/job/p/le/5", b"# TYPE h histogram\nh_count 1\n", &[]),
        ("/metrics/job/p/quantile/5", b"# TYPE s summary\ns_count 1\n", &[]),
        ("/metrics/job/p", b"\x05\x0a\x00\x22\x01\x12", &[PROTOBUF]),
        ("/metrics/job/p", b"\x0c\x0a\x01a\x18\x09\x22\x05\x2a\x03\x09\x00\x00", &[PROTOBUF]),
        ("/metrics/job/p", b"mm{x=\"\"} 1\nmm 2\n", &[]),
        ("/metrics/job/p", b"\x80\x80\x80\x80\x80\x02abc", &[PROTOBUF]),
    ];
    for (path, body, headers) in poison {
        let answer = request("PUT", &format!("{}{path}", gateway.url), headers, body);
        assert_eq!(answer.status, 400, "{path} {} {}", body.escape_ascii(), answer.text());
    }
    for _ in 0..2 {
        post(
            &format!("{}/metrics/job/p", gateway.url),
            b"push_failure_time_seconds 9\npush_time_seconds 9\n",
        );
    }
    accepted(
        &gateway,
        "/metrics/job/p",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 2\n",
    );
    // A Prometheus that reads all of this, the last push included, is well.
    accepted(&gateway, "/metrics/job/last", "last 1\n");
    wait_for("the last push", || prometheus.query("last"));
    assert_eq!(prometheus.query("up"), Some(1.0));
    assert_eq!(prometheus.query("good"), Some(1.0));
    assert_eq!(
        prometheus.query("h_bucket{le=\"1.0\"}").or_else(|| prometheus.query("h_bucket{le=\"1\"}")),
        Some(2.0)
    );
    let own = prometheus.metrics();
    for name in [
        "prometheus_target_scrapes_sample_duplicate_timestamp_total",
        "prometheus_target_scrapes_sample_out_of_order_total",
    ] {
        assert_eq!(sample(&own, name), Some(0.0), "{name}");
    }
}

fn gauge(family: &str, labels: &[(&str, &str)]) -> Vec<u8> {
    let family = MetricFamily {
        metrics: vec![Metric {
            labels: Labels::from_pairs(labels.iter().copied()),
            value: Value::Gauge(1.0),
            timestamp_ms: None,
        }],
        ..MetricFamily::new(family, MetricType::Gauge)
    };
    let mut body = Vec::new();
    protobuf::encode(&mut body, [&family]);
    body
}

/// Names that only protobuf can carry are judged as they are rendered.
#[test]
fn names_that_render_alike_do_not_meet() {
    let gateway = gateway();
    let push = |job: &str, body: &[u8]| {
        request("PUT", &format!("{}/metrics/job/{job}", gateway.url), &[PROTOBUF], body).status
    };
    for (family, label, status) in [
        ("a", "a:b", 200),
        ("a", "._name__", 400),
        ("a", "..x", 200),
        ("a", "-name-", 400),
        ("a", "__x", 400),
        ("push.time_seconds", "x", 400),
        ("push.failure_time_seconds", "x", 400),
        ("process.open_fds", "x", 400),
        ("", "x", 400),
        ("my.metric", "x.y", 200),
    ] {
        assert_eq!(push("x", &gauge(family, &[(label, "1")])), status, "{family} {label}");
    }
    assert_eq!(push("y", &gauge("my_metric", &[])), 400, "it is rendered as my.metric is");
    assert_eq!(push("y", &gauge("my_dot_metric", &[])), 400, "so it is with dots escaped");
    assert_eq!(push("y", &gauge("U__my_2e_metric", &[])), 400, "and with all of it");
    assert_eq!(push("y", &gauge("b", &[("x.y", "1"), ("x_y", "2")])), 400);
    assert_eq!(push("y", &gauge("b", &[("x.y", "1"), ("x_dot_y", "2")])), 400);
    assert_eq!(push("y", &gauge("b", &[("job", "1"), ("job", "2")])), 400);
    assert!(gateway.scrape().contains("\nmy_metric{instance=\"\",job=\"x\",x_y=\"1\"} 1\n"));
    promtool_reads(&gateway.scrape());
}

#[test]
fn the_gateways_own_metrics_are_not_spoiled() {
    let gateway = gateway();
    for body in [
        "# TYPE pushgateway_http_push_duration_seconds gauge\npushgateway_http_push_duration_seconds 1\n",
        "# TYPE pushgateway_http_push_size_bytes histogram\npushgateway_http_push_size_bytes_count 1\n",
        "pushgateway_http_push_duration_seconds_count 1\n",
        "# TYPE pushgateway_http_requests_total gauge\npushgateway_http_requests_total 1\n",
    ] {
        let answer = put(&format!("{}/metrics/job/x", gateway.url), body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
    }
    promtool_reads(&gateway.scrape());
}

/// To Prometheus a label without value is none, so these groups would be one.
#[test]
fn groups_that_render_alike_do_not_meet() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/x", "a 1\n");
    for path in ["/metrics/job/x/instance@base64/=", "/metrics/job/x/a@base64/="] {
        let group = format!("{}{path}", gateway.url);
        assert_eq!(put(&group, b"b 1\n").status, 400, "{path}");
        assert_eq!(put(&group, b"b 1 5\n").status, 400, "{path}");
    }
    assert_eq!(gateway.scrape().matches("\npush_time_seconds{").count(), 1);
    request("DELETE", &format!("{}/metrics/job/x", gateway.url), &[], b"");
    accepted(&gateway, "/metrics/job/x/a@base64/=", "a 1\n");
    promtool_reads(&gateway.scrape());
}

/// Parses an exposition as Prometheus' own tools do; style is no matter.
fn promtool_reads(text: &str) {
    use std::process::{Command, Stdio};
    let promtool = crate::harness::project().join("target/peers/release/usr/bin/promtool");
    let mut command = Command::new(promtool);
    let mut child = command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("error while linting"), "{errors}{text}");
}

/// What costs much more than it says is refused before it costs anything.
#[test]
fn a_small_request_costs_little() {
    let gateway = gateway();
    let body: String = (0..100_000).map(|i| format!("a{{x=\"{i}\"}} 1\n")).collect();
    let answer = put(&format!("{}/metrics/job/x/a/{}", gateway.url, "v".repeat(30_000)), body.as_bytes());
    assert_eq!(answer.status, 413);
    assert!(answer.text().starts_with("the labels of the group, once for each series, are larger than"));
    let many = "a 1\n".repeat(100_000);
    let answer = put(&format!("{}/metrics/job/x", gateway.url), many.as_bytes());
    assert!(answer.status == 400 && answer.text().contains("99999 error(s) occurred"), "{}", answer.status);
    assert!(answer.body.len() < 100_000);
    let bytes = gateway.sample("process_resident_memory_bytes").expect("it is measured");
    assert!(bytes < 400e6, "{bytes}");
    let (host, _) = http::split(&gateway.url);
    let head = format!(
        "PUT /metrics/job/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        u64::MAX - 2
    );
    assert_eq!(http::exchange(host, head.as_bytes(), false).expect("an answer").status, 413);
}

#[test]
fn a_client_may_close_its_side_after_the_request() {
    let gateway = gateway();
    let (host, _) = http::split(&gateway.url);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(host).expect("connected");
        stream.write_all(b"PUT /metrics/job/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nq 1\n").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("half closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("readable");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
}

#[test]
fn sigterm_does_not_wait_for_those_who_ask_nothing() {
    let mut gateway = gateway();
    let (host, _) = http::split(&gateway.url);
    let mut half = TcpStream::connect(host).expect("connected");
    half.write_all(b"GET /-/healthy HTTP/1.1\r\nHo").expect("sent");
    let _idle = TcpStream::connect(host).expect("connected");
    // Both are accepted when a later one is answered.
    assert_eq!(get(&format!("{}/-/healthy", gateway.url)).status, 200);
    gateway.process.signal(Signal::SIGTERM);
    let start = std::time::Instant::now();
    assert_eq!(gateway.process.end().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn scrapes_are_compressed_for_those_who_ask() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/x", "a 1\n");
    let url = format!("{}/metrics", gateway.url);
    let plain = get(&url);
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
    );
    assert_eq!(plain.header("content-encoding"), None);
    let answer = request("GET", &url, &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(sample(&text, "a{instance=\"\",job=\"x\"}"), Some(1.0));
    let head = request("HEAD", &url, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn requests_are_counted() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/x", "a 1\n");
    put(&format!("{}/metrics/job/x", gateway.url), b"a x\n");
    request("DELETE", &format!("{}/metrics/job/x", gateway.url), &[], b"");
    let text = gateway.scrape();
    for (series, value) in [
        ("pushgateway_http_requests_total{code=\"200\",handler=\"push\",method=\"put\"}", 1.0),
        ("pushgateway_http_requests_total{code=\"400\",handler=\"push\",method=\"put\"}", 1.0),
        ("pushgateway_http_requests_total{code=\"202\",handler=\"delete\",method=\"delete\"}", 1.0),
        ("pushgateway_http_push_duration_seconds_count{method=\"put\"}", 2.0),
        ("pushgateway_http_push_size_bytes_count{method=\"put\"}", 2.0),
    ] {
        assert_eq!(sample(&text, series), Some(value), "{series}");
    }
    assert!(
        text.contains("\nprocess_resident_memory_bytes ") && text.contains("\npushgateway_build_info{"),
        "{text}"
    );
    // Clients push such metrics of their own; they stand beside ours.
    accepted(
        &gateway,
        "/metrics/job/x",
        "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 5\n",
    );
    assert_eq!(gateway.sample("process_start_time_seconds{instance=\"\",job=\"x\"}"), Some(5.0));
    let answer = put(
        &format!("{}/metrics/job/x", gateway.url),
        b"# TYPE process_start_time_seconds counter\nprocess_start_time_seconds 5\n",
    );
    assert!(answer.text().ends_with(
        "gathered metric family process_start_time_seconds has type COUNTER but should have GAUGE\n"
    ));
}

/// The same pushes give the same exposition as a real Pushgateway, but for times.
#[test]
fn a_sequence_of_pushes_is_exposed_as_by_a_pushgateway() {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    let exposition = |url: &str| {
        for (method, path, body) in [
            (
                "PUT",
                "/metrics/job/b",
                "# HELP m help\n# TYPE m gauge\nm{z=\"1\"} 1\nm 2\nm{a=\"1\",b=\"2\"} 3\n",
            ),
            ("PUT", "/metrics/job/a/instance/i", "# HELP m help\n# TYPE m gauge\nm 4\nm{z=\"0\"} 5\n"),
            ("POST", "/metrics/job/a/instance/i", "n 1\n"),
            (
                "PUT",
                "/metrics/job/c",
                "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1e-7\nh_count 2\n",
            ),
            (
                "POST",
                "/metrics/job/c",
                "# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 123456789.123\ns_count 3\nc_total 1e6\n",
            ),
            ("PUT", "/metrics/job/gone", "gone 1\n"),
            ("DELETE", "/metrics/job/gone", ""),
            ("PUT", "/metrics/job/empty", "x 1\n"),
            ("PUT", "/metrics/job/empty", ""),
            ("PUT", "/metrics/job/bad", "m 1 5\n"),
            ("PUT", "/metrics/job/new%20line%0A%22%5C", "esc{v=\"\\\\ \\\" \\n\"} -0\n"),
        ] {
            request(method, &format!("{url}{path}"), &[], body.as_bytes());
        }
        let text = get(&format!("{url}/metrics")).text();
        let own = ["pushgateway_", "process_", "go_", "jobmon_gateway_"];
        let shown = |line: &&str| {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            !own.iter().any(|prefix| name.starts_with(prefix))
        };
        let timeless = |line: &str| match line.split_once("} ") {
            Some((series, value)) if series.starts_with("push_") && value != "0" => {
                format!("{series}}} SOME TIME")
            }
            _ => line.to_owned(),
        };
        text.lines().filter(shown).map(timeless).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(exposition(&ours.url), exposition(&theirs.url));
}

#[test]
fn a_scrape_shows_whole_pushes_only() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/x", "a 0\nb 0\n");
    let url = gateway.url.clone();
    let pushes = std::thread::spawn(move || {
        for value in 1..=300 {
            put(&format!("{url}/metrics/job/x"), format!("a {value}\nb {value}\n").as_bytes());
        }
    });
    while !pushes.is_finished() {
        let text = gateway.scrape();
        assert_eq!(sample(&text, "a{instance=\"\",job=\"x\"}"), sample(&text, "b{instance=\"\",job=\"x\"}"));
    }
    pushes.join().expect("no panic");
    assert_eq!(gateway.sample("a{instance=\"\",job=\"x\"}"), Some(300.0));
}

#[test]
fn sigterm_lets_requests_in_flight_end() {
    let mut gateway = gateway();
    let (host, _) = http::split(&gateway.url);
    let mut slow = TcpStream::connect(host).expect("connected");
    slow.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    slow.write_all(
        b"PUT /metrics/job/slow HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    )
    .expect("sent");
    // The request is being served when this has come.
    let mut interim = [0; 25];
    slow.read_exact(&mut interim).expect("told to go on");
    assert!(interim.starts_with(b"HTTP/1.1 100 "));
    gateway.process.signal(Signal::SIGTERM);
    let host = host.to_owned();
    wait_for("the gateway to listen no more", || TcpStream::connect(&host).is_err().then_some(()));
    slow.write_all(b"a 1\n").expect("sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(gateway.process.end().code(), Some(0));
}

#[test]
fn an_address_in_use_is_named() {
    let gateway = gateway();
    let (host, _) = http::split(&gateway.url);
    let output = crate::harness::job(["gateway", "--web.listen-address", host]).run();
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr
            .contains(&format!("cannot listen on --web.listen-address {host}: Address already in use")),
        "{output:?}"
    );
    let output = crate::harness::job(["gateway", "--web.listen-address", "nonsense"]).run();
    assert_eq!(output.code, 125);
    assert!(output.stderr.contains("--web.listen-address \"nonsense\": a port is missing"), "{output:?}");
}
