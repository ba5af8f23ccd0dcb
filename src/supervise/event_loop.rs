//! Waits for signals, the command's metrics, deliveries and the time, tells [`Run`] of them, and does what it says.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{error, warn};

use super::collect::{Collected, Collector};
use super::fifo::Inbox;
use super::outcome::Outcome;
use super::reap::{self, Change, Usage};
use super::report::{self, End, Facts};
use super::signals::{Origin, Signals, stop_ourselves};
use super::spawn::{Child, give_back_code};
use super::state::{Action, Event, Run};
use crate::deliver::{Courier, Sinks, courier};
use crate::exposition::Labels;
use crate::logging;

/// Waits where there is no way to wait for what happens.
const BLIND_PAUSE: Duration = Duration::from_millis(20);

/// A run under way.
pub(super) struct Supervision<'a> {
    pub(super) run: Run,
    pub(super) signals: &'a Signals,
    pub(super) child: Option<Child>,
    pub(super) inbox: &'a mut Inbox,
    pub(super) collector: Collector,
    pub(super) facts: Facts,
    pub(super) started: Instant,
    pub(super) labels: &'a Labels,
    pub(super) delivery: Delivery,
}

/// How reports leave.
pub(super) enum Delivery {
    /// Not at all.
    Nowhere,
    /// As a text on stderr.
    DryRun(Sinks),
    /// By a courier that has not started yet.
    Ready(Sinks),
    /// By a courier, who tells when it has done.
    Started { courier: Courier, done: Arc<EventFd>, over: bool },
}

impl Supervision<'_> {
    /// Goes on until there is nothing left to do.
    pub(super) fn go(&mut self, first: Option<Outcome>) -> Outcome {
        let mut outcome = first.inspect(|outcome| {
            self.end(*outcome, Usage::default());
        });
        let mut over = outcome.is_some() && self.tell(Event::Ended);
        while !over {
            self.wait();
            while let Some(signal) = self.signals.next() {
                over |= self.tell(Event::Signal(signal));
            }
            // After the signals: one of them told of what is reaped now.
            if let Some(ended) = self.reap() {
                outcome = Some(ended);
                over |= self.tell(Event::Ended);
            } else if self.child.is_some() {
                self.inbox.read(|bytes| self.collector.take(bytes));
            }
            if self.is_delivered() {
                over |= self.tell(Event::Delivered);
            }
            over |= self.tell(Event::Tick);
        }
        outcome.unwrap_or(Outcome::CannotExecute)
    }

    /// Sees the command through when supervision has broken down, which is a fault of ours and must not become the
    /// command's: signals are passed on, and its end is waited for.
    pub(super) fn see_through(&mut self) -> Outcome {
        loop {
            if let Some(end) = &self.facts.end {
                return end.outcome;
            }
            let Some(child) = &self.child else { return Outcome::CannotExecute };
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
            // A command that writes metrics must not block on a FIFO that nobody reads.
            self.inbox.read(|_| ());
            std::thread::sleep(BLIND_PAUSE);
        }
    }

    /// Waits until something happens or is due.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        // What comes after the end is nobody's.
        let inbox = self.inbox.readable().filter(|_| self.child.is_some());
        fds.extend(inbox.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if let Delivery::Started { done, .. } = &self.delivery {
            fds.push(PollFd::new(done.as_fd(), PollFlags::POLLIN));
        }
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

    /// Reaps whatever has ended; tells how the command did, if it was among them.
    fn reap(&mut self) -> Option<Outcome> {
        let mut outcome = None;
        while let Some((pid, change)) = reap::reap() {
            if self.child.as_ref().is_none_or(|child| child.pid != pid) {
                continue;
            }
            match change {
                Change::Stopped => {
                    self.tell(Event::Stopped);
                }
                Change::Ended(ended, usage) => {
                    self.child = None;
                    self.end(ended, usage);
                    outcome = Some(ended);
                }
            }
        }
        outcome
    }

    /// Notes how the command ended, and what it has written up to then.
    fn end(&mut self, outcome: Outcome, usage: Usage) {
        let duration_seconds = self.started.elapsed().as_secs_f64();
        self.facts.end = Some(End { at: Utc::now(), duration_seconds, outcome, usage });
        self.inbox.drain(|bytes| self.collector.take(bytes));
    }

    fn is_delivered(&mut self) -> bool {
        match &mut self.delivery {
            Delivery::Started { done, over, .. } => {
                // He may have ended before the command, and says so once.
                *over |= done.read().is_ok();
                *over
            }
            Delivery::Nowhere | Delivery::DryRun(_) | Delivery::Ready(_) => self.facts.end.is_some(),
        }
    }

    /// Passes an event on and does what follows; true if that is to leave.
    fn tell(&mut self, event: Event) -> bool {
        let mut leave = false;
        for action in self.run.on(event, Instant::now()) {
            match action {
                Action::Forward(number) => self.forward(number),
                Action::Stop => stop_ourselves(),
                Action::ReportProgress => {
                    self.deliver(None);
                    // The run is a long one: what remains for this thread is to wait.
                    give_back_code();
                }
                Action::ReportEnd(deadline) => {
                    self.deliver(Some(deadline));
                    leave |= self.is_delivered() && self.tell(Event::Delivered);
                }
                Action::Hurry(deadline) => {
                    if let Delivery::Started { courier, .. } = &self.delivery {
                        courier.hurry(deadline);
                    }
                }
                Action::Exit => leave = true,
            }
        }
        leave
    }

    fn forward(&self, number: i32) {
        if let Some(child) = &self.child
            && let Err(error) = child.signal(number)
        {
            warn!(signal = number, error = error.desc(), "a signal could not be passed on to the command");
        }
    }

    /// Hands the state of the run over; for the last time if there is a deadline.
    fn deliver(&mut self, deadline: Option<Instant>) {
        if let (Delivery::Nowhere | Delivery::DryRun(_), None) = (&self.delivery, deadline) {
            return;
        }
        let collected = self.collected();
        if deadline.is_some()
            && let Some((line, reason)) = &collected.first_refused
        {
            warn!(refused = collected.refused, line, %reason, "metrics of the command were refused");
        }
        self.start_courier();
        let report = || report::report(&self.facts, collected, self.labels);
        match (&self.delivery, deadline) {
            (Delivery::Started { courier, .. }, Some(deadline)) => courier.finish(report(), deadline),
            (Delivery::Started { courier, .. }, None) => courier.progress(report()),
            (Delivery::DryRun(sinks), _) => logging::print(&courier::describe(sinks, &report())),
            (Delivery::Nowhere | Delivery::Ready(_), _) => {}
        }
    }

    /// Starts the courier if there is work for one and he has not started yet.
    fn start_courier(&mut self) {
        match std::mem::replace(&mut self.delivery, Delivery::Nowhere) {
            Delivery::Ready(sinks) => match started(sinks.clone()) {
                Ok(delivery) => self.delivery = delivery,
                Err(error) => {
                    // There may be a thread for the next report.
                    self.delivery = Delivery::Ready(sinks);
                    error!(%error, "a report cannot be delivered: there is no thread for it");
                }
            },
            other => self.delivery = other,
        }
    }

    fn collected(&self) -> Collected {
        let ended = self.facts.end.is_some();
        match self.inbox.file_text() {
            // A file is read as a whole each time.
            Some((text, is_all)) => {
                let mut collector = self.collector.clone();
                collector.take(&text);
                if !is_all {
                    collector.refuse_rest();
                }
                collector.collected(ended)
            }
            None => self.collector.collected(ended),
        }
    }
}

fn started(sinks: Sinks) -> std::io::Result<Delivery> {
    let done = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let tell = done.clone();
    let courier = Courier::start(sinks, give_back_code, move || {
        // It fails only if nobody has read it 2^64 times.
        let _ = tell.write(1);
    })?;
    Ok(Delivery::Started { courier, done, over: false })
}
