//! Summaries with quantiles over a sliding window, which the `prometheus` crate does not have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// The quantiles that a Pushgateway exposes.
const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];
/// Observations older than this do not count, as with client_golang's defaults.
const WINDOW: Duration = Duration::from_mins(10);
/// Parts that the window forgets one at a time.
const PARTS: u32 = 5;
/// Precision of a quantile.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Summaries of one name, one for each value of one label. Clones share their state.
#[derive(Clone)]
pub(super) struct SummaryVec {
    desc: Desc,
    label: &'static str,
    /// The unit in which observations are counted.
    resolution: f64,
    /// Held for one observation or one copy, never across an await.
    children: Arc<Mutex<BTreeMap<&'static str, Child>>>,
}

struct Child {
    count: u64,
    sum: f64,
    /// The parts of the window, newest first, each with its beginning.
    parts: Vec<(Instant, Histogram<u64>)>,
}

impl SummaryVec {
    pub(super) fn new(name: &str, help: &str, label: &'static str, resolution: f64) -> Self {
        let desc = Desc::new(
            name.to_owned(),
            help.to_owned(),
            vec![label.to_owned()],
            std::collections::HashMap::new(),
        );
        Self { desc: desc.expect("a valid name"), label, resolution, children: Arc::default() }
    }

    pub(super) fn observe(&self, label: &'static str, value: f64, now: Instant) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let child = children.entry(label).or_insert_with(|| Child {
            count: 0,
            sum: 0.0,
            parts: vec![(now, new_part())],
        });
        child.count += 1;
        child.sum += value;
        child.expire(now);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let counted = (value / self.resolution) as u64;
        // It grows as far as needed; a value beyond 2^63 says nothing about a request.
        let _ = child.parts[0].1.record(counted);
    }

    fn summary(&self, child: &mut Child, now: Instant) -> proto::Summary {
        child.expire(now);
        let mut window = new_part();
        for (_, part) in &child.parts {
            window.add(part).expect("all parts have the same bounds");
        }
        let mut summary = proto::Summary::default();
        summary.set_sample_count(child.count);
        summary.set_sample_sum(child.sum);
        let quantile = |quantile| {
            let value = match window.len() {
                0 => f64::NAN,
                _ => window.value_at_quantile(quantile) as f64 * self.resolution,
            };
            let mut out = proto::Quantile::default();
            out.set_quantile(quantile);
            out.set_value(value);
            out
        };
        summary.set_quantile(QUANTILES.map(quantile).to_vec());
        summary
    }
}

fn new_part() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("two digits are within bounds")
}

impl Child {
    fn expire(&mut self, now: Instant) {
        if now.duration_since(self.parts[0].0) >= WINDOW / PARTS {
            self.parts.insert(0, (now, new_part()));
        }
        let current = self.parts[0].0;
        self.parts.retain(|(start, _)| *start == current || now.duration_since(*start) < WINDOW);
    }
}

impl Collector for SummaryVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let now = Instant::now();
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let metric = |(value, child): (&&str, &mut Child)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(self.label.to_owned());
            pair.set_value((*value).to_owned());
            let mut metric = proto::Metric::from_label(vec![pair]);
            metric.set_summary(self.summary(child, now));
            metric
        };
        let mut family = proto::MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(proto::MetricType::SUMMARY);
        family.set_metric(children.iter_mut().map(metric).collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(summaries: &SummaryVec, now: Instant) -> (u64, Vec<f64>) {
        let mut children = summaries.children.lock().expect("not poisoned");
        let summary = summaries.summary(children.get_mut("put").expect("observed"), now);
        (summary.sample_count(), summary.get_quantile().iter().map(proto::Quantile::value).collect())
    }

    #[test]
    fn quantiles_forget_what_is_older_than_the_window() {
        let summaries = SummaryVec::new("a", "b", "method", 1.0);
        let start = Instant::now();
        for value in 1..=10 {
            summaries.observe("put", f64::from(value), start);
        }
        assert_eq!(values(&summaries, start), (10, vec![1.0, 5.0, 9.0]));
        summaries.observe("put", 1e6, start + WINDOW / 2);
        let (count, quantiles) = values(&summaries, start + WINDOW);
        assert_eq!(count, 11);
        assert!(quantiles.iter().all(|q| (q / 1e6 - 1.0).abs() < 0.01), "{quantiles:?}");
        let (count, quantiles) = values(&summaries, start + 3 * WINDOW);
        assert_eq!(count, 11);
        assert!(quantiles.iter().all(|q| q.is_nan()));
    }
}
