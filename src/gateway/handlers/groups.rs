//! The groups as things to be looked at and deleted: `/api/v1/groups`.

mod wanted;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::api_v1::{families_json, json, labels_json, rfc3339, with_cors};
use super::{Answer, answer};
use crate::gateway::access::Identity;
use crate::gateway::error::Failure;
use crate::gateway::peer::Peer;
use crate::gateway::server::Shared;
use crate::grouping::GroupingKey;
use crate::run::RunOutcome;
use crate::store::{Group, Run, Runs, Snapshot, UnixNanos};
use wanted::{Place, Wanted, is_search};

#[derive(Serialize)]
struct Page<'a> {
    groups: Vec<Summary<'a>>,
    /// What `after` is for those that follow.
    next: Option<String>,
    /// All groups there are.
    total: usize,
}

/// A group in a list.
#[derive(Serialize)]
struct Summary<'a> {
    id: String,
    labels: BTreeMap<&'a str, &'a str>,
    state: &'static str,
    last_push_successful: bool,
    push_time: Option<String>,
    push_failure_time: Option<String>,
    first_push_time: String,
    families: usize,
    series: usize,
    expect: Option<Promise>,
    ttl: Option<Promise>,
    last_run: Option<RunJson>,
}

/// A promise: for how long after a push, and until when that is now.
#[derive(Serialize)]
struct Promise {
    seconds: f64,
    until: String,
}

#[derive(Serialize)]
struct RunJson {
    id: String,
    end_time: String,
    duration_seconds: f64,
    success: bool,
    exit_code: u8,
    outcome: &'static str,
}

impl<'a> Summary<'a> {
    fn of(group: &'a Group) -> Self {
        let time = |at: UnixNanos| (at != UnixNanos::default()).then(|| rfc3339(at));
        let promise = |length: Option<Duration>, until: Option<UnixNanos>| {
            Some(Promise { seconds: length?.as_secs_f64(), until: rfc3339(until?) })
        };
        Self {
            id: group.key.to_id(),
            labels: group.key.labels().iter().collect(),
            state: group.state().name(),
            last_push_successful: group.last_push_successful(),
            push_time: time(group.succeeded_at),
            push_failure_time: time(group.failed_at),
            first_push_time: rfc3339(group.since),
            families: group.families().len(),
            series: group.series(),
            expect: promise(group.expect(), group.expected_at()),
            ttl: promise(group.ttl(), group.expires_at()),
            last_run: group.runs().and_then(Runs::newest).map(RunJson::of),
        }
    }
}

impl RunJson {
    fn of(run: &Run) -> Self {
        Self {
            id: run.id.to_string(),
            end_time: rfc3339(run.ended_at()),
            duration_seconds: run.duration_seconds,
            success: run.is_success(),
            exit_code: run.exit_code,
            outcome: run.outcome.name(),
        }
    }
}

/// A page of groups.
pub(in crate::gateway) async fn list(
    shared: &Shared,
    snapshot: Snapshot,
    query: Option<&str>,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let (query, is_search) = (query.map(str::to_owned), is_search(query));
    let work = move || {
        let wanted = Wanted::of(query.as_deref())?;
        let mut groups = wanted.page(&snapshot)?;
        let has_more = groups.len() > wanted.limit;
        groups.truncate(wanted.limit);
        let last = groups.last().filter(|_| has_more);
        let next = last.map(|last| Place::of(last, wanted.order));
        Ok(json(&Page {
            next: next.map(|next| next.to_text(wanted.order)),
            total: snapshot.len(),
            groups: groups.into_iter().map(Summary::of).collect(),
        }))
    };
    if is_search {
        shared.searches.run(peer, work).await?
    } else {
        shared.reads.heavy.run(peer, work).await?
    }
}

fn find(snapshot: &Snapshot, identity: &Identity, id: &str) -> Result<Arc<Group>, Failure> {
    let key = GroupingKey::from_id(id).ok_or(Failure::NoSuchGroup)?;
    if identity.jobs().is_some_and(|jobs| !jobs.is_match(key.job())) {
        return Err(Failure::NoSuchGroup);
    }
    snapshot.get(&key).cloned().ok_or(Failure::NoSuchGroup)
}

/// A group with its metrics.
pub(in crate::gateway) async fn one(
    shared: &Shared,
    identity: &Identity,
    id: &str,
    peer: &Peer,
) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Whole<'a, M> {
        #[serde(flatten)]
        summary: Summary<'a>,
        metrics: M,
    }
    let snapshot = shared.store.snapshot();
    let group = find(&snapshot, identity, id)?;
    let work =
        move || json(&Whole { summary: Summary::of(&group), metrics: families_json(&snapshot, &group) });
    shared.reads.heavy.run(peer, work).await
}

/// The last runs of a group, the last one first, and how many ended how.
pub(in crate::gateway) fn runs(shared: &Shared, identity: &Identity, id: &str) -> Result<Answer, Failure> {
    let snapshot = shared.store.snapshot();
    let group = find(&snapshot, identity, id)?;
    let known = group.runs();
    let mut runs: Vec<&Run> = known.into_iter().flat_map(Runs::last).collect();
    runs.sort_by(|a, b| b.end_seconds.total_cmp(&a.end_seconds));
    let count = |outcome: RunOutcome| (outcome.name(), known.map_or(0, |runs| runs.count(outcome)));
    Ok(json(&serde_json::json!({
        "id": group.key.to_id(),
        "labels": labels_json(group.key.labels()),
        "counts": BTreeMap::from(RunOutcome::ALL.map(count)),
        "runs": runs.into_iter().map(RunJson::of).collect::<Vec<_>>(),
    })))
}

/// Deletes the groups that selectors match, or tells which these are.
pub(in crate::gateway) async fn delete(
    shared: &Shared,
    identity: &Identity,
    query: Option<&str>,
    peer: &Peer,
) -> Result<Answer, Failure> {
    only_known(query)?;
    let (query, is_search) = (query.map(str::to_owned), is_search(query));
    let (snapshot, identity) = (shared.store.snapshot(), identity.clone());
    let select = move || {
        let wanted = Wanted::of(query.as_deref())?;
        wanted.judge_for_deletion()?;
        let may = |key: &GroupingKey| identity.jobs().is_none_or(|jobs| jobs.is_match(key.job()));
        let groups = snapshot.groups().filter(|group| may(&group.key)).map(|group| &**group);
        let groups: Vec<_> = wanted.selected(groups).collect::<Result<_, _>>()?;
        let keys: Vec<_> = groups.into_iter().map(|group| group.key.clone()).collect();
        Ok::<_, Failure>((wanted, keys))
    };
    let (wanted, mut keys) = if is_search {
        shared.searches.run(peer, select).await??
    } else {
        shared.writes.heavy.run(peer, select).await??
    };
    let is_dry_run = wanted.is_dry_run;
    if !is_dry_run {
        keys = delete_all(shared, &wanted, keys).await?;
    }
    // So many groups are much to tell.
    let told = move || {
        json(&Deletion {
            dry_run: is_dry_run,
            deleted: if is_dry_run { 0 } else { keys.len() },
            groups: keys
                .iter()
                .map(|key| Named { id: key.to_id(), labels: key.labels().iter().collect() })
                .collect(),
        })
    };
    shared.writes.heavy.run(peer, told).await
}

#[derive(Serialize)]
struct Deletion<'a> {
    dry_run: bool,
    deleted: usize,
    groups: Vec<Named<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    id: String,
    labels: BTreeMap<&'a str, &'a str>,
}

/// Deletes groups, some at a time, and returns which were: one that has gone or changed its state meanwhile is not.
async fn delete_all(
    shared: &Shared,
    wanted: &Wanted,
    keys: Vec<Arc<GroupingKey>>,
) -> Result<Vec<Arc<GroupingKey>>, Failure> {
    let (mut deleted, mut last) = (Vec::with_capacity(keys.len()), None);
    let mut keys = VecDeque::from(keys);
    while !keys.is_empty() {
        let (gone, made) = shared.store.delete_some(&mut keys, |group| wanted.has_state_of(group))?;
        deleted.extend(gone);
        last = Some(made);
        tokio::task::yield_now().await;
    }
    if let Some(last) = last {
        shared.store.durable(last).await?;
    }
    Ok(deleted)
}

/// Who deletes means every word: `dryrun=1` is no `dry_run=1`, and nothing comes in pages.
///
/// # Errors
/// A parameter that would be passed over.
fn only_known(query: Option<&str>) -> Result<(), Failure> {
    for (name, value) in query.into_iter().flat_map(|query| form_urlencoded::parse(query.as_bytes())) {
        if !["match[]", "match", "state", "dry_run"].contains(&&*name) {
            let problem = "a deletion knows match[], state and dry_run".to_owned();
            return Err(Failure::BadParameter {
                name: name.into_owned(),
                value: value.into_owned(),
                problem,
            });
        }
    }
    Ok(())
}

/// Tells in the API's own form what was wrong with a request.
pub(in crate::gateway) fn refusal(failure: Failure) -> Result<Answer, Failure> {
    let kind = match &failure {
        Failure::BadParameter { .. } | Failure::BodyOfDeletion => "bad_data",
        Failure::NoSuchGroup => "not_found",
        _ => return Err(failure),
    };
    let body = serde_json::json!({ "status": "error", "errorType": kind, "error": failure.to_string() });
    Ok(with_cors(answer(failure.status(), "application/json", body.to_string())))
}

/// What the API is, for machines (<https://spec.openapis.org/oas/v3.1.0>).
pub(in crate::gateway) fn open_api() -> Answer {
    with_cors(answer(StatusCode::OK, "application/json", include_str!("../openapi.json")))
}
