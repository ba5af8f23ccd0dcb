//! What is being done at a time, within limits: requests, bytes of bodies, work that takes a processor for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::error::Failure;
use super::peer::Peer;
use crate::config::Limits;

/// How long a body waits for room before its push is refused.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// The unit in which bytes of bodies are counted.
const BYTES_A_PERMIT: usize = 1024;

/// Searches at a time, all but one of which wait.
const SEARCHES_MAX: usize = 3;

/// What is done for one kind of request. Those that read and those that change have one each: who pushes slowly keeps
/// nobody from scraping, and who does not read what he asked for keeps nobody from pushing.
pub(super) struct Load {
    pub(super) bodies: Bodies,
    pub(super) heavy: Heavy,
    pub(super) in_flight: InFlight,
}

impl Load {
    pub(super) fn new(limits: &Limits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            bodies: Bodies::new(limits.requests_bytes),
            heavy: Heavy::new(processors),
            in_flight: InFlight::new(limits.requests),
        }
    }
}

/// The bytes of bodies that are held: pushed ones, or answers that wait to be read.
#[derive(Clone)]
pub(super) struct Bodies {
    permits: Arc<Semaphore>,
    bytes_max: usize,
}

impl Bodies {
    pub(super) fn new(bytes_max: usize) -> Self {
        let permits = (bytes_max / BYTES_A_PERMIT).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), bytes_max }
    }

    /// Begins to hold a body.
    pub(super) fn hold(&self) -> HeldBytes {
        HeldBytes { bodies: self.clone(), bytes: 0, permit: None }
    }
}

/// The bytes of one body, for as long as it is held.
pub(super) struct HeldBytes {
    bodies: Bodies,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl HeldBytes {
    /// Counts an answer that waits to be read; one that is larger than a quarter of all counts as that quarter, so that it
    /// can be answered at all.
    pub(super) async fn grow_up_to_a_quarter(&mut self, bytes: usize) -> Result<(), Failure> {
        self.grow(bytes.min(self.bodies.bytes_max / 4)).await
    }

    /// Counts more bytes, which have arrived; waits for room, but not for long.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.bytes.div_ceil(BYTES_A_PERMIT).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let busy = || Failure::TooManyBytes(self.bodies.bytes_max);
        let more = u32::try_from(more).map_err(|_| busy())?;
        let permit =
            tokio::time::timeout(ROOM_WAIT_MAX, self.bodies.permits.clone().acquire_many_owned(more));
        let permit = permit.await.map_err(|_| busy())?.map_err(|_| busy())?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

/// Work that takes a processor for long: on threads of its own, and only so much at a time.
#[derive(Clone)]
pub(super) struct Heavy {
    permits: Arc<Semaphore>,
    /// Where the threads are, the same whoever asks: what many threads take and free lies scattered over memory.
    threads: Handle,
}

impl Heavy {
    /// On threads of the runtime that this is called in.
    pub(super) fn new(at_a_time: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_a_time)), threads: Handle::current() }
    }

    /// Does it when its turn comes, unless whom it is for has hung up while waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        peer: &Peer,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            permit
        } else {
            let permit = self.permits.clone().acquire_owned().await.map_err(|_| Failure::Internal)?;
            if peer.has_hung_up() {
                return Err(Failure::ClientGone);
            }
            permit
        };
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        self.threads.spawn_blocking(work).await.map_err(|_| Failure::Internal)
    }
}

/// Looks for groups by regular expressions: one at a time, and few that wait. They are for people, who can come again; a scrape
/// cannot, and each request that waits takes a place from it.
pub(super) struct Searches {
    heavy: Heavy,
    places: Semaphore,
}

impl Searches {
    /// On threads of the runtime that this is called in.
    pub(super) fn new() -> Self {
        Self { heavy: Heavy::new(1), places: Semaphore::new(SEARCHES_MAX) }
    }

    /// Does it when its turn comes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        peer: &Peer,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let _place = self.places.try_acquire().map_err(|_| Failure::TooManySearches(SEARCHES_MAX))?;
        self.heavy.run(peer, work).await
    }
}

/// Counts the requests that are being served, up to a limit.
#[derive(Clone)]
pub(super) struct InFlight {
    served: Arc<Count>,
    requests_max: usize,
}

#[derive(Default)]
struct Count {
    requests: AtomicUsize,
    /// Told when there are none.
    none: Notify,
}

impl InFlight {
    pub(super) fn new(requests_max: usize) -> Self {
        Self { served: Arc::default(), requests_max }
    }

    /// Counts one more. Whether there is room for it is for the caller to ask.
    pub(super) fn enter(&self) -> Served {
        self.served.requests.fetch_add(1, Ordering::Relaxed);
        Served(self.served.clone())
    }

    /// # Errors
    /// Where there are more requests than there may be.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.served.requests.load(Ordering::Relaxed) > self.requests_max {
            return Err(Failure::TooManyRequests(self.requests_max));
        }
        Ok(())
    }

    /// Ready when nothing is being served.
    pub(super) async fn idle(&self) {
        loop {
            let mut told = std::pin::pin!(self.served.none.notified());
            // From here on nothing is missed.
            told.as_mut().enable();
            if self.served.requests.load(Ordering::Acquire) == 0 {
                return;
            }
            told.await;
        }
    }
}

/// One request that is being served; also if it is given up.
pub(super) struct Served(Arc<Count>);

impl Drop for Served {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Release) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
