//! The only one that changes the store: check → apply, one change after the other.

mod again;
mod due;
mod late;
mod patch;
mod together;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use hashbrown::HashMap;

use self::late::Remaining;
use super::group::{Group, Place, Slot, StoredFamily, StoredHead, UnixNanos};
use super::index::Index;
use super::metric::{Metrics, StoredMetric};
use super::own::{Face, OwnNames};
use super::promises::{Deadlines, Nanos};
use super::quarantine::{Candidate, Quarantine};
use super::segments::Source;
use super::snapshot::{Snapshot, family_bytes, segments_mut};
use super::{Change, Push, PushMode, Rules, Settings, StoreError, Verdict};
use crate::exposition::MetricFamily;
use crate::exposition::check::{self, Inconsistent};
use crate::exposition::series::{Fingerprint, SeriesHash};
use crate::grouping::GroupingKey;

/// What a push was found to be by itself: sound, with the fingerprints of each family's series, or not.
pub(super) type Judged = Result<Vec<Vec<Fingerprint>>, Inconsistent>;

/// The store's state, and what makes changing it cheap.
pub(super) struct State {
    snapshot: Snapshot,
    slots: HashMap<Arc<GroupingKey>, Slot>,
    free_slots: Vec<Slot>,
    index: Index,
    quarantine: Quarantine,
    deadlines: Deadlines,
    /// Whether something falls due now before all else that was to.
    is_sooner: bool,
    /// How long what has stayed of a group stays.
    retention: Nanos,
    rules: Rules,
    /// Groups that no push was ever taken for.
    failed_groups: usize,
    /// Counts the groups that ever came to be.
    sequence: u64,
}

impl State {
    pub(super) fn new(settings: Settings, hash: SeriesHash) -> Self {
        Self {
            snapshot: Snapshot::empty(&settings.names),
            slots: HashMap::new(),
            free_slots: Vec::new(),
            index: Index::new(settings.own, settings.names, hash),
            quarantine: Quarantine::default(),
            deadlines: Deadlines::default(),
            is_sooner: false,
            retention: Nanos::try_from(settings.retention.as_nanos()).unwrap_or(Nanos::MAX),
            rules: settings.rules,
            failed_groups: 0,
            sequence: 0,
        }
    }

    /// How the state tells series from one another.
    pub(super) fn hash(&self) -> &SeriesHash {
        self.index.hash()
    }

    /// What the store's own families are called.
    pub(super) fn names(&self) -> &OwnNames {
        self.index.names_of_store()
    }

    /// A group as it is now.
    pub(super) fn group(&self, key: &GroupingKey) -> Option<&Group> {
        self.slots.get(key).map(|slot| self.snapshot.group(*slot))
    }

    /// The state as it is now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot.clone();
        snapshot.aside = self.quarantine.len();
        snapshot
    }

    /// Makes a change.
    pub(super) fn make(&mut self, change: Change) -> Verdict {
        match change {
            Change::Push(mut push) => {
                let _ = push.leave_out(self.names());
                if self.update(&mut push) {
                    return Ok(());
                }
                let judged = push.judge_unless_later(self.index.hash(), self.rules.quarantine);
                self.push(&mut push, &judged)
            }
            Change::Together(mut pushes) => {
                for push in &mut pushes {
                    let _ = push.leave_out(self.names());
                }
                let judged: Vec<_> = pushes.iter().map(|push| push.judge(self.index.hash())).collect();
                self.push_together(&mut pushes, &judged)
            }
            Change::Delete(keys) => {
                keys.iter().for_each(|key| self.delete(key));
                Ok(())
            }
            Change::Failed { key, at } => {
                self.fail(&key, at);
                Ok(())
            }
            Change::Due { key, due } => {
                self.fall_due(&key, due);
                Ok(())
            }
            Change::Wipe => {
                self.wipe();
                Ok(())
            }
        }
    }

    /// Makes a push that brings new values for series that its group has already, and nothing else: there is nothing to be
    /// checked about them. Returns whether it was such a push; its values are gone then.
    pub(super) fn update(&mut self, push: &mut Push) -> bool {
        if push.mode == PushMode::ReplaceMetrics {
            return self.set_metrics(push);
        }
        let Some(slot) = self.slots.get(&push.key).copied() else { return false };
        let group = self.snapshot.group(slot);
        if push.is_late_for(group) || !push.is_update_of(group) {
            return false;
        }
        let Snapshot { groups, exposed, .. } = &mut self.snapshot;
        let group = groups.get_mut(slot as usize).and_then(Option::as_mut).expect("it was just there");
        let group = Arc::make_mut(group);
        let before = Face::of(group);
        let (mut place, said_at) = (0, push.said_at());
        for family in &mut push.families {
            let Some(stored) = group.family_near_mut(&family.name, &mut place) else { continue };
            place += 1;
            stored.said_at = said_at;
            let mut changes = false;
            for (metric, new) in stored.metrics.iter_mut().zip(&mut family.metrics) {
                changes |= metric.set(new.take_value());
            }
            if changes && let Place::Exposed(number) = stored.head.place {
                segments_mut(exposed, number).touch(slot);
            }
        }
        group.take(push);
        let after = Face::of(group);
        self.snapshot.turn(slot, before, after);
        self.arm(slot);
        true
    }

    /// Makes a push that was judged by itself. Its values are gone then; what is left of it is for the caller to free, who
    /// need not hold the store for that.
    pub(super) fn push(&mut self, push: &mut Push, judged: &Judged) -> Verdict {
        if push.mode != PushMode::ReplaceMetrics {
            return match self.give_way(push) {
                Remaining::All => self.push_families(push, judged),
                Remaining::Some(judged) => self.push_families(push, &judged),
                Remaining::Nothing => Ok(()),
            };
        }
        match self.patch(push, judged) {
            Ok(None) => Ok(()),
            Ok(Some(judged)) => self.push_families(push, &judged),
            Err(fault) => {
                // Nothing could be kept aside of it, so it is told even where no checks are wanted.
                self.fail(&push.key, push.at.unix);
                Err(fault.into())
            }
        }
    }

    fn push_families(&mut self, push: &mut Push, judged: &Judged) -> Verdict {
        let judged = if self.rules.quarantine {
            // Every family is judged when it is about to be exposed.
            push.without_timestamps().map(|()| &[][..])
        } else {
            judged
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|series| self.judge(push, series).map(|()| &series[..]))
        };
        match judged {
            Ok(series) => self.apply(push, series),
            Err(fault) => self.refuse(push, fault),
        }
    }

    /// Notes that a push was refused; who wants no checks is told of none.
    fn refuse(&mut self, push: &Push, fault: Inconsistent) -> Verdict {
        if !push.is_late {
            self.fail(&push.key, push.at.unix);
        }
        if self.rules.quarantine { Ok(()) } else { Err(fault.into()) }
    }

    /// Judges a push beside what is exposed.
    fn judge(&self, push: &Push, series: &[Vec<Fingerprint>]) -> Result<(), Inconsistent> {
        let replaced = |name: &str| push.replaces(name);
        let slot = self.slots.get(&push.key).copied();
        let group = slot.map(|slot| (slot, self.snapshot.group(slot)));
        let families = push.families.iter().zip(series.iter().map(Vec::as_slice));
        check::beside(families, push.key.labels(), &self.index.beside(group, &replaced), self.index.hash())
    }

    /// Takes a push that was judged. Where there is a quarantine, its series are not known yet: every family starts aside,
    /// and what fits beside the rest is let out.
    fn apply(&mut self, push: &mut Push, series: &[Vec<Fingerprint>]) -> Verdict {
        let slot = self.slot(&push.key, push.at.unix)?;
        let mut group = self.take_group(slot);
        let before_push = Face::of(&group);
        let old = self.take_out_replaced(slot, &mut group, |name| push.replaces(name));
        let mut freed: BTreeSet<Arc<str>> = old.keys().cloned().collect();
        let mut candidates = BTreeSet::new();
        let mut fresh = Vec::with_capacity(push.families.len());
        let mut series = series.iter().map(|series| Cow::Borrowed(&series[..]));
        let said_at = push.said_at();
        for family in &mut push.families {
            // A family without metrics is not kept: it would expose nothing and only bar its name.
            let series = series.next();
            if family.metrics.is_empty() {
                continue;
            }
            let before = old.get(family.name.as_str());
            let goes_on = || self.goes_on(&group.key, before?, family).map(|(all, lost)| (all.into(), lost));
            if let Some((series, is_any_lost)) = series.map(|series| (series, false)).or_else(goes_on) {
                if !is_any_lost {
                    freed.remove(family.name.as_str());
                }
                fresh.push(self.put_in(slot, &group, family, &series, said_at));
            } else {
                let (stored, candidate) = self.put_aside(&group, family, said_at);
                fresh.push(stored);
                candidates.insert(candidate);
            }
        }
        group.families.extend(fresh);
        group.families.sort_by(|a, b| a.head.name.cmp(&b.head.name));
        let had_failed_only = !group.has_succeeded() && group.failed_at != UnixNanos::default();
        self.failed_groups = self.failed_groups.saturating_sub(usize::from(had_failed_only));
        group.take(push);
        let after_push = Face::of(&group);
        self.snapshot.groups.set(slot as usize, Some(Arc::new(group)));
        self.snapshot.turn(slot, before_push, after_push);
        self.arm(slot);
        self.drop_empty(old.values());
        candidates.extend(self.touched_by(freed.iter().map(|name| &**name)));
        self.let_out(candidates);
        Ok(())
    }

    /// Takes out what a push replaces, and returns what of it was exposed.
    fn take_out_replaced(
        &mut self,
        slot: Slot,
        group: &mut Group,
        is_replaced: impl Fn(&str) -> bool,
    ) -> BTreeMap<Arc<str>, StoredFamily> {
        let all = std::mem::take(&mut group.families).into_iter();
        let (replaced, kept): (Vec<_>, _) = all.partition(|family| is_replaced(&family.head.name));
        group.families = kept;
        let taken = replaced.into_iter().filter_map(|stored| self.take_out(slot, group, stored));
        taken.map(|stored| (stored.head.name.clone(), stored)).collect()
    }

    /// The series of a family that was exposed and can be again, so that it comes before what others have aside; and whether
    /// it has lost any, which somebody may wait for.
    fn goes_on(
        &self,
        key: &GroupingKey,
        old: &StoredFamily,
        new: &MetricFamily,
    ) -> Option<(Vec<Fingerprint>, bool)> {
        if old.head.kind != new.kind {
            return None;
        }
        let series = self.judge_alone(key, new).ok()?;
        let has: HashSet<_> = series.iter().collect();
        let had = old.fingerprints(key, self.index.hash());
        let is_any_lost = had.iter().any(|fingerprint| !has.contains(fingerprint));
        Some((series, is_any_lost))
    }

    /// What is aside and may be exposed now that some groups have families of these names no more.
    fn touched_by<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<Candidate> {
        let still = |escaped: &str| self.index.family(escaped).map(|(name, kind, _)| (&**name, kind));
        self.quarantine.touched_by(names, still)
    }

    /// Judges a family that is not exposed, beside all that is.
    fn judge_alone(
        &self,
        key: &GroupingKey,
        family: &MetricFamily,
    ) -> Result<Vec<Fingerprint>, Inconsistent> {
        let hash = self.index.hash();
        let series = check::alone(std::slice::from_ref(family), key.labels(), hash)?.concat();
        let exposed = self.index.beside(None, &|_| false);
        check::beside([(family, &series[..])], key.labels(), &exposed, hash).map(|()| series)
    }

    fn delete(&mut self, key: &GroupingKey) {
        let Some(slot) = self.slots.remove(key) else { return };
        self.snapshot.turn(slot, Face::of(self.snapshot.group(slot)), Face::default());
        let mut group = self.take_group(slot);
        self.failed_groups = self.failed_groups.saturating_sub(usize::from(!group.has_succeeded()));
        let old = self.take_out_replaced(slot, &mut group, |_| true);
        self.drop_empty(old.values());
        self.index.remove_group(&group);
        self.snapshot.by_key.remove(key);
        self.free_slots.push(slot);
        self.let_out(self.touched_by(old.keys().map(|name| &**name)));
    }

    fn wipe(&mut self) {
        self.snapshot = Snapshot::empty(self.index.names_of_store());
        self.slots.clear();
        self.free_slots.clear();
        self.deadlines = Deadlines::default();
        self.index.clear();
        self.quarantine.clear();
        self.failed_groups = 0;
    }

    /// Notes a failure. A group that cannot be, or that would be one too many, is not made for its sake.
    fn fail(&mut self, key: &GroupingKey, at: UnixNanos) {
        let slot = match self.slots.get(key) {
            Some(slot) => *slot,
            None if self.failed_groups >= self.rules.failed_groups_max => return,
            None => {
                let Ok(slot) = self.slot(key, at) else { return };
                self.failed_groups += 1;
                slot
            }
        };
        self.change_group(slot, |group| {
            group.failed_at = at;
            group.is_refused = true;
        });
    }

    /// Changes what the store itself exposes of a group.
    fn change_group(&mut self, slot: Slot, change: impl FnOnce(&mut Group)) {
        let group = self.snapshot.group_mut(slot);
        let before = Face::of(group);
        change(group);
        let after = Face::of(group);
        self.snapshot.turn(slot, before, after);
    }

    /// Takes a group out of its slot to change it. It is copied only where a reader has it.
    fn take_group(&mut self, slot: Slot) -> Group {
        let group = self.snapshot.groups.get_mut(slot as usize).and_then(Option::take);
        Arc::unwrap_or_clone(group.expect("it is there"))
    }

    /// The slot of a group, which is made if there is none.
    fn slot(&mut self, key: &GroupingKey, at: UnixNanos) -> Result<Slot, StoreError> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(*slot);
        }
        let groups = self.snapshot.len();
        if groups >= self.rules.groups_max {
            return Err(StoreError::TooManyGroups(groups));
        }
        self.sequence += 1;
        Ok(self.add_group(Group::new(key.clone(), at, self.sequence))?)
    }

    /// Gives a group a slot.
    fn add_group(&mut self, group: Group) -> Result<Slot, Inconsistent> {
        let slot = self.free_slots.last().copied();
        let slot = slot.unwrap_or_else(|| {
            Slot::try_from(self.snapshot.groups.len()).expect("a group takes more than a byte")
        });
        self.index.add_group(slot, &group)?;
        self.slots.insert(group.key.clone(), slot);
        self.snapshot.by_key.insert(group.key.clone(), slot);
        match self.free_slots.pop() {
            Some(free) => drop(self.snapshot.groups.set(free as usize, Some(Arc::new(group)))),
            None => self.snapshot.groups.push_back(Some(Arc::new(group))),
        }
        self.snapshot.turn(slot, Face::default(), Face::of(self.snapshot.group(slot)));
        Ok(slot)
    }

    /// Forgets a family that is no more its group's, and returns it if it was exposed.
    fn take_out(&mut self, slot: Slot, group: &Group, stored: StoredFamily) -> Option<StoredFamily> {
        let Place::Exposed(number) = stored.head.place else {
            self.quarantine.remove(&Candidate::new(group, &stored.head));
            return None;
        };
        self.index.remove(&group.key, &stored);
        let bytes = stored.text_bytes(&group.key);
        let exposed = segments_mut(&mut self.snapshot.exposed, number);
        exposed.remove(slot, bytes);
        exposed.give_back(&stored.head);
        Some(stored)
    }

    /// Forgets families that no group has any more, now that these were taken out.
    fn drop_empty<'a>(&mut self, taken: impl IntoIterator<Item = &'a StoredFamily>) {
        for stored in taken {
            if let Place::Exposed(number) = stored.head.place {
                self.snapshot.drop_if_empty(number);
            }
        }
    }

    /// Exposes a family of a group.
    fn put_in(
        &mut self,
        slot: Slot,
        group: &Group,
        family: &mut MetricFamily,
        series: &[Fingerprint],
        said_at: UnixNanos,
    ) -> StoredFamily {
        let number = self.snapshot.number_for(&family.name, family.kind, Source::Pushed);
        let Snapshot { groups, exposed, .. } = &mut self.snapshot;
        let exposed = segments_mut(exposed, number);
        let head = exposed.adopt(family, number);
        let metrics: Metrics = family.metrics.iter_mut().map(StoredMetric::new).collect();
        let stored = StoredFamily { head, said_at, metrics };
        let bytes = stored.text_bytes(&group.key);
        let bytes_of =
            |other: Slot| if other == slot { bytes } else { family_bytes(groups, other, &family.name) };
        exposed.kind = stored.head.kind;
        exposed.insert(slot, bytes, bytes_of);
        self.index.add(slot, &stored.head.name, stored.head.kind, series);
        stored
    }

    fn put_aside(
        &mut self,
        group: &Group,
        family: &mut MetricFamily,
        said_at: UnixNanos,
    ) -> (StoredFamily, Candidate) {
        let name: Arc<str> = family.name.as_str().into();
        let place = Place::Aside(Inconsistent::NotJudged);
        let head = Arc::new(StoredHead::new(family, name, place));
        let metrics = family.metrics.iter_mut().map(StoredMetric::new).collect();
        let candidate = Candidate::new(group, &head);
        self.quarantine.insert(&candidate);
        (StoredFamily { head, said_at, metrics }, candidate)
    }

    /// Exposes what is aside and does not contradict anything, the oldest first.
    fn let_out(&mut self, candidates: BTreeSet<Candidate>) {
        let mut changed: HashMap<Slot, Group> = HashMap::new();
        for candidate in candidates {
            let Some(slot) = self.slots.get(&candidate.key).copied() else { continue };
            let known = changed.remove(&slot);
            let mut group = known.unwrap_or_else(|| self.snapshot.group(slot).clone());
            if let Some((mut family, said_at)) = group.family(&candidate.name).map(StoredFamily::to_pushed) {
                match self.judge_alone(&group.key, &family) {
                    Ok(series) => {
                        self.quarantine.remove(&candidate);
                        let stored = self.put_in(slot, &group, &mut family, &series, said_at);
                        group.replace(stored);
                    }
                    Err(fault) => {
                        group.set_head(StoredHead::new(&family, candidate.name, Place::Aside(fault)));
                    }
                }
            }
            changed.insert(slot, group);
        }
        for (slot, group) in changed {
            self.snapshot.groups.set(slot as usize, Some(Arc::new(group)));
        }
    }
}

#[cfg(test)]
mod tests;
