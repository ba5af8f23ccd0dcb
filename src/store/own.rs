//! The families that the store itself exposes about each group: when it was pushed, what it promised, its runs. Never taken
//! from a push.

use std::sync::Arc;

use super::group::Group;
use super::runs::Runs;
use crate::exposition::series::completed;
use crate::exposition::{Labels, Metric, MetricFamily, MetricType, Value};
use crate::run::RunOutcome;

/// A family that the store itself exposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// When a push was last taken.
    PushTime,
    /// When a push was last refused.
    PushFailureTime,
    /// Whether pushes come as promised.
    Up,
    /// When the next push is due.
    ExpectedTime,
    /// How many runs ended how.
    Runs,
    /// How long runs took.
    RunDurations,
}

impl Own {
    /// All, each at its number.
    pub const ALL: [Self; 6] =
        [Self::PushTime, Self::PushFailureTime, Self::Up, Self::ExpectedTime, Self::Runs, Self::RunDurations];

    /// The number of the family among the exposed.
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    /// Its help text.
    pub fn help(self) -> &'static str {
        match self {
            Self::PushTime => "Last Unix time when changing this group in the Pushgateway succeeded.",
            Self::PushFailureTime => "Last Unix time when changing this group in the Pushgateway failed.",
            Self::Up => {
                "Whether the pushes of this group come as promised: 0 if the next one is overdue, or the last one failed."
            }
            Self::ExpectedTime => "Unix time by which the next push of this group is due.",
            Self::Runs => "Runs of this job, by how they ended.",
            Self::RunDurations => "Wall time of the runs of this job, in seconds.",
        }
    }

    /// Its type.
    pub fn kind(self) -> MetricType {
        match self {
            Self::PushTime | Self::PushFailureTime | Self::Up | Self::ExpectedTime => MetricType::Gauge,
            Self::Runs => MetricType::Counter,
            Self::RunDurations => MetricType::Histogram,
        }
    }

    /// How many metrics it has for a group that it is exposed for.
    pub(super) fn metrics(self) -> u32 {
        if self == Self::Runs { RunOutcome::COUNT } else { 1 }
    }

    /// The label that its metrics have beside the group's.
    pub(super) fn label(self, at: u32) -> Option<(&'static str, &'static str)> {
        (self == Self::Runs).then(|| ("outcome", RunOutcome::ALL[at as usize].name()))
    }

    /// All of it of a group that it is exposed for.
    pub(super) fn family(self, name: &str, group: &Group) -> MetricFamily {
        let metrics = (0..self.metrics()).map(|at| self.metric(group, at)).collect();
        MetricFamily { help: Some(self.help().to_owned()), metrics, ..MetricFamily::new(name, self.kind()) }
    }

    /// Its metric of a group that it is exposed for.
    pub fn metric(self, group: &Group, at: u32) -> Metric {
        let labels = Labels::from_pairs(completed(self.label(at).into_iter(), group.key.labels()));
        let runs = |value: &dyn Fn(&Runs) -> Value| group.runs().map_or(Value::Untyped(0.0), value);
        let one_or_zero = |yes: bool| if yes { 1.0 } else { 0.0 };
        let value = match self {
            Self::PushTime => Value::Gauge(group.succeeded_at.seconds()),
            Self::PushFailureTime => Value::Gauge(group.failed_at.seconds()),
            Self::Up => Value::Gauge(one_or_zero(group.is_up().unwrap_or_default())),
            Self::ExpectedTime => Value::Gauge(group.expected_at().unwrap_or_default().seconds()),
            Self::Runs => runs(&|runs| Value::counter(runs.count(RunOutcome::ALL[at as usize]) as f64)),
            Self::RunDurations => runs(&|runs| Value::Histogram(Box::new(runs.durations().to_histogram()))),
        };
        Metric { labels, value, timestamp_ms: None }
    }

    /// About how many bytes it takes in a text for a group.
    pub(super) fn text_bytes(self, name: &str, group: &Group) -> usize {
        let lines = match self {
            Self::PushTime | Self::PushFailureTime | Self::Up | Self::ExpectedTime => 1,
            Self::Runs => RunOutcome::ALL.len(),
            Self::RunDurations => 14,
        };
        lines * group.line_bytes(name)
    }
}

/// What is exposed of a group by the store itself: for each family nothing, or what differs where its metrics do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Face([Option<i64>; Own::ALL.len()]);

impl Face {
    pub(super) fn of(group: &Group) -> Self {
        let runs = group.runs().filter(|_| !group.is_expired()).map(|runs| runs.total().cast_signed());
        // A label of the group's own would take the place of the one that tells the metrics apart.
        let beside = |label: &str| runs.filter(|_| group.key.labels().get(label).is_none());
        Self(Own::ALL.map(|own| match own {
            Own::PushTime => Some(group.succeeded_at.0),
            Own::PushFailureTime => Some(group.failed_at.0),
            Own::Up => group.is_up().map(i64::from),
            Own::ExpectedTime => group.expected_at().map(|at| at.0),
            Own::Runs => beside("outcome"),
            Own::RunDurations => beside("le"),
        }))
    }

    /// The families that are exposed.
    pub(super) fn families(self) -> impl Iterator<Item = Own> {
        Own::ALL.into_iter().filter(move |own| self.0[own.number() as usize].is_some())
    }

    /// What changes from one to the other.
    pub(super) fn changes(self, after: Self) -> impl Iterator<Item = (Own, Shift)> {
        Own::ALL.into_iter().filter_map(move |own| {
            let at = own.number() as usize;
            match (self.0[at], after.0[at]) {
                (None, Some(_)) => Some((own, Shift::Comes)),
                (Some(_), None) => Some((own, Shift::Goes)),
                (before, after) => (before != after).then_some((own, Shift::Changes)),
            }
        })
    }
}

/// What becomes of a group's metrics in a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    Comes,
    Changes,
    Goes,
}

/// What the families are called.
#[derive(Debug, Clone)]
pub struct OwnNames {
    liveness: Arc<str>,
}

impl Default for OwnNames {
    fn default() -> Self {
        Self::new(Self::LIVENESS)
    }
}

impl OwnNames {
    /// The name of [`Own::Up`] unless another one is wanted.
    pub const LIVENESS: &str = "push_up";

    /// Names, with this one for [`Own::Up`].
    pub fn new(liveness: &str) -> Self {
        Self { liveness: liveness.into() }
    }

    /// What a family is called.
    pub fn name(&self, own: Own) -> &str {
        match own {
            Own::PushTime => "push_time_seconds",
            Own::PushFailureTime => "push_failure_time_seconds",
            Own::Up => &self.liveness,
            Own::ExpectedTime => "push_expected_time_seconds",
            Own::Runs => "jobmon_runs_total",
            Own::RunDurations => "jobmon_run_duration_seconds",
        }
    }

    /// Whether a family of this name holds Unix times.
    pub fn is_time(name: &str) -> bool {
        let times = [Own::PushTime, Own::PushFailureTime, Own::ExpectedTime];
        times.iter().any(|own| Self::default().name(*own) == name)
    }

    /// Whether a family is called so.
    pub fn contains(&self, name: &str) -> bool {
        Own::ALL.iter().any(|own| self.name(*own) == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::GroupingKey;
    use crate::store::{Run, UnixNanos};

    #[test]
    fn a_label_of_the_group_takes_no_others_place() {
        let exposed = |label: &str| {
            let key = GroupingKey::new("x", [(label, "1")]);
            let mut runs = Runs::default();
            runs.add(&Run::parse("1,2,3,0,success").expect("a run"));
            let group = Group { runs: Some(Arc::new(runs)), ..Group::new(key, UnixNanos(1), 1) };
            Face::of(&group).families().collect::<Vec<_>>()
        };
        let times = [Own::PushTime, Own::PushFailureTime];
        assert_eq!(exposed("zone"), [&times[..], &[Own::Runs, Own::RunDurations]].concat());
        assert_eq!(exposed("outcome"), [&times[..], &[Own::RunDurations]].concat());
        assert_eq!(exposed("le"), [&times[..], &[Own::Runs]].concat());
    }
}
