//! The way to one server: progress once, the end until it has arrived or waits in the spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::error::Elapsed;
use tracing::{debug, error, info};

use super::Report;
use super::backoff::Backoff;
use super::beside::beside;
use super::courier::{Order, Sinks, deadline, next, time_left};
use super::flush::flush_some;
use super::push::{PushClient, PushError};
use super::spool::{Entry, Spool};
use super::target::Target;
use super::way::{Waiting, Way};

/// How long an attempt to push a run's progress may take; there will be another one.
const PROGRESS_MAX: Duration = Duration::from_secs(5);
/// How long such an attempt may go on after the command has ended.
const PROGRESS_GRACE: Duration = Duration::from_secs(1);
/// How long a request may still take to be served when its connection was lost, or when the last report has been answered.
const SERVE_MAX: Duration = Duration::from_secs(2);
/// What has not been answered for longer than this is given up.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);
/// An attempt may take this part of the time that is left, so that there is time for another one...
const ATTEMPT_PARTS: u32 = 2;
/// ... but not less than this, if there is so much.
const ATTEMPT_MIN: Duration = Duration::from_secs(2);
/// A push that has not arrived after this time is written to the spool meanwhile.
const SPOOL_AFTER: Duration = Duration::from_secs(1);
/// How long after the deadline the spool may still be written to.
const SPOOL_SLACK: Duration = Duration::from_millis(120);
/// How long the spool is asked what waits there.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// How long the spool may take to give back what has been delivered.
const UNDO_MAX: Duration = Duration::from_secs(1);
/// How long others' pushes may be delivered after our own has been: that they wait no longer is worth that much.
const FLUSH_MAX: Duration = Duration::from_millis(100);

/// The way to one server.
pub(super) struct Lane {
    way: Way,
    inbox: watch::Receiver<Order>,
    idle: fn(),
}

/// What became of a push of a run's progress.
enum Progress {
    Taken,
    Refused,
    Unsettled(Unsettled),
}

/// What came of a push, and when.
type Answered = (Result<(), PushError>, Instant);

/// A push that may have been sent, of which nobody knows whether it has been served.
enum Unsettled {
    /// It may yet be answered. Dropped, it is given up.
    Unanswered(JoinSet<Answered>),
    /// It will not be: its connection was lost then.
    Lost(Instant),
}

impl Unsettled {
    /// Whether it was before anything else is pushed: it has been answered by now, or lost for so long.
    fn is_settled(&mut self) -> bool {
        if let Self::Unanswered(push) = self
            && let Some(answered) = push.try_join_next()
        {
            let Some(lost_at) = lost_at(&answered) else { return true };
            *self = Self::Lost(lost_at);
        }
        matches!(self, Self::Lost(at) if at.elapsed() >= SERVE_MAX)
    }

    /// Waits until it has been served, if it ever is, as far as can be told; then it is given up.
    async fn settle(self) {
        let served = async {
            let lost_at = match self {
                Self::Lost(at) => Some(at),
                Self::Unanswered(mut push) => push.join_next().await.as_ref().and_then(lost_at),
            };
            if let Some(at) = lost_at {
                tokio::time::sleep_until((at + SERVE_MAX).into()).await;
            }
        };
        let _ = tokio::time::timeout(SERVE_MAX, served).await;
    }
}

/// When the connection was lost, if it was.
fn lost_at(answered: &Result<Answered, JoinError>) -> Option<Instant> {
    match answered {
        Ok((Err(PushError::NoAnswer(_)), at)) => Some(*at),
        _ => None,
    }
}

fn no_answer(_: Elapsed) -> Result<(), PushError> {
    Err(PushError::NoAnswer("no answer in time".to_owned()))
}

impl Lane {
    pub(super) fn new(target: Target, sinks: Arc<Sinks>, inbox: watch::Receiver<Order>, idle: fn()) -> Self {
        Self { way: Way { target, sinks }, inbox, idle }
    }

    /// Goes on until the last report has been delivered or given up; tells which.
    pub(super) async fn run(mut self) -> bool {
        let mut looking = Some(self.way.look_into_spool());
        let client = self.client().await;
        let mut unsettled: Option<Unsettled> = None;
        let mut seen_to = None;
        let mut flushing = None;
        while let Some((report, is_last)) = next(&mut self.inbox).await {
            // What waits may be something else each time.
            let looking = looking.take().unwrap_or_else(|| self.way.look_into_spool());
            let waiting = tokio::time::timeout(LOOK_MAX, looking).await.ok().and_then(Result::ok);
            let waiting = waiting.unwrap_or_default();
            if is_last {
                let unsettled = unsettled.take_if(|push| !push.is_settled());
                return self.finish(client, &report, waiting, unsettled, flushing.is_some()).await;
            }
            if let Ok(client) = &client {
                // What cannot be taken out of the spool goes before the first push, and not before each.
                let own = waiting.own.filter(|own| seen_to.as_ref() != Some(own));
                let progress = self.progress(client, report, own.clone()).await;
                if matches!(progress, Progress::Taken) {
                    seen_to = own.or(seen_to);
                }
                match progress {
                    Progress::Taken if flushing.is_none() && waiting.others => {
                        // The server is there, and the run has time.
                        let (spool, others) = (self.way.sinks.spool.clone(), self.way.others());
                        flushing = spool.map(|spool| tokio::spawn(flush_some(spool, Some(others))));
                    }
                    Progress::Unsettled(push) => unsettled = Some(push),
                    Progress::Taken | Progress::Refused => {}
                }
            }
            (self.idle)();
        }
        false
    }

    /// A client; made beside where that means to read files, which may hang.
    async fn client(&self) -> Result<PushClient, PushError> {
        let (target, access) = (self.way.target.clone(), self.way.sinks.access.clone());
        if !target.is_tls() && !access.has_files() {
            return PushClient::new(&target, &access);
        }
        let mut inbox = self.inbox.clone();
        let made = beside(move || PushClient::new(&target, &access));
        let over = async {
            let _ = inbox.wait_for(|order| order.deadline.is_some()).await;
            tokio::time::sleep(time_left(&inbox) / 2).await;
        };
        tokio::select! {
            client = made => client.unwrap_or_else(|error| Err(PushError::Client(error.to_string()))),
            () = over => Err(PushError::NoAnswer("a file with a secret or a certificate cannot be read in time".to_owned())),
        }
    }

    /// Pushes a run's progress.
    async fn progress(&self, client: &PushClient, report: Arc<Report>, waiting: Option<Entry>) -> Progress {
        let url = &self.way.target;
        let (way, client) = (self.way.clone(), client.clone());
        let push = async move { way.push_progress(&client, &report, waiting).await };
        let mut pushes = JoinSet::new();
        pushes.spawn(async {
            let result = tokio::time::timeout(UNANSWERED_MAX, push).await.unwrap_or_else(no_answer);
            (result, Instant::now())
        });
        let answered = tokio::select! {
            answered = tokio::time::timeout(PROGRESS_MAX, pushes.join_next()) => answered.ok().flatten(),
            () = grace(self.inbox.clone()) => None,
        };
        let broke_down = |error: JoinError| Err(PushError::Client(error.to_string()));
        let result = answered.map(|answered| answered.map_or_else(broke_down, |(result, _)| result));
        match result {
            Some(Ok(())) => Progress::Taken,
            Some(Err(error)) => {
                debug!(%url, %error, "progress not pushed");
                match error {
                    PushError::NoAnswer(_) => Progress::Unsettled(Unsettled::Lost(Instant::now())),
                    _ => Progress::Refused,
                }
            }
            None => {
                debug!(%url, "progress not pushed in time");
                Progress::Unsettled(Unsettled::Unanswered(pushes))
            }
        }
    }

    /// Sees the last report off.
    async fn finish(
        &self,
        client: Result<PushClient, PushError>,
        report: &Report,
        mut waiting: Waiting,
        unsettled: Option<Unsettled>,
        is_flushed: bool,
    ) -> bool {
        let start = Instant::now();
        let mut keeping = Keeping::new(self, report);
        // What another run has said since is for the next one to push.
        waiting.own = waiting.own.filter(|own| !own.is_later_than(&keeping.entry));
        let mut attempts = Attempts { count: 0, last: None };
        let result = match client {
            Err(error) => Err(Some(error)),
            Ok(client) => {
                let result = self.insist(&client, report, &waiting, &mut attempts, &mut keeping).await;
                if result.is_ok() {
                    self.after_delivery(&client, report, waiting, unsettled, is_flushed, &keeping).await;
                }
                result
            }
        };
        let took = humantime::format_duration(round(start.elapsed()));
        let (url, attempts) = (&self.way.target, attempts.count);
        match result {
            Ok(()) => {
                info!(%url, attempts, %took, "pushed");
                true
            }
            Err(error) => {
                let kept = match &error {
                    Some(error) if !error.is_worth_keeping() => {
                        if keeping.is_begun() {
                            let undo = keeping.undo(self, None);
                            let _ = tokio::time::timeout(time_left(&self.inbox) + SPOOL_SLACK, undo).await;
                        }
                        "it is lost".to_owned()
                    }
                    _ => keeping.end(time_left(&self.inbox) + SPOOL_SLACK).await,
                };
                let error = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                error!(%url, error, attempts, %took, kept, "the result of the run could not be pushed");
                false
            }
        }
    }

    /// Tries until it works, it is clear that it will not, or the time is over.
    async fn insist(
        &self,
        client: &PushClient,
        report: &Report,
        waiting: &Waiting,
        attempts: &mut Attempts,
        keeping: &mut Keeping,
    ) -> Result<(), Option<PushError>> {
        let slow = tokio::time::sleep(SPOOL_AFTER.min(time_left(&self.inbox) / 2));
        tokio::pin!(slow);
        let result = {
            let run = attempts.run(self, client, report, waiting.own.clone(), keeping.started.clone());
            tokio::pin!(run);
            let over = deadline(self.inbox.clone());
            tokio::pin!(over);
            loop {
                tokio::select! {
                    result = &mut run => break Some(result),
                    () = &mut over => break None,
                    () = &mut slow, if !keeping.is_begun() => keeping.begin(),
                    () = keeping.started.notified(), if !keeping.is_begun() => keeping.begin(),
                }
            }
        };
        result.unwrap_or_else(|| Err(attempts.last.take()))
    }

    /// What remains to be done when the server has taken the last report.
    async fn after_delivery(
        &self,
        client: &PushClient,
        report: &Report,
        waiting: Waiting,
        unsettled: Option<Unsettled>,
        is_flushed: bool,
        keeping: &Keeping,
    ) {
        let more = async {
            if waiting.own.is_some() || keeping.is_begun() {
                // What stays is pushed once more by the next run, before its own.
                let _ = tokio::time::timeout(UNDO_MAX, keeping.undo(self, waiting.own)).await;
            }
            if let Some(earlier) = unsettled {
                // It may be served after this one.
                earlier.settle().await;
                let again = self.way.push_once(client, report, &report.promise, false).await;
                debug!(url = %self.way.target, ok = again.is_ok(), "pushed again");
            }
            if let Some(spool) = self.way.sinks.spool.clone().filter(|_| waiting.others && !is_flushed) {
                let _ = tokio::time::timeout(FLUSH_MAX, flush_some(spool, Some(self.way.others()))).await;
            }
        };
        tokio::select! {
            () = more => {}
            () = deadline(self.inbox.clone()) => {}
        }
    }
}

/// Ends some time after the last report has come in.
async fn grace(mut inbox: watch::Receiver<Order>) {
    let ended = inbox.wait_for(|order| order.deadline.is_some()).await.is_ok();
    if !ended {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(PROGRESS_GRACE.min(time_left(&inbox) / 2)).await;
}

fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A report on its way into the spool, which begins before the time is over, so that it is there when it is.
struct Keeping {
    spool: Option<Arc<Spool>>,
    entry: Entry,
    /// Told when an attempt has failed.
    started: Arc<tokio::sync::Notify>,
    written: Option<watch::Receiver<Option<Result<(), String>>>>,
}

impl Keeping {
    fn new(lane: &Lane, report: &Report) -> Self {
        let entry = lane.way.entry(report);
        Self { spool: lane.way.sinks.spool.clone(), entry, started: Arc::default(), written: None }
    }

    fn is_begun(&self) -> bool {
        self.written.is_some()
    }

    fn begin(&mut self) {
        let (answer, written) = watch::channel(None);
        self.written = Some(written);
        if let Some(spool) = self.spool.clone() {
            let entry = self.entry.clone();
            tokio::spawn(async move {
                let result = beside(move || spool.put(&entry)).await.flatten();
                let _ = answer.send(Some(result.map_err(|error| error.to_string())));
            });
        }
    }

    /// Waits until it is written; tells what to expect.
    async fn end(&mut self, time: Duration) -> String {
        if !self.is_begun() {
            self.begin();
        }
        let Some(spool) = &self.spool else { return "it is lost, see --spool-dir".to_owned() };
        let dir = spool.dir().display().to_string();
        let Some(written) = &mut self.written else { return "it is lost".to_owned() };
        let result = tokio::time::timeout(time, written.wait_for(Option::is_some)).await;
        match result
            .as_ref()
            .ok()
            .and_then(|written| written.as_ref().ok())
            .and_then(|written| written.as_ref())
        {
            Some(Ok(())) => format!("in {dir} for the next run"),
            Some(Err(error)) => format!("it is lost, {dir} cannot take it: {error}"),
            None => format!("it is lost, {dir} does not answer"),
        }
    }

    /// Takes out again what has been delivered or is not worth keeping, when it is there, with what it was put to.
    async fn undo(&self, lane: &Lane, waiting: Option<Entry>) {
        if let Some(mut written) = self.written.clone() {
            let _ = written.wait_for(Option::is_some).await;
        }
        lane.way.take_back(self.entry.clone(), waiting).await;
    }
}

struct Attempts {
    count: u32,
    last: Option<PushError>,
}

impl Attempts {
    /// Tries until it works, or until it is clear that it will not. What waited in the spool goes first, unless the server
    /// finds fault with that; the runs that wait there are told of all the same.
    async fn run(
        &mut self,
        lane: &Lane,
        client: &PushClient,
        report: &Report,
        mut waiting: Option<Entry>,
        failed: Arc<tokio::sync::Notify>,
    ) -> Result<(), Option<PushError>> {
        let mut backoff = Backoff::new();
        let mut promise = report.promise.clone();
        loop {
            self.count += 1;
            let attempt_max = (time_left(&lane.inbox) / ATTEMPT_PARTS).max(ATTEMPT_MIN);
            let push = async {
                if let Some(own) = waiting.clone() {
                    match lane.way.push_waiting(client, own.clone()).await {
                        Err(error) if error.is_bad_request() => {
                            promise = report.promise.with_runs_of(&own.promise);
                        }
                        result => result?,
                    }
                    waiting = None;
                }
                lane.way.push_once(client, report, &promise, true).await
            };
            let error = match tokio::time::timeout(attempt_max, push).await.unwrap_or_else(no_answer) {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_retryable() => return Err(Some(error)),
                Err(error) => error,
            };
            failed.notify_one();
            debug!(url = %lane.way.target, %error, attempt = self.count, "push failed");
            let pause = backoff.pause(random(), error.retry_after());
            if pause >= time_left(&lane.inbox) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(result: Result<(), PushError>, at: Instant) -> Unsettled {
        let mut push = JoinSet::new();
        push.spawn(std::future::ready((result, at)));
        Unsettled::Unanswered(push)
    }

    fn no_answer() -> Result<(), PushError> {
        Err(PushError::NoAnswer("reset".to_owned()))
    }

    #[tokio::test]
    async fn what_was_answered_or_lost_long_ago_is_settled() {
        let ago = |time: Duration| Instant::now().checked_sub(time).expect("the machine has run so long");
        let refused = || Err(PushError::Client("refused".to_owned()));
        for (mut push, is_settled) in [
            (answered(Ok(()), Instant::now()), true),
            (answered(refused(), Instant::now()), true),
            (answered(no_answer(), Instant::now()), false),
            (answered(no_answer(), ago(SERVE_MAX)), true),
            (Unsettled::Lost(Instant::now()), false),
            (Unsettled::Lost(ago(SERVE_MAX)), true),
        ] {
            // So that what was spawned has run.
            tokio::task::yield_now().await;
            assert_eq!(push.is_settled(), is_settled);
        }
        let mut unanswered = JoinSet::new();
        unanswered.spawn(std::future::pending());
        assert!(!Unsettled::Unanswered(unanswered).is_settled());
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_and_what_was_lost_has_its_time() {
        let soon = SERVE_MAX / 20 * 19;
        let lost_at = Instant::now().checked_sub(soon).expect("the machine has run so long");
        for push in [Unsettled::Lost(lost_at), answered(no_answer(), lost_at)] {
            push.settle().await;
            assert!(lost_at.elapsed() >= SERVE_MAX);
        }
        let start = Instant::now();
        answered(Ok(()), start).settle().await;
        assert!(start.elapsed() < SERVE_MAX);
    }
}
