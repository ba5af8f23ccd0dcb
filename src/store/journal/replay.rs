//! What is on disk, read again: the newest good snapshot, and all that was recorded after it.

use std::fs::File;
use std::path::Path;

use tracing::{error, warn};

use super::directory::{Directory, Numbered, Result, StorageError, failed};
use super::frame;
use super::record::{self, Record};
use crate::store::writer::State;

/// What becomes of what cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Nothing is begun.
    Refused,
    /// It is left out, and told of.
    LeftOut,
}

/// Where the journal goes on.
pub(super) struct End {
    /// The number of the next record.
    pub(super) next: u64,
    /// Bytes that were read of the journal.
    pub(super) journal_bytes: u64,
}

/// Puts what is on disk into an empty store.
pub(super) fn replay(directory: &Directory, damage: Damage, state: &mut State) -> Result<End> {
    let next = snapshot(directory, damage, state)?;
    let mut reading = Reading { next, damage, state };
    let segments = directory.segments()?;
    let mut journal_bytes = 0;
    for (at, segment) in segments.iter().enumerate() {
        let following = segments.get(at + 1);
        if following.is_some_and(|following| following.number <= reading.next) {
            // All of it is in the snapshot.
            continue;
        }
        journal_bytes += reading.segment(segment, following)?;
    }
    Ok(End { next: reading.next, journal_bytes })
}

/// Reads the newest snapshot that is good, and returns the first record that is not in it.
fn snapshot(directory: &Directory, damage: Damage, state: &mut State) -> Result<u64> {
    let snapshots = directory.snapshots()?;
    let mut problem = None;
    for snapshot in snapshots.iter().rev() {
        match read_snapshot(snapshot, Damage::Refused, state) {
            Ok(()) => return Ok(snapshot.number),
            Err(damaged @ StorageError::Damaged { .. }) => {
                error!(%damaged, "a snapshot cannot be used, the one before it is tried");
                state.clear();
                problem.get_or_insert(damaged);
            }
            Err(other) => return Err(other),
        }
    }
    match (problem, snapshots.last()) {
        (Some(_), Some(newest)) if damage == Damage::LeftOut => {
            read_snapshot(newest, damage, state)?;
            Ok(newest.number)
        }
        (Some(problem), _) => Err(problem),
        (None, _) => Ok(1),
    }
}

fn damaged(path: &Path, at: usize, problem: impl Into<String>) -> StorageError {
    StorageError::Damaged { path: path.to_owned(), at: at as u64, problem: problem.into() }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(failed("read", path))
}

/// Reads a snapshot. Where damage is left out, it takes what there is.
fn read_snapshot(snapshot: &Numbered, damage: Damage, state: &mut State) -> Result<()> {
    let bytes = read_file(&snapshot.path)?;
    let mut rest = &bytes[..];
    let mut groups = 0;
    loop {
        let at = bytes.len() - rest.len();
        let record = match frame::read(rest) {
            Some((frame, after)) => {
                rest = after;
                record::read(frame.payload)
            }
            None if damage == Damage::LeftOut => match frame::find(rest) {
                Some((skipped, _)) => {
                    error!(file = %snapshot.path.display(), at, bytes = skipped, "left out, it is damaged");
                    rest = &rest[skipped..];
                    continue;
                }
                None => return Ok(()),
            },
            None => return Err(damaged(&snapshot.path, at, "there is no whole record")),
        };
        match record {
            Some(Record::SnapshotBegin { next }) if at == 0 && next == snapshot.number => {}
            Some(Record::Group(group)) => {
                state.restore(group);
                groups += 1;
            }
            Some(Record::SnapshotEnd { groups: all }) if damage == Damage::LeftOut || all == groups => {
                return Ok(());
            }
            _ => return Err(damaged(&snapshot.path, at, "it is no record of a snapshot, or one is missing")),
        }
    }
}

struct Reading<'a> {
    /// The number of the record that comes next.
    next: u64,
    damage: Damage,
    state: &'a mut State,
}

impl Reading<'_> {
    /// Reads a segment, which `following` goes on; returns how many bytes it had.
    fn segment(&mut self, segment: &Numbered, following: Option<&Numbered>) -> Result<u64> {
        let bytes = read_file(&segment.path)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            if let Some((frame, after)) = frame::read(rest) {
                self.record(segment, at, frame)?;
                rest = after;
                continue;
            }
            let later = frame::find(rest);
            // A frame tells what was on disk before it was written: then this was, and has been answered for.
            let was_synced = later.is_some_and(|(_, frame)| frame.synced >= self.next)
                || following.is_some_and(|following| following.number > self.next);
            if !was_synced {
                cut_off(segment, at, rest.len())?;
                return Ok(at as u64);
            }
            let problem = || damaged(&segment.path, at, format!("record {} cannot be read", self.next));
            if self.damage == Damage::Refused {
                return Err(problem());
            }
            error!(damage = %problem(), "left out");
            rest = later.map_or(&[], |(skipped, _)| &rest[skipped..]);
        }
        Ok(bytes.len() as u64)
    }

    fn record(&mut self, segment: &Numbered, at: usize, frame: frame::Frame<'_>) -> Result<()> {
        if frame.number < self.next {
            // It is in the snapshot, or was written again after the disk had failed.
            return Ok(());
        }
        let problem = if frame.number > self.next {
            Some(format!("records {} to {} are missing before it", self.next, frame.number - 1))
        } else {
            None
        };
        let record = record::read(frame.payload);
        let problem = problem.or_else(|| match record {
            Some(Record::Change(_)) => None,
            _ => Some(format!("record {} is none that this version knows", frame.number)),
        });
        if let Some(problem) = problem {
            let problem = damaged(&segment.path, at, problem);
            if self.damage == Damage::Refused {
                return Err(problem);
            }
            error!(damage = %problem, "left out");
        }
        if let Some(Record::Change(change)) = record {
            // What was answered is taken again, whatever limits there are now.
            let _ = self.state.replay(change);
        }
        self.next = frame.number + 1;
        Ok(())
    }
}

/// Removes what was being written when the gateway, or the machine, ended: nobody had an answer for it.
fn cut_off(segment: &Numbered, at: usize, bytes: usize) -> Result<()> {
    warn!(
        file = %segment.path.display(), at, bytes,
        "an unfinished write at the end of the journal is cut off; nothing in it had been answered"
    );
    let cut = || {
        let file = File::options().write(true).open(&segment.path)?;
        file.set_len(at as u64)?;
        file.sync_all()
    };
    cut().map_err(failed("cut", &segment.path))
}
