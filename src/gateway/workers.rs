//! The threads that serve connections: one for each processor, and each connection stays with one of them.
//!
//! A request is much shorter than it takes to wake another thread, so connections are not handed from one to another, and
//! a push meets others only where it changes the store. What takes long is not done here: see [`super::load::Heavy`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads. They end when this is dropped.
pub(super) struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    /// How many connections it has.
    connections: Arc<AtomicUsize>,
    _end: oneshot::Sender<()>,
}

/// One connection of a worker.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(connections.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// Where there are no threads or descriptors left.
    pub(super) fn start() -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..processors).map(|_| Worker::start()).collect::<io::Result<_>>().map(Self)
    }

    /// Serves a connection on the thread that has the fewest.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let load = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.0.iter().min_by_key(load).expect("there is at least one processor");
        let place = Place::new(&worker.connections);
        worker.runtime.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("connections".to_owned()).spawn(move || {
            // Only ever dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), _end: end })
    }
}
