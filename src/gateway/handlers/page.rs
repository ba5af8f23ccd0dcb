//! The page for people: what is stored, group by group, and how the gateway was started.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::api_v1::{own_time, rfc3339};
use super::{Answer, HTML, answer};
use crate::exposition::family::{Histogram, Summary};
use crate::exposition::series::INSTANCE_LABEL;
use crate::exposition::{Metric, MetricFamily, Value};
use crate::gateway::error::Failure;
use crate::gateway::peer::Peer;
use crate::gateway::route::Misroute;
use crate::gateway::server::{About, Shared};
use crate::grouping::JOB_LABEL;
use crate::run::RunOutcome;
use crate::store::{Group, GroupState, OwnNames, Run, Runs, Snapshot, UnixNanos};

/// Groups on one page.
const GROUPS_A_PAGE: usize = 500;
/// Runs of a group that are shown; the API has more.
const RUNS_SHOWN: usize = 10;

/// Parts of the page, by their names below `/static/`.
const ASSETS: [(&str, &str, &str); 3] = [
    ("page.css", "text/css; charset=utf-8", include_str!("../ui/page.css")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("../ui/page.js")),
    ("favicon.svg", "image/svg+xml", include_str!("../ui/favicon.svg")),
];

/// A part of the page.
pub(in crate::gateway) fn asset(name: &str) -> Result<Answer, Failure> {
    let asset = ASSETS.iter().find(|(known, ..)| *known == name);
    let (_, content_type, text) = asset.ok_or(Failure::Misroute(Misroute::NotFound))?;
    Ok(answer(StatusCode::OK, content_type, *text))
}

/// The page; `query` may say which one of many.
pub(in crate::gateway) async fn page(
    shared: &Shared,
    snapshot: Snapshot,
    query: Option<&str>,
    peer: &Peer,
) -> Result<Answer, Failure> {
    let wanted =
        query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("page="));
    let number = wanted.and_then(|number| number.parse().ok()).unwrap_or(1);
    let about = [
        vec![("Started", rfc3339(shared.about.start))],
        // What a Go program would have more to say about.
        About::build()
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.to_owned()))
            .collect(),
    ]
    .concat();
    let view = View {
        // Links go on working behind a proxy that strips a path.
        base: shared.layout.paths.external.clone().unwrap_or_else(|| ".".to_owned()),
        telemetry: shared.layout.paths.telemetry.clone(),
        admin: shared.layout.admin,
        about,
        flags: shared.about.flags.iter().map(|(name, value)| (*name, value.clone())).collect(),
        number,
    };
    let html = shared.reads.heavy.run(peer, move || view.html(&snapshot).into_string()).await?;
    Ok(answer(StatusCode::OK, HTML, html))
}

struct View {
    base: String,
    telemetry: String,
    admin: bool,
    about: Vec<(&'static str, String)>,
    flags: Vec<(&'static str, String)>,
    number: usize,
}

impl View {
    fn html(&self, snapshot: &Snapshot) -> Markup {
        let total = snapshot.len();
        let pages = total.div_ceil(GROUPS_A_PAGE).max(1);
        let number = self.number.clamp(1, pages);
        let groups = snapshot.groups().skip((number - 1) * GROUPS_A_PAGE).take(GROUPS_A_PAGE);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="robots" content="noindex,nofollow";
                    title { "jobmon gateway" }
                    link rel="icon" href={ (self.base) "/static/favicon.svg" };
                    link rel="stylesheet" href={ (self.base) "/static/page.css" };
                    script src={ (self.base) "/static/page.js" } defer {}
                }
                body data-base=(self.base) {
                    header {
                        strong { "jobmon gateway" }
                        nav {
                            a href="#groups" { "Groups" }
                            a href="#status" { "Status" }
                            a href={ (self.base) (self.telemetry) } { "Exposition" }
                            a href="https://prometheus.io/docs/practices/pushing/" { "Help" }
                        }
                    }
                    main {
                        section #groups {
                            h1 { "Groups " span .count { (total) } }
                            @if self.admin && total > 0 {
                                button .danger data-wipe=(total) { "Delete all " (total) " groups" }
                            }
                            @if total == 0 {
                                p .empty { "Nothing has been pushed yet." }
                            }
                            @for group in groups { (self::group(snapshot, group)) }
                            @if pages > 1 { (pager(number, pages)) }
                        }
                        section #status {
                            h1 { "Status" }
                            (rows(&self.about))
                            h2 { "Flags" }
                            (rows(&self.flags))
                        }
                    }
                    p #notice role="status" hidden {}
                }
            }
        }
    }
}

fn group(snapshot: &Snapshot, group: &Group) -> Markup {
    html! {
        details .group {
            summary {
                @for (name, value) in labels_in_order(group) {
                    span .label.(if name == JOB_LABEL || name == INSTANCE_LABEL { "main" } else { "other" }) { (name) "=\"" (value) "\"" }
                }
                (state(group))
                @if let Some(run) = group.runs().and_then(Runs::newest) { (last_run(run)) }
                span .when { "last pushed: " (if group.has_succeeded() { rfc3339(group.succeeded_at) } else { "never".to_owned() }) }
            }
            button .danger data-group=(group.key.to_base64_path()) { "Delete group" }
            @if let Some(runs) = group.runs() { (self::runs(runs)) }
            @for (own, own_family) in snapshot.own_of(group) { (family(&own_family, own_time(own, group), None)) }
            @for stored in group.families() {
                (family(&stored.to_family(&group.key), stored.said_at, stored.aside().map(ToString::to_string).as_deref()))
            }
        }
    }
}

/// The job comes first, then the instance.
fn labels_in_order(group: &Group) -> Vec<(&str, &str)> {
    let mut labels: Vec<_> = group.key.labels().iter().collect();
    labels.sort_by_key(|(name, _)| match *name {
        JOB_LABEL => 0,
        INSTANCE_LABEL => 1,
        _ => 2,
    });
    labels
}

fn rows(rows: &[(&'static str, String)]) -> Markup {
    html! {
        table { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } }
    }
}

fn pager(number: usize, pages: usize) -> Markup {
    html! {
        nav .pager {
            @if number > 1 { a rel="prev" href={ "?page=" (number - 1) } { "Previous" } }
            span { "Page " (number) " of " (pages) }
            @if number < pages { a rel="next" href={ "?page=" (number + 1) } { "Next" } }
        }
    }
}

/// What somebody should know who looks at a group.
fn state(group: &Group) -> Markup {
    let until = |what: &str, at: Option<UnixNanos>| format!("{what} {}", at.map(rfc3339).unwrap_or_default());
    html! {
        @match group.state() {
            GroupState::Failed => span .failed { "Last push failed!" },
            GroupState::Overdue => span .failed title=(until("expected by", group.expected_at())) { "Overdue" },
            GroupState::Expired => span .expired title=(until("since", group.expires_at())) { "Expired" },
            GroupState::Up => span .up title=(until("next push by", group.expected_at())) { "In time" },
            GroupState::Unpromised => {},
        }
    }
}

/// How the last run ended: pushes may come in time from a job that fails.
fn last_run(run: &Run) -> Markup {
    let ended = format!("at {}, after {}", rfc3339(run.ended_at()), length(run.duration_seconds));
    html! {
        @if run.is_success() { span .up title=(ended) { "Last run succeeded" } }
        @else { span .failed title=(ended) { "Last run: " (outcome(run)) } }
    }
}

fn outcome(run: &Run) -> String {
    match run.outcome {
        RunOutcome::Success => "succeeded".to_owned(),
        RunOutcome::Failure => format!("failed with exit code {}", run.exit_code),
        RunOutcome::Timeout => "took too long".to_owned(),
        RunOutcome::Signal => "ended by a signal".to_owned(),
        RunOutcome::Oom => "killed for want of memory".to_owned(),
        RunOutcome::Skipped => "skipped".to_owned(),
    }
}

/// The last runs, the last one first.
fn runs(runs: &Runs) -> Markup {
    let last = runs.last().rev().take(RUNS_SHOWN);
    html! {
        details .runs {
            summary { "Last runs" span .when { (runs.total()) " since the group came to be" } }
            table {
                thead { tr { @for title in ["End", "Outcome", "Exit code", "Duration"] { th scope="col" { (title) } } } }
                tbody {
                    @for run in last {
                        tr {
                            td { (rfc3339(run.ended_at())) }
                            td .reason[!run.is_success()] { (outcome(run)) }
                            td { (run.exit_code) }
                            td { (length(run.duration_seconds)) }
                        }
                    }
                }
            }
        }
    }
}

/// A length of time as people say it: milliseconds matter only in the first minute.
fn length(seconds: f64) -> String {
    let exact = Duration::from_secs_f64(seconds);
    let millis = if exact.as_secs() < 60 { exact.subsec_millis() } else { 0 };
    humantime::format_duration(Duration::new(exact.as_secs(), millis * 1_000_000)).to_string()
}

fn family(family: &MetricFamily, at: UnixNanos, quarantined: Option<&str>) -> Markup {
    html! {
        details .family {
            summary {
                code { (family.name) }
                span .type { (family.kind.proto_name()) }
                @if quarantined.is_some() { span .failed { "Not exposed" } }
                span .when { "last pushed: " (rfc3339(at)) }
            }
            @if let Some(help) = &family.help { p .help { (help) } }
            @if let Some(reason) = quarantined { p .reason { (reason) } }
            table {
                thead { tr { th scope="col" { "Labels" } th scope="col" { "Value" } } }
                tbody { @for metric in &family.metrics { tr { td { (labels(metric)) } td { (value(&metric.value)) (clock(family, &metric.value)) } } } }
            }
        }
    }
}

/// What a Unix time means to people, of a metric that is one by its name.
fn clock(family: &MetricFamily, value: &Value) -> Markup {
    let is_time = family.name.ends_with("_timestamp_seconds") || OwnNames::is_time(&family.name);
    let (Value::Gauge(seconds) | Value::Untyped(seconds)) = *value else { return html! {} };
    html! { @if is_time && seconds > 0.0 { " " span .clock { (rfc3339(UnixNanos::of_seconds(seconds))) } } }
}

fn labels(metric: &Metric) -> Markup {
    html! { @for (name, value) in metric.labels.iter() { span .label { (name) "=\"" (value) "\"" } } }
}

fn value(value: &Value) -> Markup {
    match value {
        Value::Counter(counter) => html! { (number(counter.value)) },
        Value::Gauge(value) | Value::Untyped(value) => html! { (number(*value)) },
        Value::Summary(summary) => summary_table(summary),
        Value::Histogram(histogram) => histogram_table(histogram),
    }
}

fn summary_table(summary: &Summary) -> Markup {
    html! {
        table {
            @for quantile in &summary.quantiles {
                tr { th scope="row" { "Quantile " (number(quantile.quantile)) } td { (number(quantile.value)) } }
            }
            tr { th scope="row" { "Sample count" } td { (summary.count) } }
            tr { th scope="row" { "Sample sum" } td { (number(summary.sum)) } }
        }
    }
}

fn histogram_table(histogram: &Histogram) -> Markup {
    html! {
        table {
            @for bucket in &histogram.buckets {
                tr { th scope="row" { "Bucket " (number(bucket.upper_bound)) } td { (number(bucket.cumulative.as_f64())) } }
            }
            @if let Some(native) = &histogram.native {
                @for bucket in native.buckets() {
                    tr { th scope="row" { "Bucket " (number(bucket.lower)) " to " (number(bucket.upper)) } td { (number(bucket.count)) } }
                }
            }
            tr { th scope="row" { "Sample count" } td { (number(histogram.count.as_f64())) } }
            tr { th scope="row" { "Sample sum" } td { (number(histogram.sum)) } }
        }
    }
}

/// A number without exponent, as people write it.
fn number(value: f64) -> String {
    let mut text = String::new();
    let _ = match value {
        value if value.is_nan() => write!(text, "NaN"),
        value if value.is_infinite() => write!(text, "{}Inf", if value > 0.0 { '+' } else { '-' }),
        value => write!(text, "{value}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_exponent() {
        for (value, text) in
            [(1e21, "1000000000000000000000"), (1e-7, "0.0000001"), (-0.5, "-0.5"), (5.0, "5")]
        {
            assert_eq!(number(value), text);
        }
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(number), ["NaN", "+Inf", "-Inf"]);
    }
}
