//! What a run says about itself: reports on their way, the end, the output of a command that failed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::warn;

use super::collect::Collected;
use super::event_loop::Supervision;
use super::outcome::{EXIT_NOT_DELIVERED, Outcome};
use super::output::Kept;
use super::promise::{Terms, promise};
use super::report::{self, End, OtherRun};
use super::spawn::give_back_code;
use super::state::{Conclusion, Event};
use super::{schedule, termination};
use crate::config::{LockName, RunConfig};
use crate::deliver::{Courier, Sinks, Spool, courier};
use crate::logging;

/// How reports leave.
pub(super) enum Delivery {
    /// Not at all.
    Nowhere,
    /// As a text on stderr.
    DryRun(Sinks),
    /// By a courier that has not started yet.
    Ready(Sinks),
    /// By a courier, who tells when he has done.
    Started {
        courier: Courier,
        done: Arc<EventFd>,
        /// Whether everything has arrived, when that is settled.
        arrived: Option<bool>,
    },
}

/// What the courier says when he has done: everything has arrived, or not.
const ARRIVED: u64 = 1;
const NOT_ARRIVED: u64 = 2;

impl Delivery {
    pub(super) fn new(config: &RunConfig) -> Self {
        let delivery = &config.delivery;
        let nowhere = delivery.targets.is_empty() && delivery.textfile_dir.is_none();
        if nowhere && !delivery.dry_run {
            return Self::Nowhere;
        }
        let sinks = Sinks {
            key: config.key.clone(),
            targets: delivery.targets.clone(),
            access: delivery.access.clone(),
            spool: None,
            textfile_dir: delivery.textfile_dir.clone(),
        };
        if delivery.dry_run { Self::DryRun(sinks) } else { Self::Ready(sinks) }
    }

    /// What tells that the courier has done.
    pub(super) fn done(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Started { done, .. } => Some(done.as_fd()),
            Self::Nowhere | Self::DryRun(_) | Self::Ready(_) => None,
        }
    }

    pub(super) fn hurry(&self, deadline: Instant) {
        if let Self::Started { courier, .. } = self {
            courier.hurry(deadline);
        }
    }

    /// Starts the courier if there is work for one and he has not started yet.
    fn start(&mut self, config: &RunConfig) {
        match std::mem::replace(self, Self::Nowhere) {
            Self::Ready(mut sinks) => {
                sinks.spool = config.delivery.spool.directory().map(|dir| Arc::new(Spool::new(dir)));
                // Where there is no thread for him now, there may be one for the next report.
                *self = started(sinks.clone()).unwrap_or(Self::Ready(sinks));
            }
            other => *self = other,
        }
    }
}

fn started(sinks: Sinks) -> io::Result<Delivery> {
    let done = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let tell = done.clone();
    let courier = Courier::start(sinks, give_back_code, move |all| {
        // It fails only if nobody has read it 2^64 times.
        let _ = tell.write(if all { ARRIVED } else { NOT_ARRIVED });
    })?;
    Ok(Delivery::Started { courier, done, arrived: None })
}

impl Supervision<'_> {
    /// Whether the last report has arrived, or was given up, everywhere.
    pub(super) fn is_delivered(&mut self) -> bool {
        match &mut self.delivery {
            Delivery::Started { done, arrived, .. } => {
                // He may have ended before the command, and says so once.
                *arrived = arrived.or(done.read().ok().map(|word| word == ARRIVED));
                arrived.is_some()
            }
            Delivery::Nowhere | Delivery::DryRun(_) | Delivery::Ready(_) => self.facts.end.is_some(),
        }
    }

    /// What jobmon exits with.
    pub(super) fn exit_code(&self, outcome: Outcome) -> u8 {
        let is_lost = match &self.delivery {
            Delivery::Started { arrived, .. } => *arrived != Some(true),
            Delivery::Ready(_) => self.arrived_here != Some(true),
            Delivery::Nowhere | Delivery::DryRun(_) => false,
        };
        let code = outcome.exit_code();
        let is_success = code == 0 && outcome.is_success(&self.config.control.success_codes);
        let is_lost = is_lost || self.config.delivery.has_bad_target;
        if self.config.delivery.strict && is_lost && is_success { EXIT_NOT_DELIVERED } else { code }
    }

    /// The run has ended: says so everywhere; true if nothing remains to be done.
    pub(super) fn conclude(&mut self, conclusion: Conclusion, deadline: Instant) -> bool {
        // What was left behind may have written, too, while it was ended.
        self.inbox.drain(|bytes| self.collector.take(bytes));
        self.output.drain();
        let end = self.end(conclusion);
        self.facts.end = Some(end);
        self.explain(&end);
        let silent = matches!(self.delivery, Delivery::Nowhere | Delivery::DryRun(_));
        if !silent && !self.evidence.is_begun() {
            self.evidence.gather(&self.config.key, None, || ());
        }
        self.deliver(Some(deadline));
        let shown = self.show_output(!end.success);
        let delivered = self.is_delivered();
        (shown && self.tell(Event::Shown)) | (delivered && self.tell(Event::Delivered))
    }

    fn end(&self, conclusion: Conclusion) -> End {
        let ended = self.last.map_or(Outcome::Skipped, |(outcome, _)| outcome);
        let signal = |number: i32| Outcome::Cancelled(u8::try_from(number).unwrap_or_default());
        let outcome = match conclusion {
            Conclusion::AsEnded => ended,
            Conclusion::TimedOut => ended.timed_out(),
            Conclusion::Cancelled(number) => signal(number),
            Conclusion::Skipped => Outcome::Skipped,
        };
        let was_killed = matches!(outcome, Outcome::Killed(9) | Outcome::Exited(137));
        let took = match (self.started, self.last) {
            // It was waiting for the next attempt.
            (Some(started), _) if matches!(outcome, Outcome::Cancelled(_)) => started.elapsed(),
            (Some(started), Some((_, at))) => at - started,
            _ => Duration::ZERO,
        };
        End {
            at: Utc::now(),
            steady_at: Instant::now(),
            duration_seconds: took.as_secs_f64(),
            outcome,
            success: outcome.is_success(&self.config.control.success_codes),
            oom_killed: was_killed && self.oom.as_ref().is_some_and(super::oom::OomKills::happened),
            usage: self.usage,
        }
    }

    /// Tells those who look at the job alone what its exit code does not say.
    fn explain(&self, end: &End) {
        match end.outcome {
            Outcome::TimedOut(_) => {
                let timeout = self.config.control.timeout.unwrap_or_default();
                warn!(timeout = %humantime::format_duration(timeout), "the command was ended because its time was up");
            }
            Outcome::Skipped => warn!("another run is going on, this one is skipped, see --lock"),
            Outcome::Cancelled(signal) => warn!(signal, "a signal ended the run while no command ran"),
            _ if end.oom_killed => warn!("the kernel killed the command for want of memory"),
            _ => {}
        }
        if !end.success && end.outcome != Outcome::Skipped {
            termination::leave_message(&format!(
                "jobmon: job {} failed with exit code {} after {:.1} s{}\n",
                self.config.key.job(),
                end.outcome.exit_code(),
                end.duration_seconds,
                match end.outcome {
                    Outcome::TimedOut(_) => ": its time was up",
                    _ if end.oom_killed => ": out of memory",
                    _ => "",
                }
            ));
        }
    }

    /// Hands the state of the run over; for the last time if there is a deadline.
    pub(super) fn deliver(&mut self, deadline: Option<Instant>) {
        if let Some(others) = self.evidence.other_runs(deadline.is_some()) {
            if let Some(lost) = others.lost {
                warn!(start = %lost.to_rfc3339(), "the end of an earlier run is unknown: its jobmon was killed");
                self.facts.lost_run = Some(lost);
            }
            // Who holds the job's own lock is a run of it, even if it has no record yet.
            let is_locked_out = self.facts.end.is_some_and(|end| end.outcome == Outcome::Skipped);
            self.facts.other_run = match &self.config.control.lock {
                _ if others.goes_on => OtherRun::GoesOn,
                Some(LockName::Job) if is_locked_out => OtherRun::GoesOn,
                // It may be on another machine, too.
                Some(LockName::File(_)) if is_locked_out => OtherRun::Unknown,
                _ => OtherRun::Absent,
            };
        }
        self.tell_next_run(deadline.is_some());
        if let (Delivery::Nowhere | Delivery::DryRun(_), None) = (&self.delivery, deadline) {
            return;
        }
        let collected = self.collected();
        if deadline.is_some()
            && let Some((line, reason)) = &collected.first_refused
        {
            warn!(refused = collected.refused, line, %reason, "metrics of the command were refused");
        }
        self.delivery.start(self.config);
        let promise = promise(&self.facts, &self.run_id, &Terms::of(self.config));
        let report = || report::report(&self.facts, collected, &self.config.labels, promise);
        match (&self.delivery, deadline) {
            (Delivery::Started { courier, .. }, Some(deadline)) => courier.finish(report(), deadline),
            (Delivery::Started { courier, .. }, None) => courier.progress(report()),
            (Delivery::DryRun(sinks), _) => logging::print(&courier::describe(sinks, &report())),
            (Delivery::Ready(sinks), Some(deadline)) => {
                self.arrived_here = Some(Courier::deliver_here(sinks.clone(), report(), deadline));
            }
            (Delivery::Nowhere | Delivery::Ready(_), _) => {}
        }
    }

    fn tell_next_run(&mut self, is_last: bool) {
        match schedule::next_run(&self.config.timetable, self.facts.start, Utc::now()) {
            Ok(next) => self.facts.next_run = next,
            Err(error) if is_last => warn!("{error}"),
            Err(_) => {}
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

    /// Shows what was kept of the output, if it is wanted; true if that is done.
    fn show_output(&mut self, is_wanted: bool) -> bool {
        let Some(kept) = self.output.take().filter(|_| is_wanted) else { return true };
        self.shower = Shower::start(kept);
        self.shower.is_none()
    }
}

/// Shows the output of a command, on a thread of its own: those who read it may take their time.
pub(super) struct Shower {
    done: Arc<EventFd>,
}

impl Shower {
    /// Starts the thread; where there can be none, shows everything here, and returns none.
    fn start(kept: Kept) -> Option<Self> {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(|fd| Patient(File::from(fd)));
        let (Ok(mut stdout), Ok(mut stderr)) = (own(io::stdout().as_fd()), own(io::stderr().as_fd())) else {
            kept.show(&mut io::stdout(), &mut io::stderr());
            return None;
        };
        let kept = Arc::new(Mutex::new(Some(kept)));
        let take = |kept: &Mutex<Option<Kept>>| kept.lock().ok().and_then(|mut kept| kept.take());
        let there = kept.clone();
        let done = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Arc::new);
        let started = done.map_err(io::Error::from).and_then(|done| {
            let tell = done.clone();
            let (mut stdout, mut stderr) = (Patient(stdout.0.try_clone()?), Patient(stderr.0.try_clone()?));
            std::thread::Builder::new().name("output".to_owned()).spawn(move || {
                take(&there).into_iter().for_each(|kept| kept.show(&mut stdout, &mut stderr));
                let _ = tell.write(1);
            })?;
            Ok(Self { done })
        });
        if started.is_err() {
            take(&kept).into_iter().for_each(|kept| kept.show(&mut stdout, &mut stderr));
        }
        started.ok()
    }

    pub(super) fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.read().is_ok()
    }
}

/// A file that may be set to not block, by whoever shares it with us.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut fds, PollTimeout::NONE)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
