//! The formats of an exposition, as a scrape may ask for them.

use super::family::{Metric, MetricFamily, MetricType};
use super::labels::Escaping;
use super::text::{encode, openmetrics};
use super::{protobuf, text};

/// A family as it is exposed: its head, and metrics from wherever they are kept.
#[derive(Debug, Clone)]
pub struct ExposedFamily<'a> {
    /// See [`MetricFamily::name`].
    pub name: &'a str,
    /// See [`MetricFamily::help`]; never empty.
    pub help: Option<&'a str>,
    /// See [`MetricFamily::unit`].
    pub unit: Option<&'a str>,
    /// See [`MetricFamily::kind`].
    pub kind: MetricType,
    /// The metrics, in the order of the exposition.
    pub metrics: Vec<&'a Metric>,
}

impl<'a> ExposedFamily<'a> {
    /// The head of a family, without its metrics.
    pub fn head(family: &'a MetricFamily) -> Self {
        Self {
            name: &family.name,
            help: family.help.as_deref().filter(|help| !help.is_empty()),
            unit: family.unit.as_deref().filter(|unit| !unit.is_empty()),
            kind: family.kind,
            metrics: Vec::new(),
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

    /// Appends a family. A unit that does not end the name is left out: Prometheus would refuse the scrape.
    pub fn encode(self, out: &mut Vec<u8>, mut family: ExposedFamily<'_>) {
        let name = self.escaping.escape(family.name);
        let base =
            name.strip_suffix("_total").filter(|_| family.kind == MetricType::Counter).unwrap_or(&name);
        let ends = |unit: &&str| {
            unit.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && base.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
        };
        family.unit = family.unit.filter(ends);
        let family = &family;
        match self.syntax {
            Syntax::Text => {
                encode::encode_header(out, family.name, family.help, family.kind, self.escaping);
                for metric in &family.metrics {
                    encode::encode_metric(out, family.name, metric, self.escaping);
                }
            }
            Syntax::OpenMetrics => openmetrics::encode(out, family, self.escaping),
            Syntax::ProtobufDelimited => protobuf::encode_exposed(out, family, self.escaping),
            Syntax::ProtobufText => protobuf::prototext::encode(out, family, self.escaping),
            Syntax::ProtobufCompact => protobuf::prototext::encode_compact(out, family, self.escaping),
        }
    }

    /// Appends what ends an exposition.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.syntax == Syntax::OpenMetrics {
            out.extend_from_slice(b"# EOF\n");
        }
    }
}
