//! The exposition formats, through the public model.

use jobmon::exposition::family::{
    Bucket, Count, Counter, Exemplar, Histogram, NativeBuckets, NativeHistogram, Quantile, Span, Summary,
    Timestamp,
};
use jobmon::exposition::labels::Escaping;
use jobmon::exposition::{
    Labels, Limits, Metric, MetricFamily, MetricType, Validation, Value, protobuf, text,
};
use proptest::prelude::*;

use crate::table::{Answer, ROWS, Row, UTF8_ROWS, large_bodies};

fn assert_row(row: &Row, validation: Validation) {
    let parsed = text::parse(row.body, validation);
    let body = row.body.escape_ascii();
    match &row.answer {
        Answer::Ok | Answer::Store(_) => assert!(parsed.is_ok(), "{body}: {parsed:?}"),
        Answer::Parse(line, message) => {
            let expected = format!("text format parsing error in line {line}: {message}");
            assert_eq!(parsed.expect_err(&body.to_string()).to_string(), expected, "{body}");
        }
    }
}

#[test]
fn every_row_of_the_acceptance_table_is_read_as_it_says() {
    ROWS.iter().for_each(|row| assert_row(row, Validation::Legacy));
    UTF8_ROWS.iter().for_each(|row| assert_row(row, Validation::Utf8));
    for (name, body) in large_bodies() {
        assert!(text::parse(&body, Validation::Legacy).is_ok(), "{name}");
    }
}

fn encoded(body: &str) -> String {
    let families = text::parse(body.as_bytes(), Validation::Utf8).expect("a good text");
    let mut out = Vec::new();
    text::encode(&mut out, &families, Escaping::AllowUtf8);
    String::from_utf8(out).expect("text is UTF-8")
}

#[test]
fn texts_are_rendered_in_the_form_of_go() {
    let cases = [
        ("a 1\n", "# TYPE a untyped\na 1\n"),
        ("# HELP a \n# TYPE a counter\na{} 1e6\n", "# TYPE a counter\na 1e+06\n"),
        ("#   HELP   a   x  y  \na 0\n", "# HELP a x  y  \n# TYPE a untyped\na 0\n"),
        ("# HELP a \\\\ \\n \\\"\na 0\n", "# HELP a \\\\ \\n \"\n# TYPE a untyped\na 0\n"),
        ("a{x=\"\\\\ \\n \\\"\",} -0\n", "# TYPE a untyped\na{x=\"\\\\ \\n \\\"\"} 0\n"),
        (
            "{\"my.metric\",\"x.y\"=\"z\"} 1\n",
            "# TYPE \"my.metric\" untyped\n{\"my.metric\",\"x.y\"=\"z\"} 1\n",
        ),
        ("# TYPE s summary\ns 3\n", "# TYPE s summary\ns_sum 0\ns_count 0\n"),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 4\nh_count 2\n",
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 4\nh_count 2\n",
        ),
        (
            "# TYPE h gauge_histogram\nh_bucket{le=\"1\",x=\"y\"} 1.5\nh_count{x=\"y\"} 2\n",
            "# TYPE h histogram\nh_bucket{x=\"y\",le=\"1\"} 1.5\nh_bucket{x=\"y\",le=\"+Inf\"} 2\n\
             h_sum{x=\"y\"} 0\nh_count{x=\"y\"} 2\n",
        ),
        (
            "a{x=\"1\"} 1\nb 2\na{x=\"0\"} 3\n",
            "# TYPE a untyped\na{x=\"1\"} 1\na{x=\"0\"} 3\n# TYPE b untyped\nb 2\n",
        ),
    ];
    for (body, text) in cases {
        assert_eq!(encoded(body), text, "{body}");
    }
}

#[test]
fn names_are_escaped_for_readers_that_want_it() {
    let families = text::parse(b"{\"my.metric\",\"x.y\"=\"z\"} 1\n", Validation::Utf8).expect("a good text");
    for (escaping, expected) in [
        (Escaping::Underscores, "# TYPE my_metric untyped\nmy_metric{x_y=\"z\"} 1\n"),
        (Escaping::Dots, "# TYPE my_dot_metric untyped\nmy_dot_metric{x_dot_y=\"z\"} 1\n"),
        (Escaping::Values, "# TYPE U__my_2e_metric untyped\nU__my_2e_metric{U__x_2e_y=\"z\"} 1\n"),
    ] {
        let mut out = Vec::new();
        text::encode(&mut out, &families, escaping);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

#[test]
fn lengths_beyond_the_body_are_not_believed() {
    for body in [
        &b"\x80\x80\x80\x80\x80\x02abc"[..],
        b"\x05\x0a",
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        assert_eq!(
            protobuf::decode(body, &Limits::NONE).expect_err("too short").to_string(),
            "unexpected EOF"
        );
    }
    assert_eq!(
        protobuf::decode(b"\x02\x08\x01", &Limits::NONE)
            .expect_err("a number where a name belongs")
            .to_string(),
        "proto: cannot parse invalid wire-format data"
    );
}

#[test]
fn the_last_of_two_families_with_one_name_counts() {
    let family = |value| MetricFamily {
        metrics: vec![Metric { labels: Labels::default(), value: Value::Gauge(value), timestamp_ms: None }],
        ..MetricFamily::new("a", MetricType::Gauge)
    };
    let mut body = Vec::new();
    protobuf::encode(&mut body, [&family(1.0), &family(2.0)]);
    assert_eq!(protobuf::decode(&body, &Limits::NONE), Ok(vec![family(2.0)]));
}

#[test]
fn a_message_that_stands_for_nothing_is_named() {
    // name "a", one metric without a value; no type, which means COUNTER.
    let body = b"\x05\x0a\x01a\x22\x00";
    assert_eq!(
        protobuf::decode(body, &Limits::NONE).expect_err("no value").to_string(),
        r#"collected metric "a" { } is not a COUNTER"#
    );
    // name "a", type 9
    let body = b"\x05\x0a\x01a\x18\x09";
    assert_eq!(
        protobuf::decode(body, &Limits::NONE).expect_err("no such type").to_string(),
        r#"collected metric "a" has an unknown type: 9"#
    );
    // name "\xff"
    assert!(protobuf::decode(b"\x03\x0a\x01\xff", &Limits::NONE).is_err());
}

// ---- properties

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>()
            .prop_filter("NaN is not equal to itself, and -0 is written as 0", |f| !f.is_nan() && *f != 0.0),
        Just(0.0),
        Just(1.0),
        Just(f64::INFINITY),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-z_][a-z0-9_.]{0,3}", ".{0,6}", 0..4).prop_map(|map| {
        Labels::from_pairs(map.into_iter().filter(|(n, _)| !["le", "quantile"].contains(&n.as_str())))
    })
}

fn whole() -> impl Strategy<Value = u64> {
    // Larger counts lose digits as floats.
    0..(1_u64 << 53)
}

fn value(kind: MetricType) -> BoxedStrategy<Value> {
    match kind {
        MetricType::Counter => float().prop_map(Value::counter).boxed(),
        MetricType::Gauge => float().prop_map(Value::Gauge).boxed(),
        MetricType::Untyped => float().prop_map(Value::Untyped).boxed(),
        MetricType::Summary => (whole(), float(), prop::collection::vec((float(), float()), 0..3))
            .prop_map(|(count, sum, quantiles)| {
                let quantiles =
                    quantiles.into_iter().map(|(quantile, value)| Quantile { quantile, value }).collect();
                Value::Summary(Box::new(Summary { count, sum, quantiles, created: None }))
            })
            .boxed(),
        MetricType::Histogram | MetricType::GaugeHistogram => {
            (whole(), float(), prop::collection::vec((float(), whole()), 0..3))
                .prop_map(|(count, sum, buckets)| {
                    let bucket = |(upper_bound, count)| Bucket {
                        upper_bound,
                        cumulative: Count::Integer(count),
                        exemplar: None,
                    };
                    let mut buckets: Vec<_> = buckets.into_iter().map(bucket).collect();
                    buckets.retain(|b| b.upper_bound != f64::INFINITY);
                    buckets.push(bucket((f64::INFINITY, count)));
                    Value::Histogram(Box::new(Histogram {
                        count: Count::Integer(count),
                        sum,
                        buckets,
                        ..Histogram::default()
                    }))
                })
                .boxed()
        }
    }
}

fn family() -> impl Strategy<Value = MetricFamily> {
    let kinds = prop_oneof![
        Just(MetricType::Counter),
        Just(MetricType::Gauge),
        Just(MetricType::Summary),
        Just(MetricType::Untyped),
        Just(MetricType::Histogram),
    ];
    kinds.prop_flat_map(|kind| {
        let metric =
            (labels(), value(kind)).prop_map(|(labels, value)| Metric { labels, value, timestamp_ms: None });
        let help = prop::option::of(".{0,12}[^ \t\n]")
            .prop_map(|help| help.map(|h| h.trim_start_matches([' ', '\t']).to_owned()));
        ("[a-z:][a-z0-9.]{0,6}", help, prop::collection::vec(metric, 1..4)).prop_map(
            move |(name, help, metrics)| {
                let mut metrics = metrics;
                // A histogram or summary met again is the same metric.
                metrics.dedup_by_key(|metric| metric.labels.clone());
                metrics.sort_by(|a, b| a.labels.cmp(&b.labels));
                metrics.dedup_by_key(|metric| metric.labels.clone());
                MetricFamily { name, help, unit: None, kind, metrics }
            },
        )
    })
}

fn families() -> impl Strategy<Value = Vec<MetricFamily>> {
    prop::collection::vec(family(), 0..5).prop_map(|mut families| {
        families.sort_by(|a, b| a.name.cmp(&b.name));
        families.dedup_by(|a, b| a.name == b.name);
        families
    })
}

/// What only protobuf can say.
fn enrich(family: &mut MetricFamily) {
    let timestamp = Timestamp { seconds: 1, nanos: 2 };
    let exemplar = || Exemplar {
        labels: Labels::from_pairs([("trace_id", "x")]),
        value: 3.0,
        timestamp: Some(timestamp),
    };
    family.unit = Some("seconds".to_owned());
    for metric in &mut family.metrics {
        metric.timestamp_ms = Some(-5);
        match &mut metric.value {
            Value::Counter(counter) => {
                *counter = Counter {
                    exemplar: Some(Box::new(exemplar())),
                    created: Some(timestamp),
                    ..counter.clone()
                };
            }
            Value::Summary(summary) => summary.created = Some(timestamp),
            Value::Histogram(histogram) => {
                histogram.created = Some(timestamp);
                histogram.exemplars = vec![exemplar()];
                histogram.buckets.iter_mut().for_each(|bucket| bucket.exemplar = Some(Box::new(exemplar())));
                histogram.native = Some(Box::new(NativeHistogram {
                    schema: 3,
                    zero_threshold: 0.001,
                    zero_count: Count::Float(1.5),
                    positive: NativeBuckets {
                        spans: vec![Span { offset: -4, length: 2 }],
                        deltas: vec![1, -1],
                        counts: Vec::new(),
                    },
                    negative: NativeBuckets {
                        spans: vec![Span { offset: 0, length: 1 }],
                        deltas: Vec::new(),
                        counts: vec![2.5],
                    },
                }));
            }
            Value::Gauge(_) | Value::Untyped(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_as_text_reads_back(families in families()) {
        let mut body = Vec::new();
        text::encode(&mut body, &families, Escaping::AllowUtf8);
        let back = text::parse(&body, Validation::Utf8);
        prop_assert_eq!(back, Ok(families), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn what_is_written_as_protobuf_reads_back(families in families()) {
        let mut families = families;
        families.iter_mut().for_each(enrich);
        let mut body = Vec::new();
        protobuf::encode(&mut body, &families);
        prop_assert_eq!(protobuf::decode(&body, &Limits::NONE), Ok(families));
    }

    #[test]
    fn no_bytes_panic(body: Vec<u8>) {
        let _ = text::parse(&body, Validation::Legacy);
        let _ = protobuf::decode(&body, &Limits::NONE);
    }

    #[test]
    fn no_text_like_bytes_panic(body in "[ah_#{}=\"\\\\,:0-9.eE+ \n\tHELPTYPhistogramle<sum>_bucket]{0,80}") {
        let _ = text::parse(body.as_bytes(), Validation::Utf8);
    }
}
