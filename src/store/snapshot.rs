//! What is stored, as it is at one moment.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, Vector};

use super::group::{Group, Place, Slot, StoredFamily};
use super::own::{Face, Own, OwnNames, Shift};
use super::segments::{FamilySegments, Source};
use crate::exposition::{Head, MetricFamily, MetricType};
use crate::grouping::GroupingKey;

/// An immutable state of the store. Cloning shares everything, and costs the same however much there is.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// By slot; there may be others than those of this state, where it is a part of one.
    pub(super) groups: Vector<Option<Arc<Group>>>,
    pub(super) by_key: OrdMap<Arc<GroupingKey>, Slot>,
    /// By number.
    pub(super) exposed: Vector<Option<Arc<FamilySegments>>>,
    /// Numbers that no family has.
    free_numbers: Vector<u32>,
    pub(super) by_name: OrdMap<Arc<str>, u32>,
    /// How many families of groups are not exposed, because others contradict them.
    pub aside: usize,
    /// Whether it has [`only`](Self::only) some of the groups.
    is_part: bool,
}

impl Default for Snapshot {
    /// Nothing is stored.
    fn default() -> Self {
        Self::empty(&OwnNames::default())
    }
}

impl Snapshot {
    /// Nothing is stored. The store's own families are there all the same, without metrics.
    pub(super) fn empty(names: &OwnNames) -> Self {
        Self::empty_with(|own| names.name(own))
    }

    fn empty_with<'n>(name: impl Fn(Own) -> &'n str) -> Self {
        let mut empty = Self {
            groups: Vector::new(),
            by_key: OrdMap::new(),
            exposed: Vector::new(),
            free_numbers: Vector::new(),
            by_name: OrdMap::new(),
            aside: 0,
            is_part: false,
        };
        for own in Own::ALL {
            let made = empty.number_for(name(own), own.kind(), Source::Own(own));
            debug_assert_eq!(made, own.number());
        }
        empty
    }

    /// What one of the store's own families is called.
    fn own_name(&self, own: Own) -> &str {
        &self.segments_of(own.number()).name
    }

    /// The store's own families of a group.
    pub fn own_of(&self, group: &Group) -> impl Iterator<Item = (Own, MetricFamily)> {
        Face::of(group).families().map(|own| (own, own.family(self.own_name(own), group)))
    }

    /// The group of a key.
    pub fn get(&self, key: &GroupingKey) -> Option<&Arc<Group>> {
        self.groups.get(*self.by_key.get(key)? as usize)?.as_ref()
    }

    /// The groups behind a key, by key.
    pub fn after(&self, key: &GroupingKey) -> impl Iterator<Item = &Arc<Group>> {
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        self.by_key
            .range::<_, GroupingKey>(behind)
            .filter_map(|(_, slot)| self.groups.get(*slot as usize)?.as_ref())
    }

    /// All groups, by key.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.by_key.values().filter_map(|slot| self.groups.get(*slot as usize)?.as_ref())
    }

    /// All groups, in the order that is cheapest.
    pub fn in_any_order(&self) -> Box<dyn Iterator<Item = &Group> + '_> {
        if self.is_part {
            return Box::new(self.groups().map(|group| &**group));
        }
        Box::new(self.groups.iter().flatten().map(|group| &**group))
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The group in a slot that some segment names.
    pub(super) fn group(&self, slot: Slot) -> &Group {
        self.groups.get(slot as usize).and_then(Option::as_ref).expect("exposed name groups that there are")
    }

    /// See [`Self::group`]. It is copied where a reader has it.
    pub(super) fn group_mut(&mut self, slot: Slot) -> &mut Group {
        let group = self.groups.get_mut(slot as usize).and_then(Option::as_mut);
        Arc::make_mut(group.expect("it is there"))
    }

    /// The family of a number that a group's family names.
    pub(super) fn segments_of(&self, number: u32) -> &FamilySegments {
        self.exposed
            .get(number as usize)
            .and_then(Option::as_ref)
            .expect("groups name families that there are")
    }

    /// All families that are exposed, by name.
    pub(super) fn exposed(&self) -> impl Iterator<Item = (&str, &FamilySegments)> {
        self.by_name.iter().map(|(name, number)| (&**name, self.segments_of(*number)))
    }

    /// The family of a name, which some group exposes. By the number that groups have for it, it is found in the whole only.
    fn segments_named(&self, name: &str) -> &FamilySegments {
        let number = self.by_name.get(name).expect("what a group exposes has a name here");
        self.segments_of(*number)
    }

    /// The same state, with some of the groups only.
    #[must_use]
    pub fn only(&self, is_wanted: impl Fn(&GroupingKey) -> bool) -> Self {
        let mut only =
            Self { groups: self.groups.clone(), is_part: true, ..Self::empty_with(|own| self.own_name(own)) };
        for (key, slot) in self.by_key.iter().filter(|(key, _)| is_wanted(key)) {
            only.by_key.insert(key.clone(), *slot);
            let group = self.group(*slot);
            only.turn(*slot, Face::default(), Face::of(group));
            for family in &group.families {
                match family.head.place {
                    Place::Aside(_) => only.aside += 1,
                    Place::Exposed(_) => only.put(*slot, family, self.segments_named(&family.head.name)),
                }
            }
        }
        only
    }

    /// Exposes a family of a group as another snapshot does.
    fn put(&mut self, slot: Slot, family: &StoredFamily, like: &FamilySegments) {
        let number = self.number_for(&like.name, like.kind, like.source);
        let groups = &self.groups;
        let exposed = segments_mut(&mut self.exposed, number);
        let _ = exposed.share(&family.head);
        let bytes_of = |slot: Slot| family_bytes(groups, slot, &like.name);
        exposed.insert(slot, bytes_of(slot), bytes_of);
    }

    /// Exposes in the store's own families what a group has become.
    pub(super) fn turn(&mut self, slot: Slot, before: Face, after: Face) {
        let Self { groups, exposed, .. } = self;
        for (own, shift) in before.changes(after) {
            let segments = segments_mut(exposed, own.number());
            if shift == Shift::Changes {
                segments.touch(slot);
                continue;
            }
            let name = segments.name.clone();
            let bytes_of = |slot: Slot| {
                let group = groups.get(slot as usize).and_then(Option::as_ref);
                group.map_or(0, |group| own.text_bytes(&name, group))
            };
            match shift {
                Shift::Comes => segments.insert(slot, bytes_of(slot), bytes_of),
                _ => segments.remove(slot, bytes_of(slot)),
            }
        }
    }

    /// The number of the family with a name, made if there is none.
    pub(super) fn number_for(&mut self, name: &str, kind: MetricType, source: Source) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        let exposed = Some(Arc::new(FamilySegments::new(name.clone(), kind, source)));
        let number = if let Some(free) = self.free_numbers.pop_back() {
            self.exposed.set(free as usize, exposed);
            free
        } else {
            self.exposed.push_back(exposed);
            u32::try_from(self.exposed.len() - 1).expect("a family takes more than a byte")
        };
        self.by_name.insert(name, number);
        number
    }

    /// Forgets a family that no group has any more.
    pub(super) fn drop_if_empty(&mut self, number: u32) {
        let is_own = matches!(self.segments_of(number).source, Source::Own(_));
        if self.segments_of(number).is_empty() && !is_own {
            let name = self.segments_of(number).name.clone();
            self.by_name.remove(&name);
            self.exposed.set(number as usize, None);
            self.free_numbers.push_back(number);
        }
    }
}

impl FamilySegments {
    /// What all metrics in here are exposed under.
    pub(super) fn exposed_head(&self) -> Option<Head<'_>> {
        match self.source {
            Source::Pushed => self.head().map(super::group::StoredHead::as_head),
            Source::Own(own) => {
                Some(Head { name: &self.name, help: Some(own.help()), unit: None, kind: self.kind })
            }
        }
    }
}

pub(super) fn segments_mut(
    exposed: &mut Vector<Option<Arc<FamilySegments>>>,
    number: u32,
) -> &mut FamilySegments {
    let exposed = exposed.get_mut(number as usize).and_then(Option::as_mut);
    Arc::make_mut(exposed.expect("groups name families that there are"))
}

/// About how many bytes of text a group's family has.
pub(super) fn family_bytes(groups: &Vector<Option<Arc<Group>>>, slot: Slot, name: &str) -> usize {
    let group = groups.get(slot as usize).and_then(Option::as_ref);
    group.and_then(|group| Some(group.family(name)?.text_bytes(&group.key))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::exposition::{Compression, Format, Validation, text};
    use crate::store::expose::expose;
    use crate::store::{Change, Push, PushMode, Rules, Settings, Store, UnixNanos};

    fn exposed(snapshot: &Snapshot) -> Vec<String> {
        let pieces = expose(snapshot, &[], Format::DEFAULT, Compression::Identity);
        String::from_utf8(pieces.concat()).expect("text is UTF-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn some_of_some_groups_say_what_they_say_in_the_whole() {
        let rules = Rules { quarantine: false, groups_max: 10, failed_groups_max: 2 };
        let store = Store::new(Settings::new(HashMap::new(), rules));
        // Families come to be in an order that is not theirs, and the first one is of nobody who is asked for.
        for (job, body) in [
            ("other", "# TYPE secret gauge\nsecret 1\n"),
            ("mine", "# TYPE zz counter\nzz 2\n"),
            ("mine", "# TYPE aa gauge\naa 3\n"),
            ("mine too", "# TYPE aa gauge\naa 4\n"),
        ] {
            let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
            let key = GroupingKey::new(job, [("", ""); 0]);
            let push = Push::new(key, families, PushMode::ReplaceFamilies, UnixNanos(7_000_000_000));
            let _ = store.make(Change::Push(push)).expect("a good push");
        }
        let whole = store.snapshot();
        let mine = whole.only(|key| key.job().starts_with("mine"));
        let one = mine.only(|key| key.job() == "mine");
        let in_whole = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
            exposed(&whole).into_iter().filter(|line| is_wanted(line)).collect()
        };
        let is_of_mine = |line: &str| !line.contains("secret") && !line.contains("other");
        assert_eq!(exposed(&mine), in_whole(&is_of_mine));
        assert_eq!(exposed(&one), in_whole(&|line| is_of_mine(line) && !line.contains("mine too")));
        assert_eq!(one.only(|_| true).len(), 1);
    }
}
