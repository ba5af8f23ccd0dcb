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
use crate::gateway::limits::{BODY_BYTES_MAX, BODY_READ_MAX, INLINE_BODY_BYTES_MAX};
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
    let families = decode(format, body).await;
    let at = unix_seconds(SystemTime::now());
    match families {
        Ok(families) => store.submit(Change::Push(Push { key, families, mode, at })).await?,
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

#[derive(Clone, Copy)]
enum Format {
    Text,
    Protobuf,
}

impl Format {
    /// Everything that is not declared as delimited protobuf is text.
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        if let Some(encoding) = headers.get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(Failure::ContentEncoding(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
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

async fn decode(format: Format, body: Bytes) -> Result<Vec<MetricFamily>, Failure> {
    if body.len() <= INLINE_BODY_BYTES_MAX {
        return format.decode(&body);
    }
    let decoded = tokio::task::spawn_blocking(move || format.decode(&body)).await;
    decoded.unwrap_or(Err(Failure::BodyIncomplete))
}

/// The time as the push time metrics show it; a clock before 1970 counts as 1970.
fn unix_seconds(time: SystemTime) -> UnixSeconds {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
