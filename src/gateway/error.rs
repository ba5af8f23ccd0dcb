//! The one table of what can go wrong with a request: its status, its text, how loudly it is logged.

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderName, LOCATION, RETRY_AFTER};
use tracing::Level;

use super::limits::{BODY_BYTES_MAX, FAILURE_BYTES_MAX, GROUP_LABEL_BYTES_MAX};
use super::route::Misroute;
use crate::exposition::protobuf::DecodeError;
use crate::exposition::text::ParseError;
use crate::grouping::GroupingError;
use crate::store::StoreError;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The path is for nobody.
    #[error("{}", misroute_text(.0))]
    Misroute(Misroute),
    /// HTTP/1.1 asks for a Host header (RFC 9112, section 3.2).
    #[error("400 Bad Request: missing required Host header")]
    NoHost,
    #[error(transparent)]
    Grouping(#[from] GroupingError),
    #[error(transparent)]
    Text(#[from] ParseError),
    #[error(transparent)]
    Protobuf(DecodeError),
    #[error("content encoding \"{0}\" is not supported, send the body as it is")]
    ContentEncoding(String),
    /// The client stopped in the middle.
    #[error("unexpected EOF")]
    BodyIncomplete,
    #[error("the body is larger than {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("the labels of the group, once for each metric, are larger than {GROUP_LABEL_BYTES_MAX} bytes")]
    GroupLabelsTooLarge,
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    #[error("{}", store_text(.0))]
    Store(#[from] StoreError),
}

fn misroute_text(misroute: &Misroute) -> &'static str {
    match misroute {
        Misroute::BadEscape => "400 Bad Request",
        Misroute::NotFound => "404 page not found",
        Misroute::MethodNotAllowed { .. } => "Method Not Allowed",
        Misroute::Redirect { permanent: true, .. } => "Moved Permanently",
        Misroute::Redirect { permanent: false, .. } => "Temporary Redirect",
    }
}

fn store_text(error: &StoreError) -> String {
    match error {
        StoreError::Inconsistent(fault) => {
            let mut text =
                format!("pushed metrics are invalid or inconsistent with existing metrics: {fault}");
            // Names may be as long as a body.
            text.truncate(text.floor_char_boundary(FAILURE_BYTES_MAX));
            text
        }
        StoreError::QueueFull | StoreError::Closed => error.to_string(),
    }
}

impl Failure {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Misroute(Misroute::NotFound) => StatusCode::NOT_FOUND,
            Self::Misroute(Misroute::MethodNotAllowed { .. }) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misroute(Misroute::Redirect { permanent: true, .. }) => StatusCode::MOVED_PERMANENTLY,
            Self::Misroute(Misroute::Redirect { permanent: false, .. }) => StatusCode::TEMPORARY_REDIRECT,
            Self::ContentEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge | Self::GroupLabelsTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Store(StoreError::QueueFull | StoreError::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misroute(Misroute::BadEscape)
            | Self::NoHost
            | Self::Grouping(_)
            | Self::Text(_)
            | Self::Protobuf(_)
            | Self::BodyIncomplete
            | Self::Store(StoreError::Inconsistent(_)) => StatusCode::BAD_REQUEST,
        }
    }

    /// A header that belongs to the answer.
    pub(super) fn header(&self) -> Option<(HeaderName, String)> {
        match self {
            Self::Misroute(Misroute::MethodNotAllowed { allow }) => Some((ALLOW, (*allow).to_owned())),
            Self::Misroute(Misroute::Redirect { location, .. }) => Some((LOCATION, location.clone())),
            Self::Store(StoreError::QueueFull | StoreError::Closed) => Some((RETRY_AFTER, "1".to_owned())),
            _ => None,
        }
    }

    pub(super) fn level(&self) -> Level {
        match self {
            Self::Store(StoreError::QueueFull | StoreError::Closed) => Level::WARN,
            Self::Store(StoreError::Inconsistent(_)) => Level::ERROR,
            _ => Level::DEBUG,
        }
    }
}
