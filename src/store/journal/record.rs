//! What is recorded: changes, and in snapshots whole groups. Protocol buffers, so that later versions can add to it.

use std::collections::HashSet;

use prost::Message as _;

use crate::exposition::series::{Fingerprint, GroupHash, SeriesHash};
use crate::exposition::{Limits, MetricFamily, protobuf};
use crate::grouping::{GroupingKey, JOB_LABEL};
use crate::store::group::{Group, StoredFamily, UnixNanos};
use crate::store::writer::Judged;
use crate::store::{Change, Push, PushMode};

/// A label.
#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Push(PushEntry),
    #[prost(message, tag = "2")]
    Delete(KeyEntry),
    #[prost(message, tag = "3")]
    Failed(KeyEntry),
    #[prost(bool, tag = "4")]
    Wipe(bool),
    #[prost(message, tag = "5")]
    Group(GroupEntry),
    #[prost(uint64, tag = "6")]
    SnapshotBegin(u64),
    #[prost(uint64, tag = "7")]
    SnapshotEnd(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct PushEntry {
    #[prost(message, repeated, tag = "1")]
    key: Vec<Pair>,
    #[prost(sfixed64, tag = "2")]
    at: i64,
    #[prost(bool, tag = "3")]
    replace_group: bool,
    /// Delimited `MetricFamily` messages, without the labels of the group.
    #[prost(bytes = "vec", tag = "4")]
    families: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyEntry {
    #[prost(message, repeated, tag = "1")]
    key: Vec<Pair>,
    #[prost(sfixed64, tag = "2")]
    at: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GroupEntry {
    #[prost(message, repeated, tag = "1")]
    key: Vec<Pair>,
    #[prost(sfixed64, tag = "2")]
    succeeded_at: i64,
    #[prost(sfixed64, tag = "3")]
    failed_at: i64,
    #[prost(sfixed64, tag = "4")]
    since: i64,
    #[prost(uint64, tag = "5")]
    sequence: u64,
    /// Delimited `MetricFamily` messages, without the labels of the group.
    #[prost(bytes = "vec", tag = "6")]
    families: Vec<u8>,
    /// When each was pushed.
    #[prost(sfixed64, repeated, tag = "7")]
    pushed_at: Vec<i64>,
    /// Which are not exposed.
    #[prost(bool, repeated, tag = "8")]
    aside: Vec<bool>,
}

/// A record.
#[derive(Debug)]
pub(super) enum Record {
    /// A push, and what it was found to be by itself, where it was judged.
    Push(Push, Option<Judged>),
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
        Change::Push(push) => {
            let mut families = Vec::new();
            protobuf::encode(&mut families, &push.families);
            Kind::Push(PushEntry {
                key: pairs(&push.key),
                at: push.at.0,
                replace_group: push.mode == PushMode::ReplaceGroup,
                families,
            })
        }
        Change::Delete(key) => Kind::Delete(KeyEntry { key: pairs(key), at: 0 }),
        Change::Failed { key, at } => Kind::Failed(KeyEntry { key: pairs(key), at: at.0 }),
        Change::Wipe => Kind::Wipe(true),
    })
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
        pushed_at: group.families().iter().map(|family| family.pushed_at.0).collect(),
        aside: group.families().iter().map(|family| family.aside().is_some()).collect(),
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
    /// Groups that it has met. What is pushed to them again are new values mostly, which nobody needs to judge.
    met: HashSet<u64>,
}

impl Reader {
    pub(super) fn new(hash: SeriesHash) -> Self {
        Self { hash, met: HashSet::new() }
    }

    /// Reads a payload; nothing where it is none of this version.
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<Record> {
        Some(match Entry::decode(payload).ok()?.kind? {
            Kind::Push(push) => {
                let push = Push {
                    key: key(push.key)?,
                    families: families(&push.families)?,
                    mode: if push.replace_group { PushMode::ReplaceGroup } else { PushMode::ReplaceFamilies },
                    at: UnixNanos(push.at),
                };
                let judged = self.is_new(&push.key).then(|| push.judge(&self.hash));
                Record::Push(push, judged)
            }
            Kind::Delete(entry) => Record::Change(Change::Delete(key(entry.key)?)),
            Kind::Failed(entry) => {
                Record::Change(Change::Failed { key: key(entry.key)?, at: UnixNanos(entry.at) })
            }
            Kind::Wipe(_) => Record::Change(Change::Wipe),
            Kind::Group(entry) => {
                let group = group(entry, &self.hash)?;
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
}

fn group(entry: GroupEntry, hash: &SeriesHash) -> Option<StoredGroup> {
    let mut group = Group::new(key(entry.key)?, UnixNanos(entry.since), entry.sequence);
    group.succeeded_at = UnixNanos(entry.succeeded_at);
    group.failed_at = UnixNanos(entry.failed_at);
    let families = families(&entry.families)?;
    if families.len() != entry.pushed_at.len() || families.len() != entry.aside.len() {
        return None;
    }
    let about = entry.pushed_at.into_iter().map(UnixNanos).zip(entry.aside);
    let hash = GroupHash::new(hash, Some(group.key.labels()));
    let exposed = |family: &MetricFamily, aside| {
        if aside { Exposed::No } else { Exposed::Yes(hash.family(family)) }
    };
    let families = families.into_iter().zip(about).map(|(family, (at, aside))| {
        let exposed = exposed(&family, aside);
        (family, at, exposed)
    });
    Some(StoredGroup { families: families.collect(), group })
}
