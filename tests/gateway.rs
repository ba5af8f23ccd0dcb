//! The gateway, as clients meet it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use jobmon::exposition::family::{Bucket, Count, Histogram, NativeBuckets, NativeHistogram, Span};
use jobmon::exposition::{Labels, Metric, MetricFamily, MetricType, Value, protobuf};
use nix::sys::signal::Signal;

use crate::harness::http::{self, get, post, put, request};
use crate::harness::peers::{Suite, prometheus, prometheus_with};
use crate::harness::{Gateway, gateway, gateway_with, sample, wait_for};

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
        ("PATCH", "/metrics", "", 405, "Method Not Allowed\n"),
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
    let answer = request("TRACE", &format!("{}/metrics/job/x", gateway.url), &[], b"");
    assert_eq!(answer.header("allow"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
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
                    native: Some(Box::new(NativeHistogram {
                        positive: NativeBuckets {
                            spans: vec![Span { offset: 0, length: 1 }],
                            deltas: vec![3],
                            counts: Vec::new(),
                        },
                        ..NativeHistogram::default()
                    })),
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
    let poison: [(&str, &[u8], Headers); 12] = [
        ("/metrics/job/p", b"{} 1\n", &[]),
        // A native histogram whose spans do not fit its buckets.
        (
            "/metrics/job/p",
            b"\x11\x0a\x02nh\x18\x04\x22\x09\x3a\x07\x08\x01\x62\x03\x08\0\x10\x02",
            &[PROTOBUF],
        ),
        // One of a resolution that no Prometheus knows.
        ("/metrics/job/p", b"\x10\x0a\x02nh\x18\x04\x22\x08\x3a\x06\x28\x7e\x38\x01\x08\x01", &[PROTOBUF]),
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
        assert!(answer.text().len() > "bad\n".len(), "it says why");
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
        ("a\0b", "x", 400),
        ("a", "x\0y", 400),
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

/// A hundred observations between 1 and 2, a hundred between 2 and 4.
pub fn native_histogram() -> MetricFamily {
    MetricFamily {
        metrics: vec![Metric {
            labels: Labels::default(),
            value: Value::Histogram(Box::new(Histogram {
                count: Count::Integer(200),
                sum: 450.0,
                native: Some(Box::new(NativeHistogram {
                    positive: NativeBuckets {
                        spans: vec![Span { offset: 1, length: 2 }],
                        deltas: vec![100, 0],
                        counts: Vec::new(),
                    },
                    zero_threshold: 1e-128,
                    ..NativeHistogram::default()
                })),
                ..Histogram::default()
            })),
            timestamp_ms: None,
        }],
        ..MetricFamily::new("latency_seconds", MetricType::Histogram)
    }
}

/// Prometheus asks for protobuf where it wants native histograms, and gets them.
#[test]
fn native_histograms_reach_a_real_prometheus() {
    let gateway = gateway();
    let family = native_histogram();
    let mut body = Vec::new();
    protobuf::encode(&mut body, [&family]);
    let group = format!("{}/metrics/job/native", gateway.url);
    assert_eq!(request("PUT", &group, &[PROTOBUF], &body).text(), "");
    let prometheus = prometheus_with(Suite::Newest, &gateway.url, &["--enable-feature=native-histograms"]);
    let quantile =
        wait_for("the histogram", || prometheus.query("histogram_quantile(0.75, latency_seconds)"));
    assert!((2.0..4.0).contains(&quantile), "{quantile}");
    assert_eq!(prometheus.query("histogram_count(latency_seconds)"), Some(200.0));
    assert_eq!(prometheus.query("up"), Some(1.0));
}

/// Names of every alphabet, to a Prometheus that knows them and to one that does not.
#[test]
fn utf8_names_reach_a_real_prometheus() {
    let gateway = gateway_with(&["--push.enable-utf8-names"]);
    accepted(&gateway, "/metrics/job/utf8/U__dotted_2e_label/x", "{\"my.metric\",\"größe\"=\"z\"} 5\n");
    let (newest, older) = (prometheus(Suite::Newest, &gateway.url), prometheus(Suite::Release, &gateway.url));
    let exact = r#"{"my.metric", "größe"="z", "dotted.label"="x"} == 5"#;
    wait_for("the metric", || newest.query(exact));
    let escaped = "my_metric{gr__e=\"z\",dotted_label=\"x\"} == 5";
    wait_for("the metric", || older.query(escaped));
    assert_eq!((newest.query("up"), older.query("up")), (Some(1.0), Some(1.0)));
}

/// Every encoding that clients use, through the whole of the gateway.
#[test]
fn compressed_bodies_are_taken() {
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    let gateway = gateway();
    let text = b"packed 7\n";
    let level = flate2::Compression::default();
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(text).expect("written");
    let finished = |result: std::io::Result<Vec<u8>>| result.expect("a Vec takes every write");
    let bodies = [
        ("gzip", {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            finished(encoder.write_all(text).and_then(|()| encoder.finish()))
        }),
        ("deflate", {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            finished(encoder.write_all(text).and_then(|()| encoder.finish()))
        }),
        ("deflate", {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            finished(encoder.write_all(text).and_then(|()| encoder.finish()))
        }),
        ("zstd", finished(zstd::encode_all(&text[..], 0))),
        ("snappy", framed.into_inner().expect("finished")),
        ("snappy", snap::raw::Encoder::new().compress_vec(text).expect("compressed")),
    ];
    for (encoding, body) in bodies {
        let group = format!("{}/metrics/job/{encoding}", gateway.url);
        let answer = request("PUT", &group, &[("Content-Encoding", encoding)], &body);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{encoding}");
        assert_eq!(gateway.sample(&format!("packed{{instance=\"\",job=\"{encoding}\"}}")), Some(7.0));
        request("DELETE", &group, &[], b"");
    }
    let scrape =
        request("GET", &format!("{}/metrics", gateway.url), &[("Accept-Encoding", "gzip, zstd")], b"");
    assert_eq!(scrape.header("content-encoding"), Some("zstd"));
    let text = zstd::decode_all(&scrape.body[..]).expect("zstd");
    assert!(String::from_utf8_lossy(&text).contains("pushgateway_build_info"));
}

/// OpenMetrics, where it is asked for twice: by a flag and by the scraper.
#[test]
fn openmetrics_is_read_by_a_real_prometheus() {
    let gateway = gateway_with(&["--web.enable-openmetrics"]);
    accepted(
        &gateway,
        "/metrics/job/om",
        "# HELP done_total a \"quote\"\n# TYPE done_total counter\ndone_total 1\nplain 2\n# TYPE h histogram\n\
         h_bucket{le=\"1\"} 1\nh_count 2\n# TYPE s summary\ns{quantile=\"0.5\"} 3\ns_count 1\n",
    );
    let accept = [("Accept", "application/openmetrics-text;version=1.0.0")];
    let answer = request("GET", &format!("{}/metrics", gateway.url), &accept, b"");
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores")
    );
    let text = answer.text();
    for expected in [
        "# HELP done a \\\"quote\\\"\n# TYPE done counter\ndone_total{instance=\"\",job=\"om\"} 1.0\n",
        "# TYPE h histogram\nh_bucket{instance=\"\",job=\"om\",le=\"1.0\"} 1\n\
         h_bucket{instance=\"\",job=\"om\",le=\"+Inf\"} 2\nh_sum{instance=\"\",job=\"om\"} 0.0\nh_count{instance=\"\",job=\"om\"} 2\n",
        "# TYPE plain unknown\nplain{instance=\"\",job=\"om\"} 2.0\n",
        "s{instance=\"\",job=\"om\",quantile=\"0.5\"} 3.0\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(text.ends_with("\n# EOF\n"));
    let prometheus = prometheus(Suite::Newest, &gateway.url);
    wait_for("the counter", || prometheus.query("done_total == 1"));
    assert_eq!((prometheus.query("up"), prometheus.query("plain")), (Some(1.0), Some(2.0)));
}

/// Where nothing is checked, nothing breaks all the same: what contradicts others is kept aside, seen and counted.
#[test]
fn contradictions_are_kept_aside_where_nobody_wants_to_hear_of_them() {
    let gateway = gateway_with(&["--push.disable-consistency-check"]);
    let prometheus = prometheus(Suite::Newest, &gateway.url);
    for (job, body) in [
        ("a", "# TYPE m counter\nm 1\n"),
        ("b", "# TYPE m gauge\nm 2\n"),
        ("c", "n 1\nn 2\n"),
        ("d", "# TYPE process_open_fds counter\nprocess_open_fds 1\n"),
        ("e", "ok 1\n"),
    ] {
        let answer = put(&format!("{}/metrics/job/{job}", gateway.url), body.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (202, ""), "{body}");
    }
    wait_for("the last push", || prometheus.query("ok == 1"));
    assert_eq!(prometheus.query("jobmon_gateway_quarantined_families"), Some(3.0));
    assert_eq!((prometheus.query("m"), prometheus.query("up")), (Some(1.0), Some(1.0)));
    let shown = get(&format!("{}/api/v1/metrics", gateway.url)).text();
    assert_eq!(shown.matches("\"quarantined\":").count(), 3, "{shown}");
    assert!(get(&format!("{}/", gateway.url)).text().contains("Not exposed"));
    request("DELETE", &format!("{}/metrics/job/a", gateway.url), &[], b"");
    assert_eq!(gateway.sample("m{instance=\"\",job=\"b\"}"), Some(2.0));
    assert_eq!(gateway.sample("jobmon_gateway_quarantined_families"), Some(2.0));
}

#[test]
fn a_request_may_wipe_or_end_the_gateway_where_that_is_allowed() {
    let mut gateway = gateway_with(&["--web.enable-lifecycle", "--web.enable-admin-api"]);
    accepted(&gateway, "/metrics/job/x", "a 1\n");
    let answer = put(&format!("{}/api/v1/admin/wipe", gateway.url), b"");
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    assert!(!gateway.scrape().contains("job=\"x\""));
    let answer = post(&format!("{}/-/quit", gateway.url), b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Requesting termination... Goodbye!"));
    assert_eq!(gateway.process.end().code(), Some(0));
}

/// What a person sees is what is stored, and nothing that was pushed becomes part of the page.
#[test]
fn the_page_shows_what_is_stored() {
    let gateway = gateway_with(&["--web.enable-admin-api"]);
    accepted(&gateway, "/metrics/job/%3Cscript%3Ealert(1)/a/b", "# HELP m <b>bold</b>\nm{x=\"<i>\"} 1e21\n");
    put(&format!("{}/metrics/job/failed", gateway.url), b"m 1 5\n");
    let page = get(&format!("{}/status", gateway.url));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    for expected in [
        "&lt;b&gt;bold&lt;/b&gt;",
        "1000000000000000000000",
        "Last push failed!",
        "Delete all 2 groups",
        "web.enable-admin-api",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!text.contains("<b>") && !text.contains("<i>") && !text.contains("<script>"));
    for name in ["page.css", "page.js", "favicon.svg"] {
        assert_eq!(get(&format!("{}/static/{name}", gateway.url)).status, 200, "{name}");
    }
}

#[test]
fn messages_may_be_json() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(crate::harness::JOBMON)
        .args(["gateway", "--web.listen-address=127.0.0.1:0", "--log.format=json"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("piped")));
    let message = loop {
        let line = lines.next().expect("a line").expect("text");
        let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if message["msg"] == "listening" {
            break message;
        }
    };
    drop(crate::harness::Process(child));
    assert_eq!(message["level"], "INFO");
    assert!(message["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")));
}
