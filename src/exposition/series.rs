//! The labels that a metric is exposed with, and the identity of the series that they make.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash, Hasher as _, RandomState};

use smallvec::SmallVec;

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

/// Identity of a label set, as each scheme renders it.
type LabelsHash = [u64; RENDERINGS.len()];

impl SeriesHash {
    /// The hash of anything.
    pub fn of(&self, any: impl Hash) -> u64 {
        self.0.hash_one(any)
    }

    /// Of the same labels in any order, with and without those that have no value, which to Prometheus are none.
    fn labels<'l>(&self, labels: impl Iterator<Item = (&'l str, &'l str)> + Clone) -> LabelsHash {
        let mut names = labels.clone().map(|(name, _)| name);
        if names.all(|name| Validation::Legacy.is_label_name(name)) {
            return [self.labels_as(labels, Escaping::Underscores); RENDERINGS.len()];
        }
        RENDERINGS.map(|escaping| self.labels_as(labels.clone(), escaping))
    }

    fn labels_as<'l>(&self, labels: impl Iterator<Item = (&'l str, &'l str)>, escaping: Escaping) -> u64 {
        let with_value = labels.filter(|(_, value)| !value.is_empty());
        let mut pairs: SmallVec<[(Cow<'l, str>, &str); 8]> =
            with_value.map(|(name, value)| (escaping.escape_label(name), value)).collect();
        pairs.sort_unstable();
        let mut hash = self.0.build_hasher();
        for (name, value) in &pairs {
            // 0xFF is in no UTF-8 text, so the parts cannot run into each other.
            hash.write(name.as_bytes());
            hash.write(b"\xff");
            hash.write(value.as_bytes());
            hash.write(b"\xff");
        }
        hash.finish()
    }

    /// Of a metric, one for each way in which its names are rendered; mostly that is one.
    fn series(&self, family: &str, labels: LabelsHash) -> Fingerprints {
        let of = |escaping: Escaping, labels: u64| {
            let mut hash = self.0.build_hasher();
            hash.write(escaping.escape(family).as_bytes());
            hash.write_u64(labels);
            Some(hash.finish())
        };
        let [first, second, third] = labels;
        let first = of(RENDERINGS[0], first);
        if Validation::Legacy.is_metric_name(family) && labels.iter().all(|hash| *hash == labels[0]) {
            return [first, None, None].into_iter().flatten();
        }
        // What two schemes write alike is one series all the same.
        let second = of(RENDERINGS[1], second).filter(|second| Some(*second) != first);
        let third = of(RENDERINGS[2], third).filter(|third| Some(*third) != first && Some(*third) != second);
        [first, second, third].into_iter().flatten()
    }
}

/// Gives the series of one group their fingerprints: most of them have the group's labels and no others.
#[derive(Debug)]
pub struct GroupHash<'a> {
    hash: &'a SeriesHash,
    /// Labels that the group gives to each metric, if there is a group.
    grouping: Option<&'a Labels>,
    bare: OnceCell<LabelsHash>,
}

impl<'a> GroupHash<'a> {
    /// For the metrics of a group, or for metrics that have all their labels.
    pub fn new(hash: &'a SeriesHash, grouping: Option<&'a Labels>) -> Self {
        Self { hash, grouping, bare: OnceCell::new() }
    }

    /// The fingerprints of a metric that has these labels of its own.
    pub fn metric<'s>(
        &'s self,
        family: &str,
        own: impl Iterator<Item = (&'s str, &'s str)> + Clone,
    ) -> Fingerprints {
        let grouping: Option<&'s Labels> = self.grouping;
        let grouping = || grouping.into_iter().flat_map(Labels::iter);
        let labels = if own.clone().next().is_none() {
            *self.bare.get_or_init(|| self.hash.labels(grouping()))
        } else {
            self.hash.labels(grouping().chain(own))
        };
        self.hash.series(family, labels)
    }

    /// The fingerprints of all metrics of a family.
    pub fn family(&self, family: &MetricFamily) -> Vec<Fingerprint> {
        family.metrics.iter().flat_map(|metric| self.metric(&family.name, metric.labels.iter())).collect()
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
pub fn completed<'a>(
    own: impl Iterator<Item = (&'a str, &'a str)>,
    grouping: &'a Labels,
) -> SmallVec<[(&'a str, &'a str); 8]> {
    let mut pairs: SmallVec<_> = grouping.iter().chain(own).collect();
    if !pairs.iter().any(|(name, _)| *name == INSTANCE_LABEL) {
        pairs.push((INSTANCE_LABEL, ""));
    }
    pairs.sort_by_key(|(name, _)| *name);
    pairs
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
