//! What a run does next. Pure: events and the time in, actions out.

use std::time::{Duration, Instant};

use super::signals::{Origin, Signal};

/// A run shorter than this sends only its last report.
const FIRST_REPORT_AFTER: Duration = Duration::from_millis(100);
/// How long delivery may go on after somebody has asked us to end.
const HURRIED_DELIVERY_MAX: Duration = Duration::from_secs(2);
/// How long after the deadline we stop waiting for those who deliver.
const DELIVERY_SLACK: Duration = Duration::from_millis(100);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The command has ended, or could not be started.
    Ended,
    /// The command has been stopped.
    Stopped,
    /// A signal came in.
    Signal(Signal),
    /// The last report has been delivered, or given up.
    Delivered,
    /// Time has passed.
    Tick,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pass a signal on to the command.
    Forward(i32),
    /// Stop this process until it is continued.
    Stop,
    /// Report that the run goes on.
    ReportProgress,
    /// Report how it ended, by this time.
    ReportEnd(Instant),
    /// Deliver by this time instead.
    Hurry(Instant),
    /// Leave.
    Exit,
}

/// How a run behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether the command shares our process group, so that keys on the terminal reach it without us.
    pub shares_group: bool,
    /// Time between reports while the command runs; zero for the first one only.
    pub push_interval: Duration,
    /// Total time of the last delivery.
    pub push_deadline: Duration,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    settings: Settings,
    phase: Phase,
    /// Whether we were asked to stop, and will if the command does.
    stop_asked: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Running { next_report: Option<Instant> },
    Delivering { deadline: Instant, hurried: bool },
    Over,
}

impl Run {
    /// A run whose command starts now.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            phase: Phase::Running { next_report: Some(now + FIRST_REPORT_AFTER) },
            stop_asked: false,
        }
    }

    /// When something is due if nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { next_report } => next_report,
            Phase::Delivering { deadline, .. } => Some(deadline + DELIVERY_SLACK),
            Phase::Over => None,
        }
    }

    /// Takes in what happened and tells what to do.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match (self.phase, event) {
            (Phase::Running { .. }, Event::Signal(signal)) => self.pass_on(signal),
            // Whoever waits for us sees a stopped job, as without us, and no job that goes on is held up.
            (Phase::Running { .. }, Event::Stopped) if std::mem::take(&mut self.stop_asked) => {
                vec![Action::Stop]
            }
            (Phase::Running { next_report: Some(due) }, Event::Tick) if now >= due => {
                let interval = self.settings.push_interval;
                self.phase = Phase::Running { next_report: (!interval.is_zero()).then_some(now + interval) };
                vec![Action::ReportProgress]
            }
            (Phase::Running { .. }, Event::Ended) => {
                let deadline = now + self.settings.push_deadline;
                self.phase = Phase::Delivering { deadline, hurried: false };
                vec![Action::ReportEnd(deadline)]
            }
            (Phase::Delivering { deadline, hurried }, Event::Signal(signal)) if asks_to_end(signal) => {
                if hurried {
                    return self.leave();
                }
                let deadline = deadline.min(now + HURRIED_DELIVERY_MAX);
                self.phase = Phase::Delivering { deadline, hurried: true };
                vec![Action::Hurry(deadline)]
            }
            (Phase::Delivering { .. }, Event::Signal(signal)) if stops(signal.number) => vec![Action::Stop],
            (Phase::Delivering { .. }, Event::Delivered) => self.leave(),
            (Phase::Delivering { deadline, .. }, Event::Tick) if now >= deadline + DELIVERY_SLACK => {
                self.leave()
            }
            _ => Vec::new(),
        }
    }

    fn leave(&mut self) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Exit]
    }

    fn pass_on(&mut self, signal: Signal) -> Vec<Action> {
        // SIGCHLD is about our own children, and what we sent ourselves is not for the command.
        if signal.number == libc::SIGCHLD || signal.origin == Origin::Ourselves {
            return Vec::new();
        }
        let reached_already = match signal.origin {
            // A key on the terminal, and its end, go to everybody in the group.
            Origin::Kernel if self.settings.shares_group && TERMINAL.contains(&signal.number) => true,
            // A limit that we have reached ourselves says nothing about the command.
            Origin::Kernel => [libc::SIGXCPU, libc::SIGXFSZ].contains(&signal.number),
            Origin::Ourselves | Origin::Process => false,
        };
        self.stop_asked = (self.stop_asked || stops(signal.number)) && signal.number != libc::SIGCONT;
        if reached_already { Vec::new() } else { vec![Action::Forward(signal.number)] }
    }
}

/// Signals that a terminal sends to its whole foreground group.
const TERMINAL: [i32; 8] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGHUP,
    libc::SIGCONT,
];

fn stops(number: i32) -> bool {
    [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&number)
}

fn asks_to_end(signal: Signal) -> bool {
    signal.origin != Origin::Ourselves
        && [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT].contains(&signal.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(shares_group: bool, push_interval: Duration) -> (Run, Instant) {
        let now = Instant::now();
        (Run::new(Settings { shares_group, push_interval, push_deadline: 10 * SECOND }, now), now)
    }

    fn signal(number: i32, origin: Origin) -> Event {
        Event::Signal(Signal { number, origin })
    }

    #[test]
    fn reports_are_due_at_the_start_and_in_intervals() {
        let (mut run, start) = run(false, 15 * SECOND);
        assert_eq!(run.on(Event::Tick, start), []);
        let first = start + FIRST_REPORT_AFTER;
        assert_eq!(run.wake_at(), Some(first));
        assert_eq!(run.on(Event::Tick, first), [Action::ReportProgress]);
        assert_eq!(run.wake_at(), Some(first + 15 * SECOND));
        assert_eq!(run.on(Event::Tick, first + SECOND), []);
        assert_eq!(run.on(Event::Tick, first + 16 * SECOND), [Action::ReportProgress]);
        assert_eq!(run.on(Event::Ended, first + 17 * SECOND), [Action::ReportEnd(first + 27 * SECOND)]);
        assert_eq!(run.on(Event::Tick, first + 18 * SECOND), []);
        assert_eq!(run.on(Event::Delivered, first + 18 * SECOND), [Action::Exit]);
        assert_eq!(run.wake_at(), None);
    }

    #[test]
    fn without_interval_there_is_only_the_first_report() {
        let (mut run, start) = run(false, Duration::ZERO);
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
                let (mut run, now) = run(shares_group, SECOND);
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
        let (mut run, now) = run(true, SECOND);
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
        let (mut run, start) = run(false, SECOND);
        assert_eq!(run.on(Event::Ended, start), [Action::ReportEnd(start + 10 * SECOND)]);
        assert_eq!(run.on(signal(libc::SIGUSR1, Origin::Process), start), []);
        let hurried = start + SECOND + HURRIED_DELIVERY_MAX;
        assert_eq!(run.on(signal(libc::SIGTERM, Origin::Process), start + SECOND), [Action::Hurry(hurried)]);
        assert_eq!(run.on(signal(libc::SIGINT, Origin::Kernel), start + SECOND), [Action::Exit]);
    }

    #[test]
    fn delivery_that_hangs_is_left() {
        let (mut run, start) = run(false, SECOND);
        run.on(Event::Ended, start);
        assert_eq!(run.on(Event::Tick, start + 10 * SECOND), []);
        assert_eq!(run.on(Event::Tick, start + 10 * SECOND + DELIVERY_SLACK), [Action::Exit]);
    }
}
