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
//! * **Promises.** What a push promises ([`Wishes`]) falls due by a clock that nobody sets, while [`Store::keep_promises`] runs;
//!   after a restart by the times that were recorded. What has fallen due is recorded, too, and does not become undone when
//!   the clock is set back.
//! * **Runs.** Each run of a job that pushes tell of ([`Run`]) counts once, however often it is told. Where a push is overtaken by
//!   another one of its group ([`PushingRun`]), only what no other one has said since is taken, and its promises are not.

mod change;
pub mod expose;
pub mod group;
mod import;
mod index;
mod journal;
mod metric;
mod order;
mod own;
mod promises;
mod quarantine;
mod runs;
mod segments;
mod snapshot;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::exposition::MetricType;
use crate::exposition::check::Inconsistent;
use crate::exposition::series::SeriesHash;
use crate::grouping::GroupingKey;
pub use change::{Change, Push, PushMode};
pub use group::{Group, GroupState, StoredFamily, UnixNanos};
use journal::Journal;
pub use journal::{Damage, Storage, StorageError};
pub use order::PushingRun;
pub use own::{Own, OwnNames};
pub use promises::{Ask, Due, Moment, SteadyNanos, Wish, Wishes};
pub use runs::{RUNS_MAX, Run, RunId, Runs, is_of_progress};
pub use snapshot::Snapshot;
use writer::State;

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
    /// What the store's own families are called.
    pub names: OwnNames,
    /// How long what has stayed of a group stays after its series have gone.
    pub retention: Duration,
    /// What is taken.
    pub rules: Rules,
}

impl Settings {
    /// Settings with the names and the retention that are usual.
    pub fn new(own: HashMap<String, MetricType>, rules: Rules) -> Self {
        Self { own, names: OwnNames::default(), retention: RETENTION, rules }
    }
}

/// How long what has stayed of a group usually stays.
const RETENTION: Duration = Duration::from_hours(7 * 24);

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

/// Groups that something falls due for, or that are deleted, while nothing else is changed.
const GROUPS_TOGETHER: usize = 64;
/// Their series, unless a single group has more.
const SERIES_TOGETHER: usize = 10_000;
/// How long a change waits for the disk before it is refused; it may be made all the same.
const DISK_MAX: Duration = Duration::from_secs(30);

/// Handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// Held to make one change, or to take a snapshot; never across an await.
    state: Arc<Mutex<State>>,
    hash: SeriesHash,
    names: OwnNames,
    quarantine: bool,
    journal: Option<Arc<Journal>>,
    /// Told when something falls due before all else that was to.
    sooner: Arc<Notify>,
}

/// A change that was made, and may not be on disk yet.
#[derive(Debug, Clone, Copy)]
#[must_use = "it may be lost"]
pub struct Made {
    /// The number of its record, where there is a journal.
    record: Option<u64>,
    /// Families that were left out, because only the store itself exposes what is called so.
    pub left_out: usize,
}

impl Store {
    /// An empty store that lives in memory.
    pub fn new(settings: Settings) -> Self {
        let (hash, quarantine) = (SeriesHash::default(), settings.rules.quarantine);
        let (names, sooner) = (settings.names.clone(), Arc::default());
        let state = Arc::new(Mutex::new(State::new(settings, hash.clone())));
        Self { state, hash, names, quarantine, journal: None, sooner }
    }

    /// A store with all that was recorded in a directory, which records there what comes. What has fallen due meanwhile has
    /// happened.
    ///
    /// # Errors
    /// Why the directory cannot be used.
    pub fn open(settings: Settings, storage: &Storage, now: Moment) -> Result<Self, StorageError> {
        let store = Self::new(settings);
        let journal = Journal::open(storage, &store.state, now)?;
        let store = Self { journal: Some(Arc::new(journal)), ..store };
        while store.let_fall_due(now.steady) {}
        Ok(store)
    }

    /// Makes a change; every snapshot from here on has it.
    ///
    /// # Errors
    /// Why it was not made. The store is as before then, except that a failed push is noted in its group.
    pub fn make(&self, change: Change) -> Result<Made, StoreError> {
        match change {
            Change::Push(push) => self.push(push),
            Change::Together(pushes) => self.push_together(pushes),
            change => {
                // So what goes is freed when others have the state again.
                let before = matches!(change, Change::Wipe).then(|| self.snapshot());
                let payload = self.payload(&change)?;
                let mut state = self.state.lock();
                state.make(change)?;
                let made = self.made(&mut state, payload);
                drop(state);
                drop(before);
                Ok(made)
            }
        }
    }

    /// Deletes those of the first groups that are still wanted to be when it happens, in one change: as many as keep nobody
    /// waiting. Takes out the keys that it has seen to, and returns which groups there were.
    ///
    /// # Errors
    /// Why it was not done; nothing is deleted then.
    pub fn delete_some(
        &self,
        keys: &mut VecDeque<Arc<GroupingKey>>,
        is_wanted: impl Fn(&Group) -> bool,
    ) -> Result<(Vec<Arc<GroupingKey>>, Made), StoreError> {
        let mut state = self.state.lock();
        let (mut some, mut series) = (Vec::new(), 0);
        while some.len() < GROUPS_TOGETHER && series < SERIES_TOGETHER {
            let Some(key) = keys.pop_front() else { break };
            if let Some(group) = state.group(&key).filter(|group| is_wanted(group)) {
                series += group.series();
                some.push(key);
            }
        }
        let change = Change::Delete(some.iter().map(|key| GroupingKey::clone(key)).collect());
        let payload = self.payload(&change)?;
        state.make(change)?;
        Ok((some, self.made(&mut state, payload)))
    }

    fn push(&self, mut push: Push) -> Result<Made, StoreError> {
        let left_out = push.leave_out(&self.names);
        let change = Change::Push(push);
        let payload = self.payload(&change)?;
        let Change::Push(mut push) = change else { unreachable!("it was just made") };
        {
            let mut state = self.state.lock();
            if state.update(&mut push) {
                return Ok(Made { left_out, ..self.made(&mut state, payload) });
            }
        }
        let judged = push.judge_unless_later(&self.hash, self.quarantine);
        let mut state = self.state.lock();
        match state.push(&mut push, &judged) {
            Ok(()) => Ok(Made { left_out, ..self.made(&mut state, payload) }),
            Err(fault) => Err(self.refused(&mut state, [&push], fault)),
        }
    }

    fn push_together(&self, mut pushes: Vec<Push>) -> Result<Made, StoreError> {
        let left_out = pushes.iter_mut().map(|push| push.leave_out(&self.names)).sum();
        let change = Change::Together(pushes);
        let payload = self.payload(&change)?;
        let Change::Together(mut pushes) = change else { unreachable!("it was just made") };
        {
            let mut state = self.state.lock();
            if state.update_together(&mut pushes) {
                return Ok(Made { left_out, ..self.made(&mut state, payload) });
            }
        }
        let judged: Vec<_> = pushes.iter().map(|push| push.judge(&self.hash)).collect();
        let mut state = self.state.lock();
        match state.push_together(&mut pushes, &judged) {
            Ok(()) => Ok(Made { left_out, ..self.made(&mut state, payload) }),
            Err(fault) => Err(self.refused(&mut state, &pushes, fault)),
        }
    }

    /// What is to be recorded of a change.
    fn payload(&self, change: &Change) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(journal) = &self.journal else { return Ok(None) };
        journal.check().map_err(StoreError::Disk)?;
        Journal::payload(change).map(Some).map_err(StoreError::Disk)
    }

    /// Records a change that was made; the state is still held then, so that records have the order of changes.
    fn made(&self, state: &mut State, payload: Option<Vec<u8>>) -> Made {
        if state.has_sooner() {
            self.sooner.notify_one();
        }
        let record = self.journal.as_ref().zip(payload).map(|(journal, payload)| journal.append(&payload));
        Made { record, left_out: 0 }
    }

    /// Records that pushes were refused, which need not be on disk before it is told.
    fn refused<'p>(
        &self,
        state: &mut State,
        pushes: impl IntoIterator<Item = &'p Push>,
        fault: StoreError,
    ) -> StoreError {
        if self.journal.is_some() && matches!(fault, StoreError::Inconsistent(_)) {
            for push in pushes {
                if push.is_late || state.group(&push.key).is_none() {
                    // It says nothing about its group, or there was no place for it: nothing was noted.
                    continue;
                }
                let failed = Change::Failed { key: push.key.clone(), at: push.at.unix };
                let _ = self.made(state, Journal::payload(&failed).ok());
            }
        }
        fault
    }

    /// Lets happen what has fallen due, in some groups. Returns whether there is more.
    pub fn let_fall_due(&self, now: SteadyNanos) -> bool {
        let mut state = self.state.lock();
        for happened in state.let_fall_due(now, GROUPS_TOGETHER, SERIES_TOGETHER) {
            // Where the disk fails, it falls due again after a restart.
            let payload = self.journal.as_ref().and_then(|_| Journal::payload(&happened).ok());
            let _ = self.made(&mut state, payload);
        }
        state.next_due().is_some_and(|next| next <= now)
    }

    /// Lets everything that is promised fall due when it does, for ever. Costs nothing while nothing does.
    pub async fn keep_promises(&self, now: impl Fn() -> SteadyNanos) {
        loop {
            let next = self.state.lock().next_due();
            let wait = async {
                match next {
                    Some(next) => tokio::time::sleep(now().until(next)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                // It may be that nothing else is.
                () = self.sooner.notified() => continue,
            }
            while self.let_fall_due(now()) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until a change is as durable as the store makes it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn durable(&self, made: Made) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let on_disk = self.journal.as_ref().zip(made.record).map(|(journal, record)| journal.on_disk(record));
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
        self.durable(Made { record: self.journal.as_ref().map(|journal| journal.last()), left_out: 0 })
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
