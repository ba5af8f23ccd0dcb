//! The journal's end: records that wait are written together and brought to disk together, by a thread of its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tracing::{error, info};

use super::directory::Directory;
use super::frame::{self, Frame};
use super::snapshot::Snapshots;

/// Bytes of records that may wait for the disk.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Room that is kept for records while there are none.
const ROOM_BYTES_MAX: usize = 1024 * 1024;
/// How long records wait for others that may come.
const PATIENCE_MAX: Duration = Duration::from_millis(1);
/// How long the disk is left alone after it has failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Records that are to be written.
pub(super) struct Queue {
    /// Held to add a record, or to take all.
    pending: Mutex<Pending>,
    more: Condvar,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Number of the last record.
    last: u64,
    /// Number of the last record that is on disk.
    synced: u64,
    /// Number of the record that is worth waiting for before the disk is set to work again.
    awaited: u64,
    /// Where in `bytes` a new segment begins, and with which record.
    cut: Option<(usize, u64)>,
    /// Why the disk takes nothing at the moment.
    broken: Option<Arc<str>>,
    closed: bool,
}

/// How far the disk has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Number of the last record that is on disk.
    synced: u64,
    /// Number of the last record that could not be brought there, and why.
    failed: Option<(u64, Arc<str>)>,
}

/// Records that are written together.
struct Batch {
    bytes: Vec<u8>,
    first: u64,
    last: u64,
    cut: Option<(usize, u64)>,
}

/// How long the disk waits for more: those who were answered together mostly come again together, and to write for a part of
/// them makes the others wait for two writes.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Records that were written together the last time.
    last: u64,
    /// Records that are worth waiting for.
    together: u64,
    /// For how long.
    patience: Duration,
}

impl Pace {
    fn after(self, batch: &Batch, took: Duration) -> Self {
        let last = batch.last + 1 - batch.first;
        Self { last, together: u64::midpoint(self.last, last), patience: took.min(PATIENCE_MAX) }
    }
}

impl Queue {
    fn new(last: u64) -> Self {
        let pending = Pending { last, synced: last, ..Pending::default() };
        Self { pending: Mutex::new(pending), more: Condvar::new() }
    }

    /// # Errors
    /// Why nothing can be recorded at the moment.
    pub(super) fn check(&self) -> Result<(), Arc<str>> {
        let pending = self.pending.lock();
        match &pending.broken {
            Some(broken) => Err(broken.clone()),
            None if pending.bytes.len() > PENDING_BYTES_MAX => Err("the disk is too slow".into()),
            None => Ok(()),
        }
    }

    /// Adds a record and returns its number.
    pub(super) fn append(&self, payload: &[u8]) -> u64 {
        let mut pending = self.pending.lock();
        pending.last += 1;
        let Pending { last: number, synced, .. } = *pending;
        let is_first = pending.bytes.is_empty();
        frame::write(&mut pending.bytes, Frame { number, synced, payload });
        if is_first || number == pending.awaited {
            self.more.notify_one();
        }
        number
    }

    /// Number of the last record.
    pub(super) fn last(&self) -> u64 {
        self.pending.lock().last
    }

    /// Lets a new segment begin with the next record, and returns its number.
    pub(super) fn cut(&self) -> u64 {
        let mut pending = self.pending.lock();
        let next = pending.last + 1;
        pending.cut = Some((pending.bytes.len(), next));
        next
    }

    /// No more records come.
    pub(super) fn close(&self) {
        self.pending.lock().closed = true;
        self.more.notify_one();
    }

    /// Takes all records, when there are some, and leaves room for the next ones; nothing when none will come any more.
    fn take(&self, pace: Pace, room: Vec<u8>) -> Option<Batch> {
        let mut pending = self.pending.lock();
        pending.awaited = pending.synced + pace.together;
        while pending.bytes.is_empty() && !pending.closed {
            self.more.wait(&mut pending);
        }
        if pending.bytes.is_empty() {
            return None;
        }
        let is_early = |pending: &mut Pending| pending.last < pending.awaited && !pending.closed;
        self.more.wait_while_for(&mut pending, is_early, pace.patience);
        let (first, last) = (pending.synced + 1, pending.last);
        let bytes = std::mem::replace(&mut pending.bytes, room);
        Some(Batch { bytes, first, last, cut: pending.cut.take() })
    }

    fn synced(&self, last: u64) {
        let mut pending = self.pending.lock();
        pending.synced = last;
        pending.broken = None;
    }

    /// Notes that the disk has failed, and lets a moment pass. Returns whether to go on.
    fn broken(&self, reason: &Arc<str>) -> bool {
        let mut pending = self.pending.lock();
        pending.broken = Some(reason.clone());
        if !pending.closed {
            self.more.wait_for(&mut pending, RETRY_PAUSE);
        }
        !pending.closed
    }
}

/// The thread that writes.
pub(super) struct Appender {
    directory: Arc<Directory>,
    queue: Arc<Queue>,
    progress: watch::Sender<Progress>,
    file: File,
    snapshots: Snapshots,
}

impl Appender {
    /// Begins a new segment with the record `next`.
    pub(super) fn new(directory: Arc<Directory>, next: u64, snapshots: Snapshots) -> io::Result<Self> {
        let file = directory.new_segment(next)?;
        let progress = Progress { synced: next - 1, failed: None };
        let queue = Arc::new(Queue::new(next - 1));
        Ok(Self { directory, queue, progress: watch::Sender::new(progress), file, snapshots })
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Writes until no more records come.
    pub(super) fn run(mut self) {
        let _told = ToldOfPanics(self.queue.clone());
        let (mut pace, mut room) = (Pace::default(), Vec::new());
        while let Some(batch) = self.queue.take(pace, room) {
            let begun = Instant::now();
            let written = self.write(&batch).or_else(|error| self.write_when_it_works(&batch, error));
            if written.is_err() {
                return;
            }
            pace = pace.after(&batch, begun.elapsed());
            self.queue.synced(batch.last);
            self.progress.send_modify(|progress| *progress = Progress { synced: batch.last, failed: None });
            self.snapshots.written(batch.bytes.len() as u64, &self.queue);
            room = batch.bytes;
            room.clear();
            room.shrink_to(ROOM_BYTES_MAX);
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let (before, after) = batch.bytes.split_at(batch.cut.map_or(batch.bytes.len(), |(at, _)| at));
        append(&mut self.file, before)?;
        if let Some((_, first)) = batch.cut {
            self.file = self.directory.new_segment(first)?;
            append(&mut self.file, after)?;
        }
        Ok(())
    }

    /// Tells all who wait that the disk has failed, and goes on in a new segment when it works again: what a failed write
    /// has left behind is not built upon.
    fn write_when_it_works(&mut self, batch: &Batch, error: io::Error) -> io::Result<()> {
        let mut error = error;
        error!(%error, "cannot write the journal: pushes are refused until that works again");
        loop {
            let reason: Arc<str> = format!("cannot write the journal: {error}").into();
            let failed = Some((self.queue.last(), reason.clone()));
            self.progress.send_modify(|progress| progress.failed = failed);
            if !self.queue.broken(&reason) {
                return Err(error);
            }
            let again = || {
                let mut file = self.directory.new_segment(batch.first)?;
                append(&mut file, &batch.bytes)?;
                Ok(file)
            };
            match again() {
                Ok(file) => {
                    info!("the journal can be written again");
                    self.file = file;
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }
}

/// Refuses changes from when the thread has died, which it never should.
struct ToldOfPanics(Arc<Queue>);

impl Drop for ToldOfPanics {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.pending.lock().broken = Some("the journal's thread has died, the log says why".into());
        }
    }
}

/// Appends bytes and brings them to disk.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    if !bytes.is_empty() {
        file.write_all(bytes)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Waits until a record is on disk.
///
/// # Errors
/// Why it cannot be brought there.
pub(super) async fn on_disk(mut progress: watch::Receiver<Progress>, number: u64) -> Result<(), Arc<str>> {
    let is_decided = |progress: &Progress| {
        progress.synced >= number || progress.failed.as_ref().is_some_and(|(last, _)| *last >= number)
    };
    let ended = || Arc::from("the gateway is shutting down");
    let progress = progress.wait_for(is_decided).await.map_err(|_| ended())?;
    match &progress.failed {
        Some((_, reason)) if progress.synced < number => Err(reason.clone()),
        _ => Ok(()),
    }
}
