//! Snapshots: everything that is stored, in one file, so that the journal before it is needed no more.

use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tracing::{info, warn};

use super::append::Queue;
use super::directory::Directory;
use super::frame::{self, Frame};
use super::record;
use crate::store::Snapshot;
use crate::store::group::Group;

/// A snapshot is made when the journal has grown by this, and by most of what the snapshot before took: what is written
/// stays in proportion to what is pushed, and so does a restart to what is stored.
const JOURNAL_BYTES_MIN: u64 = if cfg!(test) { 4 * 1024 } else { 32 * 1024 * 1024 };

fn due(snapshot_bytes: u64) -> u64 {
    (snapshot_bytes / 4 * 3).max(JOURNAL_BYTES_MIN)
}

/// What is stored and the first record that is not in it; nothing when there is no store any more.
pub(super) type Capture = Box<dyn Fn(&Queue) -> Option<(Snapshot, u64)> + Send>;

/// Makes snapshots when it is time.
pub(super) struct Snapshots {
    directory: Arc<Directory>,
    capture: Capture,
    /// Bytes of the journal since the last one.
    journal_bytes: u64,
    /// After how many the next one is due.
    due_bytes: u64,
    /// What makes the last one, or has made it.
    maker: Option<JoinHandle<Option<u64>>>,
}

impl Snapshots {
    pub(super) fn new(directory: Arc<Directory>, capture: Capture, journal_bytes: u64) -> io::Result<Self> {
        let newest = directory.snapshots().ok().and_then(|snapshots| snapshots.last().cloned());
        let bytes = newest.map_or(Ok(0), |newest| newest.path.metadata().map(|metadata| metadata.len()))?;
        Ok(Self { directory, capture, journal_bytes, due_bytes: due(bytes), maker: None })
    }

    /// Notes that the journal has grown.
    pub(super) fn written(&mut self, bytes: u64, queue: &Queue) {
        self.journal_bytes += bytes;
        if self.maker.as_ref().is_some_and(|maker| !maker.is_finished()) {
            return;
        }
        if let Some(size) = self.maker.take().and_then(|maker| maker.join().ok()).flatten() {
            self.due_bytes = due(size);
        }
        if self.journal_bytes < self.due_bytes {
            return;
        }
        self.journal_bytes = 0;
        let Some((snapshot, next)) = (self.capture)(queue) else { return };
        let directory = self.directory.clone();
        let make = move || match write(&directory, &snapshot, next) {
            Ok(bytes) => {
                info!(groups = snapshot.len(), bytes, "snapshot written");
                if let Err(error) = directory.prune() {
                    warn!(%error, "old files of the journal stay");
                }
                Some(bytes)
            }
            Err(error) => {
                warn!(%error, "a snapshot cannot be written, the journal grows on");
                None
            }
        };
        match thread::Builder::new().name("snapshot".to_owned()).spawn(make) {
            Ok(maker) => self.maker = Some(maker),
            Err(error) => warn!(%error, "a snapshot cannot be written, the journal grows on"),
        }
    }
}

impl Drop for Snapshots {
    /// The directory is nobody's when this has been dropped.
    fn drop(&mut self) {
        if let Some(maker) = self.maker.take() {
            let _ = maker.join();
        }
    }
}

/// Writes a snapshot, and returns how many bytes it has. It is on disk as a whole when it gets its name.
pub(super) fn write(directory: &Directory, snapshot: &Snapshot, next: u64) -> io::Result<u64> {
    let mut groups: Vec<&Arc<Group>> = snapshot.groups().collect();
    // As they came, so that they get about the slots that they have.
    groups.sort_by_key(|group| group.sequence);
    let count = groups.len() as u64;
    let mut file = directory.temporary()?;
    let mut out = Frames { out: BufWriter::new(&mut file), frame: Vec::new(), number: 0, bytes: 0 };
    out.add(&record::of_snapshot_begin(next))?;
    for group in groups {
        out.add(&record::of_group(group))?;
    }
    out.add(&record::of_snapshot_end(count))?;
    let bytes = out.bytes;
    out.out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    directory.keep_snapshot(file, next)?;
    Ok(bytes)
}

struct Frames<W> {
    out: W,
    frame: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl<W: io::Write> Frames<W> {
    fn add(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > frame::PAYLOAD_BYTES_MAX {
            return Err(io::Error::other("a group is too large for a snapshot"));
        }
        self.number += 1;
        self.frame.clear();
        frame::write(&mut self.frame, Frame { number: self.number, synced: 0, payload });
        self.bytes += self.frame.len() as u64;
        self.out.write_all(&self.frame)
    }
}
