//! What can be done with a report and one server: push it, let it wait, look for what waits. Knows of no time limits.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::warn;

use super::beside::beside;
use super::courier::Sinks;
use super::flush::Others;
use super::promises::Promise;
use super::push::{PushClient, PushError};
use super::spool::{Entry, Spool};
use super::target::Target;
use super::{Report, body};

/// A server, and what a run's reports need to get there.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) target: Target,
    pub(super) sinks: Arc<Sinks>,
}

/// What waits in the spool when a run begins to push.
#[derive(Default)]
pub(super) struct Waiting {
    /// Of our group.
    pub(super) own: Option<Entry>,
    /// Whether there is more.
    pub(super) others: bool,
}

impl Way {
    /// Finds out what waits, while the client is made.
    pub(super) fn look_into_spool(&self) -> oneshot::Receiver<Waiting> {
        let (answer, waiting) = oneshot::channel();
        if let Some(spool) = self.sinks.spool.clone() {
            let (target, key) = (self.target.clone(), self.sinks.key.clone());
            tokio::spawn(async move {
                let look = beside(move || Waiting {
                    own: spool.get(&target, &key).ok().flatten(),
                    others: spool.names().is_ok_and(|names| !names.is_empty()),
                });
                let _ = answer.send(look.await.unwrap_or_default());
            });
        }
        waiting
    }

    /// Everybody else who waits for this server.
    pub(super) fn others(&self) -> Others {
        Others { target: self.target.clone(), own: self.sinks.key.clone() }
    }

    /// A report as it would wait.
    pub(super) fn entry(&self, report: &Report) -> Entry {
        Entry {
            target: self.target.clone(),
            access: self.sinks.access.absolute(),
            key: self.sinks.key.clone(),
            body: body(&report.families),
            at_micros: report.at_micros,
            promise: report.promise.clone(),
        }
    }

    /// Takes this run's own report back out of the spool, with what waited there before it, if there was something.
    pub(super) async fn take_back(&self, own: Entry, waiting: Option<Entry>) {
        self.change_spool(move |spool| spool.take_back(&own, waiting.as_ref())).await;
    }

    async fn change_spool(&self, change: impl FnOnce(&Spool) -> io::Result<()> + Send + 'static) {
        if let Some(spool) = self.sinks.spool.clone() {
            let changed = beside(move || change(&spool)).await.flatten();
            if let Err(error) = changed {
                warn!(%error, "what has been pushed could not be taken out of the spool");
            }
        }
    }

    /// Pushes a report, and without the command's metrics if the server finds fault with it.
    pub(super) async fn push_once(
        &self,
        client: &PushClient,
        report: &Report,
        promise: &Promise,
        is_last: bool,
    ) -> Result<(), PushError> {
        let key = &self.sinks.key;
        match client.post(key, promise, body(&report.families)).await {
            Err(error) if error.is_bad_request() => match &report.without_command {
                Some(families) => {
                    if is_last {
                        warn!(url = %client.target(), %error, "the command's metrics were refused, pushing without them");
                    }
                    client.post(key, promise, body(families)).await
                }
                None => Err(error),
            },
            result => result,
        }
    }

    /// Pushes what has waited of the group, as what it is: what was said before what is to be pushed next. A spool that does
    /// not answer holds that up no longer.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn push_waiting(&self, client: &PushClient, own: Entry) -> Result<(), PushError> {
        push_entry(client, &own).await?;
        let way = self.clone();
        tokio::spawn(async move { way.change_spool(move |spool| spool.take_out(&own)).await });
        Ok(())
    }

    /// Pushes a run's progress, and what has waited before it.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn push_progress(
        &self,
        client: &PushClient,
        report: &Report,
        waiting: Option<Entry>,
    ) -> Result<(), PushError> {
        if let Some(own) = waiting {
            match self.push_waiting(client, own).await {
                // It is left to the end.
                Err(error) if error.is_bad_request() => {}
                result => result?,
            }
        }
        self.push_once(client, report, &report.promise, false).await
    }
}

/// Pushes what waits, and without the command's metrics if the server finds fault with it.
///
/// # Errors
/// Why it was not taken.
pub(super) async fn push_entry(client: &PushClient, entry: &Entry) -> Result<(), PushError> {
    let (key, promise) = (&entry.key, &entry.promise);
    match client.post(key, promise, entry.body.clone()).await {
        Err(error) if error.is_bad_request() => client.post(key, promise, entry.without_command()).await,
        result => result,
    }
}
