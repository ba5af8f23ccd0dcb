//! The single writer: check → apply → publish → acknowledge, in batches.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::group::{Group, GroupId, Snapshot, StoredFamily, UnixNanos};
use super::index::Index;
use super::quarantine::{Candidate, Quarantine};
use super::{Change, Push, PushMode, Settings, StoreError, Submission, Verdict};
use crate::exposition::MetricFamily;
use crate::exposition::check::{self, Fingerprint, Inconsistent};
use crate::grouping::GroupingKey;

/// Changes that are published together.
const BATCH_LEN_MAX: usize = 256;

/// Makes changes until every handle to the store is gone and the queue is empty.
pub(super) async fn run(
    mut submissions: mpsc::Receiver<Submission>,
    publish: watch::Sender<Arc<Snapshot>>,
    settings: Settings,
) {
    let mut state = State::new(settings);
    let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
    while submissions.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
        let verdicts: Vec<_> =
            batch.drain(..).map(|submission| (submission.answer, state.make(submission.change))).collect();
        publish.send_replace(Arc::new(state.snapshot.clone()));
        for (answer, verdict) in verdicts {
            // Whoever asked may have gone; the change is made all the same.
            let _ = answer.send(verdict);
        }
    }
}

struct State {
    snapshot: Snapshot,
    index: Index,
    quarantine: Quarantine,
    settings: Settings,
    /// Groups that no push was ever taken for.
    failed_groups: usize,
    /// Counts pushes and groups, for order and identity.
    sequence: u64,
}

impl State {
    fn new(settings: Settings) -> Self {
        Self {
            snapshot: Snapshot::default(),
            index: Index::new(settings.own.clone()),
            quarantine: Quarantine::default(),
            settings,
            failed_groups: 0,
            sequence: 0,
        }
    }

    fn make(&mut self, change: Change) -> Verdict {
        self.sequence += 1;
        let verdict = match change {
            Change::Push(push) => self.push(push),
            Change::Delete(key) => {
                self.delete(&key);
                Ok(())
            }
            Change::Failed { key, at } => {
                self.fail(key, at);
                Ok(())
            }
            Change::Wipe => {
                self.wipe();
                Ok(())
            }
        };
        self.snapshot.aside = self.quarantine.len();
        verdict
    }

    fn push(&mut self, push: Push) -> Verdict {
        let judged = if self.settings.quarantine { without_timestamps(&push) } else { self.judge(&push) };
        match judged {
            Ok(fingerprints) => self.apply(push, fingerprints),
            Err(fault) => {
                self.fail(push.key, push.at);
                // Who wants no checks is told of none.
                if self.settings.quarantine { Ok(()) } else { Err(fault.into()) }
            }
        }
    }

    fn judge(&self, push: &Push) -> Result<Vec<Vec<Fingerprint>>, Inconsistent> {
        let names: HashSet<&str> = push.families.iter().map(|family| family.name.as_str()).collect();
        let replaced = |name: &str| push.mode == PushMode::ReplaceGroup || names.contains(name);
        let group = self.snapshot.groups.get(&push.key).map(|group| &**group);
        check::check(&push.families, &self.index.beside(group, &replaced))
    }

    /// Takes a push that was judged. Where there is a quarantine, it has no fingerprints yet: every family starts aside,
    /// and what fits beside the rest is let out.
    fn apply(&mut self, push: Push, fingerprints: Vec<Vec<Fingerprint>>) -> Verdict {
        let mut group = self.group(push.key, push.at)?;
        let before = group.families.clone();
        let replaced: Vec<Arc<str>> = match push.mode {
            PushMode::ReplaceGroup => before.keys().cloned().collect(),
            PushMode::ReplaceFamilies => {
                let of_name =
                    |family: &MetricFamily| Some(before.get_key_value(family.name.as_str())?.0.clone());
                push.families.iter().filter_map(of_name).collect()
            }
        };
        let mut freed: BTreeSet<Arc<str>> =
            replaced.into_iter().filter(|name| self.take_out(&mut group, name)).collect();
        let mut candidates = BTreeSet::new();
        let mut fingerprints = fingerprints.into_iter();
        for family in push.families {
            // A family without metrics is not kept: it would expose nothing and only bar its name.
            let fingerprints = fingerprints.next();
            if family.metrics.is_empty() {
                continue;
            }
            let name: Arc<str> = family.name.as_str().into();
            let since = before.get(&*name).map_or(self.sequence, |stored| stored.since);
            let stored =
                StoredFamily { family, since, pushed_at: push.at, aside: None, fingerprints: Vec::new() };
            let kept = before.get(&name).filter(|old| old.aside.is_none());
            match fingerprints.or_else(|| self.goes_on(kept?, &stored)) {
                Some(fingerprints) => {
                    freed.remove(&name);
                    self.put_in(&mut group, name, StoredFamily { fingerprints, ..stored });
                }
                None => drop(candidates.insert(self.put_aside(&mut group, name, stored))),
            }
        }
        let had_failed_only = !group.has_succeeded() && self.is_known(&group.key);
        self.failed_groups = self.failed_groups.saturating_sub(usize::from(had_failed_only));
        group.succeeded(push.at);
        self.snapshot.groups.insert(group.key.clone(), Arc::new(group));
        candidates.extend(self.quarantine.touched_by(freed.iter().map(|name| &**name)));
        self.let_out(candidates);
        Ok(())
    }

    /// The fingerprints of a family that was exposed and can be again, so that what others have aside stays there: it has
    /// all the series that it had.
    fn goes_on(&self, old: &StoredFamily, new: &StoredFamily) -> Option<Vec<Fingerprint>> {
        if old.family.kind != new.family.kind {
            return None;
        }
        let fingerprints = self.judge_alone(new).ok()?;
        let has: HashSet<_> = fingerprints.iter().collect();
        old.fingerprints.iter().all(|fingerprint| has.contains(fingerprint)).then_some(fingerprints)
    }

    /// Judges a family that is not exposed, beside all that is.
    fn judge_alone(&self, stored: &StoredFamily) -> Result<Vec<Fingerprint>, Inconsistent> {
        let family = std::slice::from_ref(&stored.family);
        check::check(family, &self.index.beside(None, &|_| false)).map(|fingerprints| fingerprints.concat())
    }

    fn is_known(&self, key: &GroupingKey) -> bool {
        self.snapshot.groups.contains_key(key)
    }

    fn delete(&mut self, key: &GroupingKey) {
        if let Some(group) = self.snapshot.groups.remove(key) {
            let mut group = Group::clone(&group);
            let mut names: Vec<Arc<str>> = group.families.keys().cloned().collect();
            names.retain(|name| self.take_out(&mut group, name));
            self.index.remove_group(&group);
            self.failed_groups = self.failed_groups.saturating_sub(usize::from(!group.has_succeeded()));
            self.let_out(self.quarantine.touched_by(names.iter().map(|name| &**name)));
        }
    }

    fn wipe(&mut self) {
        self.snapshot = Snapshot::default();
        self.index.clear();
        self.quarantine.clear();
        self.failed_groups = 0;
    }

    /// Notes a failure. A group that cannot be, or that would be one too many, is not made for its sake.
    fn fail(&mut self, key: GroupingKey, at: UnixNanos) {
        let is_new = !self.is_known(&key);
        if is_new && self.failed_groups >= self.settings.failed_groups_max {
            return;
        }
        let Ok(mut group) = self.group(key, at) else { return };
        self.failed_groups += usize::from(is_new);
        group.failed(at);
        self.snapshot.groups.insert(group.key.clone(), Arc::new(group));
    }

    /// A copy of the group to change, or a new one.
    fn group(&mut self, key: GroupingKey, at: UnixNanos) -> Result<Group, StoreError> {
        if let Some(group) = self.snapshot.groups.get(&key) {
            return Ok(Group::clone(group));
        }
        let groups = self.snapshot.groups.len();
        if groups >= self.settings.groups_max {
            return Err(StoreError::TooManyGroups(groups));
        }
        let group = Group::new(key, GroupId(self.sequence), at);
        self.index.add_group(&group)?;
        Ok(group)
    }

    /// Returns whether it was exposed.
    fn take_out(&mut self, group: &mut Group, name: &Arc<str>) -> bool {
        let Some(stored) = group.families.remove(name) else { return false };
        if stored.aside.is_some() {
            self.quarantine.remove(&Candidate::new(&group.key, name, &stored));
            return false;
        }
        self.index.remove(&stored);
        if let Some(groups) = self.snapshot.families.get_mut(name) {
            groups.remove(&group.key);
            if groups.is_empty() {
                self.snapshot.families.remove(name);
            }
        }
        true
    }

    fn put_in(&mut self, group: &mut Group, name: Arc<str>, stored: StoredFamily) {
        let stored = Arc::new(stored);
        self.index.add(group.id, &name, &stored);
        group.families.insert(name.clone(), stored.clone());
        self.snapshot.families.entry(name).or_default().insert(group.key.clone(), stored);
    }

    fn put_aside(&mut self, group: &mut Group, name: Arc<str>, stored: StoredFamily) -> Candidate {
        let candidate = Candidate::new(&group.key, &name, &stored);
        self.quarantine.insert(&candidate);
        let stored = StoredFamily { aside: Some(Arc::new(Inconsistent::NotJudged)), ..stored };
        group.families.insert(name, Arc::new(stored));
        candidate
    }

    /// Exposes what is aside and does not contradict anything, the oldest first.
    fn let_out(&mut self, candidates: BTreeSet<Candidate>) {
        for candidate in candidates {
            let Some(group) = self.snapshot.groups.get(&candidate.key) else { continue };
            let mut group = Group::clone(group);
            let Some(stored) = group.families.get(&candidate.name).cloned() else { continue };
            let mut stored = StoredFamily::clone(&stored);
            match self.judge_alone(&stored) {
                Ok(fingerprints) => {
                    self.quarantine.remove(&candidate);
                    stored.aside = None;
                    stored.fingerprints = fingerprints;
                    self.put_in(&mut group, candidate.name, stored);
                }
                Err(fault) => {
                    stored.aside = Some(Arc::new(fault));
                    group.families.insert(candidate.name, Arc::new(stored));
                }
            }
            self.snapshot.groups.insert(group.key.clone(), Arc::new(group));
        }
    }
}

/// What even those who want no checks must not push.
fn without_timestamps(push: &Push) -> Result<Vec<Vec<Fingerprint>>, Inconsistent> {
    let mut metrics = push.families.iter().flat_map(|family| &family.metrics);
    if metrics.any(|metric| metric.timestamp_ms.is_some()) {
        return Err(Inconsistent::Timestamps);
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::exposition::{Format, MetricType, Validation, text};
    use crate::store::expose::expose;

    fn state() -> State {
        state_with(false)
    }

    fn state_with(quarantine: bool) -> State {
        let own = HashMap::from([("own_total".to_owned(), MetricType::Counter)]);
        State::new(Settings { own, quarantine, groups_max: 10, failed_groups_max: 2 })
    }

    fn push(state: &mut State, mode: PushMode, job: &str, body: &str) -> Result<(), String> {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        let key = GroupingKey::new(job, [("", ""); 0]);
        state.make(Change::Push(Push::new(key, families, mode, UnixNanos(7_000_000_000)))).map_err(|error| {
            match error {
                StoreError::Inconsistent(fault) => fault.to_string(),
                other => panic!("{other}"),
            }
        })
    }

    fn put(state: &mut State, job: &str, body: &str) -> Result<(), String> {
        push(state, PushMode::ReplaceGroup, job, body)
    }

    fn post(state: &mut State, job: &str, body: &str) -> Result<(), String> {
        push(state, PushMode::ReplaceFamilies, job, body)
    }

    /// What is exposed but for types and push times.
    fn samples(state: &State) -> Vec<String> {
        let mut out = Vec::new();
        expose(&mut out, &state.snapshot, &[], Format::DEFAULT);
        let text = String::from_utf8(out).expect("text is UTF-8");
        text.lines().filter(|l| !l.starts_with('#') && !l.starts_with("push_")).map(str::to_owned).collect()
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
        assert_eq!(state.snapshot.groups.len(), 1);
        state.make(Change::Delete(GroupingKey::new("x", [("", ""); 0]))).expect("deleted");
        assert_eq!(state.snapshot.groups.len(), 0);
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
        state.make(Change::Delete(GroupingKey::new("y", [("", ""); 0]))).expect("deleted");
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
        let group = state.snapshot.groups.values().next().expect("the group");
        assert_eq!(group.push_failure_time.value, crate::exposition::Value::Gauge(7.0));
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
        let mut out = Vec::new();
        expose(&mut out, &state.snapshot, &[], Format::DEFAULT);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "# HELP push_failure_time_seconds Last Unix time when changing this group in the Pushgateway failed.\n\
             # TYPE push_failure_time_seconds gauge\npush_failure_time_seconds{instance=\"\",job=\"x\"} 0\n\
             # HELP push_time_seconds Last Unix time when changing this group in the Pushgateway succeeded.\n\
             # TYPE push_time_seconds gauge\npush_time_seconds{instance=\"\",job=\"x\"} 7\n"
        );
    }

    #[test]
    fn the_oldest_help_wins() {
        let mut state = state();
        put(&mut state, "z", "# HELP a first\na 1\n").expect("accepted");
        put(&mut state, "b", "# HELP a second\na 1\n").expect("accepted");
        put(&mut state, "z", "# HELP a first again\na 1\n").expect("accepted");
        let mut out = Vec::new();
        expose(&mut out, &state.snapshot, &[], Format::DEFAULT);
        assert!(String::from_utf8_lossy(&out).starts_with("# HELP a first again\n"));
    }

    #[test]
    fn groups_of_refused_pushes_are_few() {
        let mut state = state();
        for job in ["a", "b", "c", "d"] {
            put(&mut state, job, "x 1 5\n").expect_err("a timestamp");
        }
        assert_eq!((state.snapshot.groups.len(), state.failed_groups), (2, 2));
        put(&mut state, "a", "x 1\n").expect("accepted");
        assert_eq!(state.failed_groups, 1);
        put(&mut state, "c", "x 1 5\n").expect_err("there is room again");
        state.make(Change::Delete(GroupingKey::new("b", [("", ""); 0]))).expect("deleted");
        assert_eq!((state.snapshot.groups.len(), state.failed_groups), (2, 1));
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
        assert!(state.snapshot.groups.is_empty() && state.snapshot.families.is_empty());
        assert_eq!((state.snapshot.aside, state.failed_groups), (0, 0));
        put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("accepted");
        assert_eq!(samples(&state), [r#"a{instance="",job="y"} 1"#]);
    }

    #[test]
    fn what_contradicts_others_is_kept_aside_until_its_turn_comes() {
        let mut state = state_with(true);
        let aside = |state: &State| state.snapshot.aside;
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
        state.make(Change::Delete(GroupingKey::new("w", [("", ""); 0]))).expect("deleted");
        assert_eq!(aside(&state), 0);
    }

    #[test]
    fn a_family_waits_for_another_one_whose_samples_have_its_name() {
        let mut state = state_with(true);
        put(&mut state, "x", "# TYPE s summary\ns_count 1\n").expect("accepted");
        put(&mut state, "y", "s_count 5\n").expect("taken all the same");
        assert_eq!(state.snapshot.aside, 1);
        put(&mut state, "x", "").expect("accepted");
        assert_eq!(samples(&state), [r#"s_count{instance="",job="y"} 5"#]);
        assert_eq!(state.snapshot.aside, 0);
    }

    #[test]
    fn what_is_aside_costs_nothing_while_nothing_changes_for_it() {
        let mut state = state_with(true);
        put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
        put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("taken all the same");
        let waiting = |state: &State| {
            let group =
                state.snapshot.groups.values().find(|group| group.key.job() == "y").expect("it is there");
            group.families.values().next().expect("its family").clone()
        };
        let before = waiting(&state);
        put(&mut state, "x", "# TYPE a counter\na 2\na{l=\"1\"} 1\n").expect("accepted");
        put(&mut state, "z", "# TYPE a gauge\na 1\n").expect("taken all the same");
        assert!(Arc::ptr_eq(&before, &waiting(&state)), "it was judged again");
        put(&mut state, "x", "b 1\n").expect("accepted");
        assert_eq!(state.snapshot.aside, 0);
    }

    #[test]
    fn a_timestamp_is_no_push_even_where_nothing_is_checked() {
        let mut state = state_with(true);
        put(&mut state, "x", "a 1\n").expect("accepted");
        put(&mut state, "x", "a 2 5\n").expect("nobody is told");
        assert_eq!(samples(&state), [r#"a{instance="",job="x"} 1"#]);
        assert_eq!(
            state.snapshot.groups.values().next().expect("one group").failed_at,
            UnixNanos(7_000_000_000)
        );
    }
}
