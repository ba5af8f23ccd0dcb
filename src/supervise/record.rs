//! What a run leaves on disk while it goes on, so that the next one knows if it was killed.
//!
//! The record of a run is a file in the spool's directory that the run holds locked (flock(2)); it goes when the run ends. A
//! record that nobody holds is that of a run whose end nobody saw; it stays until a run has ended that told of it. It is not synced: a machine that loses its power in the
//! first seconds of a run loses the record too.

use std::fs::{self, DirBuilder, File, TryLockError};
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

/// The records that are to go when a run has ended, and its last report has been seen off: its own, and that of a run that was
/// lost. If this run is lost, too, the next one has both.
#[derive(Debug, Default)]
pub struct Records {
    /// The run's own.
    pub own: Option<Record>,
    /// That of the last run whose end nobody saw.
    pub lost: Option<PathBuf>,
}

impl Records {
    /// Whether there are any.
    pub fn are_there(&self) -> bool {
        self.own.is_some() || self.lost.is_some()
    }

    /// Takes them away.
    pub fn end(self) {
        if let Some(lost) = self.lost {
            let _ = fs::remove_file(lost);
        }
        self.own.into_iter().for_each(Record::end);
    }
}

/// What the records of a group tell of its other runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OtherRuns {
    /// When the last one whose end nobody saw had started.
    pub lost: Option<DateTime<Utc>>,
    /// Whether one goes on: its jobmon, or its command without it.
    pub goes_on: bool,
}

/// Looks for other runs of a group. Of those whose end nobody saw, and whose commands have ended, the record of the last one is
/// returned, too, and the others go.
pub fn other_runs(dir: &Path, key: &GroupingKey) -> (OtherRuns, Option<PathBuf>) {
    let prefix = prefix(key);
    let (mut others, mut last) = (OtherRuns::default(), None::<(DateTime<Utc>, PathBuf)>);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_record = name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX));
        match is_record.then(|| found(&entry.path())).flatten() {
            Some(Found::Held) => others.goes_on = true,
            Some(Found::Abandoned(noted)) => {
                if noted.command.is_some_and(|command| command.is_alive()) {
                    others.goes_on = true;
                } else {
                    let (older, newer) = match last.take() {
                        Some(known) if known.0 > noted.start => (Some(entry.path()), known),
                        known => (known.map(|(_, path)| path), (noted.start, entry.path())),
                    };
                    older.into_iter().for_each(|path| drop(fs::remove_file(path)));
                    last = Some(newer);
                }
                others.lost = others.lost.max(Some(noted.start));
            }
            None => {}
        }
    }
    (others, last.map(|(_, path)| path))
}

/// A record of ours that was found.
enum Found {
    /// Its run holds it.
    Held,
    /// Nobody does.
    Abandoned(Noted),
}

fn found(path: &Path) -> Option<Found> {
    let file =
        File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    if file.metadata().ok()?.uid() != geteuid().as_raw() {
        return None;
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Some(Found::Held),
        Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let start = DateTime::from_timestamp_micros(lines.next()?.parse().ok()?)?;
    Some(Found::Abandoned(Noted { start, command: lines.next()?.parse().ok() }))
}

/// What the names of a user's records of a group begin with.
fn prefix(key: &GroupingKey) -> String {
    format!("{}-{:016x}-", geteuid(), xxh3_64(key.to_path().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_not_ended_is_found_until_that_was_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let key = |job| GroupingKey::new(job, [("", ""); 0]);
        let start = DateTime::from_timestamp_micros(1_500_000_000_000_001).expect("a time");
        let noted = Noted { start, command: None };
        let write = |job, run| Record::write(&state, &key(job), run, &noted).expect("written");
        let others = |job| {
            let (OtherRuns { lost, goes_on }, _) = other_runs(&state, &key(job));
            (lost, goes_on)
        };
        assert_eq!(others("x"), (None, false));
        let running = write("x", "1");
        let ended = write("x", "2");
        ended.end();
        assert_eq!(others("x"), (None, true));
        drop(running);
        assert_eq!(others("y"), (None, false), "that is another job's");
        assert_eq!(others("x"), (Some(start), false));
        assert_eq!(others("x"), (Some(start), false), "whoever found it may have been lost, too");
        let later = Noted { start: start + chrono::TimeDelta::seconds(1), command: None };
        drop(Record::write(&state, &key("x"), "0", &later).expect("written"));
        let (runs, lost) = other_runs(&state, &key("x"));
        assert_eq!((runs.lost, lost.is_some()), (Some(later.start), true));
        assert_eq!(fs::read_dir(&state).expect("there").count(), 1, "the last one is enough");
        Records { own: None, lost }.end();
        assert_eq!(others("x"), (None, false), "it has been told");

        let command = ProcessId::of(nix::unistd::getpid());
        drop(Record::write(&state, &key("x"), "3", &Noted { start, command }).expect("written"));
        assert_eq!(others("x"), (Some(start), true));
        assert_eq!(others("x"), (Some(start), true), "its command goes on");
    }
}
