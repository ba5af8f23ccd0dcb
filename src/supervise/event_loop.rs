//! Waits for signals, the command's metrics and output, deliveries and the time, tells [`Run`] of them, and does what it
//! says.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{error, info, warn};

use super::collect::Collector;
use super::evidence::Evidence;
use super::fifo::{self, Inbox};
use super::guard::Guard;
use super::lock::Lock;
use super::oom::OomKills;
use super::orphans::{self, Orphans};
use super::outcome::Outcome;
use super::output::Output;
use super::reap::{self, Change, Usage};
use super::report::Facts;
use super::reporting::{Delivery, Shower};
use super::signals::{Origin, Signals, stop_ourselves};
use super::spawn::{self, Child, SpawnError, Start, give_back_code, spawn};
use super::state::{Action, Ending, Event, Run};
use crate::config::{RunConfig, Warning};

/// Waits where there is no way to wait for what happens.
const BLIND_PAUSE: Duration = Duration::from_millis(20);

/// A run under way.
pub(super) struct Supervision<'a> {
    pub(super) run: Run,
    pub(super) config: &'a RunConfig,
    pub(super) warnings: &'a [Warning],
    pub(super) signals: &'a Signals,
    pub(super) shares_group: bool,
    pub(super) run_id: String,
    pub(super) child: Option<Child>,
    pub(super) inbox: Inbox,
    pub(super) collector: Collector,
    pub(super) output: Output,
    pub(super) lock: Option<Lock>,
    pub(super) guard: Option<Guard>,
    /// Whether what only a long run is worth has been done.
    pub(super) is_settled: bool,
    pub(super) orphans: Orphans,
    pub(super) oom: Option<OomKills>,
    pub(super) evidence: Evidence,
    pub(super) facts: Facts,
    /// When the first attempt started.
    pub(super) started: Option<Instant>,
    /// How the last attempt ended, and what all have used.
    pub(super) last: Option<(Outcome, Instant)>,
    pub(super) usage: Usage,
    pub(super) delivery: Delivery,
    /// Whether everything has arrived that this thread had to deliver itself.
    pub(super) arrived_here: Option<bool>,
    pub(super) shower: Option<Shower>,
    /// What is told when the command runs.
    pub(super) complaints: Vec<String>,
}

impl Supervision<'_> {
    /// Goes on until there is nothing left to do; `first` is what the run does first.
    pub(super) fn go(&mut self, first: Vec<Action>) {
        let mut over = self.perform(first);
        // The command runs, or waits: from here on there is time.
        self.tell_complaints();
        if self.child.is_none() && !over {
            give_back_code();
        }
        while !over {
            self.wait();
            while let Some(signal) = self.signals.next() {
                over |= self.tell(Event::Signal(signal));
            }
            // After the signals: one of them told of what is reaped now.
            over |= self.reap();
            if self.facts.end.is_none() {
                self.inbox.read(|bytes| self.collector.take(bytes));
                self.output.read();
            }
            if self.run.is_clearing() && !self.has_orphans() {
                over |= self.tell(Event::OrphansGone);
            }
            if self.is_delivered() {
                over |= self.tell(Event::Delivered);
            }
            if self.shower.as_ref().is_some_and(Shower::is_done) {
                over |= self.tell(Event::Shown);
            }
            over |= self.tell(Event::Tick);
            self.tell_complaints();
        }
    }

    /// Sees the command through when supervision has broken down, which is a fault of ours and must not become the
    /// command's: signals are passed on, and its end is waited for.
    pub(super) fn see_through(&mut self) -> Outcome {
        loop {
            if let Some(end) = &self.facts.end {
                return end.outcome;
            }
            let Some(child) = &self.child else {
                return self.last.map_or(Outcome::CannotExecute, |(outcome, _)| outcome);
            };
            // First of all: the signal that told of the end may have been taken in before.
            while let Some((pid, change)) = reap::reap() {
                if let (true, Change::Ended(outcome, _)) = (child.pid == pid, change) {
                    return outcome;
                }
            }
            while let Some(signal) = self.signals.next() {
                if signal.number != libc::SIGCHLD && signal.origin == Origin::Process {
                    let _ = child.signal(signal.number);
                }
            }
            // A command that writes must not block on a pipe that nobody reads.
            self.inbox.read(|_| ());
            self.output.read();
            std::thread::sleep(BLIND_PAUSE);
        }
    }

    fn tell_complaints(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            warn!("{warning}");
        }
        for complaint in self.complaints.drain(..) {
            warn!("{complaint}");
        }
    }

    /// Waits until something happens or is due.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.facts.end.is_none() {
            // What comes after the end is nobody's.
            let readable = self.inbox.readable().into_iter().chain(self.output.readable());
            fds.extend(readable.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        let done = self.delivery.done().into_iter().chain(self.shower.as_ref().map(Shower::done));
        fds.extend(done.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = self.run.wake_at().map_or(PollTimeout::NONE, |at| {
            // A millisecond more, so that the time has come when it is over.
            let left = at.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Such as EINVAL under a tiny limit of descriptors: then we look around now and then.
            Err(_) => std::thread::sleep(BLIND_PAUSE),
        }
    }

    /// Reaps whatever has ended; true if that was all.
    fn reap(&mut self) -> bool {
        let mut ended = None;
        while let Some((pid, change)) = reap::reap() {
            if self.child.as_ref().is_some_and(|child| child.pid == pid) {
                match change {
                    Change::Stopped => {
                        self.tell(Event::Stopped);
                    }
                    Change::Ended(outcome, usage) => {
                        self.child = None;
                        ended = Some((outcome, usage));
                    }
                }
            } else if change != Change::Stopped {
                self.orphans.forget(pid);
                if let Some(guard) = self.guard.as_mut().filter(|guard| guard.pid() == Some(pid)) {
                    guard.is_gone();
                }
            }
        }
        ended.is_some_and(|(outcome, usage)| self.attempt_ended(outcome, usage))
    }

    /// Notes how an attempt ended, and what it has written up to then; true if that was all.
    fn attempt_ended(&mut self, outcome: Outcome, usage: Usage) -> bool {
        self.last = Some((outcome, Instant::now()));
        self.usage += usage;
        self.inbox.drain(|bytes| self.collector.take(bytes));
        self.output.drain();
        let success = outcome.is_success(&self.config.control.success_codes);
        let orphans = self.run.looks_after_orphans() && self.has_orphans();
        let killed_by = Some(i32::from(outcome.term_signal())).filter(|number| *number != 0);
        self.tell(Event::Ended(Ending { success, was_run: true, orphans, killed_by }))
    }

    fn has_orphans(&self) -> bool {
        Orphans::are_there(self.guard_pid())
    }

    fn guard_pid(&self) -> Option<nix::unistd::Pid> {
        self.guard.as_ref().and_then(Guard::pid)
    }

    /// Passes an event on and does what follows; true if that is to leave.
    pub(super) fn tell(&mut self, event: Event) -> bool {
        let actions = self.run.on(event, Instant::now());
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> bool {
        let mut leave = false;
        for action in actions {
            match action {
                Action::TryLock => leave |= self.try_lock(),
                Action::Start => leave |= self.start(),
                Action::Forward(number) => self.forward(number),
                Action::End(number) => self.end_command(number),
                Action::SignalOrphans(number) => self.orphans.signal(number, self.guard_pid()),
                Action::Stop => stop_ourselves(),
                Action::ReportProgress => self.report_progress(),
                Action::Conclude(conclusion, deadline) => leave |= self.conclude(conclusion, deadline),
                Action::Hurry(deadline) => self.delivery.hurry(deadline),
                Action::Exit => leave = true,
            }
        }
        leave
    }

    fn try_lock(&mut self) -> bool {
        let name = self.config.control.lock.as_ref().expect("only a run with a lock asks for it");
        if self.lock.is_none() {
            match Lock::open(name, &self.config.key) {
                Ok(lock) => self.lock = Some(lock),
                Err((path, error)) => return self.go_without_lock(&path, &error),
            }
        }
        let taken = self.lock.as_ref().map(|lock| (lock.try_take(), lock.path().to_owned()));
        match taken {
            Some((Ok(false), _)) => self.tell(Event::LockBusy),
            Some((Err(error), path)) => self.go_without_lock(&path, &error),
            Some((Ok(true), _)) | None => self.tell(Event::LockTaken),
        }
    }

    /// A lock that does not work keeps nobody from working.
    fn go_without_lock(&mut self, path: &std::path::Path, error: &std::io::Error) -> bool {
        self.lock = None;
        self.complaints.push(format!(
            "the command runs without its lock, see --lock: {} cannot be locked: {error}",
            path.display()
        ));
        self.tell(Event::LockTaken)
    }

    /// Starts the command; true if that was all, because it could not be started.
    fn start(&mut self) -> bool {
        let is_first = self.started.is_none();
        if is_first {
            self.prepare();
        }
        let child = self.spawn().map_err(|error| self.give_way(error));
        if is_first {
            self.oom = OomKills::watch();
        }
        match child {
            Ok(child) => {
                self.facts.attempts += 1;
                if let Some(lock) = &self.lock {
                    lock.note(child.pid);
                }
                if !is_first {
                    info!(attempt = self.facts.attempts, "the command is started again");
                }
                self.child = Some(child);
                false
            }
            Err(error) => {
                let command = spawn::display(&self.config.command[0]);
                error!(command, %error, "the command could not be run");
                self.last = Some((error.outcome(), Instant::now()));
                self.tell(Event::Ended(Ending {
                    success: false,
                    was_run: false,
                    orphans: false,
                    killed_by: None,
                }))
            }
        }
    }

    /// Makes what the command needs, as little as possible: it is waiting.
    fn prepare(&mut self) {
        match Inbox::make(self.config.metrics) {
            Ok(inbox) => self.inbox = inbox,
            Err(error) => self.complaints.push(format!(
                "the command's metrics cannot be taken: no directory for a fifo, set TMPDIR or --metrics off: {error}"
            )),
        }
        match Output::prepare(self.config.control.output) {
            Ok(output) => self.output = output,
            Err(error) => self.complaints.push(format!("the command's output is shown as it comes: {error}")),
        }
        self.facts.start = Utc::now();
        self.started = Some(Instant::now());
    }

    fn spawn(&self) -> Result<Child, SpawnError> {
        spawn(&Start {
            command: &self.config.command,
            variables: &[
                ("JOBMON_METRICS", self.inbox.path().into()),
                ("JOBMON_JOB", self.config.key.job().into()),
                ("JOBMON_RUN_ID", OsString::from(&self.run_id)),
            ],
            own_group: !self.shares_group,
            keep_open: self.inbox.for_command(),
            output: self.output.for_command(),
            parent_death_signal: self.config.control.parent_death_signal,
            inherited: self.signals.inherited(),
        })
    }

    /// Where there are no descriptors to supervise the command with, it runs all the same, in our place. Returns only if that
    /// fails, too, or the command could not be run for another reason.
    fn give_way(&mut self, error: SpawnError) -> SpawnError {
        let SpawnError::Pipe(_) = error else { return error };
        self.inbox = Inbox::Nowhere;
        self.signals.inherited().restore();
        error!(%error, "the command runs without supervision");
        spawn::become_command(&self.config.command)
    }

    fn forward(&self, number: i32) {
        if let Some(child) = &self.child
            && let Err(error) = child.signal(number)
        {
            warn!(signal = number, error = error.desc(), "a signal could not be passed on to the command");
        }
    }

    /// Sends a signal to all that the command is: its group, or on a terminal, where the group is ours, what it has started.
    fn end_command(&self, number: i32) {
        if let Some(child) = self.child.as_ref().filter(|child| !child.leads_group()) {
            orphans::signal_descendants(child.pid, number);
        }
        self.forward(number);
    }

    fn report_progress(&mut self) {
        self.settle_in();
        self.deliver(None);
        // The run is a long one: what remains for this thread is to wait.
        give_back_code();
    }

    /// The run has turned out to be a long one: what is worth its cost only then is done at the first report.
    fn settle_in(&mut self) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        let (fifo, pipes) = (self.inbox.fifo_path(), self.output.readable().collect::<Vec<_>>());
        // Before there is a second thread. Our end as process 1 is the end of everything; and where nobody can tell our
        // children apart, there must be none but the command's.
        if std::process::id() != 1 && orphans::can_be_listed() && (fifo.is_some() || !pipes.is_empty()) {
            // Without it a command that goes on after we were killed may have to wait.
            self.guard = Guard::start(fifo, &pipes).ok();
        }
        let command = self.child.as_ref().map(|child| child.pid);
        self.evidence.gather(&self.config.key, Some((&self.run_id, self.facts.start, command)), || {
            fifo::sweep();
            give_back_code();
        });
    }
}
