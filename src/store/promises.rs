//! What pushes promise: that their series go (`ttl`), and that the next push comes (`expect`); and what is due when. Pure.
//!
//! A promise is a length of time from the group's last good push on. It is kept as such, so that the deadline that is exposed
//! and recorded is absolute: push time and length. What falls due while the gateway runs is measured by a clock that nobody
//! sets; a restart reckons from the absolute deadline again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::group::{Slot, UnixNanos};

/// Nanoseconds since some moment, by a clock that nobody sets (`CLOCK_MONOTONIC`, `clock_gettime(2)`). It stands still while
/// the machine sleeps: pushes that could not be taken then are not missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SteadyNanos(pub i64);

impl SteadyNanos {
    fn after(self, length: Nanos) -> Self {
        Self(self.0.saturating_add(length))
    }

    /// How long it is until then; nothing if that has passed.
    pub fn until(self, then: Self) -> Duration {
        Duration::from_nanos(u64::try_from(then.0.saturating_sub(self.0)).unwrap_or_default())
    }
}

/// A moment by two clocks: the one that everybody sees, and one that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// What is exposed and recorded.
    pub unix: UnixNanos,
    /// What deadlines are measured by.
    pub steady: SteadyNanos,
}

impl From<UnixNanos> for Moment {
    /// A moment at which both clocks show the same.
    fn from(unix: UnixNanos) -> Self {
        Self { unix, steady: SteadyNanos(unix.0) }
    }
}

impl Moment {
    /// The moment before this one at which something was recorded; what seems to be later is of a clock that was set back
    /// since, and counts as now.
    pub(super) fn at(self, recorded: UnixNanos) -> Self {
        let ago = self.unix.0.saturating_sub(recorded.0).max(0);
        Self { unix: recorded, steady: SteadyNanos(self.steady.0.saturating_sub(ago)) }
    }
}

/// A length of time in nanoseconds; 0 stands for none.
pub(super) type Nanos = i64;

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

fn length(nanos: Nanos) -> Option<Duration> {
    u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
}

/// What a push says about a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ask {
    /// Nothing: what an earlier push has asked for holds on, from this one on.
    #[default]
    Nothing,
    /// It falls due so many nanoseconds after this push.
    In(Nanos),
    /// It never falls due, whatever holds where nobody asks.
    Never,
    /// What earlier pushes have asked for holds no more.
    Withdrawn,
    /// Nothing, and this is not the push that was promised: what falls due does so when it would have.
    Stays,
}

impl Ask {
    fn of(length: Option<Duration>, zero: Self) -> Self {
        match length.map(nanos) {
            None => Self::Nothing,
            Some(0) => zero,
            Some(length) => Self::In(length),
        }
    }
}

/// What a push says about a promise, and what holds beside that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    pub(super) ask: Ask,
    /// What holds where no push of the group has asked for anything.
    pub(super) otherwise: Nanos,
    /// What is never exceeded, by what an earlier push has asked for neither; nothing at all where there is no limit.
    pub(super) most: Option<Nanos>,
}

impl Wish {
    /// When the series go: what the push asks for (0 for never), if anything; and what holds where nothing was asked.
    pub fn ttl(asked: Option<Duration>, otherwise: Option<Duration>) -> Self {
        Self { ask: Ask::of(asked, Ask::Never), otherwise: otherwise.map_or(0, nanos), most: None }
    }

    /// When the next push comes: what the push asks for (0 takes back what was asked before), if anything; and what holds where
    /// nothing was asked.
    pub fn expect(asked: Option<Duration>, otherwise: Option<Duration>) -> Self {
        Self { ask: Ask::of(asked, Ask::Withdrawn), otherwise: otherwise.map_or(0, nanos), most: None }
    }

    /// The same of a push that is not the one that was promised.
    #[must_use]
    pub fn of_another(self) -> Self {
        if self.ask == Ask::Nothing { Self { ask: Ask::Stays, ..self } } else { self }
    }

    /// The same, with a limit: it holds where nothing else does, too.
    #[must_use]
    pub fn at_most(self, most: Option<Duration>) -> Self {
        let Some(most) = most.map(nanos) else { return self };
        let ask = match self.ask {
            Ask::In(length) => Ask::In(length.min(most)),
            Ask::Never => Ask::In(most),
            other => other,
        };
        let otherwise = if self.otherwise == 0 { most } else { self.otherwise.min(most) };
        Self { ask, otherwise, most: Some(most) }
    }
}

/// Both promises of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// When the group's series go.
    pub ttl: Wish,
    /// When the next push comes.
    pub expect: Wish,
}

/// A promise as a group has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Term {
    /// 0 for ever.
    pub(super) length: Nanos,
    /// Whether a push has asked for it; then it holds on for pushes that say nothing.
    pub(super) is_asked: bool,
}

impl Term {
    fn renewed(self, wish: Wish) -> Self {
        match wish.ask {
            Ask::In(length) => Self { length, is_asked: true },
            Ask::Never => Self { length: 0, is_asked: true },
            Ask::Nothing | Ask::Stays if self.is_asked => match wish.most {
                Some(most) if self.length == 0 || self.length > most => Self { length: most, ..self },
                _ => self,
            },
            Ask::Nothing | Ask::Stays | Ask::Withdrawn => Self { length: wish.otherwise, is_asked: false },
        }
    }
}

/// What is promised for a group, and what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promises {
    pub(super) ttl: Term,
    pub(super) expect: Term,
    /// When the last push was taken.
    pub(super) since: SteadyNanos,
    /// When the last push was taken that was promised, or that promised anew.
    pub(super) expect_since: Moment,
    /// Whether the next push has not come in time.
    pub(super) is_overdue: bool,
    /// Whether the series have gone.
    pub(super) is_expired: bool,
}

/// What can fall due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The next push has not come in time.
    Overdue,
    /// The series go.
    Expired,
    /// What has stayed of the group goes.
    Forgotten,
}

impl Promises {
    /// What is promised after a push; nothing where nothing is.
    pub(super) fn renewed(old: Option<&Self>, wishes: &Wishes, at: Moment) -> Option<Self> {
        let (ttl, expect) = old.map_or_else(Default::default, |old| (old.ttl, old.expect));
        let new = Self::of(ttl.renewed(wishes.ttl), expect.renewed(wishes.expect), at)?;
        let stays = |old: &&Self| wishes.expect.ask == Ask::Stays && old.expect.length > 0;
        Some(match old.filter(stays) {
            Some(old) => {
                // Of another length, as a rule may have it since, nothing has fallen due yet.
                let is_overdue = old.is_overdue && old.expect.length == new.expect.length;
                Self { expect_since: old.expect_since, is_overdue, ..new }
            }
            None => new,
        })
    }

    /// Two promises that were made then; nothing where neither is one.
    pub(super) fn of(ttl: Term, expect: Term, at: Moment) -> Option<Self> {
        let is_any = ttl != Term::default() || expect != Term::default();
        let new =
            Self { ttl, expect, since: at.steady, expect_since: at, is_overdue: false, is_expired: false };
        is_any.then_some(new)
    }

    /// How long after the last push the series go.
    pub(super) fn ttl(&self) -> Option<Duration> {
        length(self.ttl.length)
    }

    /// How long after the last push the next one is due.
    pub(super) fn expect(&self) -> Option<Duration> {
        length(self.expect.length)
    }

    /// When the next push is due.
    pub(super) fn expected_at(&self) -> Option<UnixNanos> {
        Some(self.expect_since.unix.after(self.expect()?))
    }

    /// What falls due next, and when. What has stayed of a group whose series have gone stays for so long after that, or
    /// after the next push was due, whichever is later: an alert must have its time.
    pub(super) fn next(&self, retention: Nanos) -> Option<(SteadyNanos, Due)> {
        let after = |since: SteadyNanos, length: Nanos| (length > 0).then(|| since.after(length));
        let expired = after(self.since, self.ttl.length);
        let overdue = after(self.expect_since.steady, self.expect.length);
        let forgotten = self.is_expired.then(|| expired.max(overdue)).flatten();
        let all = [
            overdue.filter(|_| !self.is_overdue).map(|at| (at, Due::Overdue)),
            expired.filter(|_| !self.is_expired).map(|at| (at, Due::Expired)),
            forgotten.map(|at| (at.after(retention), Due::Forgotten)),
        ];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

/// When to look at which group.
///
/// A group has one entry that counts, and it is never too late. (One that is left of a group that has gone is another look at
/// whoever has its slot then.) A push mostly moves a deadline on, and then the entry stays as
/// it is: when its time has come the group is looked at, and put in again. So a push costs nothing here, mostly, and a group
/// that is pushed all the time one look for each length of its promises.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    entries: BinaryHeap<Reverse<(SteadyNanos, Slot)>>,
    /// The entry that counts, by slot.
    armed: Vec<Option<SteadyNanos>>,
}

/// Entries that do not count are thrown out when there are this many, and half of all.
const STALE_MIN: usize = 1024;

impl Deadlines {
    /// Sees to it that a group is looked at then. Returns whether that comes before all else.
    pub(super) fn arm(&mut self, slot: Slot, at: SteadyNanos) -> bool {
        let place = slot as usize;
        if self.armed.len() <= place {
            self.armed.resize(place + 1, None);
        }
        if self.armed[place].is_some_and(|armed| armed <= at) {
            return false;
        }
        self.armed[place] = Some(at);
        let is_first = self.next().is_none_or(|next| at < next);
        if self.entries.len() > 2 * self.armed.len() + STALE_MIN {
            // Of several of a group for one moment, only one is left.
            let armed = (0..).zip(&self.armed);
            self.entries = armed.filter_map(|(slot, at)| Some(Reverse(((*at)?, slot)))).collect();
        } else {
            self.entries.push(Reverse((at, slot)));
        }
        is_first
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<SteadyNanos> {
        self.entries.peek().map(|Reverse((at, _))| *at)
    }

    /// The next group whose time has come. It is not looked at again unless it is armed again.
    pub(super) fn take(&mut self, now: SteadyNanos) -> Option<Slot> {
        while self.next().is_some_and(|at| at <= now) {
            let Reverse((at, slot)) = self.entries.pop()?;
            let armed = &mut self.armed[slot as usize];
            if *armed == Some(at) {
                *armed = None;
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETENTION: Nanos = 1000;

    fn wish(ask: Ask, otherwise: Nanos) -> Wish {
        Wish { ask, otherwise, most: None }
    }

    fn at(nanos: i64) -> Moment {
        UnixNanos(nanos).into()
    }

    #[test]
    fn nothing_that_was_asked_before_exceeds_a_limit() {
        let limited = |ask| wish(ask, 0).at_most(Some(Duration::from_nanos(5)));
        let term = |asked: i64| Term { length: asked, is_asked: true }.renewed(limited(Ask::Nothing));
        assert_eq!([3, 9, 0].map(|asked| term(asked).length), [3, 5, 5]);
        for ask in [Ask::Nothing, Ask::In(7), Ask::Never, Ask::Withdrawn] {
            assert_eq!(Term::default().renewed(limited(ask)).length, 5, "{ask:?}");
        }
    }

    fn wishes(ttl: Option<Nanos>, expect: Option<Nanos>) -> Wishes {
        let ask = |length: Option<Nanos>| length.map_or(Ask::Nothing, Ask::In);
        Wishes { ttl: wish(ask(ttl), 0), expect: wish(ask(expect), 0) }
    }

    #[test]
    fn what_was_asked_holds_until_something_else_is() {
        for (asked, otherwise, expected) in [
            // What each push says.
            (&[Ask::In(5)][..], 0, (5, true)),
            (&[Ask::In(5), Ask::Nothing], 0, (5, true)),
            (&[Ask::In(5), Ask::Nothing], 9, (5, true)),
            (&[Ask::In(5), Ask::In(6)], 0, (6, true)),
            (&[Ask::In(5), Ask::Withdrawn], 0, (0, false)),
            (&[Ask::In(5), Ask::Withdrawn, Ask::Nothing], 9, (9, false)),
            (&[Ask::Never, Ask::Nothing], 9, (0, true)),
            (&[Ask::Never, Ask::Withdrawn], 9, (9, false)),
            (&[Ask::In(5), Ask::Stays], 9, (5, true)),
            (&[Ask::Stays], 9, (9, false)),
            (&[Ask::Nothing], 9, (9, false)),
            (&[Ask::Nothing], 0, (0, false)),
        ] {
            let term = asked.iter().fold(Term::default(), |term, ask| term.renewed(wish(*ask, otherwise)));
            assert_eq!((term.length, term.is_asked), expected, "{asked:?} {otherwise}");
        }
    }

    #[test]
    fn one_thing_falls_due_after_the_other() {
        for (ttl, expect, falls_due) in [
            (None, None, &[][..]),
            (None, Some(5), &[(15, Due::Overdue)][..]),
            (Some(7), None, &[(17, Due::Expired), (1017, Due::Forgotten)]),
            (Some(7), Some(5), &[(15, Due::Overdue), (17, Due::Expired), (1017, Due::Forgotten)]),
            // The series go before the next push is due, and the tombstone stays until an alert has had its time.
            (Some(7), Some(50), &[(17, Due::Expired), (60, Due::Overdue), (1060, Due::Forgotten)]),
        ] {
            let mut promises = Promises::renewed(None, &wishes(ttl, expect), at(10));
            let mut seen = Vec::new();
            while let Some((at, due)) = promises.and_then(|promises| promises.next(RETENTION)) {
                seen.push((at.0, due));
                match (due, &mut promises) {
                    (Due::Overdue, Some(promises)) => promises.is_overdue = true,
                    (Due::Expired, Some(promises)) => promises.is_expired = true,
                    (_, promises) => *promises = None,
                }
            }
            assert_eq!(seen, falls_due, "{ttl:?} {expect:?}");
        }
    }

    #[test]
    fn a_push_that_was_not_promised_moves_nothing() {
        let next = |promises: &Option<Promises>| promises.and_then(|promises| promises.next(RETENTION));
        let another = Wishes { expect: wish(Ask::Nothing, 0).of_another(), ..Wishes::default() };
        let first = Promises::renewed(None, &wishes(Some(50), Some(5)), at(10));
        let mut second = Promises::renewed(first.as_ref(), &another, at(12));
        assert_eq!(next(&second), Some((SteadyNanos(15), Due::Overdue)));
        assert_eq!(second.and_then(|promises| promises.expected_at()), Some(UnixNanos(15)));
        second.iter_mut().for_each(|promises| promises.is_overdue = true);
        let third = Promises::renewed(second.as_ref(), &another, at(20));
        assert_eq!(
            third.map(|promises| promises.is_overdue),
            Some(true),
            "that is no push that was promised"
        );
        assert_eq!(next(&third), Some((SteadyNanos(70), Due::Expired)), "the series are as new as the push");
        let asks = Wishes { expect: wish(Ask::In(9), 0).of_another(), ..Wishes::default() };
        let fourth = Promises::renewed(third.as_ref(), &asks, at(30));
        assert_eq!(next(&fourth), Some((SteadyNanos(39), Due::Overdue)), "it promises itself");
        let by_rule = Wishes { expect: wish(Ask::Nothing, 4).of_another(), ..Wishes::default() };
        let begun = Promises::renewed(None, &by_rule, at(10));
        assert_eq!(next(&begun), Some((SteadyNanos(14), Due::Overdue)), "something has to begin it");
    }

    /// Else everybody would go through them whenever something is armed.
    #[test]
    fn entries_that_are_there_twice_are_thrown_out() {
        let (mut deadlines, far) = (Deadlines::default(), SteadyNanos(i64::MAX));
        deadlines.arm(1, far);
        for now in (0..).map(SteadyNanos) {
            deadlines.arm(0, now);
            assert_eq!(deadlines.take(now), Some(0));
            deadlines.arm(0, far);
            if deadlines.entries.len() > 2 * 2 + STALE_MIN {
                break;
            }
        }
        let soon = SteadyNanos(i64::MAX - 1);
        assert!(deadlines.arm(1, soon), "it comes before the others");
        assert_eq!((deadlines.entries.len(), deadlines.next()), (2, Some(soon)));
    }

    #[test]
    fn a_recorded_moment_lies_as_long_ago_as_the_clock_says() {
        let now = Moment { unix: UnixNanos(1000), steady: SteadyNanos(50) };
        assert_eq!(now.at(UnixNanos(900)).steady, SteadyNanos(-50));
        assert_eq!(now.at(UnixNanos(2000)), Moment { unix: UnixNanos(2000), steady: SteadyNanos(50) });
    }

    proptest! {
        /// Each group is looked at when something of it falls due, however its deadlines move, and few entries are kept.
        #[test]
        fn nothing_is_missed(pushes in prop::collection::vec((0..4_u32, 0..30_i64, 1..40_i64), 1..3000)) {
            let mut deadlines = Deadlines::default();
            let mut groups: [Option<Promises>; 4] = [None; 4];
            let mut now = 0;
            for (slot, pause, expect) in pushes {
                now += pause;
                while let Some(slot) = deadlines.take(SteadyNanos(now)) {
                    let Some(promises) = &mut groups[slot as usize] else { continue };
                    match promises.next(RETENTION) {
                        Some((at, _)) if at.0 > now => drop(deadlines.arm(slot, at)),
                        _ => promises.is_overdue = true,
                    }
                }
                for promises in groups.iter().flatten() {
                    prop_assert_eq!(promises.is_overdue, promises.since.0 + promises.expect.length <= now);
                }
                let group = &mut groups[slot as usize];
                *group = Promises::renewed(group.as_ref(), &wishes(None, Some(expect)), at(now));
                if let Some((at, _)) = group.and_then(|promises| promises.next(RETENTION)) {
                    deadlines.arm(slot, at);
                }
                prop_assert!(deadlines.entries.len() <= 2 * 4 + STALE_MIN + 1);
            }
        }
    }
}
