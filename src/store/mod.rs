//! What the gateway knows: groups of pushed families.
//!
//! The contract:
//!
//! * **One writer.** Only [`writer`] changes anything, one change after the other; an answered change comes before every
//!   change submitted after the answer.
//! * **Snapshots for readers.** [`Store::snapshot`] is a consistent, immutable state: whole pushes only. Readers hold it as
//!   long as they like and hold nobody up.
//! * **Read your write.** A change is in every snapshot that is taken after its answer.
//! * **Cost.** A push costs what it holds, not what is stored: [`index`] answers the questions about the rest. A scrape costs
//!   the bytes that it sends: [`segments`] keeps them, and makes those again that have changed.
//! * **Durability.** With a [`Storage`] every change passes through check → apply → journal, and is answered when it is on
//!   disk; a snapshot may show it a moment earlier. What was answered is there after a crash. Where the disk fails, changes
//!   are refused and snapshots go on. Without one the store lives in memory, and a crash empties it.

pub mod expose;
pub mod group;
mod import;
mod index;
mod journal;
mod metric;
mod quarantine;
mod segments;
mod snapshot;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::exposition::check::{self, Inconsistent};
use crate::exposition::series::{self, SeriesHash};
use crate::exposition::{MetricFamily, MetricType};
use crate::grouping::GroupingKey;
pub use group::{Group, StoredFamily, UnixNanos};
use journal::Journal;
pub use journal::{Damage, Storage, StorageError};
pub use snapshot::Snapshot;
use writer::{Judged, State};

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
    /// What was pushed, without the labels that the group gives.
    families: Vec<MetricFamily>,
    /// What becomes of the group's other families.
    pub mode: PushMode,
    /// When it arrived.
    pub at: UnixNanos,
}

impl Push {
    /// Makes a push of families as they were read. Those that only the store itself exposes are left out.
    pub fn new(key: GroupingKey, families: Vec<MetricFamily>, mode: PushMode, at: UnixNanos) -> Self {
        let mut families = families;
        families
            .retain(|family| family.name != group::PUSH_TIME.0 && family.name != group::PUSH_FAILURE_TIME.0);
        families.sort_by(|a, b| a.name.cmp(&b.name));
        for family in &mut families {
            series::strip(family, key.labels());
        }
        Self { key, families, mode, at }
    }

    /// Whether it brings nothing but values for series that the group exposes, and good ones.
    fn is_update_of(&self, group: &Group) -> bool {
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
            PushMode::ReplaceFamilies => {
                let has_series_of = |new: &MetricFamily| {
                    group.family(&new.name).is_some_and(|stored| stored.has_series_of(new))
                };
                self.families.iter().all(has_series_of)
            }
        }
    }

    fn has_family(&self, name: &str) -> bool {
        self.families.binary_search_by(|family| family.name.as_str().cmp(name)).is_ok()
    }

    /// Judges it by itself. This is the costly part, and no part of the writer's work.
    fn judge(&self, hash: &SeriesHash) -> Judged {
        check::alone(&self.families, self.key.labels(), hash)
    }

    /// # Errors
    /// What even those must not push who want no checks.
    fn without_timestamps(&self) -> Result<(), Inconsistent> {
        let mut metrics = self.families.iter().flat_map(|family| &family.metrics);
        if metrics.any(|metric| metric.timestamp_ms.is_some()) {
            return Err(Inconsistent::Timestamps);
        }
        Ok(())
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
    /// The change cannot be brought to disk; it may be there all the same.
    #[error("{0}")]
    Disk(Arc<str>),
}

type Verdict = Result<(), StoreError>;

/// How a store works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names and types of families that the gateway exposes itself, which pushes must not contradict.
    pub own: HashMap<String, MetricType>,
    /// What is taken.
    pub rules: Rules,
}

/// What a store takes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What becomes of pushes that contradict others: refused, or taken and kept aside as far as they do.
    pub quarantine: bool,
    /// Groups there may be.
    pub groups_max: usize,
    /// Groups there may be that no push was ever taken for.
    pub failed_groups_max: usize,
}

/// How long a change waits for the disk before it is refused; it may be made all the same.
const DISK_MAX: Duration = Duration::from_secs(30);

/// Handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// Held to make one change, or to take a snapshot; never across an await.
    state: Arc<Mutex<State>>,
    hash: SeriesHash,
    quarantine: bool,
    journal: Option<Arc<Journal>>,
}

/// A change that was made, and may not be on disk yet.
#[derive(Debug, Clone, Copy)]
#[must_use = "it may be lost"]
pub struct Made(Option<u64>);

impl Store {
    /// An empty store that lives in memory.
    pub fn new(settings: Settings) -> Self {
        let (hash, quarantine) = (SeriesHash::default(), settings.rules.quarantine);
        let state = Arc::new(Mutex::new(State::new(settings, hash.clone())));
        Self { state, hash, quarantine, journal: None }
    }

    /// A store with all that was recorded in a directory, which records there what comes.
    ///
    /// # Errors
    /// Why the directory cannot be used.
    pub fn open(settings: Settings, storage: &Storage) -> Result<Self, StorageError> {
        let store = Self::new(settings);
        let journal = Journal::open(storage, &store.state)?;
        Ok(Self { journal: Some(Arc::new(journal)), ..store })
    }

    /// Makes a change; every snapshot from here on has it.
    ///
    /// # Errors
    /// Why it was not made. The store is as before then, except that a failed push is noted in its group.
    pub fn make(&self, change: Change) -> Result<Made, StoreError> {
        let payload = match &self.journal {
            None => None,
            Some(journal) => {
                journal.check().map_err(StoreError::Disk)?;
                Some(Journal::payload(&change).map_err(StoreError::Disk)?)
            }
        };
        let Change::Push(mut push) = change else {
            let mut state = self.state.lock();
            state.make(change)?;
            return Ok(self.recorded(payload));
        };
        {
            let mut state = self.state.lock();
            if state.update(&mut push) {
                return Ok(self.recorded(payload));
            }
        }
        // Where contradictions are kept aside, every family is judged when it is about to be exposed.
        let judged = if self.quarantine { Ok(Vec::new()) } else { push.judge(&self.hash) };
        let mut state = self.state.lock();
        match state.push(&mut push, &judged) {
            Err(StoreError::Inconsistent(fault)) => {
                // The failure is noted, and need not be on disk before it is told.
                let failed = Change::Failed { key: push.key.clone(), at: push.at };
                let payload = payload.and_then(|_| Journal::payload(&failed).ok());
                let _ = self.recorded(payload);
                Err(fault.into())
            }
            verdict => verdict.map(|()| self.recorded(payload)),
        }
    }

    /// Records a change; the state must still be held then, so that records have the order of changes.
    fn recorded(&self, payload: Option<Vec<u8>>) -> Made {
        Made(self.journal.as_ref().zip(payload).map(|(journal, payload)| journal.append(&payload)))
    }

    /// Waits until a change is as durable as the store makes it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn durable(&self, made: Made) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let Made(number) = made;
        let on_disk = self.journal.as_ref().zip(number).map(|(journal, number)| journal.on_disk(number));
        async {
            let Some(on_disk) = on_disk else { return Ok(()) };
            let slow = || StoreError::Disk("the disk does not answer".into());
            tokio::time::timeout(DISK_MAX, on_disk).await.map_err(|_| slow())?.map_err(StoreError::Disk)
        }
    }

    /// Waits until every change that was made is as durable as the store makes it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn flush(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.durable(Made(self.journal.as_ref().map(|journal| journal.last())))
    }

    /// Whether changes can be made.
    ///
    /// # Errors
    /// Why not.
    pub fn writable(&self) -> Result<(), StoreError> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.check().map_err(StoreError::Disk))
    }

    /// The state after all changes that were answered before this call.
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot()
    }
}
