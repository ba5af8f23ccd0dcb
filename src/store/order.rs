//! Pushes of runs that come in another order than what they say was said: which of them counts. Pure.
//!
//! A network may hold a push up, a client may send it again, a spool may keep it for hours. What a group shows is to be the
//! newest that is known, whatever comes when.

use super::group::{Group, UnixNanos};
use super::runs::{Run, RunId};

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
    /// comes again. Nothing overtakes the end of a run whose progress is what is shown, be it told of as an earlier run's.
    pub(super) fn is_late(&self, told: &[Run], group: &Group, now: UnixNanos) -> bool {
        let is_known = group.has_ended(self.id);
        let Some(ended_at) = self.ended_at else { return is_known };
        let Some(shown) = group.shown() else { return false };
        let ends_shown = || told.iter().any(|run| run.id == shown.id) && !group.has_ended(shown.id);
        shown.id != self.id && (is_known || (shown.is_newer(ended_at, now) && !ends_shown()))
    }

    /// What its group shows when it shows its push.
    pub(super) fn shows(&self, group: &Group, now: UnixNanos) -> Shown {
        let said_at = self.ended_at.unwrap_or(now);
        // What comes again was not said again.
        let is_again =
            |shown: &Shown| shown.id == self.id && self.ended_at.is_some() && group.has_ended(self.id);
        let stays =
            |shown: &&Shown| shown.is_newer(said_at, now) || (is_again(shown) && shown.said_at <= now);
        let newest = group.shown().filter(stays).map_or(said_at, |shown| shown.said_at);
        Shown { id: self.id, said_at: newest }
    }
}

impl Shown {
    /// Whether it was said after that; what is of the future is from before the clock was set back.
    fn is_newer(&self, said_at: UnixNanos, now: UnixNanos) -> bool {
        said_at < self.said_at && self.said_at <= now
    }
}
