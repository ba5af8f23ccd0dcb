//! The runs of a job, as their final pushes have told of them: the last ones one by one, and all of them counted. Pure.
//!
//! Each run counts once, however often its push arrives: it has an id, and the ids of the last runs are known.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::group::UnixNanos;
use crate::exposition::family::{Bucket, Count, Histogram, NativeBuckets, NativeHistogram, Span};
use crate::exposition::{MetricFamily, Value};
use crate::run::RunOutcome;

/// Runs of a group that are shown one by one, and earlier ones that one push may tell of.
pub const RUNS_MAX: usize = 60;
/// Runs of a group that are told from new ones: more than one push tells of, or none of them would count once when it comes
/// twice; and as many again for what other machines push meanwhile.
const KNOWN_MAX: usize = 2 * (RUNS_MAX + 1);
/// Longer than anything runs (a century, in seconds); what says otherwise is no duration.
const DURATION_SECONDS_MAX: f64 = 3.2e9;
/// Upper bounds of the classic buckets of run durations, in seconds.
const BOUNDS_SECONDS: [f64; 11] =
    [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];
/// Each power of two is divided into 2^3 native buckets: a quantile is right to within 9 %.
const SCHEMA: i32 = 3;
/// Runs up to this long (2^-10 s) are in the native zero bucket.
const ZERO_THRESHOLD_SECONDS: f64 = 0.000_976_562_5;

/// The id of a run: up to 32 hexadecimal digits, as a UUID has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId(pub(super) u128);

impl RunId {
    /// Reads hexadecimal digits; dashes between them mean nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let is_id = !digits.is_empty() && digits.len() <= 32 && digits.chars().all(|c| c.is_ascii_hexdigit());
        is_id.then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A run that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// What tells it from all others.
    pub id: RunId,
    /// When it ended, in seconds since 1970, by the clock of its machine.
    pub end_seconds: f64,
    /// How long it took.
    pub duration_seconds: f64,
    /// The exit code.
    pub exit_code: u8,
    /// How it ended.
    pub outcome: RunOutcome,
}

impl Run {
    /// The run that a supervisor's final push tells of; nothing where it is no such push. One without an id is told from
    /// others by its end.
    pub fn of_push(
        id: Option<RunId>,
        outcome: Option<RunOutcome>,
        families: &[MetricFamily],
    ) -> Option<Self> {
        if !families.iter().any(|family| family.name.starts_with("jobmon_")) {
            return None;
        }
        let value = |name: &str| value(families, name);
        let is = |name: &str| value(name).is_some_and(|value| value > 0.0);
        let of_end = |end: f64| RunId(u128::from(end.to_bits()));
        if is_of_progress(families) {
            // What it says of an end is what has waited for it.
            return None;
        }
        let skip = value("jobmon_last_skip_timestamp_seconds");
        let end = value("jobmon_end_timestamp_seconds");
        // Who made the run knows whether it began; else the later one of the two tells.
        let is_end = |end: &f64| match outcome {
            Some(outcome) => outcome != RunOutcome::Skipped,
            None => skip.is_none_or(|skip| skip < *end),
        };
        if let Some(end) = end.filter(is_end) {
            let by_metrics = || match () {
                () if is("jobmon_success") => RunOutcome::Success,
                () if is("jobmon_timed_out") => RunOutcome::Timeout,
                () if is("jobmon_oom_killed") => RunOutcome::Oom,
                () if is("jobmon_term_signal") => RunOutcome::Signal,
                () => RunOutcome::Failure,
            };
            let outcome = outcome.unwrap_or_else(by_metrics);
            let run = Self {
                id: id.unwrap_or_else(|| of_end(end)),
                end_seconds: end,
                duration_seconds: value("jobmon_duration_seconds")?,
                exit_code: exit_code(value("jobmon_exit_code")?)?,
                outcome,
            };
            return run.is_sound().then_some(run);
        }
        let end = skip.filter(|_| outcome.is_none_or(|outcome| outcome == RunOutcome::Skipped))?;
        let id = id.unwrap_or_else(|| of_end(end));
        let run =
            Self { id, end_seconds: end, duration_seconds: 0.0, exit_code: 0, outcome: RunOutcome::Skipped };
        run.is_sound().then_some(run)
    }

    /// Reads `ID,END,DURATION,EXIT,OUTCOME`: a run whose own push has never arrived.
    pub fn parse(text: &str) -> Option<Self> {
        let [id, end, duration, exit_code, outcome] = text.split(',').collect::<Vec<_>>()[..] else {
            return None;
        };
        let run = Self {
            id: RunId::parse(id)?,
            end_seconds: end.parse().ok()?,
            duration_seconds: duration.parse().ok()?,
            exit_code: exit_code.parse().ok()?,
            outcome: RunOutcome::named(outcome)?,
        };
        run.is_sound().then_some(run)
    }

    fn is_sound(&self) -> bool {
        self.end_seconds.is_finite() && (0.0..DURATION_SECONDS_MAX).contains(&self.duration_seconds)
    }

    /// When it ended.
    pub fn ended_at(&self) -> UnixNanos {
        UnixNanos::of_seconds(self.end_seconds)
    }

    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        self.outcome == RunOutcome::Success
    }
}

/// Whether it is a supervisor's push of a run that goes on.
pub fn is_of_progress(families: &[MetricFamily]) -> bool {
    value(families, "jobmon_running").is_some_and(|value| value > 0.0)
}

fn value(families: &[MetricFamily], name: &str) -> Option<f64> {
    let family = families.iter().find(|family| family.name == name)?;
    match family.metrics.first()?.value {
        Value::Gauge(value) | Value::Untyped(value) => Some(value),
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn exit_code(value: f64) -> Option<u8> {
    (0.0..=255.0).contains(&value).then_some(value as u8)
}

/// The runs of a group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Runs {
    /// The last ones, as they became known.
    last: VecDeque<Run>,
    /// Those that were last skipped. They may be many while one run goes on, and drive none of the others out.
    skips: VecDeque<RunId>,
    /// By [`RunOutcome::ALL`].
    counts: [u64; RunOutcome::ALL.len()],
    durations: Durations,
}

impl Runs {
    /// Those of a snapshot.
    pub(super) fn restored(
        last: Vec<Run>,
        skips: Vec<RunId>,
        counts: [u64; RunOutcome::ALL.len()],
        durations: Durations,
    ) -> Self {
        Self { last: last.into(), skips: skips.into(), counts, durations }
    }

    /// Whether the end of this run is known; of one that ended so long ago that it is forgotten it is not.
    pub(super) fn has_ended(&self, id: RunId) -> bool {
        self.last.iter().any(|known| known.id == id)
    }

    /// Takes a run in, unless it is known. Returns whether it was not.
    pub fn add(&mut self, run: &Run) -> bool {
        let is_known = if run.outcome == RunOutcome::Skipped {
            self.skips.contains(&run.id)
        } else {
            self.has_ended(run.id)
        };
        if is_known {
            return false;
        }
        self.counts[run.outcome.place()] += 1;
        if run.outcome == RunOutcome::Skipped {
            remember(&mut self.skips, run.id);
        } else {
            remember(&mut self.last, *run);
            self.durations.add(run.duration_seconds);
        }
        true
    }

    /// The last ones, as they became known; none that was skipped.
    pub fn last(&self) -> impl DoubleEndedIterator<Item = &Run> + ExactSizeIterator {
        self.last.range(self.last.len().saturating_sub(RUNS_MAX)..)
    }

    /// The one of them that ended last.
    pub fn newest(&self) -> Option<&Run> {
        self.last().max_by(|a, b| a.end_seconds.total_cmp(&b.end_seconds))
    }

    /// All that are told from new ones, as they became known; none that was skipped.
    pub(super) fn known(&self) -> impl Iterator<Item = &Run> {
        self.last.iter()
    }

    /// Those that were last skipped, as they became known.
    pub(super) fn skips(&self) -> impl Iterator<Item = &RunId> {
        self.skips.iter()
    }

    /// How many runs ended so.
    pub fn count(&self, outcome: RunOutcome) -> u64 {
        self.counts[outcome.place()]
    }

    /// How long they took.
    pub(super) fn durations(&self) -> &Durations {
        &self.durations
    }

    /// How many there were, skipped ones as well.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Remembers one more, and forgets the first one where there are too many.
fn remember<T>(known: &mut VecDeque<T>, new: T) {
    if known.len() == KNOWN_MAX {
        known.pop_front();
    }
    known.push_back(new);
}

/// A histogram of durations, in classic and in native buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Durations {
    pub(super) sum_seconds: f64,
    /// Not cumulative; the last one is for all that is longer.
    pub(super) classic: [u64; BOUNDS_SECONDS.len() + 1],
    pub(super) zero: u64,
    /// By index; few, because durations are no longer than [`DURATION_SECONDS_MAX`].
    pub(super) native: BTreeMap<i32, u64>,
}

impl Durations {
    /// Upper bounds of the classic buckets.
    pub(super) fn bounds() -> impl Iterator<Item = f64> {
        BOUNDS_SECONDS.into_iter().chain([f64::INFINITY])
    }

    /// Those of a snapshot, whose classic buckets have their upper bounds as texts: another version may have had others, and
    /// what was in there goes where it fits.
    pub(super) fn restored(
        sum_seconds: f64,
        classic: &BTreeMap<String, u64>,
        zero: u64,
        native: BTreeMap<i32, u64>,
    ) -> Option<Self> {
        let mut durations = Self { sum_seconds, zero, native, ..Self::default() };
        for (bound, count) in classic {
            let bound: f64 = bound.parse().ok()?;
            durations.classic[BOUNDS_SECONDS.partition_point(|known| *known < bound)] += count;
        }
        Some(durations)
    }

    fn add(&mut self, seconds: f64) {
        self.sum_seconds += seconds;
        self.classic[BOUNDS_SECONDS.partition_point(|bound| *bound < seconds)] += 1;
        if seconds <= ZERO_THRESHOLD_SECONDS {
            self.zero += 1;
        } else {
            *self.native.entry(native_index(seconds)).or_default() += 1;
        }
    }

    pub(super) fn to_histogram(&self) -> Histogram {
        let mut cumulative = 0;
        let bucket = |(upper_bound, count): (f64, &u64)| {
            cumulative += count;
            Bucket { upper_bound, cumulative: Count::Integer(cumulative), exemplar: None }
        };
        let buckets = Self::bounds().zip(&self.classic).map(bucket).collect();
        Histogram {
            count: Count::Integer(cumulative),
            sum: self.sum_seconds,
            buckets,
            native: Some(Box::new(NativeHistogram {
                schema: SCHEMA,
                zero_threshold: ZERO_THRESHOLD_SECONDS,
                zero_count: Count::Integer(self.zero),
                positive: self.native_buckets(),
                negative: NativeBuckets::default(),
            })),
            ..Histogram::default()
        }
    }

    fn native_buckets(&self) -> NativeBuckets {
        let mut buckets = NativeBuckets::default();
        let (mut next, mut before) = (None, 0);
        for (index, count) in &self.native {
            match buckets.spans.last_mut().filter(|_| next == Some(*index)) {
                Some(span) => span.length += 1,
                None => buckets.spans.push(Span { offset: index - next.unwrap_or(0), length: 1 }),
            }
            next = Some(index + 1);
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            buckets.deltas.push(count - before);
            before = count;
        }
        buckets
    }
}

/// The native bucket of a duration: its upper end is 2^(index / 2^schema), and belongs to it.
#[allow(clippy::cast_possible_truncation)]
fn native_index(seconds: f64) -> i32 {
    let parts = f64::from(1 << SCHEMA);
    let upper = |index: i32| (f64::from(index) / parts).exp2();
    let mut index = (seconds.log2() * parts).ceil() as i32;
    // The logarithm may be a little wrong where a duration is at the end of a bucket.
    if upper(index - 1) >= seconds {
        index -= 1;
    }
    if upper(index) < seconds {
        index += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::{Validation, native, text};

    fn run(id: u128, end_seconds: f64, outcome: RunOutcome) -> Run {
        Run { id: RunId(id), end_seconds, duration_seconds: 2.0, exit_code: 0, outcome }
    }

    #[test]
    fn each_run_counts_once() {
        let mut runs = Runs::default();
        for id in 0..100 {
            let run = run(id, 5.0, RunOutcome::Failure);
            assert!(runs.add(&run) && !runs.add(&run));
        }
        assert_eq!((runs.last().len(), runs.count(RunOutcome::Failure), runs.total()), (60, 100, 100));
        assert_eq!(runs.last().next_back().map(|run| run.id), Some(RunId(99)));
        assert!(runs.add(&run(1, 6.0, RunOutcome::Skipped)));
        assert!(!runs.add(&run(1, 6.0, RunOutcome::Skipped)));
        // A clock that was ahead once hides none of those that come then.
        assert!(runs.add(&run(2, 5.0, RunOutcome::Skipped)));
        assert_eq!((runs.last().len(), runs.count(RunOutcome::Skipped), runs.total()), (60, 2, 102));
    }

    #[test]
    fn a_push_of_as_many_runs_as_there_may_be_counts_them_once_however_often_it_comes() {
        let (mut runs, pushed) = (Runs::default(), RUNS_MAX as u128 + 1);
        for other in 0..3 {
            for id in 0..pushed {
                runs.add(&run(id, 5.0, RunOutcome::Success));
            }
            // So many others may come between.
            for id in 0..20 {
                runs.add(&run(1000 + 100 * other + id, 5.0, RunOutcome::Failure));
            }
        }
        assert_eq!((runs.count(RunOutcome::Success), runs.count(RunOutcome::Failure)), (61, 60));
        assert_eq!((runs.last().len(), runs.known().count()), (RUNS_MAX, 121));
    }

    #[test]
    fn a_final_push_tells_of_a_run() {
        let families = |text: &str| text::parse(text.as_bytes(), Validation::Legacy).expect("a good text");
        let end = "jobmon_end_timestamp_seconds 9.5\njobmon_duration_seconds 2\n";
        for (rest, outcome, exit_code) in [
            ("jobmon_success 1\njobmon_exit_code 0\n", RunOutcome::Success, 0),
            ("jobmon_success 0\njobmon_exit_code 7\n", RunOutcome::Failure, 7),
            ("jobmon_exit_code 124\njobmon_timed_out 1\njobmon_term_signal 15\n", RunOutcome::Timeout, 124),
            ("jobmon_exit_code 137\njobmon_oom_killed 1\njobmon_term_signal 9\n", RunOutcome::Oom, 137),
            ("jobmon_exit_code 143\njobmon_term_signal 15\n", RunOutcome::Signal, 143),
        ] {
            let run = Run::of_push(RunId::parse("ab"), None, &families(&format!("{end}{rest}"))).expect(rest);
            assert_eq!((run.id, run.outcome, run.exit_code), (RunId(0xab), outcome, exit_code));
            assert_eq!(
                [run.end_seconds, run.duration_seconds].map(f64::to_bits),
                [9.5, 2.0].map(f64::to_bits)
            );
        }
        let skip =
            Run::of_push(None, None, &families("jobmon_last_skip_timestamp_seconds 3\n")).expect("a skip");
        assert_eq!((skip.outcome, skip.end_seconds), (RunOutcome::Skipped, 3.0));
        let no_skip = families("jobmon_last_skip_timestamp_seconds 3\n");
        assert_eq!(Run::of_push(None, Some(RunOutcome::Failure), &no_skip), None, "it has no end");
        let both = "jobmon_exit_code 0\njobmon_last_skip_timestamp_seconds 10\n";
        let skip = Run::of_push(None, None, &families(&format!("{end}{both}"))).expect("a skip after an end");
        assert_eq!((skip.outcome, skip.end_seconds), (RunOutcome::Skipped, 10.0));
        let told = |outcome| Run::of_push(None, Some(outcome), &families(&format!("{end}{both}")));
        for outcome in [RunOutcome::Signal, RunOutcome::Skipped] {
            assert_eq!(told(outcome).map(|run| run.outcome), Some(outcome), "who made the run knows best");
        }
        let both = "jobmon_exit_code 0\njobmon_last_skip_timestamp_seconds 9\n";
        let run = |outcome| Run::of_push(None, outcome, &families(&format!("{end}{both}"))).expect("an end");
        let outcomes = [None, Some(RunOutcome::Signal)].map(|outcome| run(outcome).outcome);
        assert_eq!(outcomes, [RunOutcome::Failure, RunOutcome::Signal], "who made the run knows best");
        for text in [
            "",
            "jobmon_running 1\njobmon_end_timestamp_seconds 1\njobmon_duration_seconds 2\njobmon_exit_code 0\n",
            "jobmon_running 1\njobmon_start_timestamp_seconds 1\n",
            "jobmon_end_timestamp_seconds NaN\njobmon_duration_seconds 2\njobmon_exit_code 0\n",
            "jobmon_end_timestamp_seconds 1\njobmon_duration_seconds -2\njobmon_exit_code 0\n",
            "jobmon_end_timestamp_seconds 1\njobmon_duration_seconds 1e300\njobmon_exit_code 0\n",
            "jobmon_end_timestamp_seconds 1\njobmon_duration_seconds 2\njobmon_exit_code 256\n",
        ] {
            assert_eq!(Run::of_push(RunId::parse("1"), None, &families(text)), None, "{text}");
        }
    }

    #[test]
    fn runs_and_ids_are_read() {
        let run = Run::parse("0a,1700000000.25,3.5,7,failure").expect("a run");
        assert_eq!((run.id.to_string().as_str(), run.exit_code), ("0000000000000000000000000000000a", 7));
        assert_eq!(
            RunId::parse("6BA7B810-9DAD-11D1-80B4-00C04FD430C8").map(|id| id.to_string()).as_deref(),
            Some("6ba7b8109dad11d180b400c04fd430c8")
        );
        for text in [
            "",
            ",,,,",
            "1,2,3,4",
            "1,2,3,4,fun",
            "x,1,1,0,success",
            "1,NaN,1,0,success",
            "1,1,-1,0,success",
            "1,1,1,256,success",
            "1,1,1,0,success,1",
        ] {
            assert_eq!(Run::parse(text), None, "{text}");
        }
        for id in ["", "-", "g", "000000000000000000000000000000001"] {
            assert_eq!(RunId::parse(id), None, "{id}");
        }
    }

    #[test]
    fn native_buckets_have_their_upper_ends() {
        for (seconds, index) in [(1.0, 0), (1.000_001, 1), (2.0, 8), (0.5, -8), (1024.0, 80), (1e-3, -79)] {
            assert_eq!(native_index(seconds), index, "{seconds}");
        }
    }

    proptest::proptest! {
        /// Prometheus takes both kinds of buckets, and each duration is in its own.
        #[test]
        fn histograms_are_sound(all in proptest::collection::vec(0.0..200_000.0_f64, 0..50), tiny in 0.0..0.1_f64) {
            let mut durations = Durations::default();
            all.iter().chain([&tiny, &0.1, &86_400.0]).for_each(|seconds| durations.add(*seconds));
            let histogram = durations.to_histogram();
            proptest::prop_assert_eq!(native::fault(&histogram), None);
            for bucket in &histogram.buckets {
                let within = all.iter().chain([&tiny, &0.1, &86_400.0]).filter(|s| **s <= bucket.upper_bound).count();
                proptest::prop_assert_eq!(bucket.cumulative, Count::Integer(within as u64));
            }
            for bucket in histogram.native.expect("it is there").buckets() {
                let is_in = |s: &&f64| **s <= bucket.upper && (**s > bucket.lower || bucket.lower < 0.0);
                let within = all.iter().chain([&tiny, &0.1, &86_400.0]).filter(is_in).count() as f64;
                proptest::prop_assert!((bucket.count - within).abs() < 0.5);
            }
        }
    }
}
