//! Which request is for whom. Pure: a method and a path in, a route or a refusal out.
//!
//! The rules are those of the Pushgateway's two routers: a path is first cleaned (Go's `http.ServeMux`); a path that would
//! be somebody's with or without a slash at its end, or in another case, is redirected (httprouter).

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::promises::Asked;
use crate::config::Paths;
use crate::exposition::Validation;
use crate::grouping::{GroupingError, GroupingKey};
use crate::store::PushMode;

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
    /// Replace many groups, which labels of the metrics name.
    PushTogether,
    /// The exposition of the groups with some labels.
    ScrapeGroups {
        /// The labels, or why the URL names none.
        key: Result<GroupingKey, GroupingError>,
    },
    /// Delete a group.
    Delete {
        /// The group, or why the URL names none.
        key: Result<GroupingKey, GroupingError>,
    },
    /// The exposition.
    Scrape,
    /// The page for people.
    Page,
    /// A part of the page.
    Asset(String),
    /// Build, flags and start of the gateway.
    ApiStatus,
    /// All groups with their metrics.
    ApiMetrics,
    /// A page of groups.
    Groups,
    /// Delete groups.
    DeleteGroups,
    /// The group of an id.
    Group(String),
    /// The last runs of the group of an id.
    Runs(String),
    /// What the API is.
    OpenApi,
    /// Delete everything.
    Wipe,
    /// Whether the gateway works.
    Healthy,
    /// Whether the gateway takes requests.
    Ready,
    /// Whether the gateway takes pushes.
    Writable,
    /// End the gateway.
    Quit,
    /// Somebody tried to end the gateway by looking at it.
    QuitByGet,
    /// Which methods a path knows.
    Options {
        /// The methods.
        allow: &'static str,
    },
    /// What a browser asks before it uses the API.
    ApiOptions {
        /// Whether a Pushgateway has this, and says which methods other sites may use.
        is_of_pushgateway: bool,
    },
}

/// Why a request is for nobody.
#[derive(Debug, PartialEq, Eq)]
pub enum Misroute {
    /// A `%` without two hexadecimal digits behind it, or no path at all.
    BadPath,
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

/// Where what is.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Under which paths.
    pub paths: Paths,
    /// Which names a path may hold.
    pub names: Validation,
    /// Whether everything may be deleted.
    pub admin: bool,
}

/// A place, whatever is done there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Scrape,
    Page,
    Asset(String),
    Healthy,
    Ready,
    Writable,
    Quit,
    /// `/-/quit` before the prefix.
    BareQuit,
    ApiStatus,
    ApiMetrics,
    Groups,
    GroupOfId(String),
    RunsOfId(String),
    OpenApi,
    Wipe,
    Group {
        base64: bool,
        job: Vec<u8>,
        labels: Vec<u8>,
    },
}

impl Place {
    /// The methods that it knows, and `OPTIONS`.
    fn methods(&self, query: Option<&str>, layout: &Layout) -> &'static str {
        match self {
            Self::Scrape if Asked::has(query, "group_by") => "GET, HEAD, OPTIONS, PUT",
            Self::Group { .. } => "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
            Self::Groups => "DELETE, GET, HEAD, OPTIONS",
            Self::Wipe => "OPTIONS, PUT",
            // The two are one where there is no prefix.
            Self::Quit | Self::BareQuit if layout.paths.prefix.is_empty() => "GET, OPTIONS, POST, PUT",
            Self::Quit => "OPTIONS, POST, PUT",
            Self::BareQuit => "GET, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// What a method asks for here, if anything.
    fn route(&self, method: &Method, query: Option<&str>, layout: &Layout) -> Option<Route> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let key =
            |base64, job: &[u8], labels: &[u8]| GroupingKey::from_path(job, base64, labels, layout.names);
        match self {
            Self::Group { base64, job, labels } => match *method {
                Method::PUT => {
                    Some(Route::Push { mode: PushMode::ReplaceGroup, key: key(*base64, job, labels) })
                }
                Method::POST => {
                    Some(Route::Push { mode: PushMode::ReplaceFamilies, key: key(*base64, job, labels) })
                }
                Method::PATCH => {
                    Some(Route::Push { mode: PushMode::ReplaceMetrics, key: key(*base64, job, labels) })
                }
                Method::DELETE => Some(Route::Delete { key: key(*base64, job, labels) }),
                Method::GET | Method::HEAD => Some(Route::ScrapeGroups { key: key(*base64, job, labels) }),
                _ => None,
            },
            Self::Scrape if *method == Method::PUT && Asked::has(query, "group_by") => {
                Some(Route::PushTogether)
            }
            Self::Groups if *method == Method::DELETE => Some(Route::DeleteGroups),
            Self::Wipe => (*method == Method::PUT).then_some(Route::Wipe),
            Self::Quit | Self::BareQuit => match *method {
                Method::GET if self.methods(query, layout).starts_with("GET") => Some(Route::QuitByGet),
                Method::PUT | Method::POST if self.methods(query, layout).ends_with("PUT") => {
                    Some(Route::Quit)
                }
                _ => None,
            },
            _ if !reads => None,
            Self::Scrape => Some(Route::Scrape),
            Self::Page => Some(Route::Page),
            Self::Asset(name) => Some(Route::Asset(name.clone())),
            Self::Healthy => Some(Route::Healthy),
            Self::Ready => Some(Route::Ready),
            Self::Writable => Some(Route::Writable),
            Self::ApiStatus => Some(Route::ApiStatus),
            Self::ApiMetrics => Some(Route::ApiMetrics),
            Self::Groups => Some(Route::Groups),
            Self::GroupOfId(id) => Some(Route::Group(id.clone())),
            Self::RunsOfId(id) => Some(Route::Runs(id.clone())),
            Self::OpenApi => Some(Route::OpenApi),
        }
    }
}

const ALL_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
const GROUP: &str = "/metrics/job/";
const GROUP_BASE64: &str = "/metrics/job@base64/";
const ASSETS: &str = "/static/";
const API: &str = "/api/v1/";
const QUIT: &str = "/-/quit";

/// Finds the route of a request. `path` is the path of the URL as it was sent, `query` what follows it.
///
/// # Errors
/// What to answer instead.
pub fn route(method: &Method, path: &str, query: Option<&str>, layout: &Layout) -> Result<Route, Misroute> {
    if path == "*" {
        // The server as a whole (RFC 9110, section 9.3.7), of which nothing else can be asked.
        return if *method == Method::OPTIONS {
            Ok(Route::Options { allow: ALL_METHODS })
        } else {
            Err(Misroute::BadPath)
        };
    }
    let decoded = decode(path)?;
    let cleaned = clean(&decoded);
    if cleaned != *decoded {
        return Err(redirect(true, &cleaned, query));
    }
    if let Some(place) = find(&decoded, layout, Case::Kept) {
        return match *method {
            Method::OPTIONS if let Some(rest) = api(&decoded, layout) => Ok(api_options(rest)),
            Method::OPTIONS => Ok(Route::Options { allow: place.methods(query, layout) }),
            _ => place
                .route(method, query, layout)
                .ok_or_else(|| Misroute::MethodNotAllowed { allow: place.methods(query, layout) }),
        };
    }
    if *method == Method::OPTIONS
        && let Some(rest) = api(&decoded, layout)
    {
        return Ok(api_options(rest));
    }
    // The routers send every method to a subtree's own path.
    let is_subtree = decoded == format!("{}{}", layout.paths.prefix, API.trim_end_matches('/')).as_bytes();
    match near_miss(method, &decoded, query, layout) {
        Some(path) => Err(redirect(reads(method), &path, query)),
        None if is_subtree => Err(redirect(true, &[&decoded, &b"/"[..]].concat(), query)),
        None => Err(Misroute::NotFound),
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What of a path is behind the API's own, if it is the API's.
fn api<'p>(path: &'p [u8], layout: &Layout) -> Option<&'p [u8]> {
    path.strip_prefix(layout.paths.prefix.as_bytes())?.strip_prefix(API.as_bytes())
}

fn api_options(rest: &[u8]) -> Route {
    Route::ApiOptions { is_of_pushgateway: !rest.starts_with(b"groups") }
}

/// Whether letters in the fixed parts of a path may be of another case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Ignored,
}

impl Case {
    fn strip<'a>(self, path: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
        let (head, rest) = path.split_at_checked(prefix.len())?;
        self.equal(head, prefix).then_some(rest)
    }

    fn equal(self, a: &[u8], b: &str) -> bool {
        match self {
            Self::Kept => a == b.as_bytes(),
            Self::Ignored => a.eq_ignore_ascii_case(b.as_bytes()),
        }
    }
}

/// What is at a cleaned path.
fn find(path: &[u8], layout: &Layout, case: Case) -> Option<Place> {
    let Paths { prefix, telemetry, .. } = &layout.paths;
    let is = |rest: &[u8], fixed: &str| case.equal(rest, fixed);
    if !prefix.is_empty() && is(path, QUIT) {
        return Some(Place::BareQuit);
    }
    let rest = case.strip(path, prefix)?;
    let fixed = [
        (telemetry.as_str(), Place::Scrape),
        ("/", Place::Page),
        ("/status", Place::Page),
        ("/-/healthy", Place::Healthy),
        ("/-/ready", Place::Ready),
        ("/-/writable", Place::Writable),
        (QUIT, Place::Quit),
    ];
    if let Some((_, place)) =
        fixed.into_iter().find(|(fixed, _)| is(rest, if fixed.is_empty() { "/" } else { fixed }))
    {
        return Some(place);
    }
    // A router of its own, which knows no other case.
    match rest {
        b"/api/v1/status" => return Some(Place::ApiStatus),
        b"/api/v1/metrics" => return Some(Place::ApiMetrics),
        b"/api/v1/groups" => return Some(Place::Groups),
        b"/api/v1/openapi.json" => return Some(Place::OpenApi),
        b"/api/v1/admin/wipe" if layout.admin => return Some(Place::Wipe),
        _ => {}
    }
    if let Some(rest) = rest.strip_prefix(b"/api/v1/groups/") {
        let text = |id: &[u8]| Some(String::from_utf8_lossy(id).into_owned()).filter(|id| !id.is_empty());
        return match rest.strip_suffix(b"/runs") {
            Some(id) => text(id).map(Place::RunsOfId),
            None => text(rest).map(Place::GroupOfId),
        };
    }
    if let Some(name) = case.strip(rest, ASSETS) {
        return Some(Place::Asset(String::from_utf8_lossy(name).into_owned()));
    }
    let (base64, rest) = [(false, GROUP), (true, GROUP_BASE64)]
        .into_iter()
        .find_map(|(base64, start)| Some((base64, case.strip(rest, start)?)))?;
    let (job, labels) = rest.split_at(rest.iter().position(|b| *b == b'/').unwrap_or(rest.len()));
    (!job.is_empty()).then(|| Place::Group { base64, job: job.to_vec(), labels: labels.to_vec() })
}

/// The path that was probably meant, if the method is known there.
fn near_miss(method: &Method, path: &[u8], query: Option<&str>, layout: &Layout) -> Option<Vec<u8>> {
    // So the Pushgateway answers, though nothing is there.
    if [Method::PUT, Method::POST, Method::DELETE].contains(method)
        && path.strip_prefix(layout.paths.prefix.as_bytes()) == Some(GROUP.as_bytes())
    {
        return Some(path[..path.len() - 1].to_vec());
    }
    let toggled = match path.strip_suffix(b"/") {
        Some(without) => without.to_vec(),
        None => [path, b"/"].concat(),
    };
    let known = |path: &[u8], case| {
        find(path, layout, case).is_some_and(|place| place.route(method, query, layout).is_some())
    };
    if known(&toggled, Case::Kept) {
        return Some(toggled);
    }
    [path, &toggled].into_iter().find(|path| known(path, Case::Ignored)).map(|path| lower(path, layout))
}

/// A path whose fixed parts are as they should be; what names a group stays as it is.
fn lower(path: &[u8], layout: &Layout) -> Vec<u8> {
    let prefix = &layout.paths.prefix;
    let kept = Case::Ignored.strip(path, prefix).map_or(0, |rest| {
        let starts = [GROUP, GROUP_BASE64, ASSETS];
        starts.iter().find_map(|start| Case::Ignored.strip(rest, start)).map_or(0, <[u8]>::len)
    });
    let (fixed, kept) = path.split_at(path.len() - kept);
    let fixed = match fixed.split_at_checked(prefix.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(prefix.as_bytes()) => {
            let rest = if Case::Ignored.equal(rest, &layout.paths.telemetry) {
                layout.paths.telemetry.clone().into_bytes()
            } else {
                rest.to_ascii_lowercase()
            };
            [prefix.as_bytes(), &rest].concat()
        }
        _ => fixed.to_ascii_lowercase(),
    };
    [&fixed, kept].concat()
}

fn decode(path: &str) -> Result<Cow<'_, [u8]>, Misroute> {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        if !rest.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Misroute::BadPath);
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
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

fn redirect(permanent: bool, path: &[u8], query: Option<&str>) -> Misroute {
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Misroute::Redirect { permanent, location: format!("{}{query}", percent_encode(path, PATH)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_METHODS: &str = "GET, HEAD, OPTIONS";
    const PUSH_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

    fn layout(prefix: &str) -> Layout {
        let paths = Paths { prefix: prefix.to_owned(), telemetry: "/metrics".to_owned(), external: None };
        Layout { paths, ..Layout::default() }
    }

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
            (Method::GET, "/-/writable", Ok(Route::Writable)),
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
            (
                Method::PATCH,
                "/metrics/job/x",
                Ok(Route::Push { mode: PushMode::ReplaceMetrics, key: Ok(key("x", &[])) }),
            ),
            (Method::HEAD, "/metrics/job/x", Ok(Route::ScrapeGroups { key: Ok(key("x", &[])) })),
            (Method::TRACE, "/metrics/job/x", Err(Misroute::MethodNotAllowed { allow: PUSH_METHODS })),
            (Method::GET, "/api/v1/groups", Ok(Route::Groups)),
            (Method::DELETE, "/api/v1/groups", Ok(Route::DeleteGroups)),
            (Method::GET, "/api/v1/groups/ab", Ok(Route::Group("ab".to_owned()))),
            (Method::GET, "/api/v1/groups/ab/runs", Ok(Route::Runs("ab".to_owned()))),
            (Method::GET, "/api/v1/groups//runs", moved(true, "/api/v1/groups/runs")),
            (Method::GET, "/api/v1/groups/", moved(true, "/api/v1/groups")),
            (Method::GET, "/api/v1/openapi.json", Ok(Route::OpenApi)),
            (Method::PUT, "/metrics/job//a/b", moved(true, "/metrics/job/a/b")),
            (Method::PUT, "//metrics/job/x", moved(true, "/metrics/job/x")),
            (Method::PUT, "/metrics/./job/x", moved(true, "/metrics/job/x")),
            (Method::PUT, "/metrics/job/..", moved(true, "/metrics")),
            (Method::PUT, "/metrics/job/%2e%2e", moved(true, "/metrics")),
            (Method::PUT, "/metrics/job//a%20%25", moved(true, "/metrics/job/a%20%25")),
            (Method::GET, "/.//%5Cevil.example", moved(true, "/%5Cevil.example")),
            (Method::PUT, "/metrics/job/%zz", Err(Misroute::BadPath)),
            (Method::PUT, "/metrics/job/a%2", Err(Misroute::BadPath)),
        ] {
            assert_eq!(route(&method, path, None, &layout("")), expected, "{method} {path}");
        }
    }

    #[test]
    fn paths_may_have_a_prefix() {
        for (method, path, expected) in [
            (Method::GET, "/p/metrics", Ok(Route::Scrape)),
            (Method::GET, "/p/", Ok(Route::Page)),
            (Method::GET, "/p", moved(true, "/p/")),
            (Method::PUT, "/p", Err(Misroute::NotFound)),
            (Method::GET, "/P/Status", moved(true, "/p/status")),
            (Method::GET, "/metrics", Err(Misroute::NotFound)),
            (Method::PUT, "/p/metrics/job/", moved(false, "/p/metrics/job")),
            (Method::GET, "/-/quit", Ok(Route::QuitByGet)),
            (Method::PUT, "/-/quit", Err(Misroute::MethodNotAllowed { allow: "GET, OPTIONS" })),
            (Method::GET, "/p/-/quit", Err(Misroute::MethodNotAllowed { allow: "OPTIONS, POST, PUT" })),
            (Method::PUT, "/p/-/quit", Ok(Route::Quit)),
        ] {
            assert_eq!(route(&method, path, None, &layout("/p")), expected, "{method} {path}");
        }
        assert_eq!(route(&Method::GET, "/p", Some("x=1"), &layout("/p")), moved(true, "/p/?x=1"));
    }

    #[test]
    fn near_misses_are_redirected() {
        for (method, path, expected) in [
            (Method::PUT, "/METRICS/job/X", moved(false, "/metrics/job/X")),
            (Method::GET, "/METRICS/job/X", moved(true, "/metrics/job/X")),
            (Method::TRACE, "/METRICS/job/X", Err(Misroute::NotFound)),
            (Method::GET, "/-/Healthy", moved(true, "/-/healthy")),
            (Method::GET, "/status/", moved(true, "/status")),
            (Method::PUT, "/status/", Err(Misroute::NotFound)),
            (Method::PUT, "/api/v1", moved(true, "/api/v1/")),
            (Method::GET, "/api/v1/", Err(Misroute::NotFound)),
            (Method::OPTIONS, "/api/v1/nothing", Ok(Route::ApiOptions { is_of_pushgateway: true })),
            (Method::OPTIONS, "/api/v1/groups", Ok(Route::ApiOptions { is_of_pushgateway: false })),
            (Method::OPTIONS, "/api/v1/groups/", Ok(Route::ApiOptions { is_of_pushgateway: false })),
            (Method::PUT, "/api/v1/admin/wipe", Err(Misroute::NotFound)),
        ] {
            assert_eq!(route(&method, path, None, &layout("")), expected, "{method} {path}");
        }
        let admin = Layout { admin: true, ..layout("") };
        assert_eq!(route(&Method::PUT, "/api/v1/admin/wipe", None, &admin), Ok(Route::Wipe));
    }

    #[test]
    fn groups_are_put_together_where_labels_name_them() {
        let found = |query| route(&Method::PUT, "/metrics", query, &layout(""));
        assert_eq!(found(Some("group_by=job")), Ok(Route::PushTogether));
        assert!(found(Some("x=group_by")).is_err());
        let not_allowed = route(&Method::POST, "/metrics", Some("group_by=job"), &layout(""));
        assert_eq!(not_allowed, Err(Misroute::MethodNotAllowed { allow: "GET, HEAD, OPTIONS, PUT" }));
    }

    #[test]
    fn a_slash_splits_even_if_it_is_escaped() {
        assert_eq!(
            route(&Method::DELETE, "/metrics/job/x%2Fa%2Fb", None, &layout("")),
            Ok(Route::Delete { key: Ok(key("x", &[("a", "b")])) })
        );
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in "[/%a-f0-9.@jobmetrics\u{e4}]{0,40}") {
            let _ = route(&Method::PUT, &path, None, &layout("/metrics"));
            let _ = route(&Method::GET, &path, None, &layout(""));
        }
    }
}
