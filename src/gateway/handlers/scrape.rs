//! GET of the exposition.

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};

use super::{Answer, TEXT, answer};
use crate::exposition::MetricFamily;
use crate::gateway::body::Body;
use crate::gateway::error::Failure;
use crate::gateway::negotiate;
use crate::gateway::peer::Peer;
use crate::gateway::server::Shared;
use crate::grouping::GroupingKey;
use crate::store::Snapshot;
use crate::store::expose::expose;

/// Everything that is stored, and the gateway's own metrics, whole pushes only.
pub(in crate::gateway) async fn scrape(
    shared: &Shared,
    snapshot: Snapshot,
    own: Vec<MetricFamily>,
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let format = negotiate::format(headers, shared.open_metrics);
    let compression = negotiate::compression(headers);
    let pieces = shared.reads.heavy.run(peer, move || expose(&snapshot, &own, format, compression)).await?;
    let mut answer = answer(StatusCode::OK, TEXT, Body::from_iter(pieces));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(format.content_type()).expect("it is ASCII"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(name) = compression.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(answer)
}

/// The groups that have the labels of a key, and perhaps more.
pub(in crate::gateway) async fn groups(
    shared: &Shared,
    snapshot: Snapshot,
    key: GroupingKey,
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let has_all = move |group: &GroupingKey| {
        key.labels().iter().all(|(name, value)| group.labels().get(name).unwrap_or_default() == value)
    };
    let snapshot = shared.reads.heavy.run(peer, move || snapshot.only(has_all)).await?;
    scrape(shared, snapshot, Vec::new(), headers, peer).await
}
