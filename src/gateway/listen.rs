//! Where connections come from: TCP, sockets in the file system, sockets of virtual machines, and what systemd hands over.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use listenfd::ListenFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use super::peer::{Peer, Shared};
use crate::config::{Address, Listen};

/// Connections that wait in the kernel to be accepted: cron jobs of many machines begin in the same second.
const BACKLOG: u32 = 4096;

/// A stream of bytes to a client.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket that connections come from.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// In the file system.
    Unix(UnixListener),
    /// Of a virtual machine.
    Vsock(VsockListener),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {from}: {error}")]
pub struct ListenError {
    from: String,
    error: io::Error,
}

impl Listener {
    /// Everything that the configuration names.
    ///
    /// # Errors
    /// The first that cannot be listened on.
    pub async fn all(listen: &Listen) -> Result<Vec<Self>, ListenError> {
        let addresses = match listen {
            Listen::Systemd => {
                let from = "the sockets of --web.systemd-socket".to_owned();
                return inherited().map_err(|error| ListenError { from, error });
            }
            Listen::Addresses(addresses) => addresses,
        };
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = Self::bind(address)
                .await
                .map_err(|error| ListenError { from: format!("--web.listen-address {address}"), error })?;
            listeners.push(listener);
        }
        Ok(listeners)
    }

    async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(host, port) => tcp(host, *port).await.map(Self::Tcp),
            Address::Unix(path) => unix(path).map(Self::Unix),
            Address::Vsock(port) => {
                VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port)).map(Self::Vsock)
            }
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it an answer may wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                stream.into_std().map(Accepted::Tcp)
            }
            Self::Unix(listener) => listener.accept().await?.0.into_std().map(Accepted::Unix),
            Self::Vsock(listener) => Ok(Accepted::Vsock(listener.accept().await?.0)),
        }
    }
}

/// A connection that belongs to no thread yet.
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    Vsock(VsockStream),
}

impl Accepted {
    /// Makes it this thread's: its bytes, and who is at its other end.
    pub(super) fn open(self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(stream) => {
                let stream = Arc::new(TcpStream::from_std(stream)?);
                let peer = Peer::of(&stream);
                Ok((Box::new(Shared(stream)), peer))
            }
            Self::Unix(stream) => Ok((Box::new(UnixStream::from_std(stream)?), Peer::default())),
            Self::Vsock(stream) => Ok((Box::new(stream), Peer::default())),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("tcp"),
            },
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                write!(f, "unix:{}", path.unwrap_or(Path::new("")).display())
            }
            Self::Vsock(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "vsock://:{}", address.port()),
                Err(_) => f.write_str("vsock"),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock(port) => write!(f, "vsock://:{port}"),
        }
    }
}

/// Listens on a host and port; without host, on all addresses of both families where there are both.
async fn tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    let hosts: &[&str] = if host.is_empty() { &["::", "0.0.0.0"] } else { &[host] };
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    for host in hosts {
        for address in lookup_host((*host, port)).await? {
            result = bind_tcp(address);
            if result.is_ok() {
                return result;
            }
        }
    }
    result
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is left of connections to the gateway before this one is no hindrance.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes the place of a socket that nobody listens on any more.
fn unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// The sockets that systemd hands over, of whatever kind.
fn inherited() -> io::Result<Vec<Listener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for place in 0..handed.len() {
        let tcp = handed.take_tcp_listener(place).ok().flatten();
        listeners.push(if let Some(tcp) = tcp {
            tcp.set_nonblocking(true)?;
            Listener::Tcp(TcpListener::from_std(tcp)?)
        } else {
            let unix = handed.take_unix_listener(place)?.ok_or(io::ErrorKind::InvalidInput)?;
            unix.set_nonblocking(true)?;
            Listener::Unix(UnixListener::from_std(unix)?)
        });
    }
    if listeners.is_empty() {
        return Err(io::Error::other("none was handed over, see systemd.socket(5)"));
    }
    Ok(listeners)
}
