//! What can be wrong with a text, in the words of `expfmt`.

use super::go::{quote, quote_byte};
use crate::exposition::limits::Exceeded;

/// Why a line cannot be read. The texts are those of `expfmt`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum LineError {
    #[error(transparent)]
    TooMuch(#[from] Exceeded),
    #[error("unexpected end of input stream")]
    UnexpectedEnd,
    #[error("invalid metric name")]
    NoMetricName,
    #[error("invalid metric name {}", quote(.0))]
    InvalidMetricName(Vec<u8>),
    #[error("invalid metric name in comment")]
    InvalidNameInComment,
    #[error("metric name {} contains unescaped new-line", quote(.0))]
    NewlineInMetricName(Vec<u8>),
    #[error("label name {} contains unescaped new-line", quote(.0))]
    NewlineInLabelName(Vec<u8>),
    #[error("label value {} contains unescaped new-line", quote(.0))]
    NewlineInLabelValue(Vec<u8>),
    #[error("invalid escape sequence '\\{}'", char::from(*.0))]
    InvalidEscape(u8),
    #[error("invalid label name for metric {}", quote(.0.as_bytes()))]
    NoLabelName(String),
    #[error("invalid label name {}", quote(.0))]
    InvalidLabelName(Vec<u8>),
    #[error("label name {} is reserved", quote(.0.as_bytes()))]
    ReservedLabelName(String),
    #[error("multiple metric names for metric {}", quote(.0.as_bytes()))]
    MultipleMetricNames(String),
    #[error("unexpected end of metric name {}", quote_byte(*.0))]
    UnexpectedEndOfName(u8),
    #[error("expected '=' after label name, found {}", quote_byte(*.0))]
    ExpectedEquals(u8),
    #[error("duplicate label names for metric {}", quote(.0.as_bytes()))]
    DuplicateLabelNames(String),
    #[error("expected '\"' at start of label value, found {}", quote_byte(*.0))]
    ExpectedQuote(u8),
    #[error("invalid label value {}", quote(.0))]
    InvalidLabelValue(Vec<u8>),
    #[error("expected float as value for '{label}' label, got {}", quote(.value.as_bytes()))]
    BoundNotAFloat { label: &'static str, value: String },
    #[error("unexpected end of label value {}", quote(.0.as_bytes()))]
    UnexpectedEndOfValue(String),
    #[error("expected float as value, got {}", quote(.0))]
    NotAFloat(Vec<u8>),
    #[error("expected integer as timestamp, got {}", quote(.0))]
    NotATimestamp(Vec<u8>),
    #[error("spurious string after timestamp: {}", quote(.0))]
    Spurious(Vec<u8>),
    #[error("negative count for histogram {}", quote(.0.as_bytes()))]
    NegativeCount(String),
    #[error("negative bucket population for histogram {}", quote(.0.as_bytes()))]
    NegativeBucket(String),
    #[error("second HELP line for metric name {}", quote(.0.as_bytes()))]
    SecondHelp(String),
    #[error("second TYPE line for metric name {}, or TYPE reported after samples", quote(.0.as_bytes()))]
    SecondType(String),
    #[error("unknown metric type {}", quote(.0))]
    UnknownType(Vec<u8>),
    #[error("invalid help text {}", quote(.0))]
    HelpNotUtf8(Vec<u8>),
}
