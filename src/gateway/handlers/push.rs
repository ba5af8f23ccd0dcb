//! PUT, POST and DELETE of a group.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode};
use mime::Mime;

use super::{Answer, empty};
use crate::exposition::protobuf::DecodeError;
use crate::exposition::{MetricFamily, Validation, protobuf, text};
use crate::gateway::error::Failure;
use crate::gateway::limits::{BODY_BYTES_MAX, BODY_READ_MAX, GROUP_LABEL_BYTES_MAX, INLINE_BODY_BYTES_MAX};
use crate::grouping::GroupingKey;
use crate::store::{Change, Push, PushMode, Store, StoreError, UnixSeconds};

/// Makes a push: 200 and nothing when it is in the next scrape.
pub(in crate::gateway) async fn push(
    store: &Store,
    key: GroupingKey,
    mode: PushMode,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Answer, Failure> {
    let format = Format::of(headers)?;
    let body = read(body).await?;
    let at = unix_seconds(SystemTime::now());
    let prepared = prepare(format, body, key.clone(), mode, at).await;
    match prepared {
        Ok(push) => store.submit(Change::Push(push)).await?,
        Err(Failure::Protobuf(DecodeError::Inconsistent(fault))) => {
            store.submit(Change::Failed { key, at }).await?;
            return Err(StoreError::Inconsistent(fault).into());
        }
        Err(failure) => return Err(failure),
    }
    Ok(empty(StatusCode::OK))
}

/// Deletes a group: 202 and nothing, whether there was one or not.
pub(in crate::gateway) async fn delete(store: &Store, key: GroupingKey) -> Result<Answer, Failure> {
    store.submit(Change::Delete(key)).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Content encodings under which a body cannot be read.
const COMPRESSED: [&str; 6] = ["gzip", "deflate", "compress", "br", "zstd", "snappy"];

#[derive(Clone, Copy)]
enum Format {
    Text,
    Protobuf,
}

impl Format {
    /// Everything that is not declared as delimited protobuf is text.
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        // Others are passed over: they are clients' mistakes for the charset, and the body is as it is.
        if let Some(encoding) = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok())
            && COMPRESSED.iter().any(|name| encoding.to_ascii_lowercase().contains(name))
        {
            return Err(Failure::ContentEncoding(encoding.to_owned()));
        }
        let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.parse::<Mime>().ok());
        let is_protobuf = declared.is_some_and(|mime| {
            mime.essence_str() == "application/vnd.google.protobuf"
                && mime.get_param("encoding").is_some_and(|encoding| encoding.as_str() == "delimited")
                && mime
                    .get_param("proto")
                    .is_some_and(|proto| proto.as_str() == "io.prometheus.client.MetricFamily")
        });
        Ok(if is_protobuf { Self::Protobuf } else { Self::Text })
    }

    fn decode(self, body: &[u8]) -> Result<Vec<MetricFamily>, Failure> {
        match self {
            Self::Text => Ok(text::parse(body, Validation::Legacy)?),
            Self::Protobuf => protobuf::decode(body).map_err(Failure::Protobuf),
        }
    }
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Failure::BodyTooLarge);
    }
    let collected = tokio::time::timeout(BODY_READ_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::BodyTooLarge),
        Ok(Err(_)) => Err(Failure::BodyIncomplete),
        Err(_) => Err(Failure::BodyTooSlow),
    }
}

/// Reads a body and makes it a push, on a thread of its own where that takes long.
async fn prepare(
    format: Format,
    body: Bytes,
    key: GroupingKey,
    mode: PushMode,
    at: UnixSeconds,
) -> Result<Push, Failure> {
    let inline = body.len() <= INLINE_BODY_BYTES_MAX;
    let prepare = move || {
        let families = format.decode(&body)?;
        let metrics: usize = families.iter().map(|family| family.metrics.len()).sum();
        if metrics.saturating_mul(key.labels().text_bytes()) > GROUP_LABEL_BYTES_MAX {
            return Err(Failure::GroupLabelsTooLarge);
        }
        Ok(Push::new(key, families, mode, at))
    };
    if inline {
        return prepare();
    }
    tokio::task::spawn_blocking(prepare).await.unwrap_or(Err(Failure::BodyIncomplete))
}

/// The time as the push time metrics show it; a clock before 1970 counts as 1970.
fn unix_seconds(time: SystemTime) -> UnixSeconds {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
