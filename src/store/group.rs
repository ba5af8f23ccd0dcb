//! Groups, and the snapshots that hold them.

use std::sync::Arc;

use imbl::OrdMap;

use crate::exposition::check::{self, Fingerprint};
use crate::exposition::{Metric, MetricFamily, MetricType, Value};
use crate::grouping::GroupingKey;

/// Seconds since 1970; 0 stands for never.
pub type UnixSeconds = f64;

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
    /// Stands for the group in the index.
    pub(super) id: GroupId,
}

/// Identity of a group for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(pub(super) u64);

/// A family of one group, with the group's labels on every metric.
#[derive(Debug)]
pub struct StoredFamily {
    /// The family.
    pub family: MetricFamily,
    /// When the group first had a family of this name, in pushes since the start. Of several help texts the oldest wins.
    pub since: u64,
    /// Identities of the metrics.
    pub(super) fingerprints: Vec<Fingerprint>,
}

impl Group {
    pub(super) fn new(key: GroupingKey, id: GroupId) -> Self {
        let zero = Arc::new(timestamp(&key, 0.0));
        Self {
            key: Arc::new(key),
            families: OrdMap::new(),
            push_time: zero.clone(),
            push_failure_time: zero,
            id,
        }
    }

    pub(super) fn succeeded(&mut self, at: UnixSeconds) {
        self.push_time = Arc::new(timestamp(&self.key, at));
    }

    pub(super) fn failed(&mut self, at: UnixSeconds) {
        self.push_failure_time = Arc::new(timestamp(&self.key, at));
    }
}

fn timestamp(key: &GroupingKey, at: UnixSeconds) -> Metric {
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
}
