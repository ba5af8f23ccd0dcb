//! Metric families, the unit of every Prometheus exposition.
//!
//! The shapes follow `io.prometheus.client` (client_model's `metrics.proto`), which both formats map onto.

use super::labels::Labels;

/// All metrics of one name, with their common type and help.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricFamily {
    /// Name without the suffixes that histograms and summaries add when they are rendered.
    pub name: String,
    /// `# HELP` text, unescaped.
    pub help: Option<String>,
    /// Unit, known to protobuf only.
    pub unit: Option<String>,
    /// Type of every metric in here.
    pub kind: MetricType,
    /// The metrics, in the order they were read.
    pub metrics: Vec<Metric>,
}

impl MetricFamily {
    /// A family without help and metrics.
    pub fn new(name: impl Into<String>, kind: MetricType) -> Self {
        Self { name: name.into(), help: None, unit: None, kind, metrics: Vec::new() }
    }

    /// Gives each metric the labels that it does not have: what a sample says itself comes first.
    pub fn add_missing_labels(&mut self, labels: &Labels) {
        if labels.is_empty() {
            return;
        }
        for metric in &mut self.metrics {
            let missing = labels.iter().filter(|(name, _)| metric.labels.get(name).is_none());
            metric.labels = Labels::from_pairs(metric.labels.iter().chain(missing));
        }
    }
}

/// What a family's samples may have behind its name.
pub const SAMPLE_SUFFIXES: [&str; 3] = ["_count", "_sum", "_bucket"];

/// Type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricType {
    /// A value that only goes up.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Quantiles, a sum and a count.
    Summary,
    /// No type was given.
    Untyped,
    /// Buckets, a sum and a count.
    Histogram,
    /// A histogram whose counts may go down. The text format writes it as `histogram`.
    GaugeHistogram,
}

impl MetricType {
    /// The name of the type in `client_model`, as error texts and the JSON API spell it.
    pub fn proto_name(self) -> &'static str {
        match self {
            Self::Counter => "COUNTER",
            Self::Gauge => "GAUGE",
            Self::Summary => "SUMMARY",
            Self::Untyped => "UNTYPED",
            Self::Histogram => "HISTOGRAM",
            Self::GaugeHistogram => "GAUGE_HISTOGRAM",
        }
    }

    /// The name of the type in a `# TYPE` line.
    pub fn text_name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
            Self::Histogram | Self::GaugeHistogram => "histogram",
        }
    }

    /// The suffixes of the sample names that a family of this type is rendered to, beside its own name.
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge | Self::Untyped => &[],
            Self::Summary => &["_sum", "_count"],
            Self::Histogram | Self::GaugeHistogram => &["_sum", "_count", "_bucket"],
        }
    }

    /// The label that carries the bound of a quantile or a bucket, and that no metric of this type may have itself.
    pub fn bound_label(self) -> Option<&'static str> {
        match self {
            Self::Counter | Self::Gauge | Self::Untyped => None,
            Self::Summary => Some("quantile"),
            Self::Histogram | Self::GaugeHistogram => Some("le"),
        }
    }
}

/// One labelled metric of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Labels, without `le` and `quantile` of a histogram or summary.
    pub labels: Labels,
    /// The value; its variant is that of the family's type.
    pub value: Value,
    /// Milliseconds since 1970, where the sample carried its own time.
    pub timestamp_ms: Option<i64>,
}

impl Metric {
    /// Takes the value out, which costs nothing; zero is left.
    pub fn take_value(&mut self) -> Value {
        std::mem::replace(&mut self.value, Value::Untyped(0.0))
    }
}

/// Value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// For [`MetricType::Counter`].
    Counter(Counter),
    /// For [`MetricType::Gauge`].
    Gauge(f64),
    /// For [`MetricType::Untyped`].
    Untyped(f64),
    /// For [`MetricType::Summary`].
    Summary(Box<Summary>),
    /// For [`MetricType::Histogram`] and [`MetricType::GaugeHistogram`].
    Histogram(Box<Histogram>),
}

impl Value {
    /// A counter without exemplar and creation time.
    pub fn counter(value: f64) -> Self {
        Self::Counter(Counter { value, exemplar: None, created: None })
    }
}

/// A counter.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Current value.
    pub value: f64,
    /// An example observation, known to protobuf only.
    pub exemplar: Option<Box<Exemplar>>,
    /// When counting began, known to protobuf only.
    pub created: Option<Timestamp>,
}

/// A summary.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Number of observations.
    pub count: u64,
    /// Sum of all observations.
    pub sum: f64,
    /// Quantiles in the order they were read.
    pub quantiles: Vec<Quantile>,
    /// When counting began, known to protobuf only.
    pub created: Option<Timestamp>,
}

/// One quantile of a summary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// Which quantile, from 0 to 1.
    pub quantile: f64,
    /// Its value.
    pub value: f64,
}

/// A histogram: classic buckets, native buckets, or both.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Number of observations.
    pub count: Count,
    /// Sum of all observations.
    pub sum: f64,
    /// Classic buckets in the order they were read; `+Inf` may be missing.
    pub buckets: Vec<Bucket>,
    /// Native buckets, known to protobuf only.
    pub native: Option<Box<NativeHistogram>>,
    /// When counting began, known to protobuf only.
    pub created: Option<Timestamp>,
    /// Examples for native buckets, known to protobuf only.
    pub exemplars: Vec<Exemplar>,
}

impl Histogram {
    /// Whether there is a bucket for everything.
    pub fn has_infinite_bucket(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.upper_bound == f64::INFINITY)
    }
}

/// Number of observations: whole in an ordinary histogram, fractional in a float histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Count {
    /// A whole number.
    Integer(u64),
    /// A float, of which a float histogram has nothing else.
    Float(f64),
}

impl Default for Count {
    fn default() -> Self {
        Self::Integer(0)
    }
}

impl Count {
    /// The count as every format but protobuf shows it.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Integer(n) => n as f64,
            Self::Float(f) => f,
        }
    }

    /// Whether the count is a float.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float(_))
    }
}

/// One classic bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Inclusive upper bound, the value of `le`.
    pub upper_bound: f64,
    /// Observations up to the bound.
    pub cumulative: Count,
    /// An example observation, known to protobuf only.
    pub exemplar: Option<Box<Exemplar>>,
}

/// The sparse buckets of a native histogram.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NativeHistogram {
    /// Resolution: each power of two is divided into `2^schema` buckets.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: Count,
    /// Buckets of positive observations.
    pub positive: NativeBuckets,
    /// Buckets of negative observations.
    pub negative: NativeBuckets,
}

/// Native buckets of one sign.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NativeBuckets {
    /// Runs of consecutive buckets.
    pub spans: Vec<Span>,
    /// Change of each bucket's count against the one before it (whole counts).
    pub deltas: Vec<i64>,
    /// Count of each bucket (float histograms).
    pub counts: Vec<f64>,
}

/// A run of consecutive native buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Gap to the span before, or the first bucket's index.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// An example observation, with labels such as a trace id.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Labels of the exemplar.
    pub labels: Labels,
    /// The observation.
    pub value: f64,
    /// When it was made.
    pub timestamp: Option<Timestamp>,
}

/// A point in time as `google.protobuf.Timestamp` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: i32,
}
