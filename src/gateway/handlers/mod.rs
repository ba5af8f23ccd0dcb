//! What each route does.

pub(super) mod admin;
pub(super) mod push;
pub(super) mod scrape;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::error::Failure;

/// An answer in full.
pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer with a body.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

impl Failure {
    /// The answer that tells of the failure, in the form of Go's `http.Error`.
    pub(super) fn answer(&self) -> Answer {
        let mut answer = answer(self.status(), TEXT, format!("{self}\n"));
        let headers = answer.headers_mut();
        headers
            .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        if let Some((name, value)) = self.header()
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
        answer
    }
}
