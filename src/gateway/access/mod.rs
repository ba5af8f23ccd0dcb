//! Who may do what: `--web.config.file`, in the format of Prometheus' exporter-toolkit, and tokens beyond it.
//!
//! The file and the files that it names are looked at before every request and every handshake, and read again when one of
//! them has changed. A file that has become wrong is told of, and the last good one goes on being used.

mod file;
mod passwords;
mod tls;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::DefaultDirectRateLimiter;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::error::Failure;
use super::peer::Peer;
use crate::grouping::GroupingKey;
use file::WebConfig;
use passwords::Passwords;
pub(super) use tokens::Scope;
use tokens::{Token, Tokens};

/// What is wrong with a web configuration.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What it should be.
        problem: String,
    },
}

/// Who may do what, as the file says at the moment.
pub struct Access {
    path: PathBuf,
    passwords: Passwords,
    /// Held while the files are looked at, never across an await.
    current: Mutex<Current>,
}

struct Current {
    rules: Arc<Rules>,
    /// How the files looked when they were last read, well or not.
    seen: Vec<Stamp>,
}

/// What a configuration means.
pub(super) struct Rules {
    tls: Option<TlsAcceptor>,
    users: passwords::Users,
    tokens: Tokens,
    /// For every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    rate: Option<DefaultDirectRateLimiter>,
}

/// What a file with nothing in it stands for: at the start that nobody is asked anything, later that it is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emptiness {
    MeansEverybody,
    IsAMistake,
}

/// How a file looked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    look: Option<(SystemTime, u64, u64)>,
}

impl Stamp {
    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let look =
            |metadata: std::fs::Metadata| Some((metadata.modified().ok()?, metadata.len(), metadata.ino()));
        Self { path: path.to_owned(), look: path.metadata().ok().and_then(look) }
    }
}

/// Whether a text has the format of a web configuration; what it names is not looked at.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check_syntax(text: &str) -> Result<(), String> {
    let config = WebConfig::parse(text)?;
    passwords::Users::new(config.basic_auth_users)?;
    Tokens::new(config.tokens)?;
    file::headers(config.http_server_config.headers)?;
    config.rate_limit.as_ref().map(file::rate_limit).transpose().map(|_| ())
}

impl Access {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// What is wrong with it: a gateway that lets in others than it was meant to must not start.
    pub fn load(path: &Path) -> Result<Self, AccessError> {
        let mut seen = Vec::new();
        let rules = Rules::load(path, Emptiness::MeansEverybody, &mut seen)?;
        let current = Mutex::new(Current { rules: Arc::new(rules), seen });
        Ok(Self { path: path.to_owned(), passwords: Passwords::new(), current })
    }

    /// The rules as the files have them now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<_> = current.seen.iter().map(|stamp| Stamp::of(&stamp.path)).collect();
        if now != current.seen {
            let mut seen = Vec::new();
            match Rules::load(&self.path, Emptiness::IsAMistake, &mut seen) {
                Ok(rules) => {
                    info!(file = %self.path.display(), "web configuration read again");
                    current.rules = Arc::new(rules);
                }
                Err(error) => {
                    error!(%error, "the web configuration has become wrong, the one before it is used on");
                }
            }
            current.seen = seen;
        }
        current.rules.clone()
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// Where it is nobody's that is known, or too many have asked.
    pub(super) async fn identify(
        &self,
        rules: &Rules,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Identity, Failure> {
        if rules.rate.as_ref().is_some_and(|rate| rate.check().is_err()) {
            return Err(Failure::TooOften);
        }
        if rules.users.is_empty() && rules.tokens.is_empty() {
            return Ok(Identity::Anybody);
        }
        let unauthorized = || Failure::Unauthorized { challenge: rules.challenge() };
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, credentials) = value.split_once(' ').unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" if !rules.users.is_empty() => {
                let (user, password) = user_and_password(credentials).ok_or_else(unauthorized)?;
                let is_right = self.passwords.check(&rules.users, user, password, peer).await?;
                if is_right { Ok(Identity::Anybody) } else { Err(unauthorized()) }
            }
            "bearer" => rules.tokens.find(credentials.trim()).map(Identity::Token).ok_or_else(unauthorized),
            _ => Err(unauthorized()),
        }
    }
}

fn user_and_password(credentials: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl Rules {
    /// Reads the rules. The files that they come from are added to `seen`, each as it looked before it was read, so that a
    /// change in between is noticed; also where one of them is wrong.
    fn load(path: &Path, emptiness: Emptiness, seen: &mut Vec<Stamp>) -> Result<Self, AccessError> {
        seen.push(Stamp::of(path));
        let text = std::fs::read_to_string(path)
            .map_err(|error| AccessError::Read { path: path.to_owned(), error })?;
        let wrong = |problem| AccessError::Wrong { path: path.to_owned(), problem };
        if emptiness == Emptiness::IsAMistake && WebConfig::is_nothing(&text) {
            return Err(wrong("there is nothing in it".to_owned()));
        }
        let config = WebConfig::parse(&text).map_err(wrong)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let tls = config.tls_server_config.map(|tls| tls::acceptor(tls, directory, seen)).transpose()?;
        Ok(Self {
            tls,
            users: passwords::Users::new(config.basic_auth_users).map_err(wrong)?,
            tokens: Tokens::new(config.tokens).map_err(wrong)?,
            headers: file::headers(config.http_server_config.headers).map_err(wrong)?,
            rate: config.rate_limit.as_ref().map(file::rate_limit).transpose().map_err(wrong)?,
        })
    }

    /// What speaks TLS, if anything does.
    pub(super) fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// How to introduce oneself (RFC 9110, section 11.6.1).
    fn challenge(&self) -> &'static str {
        match (self.users.is_empty(), self.tokens.is_empty()) {
            (_, true) => "Basic",
            (true, false) => "Bearer",
            (false, false) => "Basic, Bearer",
        }
    }
}

/// Whose request it is.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// Everybody may do everything, or has shown a password.
    Anybody,
    /// Somebody with a token.
    Token(Arc<Token>),
}

impl Identity {
    /// # Errors
    /// Where it may not be done by this one.
    pub(super) fn may(&self, scope: Scope, group: Option<&GroupingKey>) -> Result<(), Failure> {
        match self {
            Self::Anybody => Ok(()),
            Self::Token(token) => token.may(scope, group.map(GroupingKey::job)).map_err(Failure::Forbidden),
        }
    }

    /// Which jobs may be looked at, if not all of them.
    pub(super) fn jobs(&self) -> Option<&regex::Regex> {
        match self {
            Self::Anybody => None,
            Self::Token(token) => token.jobs(),
        }
    }
}
