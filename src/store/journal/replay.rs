//! What is on disk, read again: the newest good snapshot, and all that was recorded after it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use tracing::{error, warn};

use super::directory::{Directory, Numbered, Result, StorageError, failed, put_away};
use super::frame;
use super::record::{Reader, Record};
use crate::store::promises::Moment;
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
    /// Whether something was left out.
    pub(super) was_damaged: bool,
    /// Bytes that were read of the journal.
    pub(super) journal_bytes: u64,
}

/// Puts what is on disk into an empty store.
pub(super) fn replay(directory: &Directory, damage: Damage, state: &mut State, now: Moment) -> Result<End> {
    let segments = directory.segments()?;
    let has_all = segments.first().is_some_and(|first| first.number == 1);
    let mut reader = Reader::new(state.hash().clone(), state.names().clone(), now);
    let (next, was_damaged) = snapshot(directory, damage, has_all, &mut reader, state)?;
    let mut reading = Reading { next, damage, was_damaged, state };
    let mut journal_bytes = 0;
    for (at, segment) in segments.iter().enumerate() {
        if segment.number > reading.next {
            let problem = format!("records {} to {} are missing before it", reading.next, segment.number - 1);
            reading.leave_out(damaged(&segment.path, 0, problem))?;
            reading.next = segment.number;
        }
        let following = segments.get(at + 1);
        if following.is_some_and(|following| following.number <= reading.next) {
            // All of it is in the snapshot.
            continue;
        }
        journal_bytes += reading.segment(&mut reader, segment, following)?;
    }
    Ok(End { next: reading.next, was_damaged: reading.was_damaged, journal_bytes })
}

/// Reads the newest snapshot that is good, and returns the first record that is not in it, and whether something was left
/// out. Where the journal `has_all` records, none is needed.
fn snapshot(
    directory: &Directory,
    damage: Damage,
    has_all: bool,
    reader: &mut Reader,
    state: &mut State,
) -> Result<(u64, bool)> {
    let snapshots = directory.snapshots()?;
    let mut problem = None;
    for snapshot in snapshots.iter().rev() {
        match read_snapshot(snapshot, Damage::Refused, reader, state) {
            Ok(()) => {
                // Or the next one would be kept beside a bad one, and the good one before it would go.
                snapshots.iter().filter(|newer| newer.number > snapshot.number).try_for_each(put_away)?;
                return Ok((snapshot.number, false));
            }
            Err(damaged @ StorageError::Damaged { .. }) => {
                error!(%damaged, "a snapshot cannot be used, the one before it is tried");
                state.clear();
                problem.get_or_insert(damaged);
            }
            Err(other) => return Err(other),
        }
    }
    match (problem, snapshots.last()) {
        // The first snapshot, before any record, is of what was imported, and that is in no journal.
        (Some(_), Some(_)) if has_all && snapshots.iter().all(|snapshot| snapshot.number > 1) => {
            snapshots.iter().try_for_each(put_away)?;
            Ok((1, false))
        }
        (Some(_), Some(newest)) if damage == Damage::LeftOut => {
            read_snapshot(newest, damage, reader, state)?;
            Ok((newest.number, true))
        }
        (Some(problem), _) => Err(problem),
        (None, _) => Ok((1, false)),
    }
}

fn damaged(path: &Path, at: usize, problem: impl Into<String>) -> StorageError {
    StorageError::Damaged { path: path.to_owned(), at: at as u64, problem: problem.into() }
}

/// Reads a file. A disk that gives an error for a part of it is damage as much as one that gives other bytes.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory => {
            failed("read", path)(error)
        }
        _ if error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32) => failed("read", path)(error),
        _ => damaged(path, 0, format!("cannot be read: {error}")),
    })
}

/// Whole frames one after the other, with the records in them: where each begins, and where the last one ends.
struct Ahead {
    begin: usize,
    end: usize,
    number: u64,
    record: Option<Record>,
}

/// Frames that are handed over together, and about how many bytes of them.
const AHEAD_LEN: usize = 256;
const AHEAD_BYTES: usize = 1024 * 1024;

/// Calls `each` with every whole frame from a place on, until there is none; returns that place. Records are decoded by
/// another thread meanwhile, and what is left of them goes back to it: memory is cheapest to free where it was taken.
fn whole_frames(
    bytes: &[u8],
    begin: usize,
    reader: &mut Reader,
    mut each: impl FnMut(&mut Ahead) -> Result<()>,
) -> Result<usize> {
    let (send, receive) = sync_channel::<Vec<Ahead>>(2);
    let (give_back, returned) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || read_ahead(bytes, begin, reader, &send, &returned));
        let mut end = begin;
        for mut batch in receive {
            for ahead in &mut batch {
                each(ahead)?;
                end = ahead.end;
            }
            let _ = give_back.send(batch);
        }
        Ok(end)
    })
}

fn read_ahead(
    bytes: &[u8],
    begin: usize,
    reader: &mut Reader,
    send: &SyncSender<Vec<Ahead>>,
    returned: &Receiver<Vec<Ahead>>,
) {
    let mut rest = &bytes[begin..];
    loop {
        returned.try_iter().for_each(drop);
        let mut batch = Vec::with_capacity(AHEAD_LEN);
        let (first, mut bytes_ahead) = (rest.len(), 0);
        while batch.len() < AHEAD_LEN
            && bytes_ahead < AHEAD_BYTES
            && let Some((frame, after)) = frame::read(rest)
        {
            bytes_ahead = first - after.len();
            let (begin, end) = (bytes.len() - rest.len(), bytes.len() - after.len());
            let record = reader.read(frame.payload);
            batch.push(Ahead { begin, end, number: frame.number, record });
            rest = after;
        }
        // Where nobody takes it any more, something was wrong with a record.
        if batch.is_empty() || send.send(batch).is_err() {
            return;
        }
    }
}

/// Reads a snapshot. Where damage is left out, it takes what there is.
fn read_snapshot(snapshot: &Numbered, damage: Damage, reader: &mut Reader, state: &mut State) -> Result<()> {
    let bytes = read_file(&snapshot.path)?;
    let (mut begin, mut groups, mut is_whole) = (0, 0, false);
    loop {
        begin = whole_frames(&bytes, begin, reader, |ahead| {
            let at = ahead.begin;
            match &mut ahead.record {
                Some(Record::SnapshotBegin { next }) if at == 0 && *next == snapshot.number => {}
                Some(Record::Group(group)) => {
                    let _ = state.restore(group);
                    groups += 1;
                }
                Some(Record::SnapshotEnd { groups: all }) if *all == groups => is_whole = true,
                Some(Record::SnapshotEnd { .. }) if damage == Damage::LeftOut => is_whole = true,
                _ => {
                    return Err(damaged(
                        &snapshot.path,
                        at,
                        "it is no record of a snapshot, or one is missing",
                    ));
                }
            }
            Ok(())
        })?;
        if is_whole {
            return Ok(());
        }
        if damage == Damage::Refused {
            return Err(damaged(&snapshot.path, begin, "there is no whole record"));
        }
        let Some((skipped, _)) = frame::find(&bytes[begin..], 1).next() else { return Ok(()) };
        error!(file = %snapshot.path.display(), at = begin, bytes = skipped, "left out, it is damaged");
        begin += skipped;
    }
}

struct Reading<'a> {
    /// The number of the record that comes next.
    next: u64,
    damage: Damage,
    was_damaged: bool,
    state: &'a mut State,
}

impl Reading<'_> {
    /// Reads a segment, which `following` goes on; returns how many bytes it had.
    fn segment(
        &mut self,
        reader: &mut Reader,
        segment: &Numbered,
        following: Option<&Numbered>,
    ) -> Result<u64> {
        let bytes = match read_file(&segment.path) {
            Ok(bytes) => bytes,
            Err(problem @ StorageError::Damaged { .. }) => {
                self.leave_out(problem)?;
                return Ok(0);
            }
            Err(other) => return Err(other),
        };
        // After a crash what is read may be in memory only, and from now on it is built upon.
        File::open(&segment.path).and_then(|file| file.sync_all()).map_err(failed("sync", &segment.path))?;
        let mut begin = 0;
        loop {
            begin = whole_frames(&bytes, begin, reader, |ahead| self.record(segment, ahead))?;
            let rest = &bytes[begin..];
            // A frame tells what was on disk before it was written: if that is more than can be read, this was, too, and has
            // been answered for. So was what comes before another segment.
            let was_synced = frame::find(rest, self.next).any(|(_, frame)| frame.synced >= self.next)
                || following.is_some_and(|following| following.number > self.next);
            if !was_synced {
                if !rest.is_empty() {
                    cut_off(segment, begin, rest.len())?;
                }
                return Ok(begin as u64);
            }
            let problem = damaged(&segment.path, begin, format!("record {} cannot be read", self.next));
            self.leave_out(problem)?;
            match frame::find(rest, self.next).next() {
                Some((skipped, _)) => begin += skipped,
                None => return Ok(bytes.len() as u64),
            }
        }
    }

    fn record(&mut self, segment: &Numbered, ahead: &mut Ahead) -> Result<()> {
        let Ahead { begin: at, number, .. } = *ahead;
        if number < self.next {
            // It is in the snapshot, or was written again after the disk had failed.
            return Ok(());
        }
        if number > self.next {
            let problem = format!("records {} to {} are missing before it", self.next, number - 1);
            self.leave_out(damaged(&segment.path, at, problem))?;
        }
        self.next = number.saturating_add(1);
        let verdict = match &mut ahead.record {
            // What is left of it goes back to where it was read.
            Some(Record::Push(push, judged)) => self.state.push_again(push, judged.as_ref()),
            Some(Record::Together(pushes)) => self.state.push_together_again(pushes),
            record => {
                let Some(Record::Change(change)) = record.take() else {
                    let problem = format!("record {number} is none that this version knows");
                    return self.leave_out(damaged(&segment.path, at, problem));
                };
                self.state.make(change)
            }
        };
        if let Err(fault) = verdict {
            // It was answered, so this is a fault of this program or comes of a version that takes less.
            error!(file = %segment.path.display(), at, %fault, "left out, it cannot be taken again");
        }
        Ok(())
    }

    /// # Errors
    /// The problem, where nothing is to be left out.
    fn leave_out(&mut self, problem: StorageError) -> Result<()> {
        if self.damage == Damage::Refused {
            return Err(problem);
        }
        self.was_damaged = true;
        error!(damage = %problem, "left out");
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
