//! The one table of what can go wrong with a request: its status, its text, how loudly it is logged.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use tracing::Level;

use super::encoding::InflateError;
use super::route::Misroute;
use crate::config::Limits;
use crate::exposition::protobuf::DecodeError;
use crate::exposition::text::ParseError;
use crate::exposition::text::error::LineError;
use crate::exposition::{Exceeded, check::Inconsistent};
use crate::grouping::{GroupingError, GroupingKey};
use crate::store::StoreError;

/// Bytes of a text that says what is wrong.
const FAILURE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of it that name a group.
const GROUP_BYTES_MAX: usize = 1024;
/// After how many seconds one who was too early may come back.
const SOON: &str = "1";
/// The same for one who has to wait until somebody makes room.
const LATER: &str = "60";

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
    /// A parameter in the query string that means nothing.
    #[error("the parameter {name}={value:?}: {problem}")]
    BadParameter { name: String, value: String, problem: String },
    /// A deletion whose body may have said what was to be deleted.
    #[error("a deletion of groups has no body: its parameters stand in the URL, as with curl -G")]
    BodyOfDeletion,
    /// No group has this name in the API.
    #[error("no group has this id, see the list of groups")]
    NoSuchGroup,
    #[error("finding the groups takes more than {} s: write = in the place of =~, or a simpler expression", .0.as_secs())]
    SearchTooSlow(Duration),
    #[error("more than {0} requests with regular expressions at a time")]
    TooManySearches(usize),
    /// A metric that is in none of the groups that it is to be divided into.
    #[error("a metric of {0:?} has no label job, which group_by names")]
    NoGroup(String),
    #[error(transparent)]
    Text(ParseError),
    #[error(transparent)]
    Protobuf(DecodeError),
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// The client stopped in the middle.
    #[error("unexpected EOF")]
    BodyIncomplete,
    #[error("the body is larger than {0} bytes, see --limit.body-size")]
    BodyTooLarge(usize),
    #[error("the body is larger than {0} bytes, which a rule of --push.rules-file allows its group")]
    BodyTooLargeForRule(usize),
    #[error("more than {0} series in one push, which a rule of --push.rules-file allows the group")]
    TooManySeriesForRule(usize),
    #[error(
        "the labels of the group, once for each series, are larger than {0} bytes, see --limit.push-label-size"
    )]
    GroupLabelsTooLarge(usize),
    #[error(
        "the labels of the group are too large for a URL to name it in {0} bytes, see --limit.header-size"
    )]
    GroupNameTooLarge(usize),
    /// What is wrong with one of many groups.
    #[error("the group {}: {failure}", group_text(.key))]
    OfGroup { key: GroupingKey, failure: Box<Failure> },
    #[error("{0}")]
    TooMuch(String),
    #[error("the line and the headers of the request are larger than {0} bytes, see --limit.header-size")]
    HeadersTooLarge(usize),
    #[error("the body did not arrive in time, see --limit.body-time")]
    BodyTooSlow,
    #[error("more than {0} requests at a time, see --limit.requests")]
    TooManyRequests(usize),
    #[error("more than {0} bytes of bodies at a time, see --limit.requests-size")]
    TooManyBytes(usize),
    /// More than `rate_limit` of the web configuration.
    #[error("Too Many Requests")]
    TooOften,
    /// More passwords are waiting to be checked than is reasonable.
    #[error("too many passwords are being checked")]
    TooManyPasswords,
    /// Nobody that is known; how to introduce oneself.
    #[error("Unauthorized")]
    Unauthorized { challenge: &'static str },
    #[error("{0}")]
    Forbidden(String),
    #[error("{}", store_text(.0))]
    Store(#[from] StoreError),
    /// Nobody will read this.
    #[error("the client hung up before its turn came")]
    ClientGone,
    /// A task of ours has died.
    #[error("the answer could not be made, the gateway's log says more")]
    Internal,
}

fn misroute_text(misroute: &Misroute) -> &'static str {
    match misroute {
        Misroute::BadPath => "400 Bad Request",
        Misroute::NotFound => "404 page not found",
        Misroute::MethodNotAllowed { .. } => "Method Not Allowed",
        Misroute::Redirect { permanent: true, .. } => "Moved Permanently",
        Misroute::Redirect { permanent: false, .. } => "Temporary Redirect",
    }
}

/// A group as a selector names it.
fn group_text(key: &GroupingKey) -> String {
    let labels: Vec<_> = key.labels().iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    let mut text = format!("{{{}}}", labels.join(","));
    text.truncate(text.floor_char_boundary(GROUP_BYTES_MAX));
    text
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
        StoreError::Disk(reason) => reason.to_string(),
        StoreError::TooManyGroups(groups) => format!("there are {groups} groups already, see --limit.groups"),
    }
}

impl Failure {
    /// What cannot be read as text, or is more than is read.
    pub(super) fn text(error: ParseError, limits: &Limits) -> Self {
        match error.error {
            LineError::TooMuch(exceeded) => {
                Self::TooMuch(format!("line {}: {}", error.line, exceeded_text(exceeded, limits)))
            }
            _ => Self::Text(error),
        }
    }

    /// What cannot be read as protobuf, or is more than is read.
    pub(super) fn protobuf(error: DecodeError, limits: &Limits) -> Self {
        match error {
            DecodeError::TooMuch(exceeded) => Self::TooMuch(exceeded_text(exceeded, limits)),
            error => Self::Protobuf(error),
        }
    }

    /// The fault, where the push could be read and cannot be stored.
    pub(super) fn inconsistent(self) -> Result<Inconsistent, Self> {
        match self {
            Self::Protobuf(DecodeError::Inconsistent(fault)) => Ok(fault),
            other => Err(other),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::OfGroup { failure, .. } => failure.status(),
            Self::Misroute(Misroute::NotFound) | Self::NoSuchGroup => StatusCode::NOT_FOUND,
            Self::Misroute(Misroute::MethodNotAllowed { .. }) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misroute(Misroute::Redirect { permanent: true, .. }) => StatusCode::MOVED_PERMANENTLY,
            Self::Misroute(Misroute::Redirect { permanent: false, .. }) => StatusCode::TEMPORARY_REDIRECT,
            Self::BodyTooLarge(_)
            | Self::BodyTooLargeForRule(_)
            | Self::Inflate(InflateError::TooLarge(_))
            | Self::GroupLabelsTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMuch(_) | Self::TooManySeriesForRule(_) | Self::GroupNameTooLarge(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::HeadersTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooSlow | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::TooOften | Self::TooManyPasswords | Self::Store(StoreError::TooManyGroups(_)) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::SearchTooSlow(_)
            | Self::TooManySearches(_)
            | Self::TooManyRequests(_)
            | Self::TooManyBytes(_)
            | Self::Store(StoreError::Disk(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Misroute(Misroute::BadPath)
            | Self::NoHost
            | Self::Grouping(_)
            | Self::BadParameter { .. }
            | Self::BodyOfDeletion
            | Self::NoGroup(_)
            | Self::Text(_)
            | Self::Protobuf(_)
            | Self::Inflate(InflateError::Truncated | InflateError::Corrupt(_))
            | Self::BodyIncomplete
            | Self::Store(StoreError::Inconsistent(_)) => StatusCode::BAD_REQUEST,
        }
    }

    /// A header that belongs to the answer.
    pub(super) fn header(&self) -> Option<(HeaderName, String)> {
        match self {
            Self::OfGroup { failure, .. } => failure.header(),
            Self::Misroute(Misroute::MethodNotAllowed { allow }) => Some((ALLOW, (*allow).to_owned())),
            Self::Misroute(Misroute::Redirect { location, .. }) => Some((LOCATION, location.clone())),
            Self::Unauthorized { challenge } => Some((WWW_AUTHENTICATE, (*challenge).to_owned())),
            Self::Store(StoreError::TooManyGroups(_)) => Some((RETRY_AFTER, LATER.to_owned())),
            Self::TooOften
            | Self::TooManyPasswords
            | Self::SearchTooSlow(_)
            | Self::TooManySearches(_)
            | Self::TooManyRequests(_)
            | Self::TooManyBytes(_)
            | Self::Store(StoreError::Disk(_)) => Some((RETRY_AFTER, SOON.to_owned())),
            _ => None,
        }
    }

    pub(super) fn level(&self) -> Level {
        match self {
            Self::OfGroup { failure, .. } => failure.level(),
            Self::Store(StoreError::Inconsistent(_)) | Self::Internal => Level::ERROR,
            Self::TooManyRequests(_) | Self::TooManyBytes(_) | Self::TooManyPasswords | Self::Store(_) => {
                Level::WARN
            }
            _ => Level::DEBUG,
        }
    }
}

fn exceeded_text(exceeded: Exceeded, limits: &Limits) -> String {
    match exceeded {
        Exceeded::Samples => {
            format!("more than {} series in one push, see --limit.push-series", limits.push_series)
        }
        Exceeded::Labels => {
            format!("more than {} labels on one series, see --limit.series-labels", limits.series_labels)
        }
        Exceeded::NameBytes => {
            format!("a name is longer than {} bytes, see --limit.name-length", limits.name_bytes)
        }
        Exceeded::LabelValueBytes => format!(
            "the value of a label is longer than {} bytes, see --limit.label-value-length",
            limits.label_value_bytes
        ),
    }
}
