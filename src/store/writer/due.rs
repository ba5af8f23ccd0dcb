//! What was promised falls due.

use std::sync::Arc;

use super::State;
use crate::grouping::GroupingKey;
use crate::store::Change;
use crate::store::group::Slot;
use crate::store::own::Face;
use crate::store::promises::{Due, Promises, SteadyNanos};

impl State {
    /// When something falls due next; perhaps nothing does, but nothing does before that.
    pub(in crate::store) fn next_due(&self) -> Option<SteadyNanos> {
        self.deadlines.next()
    }

    /// Lets happen what has fallen due, in up to so many groups, fewer if more series than that go; and returns what did.
    pub(in crate::store) fn let_fall_due(
        &mut self,
        now: SteadyNanos,
        groups_max: usize,
        series_max: usize,
    ) -> Vec<Change> {
        let (mut happened, mut series) = (Vec::new(), 0);
        for _ in 0..groups_max {
            if series >= series_max {
                break;
            }
            let Some(slot) = self.deadlines.take(now) else { break };
            while let Some((at, due)) = self.promises(slot).and_then(|promises| promises.next(self.retention))
            {
                if at > now {
                    self.deadlines.arm(slot, at);
                    break;
                }
                let group = self.snapshot.group(slot);
                let key = group.key.clone();
                if due == Due::Expired {
                    series += group.series();
                }
                self.fall_due(&key, due);
                if due == Due::Forgotten {
                    happened.push(Change::Delete(vec![GroupingKey::clone(&key)]));
                    break;
                }
                happened.push(Change::Due { key, due });
            }
        }
        happened
    }

    /// Something falls due for a group, if there is one.
    pub(super) fn fall_due(&mut self, key: &GroupingKey, due: Due) {
        let Some(slot) = self.slots.get(key).copied() else { return };
        match due {
            Due::Overdue => self.change_group(slot, |group| {
                if let Some(promises) = &mut group.promises {
                    promises.is_overdue = true;
                }
            }),
            Due::Expired => self.expire(slot),
            Due::Forgotten => self.delete(key),
        }
    }

    /// The series of a group go; when it was pushed stays, and what it promised.
    fn expire(&mut self, slot: Slot) {
        let mut group = self.take_group(slot);
        let before = Face::of(&group);
        let old = self.take_out_replaced(slot, &mut group, |_| true);
        if let Some(promises) = &mut group.promises {
            promises.is_expired = true;
        }
        let after = Face::of(&group);
        self.snapshot.groups.set(slot as usize, Some(Arc::new(group)));
        self.snapshot.turn(slot, before, after);
        self.drop_empty(old.values());
        self.let_out(self.touched_by(old.keys().map(|name| &**name)));
    }

    /// Sees to it that something falls due for a group when it does.
    pub(super) fn arm(&mut self, slot: Slot) {
        let next = self.promises(slot).and_then(|promises| promises.next(self.retention));
        if let Some((at, _)) = next {
            self.is_sooner |= self.deadlines.arm(slot, at);
        }
    }

    /// Whether something falls due now before all else that was to, since this was last asked.
    pub(in crate::store) fn has_sooner(&mut self) -> bool {
        std::mem::take(&mut self.is_sooner)
    }

    fn promises(&self, slot: Slot) -> Option<&Promises> {
        self.snapshot.groups.get(slot as usize)?.as_ref()?.promises.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::exposition::series::SeriesHash;
    use crate::exposition::{Compression, Format, Validation, text};
    use crate::store::expose::expose;
    use crate::store::promises::{Moment, Wish, Wishes};
    use crate::store::{GroupState, Push, PushMode, Rules, Settings, UnixNanos};

    const SECOND: i64 = 1_000_000_000;

    fn state_with(quarantine: bool) -> State {
        let rules = Rules { quarantine, groups_max: 10, failed_groups_max: 2 };
        let retention = Duration::from_secs(100);
        State::new(Settings { retention, ..Settings::new(HashMap::new(), rules) }, SeriesHash::default())
    }

    fn key(job: &str) -> GroupingKey {
        GroupingKey::new(job, [("", ""); 0])
    }

    fn at(seconds: i64) -> Moment {
        UnixNanos(seconds * SECOND).into()
    }

    /// Pushes at a second, with a ttl and an expectation in seconds.
    fn push(state: &mut State, job: &str, body: &str, second: i64, ttl: Option<u64>, expect: Option<u64>) {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        let mut push = Push::new(key(job), families, PushMode::ReplaceFamilies, at(second));
        let length = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        push.wishes =
            Wishes { ttl: Wish::ttl(length(ttl), None), expect: Wish::expect(length(expect), None) };
        state.make(Change::Push(push)).expect("a good push");
    }

    fn exposed(state: &State) -> Vec<String> {
        let pieces = expose(&state.snapshot(), &[], Format::DEFAULT, Compression::Identity);
        let text = String::from_utf8(pieces.concat()).expect("text is UTF-8");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    fn group_state(state: &State, job: &str) -> Option<GroupState> {
        state.snapshot().get(&key(job)).map(|group| group.state())
    }

    /// Lets the clock be at a second, and returns how many things happened.
    fn pass(state: &mut State, second: i64) -> usize {
        state.let_fall_due(at(second).steady, usize::MAX, usize::MAX).len()
    }

    #[test]
    fn a_group_is_up_until_its_next_push_is_overdue() {
        let mut state = state_with(false);
        push(&mut state, "x", "m 1\n", 1, None, Some(5));
        assert_eq!(
            exposed(&state),
            [
                r#"m{instance="",job="x"} 1"#,
                r#"push_expected_time_seconds{instance="",job="x"} 6"#,
                r#"push_failure_time_seconds{instance="",job="x"} 0"#,
                r#"push_time_seconds{instance="",job="x"} 1"#,
                r#"push_up{instance="",job="x"} 1"#,
            ]
        );
        assert_eq!((pass(&mut state, 5), group_state(&state, "x")), (0, Some(GroupState::Up)));
        // A push moves the deadline on, and says nothing: what was asked holds.
        push(&mut state, "x", "m 2\n", 5, None, None);
        assert_eq!((pass(&mut state, 9), group_state(&state, "x")), (0, Some(GroupState::Up)));
        assert_eq!((pass(&mut state, 10), group_state(&state, "x")), (1, Some(GroupState::Overdue)));
        assert!(exposed(&state).contains(&r#"push_up{instance="",job="x"} 0"#.to_owned()));
        assert_eq!(pass(&mut state, 1000), 0, "it happens once");
        push(&mut state, "x", "m 3\n", 1000, None, None);
        assert_eq!(group_state(&state, "x"), Some(GroupState::Up));
        // A refused push is no push.
        state.make(Change::Failed { key: key("x"), at: UnixNanos(1001 * SECOND) }).expect("noted");
        assert_eq!(group_state(&state, "x"), Some(GroupState::Failed));
        assert!(exposed(&state).contains(&r#"push_up{instance="",job="x"} 0"#.to_owned()));
        // The clock is set back, and the push that is taken then is the last one all the same.
        push(&mut state, "x", "m 4\n", 900, None, None);
        assert_eq!(group_state(&state, "x"), Some(GroupState::Up));
        // What is taken back is not exposed.
        push(&mut state, "x", "m 4\n", 1002, None, Some(0));
        assert_eq!((group_state(&state, "x"), exposed(&state).len()), (Some(GroupState::Unpromised), 3));
        assert_eq!(pass(&mut state, 5000), 0);
    }

    #[test]
    fn series_go_and_a_tombstone_stays_for_its_time() {
        for quarantine in [false, true] {
            let mut state = state_with(quarantine);
            push(&mut state, "x", "# TYPE m counter\nm 1\n", 1, Some(10), Some(20));
            push(&mut state, "y", "other 1\n", 1, None, None);
            assert_eq!((pass(&mut state, 10), pass(&mut state, 11)), (0, 1));
            assert_eq!(group_state(&state, "x"), Some(GroupState::Expired));
            let of_x: Vec<_> = exposed(&state).into_iter().filter(|line| line.contains("\"x\"")).collect();
            assert_eq!(of_x.len(), 4, "{of_x:?}");
            assert!(of_x.iter().all(|line| line.starts_with("push_")));
            // Nothing of it is in anybody's way.
            push(&mut state, "y", "# TYPE m gauge\nm 1\n", 12, None, None);
            assert_eq!(state.snapshot().aside, 0);
            assert_eq!((pass(&mut state, 21), group_state(&state, "x")), (1, Some(GroupState::Overdue)));
            assert_eq!((pass(&mut state, 120), pass(&mut state, 121)), (0, 1));
            assert_eq!(group_state(&state, "x"), None);
            assert!(!exposed(&state).iter().any(|line| line.contains("\"x\"")));
        }
    }

    #[test]
    fn a_push_revives_a_group() {
        let mut state = state_with(false);
        for second in [0, 1000, 2000] {
            push(&mut state, "x", "m 1\nn 1\n", second, Some(10), None);
            assert_eq!((group_state(&state, "x"), exposed(&state).len()), (Some(GroupState::Unpromised), 4));
            assert_eq!((pass(&mut state, second + 10), exposed(&state).len()), (1, 2));
            // Only what is pushed comes back, and that one is a push of nothing.
            push(&mut state, "x", "", second + 11, None, None);
            assert_eq!((group_state(&state, "x"), exposed(&state).len()), (Some(GroupState::Unpromised), 2));
            push(&mut state, "x", "m 2\n", second + 12, Some(50), None);
            assert_eq!((pass(&mut state, second + 40), exposed(&state).len()), (0, 3));
        }
    }

    #[test]
    fn what_waits_aside_takes_the_place_of_what_has_gone() {
        let mut state = state_with(true);
        push(&mut state, "x", "# TYPE m counter\nm 1\n", 1, Some(10), None);
        push(&mut state, "y", "# TYPE m gauge\nm 2\n", 1, Some(50), None);
        assert_eq!(state.snapshot().aside, 1);
        pass(&mut state, 11);
        assert_eq!(state.snapshot().aside, 0);
        assert!(exposed(&state).contains(&r#"m{instance="",job="y"} 2"#.to_owned()));
        // What is aside goes in its time, too.
        push(&mut state, "x", "# TYPE m counter\nm 1\n", 12, Some(10), None);
        assert_eq!(state.snapshot().aside, 1);
        pass(&mut state, 22);
        assert_eq!(state.snapshot().aside, 0);
    }

    #[test]
    fn a_deleted_group_promises_nothing() {
        let mut state = state_with(false);
        push(&mut state, "x", "m 1\n", 1, Some(10), Some(5));
        state.make(Change::Delete(vec![key("x")])).expect("deleted");
        // Another one has its place now.
        push(&mut state, "y", "m 1\n", 2, None, None);
        assert_eq!((pass(&mut state, 1000), group_state(&state, "y")), (0, Some(GroupState::Unpromised)));
        push(&mut state, "z", "n 1\n", 2, Some(10), Some(5));
        state.make(Change::Wipe).expect("wiped");
        assert_eq!(pass(&mut state, 2000), 0);
    }

    #[test]
    fn much_that_falls_due_together_does_so_in_parts() {
        let mut state = state_with(false);
        for job in 0..10 {
            push(&mut state, &job.to_string(), "", 1, None, Some(5));
        }
        let now = at(6).steady;
        assert_eq!(state.let_fall_due(now, 4, 100).len(), 4);
        assert!(state.next_due().is_some_and(|next| next <= now));
        assert_eq!(state.let_fall_due(now, 100, 100).len(), 6);
        assert_eq!(state.next_due(), None);
        for job in 0..4 {
            push(&mut state, &job.to_string(), "m{l=\"1\"} 1\nm{l=\"2\"} 1\n", 10, Some(5), None);
        }
        let parts: Vec<_> =
            std::iter::repeat_with(|| state.let_fall_due(at(20).steady, 100, 3).len()).take(3).collect();
        // Two things each: what was expected before is expected still.
        assert_eq!(parts, [4, 4, 0], "of large groups there are fewer in a part");
    }
}
