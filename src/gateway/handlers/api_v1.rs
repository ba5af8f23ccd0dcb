//! The JSON of `/api/v1`, in the Pushgateway's shapes: numbers are strings in Go's form, times are RFC 3339.

use std::collections::BTreeMap;

use chrono::{DateTime, Local, SecondsFormat};
use hyper::StatusCode;
use hyper::header::{ACCESS_CONTROL_ALLOW_METHODS, CACHE_CONTROL, HeaderName, HeaderValue};
use serde::Serialize;

use super::{Answer, answer, empty};
use crate::exposition::family::{Bucket, Histogram, NativeHistogram, Quantile};
use crate::exposition::native::NativeBucket;
use crate::exposition::text::go::format_signed_float;
use crate::exposition::{Labels, Metric, MetricFamily, Value};
use crate::gateway::error::Failure;
use crate::gateway::load::Heavy;
use crate::gateway::peer::Peer;
use crate::gateway::server::About;
use crate::store::{Group, Own, Snapshot, UnixNanos};

/// What browsers are told about who may use the API from where.
const CORS: [(&str, &str); 4] = [
    ("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin"),
    ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "Date"),
];

/// What a browser asks before it uses the API. What a Pushgateway says allows nothing that changes anything there; what it does
/// not have, groups to be deleted, is for other sites to look at only.
pub(in crate::gateway) fn options(is_of_pushgateway: bool) -> Answer {
    let mut answer = with_cors(empty(StatusCode::OK));
    if !is_of_pushgateway {
        answer
            .headers_mut()
            .insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    }
    answer
}

/// Build, flags and start of the gateway.
pub(in crate::gateway) fn status(about: &About) -> Answer {
    json(&BTreeMap::from([
        ("build_information", serde_json::json!(About::build())),
        ("flags", serde_json::json!(about.flags)),
        ("start_time", serde_json::json!(rfc3339(about.start))),
    ]))
}

/// All groups with their metrics, ordered by their keys.
pub(in crate::gateway) async fn metrics(
    snapshot: Snapshot,
    heavy: &Heavy,
    peer: &Peer,
) -> Result<Answer, Failure> {
    heavy
        .run(peer, move || {
            let groups: Vec<_> = snapshot.groups().map(|group| group_json(&snapshot, group)).collect();
            json(&groups)
        })
        .await
}

#[derive(Serialize)]
struct Success<'a, T> {
    status: &'static str,
    data: &'a T,
}

pub(super) fn json(data: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(&Success { status: "success", data }).expect("strings and maps of them");
    with_cors(answer(StatusCode::OK, "application/json", body))
}

pub(super) fn with_cors(mut answer: Answer) -> Answer {
    for (name, value) in CORS {
        answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let no_cache = HeaderValue::from_static("no-cache, no-store, must-revalidate");
    answer.headers_mut().insert(CACHE_CONTROL, no_cache);
    answer
}

/// A member of a group; families stand beside the rest under their names, and win over it.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Member<'a> {
    Labels(BTreeMap<&'a str, &'a str>),
    LastPushSuccessful(bool),
    Family(FamilyJson),
}

#[derive(Serialize)]
pub(super) struct FamilyJson {
    time_stamp: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    metrics: Vec<BTreeMap<&'static str, serde_json::Value>>,
    /// Why it is not exposed, which a Pushgateway does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantined: Option<String>,
}

fn group_json<'g>(snapshot: &Snapshot, group: &'g Group) -> BTreeMap<String, Member<'g>> {
    let mut members = BTreeMap::from([
        ("labels".to_owned(), Member::Labels(group.key.labels().iter().collect())),
        ("last_push_successful".to_owned(), Member::LastPushSuccessful(group.last_push_successful())),
    ]);
    members.extend(
        families_json(snapshot, group).into_iter().map(|(name, family)| (name, Member::Family(family))),
    );
    members
}

/// The families of a group by name, the store's own as well.
pub(super) fn families_json(snapshot: &Snapshot, group: &Group) -> BTreeMap<String, FamilyJson> {
    let mut members = BTreeMap::new();
    for stored in group.families() {
        let quarantined = stored.aside().map(ToString::to_string);
        let family = stored.to_family(&group.key);
        let json = FamilyJson { quarantined, ..family_json(&family, stored.said_at) };
        members.insert(family.name, json);
    }
    for (own, family) in snapshot.own_of(group) {
        let at = own_time(own, group);
        let json = family_json(&family, at);
        members.insert(family.name, json);
    }
    members
}

/// When one of the store's own families has become what it is; one that never came to be is as old as the group.
pub(super) fn own_time(own: Own, group: &Group) -> UnixNanos {
    let at = if own == Own::PushFailureTime { group.failed_at } else { group.succeeded_at };
    if at == UnixNanos::default() { group.since } else { at }
}

fn family_json(family: &MetricFamily, at: UnixNanos) -> FamilyJson {
    FamilyJson {
        time_stamp: rfc3339(at),
        kind: family.kind.proto_name(),
        help: family.help.clone().filter(|help| !help.is_empty()),
        metrics: family.metrics.iter().map(metric_json).collect(),
        quarantined: None,
    }
}

fn metric_json(metric: &Metric) -> BTreeMap<&'static str, serde_json::Value> {
    let mut json = BTreeMap::from([("labels", labels_json(&metric.labels))]);
    let mut set = |name, value: f64| json.insert(name, format_signed_float(value).into());
    match &metric.value {
        Value::Counter(counter) => drop(set("value", counter.value)),
        Value::Gauge(value) | Value::Untyped(value) => drop(set("value", *value)),
        Value::Summary(summary) => {
            set("sum", summary.sum);
            json.insert("count", summary.count.to_string().into());
            let quantile =
                |q: &Quantile| (format_signed_float(q.quantile), format_signed_float(q.value).into());
            json.insert(
                "quantiles",
                summary.quantiles.iter().map(quantile).collect::<serde_json::Map<_, _>>().into(),
            );
        }
        Value::Histogram(histogram) => {
            set("sum", histogram.sum);
            set("count", histogram.count.as_f64());
            json.insert("buckets", buckets_json(histogram));
        }
    }
    json
}

pub(super) fn labels_json(labels: &Labels) -> serde_json::Value {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.into());
    labels.iter().map(pair).collect::<serde_json::Map<_, _>>().into()
}

/// Native buckets where there are some, else the classic ones.
fn buckets_json(histogram: &Histogram) -> serde_json::Value {
    if let Some(native) = &histogram.native {
        return native_json(native);
    }
    let bucket =
        |b: &Bucket| (format_signed_float(b.upper_bound), format_signed_float(b.cumulative.as_f64()).into());
    histogram.buckets.iter().map(bucket).collect::<serde_json::Map<_, _>>().into()
}

/// `[boundaries, lower, upper, count]` for each bucket that holds something, from the lowest on.
fn native_json(native: &NativeHistogram) -> serde_json::Value {
    let bucket = |bucket: NativeBucket| {
        let boundaries = u8::from(bucket.boundaries).into();
        let texts = [bucket.lower, bucket.upper, bucket.count].map(|value| format_signed_float(value).into());
        serde_json::Value::Array(std::iter::once(boundaries).chain(texts).collect())
    };
    serde_json::Value::Array(native.buckets().into_iter().map(bucket).collect())
}

/// Go's `time.RFC3339Nano`: in local time, without zeros at the end of the fraction.
pub(in crate::gateway) fn rfc3339(at: UnixNanos) -> String {
    let text = DateTime::from_timestamp_nanos(at.0)
        .with_timezone(&Local)
        .to_rfc3339_opts(SecondsFormat::Nanos, true);
    let zone = text.rfind(['Z', '+', '-']).unwrap_or(text.len());
    let (time, zone) = text.split_at(zone);
    format!("{}{zone}", time.trim_end_matches('0').trim_end_matches('.'))
}
