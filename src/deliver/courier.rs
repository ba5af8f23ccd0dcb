//! The thread that delivers.
//!
//! Each sink has a [`Lane`], and lanes do not wait for each other. Of reports that come in while a lane is busy only the newest
//! counts. The last report always arrives last: a lane that is busy with an earlier one lets it end, or gives it up after
//! some time.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use tokio::sync::watch;
use tracing::{debug, error};

use super::access::Access;
use super::beside::beside;
use super::lane::Lane;
use super::spool::Spool;
use super::target::{Target, hide_secrets};
use super::textfile::Textfile;
use super::{Report, body};
use crate::grouping::GroupingKey;

/// Where the reports of one run go.
#[derive(Debug, Clone)]
pub struct Sinks {
    /// The group.
    pub key: GroupingKey,
    /// Servers to push to.
    pub targets: Vec<Target>,
    /// How pushes get in there.
    pub access: Access,
    /// Where they wait if they do not.
    pub spool: Option<Arc<Spool>>,
    /// Node exporter's directory.
    pub textfile_dir: Option<PathBuf>,
}

/// Handle to the thread.
pub struct Courier {
    orders: watch::Sender<Order>,
}

/// Tells how delivery ended when it goes, however it goes.
struct OnDrop<F: FnOnce(bool)>(Option<F>, bool);

impl<F: FnOnce(bool)> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(self.1);
        }
    }
}

/// What the lanes are to do.
#[derive(Debug, Clone)]
pub(super) struct Order {
    report: Option<Arc<Report>>,
    /// When delivery must have ended; set with the last report.
    pub(super) deadline: Option<Instant>,
}

impl Courier {
    /// Starts the thread. `idle` is called on it when a report of progress has been seen to, and `done` when the last report
    /// has been delivered everywhere, or given up: with that difference.
    ///
    /// # Errors
    /// Why there is no thread.
    pub fn start(sinks: Sinks, idle: fn(), done: impl FnOnce(bool) + Send + 'static) -> io::Result<Self> {
        let (orders, inbox) = watch::channel(Order { report: None, deadline: None });
        std::thread::Builder::new().name("courier".to_owned()).spawn(move || {
            // Also when the thread panics: nobody waits for a courier who is gone.
            let mut done = OnDrop(Some(done), false);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    done.1 = runtime.block_on(deliver(sinks, inbox, idle));
                    // A write to a file system that hangs must hold nobody up.
                    runtime.shutdown_background();
                }
                Err(error) => error!(%error, "cannot deliver anything"),
            }
        })?;
        Ok(Self { orders })
    }

    /// Delivers a last report on this thread, where there can be no other one. It takes no longer than until the deadline;
    /// tells whether everything has arrived.
    pub fn deliver_here(sinks: Sinks, report: Report, deadline: Instant) -> bool {
        let order = Order { report: Some(Arc::new(report)), deadline: Some(deadline) };
        let (_orders, mut inbox) = watch::channel(order);
        inbox.mark_changed();
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(deliver(sinks, inbox, || ())),
            Err(error) => {
                error!(%error, "cannot deliver anything");
                false
            }
        }
    }

    /// Delivers a report if nothing newer comes; once, without insisting.
    pub fn progress(&self, report: Report) {
        self.orders.send_modify(|order| order.report = Some(Arc::new(report)));
    }

    /// Delivers the last report, trying again until the deadline.
    pub fn finish(&self, report: Report, deadline: Instant) {
        self.orders
            .send_modify(|order| *order = Order { report: Some(Arc::new(report)), deadline: Some(deadline) });
    }

    /// Brings the deadline forward.
    pub fn hurry(&self, deadline: Instant) {
        self.orders.send_modify(|order| order.deadline = order.deadline.map(|old| old.min(deadline)));
    }
}

/// Runs all lanes to their ends; tells whether all have delivered.
async fn deliver(sinks: Sinks, inbox: watch::Receiver<Order>, idle: fn()) -> bool {
    let sinks = Arc::new(sinks);
    let mut lanes = tokio::task::JoinSet::new();
    for target in &sinks.targets {
        lanes.spawn(Lane::new(target.clone(), sinks.clone(), inbox.clone(), idle).run());
    }
    if let Some(dir) = sinks.textfile_dir.clone() {
        lanes.spawn(textfile_lane(Textfile::new(dir, sinks.key.clone()), inbox, idle));
    }
    let mut all = true;
    while let Some(lane) = lanes.join_next().await {
        all &= lane.unwrap_or_else(|error| {
            error!(%error, "delivery broke down, the result of the run may be lost");
            false
        });
    }
    all
}

/// The next report, and whether it is the last; `None` when there will be no more.
pub(super) async fn next(inbox: &mut watch::Receiver<Order>) -> Option<(Arc<Report>, bool)> {
    inbox.changed().await.ok()?;
    let order = inbox.borrow_and_update();
    Some((order.report.clone()?, order.deadline.is_some()))
}

/// Ends when the deadline is over, wherever it is moved to; never before the last report is there.
pub(super) async fn deadline(mut inbox: watch::Receiver<Order>) {
    loop {
        let at = inbox.borrow_and_update().deadline;
        let over = async {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            changed = inbox.changed() => if changed.is_err() { return },
        }
    }
}

pub(super) fn time_left(inbox: &watch::Receiver<Order>) -> Duration {
    inbox.borrow().deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
}

async fn textfile_lane(file: Textfile, mut inbox: watch::Receiver<Order>, idle: fn()) -> bool {
    while let Some((report, is_last)) = next(&mut inbox).await {
        let there = file.clone();
        let result = tokio::select! {
            result = beside(move || there.write(&report)) => result.flatten(),
            () = deadline(inbox.clone()) => Err(io::ErrorKind::TimedOut.into()),
        };
        let path = file.path();
        let is_written = result.is_ok();
        match result {
            Ok(()) => debug!(path = %path.display(), "textfile written"),
            Err(error) if is_last => {
                error!(path = %path.display(), %error, "the result of the run could not be written, see --textfile-dir");
            }
            Err(error) => debug!(path = %path.display(), %error, "textfile not written"),
        }
        if is_last {
            return is_written;
        }
        idle();
    }
    false
}

/// What would be delivered, for `--dry-run`.
pub fn describe(sinks: &Sinks, report: &Report) -> String {
    let mut text = String::new();
    let body: Bytes = body(&report.families);
    for target in &sinks.targets {
        let mut url = target.push_url(&sinks.key);
        let promised = report.promise.query(&url, Utc::now().timestamp_micros());
        hide_secrets(&mut url);
        url.set_query(promised.as_deref());
        let _ = writeln!(text, "jobmon: would POST to {url}");
    }
    if let Some(dir) = &sinks.textfile_dir {
        let file = Textfile::new(dir.clone(), sinks.key.clone());
        let _ = writeln!(text, "jobmon: would write {}", file.path().display());
    }
    text.push_str(&String::from_utf8_lossy(&body));
    text
}
