//! Groups, and the snapshots that hold them.

use std::sync::Arc;

use imbl::OrdMap;

use crate::exposition::check::{self, Fingerprint, Inconsistent};
use crate::exposition::{Metric, MetricFamily, MetricType, Value};
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

/// What was pushed under one grouping key.
#[derive(Debug, Clone)]
pub struct Group {
    /// The key; the writer's maps share it.
    pub key: Arc<GroupingKey>,
    /// Families by name.
    pub families: OrdMap<Arc<str>, Arc<StoredFamily>>,
    /// The group's metric of [`PUSH_TIME`].
    pub push_time: Arc<Metric>,
    /// The group's metric of [`PUSH_FAILURE_TIME`].
    pub push_failure_time: Arc<Metric>,
    /// When a push was last taken.
    pub succeeded_at: UnixNanos,
    /// When a push was last refused.
    pub failed_at: UnixNanos,
    /// When the first push came, whatever became of it.
    pub since: UnixNanos,
    /// Stands for the group in the index.
    pub(super) id: GroupId,
}

/// Identity of a group for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(pub(super) u64);

/// A family of one group, with the group's labels on every metric.
#[derive(Debug, Clone)]
pub struct StoredFamily {
    /// The family.
    pub family: MetricFamily,
    /// When the group first had a family of this name, in pushes since the start. Of several help texts the oldest wins.
    pub since: u64,
    /// When it was pushed.
    pub pushed_at: UnixNanos,
    /// Why it is not exposed, if it is not.
    pub aside: Option<Arc<Inconsistent>>,
    /// Identities of the metrics, where they are exposed.
    pub(super) fingerprints: Vec<Fingerprint>,
}

impl Group {
    pub(super) fn new(key: GroupingKey, id: GroupId, since: UnixNanos) -> Self {
        let zero = Arc::new(timestamp(&key, 0.0));
        Self {
            key: Arc::new(key),
            families: OrdMap::new(),
            push_time: zero.clone(),
            push_failure_time: zero,
            succeeded_at: UnixNanos::default(),
            failed_at: UnixNanos::default(),
            since,
            id,
        }
    }

    pub(super) fn succeeded(&mut self, at: UnixNanos) {
        self.succeeded_at = at;
        self.push_time = Arc::new(timestamp(&self.key, at.seconds()));
    }

    pub(super) fn failed(&mut self, at: UnixNanos) {
        self.failed_at = at;
        self.push_failure_time = Arc::new(timestamp(&self.key, at.seconds()));
    }

    /// Whether a push was ever taken.
    pub fn has_succeeded(&self) -> bool {
        self.succeeded_at != UnixNanos::default()
    }

    /// Whether the last push was taken.
    pub fn last_push_successful(&self) -> bool {
        self.failed_at <= self.succeeded_at
    }
}

fn timestamp(key: &GroupingKey, at: f64) -> Metric {
    let mut family = MetricFamily::new("", MetricType::Gauge);
    family.metrics.push(Metric { labels: key.labels().clone(), value: Value::Gauge(at), timestamp_ms: None });
    check::complete(&mut family, key.labels());
    family.metrics.swap_remove(0)
}

/// An immutable state of the store. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All groups, by key.
    pub groups: OrdMap<Arc<GroupingKey>, Arc<Group>>,
    /// All families that are exposed, by name and then by group.
    pub families: OrdMap<Arc<str>, OrdMap<Arc<GroupingKey>, Arc<StoredFamily>>>,
    /// How many families of groups are not exposed, because others contradict them.
    pub aside: usize,
}

impl Snapshot {
    /// The same state, with some of the groups only.
    #[must_use]
    pub fn only(&self, is_wanted: impl Fn(&GroupingKey) -> bool) -> Self {
        let mut only = Self::default();
        for (key, group) in self.groups.iter().filter(|(key, _)| is_wanted(key)) {
            only.groups.insert(key.clone(), group.clone());
            for (name, stored) in &group.families {
                if stored.aside.is_some() {
                    only.aside += 1;
                } else {
                    only.families.entry(name.clone()).or_default().insert(key.clone(), stored.clone());
                }
            }
        }
        only
    }
}
