//! GET of the exposition.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};

use super::{Answer, TEXT, answer};
use crate::exposition::MetricFamily;
use crate::store::expose::expose;
use crate::store::{Snapshot, Store};

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Everything that is stored, and the gateway's own metrics, whole pushes only.
pub(in crate::gateway) async fn scrape(store: &Store, own: Vec<MetricFamily>, headers: &HeaderMap) -> Answer {
    let gzip = accepts_gzip(headers);
    let snapshot = store.snapshot();
    // Rendering many groups takes long enough to delay pushes on the same thread.
    let Ok(body) = tokio::task::spawn_blocking(move || render(&snapshot, &own, gzip)).await else {
        return answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the exposition could not be rendered\n");
    };
    let mut answer = answer(StatusCode::OK, EXPOSITION, body);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if gzip {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

fn render(snapshot: &Arc<Snapshot>, own: &[MetricFamily], gzip: bool) -> Vec<u8> {
    let mut text = Vec::new();
    expose(&mut text, snapshot, own);
    if !gzip {
        return text;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(&text).and_then(|()| encoder.finish()).expect("a Vec takes every write")
}

/// Whether `Accept-Encoding` names gzip, or everything, and does not give it the weight 0 (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = |wanted: &str| {
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).find_map(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
            name.trim().eq_ignore_ascii_case(wanted).then(|| weight.unwrap_or(1.0) > 0.0)
        })
    };
    accepted("gzip").or_else(|| accepted("*")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_for_those_who_ask_for_it() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("GZIP", true),
            ("*", true),
            ("gzip;q=0", false),
            ("*;q=1, gzip; q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
