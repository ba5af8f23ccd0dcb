//! At most one run at a time.
//!
//! The lock is a flock(2) on a file that nobody but us inherits: a daemon that the command leaves behind does not hold it. If
//! we are killed and the command goes on, the kernel gives the lock free too early; so the file also says which process the
//! command is, and a run that finds it alive finds the lock taken.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, geteuid};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use xxhash_rust::xxh3::xxh3_64;

use super::process::ProcessId;
use crate::config::LockName;
use crate::grouping::GroupingKey;

/// Directories for lock files: the first that works. They do not depend on the environment, which is another one in cron
/// than at a terminal.
const PLACES: [&str; 4] = ["/run/lock", "/var/lock", "/tmp", "/dev/shm"];
/// What stands in a file's name as it is.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
/// Longer names are cut and told apart by a hash.
const NAME_BYTES_MAX: usize = 100;

/// A file that is locked, or will be. Closing it gives the lock free.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// Whether the file is ours to write to.
    is_ours: bool,
}

impl Lock {
    /// Opens the file of a lock.
    ///
    /// # Errors
    /// Which file cannot be made, and why.
    pub fn open(name: &LockName, key: &GroupingKey) -> Result<Self, (PathBuf, io::Error)> {
        let file_name = match name {
            LockName::File(path) => return Self::open_file(path, false),
            LockName::Named(name) => format!("{}.lock", short(name)),
            LockName::Job => format!("job{}.lock", short(&key.to_path())),
        };
        let mut result = Err((PathBuf::new(), io::ErrorKind::NotFound.into()));
        for place in PLACES {
            let dir = Path::new(place).join(format!("jobmon-{}", geteuid()));
            result = private_directory(&dir)
                .map_err(|error| (dir.clone(), error))
                .and_then(|()| Self::open_file(&dir.join(&file_name), true));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn open_file(path: &Path, is_ours: bool) -> Result<Self, (PathBuf, io::Error)> {
        let mut options = File::options();
        options.read(true).write(true).create(true);
        if is_ours {
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
        } else {
            options.mode(0o666).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        }
        // A file that may only be read can be locked too, and so can a directory.
        let read_only = |error| {
            File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
                .map_err(|_| error)
        };
        match options.open(path).or_else(read_only) {
            Ok(file) => Ok(Self { file, path: path.to_owned(), is_ours }),
            Err(error) => Err((path.to_owned(), error)),
        }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// Why nobody can tell, such as a file system without locks.
    pub fn try_take(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        if self.is_held_by_a_command() {
            let _ = self.file.unlock();
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether the command of a supervisor that was killed still runs.
    fn is_held_by_a_command(&self) -> bool {
        let mut note = [0; 1024];
        // At its beginning each time it is asked for.
        let length = self.file.read_at(&mut note, 0).unwrap_or_default();
        let note = str::from_utf8(&note[..length]).unwrap_or_default();
        self.is_ours && note.trim().parse::<ProcessId>().is_ok_and(|process| process.is_alive())
    }

    /// Notes which process the command is.
    pub fn note(&self, command: Pid) {
        let Some(process) = ProcessId::of(command).filter(|_| self.is_ours) else { return };
        // Without the note the lock is as good as flock(1)'s.
        let _ = self.file.set_len(0);
        let _ = self.file.write_all_at(format!("{process}\n").as_bytes(), 0);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn short(name: &str) -> String {
    let mut encoded = utf8_percent_encode(name, FILE_NAME).to_string();
    if encoded.len() > NAME_BYTES_MAX {
        encoded.truncate(NAME_BYTES_MAX);
        encoded = format!("{encoded}-{:016x}", xxh3_64(name.as_bytes()));
    }
    encoded
}

/// Makes a directory that only we can use, or finds that it is one.
fn private_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return fs::set_permissions(path, Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(io::Error::other("it is not a directory of this user alone"))
    }
}
