//! How pushes get into a server: who we are, whom we trust, by what way. Secrets are in files, which are read when there is
//! something to push.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{ClientBuilder, Url};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::push::PushError;
use super::target::Target;

/// The largest file with a secret or a certificate.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is presented to servers, and expected of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    /// User of basic authentication.
    pub username: Option<String>,
    /// Its password.
    pub password_file: Option<PathBuf>,
    /// Token of bearer authentication.
    pub bearer_token_file: Option<PathBuf>,
    /// Headers of every push.
    pub headers: Vec<(String, String)>,
    /// Certificates that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The way out.
    pub proxy: Proxy,
}

/// The way out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Proxy {
    /// As the environment says, but never to this machine.
    #[default]
    System,
    /// No proxy.
    Direct,
    /// This one.
    By(String),
}

/// Why a text names no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write http://HOST:PORT, or none")]
pub struct ProxyError(String);

impl Proxy {
    /// Reads a URL or `none`.
    ///
    /// # Errors
    /// Why it is neither.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        if text == "none" {
            return Ok(Self::Direct);
        }
        let url = Url::parse(text).map_err(|error| ProxyError(error.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(ProxyError("a proxy has an http URL".to_owned()));
        }
        Ok(Self::By(text.to_owned()))
    }
}

impl Access {
    /// Sets a client up for a server. What cannot be read is told and left out: the server decides what that means.
    ///
    /// # Errors
    /// Why TLS cannot be set up at all.
    pub(super) fn apply(&self, builder: ClientBuilder, target: &Target) -> Result<ClientBuilder, PushError> {
        let mut builder = builder.default_headers(self.header_map(target));
        builder = match &self.proxy {
            Proxy::System if !target.is_local() => builder,
            Proxy::System | Proxy::Direct => builder.no_proxy(),
            Proxy::By(url) => {
                let proxy = reqwest::Proxy::all(url).map_err(|error| PushError::Client(error.to_string()))?;
                builder.no_proxy().proxy(proxy)
            }
        };
        Ok(builder.tls_backend_preconfigured(self.tls(target.is_tls())?))
    }

    /// Whether there are files to read.
    pub(super) fn has_files(&self) -> bool {
        let Self { password_file, bearer_token_file, ca_file, cert_file, key_file, .. } = self;
        [password_file, bearer_token_file, ca_file, cert_file, key_file].iter().any(|file| file.is_some())
    }

    /// The same for somebody who works in another directory.
    #[must_use]
    pub(super) fn absolute(&self) -> Self {
        let absolute = |file: &Option<PathBuf>| {
            file.as_ref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
        };
        Self {
            password_file: absolute(&self.password_file),
            bearer_token_file: absolute(&self.bearer_token_file),
            ca_file: absolute(&self.ca_file),
            cert_file: absolute(&self.cert_file),
            key_file: absolute(&self.key_file),
            ..self.clone()
        }
    }

    fn header_map(&self, target: &Target) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                headers.append(name, secret(value));
            } else {
                warn!(name, "a header is left out of the pushes, see --push-header");
            }
        }
        // What a URL says about its user is more specific.
        if let Some(value) = self.authorization().filter(|_| !target.has_user()) {
            headers.insert(AUTHORIZATION, secret(value));
        }
        headers
    }

    fn authorization(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let text = if let Some(file) = &self.bearer_token_file {
            format!("Bearer {}", read_secret(file, "--push-bearer-token-file")?)
        } else {
            let (user, file) = (self.username.as_ref()?, self.password_file.as_ref()?);
            let password = read_secret(file, "--push-password-file")?;
            let pair = format!("{user}:{password}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        };
        let value = HeaderValue::from_str(&text).ok();
        if value.is_none() {
            warn!("pushing without authentication: the secret has characters that no header may have");
        }
        value
    }

    /// TLS with the system's root certificates, or Mozilla's where the system has none, as in an empty container; or with
    /// those that were named.
    fn tls(&self, is_used: bool) -> Result<ClientConfig, PushError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PushError::Client(error.to_string()))?;
        if !is_used {
            return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        }
        let builder = builder.with_root_certificates(self.roots());
        match self.client_certificate() {
            None => Ok(builder.with_no_client_auth()),
            Some((certificates, key)) => builder.with_client_auth_cert(certificates, key).map_err(|error| {
                PushError::Client(format!(
                    "the client certificate cannot be used, see --push-cert-file: {error}"
                ))
            }),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca_file {
            let (added, _) = roots.add_parsable_certificates(certificates(file, "--push-ca-file"));
            if added == 0 {
                warn!(file = %file.display(), "no certificate is trusted, see --push-ca-file");
            }
            return roots;
        }
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        roots
    }

    fn client_certificate(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let (cert_file, key_file) = (self.cert_file.as_ref()?, self.key_file.as_ref()?);
        let certificates = certificates(cert_file, "--push-cert-file");
        let key = PrivateKeyDer::from_pem_slice(&read(key_file, "--push-key-file")?);
        match key {
            Ok(key) if !certificates.is_empty() => Some((certificates, key)),
            Ok(_) => None,
            Err(error) => {
                warn!(file = %key_file.display(), %error, "pushing without client certificate, see --push-key-file");
                None
            }
        }
    }
}

/// Keeps a value out of debug output.
fn secret(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

fn certificates(file: &Path, option: &str) -> Vec<CertificateDer<'static>> {
    let Some(pem) = read(file, option) else { return Vec::new() };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    if certificates.is_empty() {
        warn!(file = %file.display(), "there is no certificate in it, see {option}");
    }
    certificates
}

/// The first line of a file: editors put a line end after a secret.
fn read_secret(file: &Path, option: &str) -> Option<String> {
    let bytes = read(file, option)?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.lines().next().unwrap_or_default().to_owned())
}

fn read(file: &Path, option: &str) -> Option<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut bytes = Vec::new();
    // A FIFO that nobody writes to has nothing to say.
    let open = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let read = open.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Some(bytes),
        Err(error) => {
            warn!(file = %file.display(), %error, "pushing without it, see {option}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_urls_or_none() {
        assert_eq!(Proxy::parse("none"), Ok(Proxy::Direct));
        assert_eq!(Proxy::parse("http://p:1"), Ok(Proxy::By("http://p:1".to_owned())));
        for text in ["", "p:1", "ftp://p", "http://"] {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_the_first_line_of_a_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "pass word\nmore\n").expect("writable");
        let access = Access {
            username: Some("u".to_owned()),
            password_file: Some(file.path().to_owned()),
            ..Access::default()
        };
        let value = access.authorization().expect("both are there");
        assert_eq!(value.to_str().ok(), Some("Basic dTpwYXNzIHdvcmQ="));
        let token = Access { bearer_token_file: Some(file.path().to_owned()), ..Access::default() };
        assert_eq!(token.authorization().as_ref().and_then(|v| v.to_str().ok()), Some("Bearer pass word"));
        let missing = Access { bearer_token_file: Some("/does/not/exist".into()), ..Access::default() };
        assert_eq!(missing.authorization(), None);
    }
}
