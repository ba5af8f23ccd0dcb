//! Where a report goes: to push gateways, else into the spool, and to node exporter's textfile directory.
//!
//! Delivery happens on a thread of its own with a runtime of its own, the [`courier`], which is not started before there is
//! something to send. It never makes anybody wait longer than the deadline it was given.

mod access;
mod backoff;
mod beside;
pub mod courier;
mod dns;
mod flush;
mod lane;
mod promises;
mod push;
mod spool;
mod target;
mod textfile;
mod way;

pub use access::{Access, Proxy, ProxyError};
pub use courier::{Courier, Sinks};
pub use flush::{Flushed, flush};
pub use promises::{Expect, Promise, RunRecord};
pub use spool::{Entry, Spool, SpoolPlace};
pub use target::Target;

use bytes::Bytes;

use crate::exposition::labels::Escaping;
use crate::exposition::{MetricFamily, text};

/// What is known about a run at one moment.
#[derive(Debug)]
pub struct Report {
    /// Everything.
    pub families: Vec<MetricFamily>,
    /// The same without the command's own metrics, if it has written any: what is sent when a server refuses the whole.
    pub without_command: Option<Vec<MetricFamily>>,
    /// What the report is about.
    pub about: About,
    /// What its pushes promise.
    pub promise: Promise,
    /// When that was known, in microseconds since 1970.
    pub at_micros: i64,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A run that goes on.
    Progress,
    /// A run that has ended well.
    Success,
    /// A run that has failed.
    Failure,
    /// A run that was left out because another one was going on.
    Skip,
}

/// The families as the body of a push.
pub fn body(families: &[MetricFamily]) -> Bytes {
    let mut out = Vec::new();
    text::encode(&mut out, families, Escaping::AllowUtf8);
    out.into()
}
