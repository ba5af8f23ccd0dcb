//! PUT, POST and DELETE of a group.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{HeaderMap, StatusCode};

use super::{Answer, empty};
use crate::config::{Consistency, Limits};
use crate::exposition::{MetricFamily, Rules, Validation, protobuf, text};
use crate::gateway::encoding::Encoding;
use crate::gateway::error::Failure;
use crate::gateway::load::HeldBytes;
use crate::gateway::negotiate::is_protobuf;
use crate::gateway::now;
use crate::gateway::peer::Peer;
use crate::gateway::server::Shared;
use crate::grouping::GroupingKey;
use crate::store::{Change, Made, Push, PushMode, Store, StoreError, UnixNanos};

/// Bodies from this size on are read and judged on a thread of their own, so that they delay nobody.
const INLINE_BODY_BYTES_MAX: usize = 64 * 1024;

/// Makes a push: 200 and nothing when it is in the next scrape; 202 where nobody wants to hear of contradictions.
pub(in crate::gateway) async fn push(
    shared: &Shared,
    key: GroupingKey,
    mode: PushMode,
    headers: &HeaderMap,
    body: Incoming,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let reading = Reading {
        encoding: Encoding::of(headers),
        is_protobuf: is_protobuf(headers),
        names: shared.layout.names,
        limits: shared.limits.clone(),
    };
    let mut held = shared.writes.bodies.hold();
    let body = read(body, &shared.limits, &mut held).await?;
    let at = now();
    // A compressed one may become thousands of times as large.
    let is_small = reading.encoding == Encoding::Identity && body.len() <= INLINE_BODY_BYTES_MAX;
    let store = shared.store.clone();
    let make = move || reading.make(&store, body, key, mode, at);
    let change = if is_small { make()? } else { shared.writes.heavy.run(peer, make).await?? };
    shared.store.durable(change).await?;
    Ok(empty(match shared.consistency {
        Consistency::Checked => StatusCode::OK,
        Consistency::Quarantined => StatusCode::ACCEPTED,
    }))
}

/// Deletes a group: 202 and nothing, whether there was one or not.
pub(in crate::gateway) async fn delete(store: &Store, key: GroupingKey) -> Result<Answer, Failure> {
    store.durable(store.make(Change::Delete(key))?).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Reads a body as far as it may be held.
async fn read(body: Incoming, limits: &Limits, held: &mut HeldBytes) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(Failure::BodyTooLarge(limits.body_bytes));
    }
    let reading = read_frames(body, limits.body_bytes, held);
    tokio::time::timeout(limits.body_time, reading).await.unwrap_or(Err(Failure::BodyTooSlow))
}

async fn read_frames(mut body: Incoming, bytes_max: usize, held: &mut HeldBytes) -> Result<Bytes, Failure> {
    // Most bodies are one frame, which is not copied.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::BodyIncomplete)?.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > bytes_max {
            return Err(Failure::BodyTooLarge(bytes_max));
        }
        held.grow(data.len()).await?;
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// How a body is to be read.
struct Reading {
    encoding: Encoding,
    is_protobuf: bool,
    names: Validation,
    limits: Arc<Limits>,
}

impl Reading {
    fn families(&self, body: &[u8]) -> Result<Vec<MetricFamily>, Failure> {
        let limits = crate::exposition::Limits {
            samples: self.limits.push_series,
            labels: self.limits.series_labels,
            name_bytes: self.limits.name_bytes,
            label_value_bytes: self.limits.label_value_bytes,
        };
        if self.is_protobuf {
            protobuf::decode(body, &limits).map_err(|error| Failure::protobuf(error, &self.limits))
        } else {
            let rules = Rules { validation: self.names, limits };
            text::parse(body, rules).map_err(|error| Failure::text(error, &self.limits))
        }
    }

    /// Reads a body and makes the push that it is.
    fn make(
        &self,
        store: &Store,
        body: Bytes,
        key: GroupingKey,
        mode: PushMode,
        at: UnixNanos,
    ) -> Result<Made, Failure> {
        let families = match self.inflated_families(body) {
            Ok(families) => families,
            Err(failure) => {
                // What can be read and cannot be stored is noted in its group.
                let fault = failure.inconsistent()?.in_group(key.labels());
                // It need not be on disk before it is told.
                let _ = store.make(Change::Failed { key, at })?;
                return Err(StoreError::Inconsistent(fault).into());
            }
        };
        let metrics: usize = families.iter().map(|family| family.metrics.len()).sum();
        if metrics.saturating_mul(key.labels().text_bytes()) > self.limits.push_label_bytes {
            return Err(Failure::GroupLabelsTooLarge(self.limits.push_label_bytes));
        }
        Ok(store.make(Change::Push(Push::new(key, families, mode, at)))?)
    }

    fn inflated_families(&self, body: Bytes) -> Result<Vec<MetricFamily>, Failure> {
        if self.encoding == Encoding::Identity {
            return self.families(&body);
        }
        let inflated = self.encoding.inflate(&body, self.limits.inflated_body_bytes)?;
        drop(body);
        self.families(&inflated)
    }
}
