//! Families gathered from a registry of the `prometheus` crate, in our model.

use prometheus::proto;

use super::family::{Bucket, Count, Histogram, Quantile, Summary};
use super::{Labels, Metric, MetricFamily, MetricType, Value};

/// Converts what [`prometheus::Registry::gather`] returns.
pub fn families(gathered: &[proto::MetricFamily]) -> Vec<MetricFamily> {
    gathered.iter().map(family).collect()
}

fn family(family: &proto::MetricFamily) -> MetricFamily {
    let kind = match family.get_field_type() {
        proto::MetricType::COUNTER => MetricType::Counter,
        proto::MetricType::GAUGE => MetricType::Gauge,
        proto::MetricType::SUMMARY => MetricType::Summary,
        proto::MetricType::UNTYPED => MetricType::Untyped,
        proto::MetricType::HISTOGRAM => MetricType::Histogram,
    };
    MetricFamily {
        help: Some(family.help().to_owned()),
        metrics: family.get_metric().iter().map(|m| metric(kind, m)).collect(),
        ..MetricFamily::new(family.name(), kind)
    }
}

fn metric(kind: MetricType, metric: &proto::Metric) -> Metric {
    let value = match kind {
        MetricType::Counter => Value::counter(metric.get_counter().get_value()),
        MetricType::Gauge => Value::Gauge(metric.get_gauge().get_value()),
        MetricType::Untyped => Value::Untyped(0.0),
        MetricType::Summary => Value::Summary(Box::new(summary(metric.get_summary()))),
        MetricType::Histogram | MetricType::GaugeHistogram => {
            Value::Histogram(Box::new(histogram(metric.get_histogram())))
        }
    };
    let labels = Labels::from_pairs(metric.get_label().iter().map(|pair| (pair.name(), pair.value())));
    Metric { labels, value, timestamp_ms: None }
}

fn summary(summary: &proto::Summary) -> Summary {
    let quantile = |q: &proto::Quantile| Quantile { quantile: q.quantile(), value: q.value() };
    Summary {
        count: summary.sample_count(),
        sum: summary.sample_sum(),
        quantiles: summary.get_quantile().iter().map(quantile).collect(),
        created: None,
    }
}

fn histogram(histogram: &proto::Histogram) -> Histogram {
    let bucket = |b: &proto::Bucket| Bucket {
        upper_bound: b.upper_bound(),
        cumulative: Count::Integer(b.cumulative_count()),
        exemplar: None,
    };
    Histogram {
        count: Count::Integer(histogram.get_sample_count()),
        sum: histogram.get_sample_sum(),
        buckets: histogram.get_bucket().iter().map(bucket).collect(),
        ..Histogram::default()
    }
}
