//! What a run does next. Pure: events and the time in, actions out.
//!
//! A run is delayed, waits for its lock, runs its command, ends what that leaves behind, pauses and runs it again, and at
//! last delivers:
//!
//! ```text
//! Delayed ─► Locking ─► Running ─► Clearing ─► Delivering ─► Over
//!                          ▲           │
//!                          └─ Pausing ◄┘
//! ```

use std::time::{Duration, Instant};

use super::signals::{Origin, Signal};

/// A run shorter than this sends only its last report.
pub const FIRST_REPORT_AFTER: Duration = Duration::from_millis(100);
/// How long delivery may go on after somebody has asked us to end.
const HURRIED_DELIVERY_MAX: Duration = Duration::from_secs(2);
/// How long after the deadline we stop waiting for those who deliver.
const DELIVERY_SLACK: Duration = Duration::from_millis(160);
/// How often a lock that is held is asked for.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// How often we look whether orphans are gone.
const ORPHANS_POLL: Duration = Duration::from_millis(20);
/// Orphans have this time to end where no other is set.
const ORPHANS_GRACE: Duration = Duration::from_secs(10);
/// Killed orphans that are still there after this time cannot be killed.
const KILLED_ORPHANS_MAX: Duration = Duration::from_secs(1);
/// A command that is asked to stop does so in this time, or does not.
const STOP_MAX: Duration = Duration::from_secs(5);
/// The longest pause between attempts.
const RETRY_DELAY_MAX: Duration = Duration::from_hours(1);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The lock is ours.
    LockTaken,
    /// Another run has the lock.
    LockBusy,
    /// The command has ended, or could not be started.
    Ended(Ending),
    /// The command has been stopped.
    Stopped,
    /// Nothing is left of what the command had started.
    OrphansGone,
    /// A signal came in.
    Signal(Signal),
    /// The last report has been delivered, or given up.
    Delivered,
    /// What was kept of the command's output has been shown, if there is something to show.
    Shown,
    /// Time has passed.
    Tick,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Whether that is a success.
    pub success: bool,
    /// Whether the command ran at all.
    pub was_run: bool,
    /// Whether processes that it started are left, and are ours.
    pub orphans: bool,
    /// The signal that killed it, if one did.
    pub killed_by: Option<i32>,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask for the lock.
    TryLock,
    /// Start the command.
    Start,
    /// Pass a signal on to the command.
    Forward(i32),
    /// End the command and what it has started with this signal.
    End(i32),
    /// Send a signal to what the command has left behind; SIGTERM once to each.
    SignalOrphans(i32),
    /// Stop this process until it is continued.
    Stop,
    /// Report that the run goes on.
    ReportProgress,
    /// Report how it ended, by this time.
    Conclude(Conclusion, Instant),
    /// Deliver by this time instead.
    Hurry(Instant),
    /// Leave.
    Exit,
}

/// What the end of a run means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// What the command's end means.
    AsEnded,
    /// The command was ended because its time was up.
    TimedOut,
    /// This signal ended the run while no command ran.
    Cancelled(i32),
    /// Another run was going on.
    Skipped,
}

/// How a run behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether the command shares our process group, so that keys on the terminal reach it without us.
    pub shares_group: bool,
    /// How long the start is delayed.
    pub start_delay: Duration,
    /// How long the lock is waited for, if there is one.
    pub lock_wait: Option<Duration>,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// What ends it then.
    pub timeout_signal: i32,
    /// How long after that it is killed, if ever.
    pub kill_after: Option<Duration>,
    /// How long the command may take to end when somebody outside has asked for it; `None` for as long as it likes.
    pub termination_grace: Option<Duration>,
    /// Whether what the command leaves behind is ended with it.
    pub ends_orphans: bool,
    /// How often the command is started again after a failure.
    pub retries: u32,
    /// The first pause before that.
    pub retry_delay: Duration,
    /// From 0 to 1, another number in each process.
    pub random: f64,
    /// Time between reports while the command runs; zero for the first one only.
    pub push_interval: Duration,
    /// Total time of the last delivery.
    pub push_deadline: Duration,
    /// Whether a stop is for us while no command runs: nobody would continue us where nobody watches our group.
    pub stops_alone: bool,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    settings: Settings,
    phase: Phase,
    attempts: u32,
    next_report: Option<Instant>,
    /// Whether somebody asked the run to end: then nothing is started again.
    asked_to_end: bool,
    /// The last hangup or quit: that is no such wish, unless the command dies of it.
    passed_on: Option<i32>,
    /// When we were asked to stop, and will if the command does.
    stop_asked: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Delayed { until: Instant },
    Locking { give_up: Instant, next_try: Instant },
    Running(Limit),
    Clearing { kill_at: Instant, next_look: Instant, ending: Ending, timed_out: bool },
    Pausing { until: Instant },
    Delivering { deadline: Instant, hurried: bool, delivered: bool, shown: bool },
    Over,
}

/// The time limit of an attempt.
#[derive(Debug, Clone, Copy)]
struct Limit {
    timed_out: bool,
    killed: bool,
    next: Option<(Instant, Step)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    TimeOut,
    Kill,
}

impl Run {
    /// A run, and what it does first.
    pub fn begin(settings: Settings, now: Instant) -> (Self, Vec<Action>) {
        let mut run = Self {
            settings,
            phase: Phase::Over,
            attempts: 0,
            next_report: None,
            asked_to_end: false,
            passed_on: None,
            stop_asked: None,
        };
        let actions = if settings.start_delay.is_zero() {
            run.lock(now)
        } else {
            run.phase = Phase::Delayed { until: now + settings.start_delay };
            Vec::new()
        };
        (run, actions)
    }

    /// Whether what the command leaves behind is ended now.
    pub fn is_clearing(&self) -> bool {
        matches!(self.phase, Phase::Clearing { .. })
    }

    /// Whether what the command leaves behind would be ended if it ended now.
    pub fn looks_after_orphans(&self) -> bool {
        let timed_out = matches!(self.phase, Phase::Running(Limit { timed_out: true, .. }));
        timed_out || self.settings.ends_orphans
    }

    /// When something is due if nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        let due = match self.phase {
            Phase::Delayed { until } | Phase::Pausing { until } => Some(until),
            Phase::Locking { next_try, .. } => Some(next_try),
            Phase::Running(limit) => limit.next.map(|(at, _)| at),
            Phase::Clearing { next_look, .. } => Some(next_look),
            Phase::Delivering { deadline, hurried, delivered, .. } => {
                (hurried || !delivered).then_some(deadline + DELIVERY_SLACK)
            }
            Phase::Over => None,
        };
        let report = self.next_report.filter(|_| self.is_going_on());
        [due, report].into_iter().flatten().min()
    }

    fn is_going_on(&self) -> bool {
        matches!(self.phase, Phase::Running(_) | Phase::Clearing { .. } | Phase::Pausing { .. })
    }

    /// Takes in what happened and tells what to do.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Signal(signal) => self.on_signal(signal, now),
            Event::Tick => self.on_tick(now),
            Event::LockTaken => self.start(now),
            Event::LockBusy => self.on_busy(now),
            Event::Ended(ending) => self.on_end(ending, now),
            // Whoever waits for us sees a stopped job, as without us, and no job that goes on is held up.
            Event::Stopped => match self.stop_asked.take() {
                Some(asked) if now < asked + STOP_MAX => vec![Action::Stop],
                _ => Vec::new(),
            },
            Event::OrphansGone => match self.phase {
                Phase::Clearing { ending, timed_out, .. } => self.settle(ending, timed_out, now),
                _ => Vec::new(),
            },
            Event::Delivered => self.on_delivery(true, false),
            Event::Shown => self.on_delivery(false, true),
        }
    }

    fn lock(&mut self, now: Instant) -> Vec<Action> {
        match self.settings.lock_wait {
            None => self.start(now),
            Some(wait) => {
                self.phase = Phase::Locking { give_up: now + wait, next_try: now + LOCK_POLL };
                vec![Action::TryLock]
            }
        }
    }

    fn start(&mut self, now: Instant) -> Vec<Action> {
        self.attempts += 1;
        if self.attempts == 1 {
            self.next_report = Some(now + FIRST_REPORT_AFTER);
        }
        let next = self.settings.timeout.map(|timeout| (now + timeout, Step::TimeOut));
        self.phase = Phase::Running(Limit { timed_out: false, killed: false, next });
        vec![Action::Start]
    }

    fn on_busy(&mut self, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Locking { give_up, .. } if now < give_up => {
                self.phase = Phase::Locking { give_up, next_try: give_up.min(now + LOCK_POLL) };
                Vec::new()
            }
            _ => self.conclude(Conclusion::Skipped, now),
        }
    }

    fn on_end(&mut self, ending: Ending, now: Instant) -> Vec<Action> {
        let Phase::Running(limit) = self.phase else { return Vec::new() };
        self.asked_to_end |= ending.killed_by.is_some() && ending.killed_by == self.passed_on;
        let kill_after = match self.settings.kill_after {
            None if self.settings.ends_orphans => Some(ORPHANS_GRACE),
            after => after,
        };
        let clears = ending.orphans && (self.settings.ends_orphans || limit.timed_out);
        let Some(after) = kill_after.filter(|_| clears) else {
            let mut actions = self.settle(ending, limit.timed_out, now);
            if clears {
                // Asked to end, but never killed, and so not waited for.
                actions.insert(0, Action::SignalOrphans(libc::SIGTERM));
            }
            return actions;
        };
        let kill_at = match limit.next {
            _ if limit.killed => now,
            Some((at, Step::Kill)) => at,
            _ => now + after,
        };
        let next_look = now + ORPHANS_POLL;
        self.phase = Phase::Clearing { kill_at, next_look, ending, timed_out: limit.timed_out };
        vec![Action::SignalOrphans(libc::SIGTERM)]
    }

    /// An attempt is over, with all that it started: what does that mean for the run?
    fn settle(&mut self, ending: Ending, timed_out: bool, now: Instant) -> Vec<Action> {
        let failed = timed_out || !ending.success;
        if failed && ending.was_run && !self.asked_to_end && self.attempts <= self.settings.retries {
            let delay = self.retry_delay();
            if delay.is_zero() {
                return self.start(now);
            }
            self.phase = Phase::Pausing { until: now + delay };
            return Vec::new();
        }
        self.conclude(if timed_out { Conclusion::TimedOut } else { Conclusion::AsEnded }, now)
    }

    /// Doubling, each shortened at random by up to a half, so that jobs that failed together do not come back together.
    fn retry_delay(&self) -> Duration {
        let doubled = self.settings.retry_delay.saturating_mul(1_u32 << (self.attempts - 1).min(20));
        let random = (self.settings.random * f64::from(self.attempts)).fract();
        doubled.min(RETRY_DELAY_MAX.max(self.settings.retry_delay)).mul_f64(1.0 - random / 2.0)
    }

    fn conclude(&mut self, conclusion: Conclusion, now: Instant) -> Vec<Action> {
        let deadline = now + self.settings.push_deadline;
        self.phase = Phase::Delivering { deadline, hurried: false, delivered: false, shown: false };
        vec![Action::Conclude(conclusion, deadline)]
    }

    fn on_delivery(&mut self, now_delivered: bool, now_shown: bool) -> Vec<Action> {
        let Phase::Delivering { deadline, hurried, delivered, shown } = self.phase else { return Vec::new() };
        let (delivered, shown) = (delivered || now_delivered, shown || now_shown);
        if delivered && shown {
            return self.leave();
        }
        self.phase = Phase::Delivering { deadline, hurried, delivered, shown };
        Vec::new()
    }

    fn leave(&mut self) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Exit]
    }

    fn on_tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(due) = self.next_report.filter(|_| self.is_going_on())
            && now >= due
        {
            let interval = self.settings.push_interval;
            self.next_report = (!interval.is_zero()).then_some(now + interval);
            actions.push(Action::ReportProgress);
        }
        actions.extend(match self.phase {
            Phase::Delayed { until } if now >= until => self.lock(now),
            Phase::Locking { give_up, next_try } if now >= next_try => {
                self.phase = Phase::Locking { give_up, next_try: now + LOCK_POLL };
                vec![Action::TryLock]
            }
            Phase::Running(limit @ Limit { next: Some((at, step)), .. }) if now >= at => {
                self.limit_reached(step, limit, now)
            }
            Phase::Clearing { kill_at, next_look, ending, timed_out } if now >= next_look => {
                self.look_after_orphans(kill_at, ending, timed_out, now)
            }
            Phase::Pausing { until } if now >= until => self.start(now),
            // Somebody wants it to end, whoever does not read what is shown.
            Phase::Delivering { deadline, hurried: true, .. } if now >= deadline + DELIVERY_SLACK => {
                self.leave()
            }
            Phase::Delivering { deadline, delivered: false, .. } if now >= deadline + DELIVERY_SLACK => {
                self.on_delivery(true, false)
            }
            _ => Vec::new(),
        });
        actions
    }

    fn limit_reached(&mut self, step: Step, limit: Limit, now: Instant) -> Vec<Action> {
        match step {
            Step::TimeOut => {
                let next = self.settings.kill_after.map(|after| (now + after, Step::Kill));
                self.phase = Phase::Running(Limit { timed_out: true, next, ..limit });
                // A stopped process does not notice before it is continued.
                vec![Action::End(self.settings.timeout_signal), Action::End(libc::SIGCONT)]
            }
            Step::Kill => {
                self.phase = Phase::Running(Limit { killed: true, next: None, ..limit });
                vec![Action::End(libc::SIGKILL)]
            }
        }
    }

    fn look_after_orphans(
        &mut self,
        kill_at: Instant,
        ending: Ending,
        timed_out: bool,
        now: Instant,
    ) -> Vec<Action> {
        if now >= kill_at + KILLED_ORPHANS_MAX {
            return self.settle(ending, timed_out, now);
        }
        self.phase = Phase::Clearing { kill_at, next_look: now + ORPHANS_POLL, ending, timed_out };
        vec![Action::SignalOrphans(if now >= kill_at { libc::SIGKILL } else { libc::SIGTERM })]
    }

    fn on_signal(&mut self, signal: Signal, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Running(limit) => {
                if signal.asks_to_end() {
                    self.asked_to_end |= signal.ends_for_good();
                    self.passed_on = Some(signal.number);
                }
                self.start_killing(limit, signal, now);
                self.pass_on(signal, now)
            }
            Phase::Delayed { .. } | Phase::Locking { .. } | Phase::Pausing { .. } if signal.asks_to_end() => {
                self.conclude(Conclusion::Cancelled(signal.number), now)
            }
            Phase::Clearing { kill_at, next_look, ending, timed_out } if signal.ends_for_good() => {
                self.asked_to_end = true;
                let kill_at = kill_at.min(now + HURRIED_DELIVERY_MAX);
                self.phase = Phase::Clearing { kill_at, next_look, ending, timed_out };
                Vec::new()
            }
            Phase::Delivering { deadline, hurried, delivered, shown } if signal.asks_to_end() => {
                if hurried {
                    return self.leave();
                }
                let deadline = deadline.min(now + HURRIED_DELIVERY_MAX);
                self.phase = Phase::Delivering { deadline, hurried: true, delivered, shown };
                vec![Action::Hurry(deadline)]
            }
            Phase::Over => Vec::new(),
            _ if signal.stops() && self.settings.stops_alone => vec![Action::Stop],
            _ => Vec::new(),
        }
    }

    /// A termination from outside has a limit too, where somebody asked for one; a second one changes nothing.
    fn start_killing(&mut self, limit: Limit, signal: Signal, now: Instant) {
        if let Some(after) = self.settings.termination_grace.filter(|_| signal.ends_for_good())
            && !limit.killed
            && !matches!(limit.next, Some((_, Step::Kill)))
        {
            self.phase = Phase::Running(Limit { next: Some((now + after, Step::Kill)), ..limit });
        }
    }

    fn pass_on(&mut self, signal: Signal, now: Instant) -> Vec<Action> {
        // SIGCHLD is about our own children, and what we sent ourselves is not for the command.
        if signal.number == libc::SIGCHLD || signal.origin == Origin::Ourselves {
            return Vec::new();
        }
        let reached_already = match signal.origin {
            // A key on the terminal, and its end, go to everybody in the group.
            Origin::Kernel if self.settings.shares_group && signal.is_a_terminals() => true,
            // A limit that we have reached ourselves says nothing about the command.
            Origin::Kernel => [libc::SIGXCPU, libc::SIGXFSZ].contains(&signal.number),
            Origin::Ourselves | Origin::Process => false,
        };
        if signal.stops() {
            self.stop_asked = Some(now);
        } else if signal.number == libc::SIGCONT {
            self.stop_asked = None;
        }
        if reached_already { Vec::new() } else { vec![Action::Forward(signal.number)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FAILED: Ending = Ending { success: false, was_run: true, orphans: false, killed_by: None };
    const SUCCEEDED: Ending = Ending { success: true, was_run: true, orphans: false, killed_by: None };

    fn settings() -> Settings {
        Settings {
            shares_group: false,
            start_delay: Duration::ZERO,
            lock_wait: None,
            timeout: None,
            timeout_signal: libc::SIGINT,
            kill_after: Some(10 * SECOND),
            termination_grace: None,
            ends_orphans: false,
            retries: 0,
            retry_delay: SECOND,
            random: 0.0,
            push_interval: 15 * SECOND,
            push_deadline: 10 * SECOND,
            stops_alone: true,
        }
    }

    /// A run whose command has been started.
    fn run(settings: Settings) -> (Run, Instant) {
        let now = Instant::now();
        let (run, actions) = Run::begin(settings, now);
        assert_eq!(actions, [Action::Start]);
        (run, now)
    }

    fn signal(number: i32, origin: Origin) -> Event {
        Event::Signal(Signal { number, origin, is_ignored: false })
    }

    fn term() -> Event {
        signal(libc::SIGTERM, Origin::Process)
    }

    fn as_ended(at: Instant) -> [Action; 1] {
        [Action::Conclude(Conclusion::AsEnded, at + 10 * SECOND)]
    }

    #[test]
    fn reports_are_due_at_the_start_and_in_intervals() {
        let (mut run, start) = run(settings());
        assert_eq!(run.on(Event::Tick, start), []);
        let first = start + FIRST_REPORT_AFTER;
        assert_eq!(run.wake_at(), Some(first));
        assert_eq!(run.on(Event::Tick, first), [Action::ReportProgress]);
        assert_eq!(run.wake_at(), Some(first + 15 * SECOND));
        assert_eq!(run.on(Event::Tick, first + SECOND), []);
        assert_eq!(run.on(Event::Tick, first + 16 * SECOND), [Action::ReportProgress]);
        let end = first + 17 * SECOND;
        assert_eq!(run.on(Event::Ended(SUCCEEDED), end), as_ended(end));
        assert_eq!(run.on(Event::Tick, end + SECOND), []);
        assert_eq!(run.on(Event::Shown, end + SECOND), []);
        assert_eq!(run.on(Event::Delivered, end + SECOND), [Action::Exit]);
        assert_eq!(run.wake_at(), None);
    }

    #[test]
    fn without_interval_there_is_only_the_first_report() {
        let (mut run, start) = run(Settings { push_interval: Duration::ZERO, ..settings() });
        assert_eq!(run.on(Event::Tick, start + SECOND), [Action::ReportProgress]);
        assert_eq!(run.wake_at(), None);
    }

    #[test]
    fn signals_are_passed_on_once() {
        use Action::Forward;
        use libc::{SIGALRM, SIGCHLD, SIGCONT, SIGINT, SIGPIPE, SIGTERM, SIGTSTP, SIGTTIN, SIGUSR1, SIGXFSZ};
        let own_group: [(i32, Origin, &[Action]); 9] = [
            (SIGTERM, Origin::Process, &[Forward(SIGTERM)]),
            (SIGUSR1, Origin::Process, &[Forward(SIGUSR1)]),
            (34, Origin::Process, &[Forward(34)]),
            (SIGCONT, Origin::Process, &[Forward(SIGCONT)]),
            (SIGTSTP, Origin::Process, &[Forward(SIGTSTP)]),
            (SIGPIPE, Origin::Process, &[Forward(SIGPIPE)]),
            (SIGPIPE, Origin::Ourselves, &[]),
            (SIGXFSZ, Origin::Kernel, &[]),
            (SIGCHLD, Origin::Kernel, &[]),
        ];
        let shared_group: [(i32, Origin, &[Action]); 6] = [
            (SIGINT, Origin::Kernel, &[]),
            (SIGINT, Origin::Process, &[Forward(SIGINT)]),
            (SIGTSTP, Origin::Kernel, &[]),
            (SIGTTIN, Origin::Kernel, &[]),
            (SIGALRM, Origin::Kernel, &[Forward(SIGALRM)]),
            (SIGTERM, Origin::Process, &[Forward(SIGTERM)]),
        ];
        for (shares_group, cases) in [(false, &own_group[..]), (true, &shared_group[..])] {
            for (number, origin, actions) in cases {
                let (mut run, now) = run(Settings { shares_group, ..settings() });
                assert_eq!(
                    run.on(signal(*number, *origin), now),
                    *actions,
                    "{number} {origin:?} {shares_group}"
                );
            }
        }
    }

    #[test]
    fn we_stop_with_the_command_if_we_were_asked_to() {
        let (mut run, now) = run(Settings { shares_group: true, ..settings() });
        assert_eq!(run.on(Event::Stopped, now), [], "somebody stopped the command alone");
        run.on(signal(libc::SIGTSTP, Origin::Kernel), now);
        assert_eq!(run.on(Event::Stopped, now), [Action::Stop]);
        assert_eq!(run.on(Event::Stopped, now), []);
        run.on(signal(libc::SIGTSTP, Origin::Kernel), now);
        run.on(signal(libc::SIGCONT, Origin::Process), now);
        assert_eq!(
            run.on(Event::Stopped, now),
            [],
            "the command did not stop, and later somebody stopped it alone"
        );
    }

    #[test]
    fn delivery_is_shortened_by_one_signal_and_ended_by_two() {
        let (mut run, start) = run(settings());
        assert_eq!(run.on(Event::Ended(SUCCEEDED), start), as_ended(start));
        assert_eq!(run.on(signal(libc::SIGUSR1, Origin::Process), start), []);
        let ignored = Signal { number: libc::SIGHUP, origin: Origin::Process, is_ignored: true };
        assert_eq!(run.on(Event::Signal(ignored), start), [], "the caller ignores it");
        let hurried = start + SECOND + HURRIED_DELIVERY_MAX;
        assert_eq!(run.on(term(), start + SECOND), [Action::Hurry(hurried)]);
        assert_eq!(run.on(signal(libc::SIGINT, Origin::Kernel), start + SECOND), [Action::Exit]);
    }

    #[test]
    fn delivery_that_hangs_is_left() {
        let (mut run, start) = run(settings());
        run.on(Event::Ended(SUCCEEDED), start);
        run.on(Event::Shown, start);
        assert_eq!(run.on(Event::Tick, start + 10 * SECOND), []);
        assert_eq!(run.on(Event::Tick, start + 10 * SECOND + DELIVERY_SLACK), [Action::Exit]);
    }

    #[test]
    fn output_is_shown_to_the_end() {
        let (mut run, start) = run(settings());
        run.on(Event::Ended(FAILED), start);
        assert_eq!(run.on(Event::Delivered, start), []);
        assert_eq!(run.wake_at(), None);
        assert_eq!(run.on(Event::Shown, start), [Action::Exit]);
    }

    #[test]
    fn time_that_is_up_ends_the_command_and_then_kills_it() {
        let (mut run, start) = run(Settings { timeout: Some(60 * SECOND), ..settings() });
        let up = start + 60 * SECOND;
        run.on(Event::Tick, start + SECOND);
        assert_eq!(
            run.on(Event::Tick, up),
            [Action::ReportProgress, Action::End(libc::SIGINT), Action::End(libc::SIGCONT)]
        );
        // Whatever comes in meanwhile does not put it off.
        assert_eq!(run.on(term(), up + 5 * SECOND), [Action::Forward(libc::SIGTERM)]);
        assert_eq!(run.wake_at(), Some(up + 10 * SECOND));
        assert_eq!(run.on(Event::Tick, up + 10 * SECOND), [Action::End(libc::SIGKILL)]);
        let end = up + 11 * SECOND;
        assert_eq!(
            run.on(Event::Ended(SUCCEEDED), end),
            [Action::Conclude(Conclusion::TimedOut, end + 10 * SECOND)]
        );
    }

    #[test]
    fn without_kill_after_nothing_is_killed() {
        let (mut run, start) = run(Settings {
            timeout: Some(SECOND),
            kill_after: None,
            push_interval: Duration::ZERO,
            ..settings()
        });
        run.on(Event::Tick, start + SECOND);
        assert_eq!(run.wake_at(), None);
    }

    #[test]
    fn what_is_left_of_a_timed_out_command_is_ended_in_the_same_time() {
        let (mut run, start) = run(Settings { timeout: Some(SECOND), ..settings() });
        run.on(Event::Tick, start + SECOND);
        let left = Ending { orphans: true, ..FAILED };
        let end = start + 2 * SECOND;
        assert_eq!(run.on(Event::Ended(left), end), [Action::SignalOrphans(libc::SIGTERM)]);
        assert_eq!(run.on(Event::Tick, end + ORPHANS_POLL), [Action::SignalOrphans(libc::SIGTERM)]);
        assert_eq!(run.on(Event::Tick, start + 11 * SECOND), [Action::SignalOrphans(libc::SIGKILL)]);
        let given_up = start + 12 * SECOND;
        assert_eq!(
            run.on(Event::Tick, given_up),
            [Action::Conclude(Conclusion::TimedOut, given_up + 10 * SECOND)]
        );
    }

    #[test]
    fn what_is_left_of_a_killed_command_is_killed_at_once_and_never_is_never() {
        let left = Ending { orphans: true, ..FAILED };
        let (mut run1, start) =
            run(Settings { timeout: Some(SECOND), kill_after: Some(SECOND), ..settings() });
        run1.on(Event::Tick, start + SECOND);
        run1.on(Event::Tick, start + 2 * SECOND);
        run1.on(Event::Ended(left), start + 2 * SECOND);
        let next = start + 2 * SECOND + ORPHANS_POLL;
        assert_eq!(run1.on(Event::Tick, next), [Action::SignalOrphans(libc::SIGKILL)]);

        let (mut run2, start) = run(Settings { timeout: Some(SECOND), kill_after: None, ..settings() });
        run2.on(Event::Tick, start + SECOND);
        let conclude = Action::Conclude(Conclusion::TimedOut, start + 11 * SECOND);
        assert_eq!(
            run2.on(Event::Ended(left), start + SECOND),
            [Action::SignalOrphans(libc::SIGTERM), conclude]
        );
    }

    #[test]
    fn a_hangup_is_a_wish_to_end_only_if_the_command_dies_of_it() {
        let retrying = Settings { retries: 5, ..settings() };
        let hangup = signal(libc::SIGHUP, Origin::Process);
        let (mut run1, start) = run(retrying);
        run1.on(hangup, start);
        assert_eq!(run1.on(Event::Ended(FAILED), start), [], "it is tried again");
        let (mut run2, start) = run(retrying);
        run2.on(hangup, start);
        let killed = Ending { killed_by: Some(libc::SIGHUP), ..FAILED };
        assert_eq!(run2.on(Event::Ended(killed), start), as_ended(start));
        let (mut run3, start) = run(Settings { termination_grace: Some(SECOND), ..settings() });
        run3.on(hangup, start);
        assert_eq!(run3.wake_at(), Some(start + FIRST_REPORT_AFTER));
    }

    #[test]
    fn a_stop_that_was_ignored_is_forgotten() {
        let (mut run, now) = run(settings());
        run.on(signal(libc::SIGTSTP, Origin::Process), now);
        assert_eq!(run.on(Event::Stopped, now + STOP_MAX), [], "somebody stopped the command alone");
    }

    #[test]
    fn who_does_not_read_what_is_shown_holds_nobody_up_who_wants_to_end() {
        let (mut run, start) = run(settings());
        run.on(Event::Ended(FAILED), start);
        run.on(Event::Delivered, start);
        run.on(term(), start);
        let end = start + HURRIED_DELIVERY_MAX + DELIVERY_SLACK;
        assert_eq!((run.wake_at(), run.on(Event::Tick, end)), (Some(end), vec![Action::Exit]));
    }

    #[test]
    fn orphans_are_ended_where_we_are_their_reaper_and_left_elsewhere() {
        let left = Ending { orphans: true, ..SUCCEEDED };
        let (mut run1, start) = run(settings());
        assert_eq!(run1.on(Event::Ended(left), start), as_ended(start));
        let (mut run2, start) = run(Settings { ends_orphans: true, ..settings() });
        assert_eq!(run2.on(Event::Ended(left), start), [Action::SignalOrphans(libc::SIGTERM)]);
        assert_eq!(run2.on(Event::OrphansGone, start + SECOND), as_ended(start + SECOND));
    }

    #[test]
    fn a_failure_is_tried_again_after_a_growing_pause() {
        let (mut run, start) = run(Settings { retries: 2, push_interval: Duration::ZERO, ..settings() });
        assert_eq!(run.on(Event::Ended(FAILED), start), []);
        assert_eq!(run.on(Event::Tick, start + SECOND), [Action::ReportProgress, Action::Start]);
        let second = start + SECOND;
        assert_eq!(run.on(Event::Ended(FAILED), second), []);
        assert_eq!(run.on(Event::Tick, second + SECOND), []);
        assert_eq!(run.on(Event::Tick, second + 2 * SECOND), [Action::Start]);
        let third = second + 2 * SECOND;
        assert_eq!(run.on(Event::Ended(FAILED), third), as_ended(third));
    }

    #[test]
    fn nothing_is_started_again_that_was_asked_to_end_or_cannot_run() {
        let retrying = Settings { retries: 5, ..settings() };
        let (mut run1, start) = run(retrying);
        run1.on(term(), start);
        assert_eq!(run1.on(Event::Ended(FAILED), start), as_ended(start));
        let (mut run2, start) = run(retrying);
        assert_eq!(run2.on(Event::Ended(Ending { was_run: false, ..FAILED }), start), as_ended(start));
        let (mut run3, start) = run(retrying);
        run3.on(Event::Ended(FAILED), start);
        assert_eq!(
            run3.on(term(), start),
            [Action::Conclude(Conclusion::Cancelled(libc::SIGTERM), start + 10 * SECOND)]
        );
        let (mut run4, start) = run(retrying);
        assert_eq!(run4.on(Event::Ended(SUCCEEDED), start), as_ended(start));
    }

    #[test]
    fn a_start_is_delayed_then_locked() {
        let now = Instant::now();
        let waiting = Settings { start_delay: SECOND, lock_wait: Some(SECOND), ..settings() };
        let (mut run, actions) = Run::begin(waiting, now);
        assert_eq!((actions, run.wake_at()), (Vec::new(), Some(now + SECOND)));
        assert_eq!(run.on(Event::Tick, now + SECOND), [Action::TryLock]);
        assert_eq!(run.on(Event::LockBusy, now + SECOND), []);
        assert_eq!(run.on(Event::Tick, now + SECOND + LOCK_POLL), [Action::TryLock]);
        assert_eq!(run.on(Event::LockTaken, now + SECOND + LOCK_POLL), [Action::Start]);

        let (mut run, _) = Run::begin(waiting, now);
        assert_eq!(
            run.on(term(), now),
            [Action::Conclude(Conclusion::Cancelled(libc::SIGTERM), now + 10 * SECOND)]
        );

        let (mut run, actions) = Run::begin(Settings { lock_wait: Some(Duration::ZERO), ..settings() }, now);
        assert_eq!(actions, [Action::TryLock]);
        assert_eq!(run.on(Event::LockBusy, now), [Action::Conclude(Conclusion::Skipped, now + 10 * SECOND)]);
    }

    #[test]
    fn a_termination_from_outside_has_a_limit_only_where_one_was_asked_for() {
        let (mut run1, start) = run(settings());
        run1.on(term(), start);
        assert_eq!(run1.wake_at(), Some(start + FIRST_REPORT_AFTER));
        let (mut run2, start) = run(Settings {
            termination_grace: Some(10 * SECOND),
            push_interval: Duration::ZERO,
            ..settings()
        });
        assert_eq!(run2.on(term(), start), [Action::Forward(libc::SIGTERM)]);
        run2.on(term(), start + SECOND);
        run2.on(Event::Tick, start + SECOND);
        assert_eq!(run2.on(Event::Tick, start + 10 * SECOND), [Action::End(libc::SIGKILL)]);
        assert_eq!(run2.on(Event::Ended(FAILED), start + 10 * SECOND), as_ended(start + 10 * SECOND));
    }
}
