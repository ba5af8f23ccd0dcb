//! The only one that changes the store: check → apply, one change after the other.

mod again;
mod due;
mod patch;
mod together;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use hashbrown::HashMap;

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
        if !push.is_update_of(self.snapshot.group(slot)) {
            return false;
        }
        let Snapshot { groups, exposed, .. } = &mut self.snapshot;
        let group = groups.get_mut(slot as usize).and_then(Option::as_mut).expect("it was just there");
        let group = Arc::make_mut(group);
        let before = Face::of(group);
        let mut place = 0;
        for family in &mut push.families {
            let Some(stored) = group.family_near_mut(&family.name, &mut place) else { continue };
            place += 1;
            stored.pushed_at = push.at.unix;
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
            return self.push_families(push, judged);
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
        self.fail(&push.key, push.at.unix);
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
        for family in &mut push.families {
            // A family without metrics is not kept: it would expose nothing and only bar its name.
            let series = series.next();
            if family.metrics.is_empty() {
                continue;
            }
            let before = old.get(family.name.as_str());
            let exposed = series.or_else(|| self.goes_on(&group.key, before?, family).map(Cow::Owned));
            if let Some(series) = exposed {
                freed.remove(family.name.as_str());
                fresh.push(self.put_in(slot, &group, family, &series, push.at.unix));
            } else {
                let (stored, candidate) = self.put_aside(&group, family, push.at.unix);
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
        candidates.extend(self.quarantine.touched_by(freed.iter().map(|name| &**name)));
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

    /// The series of a family that was exposed and can be again, so that what others have aside stays there: it has all the
    /// series that it had.
    fn goes_on(&self, key: &GroupingKey, old: &StoredFamily, new: &MetricFamily) -> Option<Vec<Fingerprint>> {
        if old.head.kind != new.kind {
            return None;
        }
        let series = self.judge_alone(key, new).ok()?;
        let has: HashSet<_> = series.iter().collect();
        let had = old.fingerprints(key, self.index.hash());
        had.iter().all(|fingerprint| has.contains(fingerprint)).then_some(series)
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
        self.let_out(self.quarantine.touched_by(old.keys().map(|name| &**name)));
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
            self.quarantine.remove(&Candidate::new(group, &stored.head.name));
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
        pushed_at: UnixNanos,
    ) -> StoredFamily {
        let number = self.snapshot.number_for(&family.name, family.kind, Source::Pushed);
        let Snapshot { groups, exposed, .. } = &mut self.snapshot;
        let exposed = segments_mut(exposed, number);
        let head = exposed.adopt(family, number);
        let metrics: Metrics = family.metrics.iter_mut().map(StoredMetric::new).collect();
        let stored = StoredFamily { head, pushed_at, metrics };
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
        pushed_at: UnixNanos,
    ) -> (StoredFamily, Candidate) {
        let name: Arc<str> = family.name.as_str().into();
        let place = Place::Aside(Inconsistent::NotJudged);
        let head = Arc::new(StoredHead::new(family, name.clone(), place));
        let metrics = family.metrics.iter_mut().map(StoredMetric::new).collect();
        let candidate = Candidate::new(group, &name);
        self.quarantine.insert(&candidate);
        (StoredFamily { head, pushed_at, metrics }, candidate)
    }

    /// Exposes what is aside and does not contradict anything, the oldest first.
    fn let_out(&mut self, candidates: BTreeSet<Candidate>) {
        let mut changed: HashMap<Slot, Group> = HashMap::new();
        for candidate in candidates {
            let Some(slot) = self.slots.get(&candidate.key).copied() else { continue };
            let known = changed.remove(&slot);
            let mut group = known.unwrap_or_else(|| self.snapshot.group(slot).clone());
            if let Some((mut family, pushed_at)) = group.family(&candidate.name).map(StoredFamily::to_pushed)
            {
                match self.judge_alone(&group.key, &family) {
                    Ok(series) => {
                        self.quarantine.remove(&candidate);
                        let stored = self.put_in(slot, &group, &mut family, &series, pushed_at);
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
mod tests {
    use std::collections::HashMap;
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::exposition::{Compression, Format, MetricType, Validation, text};
    use crate::store::expose::expose;
    use crate::store::segments::Segment;

    fn state() -> State {
        state_with(false)
    }

    fn state_with(quarantine: bool) -> State {
        let own = HashMap::from([("own_total".to_owned(), MetricType::Counter)]);
        let rules = Rules { quarantine, groups_max: 10, failed_groups_max: 2 };
        State::new(Settings::new(own, rules), SeriesHash::default())
    }

    fn push(state: &mut State, mode: PushMode, job: &str, body: &str) -> Result<(), String> {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        let key = GroupingKey::new(job, [("", ""); 0]);
        state.make(Change::Push(Push::new(key, families, mode, UnixNanos(7_000_000_000)))).map_err(|error| {
            match error {
                StoreError::Inconsistent(fault) => fault.to_string(),
                other @ (StoreError::TooManyGroups(_) | StoreError::Disk(_)) => panic!("{other}"),
            }
        })
    }

    fn put(state: &mut State, job: &str, body: &str) -> Result<(), String> {
        push(state, PushMode::ReplaceGroup, job, body)
    }

    fn post(state: &mut State, job: &str, body: &str) -> Result<(), String> {
        push(state, PushMode::ReplaceFamilies, job, body)
    }

    fn exposed(snapshot: &Snapshot) -> String {
        let pieces = expose(snapshot, &[], Format::DEFAULT, Compression::Identity);
        String::from_utf8(pieces.concat()).expect("text is UTF-8")
    }

    /// What is exposed but for types and push times.
    fn samples(state: &State) -> Vec<String> {
        exposed(&state.snapshot())
            .lines()
            .filter(|l| !l.starts_with('#') && !l.starts_with("push_"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn put_replaces_the_group_and_post_the_families() {
        let mut state = state();
        put(&mut state, "x", "a{i=\"1\"} 1\nb 1\n").expect("accepted");
        post(&mut state, "x", "a{i=\"2\"} 2\nc 1\n").expect("accepted");
        assert_eq!(
            samples(&state),
            [
                r#"a{i="2",instance="",job="x"} 2"#,
                r#"b{instance="",job="x"} 1"#,
                r#"c{instance="",job="x"} 1"#
            ]
        );
        put(&mut state, "x", "c 2\n").expect("accepted");
        assert_eq!(samples(&state), [r#"c{instance="",job="x"} 2"#]);
        put(&mut state, "x", "").expect("accepted");
        assert_eq!(samples(&state), [""; 0]);
        assert_eq!(state.snapshot().len(), 1);
        state.make(Change::Delete(vec![GroupingKey::new("x", [("", ""); 0])])).expect("deleted");
        assert_eq!(state.snapshot().len(), 0);
    }

    #[test]
    fn patch_replaces_metrics() {
        let mut state = state();
        let patch = |state: &mut State, body: &str| push(state, PushMode::ReplaceMetrics, "x", body);
        patch(&mut state, "# HELP a old\n# TYPE a gauge\na{i=\"2\"} 2\nb 1\n").expect("a new group");
        patch(&mut state, "a{i=\"1\"} 1\na{i=\"2\"} 3\n")
            .expect("without a type it has the one that is stored");
        patch(&mut state, "# HELP a new\n# TYPE a gauge\n").expect("nothing is said about any metric");
        assert_eq!(
            samples(&state),
            [
                r#"a{i="1",instance="",job="x"} 1"#,
                r#"a{i="2",instance="",job="x"} 3"#,
                r#"b{instance="",job="x"} 1"#
            ]
        );
        assert!(exposed(&state.snapshot()).starts_with("# HELP a old\n# TYPE a gauge\n"));
        patch(&mut state, "# HELP a new\n# TYPE a gauge\na{i=\"1\"} 4\n").expect("accepted");
        assert!(exposed(&state.snapshot()).starts_with("# HELP a new\n"));
        let before = samples(&state);
        for (body, problem) in [
            ("# TYPE a counter\na{i=\"1\"} 1\n", "is not a GAUGE"),
            ("c 1\na{i=\"1\"} 1\na{i=\"1\"} 2\n", "collected before"),
            ("a{i=\"1\"} 1 5\n", "timestamps"),
        ] {
            let error = patch(&mut state, body).expect_err(problem);
            assert!(error.contains(problem), "{error}");
            assert_eq!(samples(&state), before);
        }
        assert_eq!(
            state.snapshot().groups().next().map(|group| group.failed_at),
            Some(UnixNanos(7_000_000_000))
        );
    }

    #[test]
    fn patch_loses_nothing_where_contradictions_are_kept_aside() {
        let mut state = state_with(true);
        let patch = |state: &mut State, body: &str| push(state, PushMode::ReplaceMetrics, "x", body);
        let stored =
            "# TYPE a gauge\na{i=\"1\"} 1\na{i=\"2\"} 2\n# TYPE b gauge\nb{i=\"1\"} 1\nb{i=\"2\"} 2\n";
        patch(&mut state, stored).expect("a new group");
        let before = samples(&state);
        let contradiction = "# TYPE a counter\na{i=\"1\"} 5\nb{i=\"1\"} 5\n";
        let error = patch(&mut state, contradiction).expect_err("it could not be kept");
        assert!(error.contains("is not a GAUGE"), "{error}");
        assert_eq!(samples(&state), before);
        assert!(
            state.snapshot().groups().all(|group| !group.last_push_successful() || group.failed_at.0 > 0)
        );
        patch(&mut state, "b{i=\"1\"} 5\n").expect("accepted");
        assert_eq!(samples(&state).len(), before.len());
    }

    #[test]
    fn a_name_has_one_type_over_all_groups() {
        let mut state = state();
        put(&mut state, "x", "# TYPE m counter\nm 1\n").expect("accepted");
        let conflict = concat!(
            r#"collected metric "m" { label:{name:"instance"  value:""}  label:{name:"job"  value:"y"}  "#,
            "gauge:{value:1}} is not a COUNTER"
        );
        assert_eq!(put(&mut state, "y", "# TYPE m gauge\nm 1\n"), Err(conflict.to_owned()));
        // Whoever is alone with a name may change its type.
        put(&mut state, "x", "# TYPE m gauge\nm 1\n").expect("accepted");
        post(&mut state, "x", "# TYPE m counter\nm 1\n").expect("accepted");
        put(&mut state, "y", "# TYPE m counter\nm 1\n").expect("accepted");
        assert!(put(&mut state, "x", "# TYPE m gauge\nm 1\n").is_err());
        state.make(Change::Delete(vec![GroupingKey::new("y", [("", ""); 0])])).expect("deleted");
        put(&mut state, "x", "# TYPE m gauge\nm 1\n").expect("accepted");
        assert_eq!(
            put(&mut state, "x", "# TYPE own_total gauge\nown_total 1\n"),
            Err("gathered metric family own_total has type GAUGE but should have COUNTER".to_owned())
        );
        put(&mut state, "x", "# TYPE own_total counter\nown_total 1\n")
            .expect("the same type beside our own");
    }

    #[test]
    fn a_refused_push_changes_nothing_but_the_failure_time() {
        let mut state = state();
        put(&mut state, "x", "a 1\n").expect("accepted");
        assert!(put(&mut state, "x", "a 2\na 3\n").is_err());
        assert!(put(&mut state, "x", "a 2 5\n").is_err());
        assert_eq!(samples(&state), [r#"a{instance="",job="x"} 1"#]);
        let snapshot = state.snapshot();
        let group = snapshot.groups().next().expect("the group");
        assert_eq!(group.failed_at, UnixNanos(7_000_000_000));
        put(&mut state, "x", "a 2\n").expect("nothing of the refused push is in the index");
    }

    #[test]
    fn series_are_unique_as_prometheus_sees_them() {
        let mut state = state();
        assert!(put(&mut state, "x", "m{x=\"\"} 1\nm 2\n").is_err(), "an empty label is no label");
        assert!(put(&mut state, "x", "m{a=\"1\",b=\"2\"} 1\nm{b=\"2\",a=\"1\"} 2\n").is_err());
        put(&mut state, "x", "m{a=\"1\"} 1\nm{a=\"2\"} 1\n").expect("accepted");
    }

    #[test]
    fn series_are_unique_however_their_names_are_escaped() {
        let mut state = state();
        let mut put = |body: &str| {
            let families = text::parse(body.as_bytes(), Validation::Utf8).expect("it parses");
            let push = Push::new(
                GroupingKey::new("x", [("", ""); 0]),
                families,
                PushMode::ReplaceGroup,
                UnixNanos(1),
            );
            state.make(Change::Push(push)).map_err(|error| error.to_string())
        };
        for body in [
            "m{\"a.b\"=\"1\"} 1\nm{a_b=\"1\"} 1\n",
            "m{\"a.b\"=\"1\"} 1\nm{a_dot_b=\"1\"} 1\n",
            "m{\"a.b\"=\"1\"} 1\nm{U__a_2e_b=\"1\"} 1\n",
        ] {
            assert!(put(body).expect_err(body).contains("collected before"), "{body}");
        }
        put("m{\"a.b\"=\"1\"} 1\nm{\"a.b\"=\"2\"} 1\nm{a_b=\"3\"} 1\n").expect("accepted");
    }

    #[test]
    fn samples_of_histograms_and_summaries_do_not_collide() {
        let mut state = state();
        put(&mut state, "x", "# TYPE h histogram\nh_count 1\n").expect("accepted");
        assert_eq!(
            put(&mut state, "y", "h_bucket 1\n"),
            Err(
                r#"collected metric named "h_bucket" collides with previously collected histogram named "h""#
                    .into()
            )
        );
        put(&mut state, "y", "s_count 1\n").expect("accepted");
        assert_eq!(
            put(&mut state, "x", "# TYPE s summary\ns 1\n"),
            Err(
                "collected histogram or summary named \"s\" collides with previously collected metric named \
                 \"s_count\""
                    .into()
            )
        );
        put(&mut state, "y", "# TYPE s summary\ns 1\n")
            .expect("the colliding family is replaced by the same push");
    }

    #[test]
    fn push_times_are_never_taken_from_a_push() {
        let mut state = state();
        for _ in 0..2 {
            post(&mut state, "x", "push_failure_time_seconds 9\npush_time_seconds 9\n").expect("accepted");
        }
        assert_eq!(
            exposed(&state.snapshot()),
            "# HELP push_failure_time_seconds Last Unix time when changing this group in the Pushgateway failed.\n\
             # TYPE push_failure_time_seconds gauge\npush_failure_time_seconds{instance=\"\",job=\"x\"} 0\n\
             # HELP push_time_seconds Last Unix time when changing this group in the Pushgateway succeeded.\n\
             # TYPE push_time_seconds gauge\npush_time_seconds{instance=\"\",job=\"x\"} 7\n"
        );
    }

    #[test]
    fn of_several_help_texts_the_first_in_the_alphabet_is_exposed() {
        let mut state = state();
        put(&mut state, "a", "a 1\n").expect("accepted");
        put(&mut state, "z", "# HELP a second\na 1\n").expect("accepted");
        assert!(exposed(&state.snapshot()).starts_with("# HELP a second\n"), "one is better than none");
        put(&mut state, "b", "# HELP a first\na 1\n").expect("accepted");
        assert!(exposed(&state.snapshot()).starts_with("# HELP a first\n"));
        put(&mut state, "b", "a 1\n").expect("accepted");
        assert!(exposed(&state.snapshot()).starts_with("# HELP a second\n"));
    }

    #[test]
    fn groups_of_refused_pushes_are_few() {
        let mut state = state();
        for job in ["a", "b", "c", "d"] {
            put(&mut state, job, "x 1 5\n").expect_err("a timestamp");
        }
        assert_eq!((state.snapshot().len(), state.failed_groups), (2, 2));
        put(&mut state, "a", "").expect("accepted, and nothing else changes");
        assert_eq!(state.failed_groups, 1);
        put(&mut state, "c", "x 1 5\n").expect_err("there is room again");
        state.make(Change::Delete(vec![GroupingKey::new("b", [("", ""); 0])])).expect("deleted");
        assert_eq!((state.snapshot().len(), state.failed_groups), (2, 1));
    }

    #[test]
    fn a_family_without_metrics_hides_nothing() {
        let mut state = state();
        put(&mut state, "x", "# TYPE h histogram\nh_count{b=\"c\"} 1\n").expect("accepted");
        let text = "# TYPE h_count gauge\nh_count{b=\"c\"} 7\n";
        let mut families = vec![crate::exposition::MetricFamily::new("h", MetricType::Gauge)];
        families.extend(text::parse(text.as_bytes(), Validation::Legacy).expect("a good text"));
        let key = GroupingKey::new("y", [("", ""); 0]);
        let push = Push::new(key, families, PushMode::ReplaceGroup, UnixNanos(1));
        assert!(matches!(state.make(Change::Push(push)), Err(StoreError::Inconsistent(_))));
    }

    #[test]
    fn large_groups_are_replaced_in_no_time() {
        let body = |from: u32| {
            (from..from + 50_000).fold(String::new(), |mut text, name| {
                writeln!(text, "m{name:06} 1").expect("it grows");
                text
            })
        };
        for quarantine in [false, true] {
            let mut state = state_with(quarantine);
            let start = std::time::Instant::now();
            put(&mut state, "x", &body(0)).expect("accepted");
            post(&mut state, "x", &body(25_000)).expect("accepted");
            put(&mut state, "x", "one 1\n").expect("accepted");
            // Where each family costs what the group holds, it takes minutes.
            assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        }
    }

    #[test]
    fn groups_are_limited() {
        let mut state = state();
        for job in 0..10 {
            put(&mut state, &job.to_string(), "").expect("accepted");
        }
        let push =
            Push::new(GroupingKey::new("x", [("", ""); 0]), Vec::new(), PushMode::ReplaceGroup, UnixNanos(1));
        assert!(matches!(state.make(Change::Push(push)), Err(StoreError::TooManyGroups(10))));
        put(&mut state, "5", "a 1\n").expect("it is there already");
    }

    #[test]
    fn a_wipe_leaves_nothing() {
        let mut state = state_with(true);
        put(&mut state, "x", "a 1\n").expect("accepted");
        put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("accepted");
        state.make(Change::Wipe).expect("wiped");
        assert!(state.snapshot().is_empty() && exposed(&state.snapshot()).is_empty());
        assert_eq!((state.snapshot().aside, state.failed_groups), (0, 0));
        put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("accepted");
        assert_eq!(samples(&state), [r#"a{instance="",job="y"} 1"#]);
    }

    #[test]
    fn what_contradicts_others_is_kept_aside_until_its_turn_comes() {
        let mut state = state_with(true);
        let aside = |state: &State| state.snapshot().aside;
        put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
        put(&mut state, "y", "# TYPE a gauge\na 2\nb 1\n").expect("taken all the same");
        put(&mut state, "z", "# TYPE a gauge\na 3\n").expect("taken all the same");
        let only_x = [r#"a{instance="",job="x"} 1"#, r#"b{instance="",job="y"} 1"#];
        assert_eq!((samples(&state), aside(&state)), (only_x.map(str::to_owned).to_vec(), 2));
        // The oldest one stays, however often it is pushed.
        put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
        assert_eq!((samples(&state), aside(&state)), (only_x.map(str::to_owned).to_vec(), 2));
        // When it changes its mind, both others fit.
        put(&mut state, "x", "# TYPE a gauge\na 1\n").expect("accepted");
        assert_eq!((samples(&state).len(), aside(&state)), (4, 0));
        // What is wrong by itself never fits.
        put(&mut state, "w", "c 1\nc 1\n# TYPE own_total gauge\nown_total 1\n").expect("taken all the same");
        assert_eq!((samples(&state).len(), aside(&state)), (4, 2));
        state.make(Change::Delete(vec![GroupingKey::new("w", [("", ""); 0])])).expect("deleted");
        assert_eq!(aside(&state), 0);
    }

    #[test]
    fn a_family_waits_for_another_one_whose_samples_have_its_name() {
        let mut state = state_with(true);
        put(&mut state, "x", "# TYPE s summary\ns_count 1\n").expect("accepted");
        put(&mut state, "y", "s_count 5\n").expect("taken all the same");
        assert_eq!(state.snapshot().aside, 1);
        put(&mut state, "x", "").expect("accepted");
        assert_eq!(samples(&state), [r#"s_count{instance="",job="y"} 5"#]);
        assert_eq!(state.snapshot().aside, 0);
    }

    #[test]
    fn what_is_aside_costs_nothing_while_nothing_changes_for_it() {
        let mut state = state_with(true);
        put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
        put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("taken all the same");
        let waiting = |state: &State| {
            let snapshot = state.snapshot();
            let group = snapshot.groups().find(|group| group.key.job() == "y").expect("it is there").clone();
            group.families()[0].head.clone()
        };
        let before = waiting(&state);
        put(&mut state, "x", "# TYPE a counter\na 2\na{l=\"1\"} 1\n").expect("accepted");
        put(&mut state, "z", "# TYPE a gauge\na 1\n").expect("taken all the same");
        assert!(Arc::ptr_eq(&before, &waiting(&state)), "it was judged again");
        put(&mut state, "x", "b 1\n").expect("accepted");
        assert_eq!(state.snapshot().aside, 0);
    }

    #[test]
    fn a_timestamp_is_no_push_even_where_nothing_is_checked() {
        let mut state = state_with(true);
        put(&mut state, "x", "a 1\n").expect("accepted");
        put(&mut state, "x", "a 2 5\n").expect("nobody is told");
        assert_eq!(samples(&state), [r#"a{instance="",job="x"} 1"#]);
        assert_eq!(state.snapshot().groups().next().expect("one group").failed_at, UnixNanos(7_000_000_000));
    }

    /// A change of one of a few groups, with a few families of one to four series.
    fn changes() -> impl Strategy<Value = (u8, u8, Vec<(u8, u8, u8)>)> {
        let family = (0..5_u8, 0..5_u8, 0..4_u8);
        (0..40_u8, 0..3_u8, prop::collection::vec(family, 0..4))
    }

    fn body(families: &[(u8, u8, u8)]) -> String {
        let mut text = String::new();
        let mut names = HashSet::new();
        for (name, series, value) in families.iter().filter(|(name, ..)| names.insert(*name)) {
            // One that some push as a counter, and one of many series.
            let kind = if *name == 3 && *value == 0 { "counter" } else { "gauge" };
            writeln!(text, "# HELP m{name} text {}\n# TYPE m{name} {kind}", value / 3).expect("it grows");
            let count = if *name == 4 { 30 * series } else { *series };
            (0..count).for_each(|l| writeln!(text, "m{name}{{l=\"{l}\"}} {value}").expect("it grows"));
        }
        text
    }

    /// What is reckoned with beside the groups is what they have: bytes of segments, and who has which series.
    fn assert_accounts(state: &State) {
        let snapshot = &state.snapshot;
        for segments in snapshot.exposed.iter().flatten().filter(|family| family.source == Source::Pushed) {
            for (slots, bytes) in segments.segments().iter().map(Segment::account) {
                let bytes_of = |slot: &Slot| family_bytes(&snapshot.groups, *slot, &segments.name);
                assert_eq!(bytes, slots.iter().map(bytes_of).sum::<usize>(), "{}", segments.name);
            }
        }
        let mut series = HashMap::new();
        for group in snapshot.groups() {
            let slot = state.slots[&group.key];
            let exposed = group.families().iter().filter(|family| family.aside().is_none());
            let pushed = exposed.flat_map(|family| family.fingerprints(&group.key, state.hash()));
            for fingerprint in state.index.marks(&group.key).chain(pushed) {
                assert_eq!(series.insert(fingerprint, slot), None, "a series is one group's");
                assert_eq!(state.index.owner(fingerprint), Some(slot));
            }
        }
        assert_eq!(state.index.len(), series.len());
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever became of the segments, they hold what the groups hold.
        #[test]
        fn what_is_kept_rendered_is_what_is_stored(
            changes in prop::collection::vec(changes(), 1..60),
            quarantine in any::<bool>(),
        ) {
            let mut state = state_with(quarantine);
            state.rules.groups_max = 100;
            let mut before = state.snapshot();
            for (group, mode, families) in changes {
                let job = format!("job{}", group % 20);
                let modes = [PushMode::ReplaceGroup, PushMode::ReplaceFamilies, PushMode::ReplaceMetrics];
                let mode = modes[usize::from(mode)];
                if group >= 36 {
                    state.make(Change::Delete(vec![GroupingKey::new(&job, [("", ""); 0])])).expect("deleted");
                } else {
                    let _ = push(&mut state, mode, &job, &body(&families));
                }
                let (now, old) = (state.snapshot(), before.only(|_| true));
                let sorted = |snapshot: &Snapshot| {
                    let text = exposed(snapshot);
                    let mut lines: Vec<_> =
                        text.lines().filter(|line| !line.starts_with("# HELP")).map(str::to_owned).collect();
                    lines.sort();
                    lines
                };
                prop_assert_eq!(sorted(&before), sorted(&old), "a snapshot does not change");
                prop_assert_eq!(sorted(&now), sorted(&now.only(|_| true)));
                let aside = now.groups().flat_map(|group| group.families()).filter(|f| f.aside().is_some());
                prop_assert_eq!(now.aside, aside.count());
                assert_accounts(&state);
                before = now;
            }
            state.make(Change::Wipe).expect("wiped");
        }
    }
}
