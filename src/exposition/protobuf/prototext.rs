//! Families in the text form of protobuf: over many lines, or a family a line.

use crate::exposition::family::{Count, Exemplar, Histogram, Metric, NativeBuckets, Timestamp, Value};
use crate::exposition::format::Head;
use crate::exposition::labels::{Escaping, Labels};
use crate::exposition::text::go::{format_signed_float, quote};

/// A message: its fields in order.
#[derive(Default)]
struct Message(Vec<(&'static str, Field)>);

enum Field {
    Scalar(String),
    Message(Message),
}

impl Message {
    fn scalar(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, Field::Scalar(value.into())));
    }

    fn text(&mut self, name: &'static str, value: &str) {
        self.scalar(name, quote(value.as_bytes()));
    }

    fn message(&mut self, name: &'static str, message: Message) {
        self.0.push((name, Field::Message(message)));
    }

    fn count(&mut self, whole: &'static str, float: &'static str, count: Count) {
        match count {
            Count::Integer(count) => self.scalar(whole, count.to_string()),
            Count::Float(count) => self.scalar(float, number(count)),
        }
    }

    fn compact(&self, separator: &str) -> String {
        let field = |(name, field): &(&str, Field)| match field {
            Field::Scalar(value) => format!("{name}:{value}"),
            Field::Message(message) => format!("{name}:{{{}}}", message.compact(separator)),
        };
        self.0.iter().map(field).collect::<Vec<_>>().join(separator)
    }

    fn indented(&self, out: &mut Vec<u8>, indent: usize) {
        for (name, field) in &self.0 {
            out.extend(std::iter::repeat_n(b' ', indent));
            out.extend_from_slice(name.as_bytes());
            match field {
                Field::Scalar(value) => out.extend_from_slice(format!(": {value}\n").as_bytes()),
                Field::Message(message) => {
                    out.extend_from_slice(b": {\n");
                    message.indented(out, indent + 2);
                    out.extend(std::iter::repeat_n(b' ', indent));
                    out.extend_from_slice(b"}\n");
                }
            }
        }
    }
}

/// Appends what stands before the metrics of a family over many lines.
pub(in crate::exposition) fn open(out: &mut Vec<u8>, head: Head<'_>, escaping: Escaping) {
    head_message(head, escaping).indented(out, 0);
}

/// Appends a metric over many lines.
pub(in crate::exposition) fn metric(out: &mut Vec<u8>, metric: &Metric, escaping: Escaping) {
    metric_field(metric, escaping).indented(out, 0);
}

/// Appends what stands behind the metrics, and an empty line.
pub(in crate::exposition) fn close(out: &mut Vec<u8>, head: Head<'_>) {
    unit_message(head).indented(out, 0);
    out.push(b'\n');
}

/// Appends what stands before the metrics in a family's only line.
pub(in crate::exposition) fn open_compact(out: &mut Vec<u8>, head: Head<'_>, escaping: Escaping) {
    out.extend_from_slice(head_message(head, escaping).compact(" ").as_bytes());
}

/// Appends a metric to the line.
pub(in crate::exposition) fn metric_compact(out: &mut Vec<u8>, metric: &Metric, escaping: Escaping) {
    out.push(b' ');
    out.extend_from_slice(metric_field(metric, escaping).compact(" ").as_bytes());
}

/// Ends the line.
pub(in crate::exposition) fn close_compact(out: &mut Vec<u8>, head: Head<'_>) {
    if head.unit.is_some() {
        out.push(b' ');
    }
    out.extend_from_slice(unit_message(head).compact(" ").as_bytes());
    out.push(b'\n');
}

/// Bytes of labels that a description of a metric shows.
const DESCRIBED_BYTES_MAX: usize = 16 * 1024;

/// A metric in one line, with the two spaces between fields that client_golang's messages tend to have. Of one whose labels
/// are very long only the value is shown.
pub(in crate::exposition) fn describe(metric: &Metric) -> String {
    if metric.labels.text_bytes() > DESCRIBED_BYTES_MAX {
        let metric = Metric { labels: Labels::default(), ..metric.clone() };
        return format!("...  {}", metric_message(&metric, Escaping::AllowUtf8).compact("  "));
    }
    metric_message(metric, Escaping::AllowUtf8).compact("  ")
}

/// Labels alone, in the same form.
pub(in crate::exposition) fn describe_labels(labels: &Labels) -> String {
    let mut message = Message::default();
    add_labels(&mut message, labels, Escaping::AllowUtf8);
    message.compact("  ")
}

fn head_message(head: Head<'_>, escaping: Escaping) -> Message {
    let mut message = Message::default();
    message.text("name", &escaping.escape(head.name));
    if let Some(help) = head.help {
        message.text("help", help);
    }
    message.scalar("type", head.kind.proto_name());
    message
}

fn unit_message(head: Head<'_>) -> Message {
    let mut message = Message::default();
    if let Some(unit) = head.unit {
        message.text("unit", unit);
    }
    message
}

fn metric_field(metric: &Metric, escaping: Escaping) -> Message {
    let mut message = Message::default();
    message.message("metric", metric_message(metric, escaping));
    message
}

fn metric_message(metric: &Metric, escaping: Escaping) -> Message {
    let mut message = Message::default();
    add_labels(&mut message, &metric.labels, escaping);
    let (name, value) = match &metric.value {
        Value::Gauge(value) => ("gauge", value_message(*value)),
        Value::Untyped(value) => ("untyped", value_message(*value)),
        Value::Counter(counter) => {
            let mut message = value_message(counter.value);
            if let Some(exemplar) = &counter.exemplar {
                message.message("exemplar", exemplar_message(exemplar));
            }
            add_created(&mut message, counter.created);
            ("counter", message)
        }
        Value::Summary(summary) => {
            let mut message = Message::default();
            message.scalar("sample_count", summary.count.to_string());
            message.scalar("sample_sum", number(summary.sum));
            for q in &summary.quantiles {
                let mut quantile = Message::default();
                quantile.scalar("quantile", number(q.quantile));
                quantile.scalar("value", number(q.value));
                message.message("quantile", quantile);
            }
            add_created(&mut message, summary.created);
            ("summary", message)
        }
        Value::Histogram(histogram) => ("histogram", histogram_message(histogram)),
    };
    message.message(name, value);
    message
}

fn value_message(value: f64) -> Message {
    let mut message = Message::default();
    message.scalar("value", number(value));
    message
}

fn histogram_message(histogram: &Histogram) -> Message {
    let mut message = Message::default();
    message.count("sample_count", "sample_count_float", histogram.count);
    message.scalar("sample_sum", number(histogram.sum));
    for b in &histogram.buckets {
        let mut bucket = Message::default();
        bucket.count("cumulative_count", "cumulative_count_float", b.cumulative);
        bucket.scalar("upper_bound", number(b.upper_bound));
        if let Some(exemplar) = &b.exemplar {
            bucket.message("exemplar", exemplar_message(exemplar));
        }
        message.message("bucket", bucket);
    }
    if let Some(native) = &histogram.native {
        message.scalar("schema", native.schema.to_string());
        message.scalar("zero_threshold", number(native.zero_threshold));
        message.count("zero_count", "zero_count_float", native.zero_count);
        let negative = ["negative_span", "negative_delta", "negative_count"];
        add_native(&mut message, negative, &native.negative);
        let positive = ["positive_span", "positive_delta", "positive_count"];
        add_native(&mut message, positive, &native.positive);
    }
    add_created(&mut message, histogram.created);
    for exemplar in &histogram.exemplars {
        message.message("exemplars", exemplar_message(exemplar));
    }
    message
}

fn add_native(message: &mut Message, [span, delta, count]: [&'static str; 3], buckets: &NativeBuckets) {
    for s in &buckets.spans {
        let mut fields = Message::default();
        fields.scalar("offset", s.offset.to_string());
        fields.scalar("length", s.length.to_string());
        message.message(span, fields);
    }
    buckets.deltas.iter().for_each(|d| message.scalar(delta, d.to_string()));
    buckets.counts.iter().for_each(|c| message.scalar(count, number(*c)));
}

fn add_labels(message: &mut Message, labels: &Labels, escaping: Escaping) {
    for (name, value) in labels.iter() {
        let mut pair = Message::default();
        pair.text("name", &escaping.escape_label(name));
        pair.text("value", value);
        message.message("label", pair);
    }
}

fn exemplar_message(exemplar: &Exemplar) -> Message {
    let mut message = Message::default();
    add_labels(&mut message, &exemplar.labels, Escaping::AllowUtf8);
    message.scalar("value", number(exemplar.value));
    if let Some(time) = exemplar.timestamp {
        message.message("timestamp", timestamp_message(time));
    }
    message
}

fn add_created(message: &mut Message, created: Option<Timestamp>) {
    if let Some(created) = created {
        message.message("created_timestamp", timestamp_message(created));
    }
}

fn timestamp_message(time: Timestamp) -> Message {
    let mut message = Message::default();
    message.scalar("seconds", time.seconds.to_string());
    message.scalar("nanos", time.nanos.to_string());
    message
}

/// A float as protobuf's text form has it.
fn number(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
    } else {
        format_signed_float(value)
    }
}
