//! Groups, as they are stored.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::change::Push;
use super::metric::{Metrics, StoredMetric};
use super::order::Shown;
use super::promises::Promises;
use super::runs::{RunId, Runs};
use crate::exposition::check::Inconsistent;
use crate::exposition::series::{Fingerprint, GroupHash, SeriesHash};
use crate::exposition::{Head, Metric, MetricFamily, MetricType};
use crate::grouping::GroupingKey;

/// Nanoseconds since 1970; 0 stands for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// The time as the push time metrics show it.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// A time in seconds, to the microsecond: of a time of today a double has no more.
    #[allow(clippy::cast_possible_truncation)]
    pub fn of_seconds(seconds: f64) -> Self {
        Self(((seconds * 1e6) as i64).saturating_mul(1000))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// So much later.
    pub(super) fn after(self, length: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// Stands for a group as long as it is stored, and then for another one.
pub(super) type Slot = u32;

/// What was pushed under one grouping key.
#[derive(Debug, Clone)]
pub struct Group {
    /// The key; all that know the group share it.
    pub key: Arc<GroupingKey>,
    /// By name.
    pub(super) families: Vec<StoredFamily>,
    /// When a push was last taken.
    pub succeeded_at: UnixNanos,
    /// When a push was last refused.
    pub failed_at: UnixNanos,
    /// Whether the last push was refused. The times do not tell: the clock may have been set back.
    pub(super) is_refused: bool,
    /// When the first push came, whatever became of it.
    pub since: UnixNanos,
    /// How many groups had come to be before: tells which of two is older.
    pub(super) sequence: u64,
    /// What its pushes have promised, if anything.
    pub(super) promises: Option<Promises>,
    /// The runs that its pushes have told of, if any.
    pub(super) runs: Option<Arc<Runs>>,
    /// The run whose push it shows, if that is known. Behind a pointer, as it is for few groups of many.
    pub(super) shown: Option<Box<Shown>>,
}

/// How a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// The last push was refused.
    Failed,
    /// The next push was promised, and has not come in time.
    Overdue,
    /// Its series have gone, as it was asked for; what is left tells when it was pushed.
    Expired,
    /// Pushes come as promised.
    Up,
    /// Nothing is promised.
    Unpromised,
}

impl GroupState {
    /// All, the worst first.
    pub const ALL: [Self; 5] = [Self::Failed, Self::Overdue, Self::Expired, Self::Up, Self::Unpromised];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Overdue => "overdue",
            Self::Expired => "expired",
            Self::Up => "up",
            Self::Unpromised => "unpromised",
        }
    }
}

/// A family of one group.
#[derive(Debug, Clone)]
pub struct StoredFamily {
    /// What it has in common with that of other groups, and shares with them where it can.
    pub(super) head: Arc<StoredHead>,
    /// When it was said: when it was pushed, or when the run ended whose result it is of.
    pub said_at: UnixNanos,
    pub(super) metrics: Metrics,
}

/// What a family has beside its metrics. Of several the first is exposed: one with a help text, by the alphabet.
#[derive(Debug)]
pub(super) struct StoredHead {
    pub(super) name: Arc<str>,
    pub(super) kind: MetricType,
    pub(super) help: Option<Box<str>>,
    pub(super) unit: Option<Box<str>>,
    pub(super) place: Place,
}

impl PartialEq for StoredHead {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for StoredHead {}

impl PartialOrd for StoredHead {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StoredHead {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

/// Where a family is exposed.
#[derive(Debug)]
pub(super) enum Place {
    /// With the family of this number in all groups.
    Exposed(u32),
    /// Nowhere, because of this.
    Aside(Inconsistent),
}

impl StoredHead {
    /// All but the place, which is the same for all of an exposed family.
    fn identity(&self) -> (&str, bool, Option<&str>, Option<&str>, &'static str) {
        (&self.name, self.help.is_none(), self.help.as_deref(), self.unit.as_deref(), self.kind.proto_name())
    }

    pub(super) fn new(family: &MetricFamily, name: Arc<str>, place: Place) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(Box::from);
        Self { name, kind: family.kind, help: text(&family.help), unit: text(&family.unit), place }
    }

    /// Whether a pushed family has the same one.
    pub(super) fn is_of(&self, family: &MetricFamily) -> bool {
        *self.name == *family.name
            && self.kind == family.kind
            && self.help.as_deref() == family.help.as_deref()
            && self.unit.as_deref() == family.unit.as_deref()
    }

    /// Whether it stays what it is when metrics of a pushed family come to it.
    pub(super) fn stays_with(&self, family: &MetricFamily) -> bool {
        let stays = |known: &Option<Box<str>>, new: &Option<String>| {
            new.is_none() || new.as_deref() == known.as_deref()
        };
        self.takes_type_of(family) && stays(&self.help, &family.help) && stays(&self.unit, &family.unit)
    }

    /// Whether a pushed family is of its type, or can be: a number without a type has the one that is known.
    pub(super) fn takes_type_of(&self, family: &MetricFamily) -> bool {
        let is_number = matches!(self.kind, MetricType::Gauge | MetricType::Counter);
        family.kind == self.kind || (family.kind == MetricType::Untyped && is_number)
    }

    pub(super) fn as_head(&self) -> Head<'_> {
        Head {
            name: &self.name,
            help: self.help.as_deref().filter(|help| !help.is_empty()),
            unit: self.unit.as_deref().filter(|unit| !unit.is_empty()),
            kind: self.kind,
        }
    }
}

impl StoredFamily {
    /// Why it is not exposed, if it is not.
    pub fn aside(&self) -> Option<&Inconsistent> {
        match &self.head.place {
            Place::Exposed(_) => None,
            Place::Aside(reason) => Some(reason),
        }
    }

    /// Whether it exposes exactly the series of a pushed family, whose values are good.
    pub(super) fn has_series_of(&self, family: &MetricFamily) -> bool {
        self.aside().is_none()
            && self.head.is_of(family)
            && !family.metrics.is_empty()
            && self.metrics.len() == family.metrics.len()
            && self
                .metrics
                .iter()
                .zip(&family.metrics)
                .all(|(stored, new)| stored.has_labels(&new.labels) && stored.takes(new))
    }

    /// The fingerprints of its series.
    pub(super) fn fingerprints(&self, key: &GroupingKey, hash: &SeriesHash) -> Vec<Fingerprint> {
        let hash = GroupHash::new(hash, Some(key.labels()));
        let of = |metric: &StoredMetric| hash.metric(&self.head.name, metric.own_labels());
        self.metrics.iter().flat_map(of).collect()
    }

    /// The family without the labels that its group gives.
    pub(super) fn to_stripped(&self) -> MetricFamily {
        self.family_of(|metric| metric.to_stripped(self.head.kind))
    }

    /// The family as it was pushed, and when.
    pub(super) fn to_pushed(&self) -> (MetricFamily, UnixNanos) {
        (self.to_stripped(), self.said_at)
    }

    /// The family with the labels that it is exposed with.
    pub fn to_family(&self, key: &GroupingKey) -> MetricFamily {
        self.family_of(|metric| metric.to_metric(self.head.kind, key))
    }

    fn family_of(&self, metric: impl Fn(&StoredMetric) -> Metric) -> MetricFamily {
        let metrics = self.metrics.iter().map(metric).collect();
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        MetricFamily {
            name: self.head.name.to_string(),
            help: text(&self.head.help),
            unit: text(&self.head.unit),
            kind: self.head.kind,
            metrics,
        }
    }

    /// About how many bytes it takes in a text.
    pub(super) fn text_bytes(&self, key: &GroupingKey) -> usize {
        self.text_bytes_of(&self.metrics, key)
    }

    /// About how many bytes metrics of it take in a text.
    pub(super) fn text_bytes_of(&self, metrics: &[StoredMetric], key: &GroupingKey) -> usize {
        let common = self.head.name.len() + labels_bytes(key);
        let metric = |metric: &StoredMetric| {
            let (own, lines) = metric.text_bytes();
            (common + own + VALUE_BYTES) * lines
        };
        metrics.iter().map(metric).sum()
    }
}

/// A value, and what stands around it in its line.
const VALUE_BYTES: usize = 24;

fn labels_bytes(key: &GroupingKey) -> usize {
    key.labels().text_bytes() + 4 * key.labels().len()
}

impl Group {
    pub(super) fn new(key: GroupingKey, since: UnixNanos, sequence: u64) -> Self {
        let never = UnixNanos::default();
        Self {
            key: Arc::new(key),
            families: Vec::new(),
            succeeded_at: never,
            failed_at: never,
            is_refused: false,
            since,
            sequence,
            promises: None,
            runs: None,
            shown: None,
        }
    }

    /// Notes that a push was taken, what it promises and which runs it tells of. One that is late tells of runs only.
    pub(super) fn take(&mut self, push: &Push) {
        if !push.is_late {
            self.succeeded_at = push.at.unix;
            self.is_refused = false;
            self.promises = Promises::renewed(self.promises.as_ref(), &push.wishes, push.at);
            if let Some(run) = push.run {
                self.shown = Some(Box::new(run.shows(self, push.at.unix)));
            }
        }
        if !push.runs.is_empty() {
            let runs = Arc::make_mut(self.runs.get_or_insert_default());
            for run in &push.runs {
                runs.add(run);
            }
        }
    }

    /// Families by name.
    pub fn families(&self) -> &[StoredFamily] {
        &self.families
    }

    /// How long after a push that was promised the next one is due, if that is promised.
    pub fn expect(&self) -> Option<Duration> {
        self.promises.as_ref()?.expect()
    }

    /// When the next push is due, if that was promised.
    pub fn expected_at(&self) -> Option<UnixNanos> {
        self.promises.as_ref()?.expected_at()
    }

    /// How long after the last good push the series go, if they do.
    pub fn ttl(&self) -> Option<Duration> {
        self.promises.as_ref()?.ttl()
    }

    /// When the series go, or went.
    pub fn expires_at(&self) -> Option<UnixNanos> {
        Some(self.succeeded_at.after(self.ttl()?))
    }

    /// Whether the series have gone.
    pub fn is_expired(&self) -> bool {
        self.promises.as_ref().is_some_and(|promises| promises.is_expired)
    }

    /// Whether pushes come as promised; nothing where nothing is promised.
    pub fn is_up(&self) -> Option<bool> {
        let promises = self.promises.as_ref()?;
        promises.expect().map(|_| !promises.is_overdue && self.last_push_successful())
    }

    /// How it is doing.
    pub fn state(&self) -> GroupState {
        match self.is_up() {
            _ if !self.last_push_successful() => GroupState::Failed,
            Some(false) => GroupState::Overdue,
            _ if self.is_expired() => GroupState::Expired,
            Some(true) => GroupState::Up,
            None => GroupState::Unpromised,
        }
    }

    /// The runs that its pushes have told of, if any.
    pub fn runs(&self) -> Option<&Runs> {
        self.runs.as_deref()
    }

    /// Whether the end of a run is known.
    pub(super) fn has_ended(&self, id: RunId) -> bool {
        self.runs().is_some_and(|runs| runs.has_ended(id))
    }

    /// The run whose push it shows, if that is known.
    pub(super) fn shown(&self) -> Option<&Shown> {
        self.shown.as_deref()
    }

    /// How many series it exposes; those of the store itself are not counted.
    pub fn series(&self) -> usize {
        let exposed = self.families.iter().filter(|family| family.aside().is_none());
        exposed.map(|family| family.metrics.len()).sum()
    }

    /// Whether a push was ever taken.
    pub fn has_succeeded(&self) -> bool {
        self.succeeded_at != UnixNanos::default()
    }

    /// Whether the last push was taken.
    pub fn last_push_successful(&self) -> bool {
        !self.is_refused
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.families.binary_search_by(|family| (*family.head.name).cmp(name))
    }

    pub(super) fn family(&self, name: &str) -> Option<&StoredFamily> {
        self.find(name).ok().map(|at| &self.families[at])
    }

    /// The family of a name, looked for where it is likely first; then `place` is where it was.
    pub(super) fn family_near(&self, name: &str, place: &mut usize) -> Option<&StoredFamily> {
        if self.families.get(*place).is_none_or(|family| *family.head.name != *name) {
            *place = self.find(name).ok()?;
        }
        self.families.get(*place)
    }

    /// See [`Self::family_near`].
    pub(super) fn family_near_mut(&mut self, name: &str, place: &mut usize) -> Option<&mut StoredFamily> {
        self.family_near(name, place)?;
        self.families.get_mut(*place)
    }

    pub(super) fn family_mut(&mut self, name: &str) -> Option<&mut StoredFamily> {
        self.find(name).ok().map(|at| &mut self.families[at])
    }

    /// Puts a family in the place of the one with the same name.
    pub(super) fn replace(&mut self, family: StoredFamily) {
        if let Ok(at) = self.find(&family.head.name) {
            self.families[at] = family;
        }
    }

    /// Gives the family with its name a head.
    pub(super) fn set_head(&mut self, head: StoredHead) {
        if let Some(family) = self.family_mut(&head.name.clone()) {
            family.head = Arc::new(head);
        }
    }

    /// About how many bytes a line of it takes in a text.
    pub(super) fn line_bytes(&self, family: &str) -> usize {
        family.len() + labels_bytes(&self.key) + VALUE_BYTES
    }
}

/// The order of metrics in a family: by the number of labels and then by their values, as client_golang has it.
pub(super) fn exposition_order<'a>(
    a: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    b: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.map(|(_, value)| value).cmp(b.map(|(_, value)| value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_family_is_small() {
        assert!(size_of::<StoredFamily>() <= 40, "{}", size_of::<StoredFamily>());
    }
}
