//! The thread that delivers.
//!
//! Each sink has a lane, and lanes do not wait for each other. Of reports that come in while a lane is busy only the newest
//! counts. The last report always arrives last: a lane that is busy with an earlier one lets it end, or gives it up after
//! [`PROGRESS_GRACE`].

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::backoff::Backoff;
use super::push::{PushClient, PushError};
use super::target::{Target, hide_secrets};
use super::textfile::Textfile;
use super::{Report, body};
use crate::grouping::GroupingKey;

/// How long an attempt to push a run's progress may take; there will be another one.
const PROGRESS_MAX: Duration = Duration::from_secs(5);
/// How long such an attempt may go on after the command has ended.
const PROGRESS_GRACE: Duration = Duration::from_secs(1);
/// How long a request that was given up has to be served before the last report is sent again.
const SETTLE: Duration = Duration::from_millis(500);
/// An attempt may take this part of the time that is left, so that there is time for another one...
const ATTEMPT_PARTS: u32 = 2;
/// ... but not less than this, if there is so much.
const ATTEMPT_MIN: Duration = Duration::from_secs(2);

/// Where the reports of one run go.
#[derive(Debug, Clone)]
pub struct Sinks {
    /// The group.
    pub key: GroupingKey,
    /// Servers to push to.
    pub targets: Vec<Target>,
    /// Node exporter's directory.
    pub textfile_dir: Option<PathBuf>,
}

/// Handle to the thread.
pub struct Courier {
    orders: watch::Sender<Order>,
}

/// Calls a function when it goes.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

/// What the lanes are to do.
#[derive(Debug, Clone)]
struct Order {
    report: Option<Arc<Report>>,
    /// When delivery must have ended; set with the last report.
    deadline: Option<Instant>,
}

impl Courier {
    /// Starts the thread. `idle` is called on it when a report of progress has been seen to, and `done` when the last report
    /// has been delivered, or given up, everywhere.
    ///
    /// # Errors
    /// Why there is no thread.
    pub fn start(sinks: Sinks, idle: fn(), done: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (orders, inbox) = watch::channel(Order { report: None, deadline: None });
        std::thread::Builder::new().name("courier".to_owned()).spawn(move || {
            // Also when the thread panics: nobody waits for a courier who is gone.
            let _done = OnDrop(Some(done));
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    runtime.block_on(deliver(sinks, inbox, idle));
                    // A write to a file system that hangs must hold nobody up.
                    runtime.shutdown_background();
                }
                Err(error) => error!(%error, "cannot deliver anything"),
            }
        })?;
        Ok(Self { orders })
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

/// Runs all lanes to their ends.
async fn deliver(sinks: Sinks, inbox: watch::Receiver<Order>, idle: fn()) {
    let mut lanes = tokio::task::JoinSet::new();
    for target in sinks.targets {
        lanes.spawn(push_lane(target, sinks.key.clone(), inbox.clone(), idle));
    }
    if let Some(dir) = sinks.textfile_dir {
        lanes.spawn(textfile_lane(Textfile::new(dir, sinks.key), inbox, idle));
    }
    while let Some(lane) = lanes.join_next().await {
        if let Err(error) = lane {
            error!(%error, "delivery broke down, the result of the run may be lost");
        }
    }
}

/// The next report, and whether it is the last; `None` when there will be no more.
async fn next(inbox: &mut watch::Receiver<Order>) -> Option<(Arc<Report>, bool)> {
    inbox.changed().await.ok()?;
    let order = inbox.borrow_and_update();
    Some((order.report.clone()?, order.deadline.is_some()))
}

/// Ends when the deadline is over, wherever it is moved to; never before the last report is there.
async fn deadline(mut inbox: watch::Receiver<Order>) {
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

async fn push_lane(target: Target, key: GroupingKey, mut inbox: watch::Receiver<Order>, idle: fn()) {
    let client = match PushClient::new(&target, &key) {
        Ok(client) => client,
        Err(error) => return error!(url = %target, %error, "cannot push"),
    };
    let mut unsettled = false;
    while let Some((report, is_last)) = next(&mut inbox).await {
        if is_last {
            return push_last(&client, &target, &report, &inbox, unsettled).await;
        }
        let attempt = tokio::time::timeout(PROGRESS_MAX, push_once(&client, &target, &report, false));
        tokio::select! {
            result = attempt => match result {
                Ok(Ok(())) => unsettled = false,
                Ok(Err(error)) => {
                    unsettled |= error.is_unanswered();
                    debug!(url = %target, %error, "progress not pushed");
                }
                Err(_) => {
                    unsettled = true;
                    debug!(url = %target, "progress not pushed in time");
                }
            },
            () = grace(inbox.clone()) => {
                unsettled = true;
                debug!(url = %target, "progress not pushed before the end");
            }
        }
        idle();
    }
}

/// Ends some time after the last report has come in.
async fn grace(mut inbox: watch::Receiver<Order>) {
    let ended = inbox.wait_for(|order| order.deadline.is_some()).await.is_ok();
    if !ended {
        std::future::pending::<()>().await;
    }
    let left = time_left(&inbox);
    tokio::time::sleep(PROGRESS_GRACE.min(left / 2)).await;
}

fn time_left(inbox: &watch::Receiver<Order>) -> Duration {
    inbox.borrow().deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
}

/// Pushes a report, and without the command's metrics if the server finds fault with it.
async fn push_once(
    client: &PushClient,
    target: &Target,
    report: &Report,
    is_last: bool,
) -> Result<(), PushError> {
    match client.post(body(&report.families)).await {
        Err(error) if error.is_bad_request() => match &report.without_command {
            Some(families) => {
                if is_last {
                    warn!(url = %target, %error, "the command's metrics were refused, pushing without them");
                }
                client.post(body(families)).await
            }
            None => Err(error),
        },
        result => result,
    }
}

/// Pushes the last report. If an earlier one was never answered it may still arrive, and after this one: then this one is
/// sent again when that has had its time.
async fn push_last(
    client: &PushClient,
    target: &Target,
    report: &Report,
    inbox: &watch::Receiver<Order>,
    unsettled: bool,
) {
    let start = Instant::now();
    let mut attempts = Attempts { count: 0, last: None };
    let result = tokio::select! {
        result = attempts.run(client, target, report, inbox) => result,
        () = deadline(inbox.clone()) => Err(attempts.last.take()),
    };
    if result.is_ok() && unsettled {
        let again = async {
            tokio::time::sleep(SETTLE).await;
            push_once(client, target, report, false).await
        };
        tokio::select! {
            result = again => debug!(url = %target, ok = result.is_ok(), "pushed again"),
            () = deadline(inbox.clone()) => {}
        }
    }
    let (attempts, took) = (attempts.count, humantime::format_duration(round(start.elapsed())));
    match result {
        Ok(()) => info!(url = %target, attempts, %took, "pushed"),
        Err(error) => {
            let error = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
            error!(url = %target, error, attempts, %took, "the result of the run could not be pushed");
        }
    }
}

fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

struct Attempts {
    count: u32,
    last: Option<PushError>,
}

impl Attempts {
    /// Tries until it works, or until it is clear that it will not.
    async fn run(
        &mut self,
        client: &PushClient,
        target: &Target,
        report: &Report,
        inbox: &watch::Receiver<Order>,
    ) -> Result<(), Option<PushError>> {
        let mut backoff = Backoff::new();
        loop {
            self.count += 1;
            let attempt_max = (time_left(inbox) / ATTEMPT_PARTS).max(ATTEMPT_MIN);
            let error = match tokio::time::timeout(attempt_max, push_once(client, target, report, true)).await
            {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !error.is_retryable() => return Err(Some(error)),
                Ok(Err(error)) => error,
                Err(_) => PushError::NoAnswer("no answer in time".to_owned()),
            };
            debug!(url = %target, %error, attempt = self.count, "push failed");
            let pause = backoff.pause(random(), error.retry_after());
            if pause >= time_left(inbox) {
                return Err(Some(error));
            }
            self.last = Some(error);
            tokio::time::sleep(pause).await;
        }
    }
}

/// A number from 0 to 1 that differs from process to process.
fn random() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(Instant::now()) as f64 / u64::MAX as f64
}

async fn textfile_lane(file: Textfile, mut inbox: watch::Receiver<Order>, idle: fn()) {
    while let Some((report, is_last)) = next(&mut inbox).await {
        let result = tokio::select! {
            result = write(file.clone(), report) => result,
            () = deadline(inbox.clone()) => Err(io::ErrorKind::TimedOut.into()),
        };
        let path = file.path();
        match result {
            Ok(()) => debug!(path = %path.display(), "textfile written"),
            Err(error) if is_last => {
                error!(path = %path.display(), %error, "the result of the run could not be written, see --textfile-dir");
            }
            Err(error) => debug!(path = %path.display(), %error, "textfile not written"),
        }
        if is_last {
            return;
        }
        idle();
    }
}

/// Writes on a thread of its own, since a file system may hang; without a thread, here.
async fn write(file: Textfile, report: Arc<Report>) -> io::Result<()> {
    let (answer, written) = tokio::sync::oneshot::channel();
    let (there, what) = (file.clone(), report.clone());
    let thread = std::thread::Builder::new().name("textfile".to_owned()).spawn(move || {
        // Nobody waits any more after the deadline.
        let _ = answer.send(there.write(&what));
    });
    match thread {
        Ok(_) => written.await.unwrap_or_else(|_| Err(io::Error::other("the write broke down"))),
        Err(_) => file.write(&report),
    }
}

/// What would be delivered, for `--dry-run`.
pub fn describe(sinks: &Sinks, report: &Report) -> String {
    let mut text = String::new();
    let body: Bytes = body(&report.families);
    for target in &sinks.targets {
        let mut url = target.push_url(&sinks.key);
        hide_secrets(&mut url);
        let _ = writeln!(text, "jobmon: would POST to {url}");
    }
    if let Some(dir) = &sinks.textfile_dir {
        let file = Textfile::new(dir.clone(), sinks.key.clone());
        let _ = writeln!(text, "jobmon: would write {}", file.path().display());
    }
    text.push_str(&String::from_utf8_lossy(&body));
    text
}
