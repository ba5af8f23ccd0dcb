//! Connections: accepted within a limit, served, and drained when the gateway is told to end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_io_timeout::TimeoutStream;
use tracing::{Level, debug, error, info, warn};

use super::access::{Access, Identity, Rules, Scope};
use super::error::Failure;
use super::first_line::FirstLine;
use super::handlers::{Answer, admin, api_v1, empty, groups, page, push, scrape};
use super::listen::{Accepted, Listener, Stream};
use super::load::{HeldBytes, Load, Searches, Served};
use super::peer::Peer;
use super::promises::{Asked, PushRules};
use super::route::{Layout, Route, route};
use super::telemetry::Telemetry;
use super::workers::Workers;
use crate::config::{Consistency, Limits};
use crate::store::{Snapshot, Store, UnixNanos};

/// Waits after a connection could not be accepted, which happens when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time in which a client has to have shaken hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Time that requests in flight have to end after the gateway was told to.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Time for answers to reach their clients when no request is being served any more.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// What is read of headers beyond their limit, so that one who is a little beyond it can be told so.
const HEADER_SPARE_BYTES: usize = 64 * 1024;
/// Answers up to this size are not counted.
const SMALL_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 256;

/// What every request is served with.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    pub(super) layout: Layout,
    pub(super) limits: Arc<Limits>,
    pub(super) consistency: Consistency,
    pub(super) rules: Arc<PushRules>,
    pub(super) lifecycle: bool,
    pub(super) open_metrics: bool,
    pub(super) about: About,
    pub(super) access: Option<Access>,
    /// Requests that only look.
    pub(super) reads: Load,
    /// Requests that change something.
    pub(super) writes: Load,
    /// Looks for groups by regular expressions.
    pub(super) searches: Searches,
    /// Told when a request wants the gateway to end.
    pub(super) quit: Notify,
}

impl Shared {
    fn load(&self, method: &Method) -> &Load {
        if method.is_safe() { &self.reads } else { &self.writes }
    }
}

/// What the gateway tells of itself.
pub(super) struct About {
    pub(super) flags: BTreeMap<&'static str, String>,
    pub(super) start: UnixNanos,
}

impl About {
    /// The build, with the names that a Pushgateway has for it.
    pub(super) fn build() -> BTreeMap<&'static str, &'static str> {
        let none = ["branch", "buildDate", "buildUser", "goVersion", "revision"].map(|name| (name, ""));
        none.into_iter().chain([("version", env!("CARGO_PKG_VERSION"))]).collect()
    }
}

/// Accepts and serves until `shutdown` is ready, then lets the requests in flight end within [`DRAIN_MAX`].
pub(super) async fn run(
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    workers: &Workers,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(shared.limits.connections.min(Semaphore::MAX_PERMITS)));
    let (connections, mut accepted) = mpsc::channel(1);
    for listener in listeners {
        tokio::spawn(accept(listener, places.clone(), connections.clone()));
    }
    drop(connections);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            () = shared.quit.notified() => break,
            Some((client, place)) = accepted.recv() => {
                workers.spawn(connection(shared.clone(), client, place, graceful.watcher()));
            }
        }
    }
    // The listeners end with their channel: no new connection is taken from here on.
    drop(accepted);
    info!("shutting down");
    let served = async {
        shared.reads.in_flight.idle().await;
        shared.writes.in_flight.idle().await;
        tokio::time::sleep(FLUSH_MAX).await;
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        // What is left has not even sent its headers, or does not read.
        () = served => {}
        () = tokio::time::sleep(DRAIN_MAX) => warn!("requests in flight did not end in time"),
    }
}

type Place = OwnedSemaphorePermit;

async fn accept(listener: Listener, places: Arc<Semaphore>, connections: mpsc::Sender<(Accepted, Place)>) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        match accepted {
            Ok(client) => {
                if connections.send((client, place)).await.is_err() {
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

/// Serves the requests of one connection, behind TLS where that is configured.
async fn connection(shared: Arc<Shared>, accepted: Accepted, place: Place, watcher: Watcher) {
    let (stream, peer) = match accepted.open() {
        Ok(opened) => opened,
        Err(error) => return warn!(%error, "cannot serve a connection"),
    };
    let tls = shared.access.as_ref().and_then(|access| access.rules().tls().cloned());
    let stream: Box<dyn Stream> = match tls {
        None => stream,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
            Err(_) => return debug!("TLS handshake did not end in time"),
        },
    };
    let mut stream = TimeoutStream::new(FirstLine::new(stream));
    stream.set_write_timeout(Some(shared.limits.idle_time));
    let header_bytes = shared.limits.header_bytes;
    let idle_time = shared.limits.idle_time;
    let service = service_fn(move |request| {
        let (shared, peer) = (shared.clone(), peer.clone());
        // In a box, or every idle connection would hold room for a request's whole state.
        Box::pin(async move { Ok::<_, Infallible>(serve(&shared, &peer, request).await) })
    });
    let connection = http1::Builder::new()
        // A client that has sent all may close its side and still wait for the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(idle_time)
        .max_buf_size(header_bytes + HEADER_SPARE_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "connection ended early");
    }
    drop(place);
}

/// Answers one request, whatever it is, and counts it.
async fn serve(shared: &Shared, peer: &Peer, request: Request<Incoming>) -> Answer {
    let start = Instant::now();
    let method = request.method().clone();
    let load = shared.load(&method);
    let served = load.in_flight.enter();
    let bytes = approximate_bytes(&request, shared.limits.body_bytes);
    let rules = shared.access.as_ref().map(Access::rules);
    let (handler, result) = handle(shared, rules.as_deref(), peer, request).await;
    let refuse = |failure: Failure| {
        log(&failure);
        failure.answer(&method)
    };
    let answer = result.unwrap_or_else(refuse);
    let mut answer = hold(answer, served, load.bodies.hold()).await.unwrap_or_else(refuse);
    if let Some(handler) = handler {
        shared.telemetry.request(handler, &method, answer.status());
        if handler == "push" {
            shared.telemetry.push(&method, start, bytes);
        }
    }
    for (name, value) in rules.iter().flat_map(|rules| &rules.headers) {
        answer.headers_mut().insert(name.clone(), value.clone());
    }
    answer
}

/// Ties an answer's body to what counts it.
async fn hold(answer: Answer, served: Served, mut held: HeldBytes) -> Result<Answer, Failure> {
    let bytes = answer.body().len();
    // Small ones are always given: whoever asks how the gateway is must hear of it.
    if bytes > SMALL_ANSWER_BYTES_MAX {
        held.grow_up_to_a_quarter(bytes).await?;
    }
    Ok(answer.map(|body| body.counted(served, held)))
}

/// The name under which a route's requests are counted, if they are.
fn handler_name(route: &Route) -> Option<&'static str> {
    match route {
        Route::Push { .. } | Route::PushTogether => Some("push"),
        Route::Delete { .. } => Some("delete"),
        Route::Groups => Some("api/v1/groups"),
        Route::DeleteGroups => Some("api/v1/groups/delete"),
        Route::Group(_) => Some("api/v1/group"),
        Route::Runs(_) => Some("api/v1/runs"),
        Route::OpenApi => Some("api/v1/openapi"),
        Route::Page => Some("status"),
        Route::Asset(_) => Some("static"),
        Route::Healthy => Some("healthy"),
        Route::Ready => Some("ready"),
        Route::Writable => Some("writable"),
        Route::ApiStatus => Some("api/v1/status"),
        Route::ApiMetrics => Some("api/v1/metrics"),
        Route::ApiOptions { .. } => Some("api/v1/options"),
        Route::Wipe => Some("wipe"),
        Route::Scrape
        | Route::ScrapeGroups { .. }
        | Route::Quit
        | Route::QuitByGet
        | Route::Options { .. } => None,
    }
}

/// What a route needs to be allowed, if anything beyond being known.
fn scope(route: &Route) -> Option<Scope> {
    match route {
        Route::Push { .. } | Route::PushTogether => Some(Scope::Push),
        Route::Delete { .. } | Route::DeleteGroups => Some(Scope::Delete),
        Route::Scrape
        | Route::ScrapeGroups { .. }
        | Route::Page
        | Route::ApiStatus
        | Route::ApiMetrics
        | Route::Groups
        | Route::Group(_)
        | Route::Runs(_) => Some(Scope::Read),
        Route::Wipe | Route::Quit => Some(Scope::Admin),
        Route::Asset(_)
        | Route::Healthy
        | Route::Ready
        | Route::Writable
        | Route::QuitByGet
        | Route::Options { .. }
        | Route::OpenApi
        | Route::ApiOptions { .. } => None,
    }
}

/// The name under which the request is counted, and the answer.
async fn handle(
    shared: &Shared,
    rules: Option<&Rules>,
    peer: &Peer,
    request: Request<Incoming>,
) -> (Option<&'static str>, Result<Answer, Failure>) {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return (None, Err(Failure::NoHost));
    }
    let head_bytes = approximate_bytes(&request, 0);
    if head_bytes > shared.limits.header_bytes as u64 {
        return (None, Err(Failure::HeadersTooLarge(shared.limits.header_bytes)));
    }
    let identity = match (&shared.access, rules) {
        (Some(access), Some(rules)) => access.identify(rules, request.headers(), peer).await,
        _ => Ok(Identity::Anybody),
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(failure) => return (None, Err(failure)),
    };
    let (path, query) = (request.uri().path(), request.uri().query());
    match route(request.method(), path, query, &shared.layout) {
        Ok(route) => (handler_name(&route), answer(shared, &identity, route, peer, request).await),
        Err(misroute) => (None, Err(Failure::Misroute(misroute))),
    }
}

async fn answer(
    shared: &Shared,
    identity: &Identity,
    route: Route,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    // Whoever asks how the gateway is wants to know that most when it is busy.
    if !matches!(route, Route::Healthy | Route::Ready | Route::Writable) {
        shared.load(request.method()).in_flight.check()?;
    }
    if let Some(scope) = scope(&route) {
        let key = match &route {
            Route::Push { key: Ok(key), .. } | Route::Delete { key: Ok(key) } => Some(key),
            _ => None,
        };
        identity.may(scope, key)?;
    }
    match route {
        Route::Push { key, mode } => {
            let (head, body) = request.into_parts();
            push::push(shared, key?, mode, &head, body, peer).await
        }
        Route::PushTogether => {
            let (head, body) = request.into_parts();
            push::push_together(shared, identity, &head, body, peer).await
        }
        Route::Delete { key } => {
            Asked::no_trial(request.uri().query())?;
            push::delete(&shared.store, key?).await
        }
        Route::ScrapeGroups { key } => {
            let snapshot = visible(shared, identity, peer).await?;
            scrape::groups(shared, snapshot, key?, request.headers(), peer).await
        }
        Route::Groups | Route::DeleteGroups | Route::Group(_) | Route::Runs(_) => {
            groups(shared, identity, route, peer, &request).await.or_else(groups::refusal)
        }
        Route::OpenApi => Ok(groups::open_api()),
        Route::Scrape => {
            let snapshot = visible(shared, identity, peer).await?;
            let own = shared.telemetry.gather(&snapshot, shared.store.writable().is_ok());
            scrape::scrape(shared, snapshot, own, request.headers(), peer).await
        }
        Route::Page => {
            let snapshot = visible(shared, identity, peer).await?;
            page::page(shared, snapshot, request.uri().query(), peer).await
        }
        Route::Asset(name) => page::asset(&name),
        Route::ApiStatus => Ok(api_v1::status(&shared.about)),
        Route::ApiMetrics => {
            api_v1::metrics(visible(shared, identity, peer).await?, &shared.reads.heavy, peer).await
        }
        Route::ApiOptions { is_of_pushgateway } => Ok(api_v1::options(is_of_pushgateway)),
        Route::Wipe => {
            Asked::no_trial(request.uri().query())?;
            admin::wipe(&shared.store).await
        }
        Route::Healthy | Route::Ready => Ok(admin::health()),
        Route::Writable => admin::writable(&shared.store),
        Route::Quit => Ok(quit(shared)),
        Route::QuitByGet => Ok(admin::quit_by_get()),
        Route::Options { allow } => {
            let mut answer = empty(StatusCode::OK);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            Ok(answer)
        }
    }
}

/// Ends the gateway, if that is allowed.
fn quit(shared: &Shared) -> Answer {
    if !shared.lifecycle {
        return admin::no_lifecycle();
    }
    shared.quit.notify_one();
    admin::goodbye()
}

/// What concerns groups as a whole.
async fn groups(
    shared: &Shared,
    identity: &Identity,
    route: Route,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Result<Answer, Failure> {
    let query = request.uri().query();
    match route {
        Route::DeleteGroups if !request.body().is_end_stream() => Err(Failure::BodyOfDeletion),
        Route::Group(id) => groups::one(shared, identity, &id, peer).await,
        Route::Runs(id) => groups::runs(shared, identity, &id),
        Route::DeleteGroups => groups::delete(shared, identity, query, peer).await,
        _ => groups::list(shared, visible(shared, identity, peer).await?, query, peer).await,
    }
}

/// What one may look at.
async fn visible(shared: &Shared, identity: &Identity, peer: &Peer) -> Result<Snapshot, Failure> {
    let snapshot = shared.store.snapshot();
    let Some(jobs) = identity.jobs().cloned() else { return Ok(snapshot) };
    let only = move || snapshot.only(|key| jobs.is_match(key.job()));
    shared.reads.heavy.run(peer, only).await
}

fn log(failure: &Failure) {
    let status = failure.status().as_u16();
    match failure.level() {
        Level::ERROR if matches!(failure, Failure::Internal) => {
            error!(status, error = %failure, "request failed");
        }
        Level::ERROR => error!(status, error = %failure, "push refused"),
        Level::WARN => warn!(status, error = %failure, "request not taken"),
        _ => debug!(status, error = %failure, "request refused"),
    }
}

/// Request line, headers and declared body (as far as one is read), as client_golang estimates them.
fn approximate_bytes(request: &Request<Incoming>, body_bytes_max: usize) -> u64 {
    let uri = request.uri();
    let line = uri.path().len()
        + uri.query().map_or(0, str::len)
        + request.method().as_str().len()
        + "HTTP/1.1".len();
    let headers: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let body = request.body().size_hint().exact().unwrap_or_default().min(body_bytes_max as u64);
    (line + headers) as u64 + body
}
