//! The journal: every change is on disk before it is answered.
//!
//! A directory holds segments of records, one after the other, and snapshots that stand for all records before them. A
//! record is added in the order in which its change was made, and many records are brought to disk together; a change is
//! answered when its own is there. What is read again after a crash is therefore every answered change, whole and in order,
//! and perhaps some that were made and not answered yet.
//!
//! What a crash leaves at the end is cut off and told of; damage to what had been answered keeps the gateway from starting.
//! While the disk fails, changes are refused; when it works again, what waits is written to a new segment.

mod append;
mod directory;
mod entries;
mod frame;
pub(super) mod record;
mod replay;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::promises::Moment;
use super::writer::State;
use super::{Change, import};
use append::{Appender, Progress, Queue};
pub use directory::StorageError;
use directory::{Directory, Result, failed};
pub use replay::Damage;
use snapshot::Snapshots;

/// Where changes are recorded.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The directory, made if it is missing.
    pub path: PathBuf,
    /// What becomes of what cannot be read.
    pub damage: Damage,
    /// The `--persistence.file` of a Pushgateway, which is read where the directory is new, and left as it is.
    pub import: Option<PathBuf>,
}

/// A journal that is being written.
pub(super) struct Journal {
    queue: Arc<Queue>,
    progress: watch::Receiver<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Puts what is on disk into an empty store, and goes on from there.
    pub(super) fn open(storage: &Storage, state: &Arc<Mutex<State>>, now: Moment) -> Result<Self> {
        let path = &storage.path;
        let directory = Arc::new(Directory::open(path)?);
        if let Some(file) = storage.import.as_deref()
            && directory.is_new()?
            && file.try_exists().map_err(failed("look for", file))?
        {
            import(file, &directory, &mut state.lock())?;
        }
        let end = replay::replay(&directory, storage.damage, &mut state.lock(), now)?;
        // What stood in the way of some may be gone, or left out.
        state.lock().judge_aside();
        if end.was_damaged {
            // What could be read is whole again, and needs no repair the next time.
            let repaired = state.lock().snapshot();
            snapshot::write(&directory, &repaired, end.next).map_err(failed("write a snapshot in", path))?;
            directory.put_away(end.next)?;
            warn!(path = %path.display(), "repaired; what was damaged is in files called damaged-*");
        }
        let snapshots = Snapshots::new(directory.clone(), capture(state), end.journal_bytes);
        let snapshots = snapshots.map_err(failed("look at snapshots in", path))?;
        let appender =
            Appender::new(directory, end.next, snapshots).map_err(failed("begin a journal in", path))?;
        let (queue, progress) = (appender.queue(), appender.progress());
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || appender.run());
        let thread = Some(thread.map_err(failed("start a thread for", Path::new("the journal")))?);
        Ok(Self { queue, progress, thread })
    }

    /// # Errors
    /// Why nothing can be recorded at the moment.
    pub(super) fn check(&self) -> std::result::Result<(), Arc<str>> {
        self.queue.check()
    }

    /// What is to be recorded of a change; made before the change is.
    ///
    /// # Errors
    /// Where it could not be read again.
    pub(super) fn payload(change: &Change) -> std::result::Result<Vec<u8>, Arc<str>> {
        let payload = record::of_change(change);
        if payload.len() > frame::PAYLOAD_BYTES_MAX {
            return Err("the push is too large for the journal".into());
        }
        Ok(payload)
    }

    /// Records a change that was made, in the order in which they are made.
    pub(super) fn append(&self, payload: &[u8]) -> u64 {
        self.queue.append(payload)
    }

    /// Number of the last record.
    pub(super) fn last(&self) -> u64 {
        self.queue.last()
    }

    /// Waits until a record is on disk.
    ///
    /// # Errors
    /// Why it cannot be brought there.
    pub(super) fn on_disk(
        &self,
        number: u64,
    ) -> impl Future<Output = std::result::Result<(), Arc<str>>> + use<> {
        append::on_disk(self.progress.clone(), number)
    }
}

/// Makes what a Pushgateway has left the first snapshot.
fn import(file: &Path, directory: &Directory, state: &mut State) -> Result<()> {
    let bytes = std::fs::read(file).map_err(failed("read", file))?;
    let groups = import::groups(&bytes).ok_or_else(|| StorageError::NotOfAPushgateway(file.to_owned()))?;
    for mut group in groups {
        if !state.restore(&mut group) {
            let labels = group.group.key.labels();
            warn!(?labels, "not imported: another group differs only in labels without value");
        }
    }
    state.judge_aside();
    let imported = state.snapshot();
    let path = file.display();
    if imported.aside > 0 {
        warn!(file = %path, families = imported.aside, "imported, and not exposed: they cannot be, or contradict others");
    }
    snapshot::write(directory, &imported, 1).map_err(failed("write what was imported from", file))?;
    info!(file = %path, groups = imported.len(), "imported; the file stays as it is and is not written any more");
    state.clear();
    Ok(())
}

/// Takes a snapshot at a record; all before it are in the snapshot, and none after.
fn capture(state: &Arc<Mutex<State>>) -> snapshot::Capture {
    let state = Arc::downgrade(state);
    Box::new(move |queue| {
        let state = state.upgrade()?;
        let state = state.lock();
        Some((state.snapshot(), queue.cut()))
    })
}

impl Drop for Journal {
    /// Everything that was recorded is on disk then, or cannot be brought there.
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
