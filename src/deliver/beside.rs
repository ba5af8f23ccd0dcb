//! Work that may hang, such as on a network file system, done on a thread of its own.

use std::io;
use std::sync::{Arc, Mutex};

/// Does work on a thread of its own; without a thread, here. Whoever stops waiting leaves the thread to itself.
///
/// # Errors
/// If the work broke down.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (answer, done) = tokio::sync::oneshot::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let there = work.clone();
    let take = |work: &Mutex<Option<_>>| work.lock().ok().and_then(|mut work| work.take());
    let thread = std::thread::Builder::new().name("beside".to_owned()).spawn(move || {
        if let Some(work) = take(&there) {
            // Nobody waits any more after the deadline.
            let _ = answer.send(work());
        }
    });
    let broke_down = || io::Error::other("the work broke down");
    match thread {
        Ok(_) => done.await.map_err(|_| broke_down()),
        Err(_) => work.lock().ok().and_then(|mut work| work.take()).map(|work| work()).ok_or_else(broke_down),
    }
}
