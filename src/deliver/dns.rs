//! Names looked up without the C library's NSS modules, which a static binary cannot load.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Always this machine (RFC 6761, section 6.3), also where there is no `/etc/hosts` to say so.
const LOCALHOST: &str = "localhost";
/// How long addresses of the second family are waited for once there are some of the first: a server that does not answer
/// must not hold up a name that `/etc/hosts` has (RFC 8305, section 3, has a shorter time for it).
const SECOND_FAMILY_MAX: Duration = Duration::from_millis(200);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Asks the servers of `/etc/resolv.conf`, after `/etc/hosts`. Nothing is read before the first name is looked up, and no
/// server is asked that the system does not name.
#[derive(Debug, Default)]
pub(super) struct SystemDns {
    /// One for each family of addresses.
    resolvers: OnceLock<[TokioResolver; 2]>,
}

impl SystemDns {
    fn resolvers(&self) -> Result<[TokioResolver; 2], Error> {
        if let Some(resolvers) = self.resolvers.get() {
            return Ok(resolvers.clone());
        }
        let resolvers = [resolver(LookupIpStrategy::Ipv4Only)?, resolver(LookupIpStrategy::Ipv6Only)?];
        Ok(self.resolvers.get_or_init(|| resolvers).clone())
    }
}

fn resolver(family: LookupIpStrategy) -> Result<TokioResolver, Error> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| hosts_only());
    builder.options_mut().ip_strategy = family;
    builder.build().map_err(|error| format!("cannot read /etc/resolv.conf: {error}").into())
}

/// Where the system names no server, what `/etc/hosts` says still counts.
fn hosts_only() -> ResolverBuilder<TokioRuntimeProvider> {
    let no_server = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    TokioResolver::builder_with_config(no_server, TokioRuntimeProvider::default())
}

impl Resolve for SystemDns {
    fn resolve(&self, name: Name) -> Resolving {
        if name.as_str() == LOCALHOST {
            let loopback = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Box::pin(async move { Ok(sockets(loopback)) });
        }
        let resolvers = self.resolvers();
        Box::pin(async move {
            let [v4, v6] = resolvers?;
            Ok(sockets(both(look_up(v4, name.as_str()), look_up(v6, name.as_str())).await?))
        })
    }
}

async fn look_up(resolver: TokioResolver, name: &str) -> Result<Vec<IpAddr>, Error> {
    Ok(resolver.lookup_ip(name).await?.iter().collect())
}

/// What both find, or the first that finds something, if the second takes long.
async fn both(
    one: impl Future<Output = Result<Vec<IpAddr>, Error>> + Send,
    other: impl Future<Output = Result<Vec<IpAddr>, Error>> + Send,
) -> Result<Vec<IpAddr>, Error> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (first, second): (_, std::pin::Pin<&mut (dyn Future<Output = _> + Send)>) = tokio::select! {
        found = &mut one => (found, other),
        found = &mut other => (found, one),
    };
    let Ok(mut addresses) = first else { return second.await };
    if let Ok(Ok(more)) = tokio::time::timeout(SECOND_FAMILY_MAX, second).await {
        addresses.extend(more);
    }
    Ok(addresses)
}

fn sockets(addresses: Vec<IpAddr>) -> Addrs {
    Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)))
}
