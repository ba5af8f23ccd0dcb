//! What the gateway knows: groups of pushed families.
//!
//! The contract:
//!
//! * **One writer.** Only [`writer`] changes anything; it takes changes in the order they were submitted, so an answered
//!   change comes before every change submitted after the answer.
//! * **Snapshots for readers.** [`Store::snapshot`] is a consistent, immutable state: whole pushes only. Readers hold it as
//!   long as they like and hold nobody up.
//! * **Read your write.** A change is in the snapshot before its submitter gets the answer.
//! * **Cost.** A push costs what it holds, not what is stored: [`index`] answers the questions about the rest.
//! * **Durability.** None yet: the store lives in memory and a crash empties it. Every change passes through the writer's
//!   check → apply → acknowledge, which is where a log belongs.

pub mod expose;
pub mod group;
mod index;
mod quarantine;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::exposition::check::{self, Inconsistent};
use crate::exposition::{MetricFamily, MetricType};
use crate::grouping::GroupingKey;
pub use group::{Group, Snapshot, StoredFamily, UnixNanos};

/// Changes that may wait for the writer; as many as in a Pushgateway.
pub const WRITE_QUEUE_LEN_MAX: usize = 1000;
/// How long a change waits for a place in the queue before it is refused.
const WRITE_QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);

/// A change of the store.
#[derive(Debug)]
pub enum Change {
    /// Replace or add to a group; makes the group if there is none.
    Push(Push),
    /// Forget a group, if there is one.
    Delete(GroupingKey),
    /// Note that a push of a valid group was refused.
    Failed {
        /// The group.
        key: GroupingKey,
        /// When it was refused.
        at: UnixNanos,
    },
    /// Forget everything.
    Wipe,
}

/// A push.
#[derive(Debug)]
pub struct Push {
    /// The group.
    pub key: GroupingKey,
    /// What was pushed, with the labels of the group.
    families: Vec<MetricFamily>,
    /// What becomes of the group's other families.
    pub mode: PushMode,
    /// When it arrived.
    pub at: UnixNanos,
}

impl Push {
    /// Makes a push of families as they were read: each metric gets the labels of the group, and families that only the
    /// store itself exposes are left out. This is the costly part, and no part of the writer's work.
    pub fn new(key: GroupingKey, families: Vec<MetricFamily>, mode: PushMode, at: UnixNanos) -> Self {
        let mut families = families;
        families
            .retain(|family| family.name != group::PUSH_TIME.0 && family.name != group::PUSH_FAILURE_TIME.0);
        for family in &mut families {
            check::complete(family, key.labels());
        }
        Self { key, families, mode, at }
    }
}

/// What a push does with the families of its group that it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushMode {
    /// PUT: they go.
    ReplaceGroup,
    /// POST: they stay; a family of the same name is replaced as a whole.
    ReplaceFamilies,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The push contradicts itself or what is exposed; the failure is noted in its group.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// The push would make one group too many.
    #[error("there are {0} groups already")]
    TooManyGroups(usize),
    /// Too many changes are waiting.
    #[error("write queue is full")]
    QueueFull,
    /// The writer has ended: the gateway is shutting down.
    #[error("the store is shutting down")]
    Closed,
}

type Verdict = Result<(), StoreError>;

/// A change and where its verdict goes.
struct Submission {
    change: Change,
    answer: oneshot::Sender<Verdict>,
}

/// How a store works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names and types of families that the gateway exposes itself, which pushes must not contradict.
    pub own: HashMap<String, MetricType>,
    /// What becomes of pushes that contradict others: refused, or taken and kept aside as far as they do.
    pub quarantine: bool,
    /// Groups there may be.
    pub groups_max: usize,
    /// Groups there may be that no push was ever taken for.
    pub failed_groups_max: usize,
}

/// Handle to the store; clones share it. The writer ends when the last handle is dropped, after it has drained the queue.
#[derive(Clone)]
pub struct Store {
    queue: mpsc::Sender<Submission>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Store {
    /// Starts the writer task of an empty store on the current runtime.
    pub fn start(settings: Settings) -> Self {
        let (queue, submissions) = mpsc::channel(WRITE_QUEUE_LEN_MAX);
        let (publish, snapshots) = watch::channel(Arc::default());
        tokio::spawn(writer::run(submissions, publish, settings));
        Self { queue, snapshots }
    }

    /// Makes a change; returns when it is in the snapshot.
    ///
    /// # Errors
    /// Why it was not made. The store is as before then, except that a failed push is noted in its group.
    pub async fn submit(&self, change: Change) -> Result<(), StoreError> {
        let (answer, verdict) = oneshot::channel();
        let submission = Submission { change, answer };
        self.queue.send_timeout(submission, WRITE_QUEUE_WAIT_MAX).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::QueueFull,
            mpsc::error::SendTimeoutError::Closed(_) => StoreError::Closed,
        })?;
        verdict.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The state after all changes that were answered before this call.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Whether changes can be submitted without waiting.
    ///
    /// # Errors
    /// Why not.
    pub fn health(&self) -> Result<(), StoreError> {
        if self.queue.is_closed() {
            Err(StoreError::Closed)
        } else if self.queue.capacity() == 0 {
            Err(StoreError::QueueFull)
        } else {
            Ok(())
        }
    }
}
