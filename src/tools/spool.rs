//! `jobmon spool`: the pushes that wait, shown, delivered, thrown away.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tracing::error;

use crate::cli::{SpoolCall, SpoolVerb};
use crate::config::SpoolConfig;
use crate::deliver::{Entry, Flushed, Spool, flush};

/// Prints a line; whoever has gone wants no more.
macro_rules! say {
    ($($text:tt)*) => {
        let _ = writeln!(io::stdout(), $($text)*);
    };
}

/// How long another process that delivers is waited for.
const CLAIM_MAX: Duration = Duration::from_secs(30);
const CLAIM_POLL: Duration = Duration::from_millis(50);
/// Something is left, or went wrong.
const EXIT_FAILURE: u8 = 1;

/// Does what is asked; returns the code to exit with.
pub fn run(call: &SpoolCall, config: &SpoolConfig) -> u8 {
    let Some(dir) = config.spool.directory() else {
        error!("there is no place for a spool: set HOME or --spool-dir");
        return EXIT_FAILURE;
    };
    let spool = Spool::new(dir);
    let done = match call.verb {
        SpoolVerb::List => list(&spool, call.json).map(|()| 0),
        SpoolVerb::Flush => deliver(&spool),
        SpoolVerb::Drop => spool.clear().map(|count| {
            say!("{count} dropped");
            0
        }),
    };
    done.unwrap_or_else(|error| {
        error!(dir = %spool.dir().display(), %error, "the spool cannot be used, see --spool-dir");
        EXIT_FAILURE
    })
}

/// A line of the list.
#[derive(Serialize)]
struct Item {
    /// When it was said.
    time: String,
    age_seconds: i64,
    job: String,
    grouping: String,
    url: String,
    bytes: usize,
}

impl Item {
    fn new(entry: &Entry, now: DateTime<Utc>) -> Self {
        let at = DateTime::from_timestamp_micros(entry.at_micros).unwrap_or_default();
        let others = entry.key.labels().iter().filter(|(name, _)| *name != "job");
        Self {
            time: at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            age_seconds: (now - at).num_seconds(),
            job: entry.key.job().to_owned(),
            grouping: others.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","),
            url: entry.target.to_string(),
            bytes: entry.body.len(),
        }
    }
}

fn list(spool: &Spool, json: bool) -> io::Result<()> {
    let now = Utc::now();
    let names = spool.names()?;
    let items: Vec<Item> =
        names.iter().filter_map(|name| spool.entry(name)).map(|entry| Item::new(&entry, now)).collect();
    if json {
        say!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(());
    }
    if items.is_empty() {
        say!("nothing waits in {}", spool.dir().display());
        return Ok(());
    }
    let width =
        |length: fn(&Item) -> usize, title: &str| items.iter().map(length).max().max(Some(title.len()));
    let job = width(|item| item.job.chars().count(), "JOB").unwrap_or_default();
    let grouping = width(|item| item.grouping.chars().count(), "GROUPING").unwrap_or_default();
    say!("{:20}  {:job$}  {:grouping$}  {:>8}  URL", "TIME", "JOB", "GROUPING", "BYTES");
    for item in items {
        let item = Item {
            // A terminal must not take a name for a command.
            job: item.job.escape_debug().to_string(),
            grouping: item.grouping.escape_debug().to_string(),
            ..item
        };
        let Item { time, job: name, grouping: labels, url, bytes, .. } = item;
        say!("{time:20}  {name:job$}  {labels:grouping$}  {bytes:8}  {url}");
    }
    Ok(())
}

fn deliver(spool: &Spool) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let spool = Arc::new(spool.clone());
    let start = Instant::now();
    let Flushed { delivered, left, refused } = loop {
        if let Some(flushed) = runtime.block_on(flush(spool.clone()))? {
            break flushed;
        }
        if start.elapsed() > CLAIM_MAX {
            return Err(io::Error::other("another process delivers from it"));
        }
        std::thread::sleep(CLAIM_POLL);
    };
    say!("{delivered} delivered, {left} left, {refused} refused");
    Ok(if left + refused == 0 { 0 } else { EXIT_FAILURE })
}
