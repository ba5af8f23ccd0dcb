//! What is found out about runs that were killed, and left behind for the run after this one, on a thread of its own: the
//! file system may hang.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::unistd::Pid;

use super::process::ProcessId;
use super::record::{Noted, OtherRuns, Record, Records, other_runs};
use crate::config::DeliveryConfig;
use crate::deliver::SpoolPlace;
use crate::grouping::GroupingKey;

/// How long the end of a run waits for it.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long a report of progress does: it takes a fraction of that, unless the file system hangs. The first one is to tell, too,
/// or of a job whose every run is killed before the second one nobody would hear.
const PROGRESS_WAIT_MAX: Duration = Duration::from_millis(20);

/// What is found out, and when.
#[derive(Debug)]
pub enum Evidence {
    /// Nothing has been asked.
    Unasked(SpoolPlace),
    /// The answer is awaited.
    Asked(Receiver<Found>),
    /// The answer has come, and what was left behind is to be taken away.
    Known(Records),
}

/// An answer.
#[derive(Debug)]
pub struct Found {
    /// Nothing where no records are kept.
    others: Option<OtherRuns>,
    records: Records,
}

impl Evidence {
    /// Nothing is left behind, and so nothing found, where nothing is to be kept or sent.
    pub fn new(delivery: &DeliveryConfig) -> Self {
        if delivery.dry_run { Self::Known(Records::default()) } else { Self::Unasked(delivery.spool.clone()) }
    }

    /// Whether it has been asked.
    pub fn is_begun(&self) -> bool {
        !matches!(self, Self::Unasked(_))
    }

    /// Asks, and leaves a record of a run that goes on: its name, its start, its command. `beside` is done on the same
    /// thread, last.
    pub fn gather(
        &mut self,
        key: &GroupingKey,
        run: Option<(&str, DateTime<Utc>, Option<Pid>)>,
        beside: impl FnOnce() + Send + 'static,
    ) {
        let Self::Unasked(place) = self else { return };
        let (place, key) = (place.clone(), key.clone());
        let run = run.map(|(id, start, command)| (id.to_owned(), start, command));
        let (answer, found) = channel();
        let asked = std::thread::Builder::new().name("evidence".to_owned()).spawn(move || {
            // Nobody waits any more after the end.
            let _ = answer.send(find(place.directory(), &key, run));
            beside();
        });
        *self = if asked.is_ok() { Self::Asked(found) } else { Self::Known(Records::default()) };
    }

    /// What other runs of the group there are, as soon as that is known; at the end of the run it is waited for longer.
    pub fn other_runs(&mut self, at_end: bool) -> Option<OtherRuns> {
        let Self::Asked(found) = self else { return None };
        let wait = if at_end { WAIT_MAX } else { PROGRESS_WAIT_MAX };
        let found = found.recv_timeout(wait).ok()?;
        *self = Self::Known(found.records);
        found.others
    }

    /// Takes away what was left behind.
    pub fn end(self) {
        let records = match self {
            Self::Unasked(_) => Records::default(),
            Self::Asked(found) => found.recv_timeout(WAIT_MAX).map(|found| found.records).unwrap_or_default(),
            Self::Known(records) => records,
        };
        if records.are_there() {
            let (done, ended) = channel();
            let ending = std::thread::Builder::new().spawn(move || {
                records.end();
                let _ = done.send(());
            });
            if ending.is_ok() {
                let _ = ended.recv_timeout(WAIT_MAX);
            }
        }
    }
}

fn find(dir: Option<PathBuf>, key: &GroupingKey, run: Option<(String, DateTime<Utc>, Option<Pid>)>) -> Found {
    let Some(dir) = dir else { return Found { others: None, records: Records::default() } };
    let (others, lost) = other_runs(&dir, key);
    let own = run.and_then(|(id, start, command)| {
        let noted = Noted { start, command: command.and_then(ProcessId::of) };
        // Without a record the next run does not notice if we are killed; that is no reason to disturb this one.
        Record::write(&dir, key, &id, &noted).ok()
    });
    Found { others: Some(others), records: Records { own, lost } }
}
