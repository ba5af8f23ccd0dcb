//! Which request is for whom. Pure: a method and a path in, a route or a refusal out.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::exposition::Validation;
use crate::grouping::{GroupingError, GroupingKey};
use crate::store::PushMode;

/// Where scrapes and pushes go.
pub const METRICS_PATH: &str = "/metrics";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Push to a group.
    Push {
        /// What becomes of the rest of the group.
        mode: PushMode,
        /// The group, or why the URL names none.
        key: Result<GroupingKey, GroupingError>,
    },
    /// Delete a group.
    Delete {
        /// The group, or why the URL names none.
        key: Result<GroupingKey, GroupingError>,
    },
    /// The exposition.
    Scrape,
    /// Whether the gateway works.
    Healthy,
    /// Whether the gateway takes pushes.
    Ready,
    /// Which methods a path knows.
    Options {
        /// The methods.
        allow: &'static str,
    },
}

/// Why a request is for nobody.
#[derive(Debug, PartialEq, Eq)]
pub enum Misroute {
    /// A `%` without two hexadecimal digits behind it.
    BadEscape,
    /// Nothing is there.
    NotFound,
    /// Something is there, for other methods.
    MethodNotAllowed {
        /// Which methods.
        allow: &'static str,
    },
    /// It is to be asked for elsewhere.
    Redirect {
        /// Whether the method may change on the way (301) or must stay (307).
        permanent: bool,
        /// Where, percent-encoded.
        location: String,
    },
}

const READ_METHODS: &str = "GET, HEAD, OPTIONS";
const PUSH_METHODS: &str = "DELETE, OPTIONS, POST, PUT";

/// Finds the route of a request. `path` is the path of the URL as it was sent, without the query.
///
/// # Errors
/// What to answer instead.
pub fn route(method: &Method, path: &str) -> Result<Route, Misroute> {
    let decoded = decode(path)?;
    let cleaned = clean(&decoded);
    if cleaned != *decoded {
        return Err(redirect(true, &cleaned));
    }
    match &*decoded {
        b"/metrics" => read(method, Route::Scrape),
        b"/-/healthy" => read(method, Route::Healthy),
        b"/-/ready" => read(method, Route::Ready),
        b"/metrics/" => Err(redirect(true, METRICS_PATH.as_bytes())),
        b"/metrics/job/" => Err(redirect(false, b"/metrics/job")),
        path => push(method, path),
    }
}

fn read(method: &Method, route: Route) -> Result<Route, Misroute> {
    match *method {
        Method::GET | Method::HEAD => Ok(route),
        Method::OPTIONS => Ok(Route::Options { allow: READ_METHODS }),
        _ => Err(Misroute::MethodNotAllowed { allow: READ_METHODS }),
    }
}

fn push(method: &Method, path: &[u8]) -> Result<Route, Misroute> {
    let (base64, rest) = [(false, &b"/metrics/job/"[..]), (true, b"/metrics/job@base64/")]
        .into_iter()
        .find_map(|(base64, prefix)| path.strip_prefix(prefix).map(|rest| (base64, rest)))
        .ok_or(Misroute::NotFound)?;
    let (job, labels) = rest.split_at(rest.iter().position(|b| *b == b'/').unwrap_or(rest.len()));
    if job.is_empty() {
        return Err(Misroute::NotFound);
    }
    let key = || GroupingKey::from_path(job, base64, labels, Validation::Legacy);
    match *method {
        Method::PUT => Ok(Route::Push { mode: PushMode::ReplaceGroup, key: key() }),
        Method::POST => Ok(Route::Push { mode: PushMode::ReplaceFamilies, key: key() }),
        Method::DELETE => Ok(Route::Delete { key: key() }),
        Method::OPTIONS => Ok(Route::Options { allow: PUSH_METHODS }),
        _ => Err(Misroute::MethodNotAllowed { allow: PUSH_METHODS }),
    }
}

fn decode(path: &str) -> Result<Cow<'_, [u8]>, Misroute> {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        if !rest.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Misroute::BadEscape);
        }
        rest = &rest[at + 3..];
    }
    Ok(percent_decode_str(path).into())
}

/// The shortest path that means the same (Go's `path.Clean`), with its trailing slash.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|b| *b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() || path.ends_with(b"/") {
        out.push(b'/');
    }
    out
}

/// What must not stand in a path as it is.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

fn redirect(permanent: bool, path: &[u8]) -> Misroute {
    Misroute::Redirect { permanent, location: percent_encode(path, PATH).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(job: &str, labels: &[(&str, &str)]) -> GroupingKey {
        GroupingKey::new(job, labels.iter().copied())
    }

    fn moved(permanent: bool, location: &str) -> Result<Route, Misroute> {
        Err(Misroute::Redirect { permanent, location: location.to_owned() })
    }

    #[test]
    fn requests_find_their_routes() {
        let replace = PushMode::ReplaceGroup;
        for (method, path, expected) in [
            (Method::GET, "/metrics", Ok(Route::Scrape)),
            (Method::HEAD, "/metrics", Ok(Route::Scrape)),
            (Method::PUT, "/metrics", Err(Misroute::MethodNotAllowed { allow: READ_METHODS })),
            (Method::OPTIONS, "/metrics", Ok(Route::Options { allow: READ_METHODS })),
            (Method::GET, "/metrics/", moved(true, "/metrics")),
            (Method::GET, "/-/healthy", Ok(Route::Healthy)),
            (Method::GET, "/-/ready", Ok(Route::Ready)),
            (Method::GET, "/nothing", Err(Misroute::NotFound)),
            (Method::PUT, "/metrics/job", Err(Misroute::NotFound)),
            (Method::PUT, "/metrics/job/", moved(false, "/metrics/job")),
            (Method::PUT, "/metrics/job@base64/", Err(Misroute::NotFound)),
            (Method::PUT, "/metrics/job/x", Ok(Route::Push { mode: replace, key: Ok(key("x", &[])) })),
            (
                Method::POST,
                "/metrics/job/x/",
                Ok(Route::Push { mode: PushMode::ReplaceFamilies, key: Ok(key("x", &[])) }),
            ),
            (Method::DELETE, "/metrics/job/x/a/b", Ok(Route::Delete { key: Ok(key("x", &[("a", "b")])) })),
            (Method::PATCH, "/metrics/job/x", Err(Misroute::MethodNotAllowed { allow: PUSH_METHODS })),
            (Method::GET, "/metrics/job/x", Err(Misroute::MethodNotAllowed { allow: PUSH_METHODS })),
            (Method::PUT, "/metrics/job//a/b", moved(true, "/metrics/job/a/b")),
            (Method::PUT, "//metrics/job/x", moved(true, "/metrics/job/x")),
            (Method::PUT, "/metrics/./job/x", moved(true, "/metrics/job/x")),
            (Method::PUT, "/metrics/job/..", moved(true, "/metrics")),
            (Method::PUT, "/metrics/job/%2e%2e", moved(true, "/metrics")),
            (Method::PUT, "/metrics/job//a%20%25", moved(true, "/metrics/job/a%20%25")),
            (Method::PUT, "/metrics/job/%zz", Err(Misroute::BadEscape)),
            (Method::PUT, "/metrics/job/a%2", Err(Misroute::BadEscape)),
        ] {
            assert_eq!(route(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_slash_splits_even_if_it_is_escaped() {
        assert_eq!(
            route(&Method::DELETE, "/metrics/job/x%2Fa%2Fb"),
            Ok(Route::Delete { key: Ok(key("x", &[("a", "b")])) })
        );
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in "[/%a-f0-9.@jobmetrics\u{e4}]{0,40}") {
            let _ = route(&Method::PUT, &path);
        }
    }
}
