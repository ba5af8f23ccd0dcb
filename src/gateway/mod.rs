//! Face B, the gateway: takes pushes, keeps the last value of every series, and serves them to Prometheus.
//!
//! The story: a connection from [`listen`] → `access` (who is it?) → [`route`] (what for?) → `handlers`; a push: `encoding` →
//! [`crate::exposition`] → the store's writer (check → apply) → 200; a scrape: snapshot → the negotiated format → socket. A
//! drop-in for the Pushgateway: paths, answers, texts and metric names are its.

pub mod access;
mod body;
pub mod encoding;
mod error;
mod first_line;
mod handlers;
pub mod listen;
mod load;
pub mod negotiate;
mod peer;
mod promises;
pub mod route;
mod server;
mod summary;
pub mod telemetry;
mod workers;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::config::{Consistency, GatewayConfig, StorageConfig};
use crate::store::{
    Damage, Moment, OwnNames, Rules, Settings, SteadyNanos, Storage, StorageError, Store, UnixNanos,
};
use access::{Access, AccessError};
use listen::{ListenError, Listener};
use load::{Load, Searches};
use promises::{PushRules, RulesError};
use route::Layout;
use server::{About, Shared};
use telemetry::Telemetry;
use workers::Workers;

/// Serves on `listeners` until `shutdown` is ready; ends when the requests in flight have been answered or their time is up.
///
/// What was answered is as durable as the store makes it.
async fn serve(
    config: GatewayConfig,
    (store, telemetry): (Store, Telemetry),
    (access, rules): (Option<Access>, PushRules),
    listeners: Vec<Listener>,
    workers: &Workers,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Shared {
        store,
        telemetry,
        layout: Layout { paths: config.paths, names: config.names, admin: config.admin },
        consistency: config.consistency,
        rules: Arc::new(rules),
        lifecycle: config.lifecycle,
        open_metrics: config.open_metrics,
        about: About { flags: config.flags, start: now().unix },
        access,
        searches: Searches::new(),
        reads: Load::new(&config.limits),
        writes: Load::new(&config.limits),
        quit: Notify::new(),
        limits: Arc::new(config.limits),
    };
    server::run(listeners, Arc::new(shared), workers, shutdown).await;
}

/// Why a gateway cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no runtime, or there are no signals.
    #[error("{0}")]
    Start(#[from] std::io::Error),
    /// What was pushed before cannot be read, or nothing can be written.
    #[error("--storage.path: {0}")]
    Storage(#[from] StorageError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The web configuration is wrong.
    #[error("--web.config.file: {0}")]
    Access(#[from] AccessError),
    /// The rules for groups are wrong.
    #[error("--push.rules-file: {0}")]
    Rules(#[from] RulesError),
}

/// Runs a gateway until SIGTERM or SIGINT, or until a request ends it.
///
/// # Errors
/// Why it could not begin.
pub fn run(config: GatewayConfig) -> Result<(), GatewayError> {
    // A reader that goes away must not end us (signal(7)); the threads of the runtime inherit the mask.
    // Nor a limit on the size of files: it is a disk that is full (setrlimit(2)).
    let signals: SigSet = [Signal::SIGPIPE, Signal::SIGXFSZ].into_iter().collect();
    signals.thread_block().map_err(std::io::Error::from)?;
    allow_descriptors(config.limits.connections);
    let access = config.web_config.as_deref().map(Access::load).transpose()?;
    let rules = PushRules::load(&config.promises)?;
    let telemetry = Telemetry::new();
    let store = open_store(&config, &telemetry)?;
    let workers = Workers::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        let listeners = Listener::all(&config.listen).await?;
        for listener in &listeners {
            info!(address = %listener, "listening");
        }
        let promises = store.clone();
        tokio::spawn(async move { promises.keep_promises(steady).await });
        serve(config, (store.clone(), telemetry), (access, rules), listeners, &workers, shutdown).await;
        match tokio::time::timeout(FLUSH_MAX, store.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "what was pushed last, and not answered, may be lost"),
            Err(_) => warn!("the disk does not answer: what was pushed last, and not answered, may be lost"),
        }
        Ok(())
    });
    // What is still being read or rendered is for nobody any more.
    runtime.shutdown_background();
    result
}

fn open_store(config: &GatewayConfig, telemetry: &Telemetry) -> Result<Store, StorageError> {
    let rules = Rules {
        quarantine: config.consistency == Consistency::Quarantined,
        groups_max: config.limits.groups,
        failed_groups_max: config.limits.failed_groups,
    };
    let settings = Settings {
        own: telemetry.own_types(),
        names: OwnNames::new(&config.promises.liveness_name),
        retention: config.promises.retention,
        rules,
    };
    let Some(StorageConfig { path, repair, import }) = config.storage.clone() else {
        warn!(
            "pushed metrics are kept in memory only and are lost when the gateway ends, see --storage.path"
        );
        return Ok(Store::new(settings));
    };
    let damage = if repair { Damage::LeftOut } else { Damage::Refused };
    let store = Store::open(settings, &Storage { path: path.clone(), damage, import }, now())?;
    info!(path = %path.display(), groups = store.snapshot().len(), "what was pushed before is there again");
    Ok(store)
}

/// How long the end waits for the disk.
const FLUSH_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Raises the limit of open descriptors as far as the connections need it and it may be raised.
fn allow_descriptors(connections: usize) {
    /// For what is no connection.
    const SPARE: u64 = 256;
    let needed = (connections as u64).saturating_add(SPARE);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
        && setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).is_err()
    {
        warn!(soft, needed, "the limit of open files cannot be raised");
    }
}

fn now() -> Moment {
    // A clock before 1970 counts as 1970, one after 2262 as 2262.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { unix: UnixNanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)), steady: steady() }
}

fn steady() -> SteadyNanos {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has it");
    SteadyNanos(time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
}

/// Ready when SIGTERM or SIGINT has come in.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut reader, writer) = tokio::net::UnixStream::pair()?;
    let writer = writer.into_std()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(async move {
        let mut byte = [0];
        let _ = reader.read_exact(&mut byte).await;
    })
}
