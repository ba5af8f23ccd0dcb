//! A snapshot as one exposition.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::group::{PUSH_FAILURE_TIME, PUSH_TIME, Snapshot};
use crate::exposition::labels::Escaping;
use crate::exposition::text::encode::{encode_header, encode_metric};
use crate::exposition::{Metric, MetricFamily, MetricType};

/// How names outside the legacy alphabet are written.
const ESCAPING: Escaping = Escaping::Underscores;

/// Appends everything as text 0.0.4: families by name; in each the metrics by number of labels and then by label values, as
/// client_golang orders them. `own` families stand beside pushed ones of the same name, with their own help.
pub fn expose(out: &mut Vec<u8>, snapshot: &Snapshot, own: &[MetricFamily]) {
    let mut families: BTreeMap<&str, Merged<'_>> = BTreeMap::new();
    for (name, groups) in &snapshot.families {
        let oldest =
            groups.values().min_by_key(|stored| stored.since).expect("no name is kept without group");
        let metrics = groups.values().flat_map(|stored| &stored.family.metrics).collect();
        let (help, kind) = (oldest.family.help.as_deref(), oldest.family.kind);
        families.insert(name, Merged { help, kind, metrics });
    }
    for family in own {
        let merged = families.entry(&family.name).or_insert(Merged {
            help: None,
            kind: family.kind,
            metrics: Vec::new(),
        });
        merged.help = family.help.as_deref();
        merged.metrics.extend(&family.metrics);
    }
    if !snapshot.groups.is_empty() {
        let groups = || snapshot.groups.values();
        families.insert(PUSH_TIME.0, timestamps(PUSH_TIME.1, groups().map(|group| &*group.push_time)));
        families.insert(
            PUSH_FAILURE_TIME.0,
            timestamps(PUSH_FAILURE_TIME.1, groups().map(|group| &*group.push_failure_time)),
        );
    }
    for (name, mut family) in families {
        if family.metrics.is_empty() {
            continue;
        }
        family.metrics.sort_by(|a, b| order(a, b));
        encode_header(out, name, family.help.filter(|help| !help.is_empty()), family.kind, ESCAPING);
        for metric in family.metrics {
            encode_metric(out, name, metric, ESCAPING);
        }
    }
}

struct Merged<'a> {
    help: Option<&'a str>,
    kind: MetricType,
    metrics: Vec<&'a Metric>,
}

fn timestamps<'a>(help: &'static str, metrics: impl Iterator<Item = &'a Metric>) -> Merged<'a> {
    Merged { help: Some(help), kind: MetricType::Gauge, metrics: metrics.collect() }
}

fn order(a: &Metric, b: &Metric) -> Ordering {
    let values = |metric: &Metric| metric.labels.len();
    values(a)
        .cmp(&values(b))
        .then_with(|| a.labels.iter().map(|(_, value)| value).cmp(b.labels.iter().map(|(_, value)| value)))
}
