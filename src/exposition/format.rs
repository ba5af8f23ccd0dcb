//! The formats of an exposition, as a scrape may ask for them.

use super::family::{Metric, MetricFamily, MetricType};
use super::labels::Escaping;
use super::text::{encode, openmetrics};
use super::{protobuf, text};

/// What a family has beside its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// See [`MetricFamily::name`].
    pub name: &'a str,
    /// See [`MetricFamily::help`]; never empty.
    pub help: Option<&'a str>,
    /// See [`MetricFamily::unit`].
    pub unit: Option<&'a str>,
    /// See [`MetricFamily::kind`].
    pub kind: MetricType,
}

impl<'a> Head<'a> {
    /// The head of a family.
    pub fn of(family: &'a MetricFamily) -> Self {
        Self {
            name: &family.name,
            help: family.help.as_deref().filter(|help| !help.is_empty()),
            unit: family.unit.as_deref().filter(|unit| !unit.is_empty()),
            kind: family.kind,
        }
    }
}

/// How an exposition is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// The Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Protobuf messages, each with its length.
    ProtobufDelimited,
    /// Protobuf's text form, over many lines.
    ProtobufText,
    /// Protobuf's text form, a family a line.
    ProtobufCompact,
}

/// A syntax, and how names outside the legacy alphabet are written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The syntax.
    pub syntax: Syntax,
    /// How names are written.
    pub escaping: Escaping,
}

impl Format {
    /// What a scrape gets that asks for nothing.
    pub const DEFAULT: Self = Self { syntax: Syntax::Text, escaping: Escaping::Underscores };

    /// The media type that says all of it.
    pub fn content_type(self) -> String {
        let protobuf = |encoding: &str| {
            format!(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding={encoding}"
            )
        };
        let media_type = match self.syntax {
            Syntax::Text => text::CONTENT_TYPE.to_owned(),
            Syntax::OpenMetrics => openmetrics::CONTENT_TYPE.to_owned(),
            Syntax::ProtobufDelimited => protobuf("delimited"),
            Syntax::ProtobufText => protobuf("text"),
            Syntax::ProtobufCompact => protobuf("compact-text"),
        };
        format!("{media_type}; escaping={}", self.escaping.parameter())
    }

    /// Appends a family.
    pub fn encode<'m>(self, out: &mut Vec<u8>, head: Head<'_>, metrics: impl Iterator<Item = &'m Metric>) {
        let mut body = Vec::new();
        metrics.for_each(|metric| self.metric(&mut body, head, metric));
        self.open(out, head, body.len());
        out.extend_from_slice(&body);
        self.close(out, head);
    }

    /// Appends what stands before the metrics of a family, which take so many bytes.
    pub fn open(self, out: &mut Vec<u8>, head: Head<'_>, metrics_bytes: usize) {
        let head = self.with_fitting_unit(head);
        match self.syntax {
            Syntax::Text => encode::encode_header(out, head.name, head.help, head.kind, self.escaping),
            Syntax::OpenMetrics => openmetrics::open(out, head, self.escaping),
            Syntax::ProtobufDelimited => protobuf::open(out, head, self.escaping, metrics_bytes),
            Syntax::ProtobufText => protobuf::prototext::open(out, head, self.escaping),
            Syntax::ProtobufCompact => protobuf::prototext::open_compact(out, head, self.escaping),
        }
    }

    /// Appends a metric of a family. What it appends depends on nothing else, so it can be kept.
    pub fn metric(self, out: &mut Vec<u8>, head: Head<'_>, metric: &Metric) {
        match self.syntax {
            Syntax::Text => encode::encode_metric(out, head.name, metric, self.escaping),
            Syntax::OpenMetrics => openmetrics::metric(out, head, metric, self.escaping),
            Syntax::ProtobufDelimited => protobuf::metric(out, metric, self.escaping),
            Syntax::ProtobufText => protobuf::prototext::metric(out, metric, self.escaping),
            Syntax::ProtobufCompact => protobuf::prototext::metric_compact(out, metric, self.escaping),
        }
    }

    /// Appends what stands behind the metrics of a family.
    pub fn close(self, out: &mut Vec<u8>, head: Head<'_>) {
        let head = self.with_fitting_unit(head);
        match self.syntax {
            Syntax::Text | Syntax::OpenMetrics => {}
            Syntax::ProtobufDelimited => protobuf::close(out, head),
            Syntax::ProtobufText => protobuf::prototext::close(out, head),
            Syntax::ProtobufCompact => protobuf::prototext::close_compact(out, head),
        }
    }

    /// A unit that does not end the name is left out: Prometheus would refuse the scrape.
    fn with_fitting_unit(self, head: Head<'_>) -> Head<'_> {
        let ends = |unit: &&str| {
            let name = self.escaping.escape(head.name);
            let is_counter = head.kind == MetricType::Counter;
            let base = name.strip_suffix("_total").filter(|_| is_counter).unwrap_or(&name);
            unit.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && base.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
        };
        Head { unit: head.unit.filter(ends), ..head }
    }

    /// Appends what ends an exposition.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.syntax == Syntax::OpenMetrics {
            out.extend_from_slice(b"# EOF\n");
        }
    }
}
