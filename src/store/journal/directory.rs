//! The directory of a journal: its files, and the lock that keeps a second gateway out.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file system does not do what it should.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it was not.
        error: io::Error,
    },
    /// Somebody else has the directory.
    #[error("another gateway uses {}", .0.display())]
    InUse(PathBuf),
    /// A file that was to be imported is something else.
    #[error(
        "{} is no file that a Pushgateway has written, or it is damaged; move it away to start without it", .0.display()
    )]
    NotOfAPushgateway(PathBuf),
    /// Something that was on disk cannot be read, and it is not the end of what was being written in a crash.
    #[error(
        "{} is damaged at byte {at}: {problem}; restore it from a backup, or start with --storage.repair to go on \
         without what cannot be read", path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        problem: String,
    },
}

pub(super) type Result<T> = std::result::Result<T, StorageError>;

/// Puts a failure of the file system into words.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |error| StorageError::Io { doing, path, error }
}

/// Names of files begin so; the number of a record follows, in as many digits as the largest one has.
const SEGMENT: &str = "journal-";
const SNAPSHOT: &str = "snapshot-";
/// Files that were being written.
const TEMPORARY: &str = ".tmp-";

/// The directory, held against others as long as this lives.
pub(super) struct Directory {
    path: PathBuf,
    _lock: Flock<File>,
}

/// A file and the number in its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Numbered {
    /// Of a journal's segment the first record, of a snapshot the first that is not in it.
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

/// Puts a file out of the way, where a person may look at it.
pub(super) fn put_away(file: &Numbered) -> Result<()> {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let aside = file.path.with_file_name(format!("damaged-{name}"));
    fs::rename(&file.path, aside).map_err(failed("rename", &file.path))
}

impl Directory {
    /// Makes it where it is missing, and takes it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))?;
        // Its own name has to be on disk as well.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync", parent))?;
        let lock = path.join("lock");
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&lock)
            .map_err(failed("open", &lock))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => StorageError::InUse(path.to_owned()),
            errno => StorageError::Io { doing: "lock", path: lock, error: errno.into() },
        })?;
        let directory = Self { path: path.to_owned(), _lock: lock };
        for unfinished in directory.files(TEMPORARY)? {
            fs::remove_file(&unfinished).map_err(failed("remove", &unfinished))?;
        }
        Ok(directory)
    }

    fn files(&self, prefix: &str) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.path).map_err(failed("read", &self.path))?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("read", &self.path))?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                files.push(entry.path());
            }
        }
        Ok(files)
    }

    fn numbered(&self, prefix: &str) -> Result<Vec<Numbered>> {
        let number = |path: PathBuf| {
            let number = path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some(Numbered { number, path })
        };
        let mut files: Vec<_> = self.files(prefix)?.into_iter().filter_map(number).collect();
        files.sort();
        Ok(files)
    }

    /// Whether nothing was ever kept in it.
    pub(super) fn is_new(&self) -> Result<bool> {
        Ok(self.segments()?.is_empty() && self.snapshots()?.is_empty())
    }

    /// The journal's segments, the oldest first.
    pub(super) fn segments(&self) -> Result<Vec<Numbered>> {
        self.numbered(SEGMENT)
    }

    /// The snapshots, the oldest first.
    pub(super) fn snapshots(&self) -> Result<Vec<Numbered>> {
        self.numbered(SNAPSHOT)
    }

    /// An empty segment that begins with a record, in the place of every one that begins there or later: no record from that
    /// number on was ever answered for.
    pub(super) fn new_segment(&self, first: u64) -> io::Result<File> {
        let segments = self.segments().map_err(io::Error::other)?;
        for stale in segments.iter().rev().take_while(|segment| segment.number >= first) {
            fs::remove_file(&stale.path)?;
        }
        let path = self.path.join(format!("{SEGMENT}{first:020}"));
        let file = File::options().create_new(true).append(true).mode(0o600).open(path)?;
        self.sync()?;
        Ok(file)
    }

    /// A file that is gone when it is dropped, unless it becomes a snapshot.
    pub(super) fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.path)
    }

    /// Makes a file, which is on disk already, the snapshot before a record.
    pub(super) fn keep_snapshot(&self, file: tempfile::NamedTempFile, next: u64) -> io::Result<()> {
        file.persist(self.path.join(format!("{SNAPSHOT}{next:020}")))?;
        self.sync()
    }

    /// Names of files are on disk when this returns.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Puts all files out of the way, where a person may look at them, but for the snapshot before a record.
    pub(super) fn put_away(&self, next: u64) -> Result<()> {
        let old =
            self.segments()?.into_iter().chain(self.snapshots()?.into_iter().filter(|s| s.number != next));
        for file in old {
            put_away(&file)?;
        }
        self.sync().map_err(failed("sync", &self.path))
    }

    /// Removes what neither the newest snapshot needs nor the one before it.
    pub(super) fn prune(&self) -> Result<()> {
        let snapshots = self.snapshots()?;
        let Some(oldest) = snapshots.len().checked_sub(2).map(|at| &snapshots[at]) else { return Ok(()) };
        let segments = self.segments()?;
        // A segment ends where the next one begins.
        let ended = segments.windows(2).filter(|pair| pair[1].number <= oldest.number).map(|pair| &pair[0]);
        for old in snapshots.iter().filter(|snapshot| snapshot.number < oldest.number).chain(ended) {
            fs::remove_file(&old.path).map_err(failed("remove", &old.path))?;
        }
        Ok(())
    }
}
