//! A run as metric families.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::{Gauge, GaugeVec, Opts, Registry};

use super::collect::Collected;
use super::outcome::Outcome;
use super::reap::Usage;
use crate::deliver::{About, Promise, Report};
use crate::exposition::{Labels, MetricFamily, registry};

/// Whether another run of the same job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherRun {
    /// Nobody has looked, or could.
    Unknown,
    /// None does.
    Absent,
    /// One does: its jobmon, or its command without it.
    GoesOn,
}

/// What is known about a run while it goes on.
#[derive(Debug)]
pub struct Facts {
    /// When it started, by the wall clock.
    pub start: DateTime<Utc>,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// How often the command was started.
    pub attempts: u32,
    /// When the last run whose end nobody saw had started.
    pub lost_run: Option<DateTime<Utc>>,
    /// Whether another run of the job goes on.
    pub other_run: OtherRun,
    /// When the next run is due.
    pub next_run: Option<DateTime<Utc>>,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// When, by the wall clock.
    pub at: DateTime<Utc>,
    /// The same by a clock that nobody sets.
    pub steady_at: Instant,
    /// How long it took, by a clock that nobody sets.
    pub duration_seconds: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether that is a success.
    pub success: bool,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// What it used, all attempts together.
    pub usage: Usage,
}

impl Facts {
    /// Whether it did not begin and has nothing to say about the job, because another run has: it was skipped, or given up
    /// while it waited.
    pub fn is_skipped(&self) -> bool {
        match self.end.map(|end| end.outcome) {
            Some(Outcome::Skipped) => true,
            Some(Outcome::Cancelled(_)) => self.attempts == 0 && self.other_run == OtherRun::GoesOn,
            _ => false,
        }
    }

    /// What a report of them is about.
    pub fn about(&self) -> About {
        match self.end {
            None => About::Progress,
            Some(_) if self.is_skipped() => About::Skip,
            Some(end) if end.success => About::Success,
            Some(_) => About::Failure,
        }
    }
}

/// Makes the report of a run. `labels` go on every sample of our own; the command's have theirs already.
pub fn report(facts: &Facts, collected: Collected, labels: &Labels, promise: Promise) -> Report {
    let own = |taken, refused| {
        let mut families = own_families(facts, taken, refused);
        families.iter_mut().for_each(|family| family.add_missing_labels(labels));
        families
    };
    // A server refused them all, and that is what the count says then.
    let without_command =
        (!collected.families.is_empty()).then(|| own(0, collected.taken + collected.refused));
    let mut families = own(collected.taken, collected.refused);
    families.extend(collected.families);
    let at = facts.end.map_or_else(Utc::now, |end| end.at);
    Report { families, without_command, about: facts.about(), promise, at_micros: at.timestamp_micros() }
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}

fn own_families(facts: &Facts, taken: u64, refused: u64) -> Vec<MetricFamily> {
    let gauges = Gauges(Registry::new());
    if let Some(End { at, .. }) = facts.end.filter(|_| facts.is_skipped()) {
        // All the rest is what the run that goes on has said; if none does, the next one is the first that is due.
        let help = "When a run was last skipped because another one held the lock, in seconds since 1970.";
        gauges.set("jobmon_last_skip_timestamp_seconds", help, seconds(at));
        if facts.other_run == OtherRun::Absent {
            // One that was killed has left it at 1.
            gauges.set_running(false);
            gauges.set_next_run(facts.next_run);
        }
        gauges.set_lost_run(facts.lost_run);
        return registry::families(&gauges.0.gather());
    }
    gauges.set(
        "jobmon_start_timestamp_seconds",
        "When the last run started, in seconds since 1970.",
        seconds(facts.start),
    );
    gauges.set_running(facts.end.is_none());
    gauges.set(
        "jobmon_timeout_seconds",
        "Time that a run may take, in seconds; 0 if there is no limit.",
        facts.timeout.map_or(0.0, |timeout| timeout.as_secs_f64()),
    );
    gauges.set_next_run(facts.next_run);
    gauges.set_lost_run(facts.lost_run);
    gauges.set(
        "jobmon_child_samples",
        "Samples taken from the command's own metrics in the last run.",
        taken as f64,
    );
    gauges.set(
        "jobmon_child_samples_rejected",
        "Samples and lines of the command's own metrics that were refused in the last run.",
        refused as f64,
    );
    if let Some(end) = &facts.end {
        ended(&gauges, end, seconds(end.at), facts.attempts);
    }
    registry::families(&gauges.0.gather())
}

fn ended(gauges: &Gauges, end: &End, at: f64, attempts: u32) {
    let outcome = end.outcome;
    let one_or_zero = |yes: bool| if yes { 1.0 } else { 0.0 };
    gauges.set("jobmon_end_timestamp_seconds", "When the last run ended, in seconds since 1970.", at);
    if end.success {
        let help = "When a run last ended well, in seconds since 1970.";
        gauges.set("jobmon_last_success_timestamp_seconds", help, at);
    } else {
        let help = "When a run last failed, in seconds since 1970.";
        gauges.set("jobmon_last_failure_timestamp_seconds", help, at);
    }
    gauges.set("jobmon_duration_seconds", "Wall time of the last run, in seconds.", end.duration_seconds);
    gauges.set("jobmon_success", "Whether the last run ended well: 1 or 0.", one_or_zero(end.success));
    gauges.set("jobmon_exit_code", "Exit code of the last run.", f64::from(outcome.exit_code()));
    gauges.set(
        "jobmon_term_signal",
        "Number of the signal that killed the command of the last run; 0 if none did.",
        f64::from(outcome.term_signal()),
    );
    gauges.set(
        "jobmon_timed_out",
        "Whether the last run was ended because it took too long: 1 or 0.",
        one_or_zero(matches!(outcome, Outcome::TimedOut(_))),
    );
    gauges.set(
        "jobmon_oom_killed",
        "Whether the kernel killed the command of the last run for want of memory: 1 or 0.",
        one_or_zero(end.oom_killed),
    );
    gauges.set("jobmon_attempts", "Times that the command was started in the last run.", f64::from(attempts));
    used(gauges, &end.usage);
}

fn used(gauges: &Gauges, usage: &Usage) {
    for (name, help, value) in [
        (
            "jobmon_cpu_user_seconds",
            "Processor time of the last run in user mode, in seconds.",
            usage.cpu_user_seconds,
        ),
        (
            "jobmon_cpu_system_seconds",
            "Processor time of the last run in the kernel, in seconds.",
            usage.cpu_system_seconds,
        ),
        (
            "jobmon_max_resident_memory_bytes",
            "Largest resident set of a process of the last run, in bytes.",
            usage.max_resident_bytes,
        ),
        (
            "jobmon_major_page_faults",
            "Page faults of the last run that needed a disk.",
            usage.major_page_faults,
        ),
        (
            "jobmon_minor_page_faults",
            "Page faults of the last run that needed no disk.",
            usage.minor_page_faults,
        ),
        (
            "jobmon_block_read_bytes",
            "Bytes that the last run read from block devices.",
            usage.block_read_bytes,
        ),
        (
            "jobmon_block_written_bytes",
            "Bytes that the last run wrote to block devices.",
            usage.block_written_bytes,
        ),
    ] {
        gauges.set(name, help, value);
    }
    let (voluntary, involuntary) = (usage.voluntary_context_switches, usage.involuntary_context_switches);
    gauges.set_kinds(
        "jobmon_context_switches",
        "Context switches of the last run.",
        &[("voluntary", voluntary), ("involuntary", involuntary)],
    );
}

struct Gauges(Registry);

impl Gauges {
    fn set(&self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::with_opts(Opts::new(name, help)).expect("a valid name");
        gauge.set(value);
        self.0.register(Box::new(gauge)).expect("every name is used once");
    }

    fn set_running(&self, is_running: bool) {
        let running = if is_running { 1.0 } else { 0.0 };
        self.set("jobmon_running", "Whether a run is going on: 1 from its start to its end.", running);
    }

    fn set_next_run(&self, due: Option<DateTime<Utc>>) {
        if let Some(at) = due {
            let help = "When the next run is due, in seconds since 1970.";
            self.set("jobmon_next_run_timestamp_seconds", help, seconds(at));
        }
    }

    fn set_lost_run(&self, start: Option<DateTime<Utc>>) {
        if let Some(at) = start {
            let help = "When the last run whose end nobody saw had started, in seconds since 1970.";
            self.set("jobmon_last_run_lost_timestamp_seconds", help, seconds(at));
        }
    }

    fn set_kinds(&self, name: &str, help: &str, values: &[(&str, f64)]) {
        let gauges = GaugeVec::new(Opts::new(name, help), &["kind"]).expect("a valid name");
        for (kind, value) in values {
            gauges.with_label_values(&[*kind]).set(*value);
        }
        self.0.register(Box::new(gauges)).expect("every name is used once");
    }
}
