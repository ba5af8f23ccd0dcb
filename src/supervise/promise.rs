//! What the pushes of a run promise: the next push while it runs, the next run when it has ended. Pure.

use std::time::Duration;

use super::outcome::Outcome;
use super::report::{End, Facts, OtherRun};
use crate::config::RunConfig;
use crate::deliver::{About, Expect, Promise, RunRecord};
use crate::run::RunOutcome;

/// A push of a run's progress that does not come after so many intervals will not come any more.
const INTERVALS: u32 = 3;

/// What promises depend on beside the run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Time between pushes while the command runs; zero means only at start and end.
    pub push_interval: Duration,
    /// How late the next run may be heard of: it may be told to start later than it is due, too.
    pub grace: Duration,
    /// How long series stay after the last push.
    pub ttl: Option<Duration>,
}

impl Terms {
    /// As they are configured.
    pub fn of(config: &RunConfig) -> Self {
        let (delivery, control) = (&config.delivery, &config.control);
        let lock_wait = control.lock.as_ref().map_or(Duration::ZERO, |_| control.lock_wait);
        // Not only this host's part of the jitter: the next run may be on another one.
        let grace = config.timetable.grace.saturating_add(control.jitter).saturating_add(lock_wait);
        Self { push_interval: delivery.push_interval, grace, ttl: delivery.ttl }
    }
}

/// What a push of a run as it is now promises.
pub fn promise(facts: &Facts, run_id: &str, terms: &Terms) -> Promise {
    let expect = match (facts.about(), facts.next_run) {
        // The run that goes on knows better; if none does, the next one is the first that is due.
        (About::Skip, next) if next.is_none() || facts.other_run != OtherRun::Absent => Expect::Keep,
        (About::Progress, _) if terms.push_interval.is_zero() => Expect::Withdrawn,
        (About::Progress, _) => Expect::Within(terms.push_interval.saturating_mul(INTERVALS)),
        (About::Success | About::Failure | About::Skip, Some(next)) => {
            let grace = i64::try_from(terms.grace.as_micros()).unwrap_or(i64::MAX);
            Expect::At(next.timestamp_micros().saturating_add(grace))
        }
        (About::Success | About::Failure | About::Skip, None) => Expect::Withdrawn,
    };
    let run = facts.end.as_ref().map(|end| match record(run_id, end) {
        run if facts.is_skipped() => RunRecord { outcome: RunOutcome::Skipped, ..run },
        run => run,
    });
    let ongoing = run.is_none().then(|| run_id.to_owned());
    Promise { expect, ttl: terms.ttl, run, ongoing, earlier: Vec::new() }
}

fn record(run_id: &str, end: &End) -> RunRecord {
    let duration = Duration::try_from_secs_f64(end.duration_seconds).unwrap_or_default();
    RunRecord {
        id: run_id.to_owned(),
        end_micros: end.at.timestamp_micros(),
        ended: Some(end.steady_at),
        duration_micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        exit_code: end.outcome.exit_code(),
        outcome: outcome(end),
    }
}

fn outcome(end: &End) -> RunOutcome {
    match end.outcome {
        Outcome::Skipped => RunOutcome::Skipped,
        _ if end.success => RunOutcome::Success,
        Outcome::TimedOut(_) => RunOutcome::Timeout,
        _ if end.oom_killed => RunOutcome::Oom,
        Outcome::Killed(_) | Outcome::Cancelled(_) => RunOutcome::Signal,
        Outcome::Exited(_) | Outcome::CannotExecute | Outcome::NotFound => RunOutcome::Failure,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use chrono::{DateTime, Utc};

    use super::super::reap::Usage;
    use super::*;

    const TERMS: Terms = Terms { push_interval: Duration::from_secs(15), grace: Duration::ZERO, ttl: None };

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn end(outcome: Outcome) -> End {
        let success = outcome == Outcome::Exited(0);
        let usage = Usage::default();
        let (at, steady_at) = (time(60), Instant::now());
        End { at, steady_at, duration_seconds: 1.25, outcome, success, oom_killed: false, usage }
    }

    fn facts(end: Option<End>, next_run: Option<DateTime<Utc>>) -> Facts {
        Facts {
            start: time(0),
            timeout: None,
            attempts: 1,
            lost_run: None,
            other_run: OtherRun::Unknown,
            next_run,
            end,
        }
    }

    #[test]
    fn each_kind_of_push_has_its_promise() {
        let second = Duration::from_secs(1);
        let (on, off) = (TERMS, Terms { push_interval: Duration::ZERO, ..TERMS });
        let late = Terms { grace: 30 * second, ..TERMS };
        let forever = Terms { grace: Duration::MAX, push_interval: Duration::MAX, ..TERMS };
        let (success, failure) = (Some(end(Outcome::Exited(0))), Some(end(Outcome::Killed(9))));
        let skip = Some(end(Outcome::Skipped));
        let next = Some(time(3600));
        for (end, next, terms, expect) in [
            (None, None, on, Expect::Within(45 * second)),
            (None, next, on, Expect::Within(45 * second)),
            (None, next, off, Expect::Withdrawn),
            (None, next, forever, Expect::Within(Duration::MAX)),
            (success, None, on, Expect::Withdrawn),
            (success, next, on, Expect::At(3_600_000_000)),
            (failure, next, late, Expect::At(3_630_000_000)),
            (failure, next, off, Expect::At(3_600_000_000)),
            (failure, next, forever, Expect::At(i64::MAX)),
            (skip, None, on, Expect::Keep),
            (skip, next, late, Expect::Keep),
        ] {
            let made = promise(&facts(end, next), "0a", &terms);
            assert_eq!(made.expect, expect, "{end:?} {next:?} {terms:?}");
            assert_eq!((made.ttl, made.earlier.len()), (None, 0));
            assert_eq!(made.run.is_some(), end.is_some());
        }
        let alone = |next| Facts { other_run: OtherRun::Absent, ..facts(skip, next) };
        assert_eq!(promise(&alone(next), "0a", &late).expect, Expect::At(3_630_000_000));
        assert_eq!(promise(&alone(None), "0a", &late).expect, Expect::Keep);
        // Given up while it waited: for the sake of another run that is as if it had been skipped.
        let cancelled = Some(end(Outcome::Cancelled(15)));
        for (other_run, attempts, expect, outcome) in [
            (OtherRun::GoesOn, 0, Expect::Keep, RunOutcome::Skipped),
            (OtherRun::GoesOn, 1, Expect::At(3_600_000_000), RunOutcome::Signal),
            (OtherRun::Absent, 0, Expect::At(3_600_000_000), RunOutcome::Signal),
            (OtherRun::Unknown, 0, Expect::At(3_600_000_000), RunOutcome::Signal),
        ] {
            let made = promise(&Facts { attempts, other_run, ..facts(cancelled, next) }, "0a", &on);
            let run = made.run.expect("it has ended");
            assert_eq!((made.expect, run.outcome, run.exit_code), (expect, outcome, 143), "{other_run:?}");
        }
        for ttl in [Duration::ZERO, second] {
            let terms = Terms { ttl: Some(ttl), ..TERMS };
            for end in [None, success, failure, skip] {
                assert_eq!(promise(&facts(end, None), "0a", &terms).ttl, Some(ttl));
            }
        }
    }

    #[test]
    fn runs_are_counted_by_what_ended_them() {
        let plain = |outcome| end(outcome);
        let oom = |outcome| End { oom_killed: true, ..end(outcome) };
        let good = |outcome| End { success: true, ..end(outcome) };
        for (end, outcome, exit_code) in [
            (plain(Outcome::Exited(0)), RunOutcome::Success, 0),
            (good(Outcome::Exited(3)), RunOutcome::Success, 3),
            (good(Outcome::Killed(15)), RunOutcome::Success, 143),
            (plain(Outcome::Exited(3)), RunOutcome::Failure, 3),
            (plain(Outcome::NotFound), RunOutcome::Failure, 127),
            (plain(Outcome::CannotExecute), RunOutcome::Failure, 126),
            (plain(Outcome::TimedOut(15)), RunOutcome::Timeout, 124),
            (oom(Outcome::TimedOut(9)), RunOutcome::Timeout, 124),
            (oom(Outcome::Killed(9)), RunOutcome::Oom, 137),
            (oom(Outcome::Exited(137)), RunOutcome::Oom, 137),
            (plain(Outcome::Killed(9)), RunOutcome::Signal, 137),
            (plain(Outcome::Cancelled(15)), RunOutcome::Signal, 143),
            (plain(Outcome::Skipped), RunOutcome::Skipped, 0),
        ] {
            let run = promise(&facts(Some(end), None), "0a", &TERMS).run.expect("it has ended");
            assert_eq!((run.outcome, run.exit_code), (outcome, exit_code), "{end:?}");
            let rest = (run.id.as_str(), run.end_micros, run.duration_micros);
            assert_eq!(rest, ("0a", 60_000_000, 1_250_000));
        }
    }
}
