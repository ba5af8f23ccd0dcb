//! A snapshot as one exposition.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::group::{PUSH_FAILURE_TIME, PUSH_TIME, Snapshot};
use crate::exposition::{ExposedFamily, Format, Metric, MetricFamily, MetricType};

/// Appends everything: families by name; in each the metrics by number of labels and then by label values, as client_golang
/// orders them. `own` families stand beside pushed ones of the same name, with their own help.
pub fn expose(out: &mut Vec<u8>, snapshot: &Snapshot, own: &[MetricFamily], format: Format) {
    let mut families: BTreeMap<&str, ExposedFamily<'_>> = BTreeMap::new();
    for (name, groups) in &snapshot.families {
        let oldest =
            groups.values().min_by_key(|stored| stored.since).expect("no name is kept without group");
        let metrics = groups.values().flat_map(|stored| &stored.family.metrics).collect();
        families.insert(name, ExposedFamily { metrics, ..ExposedFamily::head(&oldest.family) });
    }
    for family in own {
        let head = ExposedFamily::head(family);
        let help = head.help;
        let merged = families.entry(&family.name).or_insert(head);
        merged.help = help;
        merged.metrics.extend(&family.metrics);
    }
    if !snapshot.groups.is_empty() {
        let groups = || snapshot.groups.values();
        let push_times = groups().map(|group| &*group.push_time);
        let push_failure_times = groups().map(|group| &*group.push_failure_time);
        families.insert(PUSH_TIME.0, timestamps(PUSH_TIME, push_times));
        families.insert(PUSH_FAILURE_TIME.0, timestamps(PUSH_FAILURE_TIME, push_failure_times));
    }
    for mut family in families.into_values().filter(|family| !family.metrics.is_empty()) {
        family.metrics.sort_by(|a, b| order(a, b));
        format.encode(out, family);
    }
    format.finish(out);
}

fn timestamps<'a>(
    (name, help): (&'static str, &'static str),
    metrics: impl Iterator<Item = &'a Metric>,
) -> ExposedFamily<'a> {
    ExposedFamily { name, help: Some(help), unit: None, kind: MetricType::Gauge, metrics: metrics.collect() }
}

fn order(a: &Metric, b: &Metric) -> Ordering {
    let values = |metric: &Metric| metric.labels.len();
    values(a)
        .cmp(&values(b))
        .then_with(|| a.labels.iter().map(|(_, value)| value).cmp(b.labels.iter().map(|(_, value)| value)))
}
