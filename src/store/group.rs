//! Groups, as they are stored.

use std::cmp::Ordering;
use std::sync::Arc;

use super::metric::{Metrics, StoredMetric};
use crate::exposition::check::Inconsistent;
use crate::exposition::series::{Fingerprint, GroupHash, SeriesHash, completed};
use crate::exposition::{Head, Labels, Metric, MetricFamily, MetricType, Value, native};
use crate::grouping::GroupingKey;

/// Nanoseconds since 1970; 0 stands for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// The time as the push time metrics show it.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// The metric families that tell when each group was pushed; never taken from a push.
pub const PUSH_TIME: (&str, &str) =
    ("push_time_seconds", "Last Unix time when changing this group in the Pushgateway succeeded.");
/// See [`PUSH_TIME`].
pub const PUSH_FAILURE_TIME: (&str, &str) =
    ("push_failure_time_seconds", "Last Unix time when changing this group in the Pushgateway failed.");

/// Stands for a group as long as it is stored, and then for another one.
pub(super) type Slot = u32;

/// What was pushed under one grouping key.
#[derive(Debug, Clone)]
pub struct Group {
    /// The key; all that know the group share it.
    pub key: Arc<GroupingKey>,
    /// By name.
    pub(super) families: Vec<StoredFamily>,
    /// When a push was last taken.
    pub succeeded_at: UnixNanos,
    /// When a push was last refused.
    pub failed_at: UnixNanos,
    /// When the first push came, whatever became of it.
    pub since: UnixNanos,
    /// How many groups had come to be before: tells which of two is older.
    pub(super) sequence: u64,
}

/// A family of one group.
#[derive(Debug, Clone)]
pub struct StoredFamily {
    /// What it has in common with that of other groups, and shares with them where it can.
    pub(super) head: Arc<StoredHead>,
    /// When it was pushed.
    pub pushed_at: UnixNanos,
    pub(super) metrics: Metrics,
}

/// What a family has beside its metrics. Of several the first is exposed: one with a help text, by the alphabet.
#[derive(Debug)]
pub(super) struct StoredHead {
    pub(super) name: Arc<str>,
    pub(super) kind: MetricType,
    pub(super) help: Option<Box<str>>,
    pub(super) unit: Option<Box<str>>,
    pub(super) place: Place,
}

impl PartialEq for StoredHead {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for StoredHead {}

impl PartialOrd for StoredHead {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StoredHead {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

/// Where a family is exposed.
#[derive(Debug)]
pub(super) enum Place {
    /// With the family of this number in all groups.
    Exposed(u32),
    /// Nowhere, because of this.
    Aside(Inconsistent),
}

impl StoredHead {
    /// All but the place, which is the same for all of an exposed family.
    fn identity(&self) -> (&str, bool, Option<&str>, Option<&str>, &'static str) {
        (&self.name, self.help.is_none(), self.help.as_deref(), self.unit.as_deref(), self.kind.proto_name())
    }

    pub(super) fn new(family: &MetricFamily, name: Arc<str>, place: Place) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(Box::from);
        Self { name, kind: family.kind, help: text(&family.help), unit: text(&family.unit), place }
    }

    /// Whether a pushed family has the same one.
    pub(super) fn is_of(&self, family: &MetricFamily) -> bool {
        *self.name == *family.name
            && self.kind == family.kind
            && self.help.as_deref() == family.help.as_deref()
            && self.unit.as_deref() == family.unit.as_deref()
    }

    pub(super) fn as_head(&self) -> Head<'_> {
        Head {
            name: &self.name,
            help: self.help.as_deref().filter(|help| !help.is_empty()),
            unit: self.unit.as_deref().filter(|unit| !unit.is_empty()),
            kind: self.kind,
        }
    }
}

impl StoredFamily {
    /// Why it is not exposed, if it is not.
    pub fn aside(&self) -> Option<&Inconsistent> {
        match &self.head.place {
            Place::Exposed(_) => None,
            Place::Aside(reason) => Some(reason),
        }
    }

    /// Whether it exposes exactly the series of a pushed family, whose values are good.
    pub(super) fn has_series_of(&self, family: &MetricFamily) -> bool {
        let is_good = |value: &Value| match value {
            Value::Histogram(histogram) => native::fault(histogram).is_none(),
            _ => true,
        };
        self.aside().is_none()
            && self.head.is_of(family)
            && !family.metrics.is_empty()
            && self.metrics.len() == family.metrics.len()
            && self.metrics.iter().zip(&family.metrics).all(|(stored, new)| {
                new.timestamp_ms.is_none() && stored.has_shape_of(new) && is_good(&new.value)
            })
    }

    /// The fingerprints of its series.
    pub(super) fn fingerprints(&self, key: &GroupingKey, hash: &SeriesHash) -> Vec<Fingerprint> {
        let hash = GroupHash::new(hash, Some(key.labels()));
        let of = |metric: &StoredMetric| hash.metric(&self.head.name, metric.own_labels());
        self.metrics.iter().flat_map(of).collect()
    }

    /// The family without the labels that its group gives.
    pub(super) fn to_stripped(&self) -> MetricFamily {
        self.family_of(|metric| metric.to_stripped(self.head.kind))
    }

    /// The family as it was pushed, and when.
    pub(super) fn to_pushed(&self) -> (MetricFamily, UnixNanos) {
        (self.to_stripped(), self.pushed_at)
    }

    /// The family with the labels that it is exposed with.
    pub fn to_family(&self, key: &GroupingKey) -> MetricFamily {
        self.family_of(|metric| metric.to_metric(self.head.kind, key))
    }

    fn family_of(&self, metric: impl Fn(&StoredMetric) -> Metric) -> MetricFamily {
        let metrics = self.metrics.iter().map(metric).collect();
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        MetricFamily {
            name: self.head.name.to_string(),
            help: text(&self.head.help),
            unit: text(&self.head.unit),
            kind: self.head.kind,
            metrics,
        }
    }

    /// About how many bytes it takes in a text.
    pub(super) fn text_bytes(&self, key: &GroupingKey) -> usize {
        let common = self.head.name.len() + labels_bytes(key);
        let metric = |metric: &StoredMetric| {
            let (own, lines) = metric.text_bytes();
            (common + own + VALUE_BYTES) * lines
        };
        self.metrics.iter().map(metric).sum()
    }
}

/// A value, and what stands around it in its line.
const VALUE_BYTES: usize = 24;

fn labels_bytes(key: &GroupingKey) -> usize {
    key.labels().text_bytes() + 4 * key.labels().len()
}

impl Group {
    pub(super) fn new(key: GroupingKey, since: UnixNanos, sequence: u64) -> Self {
        let never = UnixNanos::default();
        Self {
            key: Arc::new(key),
            families: Vec::new(),
            succeeded_at: never,
            failed_at: never,
            since,
            sequence,
        }
    }

    /// Families by name.
    pub fn families(&self) -> &[StoredFamily] {
        &self.families
    }

    /// The group's metric of [`PUSH_TIME`].
    pub fn push_time(&self) -> Metric {
        self.time(self.succeeded_at)
    }

    /// The group's metric of [`PUSH_FAILURE_TIME`].
    pub fn push_failure_time(&self) -> Metric {
        self.time(self.failed_at)
    }

    fn time(&self, at: UnixNanos) -> Metric {
        Metric { labels: self.labels(), value: Value::Gauge(at.seconds()), timestamp_ms: None }
    }

    /// The labels of a metric that has none of its own.
    pub(super) fn labels(&self) -> Labels {
        Labels::from_pairs(completed(std::iter::empty(), self.key.labels()))
    }

    /// Whether a push was ever taken.
    pub fn has_succeeded(&self) -> bool {
        self.succeeded_at != UnixNanos::default()
    }

    /// Whether the last push was taken.
    pub fn last_push_successful(&self) -> bool {
        self.failed_at <= self.succeeded_at
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.families.binary_search_by(|family| (*family.head.name).cmp(name))
    }

    pub(super) fn family(&self, name: &str) -> Option<&StoredFamily> {
        self.find(name).ok().map(|at| &self.families[at])
    }

    /// The family of a name, looked for where it is likely first; then `place` is where it was.
    pub(super) fn family_near(&self, name: &str, place: &mut usize) -> Option<&StoredFamily> {
        if self.families.get(*place).is_none_or(|family| *family.head.name != *name) {
            *place = self.find(name).ok()?;
        }
        self.families.get(*place)
    }

    /// See [`Self::family_near`].
    pub(super) fn family_near_mut(&mut self, name: &str, place: &mut usize) -> Option<&mut StoredFamily> {
        self.family_near(name, place)?;
        self.families.get_mut(*place)
    }

    pub(super) fn family_mut(&mut self, name: &str) -> Option<&mut StoredFamily> {
        self.find(name).ok().map(|at| &mut self.families[at])
    }

    /// Puts a family in the place of the one with the same name.
    pub(super) fn replace(&mut self, family: StoredFamily) {
        if let Ok(at) = self.find(&family.head.name) {
            self.families[at] = family;
        }
    }

    /// Gives the family with its name a head.
    pub(super) fn set_head(&mut self, head: StoredHead) {
        if let Some(family) = self.family_mut(&head.name.clone()) {
            family.head = Arc::new(head);
        }
    }

    /// About how many bytes a time of it takes in a text.
    pub(super) fn time_bytes(&self, family: &str) -> usize {
        family.len() + labels_bytes(&self.key) + VALUE_BYTES
    }
}

/// The order of metrics in a family: by the number of labels and then by their values, as client_golang has it.
pub(super) fn exposition_order<'a>(
    a: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    b: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.map(|(_, value)| value).cmp(b.map(|(_, value)| value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_family_is_small() {
        assert!(size_of::<StoredFamily>() <= 40, "{}", size_of::<StoredFamily>());
    }
}
