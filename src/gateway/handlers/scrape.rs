//! GET of the exposition.

use std::io::Write as _;
use std::sync::Arc;

use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};

use super::{Answer, TEXT, answer};
use crate::exposition::{Format, MetricFamily};
use crate::gateway::error::Failure;
use crate::gateway::load::Heavy;
use crate::gateway::negotiate::{self, Compression};
use crate::gateway::peer::Peer;
use crate::store::Snapshot;
use crate::store::expose::expose;

/// Everything that is stored, and the gateway's own metrics, whole pushes only.
pub(in crate::gateway) async fn scrape(
    snapshot: Arc<Snapshot>,
    own: Vec<MetricFamily>,
    headers: &HeaderMap,
    open_metrics: bool,
    heavy: &Heavy,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let format = negotiate::format(headers, open_metrics);
    let compression = negotiate::compression(headers);
    let body = heavy.run(peer, move || render(&snapshot, &own, format, compression)).await?;
    let mut answer = answer(StatusCode::OK, TEXT, body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(format.content_type()).expect("it is ASCII"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(name) = compression.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(answer)
}

fn render(snapshot: &Snapshot, own: &[MetricFamily], format: Format, compression: Compression) -> Vec<u8> {
    let mut body = Vec::new();
    expose(&mut body, snapshot, own, format);
    match compression {
        Compression::Identity => body,
        Compression::Gzip => {
            let out = Vec::with_capacity(body.len() / 8);
            let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
            encoder.write_all(&body).and_then(|()| encoder.finish()).expect("a Vec takes every write")
        }
        Compression::Zstd => {
            zstd::encode_all(&body[..], zstd::DEFAULT_COMPRESSION_LEVEL).expect("a Vec takes every write")
        }
    }
}
