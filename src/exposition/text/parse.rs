//! Lines gathered into metric families.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder as RandomState, HashMap, HashTable};

use super::error::LineError;
use super::line::{self, Families, Line, Role, Sample};
use crate::exposition::family::{
    Bucket, Count, Histogram, Metric, MetricFamily, MetricType, Quantile, Summary, Value,
};
use crate::exposition::labels::Labels;
use crate::exposition::limits::{Exceeded, Rules};

/// Why a text is no exposition: the first line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("text format parsing error in line {line}: {error}")]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub error: LineError,
}

/// Reads a whole text. Families keep the order of their first lines; those without a sample are dropped.
///
/// # Errors
/// The first fault; nothing of the text is used then.
pub fn parse(body: &[u8], rules: impl Into<Rules>) -> Result<Vec<MetricFamily>, ParseError> {
    let rules = rules.into();
    let mut samples = 0;
    let mut gatherer = Gatherer::new(Repeated::Kept);
    for (number, line) in body.split_inclusive(|b| *b == b'\n').enumerate() {
        let fault = |error| ParseError { line: number + 1, error };
        let line = line::read(line, &gatherer, &rules).map_err(fault)?;
        samples += usize::from(matches!(line, Line::Sample(_)));
        gatherer.add(line);
        // A family costs something before it has a sample.
        if samples.max(gatherer.families.len()) > rules.limits.samples {
            return Err(fault(Exceeded::Samples.into()));
        }
    }
    Ok(gatherer.finish())
}

/// What becomes of a second sample of the same series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// It stands beside the first, for somebody else to judge.
    Kept,
    /// It replaces the first.
    Replaces,
}

/// Families in the making.
#[derive(Debug, Clone)]
pub struct Gatherer {
    repeated: Repeated,
    families: Vec<Family>,
    /// Places in `families`, found by their names.
    by_name: HashTable<usize>,
    hash: RandomState,
    /// The family of the line before, which is mostly that of the next one, too.
    last: usize,
}

#[derive(Debug, Clone)]
struct Family {
    name: String,
    help: Option<String>,
    kind: Option<MetricType>,
    metrics: Vec<Metric>,
    /// Place in `metrics` of each label set, sorted by name; filled where a series may be met again.
    places: HashMap<Labels, usize>,
}

impl Families for Gatherer {
    fn kind_of(&self, name: &str) -> Option<Option<MetricType>> {
        self.find(name).map(|at| self.families[at].kind)
    }

    fn has_help(&self, name: &str) -> bool {
        self.find(name).is_some_and(|at| self.families[at].help.is_some())
    }
}

impl Gatherer {
    /// Starts with no family.
    pub fn new(repeated: Repeated) -> Self {
        let (by_name, hash) = (HashTable::with_capacity(16), RandomState::default());
        Self { repeated, families: Vec::with_capacity(16), by_name, hash, last: 0 }
    }

    /// Adds a line that was read against the families in here.
    pub fn add(&mut self, line: Line<'_>) {
        match line {
            Line::Blank => {}
            Line::Help { family, text } => self.family(&family.name).help = Some(text.into_owned()),
            Line::Type { family, kind } => self.family(&family.name).kind = Some(kind),
            Line::Sample(sample) => {
                let repeated = self.repeated;
                self.family(&sample.family.name).add(&sample, repeated);
            }
        }
    }

    /// Whether a sample would start a new series rather than extend or replace one.
    pub fn is_new_series(&self, sample: &Sample<'_>) -> bool {
        let Some(family) = self.find(&sample.family.name).map(|at| &self.families[at]) else {
            return true;
        };
        !family.places.contains_key(&Labels::from_pairs(sample.labels.iter().map(|(n, v)| (n, v))).sorted())
    }

    /// The families that have samples.
    pub fn finish(self) -> Vec<MetricFamily> {
        self.families.into_iter().filter(|family| !family.metrics.is_empty()).map(Family::finish).collect()
    }

    fn find(&self, name: &str) -> Option<usize> {
        if self.families.get(self.last).is_some_and(|family| family.name == name) {
            return Some(self.last);
        }
        self.by_name.find(self.hash.hash_one(name), |at| self.families[*at].name == name).copied()
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.last = self.find(name).unwrap_or_else(|| {
            let at = self.families.len();
            let (families, hash) = (&mut self.families, &self.hash);
            families.push(Family {
                name: name.to_owned(),
                help: None,
                kind: None,
                metrics: Vec::new(),
                places: HashMap::new(),
            });
            self.by_name.insert_unique(hash.hash_one(name), at, |at| hash.hash_one(&*families[*at].name));
            at
        });
        &mut self.families[self.last]
    }
}

impl Family {
    fn add(&mut self, sample: &Sample<'_>, repeated: Repeated) {
        let kind = *self.kind.get_or_insert(MetricType::Untyped);
        let labels = Labels::from_pairs(sample.labels.iter().map(|(n, v)| (n, v)));
        let timestamp_ms = sample.timestamp_ms;
        let value = match kind {
            MetricType::Counter => Value::counter(sample.value),
            MetricType::Gauge => Value::Gauge(sample.value),
            MetricType::Untyped => Value::Untyped(sample.value),
            MetricType::Summary => {
                let metric = self.assembled(labels, || Value::Summary(Box::default()));
                metric.timestamp_ms = timestamp_ms.or(metric.timestamp_ms);
                if let Value::Summary(summary) = &mut metric.value {
                    add_to_summary(summary, sample, repeated);
                }
                return;
            }
            MetricType::Histogram | MetricType::GaugeHistogram => {
                let metric = self.assembled(labels, || Value::Histogram(Box::default()));
                metric.timestamp_ms = timestamp_ms.or(metric.timestamp_ms);
                if let Value::Histogram(histogram) = &mut metric.value {
                    add_to_histogram(histogram, sample, repeated);
                }
                return;
            }
        };
        match repeated {
            Repeated::Kept => {
                if self.metrics.is_empty() {
                    // Most families of a push have one.
                    self.metrics.reserve_exact(1);
                }
                self.metrics.push(Metric { labels, value, timestamp_ms });
            }
            Repeated::Replaces => self.assembled(labels, || Value::Untyped(0.0)).value = value,
        }
    }

    /// The metric with these labels in any order, made if there is none.
    fn assembled(&mut self, labels: Labels, value: impl FnOnce() -> Value) -> &mut Metric {
        let next = self.metrics.len();
        let at = *self.places.entry(labels.sorted()).or_insert(next);
        if at == next {
            self.metrics.push(Metric { labels, value: value(), timestamp_ms: None });
        }
        &mut self.metrics[at]
    }

    fn finish(mut self) -> MetricFamily {
        for metric in &mut self.metrics {
            if let Value::Histogram(histogram) = &mut metric.value {
                make_uniform(histogram);
            }
        }
        MetricFamily {
            name: self.name,
            help: self.help,
            unit: None,
            kind: self.kind.unwrap_or(MetricType::Untyped),
            metrics: self.metrics,
        }
    }
}

fn add_to_summary(summary: &mut Summary, sample: &Sample<'_>, repeated: Repeated) {
    match (sample.family.role, sample.bound) {
        (Role::Count, _) => summary.count = saturating_u64(sample.value),
        (Role::Sum, _) => summary.sum = sample.value,
        (Role::Value, Some(quantile)) if !quantile.is_nan() => {
            let new = Quantile { quantile, value: sample.value };
            match summary
                .quantiles
                .iter_mut()
                .find(|q| repeated == Repeated::Replaces && same(q.quantile, quantile))
            {
                Some(old) => *old = new,
                None => summary.quantiles.push(new),
            }
        }
        // A plain sample of a summary's own name means nothing; `expfmt` passes over it.
        (Role::Value, _) => {}
    }
}

fn add_to_histogram(histogram: &mut Histogram, sample: &Sample<'_>, repeated: Repeated) {
    match (sample.family.role, sample.bound) {
        (Role::Count, _) => histogram.count = count(sample.value),
        (Role::Sum, _) => histogram.sum = sample.value,
        (Role::Value, Some(upper_bound)) if !upper_bound.is_nan() => {
            let new = Bucket { upper_bound, cumulative: count(sample.value), exemplar: None };
            match histogram
                .buckets
                .iter_mut()
                .find(|b| repeated == Repeated::Replaces && same(b.upper_bound, upper_bound))
            {
                Some(old) => *old = new,
                None => histogram.buckets.push(new),
            }
        }
        (Role::Value, _) => {}
    }
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

fn count(value: f64) -> Count {
    let whole = saturating_u64(value);
    // Everything from 2^64 on saturates, so it is a float.
    if whole < u64::MAX && same(whole as f64, value.abs()) {
        Count::Integer(whole)
    } else {
        Count::Float(value)
    }
}

/// The float as a count: fractions are cut off, negative numbers and NaN are 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn saturating_u64(value: f64) -> u64 {
    value as u64
}

/// One fractional count makes all counts of a histogram floats.
fn make_uniform(histogram: &mut Histogram) {
    let any_float = histogram.count.is_float() || histogram.buckets.iter().any(|b| b.cumulative.is_float());
    if any_float {
        histogram.count = Count::Float(histogram.count.as_f64());
        for bucket in &mut histogram.buckets {
            bucket.cumulative = Count::Float(bucket.cumulative.as_f64());
        }
    }
}
