//! Label sets, what a name may look like, and how names outside the legacy alphabet are written.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

/// The label that holds the metric name inside Prometheus; no sample may carry it itself.
pub const METRIC_NAME_LABEL: &str = "__name__";
/// Prefix of label names that Prometheus keeps for itself.
pub const RESERVED_PREFIX: &str = "__";

/// Which metric and label names are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*` for metrics, the same without the colon for labels.
    #[default]
    Legacy,
    /// Every non-empty UTF-8 string (Prometheus 3) without NUL.
    Utf8,
}

impl Validation {
    /// Whether `name` may name a metric.
    pub fn is_metric_name(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_name(name, true),
            Self::Utf8 => is_utf8_name(name),
        }
    }

    /// Whether `name` may name a label, apart from the reserved prefix.
    pub fn is_label_name(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_name(name, false),
            Self::Utf8 => is_utf8_name(name),
        }
    }
}

/// Prometheus' reader of text ends at a NUL in a name, and with it the scrape.
fn is_utf8_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

fn is_legacy_name(name: &str, colon: bool) -> bool {
    let ok = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':');
    let mut bytes = name.bytes();
    bytes.next().is_some_and(ok) && bytes.all(|b| ok(b) || b.is_ascii_digit())
}

/// A set of labels in one allocation of text, in the order it was built.
///
/// Names are unique only if the builder saw to it; [`Labels::sorted`] gives the order in which sets are compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels {
    text: Box<str>,
    /// Where each name and each value ends in `text`, alternating.
    ends: Box<[u32]>,
}

impl Labels {
    /// Builds a set from pairs, keeping their order.
    ///
    /// # Panics
    /// When the pairs hold more than 4 GiB of text, which no limit on input admits.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs = pairs.into_iter().peekable();
        if pairs.peek().is_none() {
            return Self::default();
        }
        // Enough for most, so that it is cut to size once and grows never.
        let mut text = String::with_capacity(256);
        let mut ends = SmallVec::<[u32; 32]>::new();
        for (name, value) in pairs {
            for part in [name.as_ref(), value.as_ref()] {
                text.push_str(part);
                ends.push(u32::try_from(text.len()).expect("inputs are limited to far less than 4 GiB"));
            }
        }
        Self { text: text.into_boxed_str(), ends: ends[..].into() }
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        (0..self.len()).map(|i| (self.part(2 * i), self.part(2 * i + 1)))
    }

    fn part(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.text[start..self.ends[i] as usize]
    }

    /// Bytes of all names and values.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Value of the first label called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The same pairs, ordered by name.
    #[must_use]
    pub fn sorted(&self) -> Self {
        let mut pairs: Vec<_> = self.iter().collect();
        pairs.sort_unstable();
        Self::from_pairs(pairs)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// How a name outside the legacy alphabet is written for a reader (Prometheus' content negotiation, `escaping=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escaping {
    /// Written as it is, in quotes.
    AllowUtf8,
    /// Every other character becomes `_`.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, the rest `__`.
    Dots,
    /// `U__` and code points in hexadecimal; reversible.
    Values,
}

/// The schemes that write names otherwise than they are; those of the legacy alphabet are the same to all.
pub const RENDERINGS: [Escaping; 3] = [Escaping::Underscores, Escaping::Dots, Escaping::Values];

/// Everything that a metric name is written as where it is not written as it is.
pub fn renderings(name: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let differing = if is_legacy_name(name, true) { 1 } else { RENDERINGS.len() };
    RENDERINGS.into_iter().take(differing).map(move |scheme| scheme.escape(name))
}

/// The same for the name of a label.
pub fn label_renderings(name: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let differing = if is_legacy_name(name, false) { 1 } else { RENDERINGS.len() };
    RENDERINGS.into_iter().take(differing).map(move |scheme| scheme.escape_label(name))
}

/// Prefix of a name that [`Escaping::Values`] wrote.
const VALUES_PREFIX: &str = "U__";

impl Escaping {
    /// The scheme of a name in content negotiation, if it is one.
    pub fn from_parameter(name: &str) -> Option<Self> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|e| e.parameter() == name)
    }

    /// The scheme's name in content negotiation.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// The name of a metric as this scheme writes it.
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        self.escape_allowing(name, true)
    }

    /// The name of a label as this scheme writes it: a colon is for metrics only.
    pub fn escape_label(self, name: &str) -> Cow<'_, str> {
        self.escape_allowing(name, false)
    }

    fn escape_allowing(self, name: &str, colon: bool) -> Cow<'_, str> {
        if name.is_empty() {
            return Cow::Borrowed(name);
        }
        let legacy_at = |index: usize, c: char| legacy_at(index, c) && (colon || c != ':');
        match self {
            Self::AllowUtf8 => Cow::Borrowed(name),
            _ if is_legacy_name(name, colon) => Cow::Borrowed(name),
            Self::Dots => Cow::Owned(escape_dots(name, legacy_at)),
            Self::Underscores => {
                Cow::Owned(name.char_indices().map(|(i, c)| if legacy_at(i, c) { c } else { '_' }).collect())
            }
            Self::Values => Cow::Owned(escape_values(name, legacy_at)),
        }
    }
}

fn legacy_at(index: usize, c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':' || (c.is_ascii_digit() && index > 0)
}

fn escape_dots(name: &str, legacy_at: impl Fn(usize, char) -> bool) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    for (i, c) in name.char_indices() {
        match c {
            '_' => out.push_str("__"),
            '.' => out.push_str("_dot_"),
            c if legacy_at(i, c) => out.push(c),
            _ => out.push_str("__"),
        }
    }
    out
}

fn escape_values(name: &str, legacy_at: impl Fn(usize, char) -> bool) -> String {
    use fmt::Write as _;
    let mut out = String::from(VALUES_PREFIX);
    for (i, c) in name.char_indices() {
        match c {
            '_' => out.push_str("__"),
            c if legacy_at(i, c) => out.push(c),
            c => {
                write!(out, "_{:x}_", u32::from(c)).expect("writing to a String cannot fail");
            }
        }
    }
    out
}

/// Undoes [`Escaping::Values`]. What is no valid escape stays as it is.
pub fn unescape_values(name: &str) -> Cow<'_, str> {
    match name.strip_prefix(VALUES_PREFIX).and_then(unescape_values_body) {
        Some(plain) => Cow::Owned(plain),
        None => Cow::Borrowed(name),
    }
}

fn unescape_values_body(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '_' {
            out.push(c);
            continue;
        }
        let code = &rest[..rest.find('_')?];
        rest = &rest[code.len() + 1..];
        if code.is_empty() {
            out.push('_');
        } else if code.len() <= 6 && code.bytes().all(|b| b.is_ascii_hexdigit()) {
            out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        } else {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_names_are_those_of_the_data_model() {
        for name in ["a", "_", "a9", "A_b", "a:b", ":a"] {
            assert!(Validation::Legacy.is_metric_name(name), "{name}");
        }
        for name in ["", "9a", "a-b", "a.b", "Π", "a b"] {
            assert!(!Validation::Legacy.is_metric_name(name), "{name}");
        }
        assert!(!Validation::Legacy.is_label_name("a:b"));
        assert!(Validation::Utf8.is_label_name("a b"));
        assert!(!Validation::Utf8.is_label_name(""));
    }

    #[test]
    fn labels_keep_pairs_and_order() {
        let labels = Labels::from_pairs([("b", "2"), ("a", ""), ("", "x")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("b", "2"), ("a", ""), ("", "x")]);
        assert_eq!(labels.get("a"), Some(""));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.sorted(), Labels::from_pairs([("", "x"), ("a", ""), ("b", "2")]));
        assert!(Labels::default().is_empty());
    }

    #[test]
    fn escaping_schemes_write_names_as_prometheus_does() {
        let cases = [
            ("my.metric", "my_metric", "my_dot_metric", "U__my_2e_metric"),
            ("a_b", "a_b", "a_b", "a_b"),
            ("Π", "_", "__", "U___3a0_"),
            ("1a", "_a", "__a", "U___31_a"),
            ("a_b.c", "a_b_c", "a__b_dot_c", "U__a__b_2e_c"),
        ];
        for (name, underscores, dots, values) in cases {
            assert_eq!(Escaping::AllowUtf8.escape(name), name);
            assert_eq!(Escaping::Underscores.escape(name), underscores);
            assert_eq!(Escaping::Dots.escape(name), dots);
            assert_eq!(Escaping::Values.escape(name), values);
        }
    }

    #[test]
    fn values_are_unescaped_and_the_invalid_stays() {
        for (escaped, plain) in [
            ("U__foo_2e_bar", "foo.bar"),
            ("U__a__b", "a_b"),
            ("U___1F60A_", "😊"),
            ("U______foo", "__foo"),
            ("U__", ""),
            ("U__job", "job"),
        ] {
            assert_eq!(unescape_values(escaped), plain);
        }
        for invalid in ["U__in_xxx_valid", "U___D800_", "U__a_3d_22_b", "plain", "U__a_", "U___1234567_"] {
            assert_eq!(unescape_values(invalid), invalid);
        }
    }

    proptest::proptest! {
        #[test]
        fn values_are_reversible(name in ".{1,20}") {
            if !is_legacy_name(&name, true) {
                let escaped = Escaping::Values.escape(&name).into_owned();
                proptest::prop_assert_eq!(unescape_values(&escaped), name.as_str());
            }
        }
    }
}
