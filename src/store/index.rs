//! Which names and series are exposed, and by whom: what makes checking a push cost only what it holds.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::{Group, GroupId, PUSH_FAILURE_TIME, PUSH_TIME, StoredFamily};
use crate::exposition::MetricType;
use crate::exposition::check::{self, Exposed, Fingerprint, Inconsistent};
use crate::exposition::labels::renderings;

/// The index over all stored families.
pub(super) struct Index {
    /// By each name that a family is exposed under, escaped one way or another.
    names: HashMap<String, Exposing>,
    series: HashMap<Fingerprint, GroupId>,
    /// Groups by the labels of their push times.
    groups: HashMap<Fingerprint, GroupId>,
    own: HashMap<String, MetricType>,
}

struct Exposing {
    /// The name as it was pushed.
    name: Arc<str>,
    kind: MetricType,
    /// How many groups have a family of the name.
    groups: usize,
}

impl Index {
    pub(super) fn new(own: HashMap<String, MetricType>) -> Self {
        let times = [PUSH_TIME.0, PUSH_FAILURE_TIME.0].map(|name| (name.to_owned(), MetricType::Gauge));
        let own = own.into_iter().chain(times).collect();
        Self { names: HashMap::new(), series: HashMap::new(), groups: HashMap::new(), own }
    }

    /// Takes a group in.
    ///
    /// # Errors
    /// Where another group's labels differ only in labels without value: to Prometheus they are the same.
    pub(super) fn add_group(&mut self, group: &Group) -> Result<(), Inconsistent> {
        let labels = &group.push_time.labels;
        let fingerprints = check::fingerprints(PUSH_TIME.0, labels);
        if fingerprints.clone().any(|fingerprint| self.groups.contains_key(&fingerprint)) {
            return Err(check::duplicate(PUSH_TIME.0, &group.push_time));
        }
        self.groups.extend(fingerprints.map(|fingerprint| (fingerprint, group.id)));
        Ok(())
    }

    pub(super) fn remove_group(&mut self, group: &Group) {
        for fingerprint in check::fingerprints(PUSH_TIME.0, &group.push_time.labels) {
            self.groups.remove(&fingerprint);
        }
    }

    pub(super) fn add(&mut self, group: GroupId, name: &Arc<str>, stored: &StoredFamily) {
        let kind = stored.family.kind;
        for escaped in renderings(name) {
            let exposing = || Exposing { name: name.clone(), kind, groups: 0 };
            self.names.entry(escaped.into_owned()).or_insert_with(exposing).groups += 1;
        }
        self.series.extend(stored.fingerprints.iter().map(|fingerprint| (*fingerprint, group)));
    }

    /// Takes everything out but the gateway's own.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.series.clear();
        self.groups.clear();
    }

    pub(super) fn remove(&mut self, stored: &StoredFamily) {
        for escaped in renderings(&stored.family.name) {
            if let Some(entry) = self.names.get_mut(&*escaped) {
                entry.groups -= 1;
                if entry.groups == 0 {
                    self.names.remove(&*escaped);
                }
            }
        }
        for fingerprint in &stored.fingerprints {
            self.series.remove(fingerprint);
        }
    }

    /// What is exposed beside a push to `group` that replaces the group's families for which `replaced` is true.
    pub(super) fn beside<'a>(
        &'a self,
        group: Option<&'a Group>,
        replaced: &'a dyn Fn(&str) -> bool,
    ) -> impl Exposed + 'a {
        Beside { index: self, group, replaced }
    }
}

struct Beside<'a> {
    index: &'a Index,
    group: Option<&'a Group>,
    replaced: &'a dyn Fn(&str) -> bool,
}

impl Exposed for Beside<'_> {
    fn family(&self, escaped: &str) -> Option<(&str, MetricType)> {
        let entry = self.index.names.get(escaped)?;
        let goes = self.group.is_some_and(|group| group.families.contains_key(&entry.name))
            && (self.replaced)(&entry.name);
        (entry.groups > usize::from(goes)).then_some((&entry.name, entry.kind))
    }

    fn own(&self, name: &str) -> Option<MetricType> {
        self.index.own.get(name).copied()
    }

    fn has_series(&self, fingerprint: Fingerprint) -> bool {
        // A series of the group itself belongs to a family of the same name, which the push replaces.
        self.index
            .series
            .get(&fingerprint)
            .is_some_and(|owner| self.group.map(|group| group.id) != Some(*owner))
    }
}
