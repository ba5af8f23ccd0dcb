//! What is recorded: changes, and in snapshots whole groups. Protocol buffers, so that later versions can add to it.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message as _;

use super::entries::{
    DueEntry, Entry, GroupEntry, KeyEntry, KeysEntry, Kind, NEVER, Pair, PromisesEntry, PushEntry, RunEntry,
    RunsEntry, STAYS, ShownEntry, TogetherEntry, WITHDRAWN, WishEntry,
};
use crate::exposition::series::{Fingerprint, GroupHash, SeriesHash};
use crate::exposition::{Limits, MetricFamily, protobuf};
use crate::grouping::{GroupingKey, JOB_LABEL};
use crate::run::RunOutcome;
use crate::store::group::{Group, StoredFamily, UnixNanos};
use crate::store::order::{PushingRun, Shown};
use crate::store::own::OwnNames;
use crate::store::promises::{Ask, Due, Moment, Promises, Term, Wish, Wishes};
use crate::store::runs::{Durations, Run, RunId, Runs};
use crate::store::writer::Judged;
use crate::store::{Change, Push, PushMode};

/// A record.
#[derive(Debug)]
pub(super) enum Record {
    /// A push, and what it was found to be by itself, where it was judged.
    Push(Push, Option<Judged>),
    /// Pushes that are one change.
    Together(Vec<(Push, Judged)>),
    /// Another change of the store.
    Change(Change),
    /// A group of a snapshot.
    Group(StoredGroup),
    /// A snapshot begins, which this is the first record not to be in.
    SnapshotBegin { next: u64 },
    /// A snapshot ends, which has so many groups.
    SnapshotEnd { groups: u64 },
}

/// A group as a snapshot has it.
#[derive(Debug)]
pub(in crate::store) struct StoredGroup {
    /// The group without its families.
    pub(in crate::store) group: Group,
    /// Its families, without the labels of the group.
    pub(in crate::store) families: Vec<(MetricFamily, UnixNanos, Exposed)>,
}

/// Whether a family is exposed.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Exposed {
    /// It is, and its series have these fingerprints.
    Yes(Vec<Fingerprint>),
    /// Others contradict it.
    No,
}

fn pairs(key: &GroupingKey) -> Vec<Pair> {
    let pair = |(name, value): (&str, &str)| Pair { name: name.to_owned(), value: value.to_owned() };
    key.labels().iter().map(pair).collect()
}

fn key(pairs: Vec<Pair>) -> Option<GroupingKey> {
    let job = pairs.iter().find(|pair| pair.name == JOB_LABEL)?.value.clone();
    Some(GroupingKey::new(&job, pairs.into_iter().map(|pair| (pair.name, pair.value))))
}

fn families(bytes: &[u8]) -> Option<Vec<MetricFamily>> {
    protobuf::decode(bytes, &Limits::NONE).ok()
}

fn encode(kind: Kind) -> Vec<u8> {
    Entry { kind: Some(kind) }.encode_to_vec()
}

/// The payload of a change's record.
pub(super) fn of_change(change: &Change) -> Vec<u8> {
    encode(match change {
        Change::Push(push) => Kind::Push(push_entry(push)),
        Change::Together(pushes) => {
            Kind::Together(TogetherEntry { pushes: pushes.iter().map(push_entry).collect() })
        }
        Change::Delete(keys) => match &keys[..] {
            [key] => Kind::Delete(key_entry(key)),
            keys => Kind::DeleteAll(KeysEntry { keys: keys.iter().map(key_entry).collect() }),
        },
        Change::Due { key, due } => Kind::Due(DueEntry { key: pairs(key), is_expired: *due == Due::Expired }),
        Change::Failed { key, at } => Kind::Failed(KeyEntry { key: pairs(key), at: at.0 }),
        Change::Wipe => Kind::Wipe(true),
    })
}

fn key_entry(key: &GroupingKey) -> KeyEntry {
    KeyEntry { key: pairs(key), at: 0 }
}

fn push_entry(push: &Push) -> PushEntry {
    let mut families = Vec::new();
    protobuf::encode(&mut families, &push.families);
    let wish = |wish: Wish| {
        (wish != Wish::default()).then_some(WishEntry {
            asked: match wish.ask {
                Ask::Nothing => None,
                Ask::In(length) => Some(length),
                Ask::Withdrawn => Some(WITHDRAWN),
                Ask::Never => Some(NEVER),
                Ask::Stays => Some(STAYS),
            },
            otherwise: wish.otherwise,
            most: wish.most,
        })
    };
    PushEntry {
        key: pairs(&push.key),
        at: push.at.unix.0,
        replace_group: push.mode == PushMode::ReplaceGroup,
        replace_metrics: push.mode == PushMode::ReplaceMetrics,
        families,
        ttl: wish(push.wishes.ttl),
        expect: wish(push.wishes.expect),
        runs: push.runs.iter().map(run_entry).collect(),
        run_ended_at: push.run.and_then(|run| run.ended_at).map(|at| at.0),
        run: push.run.map(|run| run_id_bytes(run.id)),
    }
}

fn run_entry(run: &Run) -> RunEntry {
    RunEntry {
        id: run_id_bytes(run.id),
        end_seconds: run.end_seconds,
        duration_seconds: run.duration_seconds,
        exit_code: run.exit_code.into(),
        outcome: run.outcome.name().to_owned(),
    }
}

fn promises_entry(promises: &Promises) -> PromisesEntry {
    PromisesEntry {
        ttl: promises.ttl.length,
        ttl_is_asked: promises.ttl.is_asked,
        expect: promises.expect.length,
        expect_is_asked: promises.expect.is_asked,
        is_overdue: promises.is_overdue,
        is_expired: promises.is_expired,
        expect_since: Some(promises.expect_since.unix.0),
    }
}

fn runs_entry(runs: &Runs) -> RunsEntry {
    let durations = runs.durations();
    let counted = |(name, count): (String, u64)| (count > 0).then_some((name, count));
    let counts = RunOutcome::ALL.map(|outcome| (outcome.name().to_owned(), runs.count(outcome)));
    let classic = Durations::bounds().zip(durations.classic).map(|(bound, count)| (bound.to_string(), count));
    RunsEntry {
        last: runs.known().map(run_entry).collect(),
        skips: runs.skips().copied().map(run_id_bytes).collect(),
        counts: counts.into_iter().filter_map(counted).collect(),
        sum_seconds: durations.sum_seconds,
        classic: classic.filter_map(counted).collect(),
        zero: durations.zero,
        native: durations.native.clone(),
    }
}

/// The payload of a group's record.
pub(super) fn of_group(group: &Group) -> Vec<u8> {
    let mut families = Vec::new();
    let stripped = group.families().iter().map(StoredFamily::to_stripped);
    stripped.for_each(|family| protobuf::encode(&mut families, [&family]));
    encode(Kind::Group(GroupEntry {
        key: pairs(&group.key),
        succeeded_at: group.succeeded_at.0,
        failed_at: group.failed_at.0,
        since: group.since.0,
        sequence: group.sequence,
        families,
        said_at: group.families().iter().map(|family| family.said_at.0).collect(),
        aside: group.families().iter().map(|family| family.aside().is_some()).collect(),
        promises: group.promises.as_ref().map(promises_entry),
        runs: group.runs().map(runs_entry),
        is_refused: Some(group.is_refused),
        shown: group.shown().map(|shown| ShownEntry { id: run_id_bytes(shown.id), said_at: shown.said_at.0 }),
    }))
}

/// The payload of the record that a snapshot begins with.
pub(super) fn of_snapshot_begin(next: u64) -> Vec<u8> {
    encode(Kind::SnapshotBegin(next))
}

/// The payload of the record that a snapshot ends with.
pub(super) fn of_snapshot_end(groups: u64) -> Vec<u8> {
    encode(Kind::SnapshotEnd(groups))
}

/// Reads payloads.
pub(super) struct Reader {
    hash: SeriesHash,
    /// What only the store itself exposes now.
    names: OwnNames,
    /// When it reads.
    now: Moment,
    /// Groups that it has met. What is pushed to them again are new values mostly, which nobody needs to judge.
    met: HashSet<u64>,
}

impl Reader {
    pub(super) fn new(hash: SeriesHash, names: OwnNames, now: Moment) -> Self {
        Self { hash, names, now, met: HashSet::new() }
    }

    /// Reads a payload; nothing where it is none of this version.
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<Record> {
        Some(match Entry::decode(payload).ok()?.kind? {
            Kind::Push(entry) => {
                let push = self.push(entry)?;
                let judged = self.is_new(&push.key).then(|| push.judge(&self.hash));
                Record::Push(push, judged)
            }
            Kind::Together(entry) => {
                let pushes = entry.pushes.into_iter().map(|push| {
                    let push = self.push(push)?;
                    self.is_new(&push.key);
                    let judged = push.judge(&self.hash);
                    Some((push, judged))
                });
                Record::Together(pushes.collect::<Option<_>>()?)
            }
            Kind::Delete(entry) => Record::Change(Change::Delete(vec![key(entry.key)?])),
            Kind::DeleteAll(entry) => {
                let keys = entry.keys.into_iter().map(|entry| key(entry.key)).collect::<Option<_>>()?;
                Record::Change(Change::Delete(keys))
            }
            Kind::Due(entry) => {
                let due = if entry.is_expired { Due::Expired } else { Due::Overdue };
                Record::Change(Change::Due { key: Arc::new(key(entry.key)?), due })
            }
            Kind::Failed(entry) => {
                Record::Change(Change::Failed { key: key(entry.key)?, at: UnixNanos(entry.at) })
            }
            Kind::Wipe(_) => Record::Change(Change::Wipe),
            Kind::Group(entry) => {
                let group = self.group(entry)?;
                self.is_new(&group.group.key);
                Record::Group(group)
            }
            Kind::SnapshotBegin(next) => Record::SnapshotBegin { next },
            Kind::SnapshotEnd(groups) => Record::SnapshotEnd { groups },
        })
    }

    fn is_new(&mut self, key: &GroupingKey) -> bool {
        self.met.insert(self.hash.of(key))
    }

    fn push(&self, entry: PushEntry) -> Option<Push> {
        let wish = |entry: Option<WishEntry>| {
            let ask = |asked: Option<i64>| match asked {
                None => Ask::Nothing,
                Some(WITHDRAWN) => Ask::Withdrawn,
                Some(STAYS) => Ask::Stays,
                Some(length) if length > 0 => Ask::In(length),
                Some(_) => Ask::Never,
            };
            let wish = |entry: WishEntry| Wish {
                ask: ask(entry.asked),
                otherwise: entry.otherwise,
                most: entry.most,
            };
            entry.map_or_else(Wish::default, wish)
        };
        let mut push = Push {
            key: key(entry.key)?,
            families: families(&entry.families)?,
            mode: match (entry.replace_group, entry.replace_metrics) {
                (true, _) => PushMode::ReplaceGroup,
                (false, true) => PushMode::ReplaceMetrics,
                (false, false) => PushMode::ReplaceFamilies,
            },
            at: self.now.at(UnixNanos(entry.at)),
            wishes: Wishes { ttl: wish(entry.ttl), expect: wish(entry.expect) },
            runs: entry.runs.into_iter().map(run).collect::<Option<_>>()?,
            run: entry.run.and_then(run_id).map(|id| {
                let ended_at = entry.run_ended_at.map(UnixNanos);
                PushingRun { id, ended_at }
            }),
            is_late: false,
        };
        let _ = push.leave_out(&self.names);
        if push.mode == PushMode::ReplaceMetrics {
            // Early versions recorded families without metrics, too, which say nothing.
            push.families.retain(|family| !family.metrics.is_empty());
        }
        Some(push)
    }

    fn group(&self, entry: GroupEntry) -> Option<StoredGroup> {
        let mut group = Group::new(key(entry.key)?, UnixNanos(entry.since), entry.sequence);
        group.succeeded_at = UnixNanos(entry.succeeded_at);
        group.failed_at = UnixNanos(entry.failed_at);
        group.is_refused = entry.is_refused.unwrap_or(entry.failed_at > entry.succeeded_at);
        let since = self.now.at(group.succeeded_at);
        group.promises = entry.promises.and_then(|entry| {
            let term = |length, is_asked| Term { length, is_asked };
            let ttl = term(entry.ttl, entry.ttl_is_asked);
            let expect = term(entry.expect, entry.expect_is_asked);
            let promises = Promises::of(ttl, expect, since)?;
            let PromisesEntry { is_overdue, is_expired, .. } = entry;
            let expect_since = entry.expect_since.map_or(since, |at| self.now.at(UnixNanos(at)));
            Some(Promises { expect_since, is_overdue, is_expired, ..promises })
        });
        group.runs = match entry.runs {
            None => None,
            Some(entry) => Some(Arc::new(runs(entry)?)),
        };
        group.shown = entry.shown.and_then(|shown| {
            Some(Box::new(Shown { id: run_id(shown.id)?, said_at: UnixNanos(shown.said_at) }))
        });
        let families = families(&entry.families)?;
        if families.len() != entry.said_at.len() || families.len() != entry.aside.len() {
            return None;
        }
        let about = entry.said_at.into_iter().map(UnixNanos).zip(entry.aside);
        let hash = GroupHash::new(&self.hash, Some(group.key.labels()));
        let exposed = |family: &MetricFamily, aside| {
            if aside { Exposed::No } else { Exposed::Yes(hash.family(family)) }
        };
        let families = families.into_iter().zip(about).map(|(family, (at, aside))| {
            let exposed = exposed(&family, aside);
            (family, at, exposed)
        });
        Some(StoredGroup { families: families.collect(), group })
    }
}

fn run_id_bytes(id: RunId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

fn run_id(bytes: Vec<u8>) -> Option<RunId> {
    Some(RunId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

fn run(entry: RunEntry) -> Option<Run> {
    Some(Run {
        id: run_id(entry.id)?,
        end_seconds: entry.end_seconds,
        duration_seconds: entry.duration_seconds,
        exit_code: u8::try_from(entry.exit_code).ok()?,
        outcome: RunOutcome::named(&entry.outcome)?,
    })
}

fn runs(entry: RunsEntry) -> Option<Runs> {
    let last = entry.last.into_iter().map(run).collect::<Option<_>>()?;
    let skips = entry.skips.into_iter().map(run_id).collect::<Option<_>>()?;
    let count = |outcome: RunOutcome| entry.counts.get(outcome.name()).copied().unwrap_or_default();
    let durations = Durations::restored(entry.sum_seconds, &entry.classic, entry.zero, entry.native)?;
    Some(Runs::restored(last, skips, RunOutcome::ALL.map(count), durations))
}
