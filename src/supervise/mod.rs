//! Face A, the supervisor: runs a command as if it were not there, and reports how it went.
//!
//! The story: signals are taken, a place for the command's metrics is made, the command is started; from then on an
//! [`event_loop`] feeds what happens to the pure [`state::Run`] and does what that says, until the last report has been
//! delivered. Before the command runs there is one thread, no runtime, no TLS, no DNS and no socket; whatever is broken, the
//! command runs.

mod collect;
mod event_loop;
mod fifo;
mod outcome;
mod reap;
mod report;
mod signals;
mod spawn;
pub mod state;
mod stdio;

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tracing::{error, warn};

use crate::config::{RunConfig, Warning};
use crate::deliver::Sinks;
use collect::Collector;
use event_loop::{Delivery, Supervision};
use fifo::Inbox;
pub use outcome::EXIT_USAGE;
use report::Facts;
pub use signals::Signals;
use spawn::{SpawnError, Start, spawn};
use state::{Run, Settings};
pub use stdio::keep_standard_descriptors_free;

/// Runs the command and reports about it; returns the code to exit with.
pub fn run(config: RunConfig, warnings: &[Warning]) -> u8 {
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return run_unsupervised(&config.command, &error),
    };
    let inherited = signals.inherited();
    let (mut inbox, no_inbox) = match Inbox::make(config.metrics) {
        Ok(inbox) => (inbox, None),
        Err(error) => (Inbox::Nowhere, Some(error)),
    };
    let start = Utc::now();
    let started = Instant::now();
    let own_group = !has_terminal();
    let child = spawn(&Start {
        command: &config.command,
        variables: &[
            ("JOBMON_METRICS", inbox.path().into()),
            ("JOBMON_JOB", config.key.job().into()),
            ("JOBMON_RUN_ID", run_id(start)),
        ],
        own_group,
        keep_open: inbox.for_command().as_ref(),
        inherited,
    });
    if let Err(SpawnError::Pipe(errno)) = child {
        drop((signals, inbox));
        inherited.restore();
        return run_unsupervised(&config.command, &errno.into());
    }

    // The command runs: from here on there is time.
    tell(warnings, no_inbox.as_ref());
    if let Err(error) = &child {
        let command = spawn::display(&config.command[0]);
        error!(command, %error, "the command could not be run");
    }
    let first = child.as_ref().err().map(|error| error.outcome());
    let settings = Settings {
        shares_group: !own_group,
        push_interval: config.push_interval,
        push_deadline: config.push_deadline,
    };
    let mut supervision = Supervision {
        run: Run::new(settings, started),
        signals: &signals,
        child: child.ok(),
        inbox: &mut inbox,
        collector: Collector::new(config.key.labels().clone(), config.labels.clone()),
        facts: Facts { start, end: None },
        started,
        labels: &config.labels,
        delivery: delivery(config.key, config.targets, config.textfile_dir, config.dry_run),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| supervision.go(first)));
    outcome.unwrap_or_else(|_| supervision.see_through()).exit_code()
}

/// With no way to supervise it the command runs all the same, in our place.
fn run_unsupervised(command: &[OsString], error: &std::io::Error) -> u8 {
    error!(%error, "the command runs without supervision");
    let failure = spawn::become_command(command);
    error!(command = spawn::display(&command[0]), error = %failure, "the command could not be run");
    failure.outcome().exit_code()
}

fn tell(warnings: &[Warning], no_inbox: Option<&std::io::Error>) {
    for warning in warnings {
        warn!("{warning}");
    }
    if let Some(error) = no_inbox {
        warn!(%error, "the command's metrics cannot be taken: no directory for a fifo, set TMPDIR or --metrics off");
    }
}

fn delivery(
    key: crate::grouping::GroupingKey,
    targets: Vec<crate::deliver::Target>,
    textfile_dir: Option<std::path::PathBuf>,
    dry_run: bool,
) -> Delivery {
    let nowhere = targets.is_empty() && textfile_dir.is_none();
    let sinks = Sinks { key, targets, textfile_dir };
    match (dry_run, nowhere) {
        (true, _) => Delivery::DryRun(sinks),
        (false, true) => Delivery::Nowhere,
        (false, false) => Delivery::Ready(sinks),
    }
}

/// Whether there is a terminal whose keys send signals: then the command stays in our process group, which the terminal
/// knows.
fn has_terminal() -> bool {
    match File::open("/dev/tty") {
        Ok(_) => true,
        // No descriptor is left to ask with; not to move the command is the safe answer.
        Err(error) => [libc::EMFILE, libc::ENFILE].map(Some).contains(&error.raw_os_error()),
    }
}

/// A name for the run that no other run has, in the order of time: nanoseconds and 64 random bits.
fn run_id(start: DateTime<Utc>) -> OsString {
    let random = RandomState::new().hash_one(std::process::id());
    format!("{:016x}{random:016x}", start.timestamp_nanos_opt().unwrap_or_default()).into()
}
