//! What a stranger can cost at most: each limit by its name, and what it means for memory and for others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use crate::harness::http::{self, get, put, request};
use crate::harness::{Gateway, gateway, gateway_with, released_gateway, wait_for};

const PROTOBUF: (&str, &str) = (
    "Content-Type",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
);

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("a Vec takes every write")
}

/// Resident memory, in bytes, and the most it has ever been.
fn resident(gateway: &Gateway) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("it is there");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("a number") * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[test]
fn whoever_exceeds_a_limit_is_told_its_flag() {
    let gateway = gateway_with(&[
        "--limit.body-size=100kB",
        "--limit.inflated-body-size=200kB",
        "--limit.push-series=50",
        "--limit.push-label-size=500",
        "--limit.series-labels=5",
        "--limit.name-length=50",
        "--limit.label-value-length=60",
        "--limit.groups=3",
        "--limit.failed-groups=1",
        "--limit.header-size=8KiB",
    ]);
    let group = format!("{}/metrics/job/x", gateway.url);
    let series: String = (0..51).map(|i| format!("a{{x=\"{i}\"}} 1\n")).collect();
    let labels = "a{a=\"\",b=\"\",c=\"\",d=\"\",e=\"\",f=\"\"} 1\n";
    let name = format!("{} 1\n", "n".repeat(51));
    let label_name = format!("a{{{}=\"\"}} 1\n", "n".repeat(51));
    let value = format!("a{{x=\"{}\"}} 1\n", "v".repeat(61));
    // A metric without anything in it, again and again.
    let empty_metrics = [b"\x6b\x0a\x01a\x18\x01".as_slice(), &b"\x22\x00".repeat(51)].concat();
    for (status, flag, headers, body) in [
        (413, "--limit.body-size", None, vec![b'#'; 100_001]),
        (413, "--limit.inflated-body-size", Some(("Content-Encoding", "gzip")), gzip(&b"#".repeat(200_001))),
        (422, "--limit.push-series", None, series.into_bytes()),
        (422, "--limit.push-series", Some(PROTOBUF), empty_metrics),
        (422, "--limit.series-labels", None, labels.into()),
        (422, "--limit.name-length", None, name.into_bytes()),
        (422, "--limit.name-length", None, label_name.into_bytes()),
        (422, "--limit.label-value-length", None, value.into_bytes()),
    ] {
        let answer = request("PUT", &group, headers.as_slice(), &body);
        assert!(
            answer.status == status && answer.text().contains(flag),
            "{flag}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let wide = format!("{group}/l/{}", "v".repeat(50));
    let series: String = (0..20).map(|i| format!("a{{x=\"{i}\"}} 1\n")).collect();
    let answer = put(&wide, series.as_bytes());
    assert!(answer.status == 413 && answer.text().contains("--limit.push-label-size"), "{}", answer.text());
    let answer = request("GET", &format!("{}/metrics", gateway.url), &[("X-Long", &"x".repeat(9000))], b"");
    assert!(answer.status == 431 && answer.text().contains("--limit.header-size"), "{}", answer.text());
    // Nothing of all that has left a trace; refused pushes leave one group, and no more.
    assert!(!gateway.scrape().contains("job=\"x\""));
    for job in ["f1", "f2", "f3"] {
        assert_eq!(put(&format!("{}/metrics/job/{job}", gateway.url), b"a 1 5\n").status, 400);
    }
    assert_eq!(gateway.scrape().matches("\npush_failure_time_seconds{").count(), 1);
    for job in ["g1", "g2"] {
        assert_eq!(put(&format!("{}/metrics/job/{job}", gateway.url), b"").status, 200);
    }
    let answer = put(&format!("{}/metrics/job/g3", gateway.url), b"");
    assert!(answer.status == 429 && answer.text().contains("--limit.groups"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
}

/// Opens a connection and sends the beginning of a push.
fn half_a_push(gateway: &Gateway, sent: &[u8]) -> TcpStream {
    let (host, _) = http::split(&gateway.url);
    let mut stream = TcpStream::connect(host).expect("connected");
    let head = b"PUT /metrics/job/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n";
    stream.write_all(&[head, sent].concat()).expect("sent");
    stream
}

fn answer_on(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(crate::harness::DEADLINE)).expect("a socket");
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).expect("an answer");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn requests_are_limited_and_the_slow_are_cut_off() {
    let gateway = gateway_with(&["--limit.requests=2", "--limit.body-time=10s"]);
    let mut slow = Vec::new();
    let push = || put(&format!("{}/metrics/job/x", gateway.url), b"a 1\n");
    let refused = wait_for("a refusal", || {
        slow.push(half_a_push(&gateway, b"a 1\n"));
        Some(push()).filter(|answer| answer.status == 503)
    });
    assert!(refused.text().contains("--limit.requests"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    for path in ["/metrics", "/-/healthy"] {
        assert_eq!(
            get(&format!("{}{path}", gateway.url)).status,
            200,
            "{path}: who reads is in nobody's way"
        );
    }
    // Some may have found no room themselves.
    let cut_off = slow.iter_mut().map(answer_on).filter(|answer| {
        let is_late = answer.starts_with("HTTP/1.1 408 ") && answer.contains("--limit.body-time");
        assert!(is_late || answer.starts_with("HTTP/1.1 503 "), "{answer}");
        is_late
    });
    assert!(cut_off.count() > 0);
    wait_for("room", || (push().status == 200).then_some(()));
}

#[test]
fn bytes_of_bodies_are_limited() {
    let gateway =
        gateway_with(&["--limit.body-size=90KiB", "--limit.requests-size=100KiB", "--limit.body-time=60s"]);
    let comment = [b"#".repeat(70_000), b"\n".to_vec()].concat();
    let _slow = half_a_push(&gateway, &comment);
    let push = || put(&format!("{}/metrics/job/x", gateway.url), &comment);
    let refused = wait_for("a refusal", || Some(push()).filter(|answer| answer.status == 503));
    assert!(refused.text().contains("--limit.requests-size"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let gateway = gateway_with(&["--limit.idle-time=1s", "--limit.push-series=1000000"]);
    let pid = gateway.process.id();
    let sockets = || {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
    };
    let idle = sockets();
    // More than the kernel holds for one who does not read.
    let body: String = (0..400_000).map(|i| format!("a{{x=\"{i}\"}} 1\n")).collect();
    assert_eq!(put(&format!("{}/metrics/job/x", gateway.url), body.as_bytes()).status, 200);
    wait_for("the end of the push's connection", || (sockets() == idle).then_some(()));
    let (host, _) = http::split(&gateway.url);
    let mut stream = TcpStream::connect(host).expect("connected");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    wait_for("the connection", || (sockets() > idle).then_some(()));
    wait_for("its end", || (sockets() == idle).then_some(()));
    // Somebody who does not read for longer than that has lost the rest.
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(all.len() < 14_000_000, "{}", all.len());
}

/// Answers that nobody reads are held only up to a limit; who comes then is told to come again.
#[test]
fn readers_that_do_not_read_are_few() {
    let gateway = gateway_with(&["--limit.requests-size=32MiB", "--limit.push-series=1000000"]);
    // Each answer counts as a quarter of what may be held, and is more than the kernel takes.
    let body: String = (0..400_000).map(|i| format!("a{{x=\"{i}\"}} 1\n")).collect();
    assert_eq!(put(&format!("{}/metrics/job/x", gateway.url), body.as_bytes()).status, 200);
    let (host, _) = http::split(&gateway.url);
    let mut readers: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(host).expect("connected");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    let answers: Vec<_> = readers.iter_mut().map(answer_on).collect();
    let refused =
        |answer: &&String| answer.starts_with("HTTP/1.1 503 ") && answer.contains("--limit.requests-size");
    assert_eq!(answers.iter().filter(refused).count(), 4, "{answers:?}");
    assert_eq!(get(&format!("{}/-/healthy", gateway.url)).status, 200, "that is nobody else's concern");
    assert_eq!(put(&format!("{}/metrics/job/y", gateway.url), b"b 1\n").status, 200);
    drop(readers);
    wait_for("room", || (get(&format!("{}/metrics", gateway.url)).status == 200).then_some(()));
}

/// The costliest bodies there are, each as large as a body may be: what they make the gateway hold is bounded by eight times
/// that, whether they are accepted or not.
#[test]
fn no_body_costs_more_than_eight_times_what_it_may_be() {
    const BODY_BYTES: usize = 16 * 1024 * 1024;
    let filled = |unit: &[u8]| unit.repeat(BODY_BYTES / unit.len());
    let numbered = |line: &dyn Fn(usize) -> String| -> Vec<u8> {
        let mut body = Vec::new();
        for i in 0.. {
            let line = line(i);
            if body.len() + line.len() > BODY_BYTES {
                return body;
            }
            body.extend_from_slice(line.as_bytes());
        }
        unreachable!("the body is full at some time")
    };
    let framed = |family: Vec<u8>| {
        let mut out = Vec::new();
        prost::encode_length_delimiter(family.len(), &mut out).expect("a Vec takes every write");
        [out, family].concat()
    };
    let family = |unit: &[u8]| {
        let unit = unit.repeat((BODY_BYTES - 64) / unit.len());
        framed([b"\x0a\x01a\x18\x01".as_slice(), &unit].concat())
    };
    let histogram = |unit: &[u8]| {
        let buckets = unit.repeat((BODY_BYTES - 64) / unit.len());
        let nested = |tag: u8, inner: Vec<u8>| [vec![tag], framed(inner)].concat();
        framed([b"\x0a\x01a\x18\x04".to_vec(), nested(0x22, nested(0x3a, buckets))].concat())
    };
    let mut accepted = numbered(&|i| format!("a{{l=\"{i:0>145}\"}} 1\n"));
    accepted.truncate(accepted.len().min(100_000 * 154));
    let text: [Vec<u8>; 7] = [
        accepted,
        filled(b"a 1\n"),
        numbered(&|i| format!("n{i} 1\n")),
        numbered(&|i| format!("a{{l=\"{i:0>120}\"}} 1\n")),
        [b"a{".as_slice(), &filled(b"a=\"\",")[..BODY_BYTES - 10]].concat(),
        numbered(&|i| format!("# HELP a{i} x\n")),
        numbered(&|i| format!("# TYPE h{i} histogram\nh{i}_bucket{{le=\"1\"}} 1\n")),
    ];
    let messages: [Vec<u8>; 6] = [
        filled(b"\x00"),
        family(b"\x22\x00"),
        family(b"\x22\x02\x0a\x00"),
        family(b"\x22\x08\x0a\x06\x0a\x01a\x12\x01b"),
        histogram(b"\x1a\x00"),
        histogram(b"\x68\x02"),
    ];
    let bombs = [gzip(&filled(b"a 1\n").repeat(4)), gzip(&vec![b'#'; 128 * 1024 * 1024])];
    let zstd_bomb = zstd::encode_all(&vec![b'#'; 128 * 1024 * 1024][..], 3).expect("compressed");
    let all = (text.into_iter().map(|body| (vec![], body)))
        .chain(messages.into_iter().map(|body| (vec![PROTOBUF], body)))
        .chain(bombs.into_iter().map(|body| (vec![("Content-Encoding", "gzip")], body)))
        .chain([(vec![("Content-Encoding", "zstd")], zstd_bomb)]);
    for (number, (headers, body)) in all.enumerate() {
        let gateway = gateway();
        let (before, _) = resident(&gateway);
        let answer = request("PUT", &format!("{}/metrics/job/x", gateway.url), &headers, &body);
        let (_, most) = resident(&gateway);
        let times = (most - before) as f64 / BODY_BYTES as f64;
        assert!(times < 8.0, "body {number} ({}) costs {times:.1} times its size", answer.status);
        println!("body {number}: {} {times:.2}", answer.status);
    }
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    const CONNECTIONS: usize = 10_000;
    let gateway = released_gateway();
    let (soft, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    let needed = CONNECTIONS as u64 + 500;
    if hard < needed {
        eprintln!("not tested: this machine allows {hard} open files");
        return;
    }
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft.max(needed), hard)
        .expect("raised");
    let (before, _) = resident(&gateway);
    let (host, _) = http::split(&gateway.url);
    let start = Instant::now();
    let mut idle = Vec::new();
    while idle.len() < CONNECTIONS {
        let mut stream = TcpStream::connect(host).expect("connected");
        // One that has asked before holds what it needed for that; every second one has.
        if idle.len() % 2 == 0 {
            stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        }
        idle.push(stream);
    }
    for stream in idle.iter_mut().step_by(2) {
        assert!(answer_on(stream).starts_with("HTTP/1.1 200 "));
    }
    let (after, _) = resident(&gateway);
    let megabytes = (after - before) as f64 / 1e6;
    println!("{CONNECTIONS} connections in {:?}: {megabytes:.0} MB", start.elapsed());
    assert!(megabytes < 200.0, "{megabytes} MB");
    assert_eq!(get(&format!("{}/-/healthy", gateway.url)).status, 200);
}

#[test]
fn who_looks_for_groups_for_long_keeps_nobody_from_scraping() {
    let gateway = gateway_with(&["--limit.requests=20"]);
    // Of such a text the expression below needs a state for each character and each place in itself.
    let value: String = (0_u64..3000).map(|i| if i * i % 7 < 3 { 'a' } else { 'b' }).collect();
    let line = |group: u32| format!("a{{job=\"x\",group=\"{group}\",value=\"{value}\"}} 1\n");
    let body: String = (0..800).map(line).collect();
    let groups = format!("{}/metrics?group_by=job,group,value", gateway.url);
    assert_eq!(put(&groups, body.as_bytes()).status, 200);
    let selector = r#"{value=~"(a|b)*a(a|b){1500}c"}"#;
    let selector: String = form_urlencoded::byte_serialize(selector.as_bytes()).collect();
    let groups = format!("{}/api/v1/groups?match[]={selector}", gateway.url);
    std::thread::scope(|scope| {
        let find = || get(&groups);
        let delete = || request("DELETE", &groups, &[], b"");
        let mut searches: Vec<_> = (0..20).map(|_| scope.spawn(find)).collect();
        searches.push(scope.spawn(delete));
        while !searches.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let begin = Instant::now();
            assert_eq!(get(&format!("{}/metrics", gateway.url)).status, 200);
            assert_eq!(put(&format!("{}/metrics/job/y", gateway.url), b"a 1\n").status, 200);
            assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
        }
        let mut slow = 0;
        for search in searches {
            let answer = search.join().expect("an answer");
            assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
            slow += usize::from(answer.text().contains("finding the groups takes more than 5 s"));
            // Whoever finds too many others waiting does not wait.
            let is_refused =
                answer.text().contains("more than 3 requests with regular expressions at a time");
            assert!(is_refused || answer.text().contains("5 s"), "{}", answer.text());
        }
        assert!((1..=4).contains(&slow), "{slow}");
    });
    assert!(get(&format!("{}/metrics", gateway.url)).text().contains("group=\"799\""), "nothing was deleted");
}
