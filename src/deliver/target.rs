//! Servers that take pushes.

use std::fmt;
use std::path::PathBuf;

use reqwest::Url;

use crate::grouping::GroupingKey;

/// A Pushgateway-compatible server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    base: Url,
    /// Where the server listens, if not on the network.
    pub(super) socket: Option<PathBuf>,
}

/// Why a text names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no URL at all.
    #[error("{0}; write http://HOST:PORT, https://HOST:PORT or unix:/PATH")]
    NotAUrl(String),
    /// It is a URL of another kind.
    #[error("pushes do not go to {scheme}:; write http://{rest}, https://{rest} or unix:/PATH")]
    Scheme {
        /// Its scheme.
        scheme: String,
        /// What may have been meant.
        rest: String,
    },
    /// `unix:` without an absolute path.
    #[error("the path of a socket begins with a slash: unix:/run/gateway.sock")]
    SocketPath,
}

impl Target {
    /// Reads `http://…`, `https://…` (with user, port and path prefix) or `unix:/path.sock`.
    ///
    /// # Errors
    /// Why it is none of them. The text never holds a password.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            if !path.starts_with('/') {
                return Err(TargetError::SocketPath);
            }
            let base = Url::parse("http://localhost/").expect("a constant URL");
            return Ok(Self { base, socket: Some(path.into()) });
        }
        let base = Url::parse(text).map_err(|error| TargetError::NotAUrl(error.to_string()))?;
        if !["http", "https"].contains(&base.scheme()) {
            let without_user = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
            let rest = without_user.split_once("://").map_or(without_user, |(_, rest)| rest);
            // What may have been meant is shown only if it looks like a host.
            let port = rest.rsplit_once(':').map_or("", |(_, port)| port);
            let is_host = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            let rest = if is_host { rest.to_owned() } else { "HOST:PORT".to_owned() };
            return Err(TargetError::Scheme { scheme: base.scheme().to_owned(), rest });
        }
        Ok(Self { base, socket: None })
    }

    /// The URL that a group is pushed to.
    pub fn push_url(&self, key: &GroupingKey) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/metrics{}", key.to_path()));
        url.set_fragment(None);
        url
    }

    /// Whether the server is on this machine, where no proxy is asked.
    pub(super) fn is_local(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Whether the URL says who we are.
    pub(super) fn has_user(&self) -> bool {
        !self.base.username().is_empty() || self.base.password().is_some()
    }

    /// The text that [`Target::parse`] makes this of, secrets and all.
    pub(super) fn to_url(&self) -> String {
        match &self.socket {
            Some(socket) => format!("unix:{}", socket.display()),
            None => self.base.to_string(),
        }
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }
}

/// Takes out what may be secret: user, password and query.
pub(super) fn hide_secrets(url: &mut Url) {
    // A URL with a host can do without both.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    // What was meant to be a password may have ended up behind a # or a slash of its own.
    url.set_fragment(None);
    if url.path().contains('@') {
        url.set_path("/***");
    }
}

/// Without secrets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(socket) = &self.socket {
            return write!(f, "unix:{}", socket.display());
        }
        let mut url = self.base.clone();
        hide_secrets(&mut url);
        url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_get_the_path_of_the_group() {
        let key = GroupingKey::new("a/b", [("instance", "")]);
        for (text, url) in [
            ("http://h:9091", "http://h:9091/metrics/job@base64/YS9i/instance@base64/="),
            ("http://h:9091/", "http://h:9091/metrics/job@base64/YS9i/instance@base64/="),
            (
                "https://u:p@h/pre/fix/?ttl=1h",
                "https://u:p@h/pre/fix/metrics/job@base64/YS9i/instance@base64/=?ttl=1h",
            ),
            ("http://[::1]:9091", "http://[::1]:9091/metrics/job@base64/YS9i/instance@base64/="),
            ("unix:/run/g.sock", "http://localhost/metrics/job@base64/YS9i/instance@base64/="),
        ] {
            assert_eq!(Target::parse(text).map(|t| t.push_url(&key).to_string()), Ok(url.to_owned()));
        }
    }

    #[test]
    fn what_is_shown_has_no_password() {
        let show = |text| Target::parse(text).map(|t| t.to_string());
        assert_eq!(show("http://u:secret@h:1/x?token=secret").as_deref(), Ok("http://h:1/x"));
        assert_eq!(show("unix:///run/g.sock").as_deref(), Ok("unix:/run/g.sock"));
    }

    #[test]
    fn other_urls_are_refused() {
        for text in
            ["", "h", "ftp://h", "h:9091", "unix:x", "http://", "http://[::1", "file:///x", "http://h:99999"]
        {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
