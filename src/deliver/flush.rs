//! What waits in the spool, delivered.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::beside::beside;
use super::push::{PushClient, PushError};
use super::spool::{Entry, Spool};
use super::way::push_entry;
use super::{Access, Target};
use crate::grouping::GroupingKey;

/// How long one push may take.
const PUSH_MAX: Duration = Duration::from_secs(10);

/// A server that does not take so many pushes in a row is not asked again.
const FAILURES_MAX: u32 = 3;

/// What became of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flushed {
    /// They are where they belong.
    pub delivered: usize,
    /// They wait on.
    pub left: usize,
    /// Servers will never take them.
    pub refused: usize,
}

/// What a run delivers for others beside its own: what waits for its server, but for its own group, of which it knows better.
#[derive(Debug, Clone)]
pub(super) struct Others {
    /// The server.
    pub target: Target,
    /// The run's own group.
    pub own: GroupingKey,
}

/// Delivers what waits, the oldest first. A server that does not answer, or takes nothing, is not asked again. `None` if another
/// process is at it.
///
/// # Errors
/// What the file system said.
pub async fn flush(spool: Arc<Spool>) -> io::Result<Option<Flushed>> {
    flush_some(spool, None).await
}

/// The same, of all or of the others; then it is no matter of the run's if something cannot be delivered.
///
/// # Errors
/// What the file system said.
pub(super) async fn flush_some(spool: Arc<Spool>, others: Option<Others>) -> io::Result<Option<Flushed>> {
    let there = spool.clone();
    let names = beside(move || there.names()).await??;
    if names.is_empty() {
        return Ok(Some(Flushed::default()));
    }
    let Some(_claim) = spool.claim()? else { return Ok(None) };
    let mut flush = Flush {
        spool,
        clients: HashMap::new(),
        failures: HashMap::new(),
        flushed: Flushed::default(),
        tells: others.is_none(),
    };
    for name in names {
        let there = flush.spool.clone();
        let Some(entry) = beside(move || there.entry(&name)).await? else { continue };
        let is_meant = |others: &Others| others.target == entry.target && others.own != entry.key;
        if others.as_ref().is_none_or(is_meant) {
            flush.deliver(entry).await?;
        }
    }
    Ok(Some(flush.flushed))
}

struct Flush {
    spool: Arc<Spool>,
    clients: HashMap<(String, Access), PushClient>,
    /// How many pushes in a row each server did not take, and may take later.
    failures: HashMap<String, u32>,
    flushed: Flushed,
    /// Whether what cannot be delivered is told.
    tells: bool,
}

impl Flush {
    async fn deliver(&mut self, entry: Entry) -> io::Result<()> {
        let server = entry.target.to_url();
        if self.failures.get(&server).is_some_and(|failures| *failures >= FAILURES_MAX) {
            self.flushed.left += 1;
            return Ok(());
        }
        let job = entry.key.job().to_owned();
        match self.push(&entry).await {
            Ok(()) => {
                info!(job, url = %entry.target, "pushed from the spool");
                self.failures.remove(&server);
                self.flushed.delivered += 1;
                self.remove(entry).await
            }
            Err(error) if error.is_worth_keeping() => {
                if self.tells {
                    warn!(job, url = %entry.target, %error, "what waits in the spool could not be pushed");
                } else {
                    info!(job, url = %entry.target, %error, "what waits in the spool could not be pushed");
                }
                self.flushed.left += 1;
                // One that answers may have something against this push only, or against who we said that we are.
                let failures = self.failures.entry(server).or_default();
                match &error {
                    PushError::Unreachable(_) | PushError::NoAnswer(_) => *failures = FAILURES_MAX,
                    error if error.is_retryable() => *failures += 1,
                    _ => {}
                }
                Ok(())
            }
            Err(error) => {
                warn!(job, url = %entry.target, %error, "a push is dropped from the spool, it was refused");
                self.flushed.refused += 1;
                self.remove(entry).await
            }
        }
    }

    async fn push(&mut self, entry: &Entry) -> Result<(), PushError> {
        let id = (entry.target.to_url(), entry.access.clone());
        let client = match self.clients.get(&id) {
            Some(client) => client.clone(),
            None => self.clients.entry(id).or_insert(PushClient::new(&entry.target, &entry.access)?).clone(),
        };
        let no_answer = |_| Err(PushError::NoAnswer("no answer in time".to_owned()));
        tokio::time::timeout(PUSH_MAX, push_entry(&client, entry)).await.unwrap_or_else(no_answer)
    }

    async fn remove(&self, entry: Entry) -> io::Result<()> {
        let there = self.spool.clone();
        beside(move || there.take_out(&entry)).await?
    }
}
