//! Names looked up without the C library's NSS modules, which a static binary cannot load.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Always this machine (RFC 6761, section 6.3), also where there is no `/etc/hosts` to say so.
const LOCALHOST: &str = "localhost";

/// Asks the servers of `/etc/resolv.conf`, after `/etc/hosts`. Nothing is read before the first name is looked up, and no
/// server is asked that the system does not name.
#[derive(Debug, Default)]
pub(super) struct SystemDns {
    resolver: OnceLock<TokioResolver>,
}

impl SystemDns {
    fn resolver(&self) -> Result<TokioResolver, Box<dyn std::error::Error + Send + Sync>> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver.clone());
        }
        let resolver = TokioResolver::builder_tokio()
            .unwrap_or_else(|_| hosts_only())
            .build()
            .map_err(|error| format!("cannot read /etc/resolv.conf: {error}"))?;
        Ok(self.resolver.get_or_init(|| resolver).clone())
    }
}

/// Where the system names no server, what `/etc/hosts` says still counts.
fn hosts_only() -> ResolverBuilder<TokioRuntimeProvider> {
    let no_server = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    TokioResolver::builder_with_config(no_server, TokioRuntimeProvider::default())
}

impl Resolve for SystemDns {
    fn resolve(&self, name: Name) -> Resolving {
        if name.as_str() == LOCALHOST {
            let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
            let addresses = loopback.map(|ip| SocketAddr::new(ip, 0)).into_iter();
            return Box::pin(async move { Ok(Box::new(addresses) as Addrs) });
        }
        let resolver = self.resolver();
        Box::pin(async move {
            let found = resolver?.lookup_ip(name.as_str()).await?;
            let addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
