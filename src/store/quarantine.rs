//! Families that cannot be exposed because others contradict them, where pushes are taken all the same.
//!
//! Which of two is exposed does not depend on chance: the one that is exposed already, and when it goes, that of the
//! oldest group.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::group::Group;
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
}

impl Candidate {
    pub(super) fn new(group: &Group, name: &Arc<str>) -> Self {
        Self { sequence: group.sequence, key: group.key.clone(), name: name.clone() }
    }
}

/// What is aside, by the names that are exposed.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    by_name: HashMap<String, BTreeSet<Candidate>>,
    len: usize,
}

impl Quarantine {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts in what is not in here yet.
    pub(super) fn insert(&mut self, candidate: &Candidate) {
        self.len += 1;
        for name in renderings(&candidate.name) {
            self.by_name.entry(name.into_owned()).or_default().insert(candidate.clone());
        }
    }

    /// Takes out what is in here.
    pub(super) fn remove(&mut self, candidate: &Candidate) {
        self.len -= 1;
        for name in renderings(&candidate.name) {
            if let Some(candidates) = self.by_name.get_mut(&*name) {
                candidates.remove(candidate);
                if candidates.is_empty() {
                    self.by_name.remove(&*name);
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything, the oldest first.
    pub(super) fn all(&self) -> BTreeSet<Candidate> {
        self.by_name.values().flatten().cloned().collect()
    }

    /// Everything whose fate may have changed with what is exposed under a name, the oldest first.
    pub(super) fn touched_by<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<Candidate> {
        let mut touched = BTreeSet::new();
        if self.len == 0 {
            return touched;
        }
        for escaped in names.into_iter().flat_map(renderings) {
            let mut take = |name: &str| touched.extend(self.by_name.get(name).into_iter().flatten().cloned());
            take(&escaped);
            // Families with different names collide by these.
            SAMPLE_SUFFIXES.iter().for_each(|suffix| take(&format!("{escaped}{suffix}")));
            SAMPLE_SUFFIXES.iter().filter_map(|suffix| escaped.strip_suffix(suffix)).for_each(take);
        }
        touched
    }
}
