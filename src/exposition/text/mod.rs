//! The Prometheus text format 0.0.4, as `prometheus/common`'s `expfmt` reads and writes it.
//!
//! [`line`](mod@line) turns one line into a value that borrows from it; [`parse`](mod@parse) gathers lines into
//! families; [`encode`](mod@encode) writes families. Numbers have Go's form ([`go`]).

pub mod encode;
pub mod error;
pub mod go;
pub mod line;
pub mod openmetrics;
pub mod parse;

pub use encode::encode;
pub use parse::{ParseError, parse};

/// The media type of this format, as a push declares it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
