//! The model of what Prometheus scrapes, and its formats.
//!
//! Pure: bytes and values in, bytes and values out. No input or output, no clock, no runtime; nothing in here can
//! fail for lack of a resource, and no input makes it panic.
//!
//! Reading order: [`family`] (the model), [`labels`], [`text`] and [`protobuf`] (the formats), [`check`] (what may be
//! exposed at all).

pub mod check;
mod compression;
pub mod family;
pub mod format;
pub mod labels;
pub mod limits;
pub mod native;
pub mod protobuf;
pub mod registry;
pub mod series;
pub mod text;

pub use compression::{Checksum, Compression, Compressor};
pub use family::{Metric, MetricFamily, MetricType, Value};
pub use format::{Format, Head, Syntax};
pub use labels::{Labels, Validation};
pub use limits::{Exceeded, Limits, Rules};
