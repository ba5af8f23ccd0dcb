//! Families written as OpenMetrics 1.0.0 text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), as `expfmt` does.

use super::encode::{Bound, push_escaped, push_name, push_name_and_labels};
use super::go::format_float;
use crate::exposition::family::{Count, Exemplar, Metric, MetricType, Value};
use crate::exposition::format::Head;
use crate::exposition::labels::{Escaping, Labels, Validation};

/// The media type of this format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Ends the name of a counter's sample, and not that of its family.
const TOTAL: &str = "_total";

/// Appends what a family begins with.
pub fn open(out: &mut Vec<u8>, head: Head<'_>, escaping: Escaping) {
    let name = escaping.escape(head.name);
    let name = base(&name, head.kind);
    if let Some(help) = head.help {
        line(out, "HELP", name, |out| push_escaped(out, help, true));
    }
    line(out, "TYPE", name, |out| out.extend_from_slice(type_name(head.kind).as_bytes()));
    if let Some(unit) = head.unit {
        line(out, "UNIT", name, |out| out.extend_from_slice(unit.as_bytes()));
    }
}

/// Appends a metric of a family.
pub fn metric(out: &mut Vec<u8>, head: Head<'_>, metric: &Metric, escaping: Escaping) {
    let name = escaping.escape(head.name);
    Samples { out, name: base(&name, head.kind), kind: head.kind, escaping }.metric(metric);
}

/// The name of a family, of which a counter's samples have more.
fn base(name: &str, kind: MetricType) -> &str {
    match kind {
        MetricType::Counter => name.strip_suffix(TOTAL).filter(|base| !base.is_empty()).unwrap_or(name),
        _ => name,
    }
}

fn line(out: &mut Vec<u8>, keyword: &str, name: &str, rest: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(format!("# {keyword} ").as_bytes());
    push_name(out, name);
    out.push(b' ');
    rest(out);
    out.push(b'\n');
}

fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Untyped => "unknown",
        MetricType::GaugeHistogram => "gaugehistogram",
        _ => kind.text_name(),
    }
}

struct Samples<'a> {
    out: &'a mut Vec<u8>,
    name: &'a str,
    kind: MetricType,
    escaping: Escaping,
}

impl Samples<'_> {
    fn metric(&mut self, metric: &Metric) {
        let labels = &metric.labels;
        match &metric.value {
            Value::Counter(counter) => {
                self.sample(TOTAL, labels, None, &float(counter.value), counter.exemplar.as_deref());
            }
            Value::Gauge(value) | Value::Untyped(value) => {
                self.sample("", labels, None, &float(*value), None);
            }
            Value::Summary(summary) => {
                for quantile in &summary.quantiles {
                    let bound = Some(("quantile", float(quantile.quantile)));
                    self.sample("", labels, bound, &float(quantile.value), None);
                }
                self.sample("_sum", labels, None, &float(summary.sum), None);
                self.sample("_count", labels, None, &summary.count.to_string(), None);
            }
            Value::Histogram(histogram) => {
                let (sum, number) = match self.kind {
                    MetricType::GaugeHistogram => ("_gsum", "_gcount"),
                    _ => ("_sum", "_count"),
                };
                for bucket in &histogram.buckets {
                    let bound = Some(("le", float(bucket.upper_bound)));
                    self.sample(
                        "_bucket",
                        labels,
                        bound,
                        &count(bucket.cumulative),
                        bucket.exemplar.as_deref(),
                    );
                }
                if !histogram.has_infinite_bucket() {
                    let bound = Some(("le", float(f64::INFINITY)));
                    self.sample("_bucket", labels, bound, &count(histogram.count), None);
                }
                self.sample(sum, labels, None, &float(histogram.sum), None);
                self.sample(number, labels, None, &count(histogram.count), None);
            }
        }
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: &Labels,
        bound: Bound<'_>,
        value: &str,
        exemplar: Option<&Exemplar>,
    ) {
        let name = format!("{}{suffix}", self.name);
        push_name_and_labels(self.out, &name, labels, bound, self.escaping);
        self.out.push(b' ');
        self.out.extend_from_slice(value.as_bytes());
        // Prometheus' reader ends at a NUL, and at a label without name.
        let is_readable = |exemplar: &&Exemplar| {
            let good =
                |(name, value): (&str, &str)| Validation::Utf8.is_label_name(name) && !value.contains('\0');
            exemplar.labels.iter().all(good)
        };
        if let Some(exemplar) = exemplar.filter(is_readable) {
            self.exemplar(exemplar);
        }
        self.out.push(b'\n');
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        self.out.extend_from_slice(b" # ");
        if exemplar.labels.is_empty() {
            self.out.extend_from_slice(b"{}");
        }
        push_name_and_labels(self.out, "", &exemplar.labels, None, self.escaping);
        self.out.push(b' ');
        self.out.extend_from_slice(float(exemplar.value).as_bytes());
        if let Some(timestamp) = exemplar.timestamp {
            let seconds = timestamp.seconds as f64 + f64::from(timestamp.nanos) / 1e9;
            self.out.extend_from_slice(format!(" {}", float(seconds)).as_bytes());
        }
    }
}

/// A float with a point or an exponent, as the format asks for.
fn float(value: f64) -> String {
    let text = format_float(value);
    if text.contains(['.', 'e', 'N', 'I']) { text } else { text + ".0" }
}

fn count(count: Count) -> String {
    match count {
        Count::Integer(whole) => whole.to_string(),
        Count::Float(value) => float(value),
    }
}
