//! The same requests to a real Pushgateway and to ours: status, headers and texts are the same, and what is exposed. Every
//! difference has a reason here, and every reason a difference.

use std::io::Write as _;

use jobmon::exposition::{Limits, protobuf};
use serde_json::Value as Json;

use crate::harness::gateway_with;
use crate::harness::http::{self, Answer};
use crate::harness::peers::{Suite, pushgateway_with};

const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
const METHODS: [&str; 9] = ["GET", "HEAD", "OPTIONS", "PATCH", "PUT", "POST", "DELETE", "TRACE", "FOO"];

/// One request.
#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn request(method: &'static str, path: &str, body: &[u8]) -> Request {
    Request { method, path: path.to_owned(), headers: Vec::new(), body: body.to_vec() }
}

fn with(header: &'static str, value: &str, request: Request) -> Request {
    Request { headers: vec![(header, value.to_owned())], ..request }
}

/// Flags, and what is asked of a server that was started with them, in order.
struct Setting {
    flags: &'static [&'static str],
    requests: Vec<Request>,
}

fn everything_at(paths: &[&str]) -> Vec<Request> {
    paths.iter().flat_map(|path| METHODS.map(|method| request(method, path, b""))).collect()
}

const PATHS: &[&str] = &[
    "/",
    "/status",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/-/quit",
    "/api/v1/status",
    "/api/v1/metrics",
    "/api/v1",
    "/api/v1/",
    "/api/v1/nope",
    "/api/v1/admin/wipe",
    "/static/nothing",
    "/metrics/job",
    "/metrics/job/",
    "/metrics/job/x",
    "/metrics/",
    "/METRICS/job/x",
    "/METRICS",
    "/Metrics/Job/X",
    "/nope",
    "/-/Healthy",
    "/-/healthy/",
    "/status/",
    "/debug",
    "/metrics/job@base64/eA",
    "/metrics/jobx",
    "/metrics/job/x/a/b",
    "//metrics",
    "/metrics//",
    "/./metrics",
    "/api//v1/status",
    "/favicon.ico",
    "/metrics/job/a;b",
    "/metrics/job/a%00b",
    "/metrics/job/x?foo=bar",
    "//metrics?x=1",
    "/metrics/job@base64/",
    "/METRICS/JOB@BASE64/eA",
    "/API/V1/STATUS",
    "/metrics/job/..",
    "/metrics/job/x/..",
    "/STATUS/",
    "*",
    "/metrics/job/%zz",
    "/metrics/job/%2e%2e",
    "/metrics/job//a/b",
];

const PREFIXED: &[&str] = &[
    "/ext",
    "/ext/",
    "/",
    "/metrics",
    "/ext/metrics",
    "/ext/metrics/job/x",
    "/-/quit",
    "/ext/-/quit",
    "/ext/api/v1/admin/wipe",
    "/ext//metrics",
    "/EXT/metrics",
    "/EXT/metrics/job/X",
    "/ext?x=1",
    "/ext/api/v1",
    "/ext/nope",
    "/ext/metrics/job/",
    "/Ext",
    "/ext/static/nothing",
    "/ext/api/v1/q",
    "/ext/api/v1/metrics",
];

/// Keys in URLs.
const GROUPS: &[&str] = &[
    "/metrics/job/x/a@base64/=",
    "/metrics/job/x/instance/",
    "/metrics/job/%CE%A0/name/%CE%A0",
    "/metrics/job/a+b/c/d%20e",
    "/metrics/job/x/b/1/a/2",
    "/metrics/job/x/a/1/a/2",
    "/metrics/job/x/job/y",
    "/metrics/job/x/a/%00%0A",
    "/metrics/job/x/U__foo_2e_bar/1",
    "/metrics/job/x/U__/b",
    "/metrics/job/x/U__in_xxx_valid/1",
    "/metrics/job/x/U__job/b",
];

/// URLs that hold no key, or not for everybody.
const NO_GROUPS: &[&str] = &[
    "/metrics/job/x/a",
    "/metrics/job/x/a/b/",
    "/metrics/job/x/a%2Fb/c",
    "/metrics/job/x/1a/b",
    "/metrics/job/x/__foo/b",
    "/metrics/job@base64/e",
    "/metrics/job@base64/L3Zhci90bXA+/x/y",
    "/metrics/job@base64/=",
    "/metrics/job@base64/",
    "/metrics/job/x/a@base64/!",
    "/metrics/job/x/a@base64@base64/b",
    "/metrics/job/x/@base64/x",
    "/metrics/job/x/a.b/x",
    "/metrics/job/x/foo.bar/1",
    "/metrics/job/x/a%20b/1",
];

const ACCEPTS: &[&str] = &[
    "*/*",
    "text/html,application/json;q=0.9",
    "text/plain;version=0.0.4",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "text/plain;escaping=dots",
    "text/plain;escaping=values",
    "text/plain;escaping=nonsense",
    "application/openmetrics-text;version=1.0.0",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text;escaping=values",
];

/// Pushes that mean something, what is refused among them, and what is seen of it in every format.
fn pushes() -> Vec<Request> {
    let mut all: Vec<Request> = [
        ("PUT", "/metrics/job/b", "# HELP m help\n# TYPE m gauge\nm{z=\"1\"} 1\nm 2\nm{a=\"1\",b=\"2\"} 3\n"),
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
        ("DELETE", "/metrics/job/never", "a body"),
        ("PUT", "/metrics/job/empty", "x 1\n"),
        ("PUT", "/metrics/job/empty", ""),
        ("PUT", "/metrics/job/bad", "m 1 5\n"),
        ("PUT", "/metrics/job/bad", "# TYPE m gauge\nm{x=\"1\"} 1\nm{x=\"1\"} 2\n"),
        ("PUT", "/metrics/job/j", "w{__x=\"1\"} 1\n"),
        ("PUT", "/metrics/job/j", "v 1\nv 2\nq 1\nq 2\nw{__x=\"1\"} 1\n"),
        ("PUT", "/metrics/job/j", "s_count 1\n"),
        ("PUT", "/metrics/job/j", "# TYPE x summary\nx 1\n"),
        ("PUT", "/metrics/job/j", "# TYPE m counter\nm 1\n"),
        ("PUT", "/metrics/job/own", "# TYPE pushgateway_build_info counter\npushgateway_build_info 1\n"),
        ("PUT", "/metrics/job/own", "# TYPE process_open_fds gauge\nprocess_open_fds 1\n"),
        ("PUT", "/metrics/job/new%20line%0A%22%5C", "esc{v=\"\\\\ \\\" \\n\"} -0\n"),
        ("PUT", "/metrics/job/html", "# HELP tag <b>\ntag{v=\"<&>\"} 1.5e300\n"),
    ]
    .map(|(method, path, body)| request(method, path, body.as_bytes()))
    .into();
    // Each by itself: some of them are one group to Prometheus.
    for path in GROUPS.iter().chain(NO_GROUPS) {
        all.push(request("PUT", path, b"in_url 1\n"));
        all.push(request("GET", "/metrics", b""));
        all.push(request("DELETE", path, b""));
    }
    all.push(with("Content-Type", PROTOBUF, request("PUT", "/metrics/job/native", &native_histogram())));
    all.push(request("GET", "/api/v1/metrics", b""));
    all.push(request("GET", "/metrics", b""));
    all.extend(ACCEPTS.iter().map(|accept| with("Accept", accept, request("GET", "/metrics", b""))));
    all
}

/// A family with a native histogram, as a client sends it.
fn native_histogram() -> Vec<u8> {
    let fields: &[u8] = b"\x08\x0a\x11\0\0\0\0\0\0\x29\x40\x28\0\x31\xfc\xa9\xf1\xd2\x4d\x62\x50\x3f\x38\x02\
        \x4a\x04\x08\x02\x10\x01\x50\x06\x62\x04\x08\0\x10\x02\x68\x06\x68\x01";
    let histogram = [b"\x3a", &[u8::try_from(fields.len()).expect("short")][..], fields].concat();
    let metric = [b"\x22", &[u8::try_from(histogram.len()).expect("short")][..], &histogram].concat();
    let family = [b"\x0a\x02nh\x18\x04".as_slice(), &metric].concat();
    [&[u8::try_from(family.len()).expect("short")][..], &family].concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("a Vec takes every write")
}

/// Bodies that are encoded, well and badly.
fn encoded_bodies() -> Vec<Request> {
    let good = gzip(b"a 1\n");
    let mut spoiled = good.clone();
    let checksum = spoiled.len() - 6;
    spoiled[checksum] ^= 1;
    let bodies: [Vec<u8>; 9] = [
        good.clone(),
        [good.clone(), gzip(b"b 1\n")].concat(),
        good[..good.len() - 3].to_vec(),
        spoiled,
        [good.clone(), b"\0\0\0".to_vec()].concat(),
        [good, b"what does not belong".to_vec()].concat(),
        Vec::new(),
        b"abc".to_vec(),
        b"a 1\na 2\na 3\na 4\n".to_vec(),
    ];
    let encodings = ["gzip", "GZIP", " gzip ", "x-gzip", "gzip, gzip", "identity", "br", "utf-8", ""];
    let mut all = Vec::new();
    for body in &bodies {
        for encoding in encodings {
            all.push(with("Content-Encoding", encoding, request("PUT", "/metrics/job/x", body)));
        }
    }
    for body in [&b""[..], b"abcdefghijklmnop", b"a 1\n"] {
        all.push(with("Content-Encoding", "snappy", request("PUT", "/metrics/job/x", body)));
    }
    all
}

/// Bodies of every declared type.
fn typed_bodies() -> Vec<Request> {
    let types = [
        PROTOBUF,
        "APPLICATION/VND.GOOGLE.PROTOBUF; PROTO=io.prometheus.client.MetricFamily; ENCODING=delimited",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=\"delimited\"",
        "application/vnd.google.protobuf",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text",
        "application/json",
        "application/openmetrics-text; version=1.0.0",
        ";;;",
    ];
    let bodies: [&[u8]; 7] = [
        b"",
        b"a 1\n",
        // Name `a`, type COUNTER, one metric without value.
        b"\x05\x0a\x01a\x22\x00",
        b"\x05\x0a\x01a",
        b"\x80",
        // A name that is a number.
        b"\x02\x08\x01",
        // A metric that ends within a number.
        b"\x09\x0a\x01a\x22\x04\x12\x02\x09\x00",
    ];
    let mut all = Vec::new();
    for content_type in types {
        for body in bodies {
            all.push(with("Content-Type", content_type, request("PUT", "/metrics/job/y", body)));
        }
    }
    all
}

fn settings(suite: Suite) -> Vec<Setting> {
    let unchecked = [
        ("PUT", "/metrics/job/x", "a 1\n"),
        ("PUT", "/metrics/job/x", "a 1 5\n"),
        ("PUT", "/metrics/job/y", "a x\n"),
        ("PUT", "/metrics/job/z", "b 1\nb 1\n"),
        ("DELETE", "/metrics/job/z", ""),
        ("POST", "/metrics/job/q", ""),
        ("GET", "/metrics", ""),
        ("GET", "/api/v1/metrics", ""),
    ];
    let unchecked = unchecked.map(|(method, path, body)| request(method, path, body.as_bytes())).to_vec();
    let mut settings = vec![
        Setting { flags: &[], requests: everything_at(PATHS) },
        Setting {
            flags: &["--web.external-url=http://h:1/ext/", "--web.enable-admin-api"],
            requests: everything_at(PREFIXED),
        },
        Setting {
            flags: &["--web.telemetry-path=/telemetry", "--web.route-prefix=/p", "--web.enable-lifecycle"],
            requests: [
                everything_at(&[
                    "/p/telemetry",
                    "/p/metrics",
                    "/p/metrics/job/x",
                    "/p",
                    "/P/Telemetry",
                    "/telemetry",
                ]),
                vec![request("PUT", "/p/-/quit", b"")],
            ]
            .concat(),
        },
        Setting {
            flags: &["--web.external-url=http://h:1/ext/", "--web.route-prefix=/"],
            requests: everything_at(&["/metrics", "/status", "/ext/metrics"]),
        },
        Setting { flags: &[], requests: [encoded_bodies(), typed_bodies()].concat() },
        Setting { flags: &["--push.disable-consistency-check"], requests: unchecked },
        Setting { flags: &[], requests: pushes() },
    ];
    if suite == Suite::Release {
        // A job that is not base64 makes it keep a lock, and answer nobody any more.
        let hangs =
            |request: &Request| NO_GROUPS.contains(&&*request.path) && request.path.contains("job@base64/");
        settings.iter_mut().for_each(|setting| setting.requests.retain(|request| !hangs(request)));
    }
    // The older one does not know the flag.
    if suite == Suite::Newest {
        let mut requests = pushes();
        let dotted = request(
            "PUT",
            "/metrics/job/dots",
            b"{\"my.metric\",\"x.y\"=\"z\"} 1\n# TYPE \"p.q\" counter\n{\"p.q\"} 1\n",
        );
        requests.insert(0, dotted);
        settings.push(Setting { flags: &["--push.enable-utf8-names"], requests });
    }
    settings
}

/// What is compared of an answer.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Headers that belong to the connection, or that only ours sends.
const NOT_COMPARED: [&str; 6] =
    ["date", "connection", "transfer-encoding", "content-length", "vary", "last-modified"];

fn seen(answer: &Answer) -> Seen {
    let header = |(name, value): &(String, String)| {
        let name = name.to_ascii_lowercase();
        // We know HEAD wherever there is GET.
        let value = if name == "allow" { value.replace("HEAD, ", "") } else { value.clone() };
        (name, value)
    };
    let mut headers: Vec<_> = answer.headers.iter().map(header).collect();
    headers.retain(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
    headers.sort();
    Seen { status: answer.status, headers, body: shown_body(answer) }
}

fn shown_body(answer: &Answer) -> String {
    let text = answer.text();
    match answer.header("content-type").unwrap_or_default() {
        _ if answer.body.is_empty() => String::new(),
        // What the page looks like is its own affair.
        html if html.starts_with("text/html") && answer.status == 200 => String::new(),
        "application/json" => json(&serde_json::from_str(&text).expect("JSON")),
        exposition if exposition.contains("version=0.0.4") => samples(&text),
        delimited if delimited.contains("encoding=delimited") => families(&answer.body),
        protobuf if protobuf.contains("encoding=compact-text") => {
            let families = text.lines().filter(|line| !is_own(line.trim_start_matches("name:\"")));
            timeless_protobuf(&families.collect::<Vec<_>>().join("\n"))
        }
        protobuf if protobuf.contains("encoding=text") => {
            let families = text.split("\n\n").filter(|family| {
                let name =
                    family.trim_start().trim_start_matches("name:").trim_start().trim_start_matches('"');
                !is_own(name)
            });
            timeless_protobuf(&families.collect::<Vec<_>>().join("\n\n"))
        }
        _ => error_text(&text),
    }
}

/// Whether a line or a name is about metrics of the server itself.
fn is_own(name: &str) -> bool {
    ["pushgateway_", "process_", "go_", "jobmon_gateway_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Samples without those of the server, and without times.
fn samples(text: &str) -> String {
    let shown = |line: &&str| !is_own(line.trim_start_matches("# HELP ").trim_start_matches("# TYPE "));
    let timeless = |line: &str| match line.rsplit_once("} ") {
        Some((series, value)) if is_time(series) && value != "0" => format!("{series}}} TIME"),
        _ => line.to_owned(),
    };
    text.lines().filter(shown).map(timeless).collect::<Vec<_>>().join("\n")
}

fn is_time(name: &str) -> bool {
    // With escaped names as well.
    ["push_time_seconds", "push_failure_time_seconds", "push__time__seconds", "push__failure__time__seconds"]
        .iter()
        .any(|time| name.starts_with(time))
}

fn families(body: &[u8]) -> String {
    let mut families = protobuf::decode(body, &Limits::NONE).expect("families");
    families.retain(|family| {
        !is_own(&family.name) || family.metrics.iter().any(|m| m.labels.get("job").is_some())
    });
    for family in families.iter_mut().filter(|family| is_time(&family.name)) {
        family.metrics.iter_mut().for_each(|metric| metric.value = jobmon::exposition::Value::Gauge(0.0));
    }
    for family in &mut families {
        family.metrics.retain(|metric| !is_own(&family.name) || metric.labels.get("job").is_some());
        // Absent and empty are one.
        family.help.get_or_insert_default();
    }
    format!("{families:#?}")
}

/// Go's text form has one space or two, as it likes.
fn timeless_protobuf(text: &str) -> String {
    let time = regex::Regex::new(r"value: ?1\.\d+e\+09").expect("an expression");
    time.replace_all(&text.replace(":  ", ": ").replace("  ", " "), "value: TIME").into_owned()
}

/// JSON without times and what only one of the two knows; groups in order.
fn json(value: &Json) -> String {
    let mut value = value.clone();
    if let Some(groups) = value.get_mut("data").and_then(Json::as_array_mut) {
        for group in groups.iter_mut() {
            for (name, family) in group.as_object_mut().expect("a group") {
                if family.get("time_stamp").is_some() {
                    let time = family["time_stamp"].as_str().expect("text");
                    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
                    family["time_stamp"] = "TIME".into();
                }
                if let Some(time) =
                    family.pointer_mut("/metrics/0/value").filter(|time| is_time(name) && *time != "0")
                {
                    *time = "TIME".into();
                }
            }
        }
        groups.sort_by_key(|group| group["labels"].to_string());
    }
    if let Some(flags) = value.pointer_mut("/data/flags").and_then(Json::as_object_mut) {
        let known = |name: &String| {
            !(name.starts_with("limit.")
                || name.starts_with("storage.")
                || name.starts_with("liveness.")
                || ["push.default-ttl", "push.max-ttl", "push.rules-file", "push.tombstone-retention"]
                    .contains(&name.as_str())
                || name == "web.local-assets"
                || name == "web.enable-openmetrics")
        };
        flags.retain(|name, value| {
            // Started on other ports, and with the flag that Debian needs.
            if name == "web.listen-address" {
                *value = "ADDRESS".into();
            }
            known(name)
        });
        value["data"]["start_time"] = "TIME".into();
        for (_, text) in value["data"]["build_information"].as_object_mut().expect("an object") {
            *text = "BUILD".into();
        }
    }
    serde_json::to_string_pretty(&value).expect("JSON")
}

/// An error with its lines in order, and with one space where Go puts one, two or an unbreakable one.
fn error_text(text: &str) -> String {
    let mut lines: Vec<String> =
        text.split_inclusive('\n').map(|line| line.replace('\u{a0}', " ").replace("  ", " ")).collect();
    lines.sort_by_key(|line| line.starts_with("* ").then(|| line.clone()));
    lines.concat()
}

/// Why an answer is another, and for which requests.
struct Difference {
    why: &'static str,
    /// Whether it is there at some times only, as chance has it in a Pushgateway.
    sometimes: bool,
    is_it: fn(&Request, &Seen, &Seen) -> bool,
}

/// Differences to the current Pushgateway.
const DIFFERENCES: &[Difference] = &[
    Difference {
        sometimes: false,
        why: "HEAD is answered as GET is, without the body; a Pushgateway answers 405",
        is_it: |request, _, _| request.method == "HEAD",
    },
    Difference {
        sometimes: false,
        why: "groups can be read and patched; a Pushgateway answers 405",
        is_it: |request, _, _| {
            ["GET", "PATCH"].contains(&request.method)
                && request.path.to_ascii_lowercase().contains("/metrics/job")
        },
    },
    Difference {
        sometimes: false,
        why: "so there are more methods to name",
        is_it: |_, theirs, ours| {
            let theirs_and_more = header(theirs, "allow").replace("OPTIONS", "GET, OPTIONS, PATCH");
            ours.body == theirs.body && header(ours, "allow") == theirs_and_more
        },
    },
    Difference {
        sometimes: false,
        why: "`*` is no path; who asks for more than OPTIONS there is told so in words, and OPTIONS says which methods there are",
        is_it: |request, _, _| request.path == "*",
    },
    Difference {
        sometimes: false,
        why: "a name that is a number on the wire is refused as what it is, where Go passes over it and stores a family without name",
        is_it: |request, _, ours| request.body == b"\x02\x08\x01" && ours.status == 400,
    },
    Difference {
        sometimes: true,
        why: "with two types for one name a Pushgateway blames either side; here it is always the push",
        is_it: |request, theirs, ours| {
            request.body.starts_with(b"# TYPE m counter") && theirs.status == 400 && ours.status == 400
        },
    },
    Difference {
        sometimes: true,
        why: "of a summary and a family with the name of its count a Pushgateway blames either; here it is always the push",
        is_it: |request, theirs, ours| {
            request.body == b"s_count 1\n" && theirs.status == 400 && ours.status == 400
        },
    },
    Difference {
        sometimes: false,
        why: "a summary that came without sum and count has 0 for them in protobuf too, as in text",
        is_it: |request, theirs, ours| {
            header(ours, "content-type").contains("protobuf")
                && request.method == "GET"
                && theirs.body.contains("summary")
        },
    },
];

/// Differences to the Pushgateway of Debian's release, beyond those.
const OLD_DIFFERENCES: &[Difference] = &[
    Difference {
        sometimes: false,
        why: "1.5 does not say how it escapes names, and knows no other way",
        is_it: |request, theirs, _| {
            request.method == "GET" && !header(theirs, "content-type").contains("escaping")
        },
    },
    Difference {
        sometimes: false,
        why: "1.5 compares Content-Encoding with case, does not read gzip to its end and knows no snappy",
        is_it: |request, _, _| request.headers.iter().any(|(name, _)| *name == "Content-Encoding"),
    },
    Difference {
        sometimes: false,
        why: "1.5 writes labels in texts in the older form of protobuf",
        is_it: |_, theirs, _| theirs.body.contains("label:<"),
    },
    Difference {
        sometimes: false,
        why: "1.5 reads protobuf with another library, whose faults have other words",
        is_it: |request, _, _| {
            request.headers.iter().any(|(name, value)| {
                *name == "Content-Type" && value.to_ascii_lowercase().contains("delimited")
            })
        },
    },
    Difference {
        sometimes: false,
        why: "1.5 knows no native histograms in its API, and other metrics of its own",
        is_it: |request, _, _| {
            request.path.contains("/api/v1/metrics") || request.path.contains("/api/v1/status")
        },
    },
];

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

fn ask(url: &str, request: &Request) -> Answer {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (host, _) = http::split(url);
    // `*` is no path of a URL.
    http::request_raw(request.method, host, &request.path, &headers, &request.body)
}

fn compare(suite: Suite, differences: &[&Difference]) {
    let mut met = vec![false; differences.len()];
    let mut unexplained = Vec::new();
    for setting in settings(suite) {
        let theirs = pushgateway_with(suite, setting.flags);
        let ours = gateway_with(setting.flags);
        for request in &setting.requests {
            let (their, our) = (seen(&ask(&theirs.url, request)), seen(&ask(&ours.url, request)));
            if their == our {
                continue;
            }
            let explanations =
                differences.iter().enumerate().filter(|(_, d)| (d.is_it)(request, &their, &our));
            let explained = explanations.map(|(at, _)| met[at] = true).count();
            if explained == 0 {
                unexplained.push(format!(
                    "{:?} {} {} {:?} {}\n  theirs: {their:?}\n  ours:   {our:?}",
                    setting.flags,
                    request.method,
                    request.path,
                    request.headers,
                    request.body.escape_ascii()
                ));
            }
        }
    }
    assert!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
    let idle: Vec<_> =
        differences.iter().zip(&met).filter(|(d, met)| !d.sometimes && !**met).map(|(d, _)| d.why).collect();
    assert!(idle.is_empty(), "reasons without a difference: {idle:#?}");
}

#[test]
fn every_difference_to_a_pushgateway_has_a_reason() {
    compare(Suite::Newest, &DIFFERENCES.iter().collect::<Vec<_>>());
}

#[test]
fn every_difference_to_an_older_pushgateway_has_a_reason() {
    compare(Suite::Release, &OLD_DIFFERENCES.iter().chain(DIFFERENCES).collect::<Vec<_>>());
}
