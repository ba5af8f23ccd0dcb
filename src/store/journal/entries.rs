//! The messages that records are written as.

use std::collections::BTreeMap;

/// A label.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
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
    #[prost(message, tag = "8")]
    Together(TogetherEntry),
    #[prost(message, tag = "9")]
    DeleteAll(KeysEntry),
    #[prost(message, tag = "10")]
    Due(DueEntry),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PushEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) key: Vec<Pair>,
    #[prost(sfixed64, tag = "2")]
    pub(super) at: i64,
    #[prost(bool, tag = "3")]
    pub(super) replace_group: bool,
    /// Delimited `MetricFamily` messages, without the labels of the group.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) families: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub(super) replace_metrics: bool,
    #[prost(message, optional, tag = "6")]
    pub(super) ttl: Option<WishEntry>,
    #[prost(message, optional, tag = "7")]
    pub(super) expect: Option<WishEntry>,
    #[prost(message, repeated, tag = "8")]
    pub(super) runs: Vec<RunEntry>,
    #[prost(sfixed64, optional, tag = "9")]
    pub(super) run_ended_at: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "10")]
    pub(super) run: Option<Vec<u8>>,
}

/// What a push says about a promise, in nanoseconds.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WishEntry {
    /// A length of time, or one of [`WITHDRAWN`], [`NEVER`], [`STAYS`].
    #[prost(sint64, optional, tag = "1")]
    pub(super) asked: Option<i64>,
    #[prost(sint64, tag = "2")]
    pub(super) otherwise: i64,
    #[prost(sint64, optional, tag = "3")]
    pub(super) most: Option<i64>,
}

/// What was asked before holds no more.
pub(super) const WITHDRAWN: i64 = 0;
/// It never falls due.
pub(super) const NEVER: i64 = -1;
/// It falls due when it would have.
pub(super) const STAYS: i64 = -2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TogetherEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) pushes: Vec<PushEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeysEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) keys: Vec<KeyEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DueEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) key: Vec<Pair>,
    /// Whether the series went; else the next push is overdue.
    #[prost(bool, tag = "2")]
    pub(super) is_expired: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RunEntry {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(double, tag = "2")]
    pub(super) end_seconds: f64,
    #[prost(double, tag = "3")]
    pub(super) duration_seconds: f64,
    #[prost(uint32, tag = "4")]
    pub(super) exit_code: u32,
    #[prost(string, tag = "5")]
    pub(super) outcome: String,
}

/// What is promised for a group, in nanoseconds.
#[allow(clippy::struct_excessive_bools, reason = "it is a record, not a state")]
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PromisesEntry {
    #[prost(sint64, tag = "1")]
    pub(super) ttl: i64,
    #[prost(bool, tag = "2")]
    pub(super) ttl_is_asked: bool,
    #[prost(sint64, tag = "3")]
    pub(super) expect: i64,
    #[prost(bool, tag = "4")]
    pub(super) expect_is_asked: bool,
    #[prost(bool, tag = "5")]
    pub(super) is_overdue: bool,
    #[prost(bool, tag = "6")]
    pub(super) is_expired: bool,
    /// When the push came from which on the next one is expected, where that is not the last one.
    #[prost(sfixed64, optional, tag = "7")]
    pub(super) expect_since: Option<i64>,
}

/// The runs of a group.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RunsEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) last: Vec<RunEntry>,
    /// How many ended so, by the names of outcomes.
    #[prost(btree_map = "string, uint64", tag = "3")]
    pub(super) counts: BTreeMap<String, u64>,
    #[prost(double, tag = "4")]
    pub(super) sum_seconds: f64,
    /// Not cumulative, by the upper bounds as texts.
    #[prost(btree_map = "string, uint64", tag = "5")]
    pub(super) classic: BTreeMap<String, u64>,
    #[prost(uint64, tag = "6")]
    pub(super) zero: u64,
    #[prost(btree_map = "sint32, uint64", tag = "7")]
    pub(super) native: BTreeMap<i32, u64>,
    /// Ids of those that were last skipped, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) skips: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) key: Vec<Pair>,
    #[prost(sfixed64, tag = "2")]
    pub(super) at: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupEntry {
    #[prost(message, repeated, tag = "1")]
    pub(super) key: Vec<Pair>,
    #[prost(sfixed64, tag = "2")]
    pub(super) succeeded_at: i64,
    #[prost(sfixed64, tag = "3")]
    pub(super) failed_at: i64,
    #[prost(sfixed64, tag = "4")]
    pub(super) since: i64,
    #[prost(uint64, tag = "5")]
    pub(super) sequence: u64,
    /// Delimited `MetricFamily` messages, without the labels of the group.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) families: Vec<u8>,
    /// When each was pushed.
    #[prost(sfixed64, repeated, tag = "7")]
    pub(super) said_at: Vec<i64>,
    /// Which are not exposed.
    #[prost(bool, repeated, tag = "8")]
    pub(super) aside: Vec<bool>,
    #[prost(message, optional, tag = "9")]
    pub(super) promises: Option<PromisesEntry>,
    #[prost(message, optional, tag = "10")]
    pub(super) runs: Option<RunsEntry>,
    /// Where it is not there, the times tell.
    #[prost(bool, optional, tag = "11")]
    pub(super) is_refused: Option<bool>,
    #[prost(message, optional, tag = "12")]
    pub(super) shown: Option<ShownEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ShownEntry {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(sfixed64, tag = "2")]
    pub(super) said_at: i64,
}
