//! One line of the text format, read into a value that borrows from it.
//!
//! The grammar, the order in which faults are noticed and their words are those of `expfmt`'s `TextParser`; what a
//! line means depends on the families seen before it only through [`Families`]. Reading a line changes nothing, so a
//! bad line leaves nothing behind.
//!
//! Two things differ from `TextParser` on purpose: a help text must be UTF-8 (Prometheus refuses the whole scrape
//! otherwise), and `{x="y"} 1` never means the metric of the line before.

use std::borrow::Cow;
use std::collections::HashSet;

use super::error::LineError;
use super::go::parse_float;
use crate::exposition::family::MetricType;
use crate::exposition::labels::METRIC_NAME_LABEL;
use crate::exposition::limits::{Exceeded, Rules};

/// What a line says.
#[derive(Debug, PartialEq)]
pub enum Line<'a> {
    /// Nothing: an empty line, a comment, a `# TYPE` without type.
    Blank,
    /// `# HELP`.
    Help {
        /// Whose help it is.
        family: Target<'a>,
        /// The help text, unescaped.
        text: Cow<'a, str>,
    },
    /// `# TYPE`.
    Type {
        /// Whose type it is.
        family: Target<'a>,
        /// The type.
        kind: MetricType,
    },
    /// A sample.
    Sample(Sample<'a>),
}

/// A sample line.
#[derive(Debug, PartialEq)]
pub struct Sample<'a> {
    /// The family it belongs to.
    pub family: Target<'a>,
    /// Labels in order, without the bound.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Value of `le` in a histogram, of `quantile` in a summary.
    pub bound: Option<f64>,
    /// The value.
    pub value: f64,
    /// Milliseconds since 1970, if the line has a time.
    pub timestamp_ms: Option<i64>,
}

/// The family that a name in the text stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target<'a> {
    /// Name of the family: `h` for `h_bucket` if `h` is a known histogram.
    pub name: Cow<'a, str>,
    /// What the rest of the name says.
    pub role: Role,
    /// Type of the family, if it is known already.
    pub kind: Option<MetricType>,
}

/// What a sample's name adds to its family's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing, or `_bucket`: the bound decides.
    Value,
    /// `_count`.
    Count,
    /// `_sum`.
    Sum,
}

/// The families that earlier lines have introduced.
pub trait Families {
    /// The family of this name: `None` if there is none, else its type, which may be open still.
    fn kind_of(&self, name: &str) -> Option<Option<MetricType>>;
    /// Whether the family has a help text already.
    fn has_help(&self, name: &str) -> bool;
}

const TYPES: [(&[u8], MetricType); 7] = [
    (b"gauge", MetricType::Gauge),
    (b"counter", MetricType::Counter),
    (b"histogram", MetricType::Histogram),
    (b"summary", MetricType::Summary),
    (b"untyped", MetricType::Untyped),
    (b"gauge_histogram", MetricType::GaugeHistogram),
    (b"gaugehistogram", MetricType::GaugeHistogram),
];

type Result<T> = std::result::Result<T, LineError>;

/// Reads one line. `line` includes its line feed; without one the text ended too early.
///
/// # Errors
/// The first fault in the line, from left to right.
pub fn read<'a>(line: &'a [u8], families: &impl Families, rules: &Rules) -> Result<Line<'a>> {
    let mut reader = Reader { line, at: 0, families, rules };
    // Nothing but blanks after the last line feed is no line at all.
    if line.iter().all(|b| is_blank(*b)) {
        return Ok(Line::Blank);
    }
    reader.skip_blanks()?;
    match reader.peek()? {
        b'#' => {
            reader.at += 1;
            reader.comment()
        }
        b'\n' => Ok(Line::Blank),
        _ => reader.sample().map(Line::Sample),
    }
}

struct Reader<'a, 'r, F> {
    line: &'a [u8],
    /// The byte looked at now.
    at: usize,
    families: &'r F,
    rules: &'r Rules,
}

impl<'a, F: Families> Reader<'a, '_, F> {
    fn peek(&self) -> Result<u8> {
        // Not `ok_or`, which would make and drop an error for every byte.
        match self.line.get(self.at) {
            Some(byte) => Ok(*byte),
            None => Err(LineError::UnexpectedEnd),
        }
    }

    /// The bytes up to the first one that ends them.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> Result<&'a [u8]> {
        let rest = &self.line[self.at..];
        let Some(length) = rest.iter().position(|byte| ends(*byte)) else {
            return Err(LineError::UnexpectedEnd);
        };
        self.at += length;
        Ok(&rest[..length])
    }

    fn skip_blanks(&mut self) -> Result<u8> {
        while is_blank(self.peek()?) {
            self.at += 1;
        }
        self.peek()
    }

    /// The bytes up to the next blank or line feed.
    fn word(&mut self) -> Result<&'a [u8]> {
        self.until(|byte| is_blank(byte) || byte == b'\n')
    }

    /// The bytes up to the line feed.
    fn rest(&mut self) -> Result<&'a [u8]> {
        self.until(|byte| byte == b'\n')
    }

    /// The bytes up to `end`, with escapes undone. A line feed that is not the end is a fault.
    fn escaped(&mut self, end: u8, newline: fn(Vec<u8>) -> LineError) -> Result<Cow<'a, [u8]>> {
        let start = self.at;
        let mut copy: Option<Vec<u8>> = None;
        loop {
            match self.peek()? {
                byte if byte == end => {
                    return Ok(copy.map_or(Cow::Borrowed(&self.line[start..self.at]), Cow::Owned));
                }
                b'\n' => return Err(newline(copy.unwrap_or_else(|| self.line[start..self.at].to_vec()))),
                b'\\' => {
                    let copy = copy.get_or_insert_with(|| self.line[start..self.at].to_vec());
                    self.at += 1;
                    copy.push(match self.peek()? {
                        b'\\' => b'\\',
                        b'"' => b'"',
                        b'n' => b'\n',
                        other => return Err(LineError::InvalidEscape(other)),
                    });
                }
                byte => {
                    if let Some(copy) = &mut copy {
                        copy.push(byte);
                    }
                }
            }
            self.at += 1;
        }
    }

    /// A name, quoted or not; empty if there is none here.
    fn name(&mut self, colon: bool, newline: fn(Vec<u8>) -> LineError) -> Result<Cow<'a, [u8]>> {
        if self.peek()? == b'"' {
            self.at += 1;
            let name = self.escaped(b'"', newline)?;
            self.at += 1;
            return Ok(name);
        }
        let start = self.at;
        let is_start = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':');
        if is_start(self.peek()?) {
            self.until(|byte| !is_start(byte) && !byte.is_ascii_digit())?;
        }
        Ok(Cow::Borrowed(&self.line[start..self.at]))
    }

    fn metric_name(&mut self) -> Result<Cow<'a, [u8]>> {
        self.name(true, LineError::NewlineInMetricName)
    }

    /// Finds the family that a name stands for (`expfmt`'s `setOrCreateCurrentMF`).
    fn resolve(&self, name: Cow<'a, [u8]>) -> Result<Target<'a>> {
        self.rules.limits.name(&name)?;
        let name = into_str(name).map_err(LineError::InvalidMetricName)?;
        if !self.rules.validation.is_metric_name(&name) {
            return Err(LineError::InvalidMetricName(name.into_owned().into_bytes()));
        }
        if let Some(kind) = self.families.kind_of(&name) {
            return Ok(Target { name, role: Role::Value, kind });
        }
        for (suffix, role) in [("_count", Role::Count), ("_sum", Role::Sum), ("_bucket", Role::Value)] {
            let Some(base) = name.strip_suffix(suffix).filter(|base| !base.is_empty()) else { continue };
            let kind = self.families.kind_of(base).flatten();
            if kind.is_some_and(|kind| kind.suffixes().contains(&suffix)) {
                return Ok(Target { name: prefix(&name, base.len()), role, kind });
            }
        }
        Ok(Target { name, role: Role::Value, kind: None })
    }

    // ---- comments

    fn comment(&mut self) -> Result<Line<'a>> {
        if self.skip_blanks()? == b'\n' {
            return Ok(Line::Blank);
        }
        let keyword = self.word()?;
        let is_help = keyword == b"HELP";
        if !(is_help || keyword == b"TYPE") {
            self.rest()?;
            return Ok(Line::Blank);
        }
        if self.skip_blanks()? == b'\n' {
            return Ok(Line::Blank);
        }
        let name = self.metric_name()?;
        match self.peek()? {
            b'\n' => return Ok(Line::Blank),
            byte if is_blank(byte) => {}
            _ => return Err(LineError::InvalidNameInComment),
        }
        let family = self.resolve(name)?;
        if self.skip_blanks()? == b'\n' {
            return Ok(Line::Blank);
        }
        if is_help { self.help(family) } else { self.kind(family) }
    }

    fn help(&mut self, family: Target<'a>) -> Result<Line<'a>> {
        if self.families.has_help(&family.name) {
            return Err(LineError::SecondHelp(family.name.into_owned()));
        }
        let text = self.escaped(b'\n', LineError::HelpNotUtf8)?;
        let text = into_str(text).map_err(LineError::HelpNotUtf8)?;
        Ok(Line::Help { family, text })
    }

    fn kind(&mut self, family: Target<'a>) -> Result<Line<'a>> {
        if family.kind.is_some() {
            return Err(LineError::SecondType(family.name.into_owned()));
        }
        let word = self.rest()?;
        let kind = TYPES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        let (_, kind) = kind.ok_or_else(|| LineError::UnknownType(word.to_vec()))?;
        Ok(Line::Type { family, kind: *kind })
    }

    // ---- samples

    fn sample(&mut self) -> Result<Sample<'a>> {
        let mut family = None;
        if self.peek()? != b'{' {
            let name = self.metric_name()?;
            if name.is_empty() {
                return Err(LineError::NoMetricName);
            }
            family = Some(self.resolve(name)?);
            self.skip_blanks()?;
        }
        let mut labels = LabelSet::default();
        if self.peek()? == b'{' {
            self.at += 1;
            self.labels(&mut family, &mut labels)?;
            self.skip_blanks()?;
        }
        let family = family.ok_or(LineError::NoMetricName)?;
        let value = self.value(&family, labels.bound)?;
        let timestamp_ms = self.timestamp()?;
        Ok(Sample { family, labels: labels.pairs, bound: labels.bound, value, timestamp_ms })
    }

    /// The labels after `{`, through `}`. A metric name may stand among them if there was none before.
    fn labels(&mut self, family: &mut Option<Target<'a>>, labels: &mut LabelSet<'a>) -> Result<()> {
        let name_expected = family.is_none();
        let name_of =
            |family: &Option<Target<'a>>| family.as_ref().map_or_else(String::new, |f| f.name.to_string());
        loop {
            if self.skip_blanks()? == b'}' {
                break;
            }
            let name = self.name(false, LineError::NewlineInLabelName)?;
            if name.is_empty() {
                return Err(LineError::NoLabelName(name_of(family)));
            }
            let after = self.skip_blanks()?;
            if after == b'=' {
                let name = self.label_name(name)?;
                if labels.contains(&name, family.as_ref()) {
                    return Err(LineError::DuplicateLabelNames(name_of(family)));
                }
                if labels.pairs.len() >= self.rules.limits.labels {
                    return Err(Exceeded::Labels.into());
                }
                let value = self.label_value()?;
                let end = value.clone();
                labels.push(name, value, family.as_ref())?;
                match self.skip_blanks()? {
                    b',' | b'}' => {}
                    _ => return Err(LineError::UnexpectedEndOfValue(end.into_owned())),
                }
            } else if !name_expected {
                return Err(LineError::ExpectedEquals(after));
            } else if family.is_some() {
                return Err(LineError::MultipleMetricNames(name_of(family)));
            } else if after == b',' || after == b'}' {
                *family = Some(self.resolve(name)?);
                labels.find_bound(family.as_ref())?;
            } else {
                return Err(LineError::UnexpectedEndOfName(after));
            }
            if self.peek()? == b'}' {
                break;
            }
            self.at += 1;
        }
        self.at += 1;
        if family.is_none() {
            return Err(LineError::NoMetricName);
        }
        Ok(())
    }

    fn label_name(&self, name: Cow<'a, [u8]>) -> Result<Cow<'a, str>> {
        self.rules.limits.name(&name)?;
        let name = into_str(name).map_err(LineError::InvalidLabelName)?;
        if name == METRIC_NAME_LABEL {
            return Err(LineError::ReservedLabelName(name.into_owned()));
        }
        if !self.rules.validation.is_label_name(&name) {
            return Err(LineError::InvalidLabelName(name.into_owned().into_bytes()));
        }
        Ok(name)
    }

    fn label_value(&mut self) -> Result<Cow<'a, str>> {
        self.at += 1;
        let first = self.skip_blanks()?;
        if first != b'"' {
            return Err(LineError::ExpectedQuote(first));
        }
        self.at += 1;
        let value = self.escaped(b'"', LineError::NewlineInLabelValue)?;
        self.at += 1;
        self.rules.limits.label_value(&value)?;
        into_str(value).map_err(LineError::InvalidLabelValue)
    }

    fn value(&mut self, family: &Target<'a>, bound: Option<f64>) -> Result<f64> {
        let word = self.word()?;
        let value = parse_float(word).ok_or_else(|| LineError::NotAFloat(word.to_vec()))?;
        let is_histogram = family.kind.and_then(MetricType::bound_label) == Some("le");
        if is_histogram && value < 0.0 {
            match family.role {
                Role::Count => return Err(LineError::NegativeCount(family.name.to_string())),
                Role::Value if bound.is_some_and(|b| !b.is_nan()) => {
                    return Err(LineError::NegativeBucket(family.name.to_string()));
                }
                Role::Value | Role::Sum => {}
            }
        }
        Ok(value)
    }

    fn timestamp(&mut self) -> Result<Option<i64>> {
        if self.peek()? == b'\n' {
            return Ok(None);
        }
        self.skip_blanks()?;
        let word = self.word()?;
        let timestamp = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        let timestamp = timestamp.ok_or_else(|| LineError::NotATimestamp(word.to_vec()))?;
        let rest = self.rest()?;
        if rest.is_empty() { Ok(Some(timestamp)) } else { Err(LineError::Spurious(rest.to_vec())) }
    }
}

/// From how many labels on names are looked up by hash; below, comparing is faster.
const HASHED_LABELS_FROM: usize = 16;

#[derive(Default)]
struct LabelSet<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Names in `pairs`, once there are many.
    names: HashSet<Cow<'a, str>>,
    bound: Option<f64>,
}

impl<'a> LabelSet<'a> {
    fn contains(&self, name: &str, family: Option<&Target<'a>>) -> bool {
        if bound_label(family) == Some(name) {
            false
        } else if self.names.is_empty() {
            self.pairs.iter().any(|(n, _)| n == name)
        } else {
            self.names.contains(name)
        }
    }

    fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>, family: Option<&Target<'a>>) -> Result<()> {
        if let Some(label) = bound_label(family)
            && label == name
        {
            self.bound = Some(parse_bound(label, &value)?);
            return Ok(());
        }
        if !self.names.is_empty() {
            self.names.insert(name.clone());
        }
        self.pairs.push((name, value));
        if self.names.is_empty() && self.pairs.len() >= HASHED_LABELS_FROM {
            self.names = self.pairs.iter().map(|(name, _)| name.clone()).collect();
        }
        Ok(())
    }

    /// Takes the bound out of labels that were read before the family was known.
    fn find_bound(&mut self, family: Option<&Target<'a>>) -> Result<()> {
        if let Some(label) = bound_label(family)
            && let Some(at) = self.pairs.iter().position(|(name, _)| name == label)
        {
            let (_, value) = self.pairs.remove(at);
            self.names.remove(label);
            self.bound = Some(parse_bound(label, &value)?);
        }
        Ok(())
    }
}

fn bound_label(family: Option<&Target<'_>>) -> Option<&'static str> {
    family.and_then(|family| family.kind).and_then(MetricType::bound_label)
}

fn parse_bound(label: &'static str, value: &str) -> Result<f64> {
    parse_float(value.as_bytes()).ok_or_else(|| LineError::BoundNotAFloat { label, value: value.to_owned() })
}

fn into_str(bytes: Cow<'_, [u8]>) -> std::result::Result<Cow<'_, str>, Vec<u8>> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| bytes.to_vec()),
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).map(Cow::Owned).map_err(std::string::FromUtf8Error::into_bytes)
        }
    }
}

/// The first `len` bytes, borrowed where the whole was.
fn prefix<'a>(name: &Cow<'a, str>, len: usize) -> Cow<'a, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..len]),
        Cow::Owned(name) => Cow::Owned(name[..len].to_owned()),
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}
