//! Connections: accepted within a limit, served, and drained when the gateway is told to end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{Level, debug, error, info, warn};

use super::error::Failure;
use super::handlers::{Answer, admin, empty, push, scrape};
use super::limits::{BODY_BYTES_MAX, CONNECTIONS_MAX, DRAIN_MAX, FLUSH_MAX, HEADER_READ_MAX};
use super::route::{Route, route};
use super::telemetry::Telemetry;
use crate::store::Store;

/// Waits after a connection could not be accepted, which happens when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every request is served with.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    pub(super) in_flight: InFlight,
}

/// Counts the requests that are being served.
#[derive(Clone)]
pub(super) struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    fn enter(&self) -> Served {
        self.0.send_modify(|requests| *requests += 1);
        Served(self.clone())
    }

    async fn wait_for(&self, condition: impl FnMut(&usize) -> bool) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}

/// One request that is being served; also if it is given up.
struct Served(InFlight);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| *requests -= 1);
    }
}

/// Accepts and serves until `shutdown` is ready, then lets the requests in flight end within [`DRAIN_MAX`].
pub(super) async fn run(listeners: Vec<TcpListener>, shared: Shared, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (connections, mut accepted) = tokio::sync::mpsc::channel(1);
    for listener in listeners {
        tokio::spawn(accept(listener, places.clone(), connections.clone()));
    }
    drop(connections);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some((stream, place)) = accepted.recv() => {
                let shared = shared.clone();
                let service = service_fn(move |request| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(serve(&shared, request).await) }
                });
                let connection = http1::Builder::new()
                    // A client that has sent all may close its side and still wait for the answer.
                    .half_close(true)
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_READ_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(%error, "connection ended early");
                    }
                    drop(place);
                });
            }
        }
    }
    // The listeners end with their channel: no new connection is taken from here on.
    drop(accepted);
    info!("shutting down");
    let served = async {
        shared.in_flight.wait_for(|requests| *requests == 0).await;
        tokio::time::sleep(FLUSH_MAX).await;
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        // What is left has not even sent its headers, or does not read.
        () = served => {}
        () = tokio::time::sleep(DRAIN_MAX) => warn!("requests in flight did not end in time"),
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
    connections: tokio::sync::mpsc::Sender<(TcpStream, Place)>,
) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // Without it an answer may wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                if connections.send((stream, place)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request, whatever it is, and counts it.
async fn serve(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let _served = shared.in_flight.enter();
    let method = request.method().clone();
    let bytes = approximate_bytes(&request);
    let (handler, result) = handle(shared, request).await;
    let answer = result.unwrap_or_else(|failure| {
        log(&failure);
        failure.answer()
    });
    if let Some(handler) = handler {
        shared.telemetry.request(handler, method.as_str(), answer.status().as_u16());
        if handler == "push" {
            shared.telemetry.push(method.as_str(), start.elapsed(), bytes);
        }
    }
    answer
}

/// The name under which requests are counted, if they are, and the answer.
async fn handle(
    shared: &Shared,
    request: Request<Incoming>,
) -> (Option<&'static str>, Result<Answer, Failure>) {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return (None, Err(Failure::NoHost));
    }
    let route = match route(request.method(), request.uri().path()) {
        Ok(route) => route,
        Err(misroute) => return (None, Err(Failure::Misroute(misroute))),
    };
    let store = &shared.store;
    match route {
        Route::Scrape => {
            (None, Ok(scrape::scrape(store, shared.telemetry.gather(), request.headers()).await))
        }
        Route::Healthy => (Some("healthy"), Ok(admin::health(store))),
        Route::Ready => (Some("ready"), Ok(admin::health(store))),
        Route::Options { allow } => {
            let mut answer = empty(StatusCode::OK);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            (None, Ok(answer))
        }
        Route::Push { key: Err(error), .. } => (Some("push"), Err(error.into())),
        Route::Delete { key: Err(error) } => (Some("delete"), Err(error.into())),
        Route::Push { key: Ok(key), mode } => {
            let (head, body) = request.into_parts();
            (Some("push"), push::push(store, key, mode, &head.headers, body).await)
        }
        Route::Delete { key: Ok(key) } => (Some("delete"), push::delete(store, key).await),
    }
}

fn log(failure: &Failure) {
    let status = failure.status().as_u16();
    match failure.level() {
        Level::ERROR => error!(status, error = %failure, "push refused"),
        Level::WARN => warn!(status, error = %failure, "push not taken"),
        _ => debug!(status, error = %failure, "request refused"),
    }
}

/// Request line, headers and declared body, as client_golang estimates them.
fn approximate_bytes(request: &Request<Incoming>) -> u64 {
    let line = request.uri().path().len() + request.method().as_str().len() + "HTTP/1.1".len();
    let headers: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let body = request.body().size_hint().exact().unwrap_or_default().min(BODY_BYTES_MAX as u64);
    (line + headers) as u64 + body
}
