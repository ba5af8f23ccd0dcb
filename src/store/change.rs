//! Changes of the store, as they are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::{Group, StoredFamily, UnixNanos};
use super::order::PushingRun;
use super::own::OwnNames;
use super::promises::{Due, Moment, Wishes};
use super::runs::Run;
use super::writer::Judged;
use crate::exposition::check::{self, Inconsistent};
use crate::exposition::series::{self, SeriesHash};
use crate::exposition::{Labels, Metric, MetricFamily, MetricType, Value};
use crate::grouping::GroupingKey;

/// A change of the store.
#[derive(Debug)]
pub enum Change {
    /// Replace or add to a group; makes the group if there is none.
    Push(Push),
    /// Replace several groups, all or none of them.
    Together(Vec<Push>),
    /// Forget groups, as far as they are there.
    Delete(Vec<GroupingKey>),
    /// Note that a push of a valid group was refused.
    Failed {
        /// The group.
        key: GroupingKey,
        /// When it was refused.
        at: UnixNanos,
    },
    /// Something that was promised for a group has fallen due.
    Due {
        /// The group.
        key: Arc<GroupingKey>,
        /// What.
        due: Due,
    },
    /// Forget everything.
    Wipe,
}

/// A push.
#[derive(Debug)]
pub struct Push {
    /// The group.
    pub key: GroupingKey,
    /// What was pushed, by name, without the labels that the group gives.
    pub(super) families: Vec<MetricFamily>,
    /// What becomes of the group's other families.
    pub mode: PushMode,
    /// When it arrived.
    pub at: Moment,
    /// What it promises.
    pub wishes: Wishes,
    /// The runs that it tells of.
    pub runs: Vec<Run>,
    /// The run that made it, if one did.
    pub run: Option<PushingRun>,
    /// Whether it was overtaken.
    pub(super) is_late: bool,
}

/// What a push does with what its group has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushMode {
    /// PUT: all of it goes.
    ReplaceGroup,
    /// POST: families stay; one of the same name is replaced as a whole.
    ReplaceFamilies,
    /// PATCH: metrics stay; one of the same name and labels gets a new value.
    ReplaceMetrics,
}

impl Push {
    /// Makes a push of families as they were read. It promises nothing.
    pub fn new(key: GroupingKey, families: Vec<MetricFamily>, mode: PushMode, at: impl Into<Moment>) -> Self {
        let mut families = families;
        families.sort_by(|a, b| a.name.cmp(&b.name));
        for family in &mut families {
            series::strip(family, key.labels());
        }
        if mode == PushMode::ReplaceMetrics {
            // It has nothing to say about a family without metrics.
            families.retain(|family| !family.metrics.is_empty());
        }
        Self {
            key,
            families,
            mode,
            at: at.into(),
            wishes: Wishes::default(),
            runs: Vec::new(),
            run: None,
            is_late: false,
        }
    }

    /// When it was said: when it came, or when the run ended whose result it is.
    pub(super) fn said_at(&self) -> UnixNanos {
        self.run.and_then(|run| run.ended_at).unwrap_or(self.at.unix)
    }

    /// Whether it was overtaken by others of its group.
    pub(super) fn is_late_for(&self, group: &Group) -> bool {
        let run = self.run.filter(|_| self.mode == PushMode::ReplaceFamilies);
        run.is_some_and(|run| run.is_late(&self.runs, group, self.at.unix))
    }

    /// Makes it a late one: of an older result is left what no later push has told of.
    pub(super) fn give_way(&mut self, group: &Group) {
        self.is_late = true;
        let said_at = self.said_at();
        let is_first = self.run.is_some_and(|run| run.ended_at.is_some() && !group.has_ended(run.id));
        let is_newest = |name: &str| group.family(name).is_none_or(|stored| stored.said_at < said_at);
        self.families.retain(|family| is_first && !group.is_expired() && is_newest(&family.name));
    }

    /// Leaves out what only the store itself exposes, and returns how many families that were.
    pub(super) fn leave_out(&mut self, names: &OwnNames) -> usize {
        let before = self.families.len();
        self.families.retain(|family| !names.contains(&family.name));
        before - self.families.len()
    }

    /// Whether it brings nothing but values for series that the group exposes, and good ones.
    pub(super) fn is_update_of(&self, group: &Group) -> bool {
        let stored = group.families();
        // The first push that is taken changes what the group counts as.
        if !group.has_succeeded() {
            return false;
        }
        match self.mode {
            PushMode::ReplaceGroup => {
                self.families.len() == stored.len()
                    && self.families.iter().zip(stored).all(|(new, stored)| stored.has_series_of(new))
            }
            PushMode::ReplaceFamilies | PushMode::ReplaceMetrics => {
                let has_series_of = |new: &MetricFamily| {
                    group.family(&new.name).is_some_and(|stored| stored.has_series_of(new))
                };
                self.families.iter().all(has_series_of)
            }
        }
    }

    /// Whether it replaces a family of its group.
    pub(super) fn replaces(&self, name: &str) -> bool {
        self.mode == PushMode::ReplaceGroup
            || self.families.binary_search_by(|family| family.name.as_str().cmp(name)).is_ok()
    }

    /// Judges it by itself. This is the costly part, and no part of the writer's work.
    pub(super) fn judge(&self, hash: &SeriesHash) -> Judged {
        check::alone(&self.families, self.key.labels(), hash)
    }

    /// The same, but where contradictions are kept aside: there families are judged when they are about to be exposed.
    pub(super) fn judge_unless_later(&self, hash: &SeriesHash, is_quarantine: bool) -> Judged {
        let is_later = is_quarantine && self.mode != PushMode::ReplaceMetrics;
        if is_later { Ok(Vec::new()) } else { self.judge(hash) }
    }

    /// # Errors
    /// What even those must not push who want no checks.
    pub(super) fn without_timestamps(&self) -> Result<(), Inconsistent> {
        let mut metrics = self.families.iter().flat_map(|family| &family.metrics);
        if metrics.any(|metric| metric.timestamp_ms.is_some()) {
            return Err(Inconsistent::Timestamps);
        }
        Ok(())
    }

    /// Makes a push of metrics one of families: each with what the group has of it already. Returns whether it has any.
    ///
    /// # Errors
    /// Where the group has a family of another type.
    pub(super) fn completed_from(&mut self, group: Option<&Group>) -> Result<bool, Inconsistent> {
        let stored = |name: &str| group.and_then(|group| group.family(name));
        for family in &self.families {
            if let Some(stored) = stored(&family.name).filter(|stored| !stored.head.takes_type_of(family)) {
                // Nothing has changed so far: half of a push is none.
                return Err(check::type_conflict(family, self.key.labels(), stored.head.kind));
            }
        }
        self.mode = PushMode::ReplaceFamilies;
        let mut has_any = false;
        for family in &mut self.families {
            let Some(stored) = stored(&family.name).map(StoredFamily::to_stripped) else { continue };
            adopt_type(family, stored.kind);
            upsert(family, stored);
            has_any = true;
        }
        Ok(has_any)
    }
}

/// A number without a type has the one that is known.
fn adopt_type(family: &mut MetricFamily, kind: MetricType) {
    let typed: fn(f64) -> Value = match kind {
        MetricType::Gauge => Value::Gauge,
        MetricType::Counter => Value::counter,
        _ => return,
    };
    if family.kind == MetricType::Untyped {
        family.kind = kind;
        for metric in &mut family.metrics {
            if let Value::Untyped(number) = metric.value {
                metric.value = typed(number);
            }
        }
    }
}

/// Adds what is stored and not pushed; what is pushed comes in the place of what is stored.
fn upsert(family: &mut MetricFamily, stored: MetricFamily) {
    // A label without value is none.
    let told_by = |metric: &Metric| {
        let labels = metric.labels.iter().filter(|(_, value)| !value.is_empty());
        Labels::from_pairs(labels)
    };
    let mut pushed: HashMap<Labels, Vec<Metric>> = HashMap::new();
    let mut fresh = Vec::new();
    for metric in std::mem::take(&mut family.metrics) {
        pushed.entry(told_by(&metric)).or_default().push(metric);
    }
    for metric in stored.metrics {
        match pushed.remove(&told_by(&metric)) {
            Some(new) => fresh.extend(new),
            None => fresh.push(metric),
        }
    }
    let mut rest: Vec<Metric> = pushed.into_values().flatten().collect();
    rest.sort_by(|a, b| a.labels.cmp(&b.labels));
    fresh.append(&mut rest);
    family.metrics = fresh;
    family.help = family.help.take().or(stored.help);
    family.unit = family.unit.take().or(stored.unit);
}
