//! Face A, the supervisor: runs a command as if it were not there, and reports how it went.
//!
//! The story: signals are taken; the start may be delayed or wait for a lock; a place for the command's metrics is made, the
//! command is started; from then on an [`event_loop`] feeds what happens to the pure [`state::Run`] and does what that says,
//! until the last report has been delivered. Before the command runs there is one thread, no runtime, no TLS, no DNS and no
//! socket; whatever is broken, the command runs.

mod collect;
mod event_loop;
mod evidence;
mod fifo;
mod guard;
mod lock;
mod oom;
mod orphans;
mod outcome;
mod output;
mod process;
mod promise;
mod reap;
mod record;
mod report;
mod reporting;
mod schedule;
mod signals;
mod spawn;
pub mod state;
mod stdio;
mod termination;

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tracing::error;

use crate::config::{RunConfig, Warning};
use collect::Collector;
use event_loop::Supervision;
use evidence::Evidence;
use fifo::Inbox;
use orphans::Orphans;
pub use outcome::EXIT_USAGE;
use output::Output;
use report::{Facts, OtherRun};
use reporting::Delivery;
pub use signals::Signals;
use state::{Run, Settings};
pub use stdio::keep_standard_descriptors_free;

/// Runs the command and reports about it; returns the code to exit with.
pub fn run(config: &RunConfig, warnings: &[Warning]) -> u8 {
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return run_unsupervised(&config.command, &error),
    };
    let shares_group = has_terminal();
    let settings = settings(config, shares_group);
    if settings.ends_orphans || settings.timeout.is_some() {
        // What a command leaves behind when its time is up comes to us, wherever it has gone.
        Orphans::adopt();
    }
    let (run, first) = Run::begin(settings, Instant::now());
    let mut supervision = supervision(run, config, warnings, &signals, shares_group);
    let seen = catch_unwind(AssertUnwindSafe(|| supervision.go(first)));
    let outcome = match (seen, &supervision.facts.end) {
        (Ok(()), Some(end)) => end.outcome,
        _ => supervision.see_through(),
    };
    let code = supervision.exit_code(outcome);
    supervision.evidence.end();
    code
}

fn settings(config: &RunConfig, shares_group: bool) -> Settings {
    let control = &config.control;
    let is_reaper = std::process::id() == 1 || control.subreaper;
    Settings {
        shares_group,
        start_delay: control.start_delay,
        lock_wait: control.lock.as_ref().map(|_| control.lock_wait),
        timeout: control.timeout,
        timeout_signal: control.timeout_signal,
        kill_after: control.kill_after,
        termination_grace: control.kill_after.filter(|_| control.kill_after_is_given && is_reaper),
        ends_orphans: is_reaper,
        retries: control.retries,
        retry_delay: control.retry_delay,
        random: random() as f64 / u64::MAX as f64,
        push_interval: config.delivery.push_interval,
        push_deadline: config.delivery.push_deadline,
        stops_alone: !signals::is_group_orphaned(),
    }
}

fn supervision<'a>(
    run: Run,
    config: &'a RunConfig,
    warnings: &'a [Warning],
    signals: &'a Signals,
    shares_group: bool,
) -> Supervision<'a> {
    let start = Utc::now();
    let facts = Facts {
        start,
        timeout: config.control.timeout,
        attempts: 0,
        lost_run: None,
        other_run: OtherRun::Unknown,
        next_run: None,
        end: None,
    };
    Supervision {
        run,
        config,
        warnings,
        signals,
        shares_group,
        run_id: run_id(start),
        child: None,
        inbox: Inbox::Nowhere,
        collector: Collector::new(config.key.labels().clone(), config.labels.clone()),
        output: Output::Inherited,
        lock: None,
        guard: None,
        is_settled: false,
        orphans: Orphans::default(),
        oom: None,
        evidence: Evidence::new(&config.delivery),
        facts,
        started: None,
        last: None,
        usage: reap::Usage::default(),
        delivery: Delivery::new(config),
        arrived_here: None,
        shower: None,
        complaints: Vec::new(),
    }
}

/// With no way to supervise it the command runs all the same, in our place.
fn run_unsupervised(command: &[OsString], error: &std::io::Error) -> u8 {
    error!(%error, "the command runs without supervision");
    let failure = spawn::become_command(command);
    error!(command = spawn::display(&command[0]), error = %failure, "the command could not be run");
    failure.outcome().exit_code()
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
fn run_id(start: DateTime<Utc>) -> String {
    format!("{:016x}{:016x}", start.timestamp_nanos_opt().unwrap_or_default(), random())
}

/// A number that no other process has.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
