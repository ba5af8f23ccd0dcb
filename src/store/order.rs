//! Pushes of runs that come in another order than what they say was said: which of them counts. Pure.
//!
//! A network may hold a push up, a client may send it again, a spool may keep it for hours. What a group shows is to be the
//! newest that is known, whatever comes when.

use super::group::{Group, UnixNanos};
use super::runs::{RunId, Runs};
use crate::exposition::MetricFamily;

/// The run that makes a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushingRun {
    /// What tells it from all others.
    pub id: RunId,
    /// When it ended, if it has. By the clock of the gateway, as those of the machines may differ: when the push came, less
    /// how long it had waited then.
    pub ended_at: Option<UnixNanos>,
}

/// The run whose push a group shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) id: RunId,
    /// When the newest was said that the group has shown: when progress came, and when a run ended.
    pub(super) said_at: UnixNanos,
}

impl PushingRun {
    /// Whether what it says was overtaken: its progress by its end, its end by what was said since, or by anything if it
    /// comes again. Nothing overtakes the end of a run whose progress is what is shown.
    pub(super) fn is_late(&self, group: &Group, now: UnixNanos) -> bool {
        let has_ended = group.runs().is_some_and(|runs| runs.has_ended(self.id));
        let Some((ended_at, shown)) = self.ended_at.zip(group.shown()) else {
            return self.ended_at.is_none() && has_ended;
        };
        shown.id != self.id && (has_ended || shown.is_newer(ended_at, now))
    }

    /// Whether a family of a late push is still the newest of its name: an older result may tell of what no later one did.
    pub(super) fn is_newest(&self, family: &MetricFamily, group: &Group) -> bool {
        let has_ended = |runs: &Runs| runs.has_ended(self.id);
        let Some(ended_at) = self.ended_at.filter(|_| !group.runs().is_some_and(has_ended)) else {
            return false;
        };
        !group.is_expired() && group.family(&family.name).is_none_or(|stored| stored.pushed_at < ended_at)
    }

    /// What its group shows when it shows its push.
    pub(super) fn shown(&self, before: Option<&Shown>, now: UnixNanos) -> Shown {
        let said_at = self.ended_at.unwrap_or(now);
        let newest =
            before.filter(|shown| shown.is_newer(said_at, now)).map_or(said_at, |shown| shown.said_at);
        Shown { id: self.id, said_at: newest }
    }
}

impl Shown {
    /// Whether it was said after that; what is of the future is from before the clock was set back.
    fn is_newer(&self, said_at: UnixNanos, now: UnixNanos) -> bool {
        said_at < self.said_at && self.said_at <= now
    }
}
