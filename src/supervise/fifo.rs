//! The place where the command writes its metrics: a FIFO, or a file, in a directory of the run's own.
//!
//! The FIFO is opened for reading and writing, so that it never reports an end and no writer waits for a reader; the command
//! gets a descriptor of the same kind, so that neither changes while it lives, even if we die (fifo(7), pipe(7)).

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo, pipe2};

use crate::config::MetricsMode;

/// What the FIFO holds while nobody reads.
const FIFO_BYTES: i32 = 1024 * 1024;
/// What is read before other events get their turn.
const READ_BYTES_MAX: usize = 256 * 1024;
/// What is read of a metrics file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where the command's metrics go when nobody can take them: scripts that write them do not break.
pub const NOWHERE: &str = "/dev/null";
/// What the names of the directories begin with.
const DIRECTORY_PREFIX: &str = "jobmon-";
const NAME: &str = "metrics";
/// A directory that is younger may be one that another jobmon is making.
const STALE_AFTER: Duration = Duration::from_mins(1);
/// Who writes to a regular file cannot be seen.
const FILE_STALE_AFTER: Duration = Duration::from_hours(24);
/// In a directory with more entries nobody looks for stale ones.
const SWEPT_ENTRIES_MAX: usize = 10_000;

/// A place for the command's metrics. Dropping it removes it.
#[derive(Debug)]
pub enum Inbox {
    /// A FIFO.
    Fifo {
        /// The end that is read, open for writing too.
        end: File,
        /// Its path, which goes with its directory.
        place: Place,
    },
    /// A pipe without a name, where no directory can hold a FIFO.
    Pipe {
        /// The end that is read.
        end: File,
        /// What the command inherits, open for reading and writing.
        _inherited: OwnedFd,
        /// What it finds that under.
        path: PathBuf,
    },
    /// A regular file, which a command can never block on.
    File {
        /// Its path, which goes with its directory.
        place: Place,
        /// Locked, so that nobody takes it for a stale one.
        _locked: File,
    },
    /// No place.
    Nowhere,
}

/// A name in a directory of its own, both of which go when this does.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    dir: PathBuf,
}

impl Place {
    fn make(base: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(DIRECTORY_PREFIX)
            .rand_bytes(12)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(base)?
            .keep();
        Ok(Self { path: dir.join(NAME), dir })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The command may have put something else there; then all of it goes.
        let _ = fs::remove_file(&self.path);
        if fs::remove_dir(&self.dir).is_err() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Directories that can hold something for a short time, in the order in which they are tried.
pub fn temporary_directories() -> Vec<PathBuf> {
    let variables = ["TMPDIR", "XDG_RUNTIME_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    variables.filter(|dir| dir.is_absolute()).chain(["/tmp", "/dev/shm"].map(PathBuf::from)).collect()
}

impl Inbox {
    /// Makes the place in the first directory that can hold it: `$TMPDIR`, `$XDG_RUNTIME_DIR`, `/tmp`, `/dev/shm`; a FIFO
    /// that none can hold becomes a pipe.
    ///
    /// # Errors
    /// What the last of them said.
    pub fn make(mode: MetricsMode) -> io::Result<Self> {
        let make_in = match mode {
            MetricsMode::Off => return Ok(Self::Nowhere),
            MetricsMode::Fifo => Self::make_fifo,
            MetricsMode::File => Self::make_file,
        };
        let mut result = Err(io::ErrorKind::NotFound.into());
        for base in temporary_directories() {
            result = make_in(&base);
            if result.is_ok() {
                return result;
            }
        }
        if mode == MetricsMode::Fifo { Self::make_pipe().or(result) } else { result }
    }

    fn make_file(base: &Path) -> io::Result<Self> {
        let place = Place::make(base)?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&place.path)?;
        // A file system without locks works as well.
        let _ = file.try_lock();
        Ok(Self::File { place, _locked: file })
    }

    fn make_fifo(base: &Path) -> io::Result<Self> {
        let place = Place::make(base)?;
        mkfifo(&place.path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let end = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&place.path)?;
        enlarge(&end);
        Ok(Self::Fifo { end, place })
    }

    fn make_pipe() -> io::Result<Self> {
        let (end, _writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        enlarge(&end);
        // Opened anew it has flags of its own, and both directions.
        let both = File::options().read(true).write(true).open(own_descriptor(end.as_raw_fd()))?;
        let inherited = super::spawn::pass_on(both.as_fd()).ok_or(io::ErrorKind::Other)?;
        let path = own_descriptor(inherited.as_raw_fd());
        Ok(Self::Pipe { end: File::from(end), _inherited: inherited, path })
    }

    /// What `$JOBMON_METRICS` names.
    pub fn path(&self) -> &Path {
        match self {
            Self::Fifo { place, .. } | Self::File { place, .. } => &place.path,
            Self::Pipe { path, .. } => path,
            Self::Nowhere => Path::new(NOWHERE),
        }
    }

    /// The path of a FIFO, which a process of another's can open.
    pub fn fifo_path(&self) -> Option<&Path> {
        match self {
            Self::Fifo { place, .. } => Some(&place.path),
            Self::Pipe { .. } | Self::File { .. } | Self::Nowhere => None,
        }
    }

    /// A descriptor for the command to keep open. A copy of what we read from is enough: as long as it is open there is a
    /// reader, so no writer blocks in open(2) or is killed by SIGPIPE.
    pub fn for_command(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Fifo { end, .. } => Some(end.as_fd()),
            // It has been passed on already.
            Self::Pipe { .. } | Self::File { .. } | Self::Nowhere => None,
        }
    }

    /// What tells that there is something to read.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Fifo { end, .. } | Self::Pipe { end, .. } => Some(end.as_fd()),
            Self::File { .. } | Self::Nowhere => None,
        }
    }

    /// Reads what is there, some of it if there is much.
    pub fn read(&mut self, take: impl FnMut(&[u8])) {
        self.read_at_most(READ_BYTES_MAX, take);
    }

    /// Reads everything that was written before this call, and not much more if writers go on: what a FIFO holds is bounded.
    pub fn drain(&mut self, take: impl FnMut(&[u8])) {
        let held = match self {
            Self::Fifo { end, .. } | Self::Pipe { end, .. } => {
                fcntl(&*end, FcntlArg::F_GETPIPE_SZ).unwrap_or(FIFO_BYTES)
            }
            Self::File { .. } | Self::Nowhere => return,
        };
        self.read_at_most(usize::try_from(held).unwrap_or_default(), take);
    }

    fn read_at_most(&mut self, bytes_max: usize, mut take: impl FnMut(&[u8])) {
        let (Self::Fifo { end, .. } | Self::Pipe { end, .. }) = self else { return };
        let mut buffer = [0; 16 * 1024];
        let mut bytes = 0;
        while bytes < bytes_max {
            match end.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    take(&buffer[..n]);
                    bytes += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The text of a metrics file, and whether that is all: what is too much is cut off at the end of a line.
    pub fn file_text(&self) -> Option<(Vec<u8>, bool)> {
        let Self::File { place: Place { path, .. }, .. } = self else { return None };
        let mut text = Vec::new();
        // The command may have put something else there.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
        let is_all = text.len() as u64 <= FILE_BYTES_MAX;
        if !is_all {
            text.truncate(text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
        }
        Some((text, is_all))
    }
}

/// What this process, or one that inherits it, finds a descriptor under (proc(5)).
fn own_descriptor(number: i32) -> PathBuf {
    format!("/proc/self/fd/{number}").into()
}

/// Makes a pipe hold much. Only root's: what another user's pipes hold together has a limit (pipe(7),
/// `pipe-user-pages-soft`), which belongs to his jobs.
fn enlarge(pipe: impl AsFd) {
    if geteuid().is_root() {
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(FIFO_BYTES));
    }
}

/// Removes what killed supervisors have left: directories of ours with a FIFO that nobody has open for reading, or with a
/// file that no supervisor has locked and whose command has had a day to end.
pub fn sweep() {
    for base in temporary_directories() {
        for entry in fs::read_dir(base).into_iter().flatten().flatten().take(SWEPT_ENTRIES_MAX) {
            if entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) && is_stale(&entry.path()) {
                let _ = fs::remove_file(entry.path().join(NAME));
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

fn is_stale(dir: &Path) -> bool {
    let ours = |path: &Path| fs::symlink_metadata(path).ok().filter(|m| m.uid() == geteuid().as_raw());
    let (Some(of_dir), Some(of_inbox)) = (ours(dir), ours(&dir.join(NAME))) else { return false };
    let is_older = |metadata: &fs::Metadata, age: Duration| {
        metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|old| old > age))
    };
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let opened = || File::options().write(true).custom_flags(flags).open(dir.join(NAME));
    if of_inbox.is_file() {
        return of_dir.is_dir()
            && is_older(&of_inbox, FILE_STALE_AFTER)
            && opened().is_ok_and(|file| file.try_lock().is_ok());
    }
    // ENXIO: there is no reader (fifo(7)); the supervisor and its command are readers.
    of_dir.is_dir()
        && of_inbox.file_type().is_fifo()
        && is_older(&of_dir, STALE_AFTER)
        && opened().is_err_and(|error| error.raw_os_error() == Some(libc::ENXIO))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn drained(inbox: &mut Inbox) -> Vec<u8> {
        let mut all = Vec::new();
        inbox.drain(|bytes| all.extend_from_slice(bytes));
        all
    }

    #[test]
    fn what_was_written_is_read_and_nothing_waits() {
        let mut inbox = Inbox::make(MetricsMode::Fifo).expect("a FIFO");
        assert_eq!(drained(&mut inbox), b"");
        let writer =
            |inbox: &Inbox| File::options().write(true).open(inbox.path()).expect("a reader is there");
        writer(&inbox).write_all(b"a 1\n").expect("room");
        writer(&inbox).write_all(b"b 2\n").expect("room");
        assert_eq!(drained(&mut inbox), b"a 1\nb 2\n");
        let mode = std::fs::metadata(inbox.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let path = inbox.path().to_owned();
        drop(inbox);
        assert!(!path.exists() && !path.parent().expect("a directory").exists());
    }

    #[test]
    fn a_pipe_takes_the_place_of_a_fifo() {
        let mut inbox = Inbox::make_pipe().expect("a pipe");
        let path = inbox.path().to_owned();
        assert!(path.starts_with("/proc/self/fd/"), "{path:?}");
        fs::write(&path, "a 1\n").expect("room");
        assert_eq!(drained(&mut inbox), b"a 1\n");
    }

    #[test]
    fn what_nobody_has_open_is_stale_after_a_while() {
        let base = tempfile::tempdir().expect("a directory");
        let inbox = Inbox::make_fifo(base.path()).expect("a FIFO");
        let dir = inbox.path().parent().expect("a directory").to_owned();
        let make_old = || {
            let old = std::time::SystemTime::now() - 2 * STALE_AFTER;
            File::open(&dir).and_then(|dir| dir.set_modified(old)).expect("ours");
        };
        make_old();
        assert!(!is_stale(&dir), "somebody reads it");
        let Inbox::Fifo { end, place } = inbox else { panic!("a FIFO") };
        drop(end);
        assert!(is_stale(&dir));
        File::open(&dir).and_then(|dir| dir.set_modified(std::time::SystemTime::now())).expect("ours");
        assert!(!is_stale(&dir), "it may be new");
        drop(place);
        assert!(!dir.exists());
    }

    #[test]
    fn a_file_is_read_as_a_whole() {
        let inbox = Inbox::make(MetricsMode::File).expect("a file");
        std::fs::write(inbox.path(), "a 1\n").expect("writable");
        assert_eq!(inbox.file_text(), Some((b"a 1\n".to_vec(), true)));
        std::fs::write(inbox.path(), "a 1\n".repeat(5_000_000)).expect("writable");
        let (text, is_all) = inbox.file_text().expect("a file");
        assert!(!is_all && text.len() as u64 <= FILE_BYTES_MAX && text.ends_with(b"\na 1\n"));
        assert_eq!(Inbox::make(MetricsMode::Off).expect("nowhere").path(), Path::new("/dev/null"));
    }
}
