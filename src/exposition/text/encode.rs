//! Families written as text.

use std::borrow::Cow;

use super::go::{format_float, write_float};
use crate::exposition::family::{Histogram, Metric, MetricFamily, MetricType, Summary, Value};
use crate::exposition::labels::{Escaping, Labels, Validation};

/// Appends families as they stand: nothing is sorted, families without metrics are passed over.
pub fn encode<'a>(
    out: &mut Vec<u8>,
    families: impl IntoIterator<Item = &'a MetricFamily>,
    escaping: Escaping,
) {
    for family in families {
        if family.metrics.is_empty() {
            continue;
        }
        encode_header(out, &family.name, family.help.as_deref(), family.kind, escaping);
        for metric in &family.metrics {
            encode_metric(out, &family.name, metric, escaping);
        }
    }
}

/// Appends the `# HELP` (if there is one) and `# TYPE` lines of a family.
pub fn encode_header(
    out: &mut Vec<u8>,
    name: &str,
    help: Option<&str>,
    kind: MetricType,
    escaping: Escaping,
) {
    let name = escaping.escape(name);
    if let Some(help) = help {
        out.extend_from_slice(b"# HELP ");
        push_name(out, &name);
        out.push(b' ');
        push_escaped(out, help, false);
        out.push(b'\n');
    }
    out.extend_from_slice(b"# TYPE ");
    push_name(out, &name);
    out.push(b' ');
    out.extend_from_slice(kind.text_name().as_bytes());
    out.push(b'\n');
}

/// Appends the sample lines of one metric.
pub fn encode_metric(out: &mut Vec<u8>, name: &str, metric: &Metric, escaping: Escaping) {
    let mut lines = Lines { out, name: escaping.escape(name), metric, escaping };
    match &metric.value {
        Value::Counter(counter) => lines.sample("", None, counter.value),
        Value::Gauge(value) | Value::Untyped(value) => lines.sample("", None, *value),
        Value::Summary(summary) => lines.summary(summary),
        Value::Histogram(histogram) => lines.histogram(histogram),
    }
}

struct Lines<'a> {
    out: &'a mut Vec<u8>,
    name: Cow<'a, str>,
    metric: &'a Metric,
    escaping: Escaping,
}

impl Lines<'_> {
    fn summary(&mut self, summary: &Summary) {
        for quantile in &summary.quantiles {
            self.sample("", Some(("quantile", quantile.quantile)), quantile.value);
        }
        self.sample("_sum", None, summary.sum);
        self.sample("_count", None, summary.count as f64);
    }

    fn histogram(&mut self, histogram: &Histogram) {
        for bucket in &histogram.buckets {
            self.sample("_bucket", Some(("le", bucket.upper_bound)), bucket.cumulative.as_f64());
        }
        let count = histogram.count.as_f64();
        if !histogram.has_infinite_bucket() {
            self.sample("_bucket", Some(("le", f64::INFINITY)), count);
        }
        self.sample("_sum", None, histogram.sum);
        self.sample("_count", None, count);
    }

    fn sample(&mut self, suffix: &str, bound: Option<(&str, f64)>, value: f64) {
        let name = if suffix.is_empty() {
            Cow::Borrowed(&*self.name)
        } else {
            Cow::Owned(format!("{}{suffix}", self.name))
        };
        let bound = bound.map(|(label, bound)| (label, format_float(bound)));
        push_name_and_labels(self.out, &name, &self.metric.labels, bound, self.escaping);
        self.out.push(b' ');
        write_float(self.out, value);
        if let Some(timestamp) = self.metric.timestamp_ms {
            self.out.push(b' ');
            self.out.extend_from_slice(timestamp.to_string().as_bytes());
        }
        self.out.push(b'\n');
    }
}

/// The label that holds a bound, and the bound.
pub(super) type Bound<'a> = Option<(&'a str, String)>;

/// A name outside the legacy alphabet goes inside the braces, in quotes; without name there are only labels.
pub(super) fn push_name_and_labels(
    out: &mut Vec<u8>,
    name: &str,
    labels: &Labels,
    bound: Bound<'_>,
    escaping: Escaping,
) {
    let mut separator = b'{';
    if !name.is_empty() {
        if !Validation::Legacy.is_metric_name(name) {
            out.push(separator);
            separator = b',';
        }
        push_name(out, name);
    }
    for (label, value) in labels.iter() {
        out.push(separator);
        separator = b',';
        push_label_name(out, &escaping.escape_label(label));
        out.extend_from_slice(b"=\"");
        push_escaped(out, value, true);
        out.push(b'"');
    }
    if let Some((label, bound)) = bound {
        out.push(separator);
        separator = b',';
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(b"=\"");
        out.extend_from_slice(bound.as_bytes());
        out.push(b'"');
    }
    if separator == b',' {
        out.push(b'}');
    }
}

pub(super) fn push_name(out: &mut Vec<u8>, name: &str) {
    push_quoted_unless(Validation::Legacy.is_metric_name(name), out, name);
}

fn push_label_name(out: &mut Vec<u8>, name: &str) {
    push_quoted_unless(Validation::Legacy.is_label_name(name), out, name);
}

fn push_quoted_unless(plain: bool, out: &mut Vec<u8>, name: &str) {
    if plain {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.push(b'"');
        push_escaped(out, name, true);
        out.push(b'"');
    }
}

pub(super) fn push_escaped(out: &mut Vec<u8>, text: &str, quotes: bool) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quotes => out.extend_from_slice(b"\\\""),
            byte => out.push(byte),
        }
    }
}
