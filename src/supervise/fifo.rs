//! The place where the command writes its metrics: a FIFO, or a file, in a directory of the run's own.
//!
//! The FIFO is opened for reading and writing, so that it never reports an end and no writer waits for a reader; the command
//! gets a descriptor of the same kind, so that neither changes while it lives, even if we die (fifo(7), pipe(7)).

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::config::MetricsMode;

/// What the FIFO holds while nobody reads: as much as any user may ask for.
const FIFO_BYTES: i32 = 1024 * 1024;
/// What is read before other events get their turn.
const READ_BYTES_MAX: usize = 256 * 1024;
/// What is read of a metrics file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where the command's metrics go when nobody can take them: scripts that write them do not break.
pub const NOWHERE: &str = "/dev/null";

/// A place for the command's metrics. Dropping it removes it.
#[derive(Debug)]
pub enum Inbox {
    /// A FIFO.
    Fifo {
        /// The end that is read, open for writing too.
        end: File,
        /// Its path.
        path: PathBuf,
        /// Removes the path with its directory.
        _dir: TempDir,
    },
    /// A regular file, which a command can never block on.
    File {
        /// Its path.
        path: PathBuf,
        /// Removes the path with its directory.
        _dir: TempDir,
    },
    /// No place.
    Nowhere,
}

impl Inbox {
    /// Makes the place in the first directory that can hold it: `$TMPDIR`, `$XDG_RUNTIME_DIR`, `/tmp`, `/dev/shm`.
    ///
    /// # Errors
    /// What the last directory said.
    pub fn make(mode: MetricsMode) -> io::Result<Self> {
        if mode == MetricsMode::Off {
            return Ok(Self::Nowhere);
        }
        let variables =
            ["TMPDIR", "XDG_RUNTIME_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let mut result = Err(io::ErrorKind::NotFound.into());
        for base in variables.filter(|dir| dir.is_absolute()).chain(["/tmp", "/dev/shm"].map(PathBuf::from)) {
            result = Self::make_in(&base, mode);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn make_in(base: &Path, mode: MetricsMode) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("jobmon-")
            .rand_bytes(12)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(base)?;
        let path = dir.path().join("metrics");
        if mode == MetricsMode::File {
            File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            return Ok(Self::File { path, _dir: dir });
        }
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let end = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        // A smaller one, where a limit is reached, works as well.
        let _ = fcntl(&end, FcntlArg::F_SETPIPE_SZ(FIFO_BYTES));
        Ok(Self::Fifo { end, path, _dir: dir })
    }

    /// What `$JOBMON_METRICS` names.
    pub fn path(&self) -> &Path {
        match self {
            Self::Fifo { path, .. } | Self::File { path, .. } => path,
            Self::Nowhere => Path::new(NOWHERE),
        }
    }

    /// A descriptor for the command: it may block, as writers expect, and does not survive in this process.
    pub fn for_command(&self) -> Option<OwnedFd> {
        match self {
            Self::Fifo { path, .. } => {
                File::options().read(true).write(true).open(path).ok().map(OwnedFd::from)
            }
            Self::File { .. } | Self::Nowhere => None,
        }
    }

    /// What tells that there is something to read.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Fifo { end, .. } => Some(end.as_fd()),
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
            Self::Fifo { end, .. } => fcntl(&*end, FcntlArg::F_GETPIPE_SZ).unwrap_or(FIFO_BYTES),
            Self::File { .. } | Self::Nowhere => return,
        };
        self.read_at_most(usize::try_from(held).unwrap_or_default(), take);
    }

    fn read_at_most(&mut self, bytes_max: usize, mut take: impl FnMut(&[u8])) {
        let Self::Fifo { end, .. } = self else { return };
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
        let Self::File { path, .. } = self else { return None };
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use nix::fcntl::OFlag;

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
        let flags = fcntl(inbox.for_command().expect("a FIFO"), FcntlArg::F_GETFL).expect("flags");
        assert!(!OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
        let mode = std::fs::metadata(inbox.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let path = inbox.path().to_owned();
        drop(inbox);
        assert!(!path.exists() && !path.parent().expect("a directory").exists());
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
