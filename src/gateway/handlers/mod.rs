//! What each route does.

pub(super) mod admin;
pub(super) mod api_v1;
pub(super) mod groups;
pub(super) mod page;
pub(super) mod push;
pub(super) mod scrape;

use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::body::Body;
use super::error::Failure;
use super::route::Misroute;

/// An answer in full.
pub(super) type Answer = Response<Body>;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// An answer with a body.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}

impl Failure {
    /// The answer that tells of the failure, in the form of Go's `http.Error`, `http.Redirect` and `http.Server`.
    pub(super) fn answer(&self, method: &Method) -> Answer {
        let mut answer = match self {
            Self::Misroute(Misroute::Redirect { location, .. }) => self.redirection(location, method),
            Self::Misroute(Misroute::BadPath) => {
                let mut answer = answer(self.status(), TEXT, self.to_string());
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                answer
            }
            _ => {
                let mut answer = answer(self.status(), TEXT, format!("{self}\n"));
                let nosniff = HeaderName::from_static("x-content-type-options");
                answer.headers_mut().insert(nosniff, HeaderValue::from_static("nosniff"));
                answer
            }
        };
        if let Some((name, value)) = self.header()
            && let Ok(value) = HeaderValue::try_from(value)
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }

    /// Browsers get a link.
    fn redirection(&self, location: &str, method: &Method) -> Answer {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return empty(self.status());
        }
        let link = maud::html! { a href=(location) { (self) } "." };
        answer(self.status(), HTML, format!("{}\n\n", link.into_string()))
    }
}
