//! Pushes to several groups that are one change: all of them are made, or none.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Judged, State};
use crate::exposition::MetricType;
use crate::exposition::check::{self, Exposed, Inconsistent};
use crate::exposition::series::Fingerprint;
use crate::store::group::{Place, Slot};
use crate::store::index::Index;
use crate::store::own::Own;
use crate::store::{Push, StoreError, Verdict};

impl State {
    /// Replaces several groups, each with a push that was judged by itself. Where that cannot be, nothing changes but the
    /// failure times of these groups.
    pub(in crate::store) fn push_together(&mut self, pushes: &mut [Push], judged: &[Judged]) -> Verdict {
        if let Err(fault) = self.judge_groups(pushes) {
            // Groups that cannot be are not made for the sake of a failure.
            if matches!(fault, StoreError::Inconsistent(_)) {
                let known = pushes.iter().filter(|push| self.slots.contains_key(&push.key));
                let known: Vec<_> = known.map(|push| (push.key.clone(), push.at.unix)).collect();
                known.iter().for_each(|(key, at)| self.fail(key, *at));
            }
            return Err(fault);
        }
        let verdict = if self.rules.quarantine {
            // Every family is judged when it is about to be exposed.
            pushes.iter().try_for_each(Push::without_timestamps).map(|()| None)
        } else {
            let all: Result<Vec<_>, _> = judged.iter().cloned().collect();
            all.and_then(|series| self.judge_together(pushes, &series).map(|()| Some(series)))
        };
        match verdict {
            Ok(series) => {
                if series.is_some() {
                    self.take_out_groups(pushes);
                }
                let series_of = |at: usize| series.as_ref().map_or(&[][..], |series| &series[at]);
                let mut pushes = pushes.iter_mut().enumerate();
                pushes.try_for_each(|(at, push)| self.apply(push, series_of(at)))
            }
            Err(fault) => {
                pushes.iter().for_each(|push| self.fail(&push.key, push.at.unix));
                // Who wants no checks is told of none.
                if self.rules.quarantine { Ok(()) } else { Err(fault.into()) }
            }
        }
    }

    /// Makes pushes together that were answered for before the gateway ended.
    pub(in crate::store) fn push_together_again(&mut self, pushes: &mut [(Push, Judged)]) -> Verdict {
        if pushes.iter().any(|(push, _)| push.without_timestamps().is_err()) {
            pushes.iter().for_each(|(push, _)| self.fail(&push.key, push.at.unix));
            return Ok(());
        }
        if !self.rules.quarantine {
            let keys = pushes.iter().map(|(push, _)| push);
            let slots: Vec<_> = keys.filter_map(|push| self.slots.get(&push.key).copied()).collect();
            self.take_out_slots(&slots);
        }
        pushes.iter_mut().try_for_each(|(push, judged)| self.push_again(push, Some(judged)))
    }

    /// Makes pushes together that bring new values for series that their groups have already, and nothing else. Returns
    /// whether they were such pushes; their values are gone then.
    pub(in crate::store) fn update_together(&mut self, pushes: &mut [Push]) -> bool {
        let mut seen = HashSet::new();
        let is_update = |push: &Push| {
            let slot = self.slots.get(&push.key);
            slot.is_some_and(|slot| seen.insert(*slot) && push.is_update_of(self.snapshot.group(*slot)))
        };
        if !pushes.iter().all(is_update) {
            return false;
        }
        for push in pushes {
            let is_made = self.update(push);
            debug_assert!(is_made, "it was seen to be one");
        }
        true
    }

    fn take_out_groups(&mut self, pushes: &[Push]) {
        let slots: Vec<_> = pushes.iter().filter_map(|push| self.slots.get(&push.key).copied()).collect();
        self.take_out_slots(&slots);
    }

    /// Takes the families out of groups, so that what replaces them in one does not meet the old ones in another. Where what
    /// does is kept aside, that is not needed, and who is exposed would lose his place.
    fn take_out_slots(&mut self, slots: &[Slot]) {
        let mut taken = Vec::new();
        for slot in slots {
            let mut group = self.take_group(*slot);
            taken.push(self.take_out_replaced(*slot, &mut group, |_| true));
            self.snapshot.groups.set(*slot as usize, Some(Arc::new(group)));
        }
        let mut emptied = BTreeSet::new();
        for stored in taken.iter().flat_map(|families| families.values()) {
            if let Place::Exposed(number) = stored.head.place
                && emptied.insert(number)
            {
                self.snapshot.drop_if_empty(number);
            }
        }
        let names = taken.iter().flat_map(|families| families.keys()).map(|name| &**name);
        self.let_out(self.touched_by(names));
    }

    /// Judges whether there can be the groups that are pushed to: not too many, and none that is another one's twin.
    fn judge_groups(&self, pushes: &[Push]) -> Verdict {
        let slot = |push: &Push| self.slots.get(&push.key).copied();
        let new = pushes.iter().filter(|push| slot(push).is_none()).count();
        if new > 0 && self.snapshot.len() + new > self.rules.groups_max {
            return Err(StoreError::TooManyGroups(self.snapshot.len()));
        }
        let mut seen = HashSet::new();
        for push in pushes {
            let is_unique = self.index.marks(&push.key).all(|mark| seen.insert(mark));
            if !is_unique || self.index.has_twin(&push.key, slot(push)) {
                let group = crate::store::Group::new(push.key.clone(), push.at.unix, 0);
                return Err(check::duplicate("push_time_seconds", &Own::PushTime.metric(&group, 0)).into());
            }
        }
        Ok(())
    }

    /// Judges pushes beside what is exposed by all other groups, and beside one another.
    fn judge_together(&self, pushes: &[Push], series: &[Vec<Vec<Fingerprint>>]) -> Result<(), Inconsistent> {
        let Some(first) = pushes.first() else { return Ok(()) };
        let beyond = Beyond::new(self, pushes);
        let mut seen = HashSet::new();
        for (push, series) in pushes.iter().zip(series) {
            let families = push.families.iter().zip(series.iter().map(Vec::as_slice));
            check::beside(families.clone(), push.key.labels(), &beyond, self.hash())?;
            for (family, series) in families {
                if let Some(metric) = family.metrics.first()
                    && !series.iter().all(|series| seen.insert(*series))
                {
                    return Err(check::duplicate(&family.name, metric));
                }
            }
        }
        // Names and types, among one another.
        let all = pushes.iter().flat_map(|push| &push.families).map(|family| (family, &[][..]));
        check::beside(all, first.key.labels(), &beyond, self.hash())
    }
}

/// What is exposed by other groups than those that are pushed to.
struct Beyond<'a> {
    index: &'a Index,
    slots: HashSet<Slot>,
    /// How many of the groups that are pushed to expose a family of a name.
    families: HashMap<Arc<str>, usize>,
}

impl<'a> Beyond<'a> {
    fn new(state: &'a State, pushes: &[Push]) -> Self {
        let slots: HashSet<_> =
            pushes.iter().filter_map(|push| state.slots.get(&push.key).copied()).collect();
        let mut families: HashMap<Arc<str>, usize> = HashMap::new();
        for stored in slots.iter().flat_map(|slot| state.snapshot.group(*slot).families()) {
            if stored.aside().is_none() {
                *families.entry(stored.head.name.clone()).or_default() += 1;
            }
        }
        Self { index: &state.index, slots, families }
    }
}

impl Exposed for Beyond<'_> {
    fn family(&self, escaped: &str) -> Option<(&str, MetricType)> {
        let (name, kind, groups) = self.index.family(escaped)?;
        (groups > self.families.get(name).copied().unwrap_or_default()).then_some((name, kind))
    }

    fn own(&self, name: &str) -> Option<MetricType> {
        self.index.own(name)
    }

    fn has_series(&self, fingerprint: Fingerprint) -> bool {
        self.index.owner(fingerprint).is_some_and(|owner| !self.slots.contains(&owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::series::SeriesHash;
    use crate::exposition::{Compression, Format, Validation, text};
    use crate::grouping::GroupingKey;
    use crate::store::expose::expose;
    use crate::store::{Change, PushMode, Rules, Settings, UnixNanos};

    fn state_with(quarantine: bool) -> State {
        let rules = Rules { quarantine, groups_max: 4, failed_groups_max: 4 };
        State::new(Settings::new(HashMap::new(), rules), SeriesHash::default())
    }

    fn push(labels: &[(&str, &str)], body: &str) -> Push {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        let key = GroupingKey::new("x", labels.iter().copied());
        Push::new(key, families, PushMode::ReplaceGroup, UnixNanos(1_000_000_000))
    }

    fn together(state: &mut State, pushes: &[(&str, &str)]) -> Result<(), String> {
        let pushes = pushes.iter().map(|(zone, body)| push(&[("zone", zone)], body)).collect();
        state.make(Change::Together(pushes)).map_err(|error| error.to_string())
    }

    fn samples(state: &State) -> Vec<String> {
        let pieces = expose(&state.snapshot(), &[], Format::DEFAULT, Compression::Identity);
        let text = String::from_utf8(pieces.concat()).expect("text is UTF-8");
        let is_sample = |line: &&str| !line.starts_with('#') && !line.starts_with("push_");
        text.lines().filter(is_sample).map(|line| line.replace("instance=\"\",job=\"x\",", "")).collect()
    }

    #[test]
    fn all_groups_are_replaced_or_none() {
        let mut state = state_with(false);
        together(&mut state, &[("a", "# TYPE m gauge\nm 1\nn 1\n"), ("b", "# TYPE m gauge\nm 2\n")])
            .expect("good");
        assert_eq!(samples(&state), [r#"m{zone="a"} 1"#, r#"m{zone="b"} 2"#, r#"n{zone="a"} 1"#]);
        // The type changes in both at once, and a family is nobody's any more.
        let counters = [("a", "# TYPE m counter\nm 3\n"), ("b", "# TYPE m counter\nm 4\n")];
        together(&mut state, &counters).expect("good");
        let expected = [r#"m{zone="a"} 3"#, r#"m{zone="b"} 4"#];
        assert_eq!(samples(&state), expected);
        for (bad, problem) in [
            (
                &[("a", "m 5\n"), ("b", "m 5\nm 6\n")][..],
                "collected before with the same name and label values",
            ),
            (&[("a", "# TYPE m gauge\nm 5\n")], "is not a COUNTER"),
            (&[("a", "# TYPE k gauge\nk 5\n"), ("b", "# TYPE k counter\nk 5\n")], "is not a GAUGE"),
            (&[("a", "k 5 7\n"), ("c", "k 5\n")], "must not have timestamps"),
            (&[("c", "k 5\n"), ("d", "k 5\n"), ("e", "k 5\n")], "groups already"),
        ] {
            let error = together(&mut state, bad).expect_err(problem);
            assert!(error.contains(problem), "{error}");
            assert_eq!(samples(&state), expected, "{problem}");
        }
        let failed = state.snapshot().groups().filter(|group| !group.last_push_successful()).count();
        assert!(failed > 0, "the failure is noted");
        together(&mut state, &counters).expect("nothing of a refused push is in the index");
    }

    #[test]
    fn groups_do_not_share_series() {
        let mut state = state_with(false);
        let whole = |label: &str| {
            vec![push(&[], &format!("m{{zone=\"{label}\"}} 1\n")), push(&[("zone", "a")], "m 1\n")]
        };
        let error =
            state.make(Change::Together(whole("a"))).expect_err("one series in two groups").to_string();
        assert!(error.contains("collected before"), "{error}");
        state.make(Change::Together(whole("b"))).expect("good");
        // Another group has it already.
        let error = state
            .make(Change::Together(vec![push(&[("zone", "b")], "m 1\n")]))
            .expect_err("taken")
            .to_string();
        assert!(error.contains("collected before"), "{error}");
        let twin = state.make(Change::Together(vec![push(&[("zone", "a"), ("rack", "")], "k 1\n")]));
        assert!(twin.expect_err("the same to Prometheus").to_string().contains("collected before"));
    }

    #[test]
    fn a_twin_among_groups_is_noted_as_it_is_recorded() {
        let mut state = state_with(false);
        together(&mut state, &[("a", "m 1\n"), ("b", "m 1\n")]).expect("good");
        let twin = push(&[("zone", "a"), ("rack", "")], "k 1\n");
        state.make(Change::Together(vec![twin, push(&[("zone", "b")], "k 1\n")])).expect_err("a twin");
        let snapshot = state.snapshot();
        let is_refused = |zone: &str| {
            let group = snapshot.get(&GroupingKey::new("x", [("zone", zone)])).expect("it is there");
            !group.last_push_successful() || group.failed_at > UnixNanos(0)
        };
        assert_eq!(["a", "b"].map(is_refused), [false, true]);
    }

    #[test]
    fn where_contradictions_are_kept_aside_all_groups_are_taken() {
        let mut state = state_with(true);
        together(&mut state, &[("a", "# TYPE m gauge\nm 1\n"), ("b", "# TYPE m counter\nm 2\n")])
            .expect("taken");
        assert_eq!((samples(&state).len(), state.snapshot().aside), (1, 1));
        together(&mut state, &[("a", "# TYPE m gauge\nm 1\n"), ("b", "# TYPE m gauge\nm 2\n")])
            .expect("taken");
        assert_eq!((samples(&state).len(), state.snapshot().aside), (2, 0));
    }
}
