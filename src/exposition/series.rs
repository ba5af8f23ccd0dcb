//! The labels that a metric is exposed with, and the identity of the series that they make.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use super::family::{MetricFamily, Value};
use super::labels::{Escaping, Labels, RENDERINGS, Validation};

/// The label that every exposed metric carries, be it empty: with `honor_labels` Prometheus would add its own otherwise.
pub const INSTANCE_LABEL: &str = "instance";

/// Identity of a series: a hash of the name and the labels as they are rendered.
pub type Fingerprint = u64;

/// Hashes series, each process in its own way: nobody can make a series that has the fingerprint of another one's.
#[derive(Debug, Clone, Default)]
pub struct SeriesHash(RandomState);

/// The fingerprints of one metric.
pub type Fingerprints = std::iter::Flatten<std::array::IntoIter<Option<Fingerprint>, 3>>;

impl SeriesHash {
    /// The fingerprints of a metric, one for each way in which its names are rendered; mostly that is one. Label order does
    /// not count, nor do labels without value.
    pub fn fingerprints(&self, family: &str, labels: &Labels) -> Fingerprints {
        let mut names = labels.iter().map(|(name, _)| name);
        let is_legacy = Validation::Legacy.is_metric_name(family)
            && names.all(|name| Validation::Legacy.is_label_name(name));
        let [first, second, third] = if is_legacy {
            [Some(self.fingerprint(family, labels, Escaping::Underscores)), None, None]
        } else {
            RENDERINGS.map(|escaping| Some(self.fingerprint(family, labels, escaping)))
        };
        // What two schemes write alike is one series all the same.
        let second = second.filter(|_| second != first);
        let third = third.filter(|_| third != first && third != second);
        [first, second, third].into_iter().flatten()
    }

    fn fingerprint(&self, family: &str, labels: &Labels, escaping: Escaping) -> Fingerprint {
        let mut pairs: Vec<(Cow<'_, str>, &str)> = labels
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (escaping.escape_label(name), value))
            .collect();
        pairs.sort_unstable();
        let mut hash = self.0.build_hasher();
        hash.write(escaping.escape(family).as_bytes());
        for (name, value) in &pairs {
            // 0xFF is in no UTF-8 text, so the parts cannot run into each other.
            hash.write(b"\xff");
            hash.write(name.as_bytes());
            hash.write(b"\xff");
            hash.write(value.as_bytes());
        }
        hash.finish()
    }
}

/// Leaves each metric the labels that its group does not give it, sorted by name, and one of several buckets or quantiles
/// with the same bound (the last, as a later line wins everywhere). [`completed`] gives them all labels again.
pub fn strip(family: &mut MetricFamily, grouping: &Labels) {
    let is_bare = family.metrics.iter().all(|metric| metric.labels.is_empty());
    let names: Vec<&str> = if is_bare { Vec::new() } else { grouping.iter().map(|(name, _)| name).collect() };
    for metric in &mut family.metrics {
        if !metric.labels.is_empty() {
            metric.labels = stripped(&metric.labels, &names);
        }
        match &mut metric.value {
            Value::Histogram(histogram) => keep_last(&mut histogram.buckets, |bucket| bucket.upper_bound),
            Value::Summary(summary) => keep_last(&mut summary.quantiles, |quantile| quantile.quantile),
            Value::Counter(_) | Value::Gauge(_) | Value::Untyped(_) => {}
        }
    }
}

/// The labels of a metric that its group, whose labels have these names in order, does not give it; by name.
pub(super) fn stripped(labels: &Labels, names: &[&str]) -> Labels {
    // The group's value replaces the metric's; a label that the metric has twice stays, and is a fault.
    let mut replaced = HashSet::new();
    let is_given = |name: &str, value: &str| {
        names.binary_search(&name).is_ok() || (name == INSTANCE_LABEL && value.is_empty())
    };
    let mut own: Vec<_> =
        labels.iter().filter(|(name, value)| !is_given(name, value) || !replaced.insert(*name)).collect();
    own.sort_by_key(|(name, _)| *name);
    Labels::from_pairs(own)
}

/// All labels of a metric: its own, those of its group, and an `instance`; by name.
pub fn completed<'a>(own: impl Iterator<Item = (&'a str, &'a str)>, grouping: &'a Labels) -> Labels {
    let mut pairs: Vec<_> = grouping.iter().chain(own).collect();
    if !pairs.iter().any(|(name, _)| *name == INSTANCE_LABEL) {
        pairs.push((INSTANCE_LABEL, ""));
    }
    pairs.sort_by_key(|(name, _)| *name);
    Labels::from_pairs(pairs)
}

fn keep_last<T>(items: &mut Vec<T>, bound: impl Fn(&T) -> f64) {
    let mut seen = HashSet::new();
    // Adding zero makes one of the two zeros, and every NaN is written alike.
    let identity = |bound: f64| if bound.is_nan() { f64::NAN.to_bits() } else { (bound + 0.0).to_bits() };
    let mut keep: Vec<bool> = items.iter().rev().map(|item| seen.insert(identity(bound(item)))).collect();
    if seen.len() < items.len() {
        items.retain(|_| keep.pop().expect("there is one per item"));
    }
}
