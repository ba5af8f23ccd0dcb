//! Delimited protobuf: a varint length and an `io.prometheus.client.MetricFamily`, again and again.
//!
//! The messages are those of client_model's `metrics.proto`. Text fields are read as bytes, so that a name that is not
//! UTF-8 can be named in the answer.

pub(super) mod prototext;
mod weigh;
mod wire;

use prost::Message as _;
use prost::bytes::Buf as _;

use super::check::Inconsistent;
use super::family::{
    Bucket, Count, Counter, Exemplar, Histogram, Metric, MetricFamily, MetricType, NativeBuckets,
    NativeHistogram, Quantile, Span, Summary, Timestamp, Value,
};
use super::format::Head;
use super::labels::{Escaping, Labels};
use super::limits::{Exceeded, Limits};

/// The media type of this format, as a scrape answers with it and a push declares it.
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Why bytes are no delimited families.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A length that reaches beyond the end, or a body that ends inside a length.
    #[error("unexpected EOF")]
    Truncated,
    /// The bytes are no message.
    #[error("proto: cannot parse invalid wire-format data")]
    Malformed,
    /// A message that stands for nothing that can be exposed.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// More than is read.
    #[error(transparent)]
    TooMuch(#[from] Exceeded),
}

/// Reads families. Of two with the same name the last one counts. Metrics are decoded one at a time, so that what is held
/// is what was read and not the messages.
///
/// # Errors
/// See [`DecodeError`]; nothing of the bytes is used then. No length is believed beyond the bytes that are there.
pub fn decode(mut body: &[u8], limits: &Limits) -> Result<Vec<MetricFamily>, DecodeError> {
    let mut scale = weigh::Scale::new(limits);
    let mut families = Vec::new();
    let mut places = std::collections::HashMap::new();
    while body.has_remaining() {
        let length = prost::decode_length_delimiter(&mut body).map_err(|_| DecodeError::Truncated)?;
        if length > body.len() {
            return Err(DecodeError::Truncated);
        }
        let (message, rest) = body.split_at(length);
        body = rest;
        let (name, family) = read::family(message, limits, &mut scale)?;
        let next = families.len();
        match *places.entry(name).or_insert(next) {
            at if at < next => families[at] = family,
            // A family costs something before it has a metric.
            _ if next >= limits.samples => return Err(Exceeded::Samples.into()),
            _ => families.push(family),
        }
    }
    // What a later family of the same name replaces is not judged.
    families.into_iter().map(|family| family.map_err(DecodeError::Inconsistent)).collect()
}

/// Appends families, each with its length before it.
pub fn encode<'a>(out: &mut Vec<u8>, families: impl IntoIterator<Item = &'a MetricFamily>) {
    let mut metrics = Vec::new();
    for family in families {
        metrics.clear();
        family.metrics.iter().for_each(|m| metric(&mut metrics, m, Escaping::AllowUtf8));
        open(out, Head::of(family), Escaping::AllowUtf8, metrics.len());
        out.extend_from_slice(&metrics);
        close(out, Head::of(family));
    }
}

/// Appends the length of a family whose metrics take so many bytes, and what it begins with.
pub(super) fn open(out: &mut Vec<u8>, head: Head<'_>, escaping: Escaping, metrics_bytes: usize) {
    let (begin, end) = (write::head(head, escaping), write::unit(head));
    let bytes = begin.encoded_len() + metrics_bytes + end.encoded_len();
    prost::encode_length_delimiter(bytes, out).expect("a Vec grows as far as needed");
    begin.encode(out).expect("a Vec grows as far as needed");
}

/// Appends a metric as a field of its family.
pub(super) fn metric(out: &mut Vec<u8>, metric: &Metric, escaping: Escaping) {
    match plain::number(metric) {
        Some((field, number)) => plain::encode(out, &metric.labels, escaping, field, number),
        None => prost::encoding::message::encode(weigh::METRIC, &write::metric(metric, escaping), out),
    }
}

/// Metrics that are a number and nothing else, which most are: written without a message in between.
mod plain {
    use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

    use super::weigh::METRIC;
    use super::{Counter, Escaping, Labels, Metric, Value};

    /// The field of the metric's value, and the number in it.
    pub(super) fn number(metric: &Metric) -> Option<(u32, f64)> {
        let value = match &metric.value {
            Value::Gauge(number) => (2, *number),
            Value::Counter(Counter { value, exemplar: None, created: None }) => (3, *value),
            Value::Untyped(number) => (5, *number),
            _ => return None,
        };
        metric.timestamp_ms.is_none().then_some(value)
    }

    /// Bytes of a value message: a key and a double.
    const VALUE_BYTES: usize = 9;

    pub(super) fn encode(out: &mut Vec<u8>, labels: &Labels, escaping: Escaping, field: u32, number: f64) {
        let sized = |bytes: usize| 1 + encoded_len_varint(bytes as u64) + bytes;
        let pair = |name: &str, value: &str| sized(name.len()) + sized(value.len());
        let escaped = || labels.iter().map(|(name, value)| (escaping.escape_label(name), value));
        let labels_bytes: usize = escaped().map(|(name, value)| sized(pair(&name, value))).sum();
        begin(out, METRIC, labels_bytes + sized(VALUE_BYTES));
        for (name, value) in escaped() {
            begin(out, 1, pair(&name, value));
            for (field, text) in [(1, &*name), (2, value)] {
                begin(out, field, text.len());
                out.extend_from_slice(text.as_bytes());
            }
        }
        begin(out, field, VALUE_BYTES);
        encode_key(1, WireType::SixtyFourBit, out);
        out.extend_from_slice(&number.to_le_bytes());
    }

    /// A field that has a length.
    fn begin(out: &mut Vec<u8>, field: u32, bytes: usize) {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(bytes as u64, out);
    }
}

/// Appends what a family ends with.
pub(super) fn close(out: &mut Vec<u8>, head: Head<'_>) {
    write::unit(head).encode(out).expect("a Vec grows as far as needed");
}

const TYPES: [MetricType; 6] = [
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Summary,
    MetricType::Untyped,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
];

/// Wire to model.
mod read {
    use prost::Message as _;

    use super::weigh::{self, Scale};
    use super::{
        Bucket, Count, Counter, DecodeError, Exemplar, Histogram, Inconsistent, Labels, Limits, Metric,
        MetricFamily, MetricType, NativeBuckets, NativeHistogram, Quantile, Span, Summary, TYPES, Timestamp,
        Value, wire,
    };

    /// What stands for nothing that can be exposed is told apart from what is no message: a later family may replace it.
    type Judged<T> = std::result::Result<T, Inconsistent>;

    /// The name as it is on the wire, and the family.
    pub(super) fn family(
        message: &[u8],
        limits: &Limits,
        scale: &mut Scale<'_>,
    ) -> Result<(Vec<u8>, Judged<MetricFamily>), DecodeError> {
        let head = wire::FamilyHead::decode(message).map_err(|_| DecodeError::Malformed)?;
        let name = head.name.clone().unwrap_or_default();
        limits.name(&name)?;
        let mut family = empty_family(head);
        for metric in weigh::metrics(message) {
            let bytes = metric?;
            scale.metric(bytes)?;
            let message = wire::Metric::decode(bytes).map_err(|_| DecodeError::Malformed)?;
            within(&message, limits)?;
            let Ok(to) = &mut family else { continue };
            match metric_of(&to.name, to.kind, message) {
                Ok(metric) => to.metrics.push(metric),
                Err(fault) => family = Err(fault),
            }
        }
        if let Ok(family) = &mut family {
            family.metrics.shrink_to_fit();
        }
        Ok((name, family))
    }

    fn empty_family(head: wire::FamilyHead) -> Judged<MetricFamily> {
        let name = text(head.name.unwrap_or_default(), |bytes| Inconsistent::NameNotUtf8 { bytes })?;
        let help = head
            .help
            .map(|help| text(help, |bytes| Inconsistent::HelpNotUtf8 { family: name.clone(), bytes }));
        let number = head.kind.unwrap_or_default();
        let kind = usize::try_from(number).ok().and_then(|n| TYPES.get(n)).copied();
        let kind = kind.ok_or_else(|| Inconsistent::UnknownType { family: name.clone(), number })?;
        let unit = head.unit.and_then(|unit| String::from_utf8(unit).ok());
        Ok(MetricFamily { help: help.transpose()?, name, unit, kind, metrics: Vec::with_capacity(1) })
    }

    fn within(metric: &wire::Metric, limits: &Limits) -> Result<(), DecodeError> {
        for pair in &metric.label {
            limits.name(pair.name.as_deref().unwrap_or_default())?;
            limits.label_value(pair.value.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    fn metric_of(family: &str, kind: MetricType, metric: wire::Metric) -> Judged<Metric> {
        let labels = labels(family, metric.label)?;
        let value = match kind {
            MetricType::Counter => metric.counter.map(|c| counter(family, *c)).transpose()?,
            MetricType::Gauge => metric.gauge.map(|g| Value::Gauge(g.value.unwrap_or_default())),
            MetricType::Untyped => metric.untyped.map(|u| Value::Untyped(u.value.unwrap_or_default())),
            MetricType::Summary => metric.summary.map(|s| summary(*s)),
            MetricType::Histogram | MetricType::GaugeHistogram => {
                metric.histogram.map(|h| histogram(family, *h)).transpose()?
            }
        };
        let value = value.ok_or_else(|| Inconsistent::WrongValue {
            family: family.to_owned(),
            labels: labels.clone(),
            kind,
        })?;
        Ok(Metric { labels, value, timestamp_ms: metric.timestamp_ms })
    }

    fn text(bytes: Vec<u8>, error: impl FnOnce(Vec<u8>) -> Inconsistent) -> Judged<String> {
        String::from_utf8(bytes).map_err(|e| error(e.into_bytes()))
    }

    fn labels(family: &str, pairs: Vec<wire::LabelPair>) -> Judged<Labels> {
        let mut texts = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = text(pair.name.unwrap_or_default(), |bytes| Inconsistent::LabelNameNotUtf8 {
                family: family.to_owned(),
                bytes,
            })?;
            let value = text(pair.value.unwrap_or_default(), |bytes| Inconsistent::LabelValueNotUtf8 {
                family: family.to_owned(),
                label: name.clone(),
                bytes,
            })?;
            texts.push((name, value));
        }
        Ok(Labels::from_pairs(texts))
    }

    fn counter(family: &str, counter: wire::Counter) -> Judged<Value> {
        Ok(Value::Counter(Counter {
            value: counter.value.unwrap_or_default(),
            exemplar: counter.exemplar.map(|e| exemplar(family, *e).map(Box::new)).transpose()?,
            created: counter.created_timestamp.map(timestamp),
        }))
    }

    fn summary(summary: wire::Summary) -> Value {
        let quantile = |q: wire::Quantile| Quantile {
            quantile: q.quantile.unwrap_or_default(),
            value: q.value.unwrap_or_default(),
        };
        Value::Summary(Box::new(Summary {
            count: summary.sample_count.unwrap_or_default(),
            sum: summary.sample_sum.unwrap_or_default(),
            quantiles: summary.quantile.into_iter().map(quantile).collect(),
            created: summary.created_timestamp.map(timestamp),
        }))
    }

    fn histogram(family: &str, histogram: wire::Histogram) -> Judged<Value> {
        let native = native(&histogram).map(Box::new);
        let bucket = |bucket: wire::Bucket| {
            Ok(Bucket {
                upper_bound: bucket.upper_bound.unwrap_or_default(),
                cumulative: count(bucket.cumulative_count, bucket.cumulative_count_float),
                exemplar: bucket.exemplar.map(|e| exemplar(family, *e).map(Box::new)).transpose()?,
            })
        };
        Ok(Value::Histogram(Box::new(Histogram {
            count: count(histogram.sample_count, histogram.sample_count_float),
            sum: histogram.sample_sum.unwrap_or_default(),
            buckets: histogram.bucket.into_iter().map(bucket).collect::<Judged<_>>()?,
            native,
            created: histogram.created_timestamp.map(timestamp),
            exemplars: histogram.exemplars.into_iter().map(|e| exemplar(family, e)).collect::<Judged<_>>()?,
        })))
    }

    /// Native buckets, if any of their fields is there: an empty native histogram has a span of no length.
    fn native(h: &wire::Histogram) -> Option<NativeHistogram> {
        let spans = |spans: &[wire::BucketSpan]| {
            let span = |s: &wire::BucketSpan| Span {
                offset: s.offset.unwrap_or_default(),
                length: s.length.unwrap_or_default(),
            };
            spans.iter().map(span).collect::<Vec<_>>()
        };
        let native = NativeHistogram {
            schema: h.schema.unwrap_or_default(),
            zero_threshold: h.zero_threshold.unwrap_or_default(),
            zero_count: count(h.zero_count, h.zero_count_float),
            positive: NativeBuckets {
                spans: spans(&h.positive_span),
                deltas: h.positive_delta.clone(),
                counts: h.positive_count.clone(),
            },
            negative: NativeBuckets {
                spans: spans(&h.negative_span),
                deltas: h.negative_delta.clone(),
                counts: h.negative_count.clone(),
            },
        };
        (h.schema.is_some() || native != NativeHistogram::default()).then_some(native)
    }

    /// The float overrides the whole number if it is above zero, as metrics.proto has it.
    fn count(whole: Option<u64>, float: Option<f64>) -> Count {
        match float {
            Some(float) if float != 0.0 => Count::Float(float),
            Some(_) if whole.is_none() => Count::Float(0.0),
            _ => Count::Integer(whole.unwrap_or_default()),
        }
    }

    fn exemplar(family: &str, exemplar: wire::Exemplar) -> Judged<Exemplar> {
        Ok(Exemplar {
            labels: labels(family, exemplar.label)?,
            value: exemplar.value.unwrap_or_default(),
            timestamp: exemplar.timestamp.map(timestamp),
        })
    }

    fn timestamp(wire::Timestamp { seconds, nanos }: wire::Timestamp) -> Timestamp {
        Timestamp { seconds, nanos }
    }
}

/// Model to wire.
mod write {
    use super::{
        Bucket, Count, Counter, Escaping, Exemplar, Head, Histogram, Labels, Metric, Quantile, Span, Summary,
        TYPES, Timestamp, Value, wire,
    };

    /// What stands before the metrics.
    pub(super) fn head(head: Head<'_>, escaping: Escaping) -> wire::MetricFamily {
        let kind = TYPES.iter().position(|kind| *kind == head.kind).expect("every type has its number");
        wire::MetricFamily {
            name: Some(escaping.escape(head.name).into_owned().into_bytes()),
            help: head.help.map(|help| help.as_bytes().to_vec()),
            kind: Some(i32::try_from(kind).expect("there are six")),
            ..wire::MetricFamily::default()
        }
    }

    /// What stands behind them.
    pub(super) fn unit(head: Head<'_>) -> wire::MetricFamily {
        let unit = head.unit.map(|unit| unit.as_bytes().to_vec());
        wire::MetricFamily { unit, ..wire::MetricFamily::default() }
    }

    pub(super) fn metric(metric: &Metric, escaping: Escaping) -> wire::Metric {
        let mut out = wire::Metric {
            label: labels(&metric.labels, escaping),
            timestamp_ms: metric.timestamp_ms,
            ..wire::Metric::default()
        };
        match &metric.value {
            Value::Counter(c) => out.counter = Some(Box::new(counter(c))),
            Value::Gauge(value) => out.gauge = Some(Box::new(wire::Gauge { value: Some(*value) })),
            Value::Untyped(value) => out.untyped = Some(Box::new(wire::Untyped { value: Some(*value) })),
            Value::Summary(s) => out.summary = Some(Box::new(summary(s))),
            Value::Histogram(h) => out.histogram = Some(Box::new(histogram(h))),
        }
        out
    }

    fn labels(labels: &Labels, escaping: Escaping) -> Vec<wire::LabelPair> {
        let pair = |(name, value): (&str, &str)| wire::LabelPair {
            name: Some(escaping.escape_label(name).as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
        };
        labels.iter().map(pair).collect()
    }

    fn counter(counter: &Counter) -> wire::Counter {
        wire::Counter {
            value: Some(counter.value),
            exemplar: counter.exemplar.as_ref().map(|e| Box::new(exemplar(e))),
            created_timestamp: counter.created.map(timestamp),
        }
    }

    fn summary(summary: &Summary) -> wire::Summary {
        let quantile = |q: &Quantile| wire::Quantile { quantile: Some(q.quantile), value: Some(q.value) };
        wire::Summary {
            sample_count: Some(summary.count),
            sample_sum: Some(summary.sum),
            quantile: summary.quantiles.iter().map(quantile).collect(),
            created_timestamp: summary.created.map(timestamp),
        }
    }

    fn histogram(histogram: &Histogram) -> wire::Histogram {
        let (sample_count, sample_count_float) = count(histogram.count);
        let mut out = wire::Histogram {
            sample_count,
            sample_count_float,
            sample_sum: Some(histogram.sum),
            bucket: histogram.buckets.iter().map(bucket).collect(),
            created_timestamp: histogram.created.map(timestamp),
            exemplars: histogram.exemplars.iter().map(exemplar).collect(),
            ..wire::Histogram::default()
        };
        if let Some(native) = &histogram.native {
            (out.zero_count, out.zero_count_float) = count(native.zero_count);
            out.schema = Some(native.schema);
            out.zero_threshold = Some(native.zero_threshold);
            out.positive_span = native.positive.spans.iter().copied().map(span).collect();
            out.positive_delta.clone_from(&native.positive.deltas);
            out.positive_count.clone_from(&native.positive.counts);
            out.negative_span = native.negative.spans.iter().copied().map(span).collect();
            out.negative_delta.clone_from(&native.negative.deltas);
            out.negative_count.clone_from(&native.negative.counts);
        }
        out
    }

    fn bucket(bucket: &Bucket) -> wire::Bucket {
        let (cumulative_count, cumulative_count_float) = count(bucket.cumulative);
        wire::Bucket {
            cumulative_count,
            cumulative_count_float,
            upper_bound: Some(bucket.upper_bound),
            exemplar: bucket.exemplar.as_ref().map(|e| Box::new(exemplar(e))),
        }
    }

    fn span(span: Span) -> wire::BucketSpan {
        wire::BucketSpan { offset: Some(span.offset), length: Some(span.length) }
    }

    fn count(count: Count) -> (Option<u64>, Option<f64>) {
        match count {
            Count::Integer(whole) => (Some(whole), None),
            Count::Float(float) => (None, Some(float)),
        }
    }

    fn exemplar(exemplar: &Exemplar) -> wire::Exemplar {
        wire::Exemplar {
            label: labels(&exemplar.labels, Escaping::AllowUtf8),
            value: Some(exemplar.value),
            timestamp: exemplar.timestamp.map(timestamp),
        }
    }

    fn timestamp(t: Timestamp) -> wire::Timestamp {
        wire::Timestamp { seconds: t.seconds, nanos: t.nanos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_written_as_its_message_would_be() {
        let long = "x".repeat(300);
        let pairs = [vec![], vec![("a", "1"), ("b.c", "")], vec![("Π", &*long), ("job", "Π\"\n")]];
        for labels in pairs.map(Labels::from_pairs) {
            for value in [Value::Gauge(-0.0), Value::counter(f64::NAN), Value::Untyped(1e300)] {
                let number = Metric { labels: labels.clone(), value, timestamp_ms: None };
                for escaping in [Escaping::AllowUtf8, Escaping::Underscores] {
                    let mut plain = Vec::new();
                    metric(&mut plain, &number, escaping);
                    let mut message = Vec::new();
                    let whole = write::metric(&number, escaping);
                    prost::encoding::message::encode(weigh::METRIC, &whole, &mut message);
                    assert_eq!(plain, message);
                }
            }
        }
    }
}
