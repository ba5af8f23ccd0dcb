//! What a push says in its query beside its metrics: when the next one is due, how long its series stay, which runs it tells
//! of. A Pushgateway passes it over. A push that is sent again counts from then.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::run::RunOutcome;

/// How many earlier runs a push tells of: a query of more than 8 KiB would be too long for many a proxy.
const EARLIER_MAX: usize = 60;
/// A push that is due at once, or was, is given this time.
const EXPECT_MIN_SECONDS: u64 = 1;
const MICROS: u64 = 1_000_000;
/// It takes a moment to push a result at once.
const AT_ONCE_MICROS: u64 = 100_000;

/// What a push says in its query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Promise {
    /// When the next push of the group is due.
    pub expect: Expect,
    /// How long the series stay after the push; zero for ever, `None` as the gateway has it.
    pub ttl: Option<Duration>,
    /// The run whose end is told.
    pub run: Option<RunRecord>,
    /// The id of the run whose progress is told; one that goes on waits nowhere.
    #[serde(skip)]
    pub ongoing: Option<String>,
    /// Runs whose ends were to be told by pushes that never arrived, the oldest first.
    pub earlier: Vec<RunRecord>,
}

/// When the next push of a group is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Expect {
    /// When it was due before.
    #[default]
    Keep,
    /// So long after this one.
    Within(Duration),
    /// Then, in microseconds since 1970.
    At(i64),
    /// Nobody knows.
    Withdrawn,
}

/// A run that has ended, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name, which no other run has.
    pub id: String,
    /// When it ended, in microseconds since 1970.
    pub end_micros: i64,
    /// The same by a clock that nobody sets, as long as the process lives that has seen it.
    #[serde(skip)]
    pub ended: Option<Instant>,
    /// How long it took, in microseconds.
    pub duration_micros: u64,
    /// What jobmon returned.
    pub exit_code: u8,
    /// How it ended.
    pub outcome: RunOutcome,
}

impl Promise {
    /// This, and that the runs which another one tells of were earlier runs; and when that one expects the next push, where
    /// this says nothing about it.
    #[must_use]
    pub fn with_runs_of(&self, other: &Self) -> Self {
        let mut seen: HashSet<&str> = self.run.iter().map(|run| run.id.as_str()).collect();
        let all = self.earlier.iter().chain(&other.earlier).chain(&other.run);
        let mut earlier: Vec<RunRecord> = all.filter(|run| seen.insert(&run.id)).cloned().collect();
        earlier.sort_by(|a, b| (a.end_micros, &a.id).cmp(&(b.end_micros, &b.id)));
        earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
        let expect = if self.expect == Expect::Keep { other.expect } else { self.expect };
        Self { expect, earlier, ..self.clone() }
    }

    /// What the pushes of this and of an older one say when they are one. A run that was skipped has no result: where the
    /// older one has, that is what the metrics are of.
    #[must_use]
    pub fn merged_with(&self, older: &Self) -> Self {
        let is_skipped = |run: &RunRecord| run.outcome == RunOutcome::Skipped;
        let mut newer = self.clone();
        if let Some(result) = older.run.as_ref().filter(|run| !is_skipped(run)) {
            let skipped = newer.run.take_if(|run| is_skipped(run));
            newer.run = newer.run.or_else(|| skipped.is_some().then(|| result.clone()));
            newer.earlier.extend(skipped);
        }
        newer.with_runs_of(older)
    }

    /// Puts it behind the query that a URL has already.
    pub(super) fn add_to(&self, url: &mut Url, now_micros: i64) {
        let Some(own) = self.query(url, now_micros) else { return };
        let query = match url.query().filter(|query| !query.is_empty()) {
            Some(query) => format!("{query}&{own}"),
            None => own,
        };
        url.set_query(Some(&query));
    }

    /// What it adds to the query of a URL if it is sent now. What the URL says itself counts.
    pub(super) fn query(&self, url: &Url, now_micros: i64) -> Option<String> {
        let mut pairs = self.pairs(now_micros);
        pairs.retain(|(name, _)| url.query_pairs().all(|(given, _)| given != *name));
        let words: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!words.is_empty()).then(|| words.join("&"))
    }

    fn pairs(&self, now_micros: i64) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        let expect = match self.expect {
            Expect::Keep => None,
            Expect::Within(time) => Some(duration(time)),
            // What a skipped run has from one before it, and that has passed, says nothing about the run that goes on.
            Expect::At(at)
                if at <= now_micros
                    && self.run.as_ref().is_some_and(|run| run.outcome == RunOutcome::Skipped) =>
            {
                None
            }
            Expect::At(at) => {
                let left = micros(at.saturating_sub(now_micros)).div_ceil(MICROS);
                Some(format!("{}s", left.max(EXPECT_MIN_SECONDS)))
            }
            Expect::Withdrawn => Some(duration(Duration::ZERO)),
        };
        pairs.extend(expect.map(|expect| ("expect", expect)));
        pairs.extend(self.ttl.map(|ttl| ("ttl", duration(ttl))));
        pairs.extend(self.ongoing.as_deref().map(|ongoing| ("run_id", escaped(ongoing))));
        if let Some(run) = &self.run {
            pairs.extend([("run_id", escaped(&run.id)), ("run_outcome", run.outcome.name().to_owned())]);
            // By one clock, whatever that of the server shows. What is pushed at once has no age.
            let age = run.age_micros(now_micros);
            let is_at_once = age == 0 || (run.ended.is_some() && age < AT_ONCE_MICROS);
            if !is_at_once && run.outcome != RunOutcome::Skipped {
                pairs.push(("run_age", seconds(age)));
            }
        }
        pairs.extend(self.earlier.iter().map(|run| {
            let (end, took) = (seconds(micros(run.end_micros)), seconds(run.duration_micros));
            let value = format!("{},{end},{took},{},{}", escaped(&run.id), run.exit_code, run.outcome.name());
            ("earlier_run", value)
        }));
        pairs
    }
}

impl RunRecord {
    fn age_micros(&self, now_micros: i64) -> u64 {
        let by_wall_clock = || micros(now_micros.saturating_sub(self.end_micros));
        let by_steady_clock = |at: Instant| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.ended.map_or_else(by_wall_clock, by_steady_clock)
    }
}

/// An id as it stands in a query; one from a file might be anything.
fn escaped(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

/// Nothing happens before 1970.
fn micros(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default()
}

/// `45s`, or `1500ms` where it is no whole seconds; never 0 if it is something.
fn duration(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    match (millis, millis % 1000) {
        (0, _) => "0".to_owned(),
        (_, 0) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Seconds with as many decimals as it takes.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / MICROS, micros % MICROS);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    fn run(id: &str, end_micros: i64) -> RunRecord {
        RunRecord {
            id: id.to_owned(),
            end_micros,
            ended: None,
            duration_micros: 1_500_000,
            exit_code: 3,
            outcome: RunOutcome::Failure,
        }
    }

    fn query(promise: &Promise, url: &str) -> Option<String> {
        let mut url = Url::parse(url).expect("a URL");
        promise.add_to(&mut url, NOW);
        url.query().map(str::to_owned)
    }

    #[test]
    fn each_part_has_its_parameter() {
        let second = 1_000_000;
        let promise = Promise::default();
        let expect = |expect| Promise { expect, ..Promise::default() };
        let ttl = |ttl| Promise { ttl: Some(ttl), ..Promise::default() };
        for (promise, expected) in [
            (promise.clone(), None),
            (expect(Expect::Within(Duration::from_secs(45))), Some("expect=45s")),
            (expect(Expect::Within(Duration::from_millis(1500))), Some("expect=1500ms")),
            (expect(Expect::Within(Duration::ZERO)), Some("expect=0")),
            (expect(Expect::Withdrawn), Some("expect=0")),
            (expect(Expect::At(NOW + 3600 * second)), Some("expect=3600s")),
            (expect(Expect::At(NOW + 3600 * second + 1)), Some("expect=3601s")),
            (expect(Expect::At(NOW)), Some("expect=1s")),
            (expect(Expect::At(NOW - 3600 * second)), Some("expect=1s")),
            (expect(Expect::At(i64::MIN)), Some("expect=1s")),
            (expect(Expect::At(i64::MAX)), Some("expect=9221572036855s")),
            (
                Promise {
                    expect: Expect::At(NOW),
                    run: Some(RunRecord { outcome: RunOutcome::Skipped, ..run("0a", 1) }),
                    ..promise.clone()
                },
                Some("run_id=0a&run_outcome=skipped"),
            ),
            (
                Promise { ongoing: Some("0a".to_owned()), ..expect(Expect::Within(Duration::from_secs(45))) },
                Some("expect=45s&run_id=0a"),
            ),
            (ttl(Duration::ZERO), Some("ttl=0")),
            (ttl(Duration::from_hours(36)), Some("ttl=129600s")),
            (ttl(Duration::from_nanos(1)), Some("ttl=1ms")),
            (Promise { run: Some(run("0a", NOW)), ..promise.clone() }, Some("run_id=0a&run_outcome=failure")),
            (
                // It has waited in the spool.
                Promise { run: Some(run("0a", NOW - 3600 * second - 1)), ..promise.clone() },
                Some("run_id=0a&run_outcome=failure&run_age=3600.000001"),
            ),
            // Who has seen it end does not ask the wall clock.
            (
                Promise {
                    run: Some(RunRecord { ended: Some(Instant::now()), ..run("0a", NOW - 3600 * second) }),
                    ..promise.clone()
                },
                Some("run_id=0a&run_outcome=failure"),
            ),
            // The clock was set back since.
            (
                Promise { run: Some(run("0a", NOW + 3600 * second)), ..promise.clone() },
                Some("run_id=0a&run_outcome=failure"),
            ),
            (
                Promise { run: Some(run("a&b=c,d", NOW - 1)), ..promise.clone() },
                Some("run_id=a%26b%3Dc%2Cd&run_outcome=failure&run_age=0.000001"),
            ),
            (
                Promise { earlier: vec![run("0a", 1_500_000), run("0b", 2_000_001)], ..promise },
                Some("earlier_run=0a,1.5,1.5,3,failure&earlier_run=0b,2.000001,1.5,3,failure"),
            ),
        ] {
            assert_eq!(query(&promise, "http://h/x").as_deref(), expected, "{promise:?}");
        }
    }

    #[test]
    fn outcomes_have_names() {
        for (outcome, name) in [
            (RunOutcome::Success, "success"),
            (RunOutcome::Failure, "failure"),
            (RunOutcome::Timeout, "timeout"),
            (RunOutcome::Signal, "signal"),
            (RunOutcome::Oom, "oom"),
            (RunOutcome::Skipped, "skipped"),
        ] {
            let earlier = vec![RunRecord { outcome, duration_micros: 0, exit_code: 0, ..run("a", -1) }];
            let promise = Promise { earlier, ..Promise::default() };
            assert_eq!(query(&promise, "http://h"), Some(format!("earlier_run=a,0,0,0,{name}")));
        }
    }

    #[test]
    fn what_the_url_says_itself_counts() {
        let promise = Promise {
            expect: Expect::Withdrawn,
            ttl: Some(Duration::from_secs(7)),
            run: Some(run("0a", NOW)),
            ongoing: None,
            earlier: vec![run("0b", 0)],
        };
        let own = "expect=0&ttl=7s&run_id=0a&run_outcome=failure&earlier_run=0b,0,1.5,3,failure";
        for (url, expected) in [
            ("http://h/", own.to_owned()),
            ("http://h/?", own.to_owned()),
            ("http://h/?x=%2C&y", format!("x=%2C&y&{own}")),
            ("http://h/?ttl=1h", format!("ttl=1h&{}", own.replace("&ttl=7s", ""))),
            (
                "http://h/?%74tl=1h&expect",
                "%74tl=1h&expect&run_id=0a&run_outcome=failure&earlier_run=0b,0,1.5,3,failure".to_owned(),
            ),
            (
                "http://h/?expect=&ttl=&run_id=&run_outcome=&earlier_run=",
                "expect=&ttl=&run_id=&run_outcome=&earlier_run=".to_owned(),
            ),
        ] {
            assert_eq!(query(&promise, url), Some(expected), "{url}");
        }
    }

    #[test]
    fn a_skipped_run_has_no_result_that_stands_for_another_ones() {
        let failure = Promise { run: Some(run("a", 1)), expect: Expect::At(7), ..Promise::default() };
        let skipped = RunRecord { outcome: RunOutcome::Skipped, ..run("b", 2) };
        let skip = Promise { run: Some(skipped.clone()), ..Promise::default() };
        let both = skip.merged_with(&failure);
        assert_eq!(both, Promise { earlier: vec![skipped.clone()], ..failure.clone() });
        let next = RunRecord { outcome: RunOutcome::Skipped, ..run("c", 3) };
        let more = Promise { run: Some(next.clone()), ..Promise::default() }.merged_with(&both);
        assert_eq!(more, Promise { earlier: vec![skipped.clone(), next.clone()], ..failure.clone() });
        let skips = Promise { run: Some(next.clone()), ..Promise::default() }.merged_with(&skip);
        assert_eq!((skips.run, skips.earlier), (Some(next), vec![skipped.clone()]));
        // Told of without its metrics, it is another run.
        let told = skip.with_runs_of(&failure);
        assert_eq!((told.run, told.earlier), (Some(skipped), vec![run("a", 1)]));
    }

    proptest::proptest! {
        /// However promises are put together, each run is told of once, and the newest are.
        #[test]
        fn runs_are_told_of_once(
            own in proptest::option::of(0u8..100),
            mine in proptest::collection::vec(0u8..100, 0..70),
            theirs in proptest::collection::vec(0u8..100, 0..70),
        ) {
            let record = |n: &u8| run(&format!("{n:02}"), i64::from(*n));
            let mut older = Promise { expect: Expect::At(7), ..Promise::default() };
            for n in &theirs {
                older = Promise { run: Some(record(n)), ..older.clone() }.with_runs_of(&older);
            }
            let newer = Promise { run: own.as_ref().map(record), ..Promise::default() };
            let mine = Promise { earlier: mine.iter().map(record).collect(), ..Promise::default() };
            let both = newer.with_runs_of(&mine).with_runs_of(&older);
            proptest::prop_assert_eq!(&both.run, &newer.run);
            proptest::prop_assert_eq!(both.expect, Expect::At(7));
            let mut all: Vec<RunRecord> =
                mine.earlier.iter().chain(&older.earlier).chain(&older.run).cloned().collect();
            all.retain(|run| both.run.as_ref() != Some(run));
            all.sort_by_key(|run| run.end_micros);
            all.dedup();
            let newest = all.split_off(all.len().saturating_sub(EARLIER_MAX));
            proptest::prop_assert_eq!(both.earlier, newest);
        }
    }
}
