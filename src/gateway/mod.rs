//! Face B, the gateway: takes pushes, keeps the last value of every series, and serves them to Prometheus.
//!
//! The story: bytes → [`route`] → [`crate::exposition`] → the store's writer (check → apply) → 200; and a scrape: snapshot
//! → text → socket. A drop-in for the Pushgateway: paths, answers, texts and metric names are its.

mod error;
mod handlers;
pub mod limits;
pub mod route;
mod server;
mod summary;
pub mod telemetry;

use nix::sys::signal::{SigSet, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::config::GatewayConfig;
use crate::store::Store;
use telemetry::Telemetry;

/// Serves on `listeners` until `shutdown` is ready; ends when the requests in flight have been answered or their time is up.
///
/// The store is in memory: what was pushed is gone afterwards.
pub async fn serve(listeners: Vec<TcpListener>, shutdown: impl Future<Output = ()>) {
    let telemetry = Telemetry::new();
    let store = Store::start(telemetry.own_types());
    server::run(listeners, server::Shared { store, telemetry, in_flight: server::InFlight::new() }, shutdown)
        .await;
}

/// Why a gateway cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no runtime, or there are no signals.
    #[error("{0}")]
    Start(#[from] std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on --web.listen-address {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// What the kernel said.
        error: std::io::Error,
    },
}

/// Runs a gateway until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not begin.
pub fn run(config: GatewayConfig) -> Result<(), GatewayError> {
    // A reader that goes away must not end us (signal(7)); the threads of the runtime inherit the mask.
    SigSet::from(Signal::SIGPIPE).thread_block().map_err(std::io::Error::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        let mut listeners = Vec::new();
        for (host, port) in config.listen {
            let listener = listen(&host, port).await?;
            info!(address = %listener.local_addr()?, "listening");
            listeners.push(listener);
        }
        warn!("pushed metrics are kept in memory only and are lost when the gateway ends");
        serve(listeners, shutdown).await;
        Ok(())
    })
}

/// Listens on a host and port; without host, on all addresses of both families where there are both.
async fn listen(host: &str, port: u16) -> Result<TcpListener, GatewayError> {
    let hosts: &[&str] = if host.is_empty() { &["::", "0.0.0.0"] } else { &[host] };
    let mut result = Err(std::io::ErrorKind::AddrNotAvailable.into());
    for host in hosts {
        result = TcpListener::bind((*host, port)).await;
        if result.is_ok() {
            break;
        }
    }
    result.map_err(|error| GatewayError::Listen { address: format!("{host}:{port}"), error })
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
