//! Families that cannot be exposed because others contradict them, where pushes are taken all the same.
//!
//! Which of two is exposed does not depend on chance: the one that is exposed already, and when it goes, that of the
//! oldest group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::group::{Group, StoredHead};
use crate::exposition::MetricType;
use crate::exposition::family::SAMPLE_SUFFIXES;
use crate::exposition::labels::renderings;
use crate::grouping::GroupingKey;

/// A family of a group; the oldest comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// That of its group.
    pub(super) sequence: u64,
    pub(super) key: Arc<GroupingKey>,
    pub(super) name: Arc<str>,
    pub(super) kind: MetricType,
}

impl Candidate {
    pub(super) fn new(group: &Group, head: &StoredHead) -> Self {
        Self { sequence: group.sequence, key: group.key.clone(), name: head.name.clone(), kind: head.kind }
    }
}

/// What is aside, by the names that are exposed.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    by_name: HashMap<String, OfName>,
    len: usize,
}

/// What is aside of a name, by type.
type OfName = BTreeMap<MetricType, BTreeSet<Candidate>>;

impl Quarantine {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts in what is not in here yet.
    pub(super) fn insert(&mut self, candidate: &Candidate) {
        self.len += 1;
        for name in renderings(&candidate.name) {
            let of_name = self.by_name.entry(name.into_owned()).or_default();
            of_name.entry(candidate.kind).or_default().insert(candidate.clone());
        }
    }

    /// Takes out what is in here.
    pub(super) fn remove(&mut self, candidate: &Candidate) {
        self.len -= 1;
        for name in renderings(&candidate.name) {
            let Some(of_name) = self.by_name.get_mut(&*name) else { continue };
            if let Some(candidates) = of_name.get_mut(&candidate.kind) {
                candidates.remove(candidate);
                if candidates.is_empty() {
                    of_name.remove(&candidate.kind);
                }
            }
            if of_name.is_empty() {
                self.by_name.remove(&*name);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything, the oldest first.
    pub(super) fn all(&self) -> BTreeSet<Candidate> {
        self.by_name.values().flat_map(BTreeMap::values).flatten().cloned().collect()
    }

    /// Everything whose fate may have changed with what is exposed no more of some names, the oldest first. What is `still`
    /// exposed under one, by other groups, is in the way of all but its like: those may have waited for single series.
    pub(super) fn touched_by<'a, 's>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        still: impl Fn(&str) -> Option<(&'s str, MetricType)>,
    ) -> BTreeSet<Candidate> {
        let mut touched = BTreeSet::new();
        if self.len == 0 {
            return touched;
        }
        for escaped in names.into_iter().flat_map(renderings) {
            if let Some((name, kind)) = still(&escaped) {
                let alike = self.by_name.get(&*escaped).and_then(|of_name| of_name.get(&kind));
                let alike = alike.into_iter().flatten().filter(|candidate| *candidate.name == *name);
                touched.extend(alike.cloned());
                continue;
            }
            let mut take = |name: &str| {
                let of_name = self.by_name.get(name).into_iter().flat_map(BTreeMap::values);
                touched.extend(of_name.flatten().cloned());
            };
            take(&escaped);
            // Families with different names collide by these.
            SAMPLE_SUFFIXES.iter().for_each(|suffix| take(&format!("{escaped}{suffix}")));
            SAMPLE_SUFFIXES.iter().filter_map(|suffix| escaped.strip_suffix(suffix)).for_each(take);
        }
        touched
    }
}
