//! The gateway's own metrics: one struct, one registry, passed in. Names are those of the Pushgateway, so that
//! dashboards and alerts go on working.

use std::collections::HashMap;
use std::time::Instant;

use hyper::{Method, StatusCode};
use prometheus::core::Collector as _;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::summary::SummaryVec;
use crate::exposition::{MetricFamily, MetricType, registry};
use crate::store::Snapshot;

const REQUESTS: &str = "pushgateway_http_requests_total";
const PUSH_DURATION: &str = "pushgateway_http_push_duration_seconds";
const PUSH_SIZE: &str = "pushgateway_http_push_size_bytes";

/// The metrics that the handlers feed.
#[derive(Clone)]
pub struct Telemetry {
    registry: Registry,
    requests: IntCounterVec,
    push_duration: SummaryVec,
    push_size: SummaryVec,
    left_out: IntCounter,
    writable: IntGauge,
}

impl Telemetry {
    /// A registry with every metric in it.
    ///
    /// # Panics
    /// Never: the names are constant and differ.
    pub fn new() -> Self {
        let requests = IntCounterVec::new(
            Opts::new(REQUESTS, "Total HTTP requests processed by the Pushgateway, excluding scrapes."),
            &["code", "handler", "method"],
        )
        .expect("a valid name");
        let push_duration = SummaryVec::new(
            PUSH_DURATION,
            "HTTP request duration for pushes to the Pushgateway.",
            "method",
            1e-6,
        );
        let push_size =
            SummaryVec::new(PUSH_SIZE, "HTTP request size for pushes to the Pushgateway.", "method", 1.0);
        let registry = Registry::new();
        let register = |collector: Box<dyn prometheus::core::Collector>| {
            registry.register(collector).expect("no name is registered twice");
        };
        register(Box::new(requests.clone()));
        register(Box::new(push_duration.clone()));
        register(Box::new(push_size.clone()));
        let left_out = IntCounter::new(
            "jobmon_gateway_left_out_families_total",
            "Metric families left out of pushes that were taken, because only the gateway itself exposes their names.",
        )
        .expect("a valid name");
        register(Box::new(left_out.clone()));
        let writable = IntGauge::new(
            "jobmon_gateway_store_writable",
            "Whether pushes can be stored: 0 while the journal cannot be written.",
        )
        .expect("a valid name");
        register(Box::new(writable.clone()));
        register(Box::new(build_info()));
        register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        Self { registry, requests, push_duration, push_size, left_out, writable }
    }

    /// Everything as it is now, beside a state of the store.
    pub fn gather(&self, snapshot: &Snapshot, is_writable: bool) -> Vec<MetricFamily> {
        self.writable.set(is_writable.into());
        registry::families(&[self.registry.gather(), quarantined(snapshot).collect()].concat())
    }

    /// Names and types that pushed families must not contradict.
    pub fn own_types(&self) -> HashMap<String, MetricType> {
        // A vector without a child gathers nothing, so those are named here.
        let mut types: HashMap<_, _> = self
            .gather(&Snapshot::default(), true)
            .into_iter()
            .map(|family| (family.name, family.kind))
            .collect();
        types.extend([
            (REQUESTS.to_owned(), MetricType::Counter),
            (PUSH_DURATION.to_owned(), MetricType::Summary),
            (PUSH_SIZE.to_owned(), MetricType::Summary),
        ]);
        types
    }

    /// Notes families that a push had, and that were left out.
    pub fn left_out(&self, families: usize) {
        self.left_out.inc_by(families as u64);
    }

    /// Notes an answered request.
    pub fn request(&self, handler: &str, method: &Method, code: StatusCode) {
        self.requests.with_label_values(&[code.as_str(), handler, lower_case(method)]).inc();
    }

    /// Notes a push that has just been answered: when it began, and about how large the whole request was.
    pub fn push(&self, method: &Method, start: Instant, bytes: u64) {
        let (method, now) = (lower_case(method), Instant::now());
        self.push_duration.observe(method, (now - start).as_secs_f64(), now);
        self.push_size.observe(method, bytes as f64, now);
    }
}

/// The methods that have a handler.
fn lower_case(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::POST => "post",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// Of the state that is looked at: who may see some groups only must not find in it what another one has just been told.
fn quarantined(snapshot: &Snapshot) -> IntGauge {
    let families = IntGauge::new(
        "jobmon_gateway_quarantined_families",
        "Metric families of groups that are not exposed, because others contradict them.",
    );
    let families = families.expect("a valid name");
    families.set(i64::try_from(snapshot.aside).unwrap_or(i64::MAX));
    families
}

fn build_info() -> prometheus::IntGaugeVec {
    let labels = ["branch", "goarch", "goos", "goversion", "revision", "tags", "version"];
    let info = prometheus::IntGaugeVec::new(
        Opts::new(
            "pushgateway_build_info",
            "A metric with a constant '1' value labeled by version, revision, branch, goversion from which \
             pushgateway was built, and the goos and goarch for the build.",
        ),
        &labels,
    )
    .expect("a valid name");
    info.with_label_values(&[
        "",
        std::env::consts::ARCH,
        std::env::consts::OS,
        "",
        "",
        "jobmon",
        env!("CARGO_PKG_VERSION"),
    ])
    .set(1);
    info
}
