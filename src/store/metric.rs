//! A metric as it is stored: small, because there may be millions.

use std::ops::{Deref, DerefMut};

use prost::encoding::{decode_varint, encode_varint};

use thin_vec::ThinVec;

use crate::exposition::family::NativeBuckets;
use crate::exposition::series::completed;
use crate::exposition::{Labels, Metric, MetricType, Value, native};
use crate::grouping::GroupingKey;

/// A metric without what its family and its group have in common.
#[derive(Debug, Clone)]
pub(super) struct StoredMetric {
    labels: OwnLabels,
    value: StoredValue,
}

/// The metrics of a family. Most families of a group have one, which needs no room of its own then.
#[derive(Debug, Clone)]
pub(super) enum Metrics {
    One(StoredMetric),
    Several(Box<[StoredMetric]>),
}

impl FromIterator<StoredMetric> for Metrics {
    fn from_iter<I: IntoIterator<Item = StoredMetric>>(metrics: I) -> Self {
        let mut metrics = metrics.into_iter();
        match (metrics.next(), metrics.next()) {
            (Some(one), None) => Self::One(one),
            (first, second) => Self::Several(first.into_iter().chain(second).chain(metrics).collect()),
        }
    }
}

impl Metrics {
    /// Adds metrics behind those that are there.
    pub(super) fn extend(&mut self, more: Vec<StoredMetric>) {
        let mut all = match std::mem::replace(self, Self::Several(Box::default())) {
            Self::One(one) => vec![one],
            Self::Several(several) => several.into_vec(),
        };
        all.extend(more);
        *self = all.into_iter().collect();
    }
}

impl Deref for Metrics {
    type Target = [StoredMetric];

    fn deref(&self) -> &[StoredMetric] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl DerefMut for Metrics {
    fn deref_mut(&mut self) -> &mut [StoredMetric] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Several(several) => several,
        }
    }
}

/// Labels that the group does not give, by name: lengths and texts one after the other, in one allocation and none where
/// there are no labels.
#[derive(Debug, Clone, Default)]
struct OwnLabels(ThinVec<u8>);

impl OwnLabels {
    fn new(labels: &Labels) -> Self {
        let mut bytes = Vec::new();
        for part in labels.iter().flat_map(|(name, value)| [name, value]) {
            encode_varint(part.len() as u64, &mut bytes);
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes[..].into())
    }

    fn iter(&self) -> Pairs<'_> {
        Pairs(&self.0)
    }
}

/// What is left of [`OwnLabels`].
#[derive(Clone)]
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((part(&mut self.0)?, part(&mut self.0)?))
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(part).ok()
}

/// A value; the type of the family says what a bare number is.
#[derive(Debug, Clone)]
enum StoredValue {
    Number(f64),
    Other(Box<Value>),
}

impl From<Value> for StoredValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Gauge(number) | Value::Untyped(number) => Self::Number(number),
            Value::Counter(counter) if counter.exemplar.is_none() && counter.created.is_none() => {
                Self::Number(counter.value)
            }
            other => Self::Other(Box::new(other)),
        }
    }
}

impl StoredValue {
    fn to_value(&self, kind: MetricType) -> Value {
        match self {
            Self::Other(value) => (**value).clone(),
            Self::Number(number) => match kind {
                MetricType::Counter => Value::counter(*number),
                MetricType::Gauge => Value::Gauge(*number),
                _ => Value::Untyped(*number),
            },
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.to_bits() == b.to_bits(),
            (Self::Other(a), Self::Other(b)) => a == b,
            _ => false,
        }
    }
}

/// Lines of a text, or what takes as much room elsewhere.
fn lines(value: &Value) -> usize {
    match value {
        Value::Counter(_) | Value::Gauge(_) | Value::Untyped(_) => 1,
        Value::Summary(summary) => summary.quantiles.len() + 2,
        Value::Histogram(histogram) => {
            let side = |buckets: &NativeBuckets| {
                (buckets.spans.len() + buckets.deltas.len() + buckets.counts.len()).div_ceil(8)
            };
            let native = histogram.native.as_ref();
            let native = native.map_or(0, |native| side(&native.positive) + side(&native.negative));
            histogram.buckets.len() + 3 + native
        }
    }
}

impl StoredMetric {
    /// Takes in a metric that has been stripped of what its group gives it. Its value is gone then, and the rest of it is
    /// for the caller to free.
    pub(super) fn new(metric: &mut Metric) -> Self {
        Self { labels: OwnLabels::new(&metric.labels), value: metric.take_value().into() }
    }

    /// The metric without the labels that its group gives.
    pub(super) fn to_stripped(&self, kind: MetricType) -> Metric {
        let labels = Labels::from_pairs(self.labels.iter());
        Metric { labels, value: self.value.to_value(kind), timestamp_ms: None }
    }

    /// The metric with the labels that it is exposed with.
    pub(super) fn to_metric(&self, kind: MetricType, key: &GroupingKey) -> Metric {
        Metric { labels: self.all_labels(key), value: self.value.to_value(kind), timestamp_ms: None }
    }

    /// The labels that its group does not give it.
    pub(super) fn own_labels(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.labels.iter()
    }

    /// The labels that it is exposed with.
    pub(super) fn all_labels(&self, key: &GroupingKey) -> Labels {
        Labels::from_pairs(completed(self.labels.iter(), key.labels()))
    }

    /// Whether it has these labels, and no others beyond its group's.
    pub(super) fn has_labels(&self, stripped: &Labels) -> bool {
        if self.labels.0.is_empty() { stripped.is_empty() } else { self.labels.iter().eq(stripped.iter()) }
    }

    /// Whether another metric's value is good, and can come in the place of this one without anything else to be done: it
    /// would take as many lines.
    pub(super) fn takes(&self, other: &Metric) -> bool {
        let is_good = match &other.value {
            Value::Histogram(histogram) => native::fault(histogram).is_none(),
            _ => true,
        };
        is_good && other.timestamp_ms.is_none() && self.text_bytes().1 == lines(&other.value)
    }

    /// Takes another value; returns whether it is another one indeed.
    pub(super) fn set(&mut self, value: Value) -> bool {
        let value = StoredValue::from(value);
        let changes = !self.value.is(&value);
        self.value = value;
        changes
    }

    /// About how many bytes it takes in a text, apart from the family's name and the group's labels: for each line, and
    /// the number of lines.
    pub(super) fn text_bytes(&self) -> (usize, usize) {
        let lines = match &self.value {
            StoredValue::Number(_) => 1,
            StoredValue::Other(value) => lines(value),
        };
        (self.labels.0.len(), lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_metric_is_small() {
        assert!(size_of::<StoredMetric>() <= 24, "{}", size_of::<StoredMetric>());
        assert!(size_of::<Metrics>() <= 24, "{}", size_of::<Metrics>());
    }

    #[test]
    fn what_is_stored_is_had_back() {
        let key = GroupingKey::new("x", [("a", "1")]);
        for pairs in [vec![], vec![("b", ""), ("z", "\u{3a0}\n\"")], vec![("l", &*"v".repeat(1000))]] {
            let labels = Labels::from_pairs(pairs);
            let mut metric =
                Metric { labels: labels.clone(), value: Value::counter(-0.0), timestamp_ms: None };
            let mut stored = StoredMetric::new(&mut metric);
            assert!(stored.has_labels(&labels) && !stored.has_labels(&Labels::from_pairs([("q", "")])));
            let all = stored.to_metric(MetricType::Counter, &key);
            assert_eq!(all.labels, Labels::from_pairs(completed(labels.iter(), key.labels())));
            assert_eq!(all.value, Value::counter(-0.0));
            assert!(stored.set(Value::counter(0.0)) && !stored.set(Value::counter(0.0)));
        }
    }
}
