//! PUT, POST and DELETE of a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::http::request::Parts;

use super::{Answer, empty};
use crate::config::{Consistency, Limits};
use crate::exposition::protobuf::DecodeError;
use crate::exposition::text::error::LineError;
use crate::exposition::{Exceeded, MetricFamily, Rules, Validation, protobuf, text};
use crate::gateway::access::{Identity, Scope};
use crate::gateway::encoding::Encoding;
use crate::gateway::error::Failure;
use crate::gateway::load::HeldBytes;
use crate::gateway::negotiate::is_protobuf;
use crate::gateway::now;
use crate::gateway::peer::Peer;
use crate::gateway::promises::{Asked, PushRule, PushRules};
use crate::gateway::server::Shared;
use crate::grouping::{GroupingKey, JOB_LABEL};
use crate::run::RunOutcome;
use crate::store::{
    Change, Made, Push, PushMode, PushingRun, Run, Store, StoreError, Wishes, is_of_progress,
};

/// Bodies from this size on are read and judged on a thread of their own, so that they delay nobody.
const INLINE_BODY_BYTES_MAX: usize = 64 * 1024;
/// What a request has beside the id of a group, at least.
const REST_OF_HEAD_BYTES: usize = 1024;

/// Makes a push: 200 and nothing when it is in the next scrape; 202 where nobody wants to hear of contradictions.
pub(in crate::gateway) async fn push(
    shared: &Shared,
    key: GroupingKey,
    mode: PushMode,
    head: &Parts,
    body: Incoming,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let asked = Asked::of(head.uri.query())?;
    if !asked.group_by.is_empty() {
        let problem = "it is for PUT /metrics; this path names its group".to_owned();
        let value = asked.group_by.join(",");
        return Err(Failure::BadParameter { name: "group_by".to_owned(), value, problem });
    }
    let rule = shared.rules.of(&key);
    let wishes = shared.rules.wishes(rule, &asked);
    let mut reading = Reading::of(shared, head);
    reading.series_max_of_rule = rule.and_then(|rule| rule.series_max);
    let mut room = shared.writes.bodies.hold();
    let bytes_max = rule.and_then(|rule| rule.body_bytes_max).filter(|max| *max < shared.limits.body_bytes);
    let too_large = |failure| match (failure, bytes_max) {
        (Failure::BodyTooLarge(_), Some(max)) => Failure::BodyTooLargeForRule(max),
        (failure, _) => failure,
    };
    let body = read(body, bytes_max, &shared.limits, &mut room).await.map_err(too_large)?;
    let is_small = reading.is_small(&body);
    let store = shared.store.clone();
    let work = move || reading.make(&store, body, Aim { key, mode, asked, wishes });
    let change = if is_small { work()? } else { shared.writes.heavy.run(peer, work).await?? };
    taken(shared, change).await
}

/// Answers a push when it is as durable as the store makes it.
async fn taken(shared: &Shared, change: Made) -> Result<Answer, Failure> {
    shared.store.durable(change).await?;
    shared.telemetry.left_out(change.left_out);
    Ok(empty(match shared.consistency {
        Consistency::Checked => StatusCode::OK,
        Consistency::Quarantined => StatusCode::ACCEPTED,
    }))
}

/// Replaces the groups that labels of the metrics name, all of them or none.
pub(in crate::gateway) async fn push_together(
    shared: &Shared,
    identity: &Identity,
    head: &Parts,
    body: Incoming,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let asked = Asked::of(head.uri.query())?;
    let reading = Reading::of(shared, head);
    let mut room = shared.writes.bodies.hold();
    let body = read(body, None, &shared.limits, &mut room).await?;
    let is_small = reading.is_small(&body);
    let (store, rules, identity) = (shared.store.clone(), shared.rules.clone(), identity.clone());
    let work = move || {
        let pushes = reading.pushes(&rules, &identity, body, &asked)?;
        Ok::<_, Failure>(store.make(Change::Together(pushes))?)
    };
    let change = if is_small { work()? } else { shared.writes.heavy.run(peer, work).await?? };
    taken(shared, change).await
}

/// Deletes a group: 202 and nothing, whether there was one or not.
pub(in crate::gateway) async fn delete(store: &Store, key: GroupingKey) -> Result<Answer, Failure> {
    store.durable(store.make(Change::Delete(vec![key]))?).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Reads a body as far as it may be held.
async fn read(
    body: Incoming,
    bytes_max: Option<usize>,
    limits: &Limits,
    held: &mut HeldBytes,
) -> Result<Bytes, Failure> {
    let bytes_max = bytes_max.unwrap_or(limits.body_bytes);
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Failure::BodyTooLarge(bytes_max));
    }
    let reading = read_frames(body, bytes_max, held);
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
    /// Series of one push that a rule allows its group.
    series_max_of_rule: Option<usize>,
}

/// What a push is to become.
struct Aim {
    key: GroupingKey,
    mode: PushMode,
    asked: Asked,
    wishes: Wishes,
}

impl Reading {
    fn of(shared: &Shared, head: &Parts) -> Self {
        Self {
            encoding: Encoding::of(&head.headers),
            is_protobuf: is_protobuf(&head.headers),
            names: shared.layout.names,
            limits: shared.limits.clone(),
            series_max_of_rule: None,
        }
    }

    /// Whether it is read in no time. A compressed body may become thousands of times as large.
    fn is_small(&self, body: &Bytes) -> bool {
        self.encoding == Encoding::Identity && body.len() <= INLINE_BODY_BYTES_MAX
    }

    fn families(&self, body: &[u8]) -> Result<Vec<MetricFamily>, Failure> {
        let of_rule = self.series_max_of_rule.filter(|max| *max < self.limits.push_series);
        let limits = crate::exposition::Limits {
            samples: of_rule.unwrap_or(self.limits.push_series),
            labels: self.limits.series_labels,
            name_bytes: self.limits.name_bytes,
            label_value_bytes: self.limits.label_value_bytes,
        };
        let too_many = |exceeded: &Exceeded| {
            of_rule.filter(|_| *exceeded == Exceeded::Samples).map(Failure::TooManySeriesForRule)
        };
        if self.is_protobuf {
            protobuf::decode(body, &limits).map_err(|error| match &error {
                DecodeError::TooMuch(exceeded) if let Some(failure) = too_many(exceeded) => failure,
                _ => Failure::protobuf(error, &self.limits),
            })
        } else {
            let rules = Rules { validation: self.names, limits };
            text::parse(body, rules).map_err(|error| match &error.error {
                LineError::TooMuch(exceeded) if let Some(failure) = too_many(exceeded) => failure,
                _ => Failure::text(error, &self.limits),
            })
        }
    }

    /// Reads a body and makes the push that it is.
    fn make(&self, store: &Store, body: Bytes, aim: Aim) -> Result<Made, Failure> {
        let Aim { key, mode, asked, wishes } = aim;
        let families = self.inflated_families(body);
        // Not before its turn has come: a push that is larger must not seem to be older than one that overtook it.
        let at = now();
        let families = match families {
            Ok(families) => families,
            Err(failure) => {
                // What can be read and cannot be stored is noted in its group.
                let fault = failure.inconsistent()?.in_group(key.labels());
                // It need not be on disk before it is told.
                let _ = store.make(Change::Failed { key, at: at.unix })?;
                return Err(StoreError::Inconsistent(fault).into());
            }
        };
        self.check_labels(&key, &families)?;
        let ongoing = asked.run_id.filter(|_| is_of_progress(&families));
        let run = Run::of_push(asked.run_id, asked.run_outcome, &families);
        let mut push = Push::new(key, families, mode, at);
        push.wishes = wishes;
        match &run {
            Some(run) if run.outcome == RunOutcome::Skipped => {
                // The push that was promised comes from a run.
                push.wishes.expect = wishes.expect.of_another();
            }
            Some(run) => {
                let ended_at = Some(at.unix.before(asked.run_age));
                push.run = Some(PushingRun { id: run.id, ended_at });
            }
            None => push.run = ongoing.map(|id| PushingRun { id, ended_at: None }),
        }
        push.runs = asked.earlier_runs.into_iter().chain(run).collect();
        Ok(store.make(Change::Push(push))?)
    }

    /// Reads the pushes that a body is.
    fn pushes(
        &self,
        rules: &PushRules,
        identity: &Identity,
        body: Bytes,
        asked: &Asked,
    ) -> Result<Vec<Push>, Failure> {
        let groups = divided(self.inflated_families(body)?, &asked.group_by)?;
        let at = now();
        let mut pushes = Vec::with_capacity(groups.len());
        for (key, families) in groups {
            let rule = rules.of(&key);
            let judged = self.judge_one_of_many(&key, &families, rule, identity);
            judged.map_err(|failure| Failure::OfGroup { key: key.clone(), failure: Box::new(failure) })?;
            let mut push = Push::new(key, families, PushMode::ReplaceGroup, at);
            push.wishes = rules.wishes(rule, asked);
            pushes.push(push);
        }
        Ok(pushes)
    }

    fn judge_one_of_many(
        &self,
        key: &GroupingKey,
        families: &[MetricFamily],
        rule: Option<&PushRule>,
        identity: &Identity,
    ) -> Result<(), Failure> {
        key.judge(self.names)?;
        identity.may(Scope::Push, Some(key))?;
        self.check_labels(key, families)?;
        let series: usize = families.iter().map(|family| family.metrics.len()).sum();
        let too_many = rule.and_then(|rule| rule.series_max).filter(|max| series > *max);
        too_many.map_or(Ok(()), |max| Err(Failure::TooManySeriesForRule(max)))
    }

    fn check_labels(&self, key: &GroupingKey, families: &[MetricFamily]) -> Result<(), Failure> {
        // Its id takes four bytes for three, and comes in the line of a request, beside some headers.
        let name_bytes = key.labels().text_bytes().saturating_mul(4) / 3;
        if name_bytes.saturating_add(REST_OF_HEAD_BYTES) > self.limits.header_bytes {
            return Err(Failure::GroupNameTooLarge(self.limits.header_bytes));
        }
        let metrics: usize = families.iter().map(|family| family.metrics.len()).sum();
        if metrics.saturating_mul(key.labels().text_bytes()) > self.limits.push_label_bytes {
            return Err(Failure::GroupLabelsTooLarge(self.limits.push_label_bytes));
        }
        Ok(())
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

/// Divides metrics by the values of some labels. A label without value is none, but for the job.
fn divided(
    families: Vec<MetricFamily>,
    names: &[String],
) -> Result<BTreeMap<GroupingKey, Vec<MetricFamily>>, Failure> {
    let mut groups: BTreeMap<GroupingKey, Vec<MetricFamily>> = BTreeMap::new();
    for family in families {
        let mut of_family: BTreeMap<GroupingKey, MetricFamily> = BTreeMap::new();
        let head = MetricFamily {
            help: family.help.clone(),
            unit: family.unit.clone(),
            ..MetricFamily::new(family.name.clone(), family.kind)
        };
        for metric in family.metrics {
            let value = |name: &str| metric.labels.get(name).filter(|value| !value.is_empty());
            let job = value(JOB_LABEL).ok_or_else(|| Failure::NoGroup(head.name.clone()))?;
            let labels = names.iter().filter_map(|name| Some((name.as_str(), value(name)?)));
            let key = GroupingKey::new(job, labels);
            of_family.entry(key).or_insert_with(|| head.clone()).metrics.push(metric);
        }
        for (key, family) in of_family {
            groups.entry(key).or_default().push(family);
        }
    }
    Ok(groups)
}
