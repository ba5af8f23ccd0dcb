//! The configuration of a gateway.

use tracing::level_filters::LevelFilter;

use crate::cli::GatewayCall;

/// How the gateway is to run.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Host (empty: all addresses) and port, as they were given.
    pub listen: Vec<(String, u16)>,
    /// What is said on stderr.
    pub log_level: LevelFilter,
}

/// Why a gateway cannot be configured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--web.listen-address {0:?}: {1}")]
pub struct BadAddress(String, &'static str);

/// Makes the configuration of a gateway.
///
/// # Errors
/// An address that is none.
pub fn gateway_config(call: &GatewayCall) -> Result<GatewayConfig, BadAddress> {
    let listen = call.listen.iter().map(|address| listen_address(address)).collect::<Result<_, _>>()?;
    let log_level = call.log_level.parse().unwrap_or(LevelFilter::INFO);
    Ok(GatewayConfig { listen, log_level })
}

fn listen_address(address: &str) -> Result<(String, u16), BadAddress> {
    let bad = |problem| BadAddress(address.to_owned(), problem);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("a port is missing, as in `:9091`"))?;
    let port = port.parse().map_err(|_| bad("the port must be a number up to 65535"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_gos() {
        assert_eq!(listen_address(":9091"), Ok((String::new(), 9091)));
        assert_eq!(listen_address("127.0.0.1:0"), Ok(("127.0.0.1".to_owned(), 0)));
        assert_eq!(listen_address("[::1]:80"), Ok(("::1".to_owned(), 80)));
        assert!(listen_address("9091").is_err());
        assert!(listen_address(":99999").is_err());
    }
}
