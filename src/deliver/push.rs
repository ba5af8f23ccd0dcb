//! One push to one server, and what its failure means.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};

use super::access::Access;
use super::dns::SystemDns;
use super::promises::Promise;
use super::target::Target;
use crate::exposition::text;
use crate::grouping::GroupingKey;

/// Time in which a connection must stand.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How much of an answer's text is read and shown.
const ANSWER_BYTES_MAX: usize = 512;

/// A server, ready to push to.
#[derive(Clone)]
pub(super) struct PushClient {
    http: Client,
    target: Target,
}

/// Why a push was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// There was no connection: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// No answer came. It may have been served all the same, or may yet be.
    #[error("{0}")]
    NoAnswer(String),
    /// The server said no.
    #[error("answered {status}{}{text}", if .text.is_empty() { "" } else { ": " })]
    Answer { status: StatusCode, text: String, retry_after: Option<Duration> },
    /// This machine cannot push at all.
    #[error("{0}")]
    Client(String),
}

impl PushError {
    /// Whether the same push may be taken later.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NoAnswer(_) => true,
            Self::Answer { status, .. } => {
                status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
            }
            Self::Client(_) => false,
        }
    }

    /// Whether the same push may be taken when somebody has set something right, so that it is worth keeping: all but what
    /// is wrong in itself.
    pub(super) fn is_worth_keeping(&self) -> bool {
        !matches!(self, Self::Answer { status: StatusCode::BAD_REQUEST, .. })
    }

    /// Whether the server finds fault with what was pushed: with less of it, it may be content.
    pub(super) fn is_bad_request(&self) -> bool {
        let about_content =
            [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        matches!(self, Self::Answer { status, .. } if about_content.contains(status))
    }

    /// How long the server asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::NoAnswer(_) | Self::Client(_) => None,
        }
    }
}

impl PushClient {
    /// Prepares a client. Secrets and certificates are read only here, names are looked up only when pushing.
    ///
    /// # Errors
    /// Why no client can be made, such as a TLS set-up that does not work.
    pub(super) fn new(target: &Target, access: &Access) -> Result<Self, PushError> {
        let mut builder = Client::builder()
            .user_agent(concat!("jobmon/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .http1_only()
            .dns_resolver(Arc::new(SystemDns::default()));
        if let Some(socket) = &target.socket {
            builder = builder.unix_socket(socket.clone());
        }
        let http =
            access.apply(builder, target)?.build().map_err(|error| PushError::Client(root_cause(&error)))?;
        Ok(Self { http, target: target.clone() })
    }

    /// The server.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// POSTs a body: families of the same names are replaced, the group's others stay. What is promised counts from now.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn post(
        &self,
        key: &GroupingKey,
        promise: &Promise,
        body: Bytes,
    ) -> Result<(), PushError> {
        let mut url = self.target.push_url(key);
        promise.add_to(&mut url, Utc::now().timestamp_micros());
        let request = self.http.post(url).header(CONTENT_TYPE, text::CONTENT_TYPE).body(body);
        let response = request.send().await.map_err(|error| {
            let kind = match () {
                // A request that cannot be made will not be made later either.
                () if error.is_builder() => PushError::Client,
                () if error.is_connect() => PushError::Unreachable,
                () => PushError::NoAnswer,
            };
            kind(root_cause(&error))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = retry_after(&response, Utc::now());
        let text = first_line(response).await;
        Err(PushError::Answer { status, text, retry_after })
    }
}

/// The innermost error, without URLs, which may hold a password.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match error.source() {
        None => "the request could not be made".to_owned(),
        Some(_) => cause.to_string(),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(response: &Response, now: DateTime<Utc>) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    date.signed_duration_since(now).to_std().ok()
}

async fn first_line(mut response: Response) -> String {
    let mut text = Vec::new();
    while text.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    text.truncate(ANSWER_BYTES_MAX);
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
