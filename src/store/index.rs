//! Which names and series are exposed, and by whom: what makes checking a push cost only what it holds.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::HashTable;

use super::group::{Group, Slot, StoredFamily};
use super::own::{Own, OwnNames};
use crate::exposition::check::{self, Exposed, Inconsistent};
use crate::exposition::labels::renderings;
use crate::exposition::series::{Fingerprint, Fingerprints, GroupHash, SeriesHash};
use crate::exposition::{MetricFamily, MetricType};
use crate::grouping::GroupingKey;

/// The index over all exposed families.
pub(super) struct Index {
    /// By each name that a family is exposed under, escaped one way or another.
    names: HashMap<String, Exposing>,
    series: HashTable<Series>,
    /// The gateway's own, and the store's.
    own: HashMap<String, MetricType>,
    names_of_store: OwnNames,
    hash: SeriesHash,
}

struct Exposing {
    /// The name as it was pushed.
    name: Arc<str>,
    kind: MetricType,
    /// How many groups have a family of the name.
    groups: usize,
}

/// The series that stands for a group: each has it.
const MARK: &str = "push_time_seconds";

/// A series and the group that it belongs to, as small as can be.
struct Series {
    fingerprint: [u32; 2],
    slot: Slot,
}

#[allow(clippy::cast_possible_truncation)]
fn halves(fingerprint: Fingerprint) -> [u32; 2] {
    [(fingerprint >> 32) as u32, fingerprint as u32]
}

fn whole([high, low]: [u32; 2]) -> Fingerprint {
    Fingerprint::from(high) << 32 | Fingerprint::from(low)
}

impl Index {
    pub(super) fn new(own: HashMap<String, MetricType>, names_of_store: OwnNames, hash: SeriesHash) -> Self {
        let of_store = Own::ALL.map(|own| (names_of_store.name(own).to_owned(), own.kind()));
        let own = own.into_iter().chain(of_store).collect();
        Self { names: HashMap::new(), series: HashTable::new(), own, names_of_store, hash }
    }

    pub(super) fn hash(&self) -> &SeriesHash {
        &self.hash
    }

    /// What the store's own families are called.
    pub(super) fn names_of_store(&self) -> &OwnNames {
        &self.names_of_store
    }

    /// Whether a family that was exposed can be beside what the gateway itself exposes now.
    pub(super) fn fits_beside_own(&self, family: &MetricFamily, key: &GroupingKey) -> bool {
        // What others expose has been judged.
        let is_known = |(name, kind, _): (&Arc<str>, _, _)| **name == *family.name && kind == family.kind;
        self.family(&family.name).is_some_and(is_known)
            || check::beside([(family, &[][..])], key.labels(), &OwnOnly(self), &self.hash).is_ok()
    }

    /// Whether another group differs from one of this key only in labels without value.
    pub(super) fn has_twin(&self, key: &GroupingKey, slot: Option<Slot>) -> bool {
        self.marks(key).filter_map(|mark| self.owner(mark)).any(|owner| Some(owner) != slot)
    }

    /// The fingerprints of the series that stands for a group, which no other group has.
    pub(super) fn marks(&self, key: &GroupingKey) -> Fingerprints {
        GroupHash::new(&self.hash, Some(key.labels())).metric(MARK, std::iter::empty())
    }

    /// The family that is exposed under an escaped name, and by how many groups.
    pub(super) fn family(&self, escaped: &str) -> Option<(&Arc<str>, MetricType, usize)> {
        self.names.get(escaped).map(|exposing| (&exposing.name, exposing.kind, exposing.groups))
    }

    /// Type of a family of the gateway's own.
    pub(super) fn own(&self, name: &str) -> Option<MetricType> {
        self.own.get(name).copied()
    }

    /// Takes a group in.
    ///
    /// # Errors
    /// Where another group's labels differ only in labels without value: to Prometheus they are the same.
    pub(super) fn add_group(&mut self, slot: Slot, group: &Group) -> Result<(), Inconsistent> {
        let fingerprints = self.marks(&group.key);
        if fingerprints.clone().any(|fingerprint| self.owner(fingerprint).is_some()) {
            return Err(check::duplicate(MARK, &Own::PushTime.metric(group, 0)));
        }
        fingerprints.for_each(|fingerprint| self.add_series(fingerprint, slot));
        Ok(())
    }

    pub(super) fn remove_group(&mut self, group: &Group) {
        self.marks(&group.key).for_each(|fingerprint| self.remove_series(fingerprint));
    }

    /// The group that a series belongs to.
    pub(super) fn owner(&self, fingerprint: Fingerprint) -> Option<Slot> {
        let halves = halves(fingerprint);
        self.series.find(fingerprint, |series| series.fingerprint == halves).map(|series| series.slot)
    }

    /// How many series it knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Takes in a series of a group.
    pub(super) fn add_series(&mut self, fingerprint: Fingerprint, slot: Slot) {
        let series = Series { fingerprint: halves(fingerprint), slot };
        self.series.insert_unique(fingerprint, series, |series| whole(series.fingerprint));
    }

    fn remove_series(&mut self, fingerprint: Fingerprint) {
        let halves = halves(fingerprint);
        if let Ok(entry) = self.series.find_entry(fingerprint, |series| series.fingerprint == halves) {
            entry.remove();
        }
    }

    /// Takes in a family of a group, whose series have these fingerprints.
    pub(super) fn add(&mut self, slot: Slot, name: &Arc<str>, kind: MetricType, series: &[Fingerprint]) {
        for escaped in renderings(name) {
            if let Some(exposing) = self.names.get_mut(&*escaped) {
                exposing.groups += 1;
            } else {
                let exposing = Exposing { name: name.clone(), kind, groups: 1 };
                self.names.insert(escaped.into_owned(), exposing);
            }
        }
        series.iter().for_each(|fingerprint| self.add_series(*fingerprint, slot));
    }

    /// Takes out a family of a group.
    pub(super) fn remove(&mut self, key: &GroupingKey, family: &StoredFamily) {
        for escaped in renderings(&family.head.name) {
            if let Some(entry) = self.names.get_mut(&*escaped) {
                entry.groups -= 1;
                if entry.groups == 0 {
                    self.names.remove(&*escaped);
                }
            }
        }
        let series = family.fingerprints(key, &self.hash);
        series.into_iter().for_each(|fingerprint| self.remove_series(fingerprint));
    }

    /// Takes everything out but the gateway's own.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.series.clear();
    }

    /// What is exposed beside a push to `group` that replaces the group's families for which `replaced` is true.
    pub(super) fn beside<'a>(
        &'a self,
        group: Option<(Slot, &'a Group)>,
        replaced: &'a dyn Fn(&str) -> bool,
    ) -> impl Exposed + 'a {
        Beside { index: self, group, replaced }
    }
}

/// What the gateway itself exposes, and nobody else.
struct OwnOnly<'a>(&'a Index);

impl Exposed for OwnOnly<'_> {
    fn family(&self, _: &str) -> Option<(&str, MetricType)> {
        None
    }

    fn own(&self, name: &str) -> Option<MetricType> {
        self.0.own(name)
    }

    fn has_series(&self, _: Fingerprint) -> bool {
        false
    }
}

struct Beside<'a> {
    index: &'a Index,
    group: Option<(Slot, &'a Group)>,
    replaced: &'a dyn Fn(&str) -> bool,
}

impl Exposed for Beside<'_> {
    fn family(&self, escaped: &str) -> Option<(&str, MetricType)> {
        let (name, kind, groups) = self.index.family(escaped)?;
        let has = |group: &Group| group.family(name).is_some_and(|family| family.aside().is_none());
        let goes = self.group.is_some_and(|(_, group)| has(group)) && (self.replaced)(name);
        (groups > usize::from(goes)).then_some((name, kind))
    }

    fn own(&self, name: &str) -> Option<MetricType> {
        self.index.own(name)
    }

    fn has_series(&self, fingerprint: Fingerprint) -> bool {
        // A series of the group itself belongs to a family of the same name, which the push replaces.
        self.index.owner(fingerprint).is_some_and(|owner| self.group.map(|(slot, _)| slot) != Some(owner))
    }
}
