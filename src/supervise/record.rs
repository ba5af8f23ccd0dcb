//! What a run leaves on disk while it goes on, so that the next one knows if it was killed.
//!
//! The record of a run is a file in the spool's directory that the run holds locked (flock(2)); it goes when the run ends. A
//! record that nobody holds is that of a run whose end nobody saw. It is not synced: a machine that loses its power in the
//! first seconds of a run loses the record too.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use nix::unistd::geteuid;
use xxhash_rust::xxh3::xxh3_64;

use super::process::ProcessId;
use crate::grouping::GroupingKey;

const SUFFIX: &str = ".run";

/// The record of this run. It is to be [ended](Record::end).
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

/// What is known about a run from its record.
#[derive(Debug, Clone, PartialEq)]
pub struct Noted {
    /// When it started.
    pub start: DateTime<Utc>,
    /// Its command.
    pub command: Option<ProcessId>,
}

impl Record {
    /// Writes down that a run goes on.
    ///
    /// # Errors
    /// What the file system said.
    pub fn write(dir: &Path, key: &GroupingKey, run_id: &str, noted: &Noted) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(format!("{}{run_id}{SUFFIX}", prefix(key)));
        // Nobody may find it before it is locked.
        let mut new = tempfile::Builder::new().prefix(&format!(".{}", prefix(key))).tempfile_in(dir)?;
        let command = noted.command.as_ref().map(ToString::to_string).unwrap_or_default();
        writeln!(new, "{}\n{command}", noted.start.timestamp_micros())?;
        new.as_file().try_lock()?;
        let file = new.persist(&path)?;
        Ok(Self { path, _file: file })
    }

    /// Takes the record away.
    pub fn end(self) {
        // One that stays says that a run was lost that was not; more cannot be done.
        let _ = fs::remove_file(&self.path);
    }
}

/// The last run of a group whose end nobody saw. Its record goes, unless its command runs still.
pub fn lost_run(dir: &Path, key: &GroupingKey) -> Option<DateTime<Utc>> {
    let prefix = prefix(key);
    let mut last = None;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_record = name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX));
        if let Some(noted) = is_record.then(|| abandoned(&entry.path())).flatten() {
            if !noted.command.is_some_and(|command| command.is_alive()) {
                let _ = fs::remove_file(entry.path());
            }
            last = last.max(Some(noted.start));
        }
    }
    last
}

/// What a record says, if nobody holds it.
fn abandoned(path: &Path) -> Option<Noted> {
    let file =
        File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    if file.metadata().ok()?.uid() != geteuid().as_raw() || file.try_lock().is_err() {
        return None;
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let start = DateTime::from_timestamp_micros(lines.next()?.parse().ok()?)?;
    Some(Noted { start, command: lines.next()?.parse().ok() })
}

/// What the names of a user's records of a group begin with.
fn prefix(key: &GroupingKey) -> String {
    format!("{}-{:016x}-", geteuid(), xxh3_64(key.to_path().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_not_ended_is_found_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let key = |job| GroupingKey::new(job, [("", ""); 0]);
        let start = DateTime::from_timestamp_micros(1_500_000_000_000_001).expect("a time");
        let noted = Noted { start, command: None };
        let write = |job, run| Record::write(&state, &key(job), run, &noted).expect("written");
        assert_eq!(lost_run(&state, &key("x")), None);
        let running = write("x", "1");
        let ended = write("x", "2");
        ended.end();
        assert_eq!(lost_run(&state, &key("x")), None);
        drop(running);
        assert_eq!(lost_run(&state, &key("y")), None, "that is another job's");
        assert_eq!(lost_run(&state, &key("x")), Some(start));
        assert_eq!(lost_run(&state, &key("x")), None, "it has been told");

        let command = ProcessId::of(nix::unistd::getpid());
        drop(Record::write(&state, &key("x"), "3", &Noted { start, command }).expect("written"));
        assert_eq!(lost_run(&state, &key("x")), Some(start));
        assert_eq!(lost_run(&state, &key("x")), Some(start), "its command goes on");
    }
}
