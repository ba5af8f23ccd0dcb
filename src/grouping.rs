//! The grouping key of a push and the URL path that carries it, both directions.
//!
//! The path is `/metrics/job/<job>{/<name>/<value>}`; a `@base64` after `job` or a name says that the value is in
//! base64 (RFC 4648, section 5), so that it may be empty or hold a slash.

mod selector;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::exposition::labels::{
    Escaping, Labels, METRIC_NAME_LABEL, RESERVED_PREFIX, Validation, label_renderings, unescape_values,
};
use crate::exposition::series::INSTANCE_LABEL;
use crate::exposition::text::go::quote;

pub use selector::{Selector, SelectorError, regex_of_whole};

/// The label that every grouping key has.
pub const JOB_LABEL: &str = "job";
/// Marks a value as base64.
pub const BASE64_SUFFIX: &str = "@base64";

/// What stands as it is in a path segment (RFC 3986, `unreserved`).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bits after the last byte and missing or surplus padding are no fault, as in Go's raw URL encoding after trimming `=`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Labels that name a group: `job` and what else the URL holds, ordered by name, so that equal keys are equal values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupingKey(Labels);

/// Why a path holds no grouping key. The texts are the Pushgateway's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GroupingError {
    #[error("job name is required")]
    NoJob,
    #[error("invalid base64 encoding in job name {}: illegal base64 data at input byte {at}", quote(.decoded))]
    JobNotBase64 { decoded: Vec<u8>, at: usize },
    #[error("odd number of components in label string {}", quote(.0))]
    OddComponents(Vec<u8>),
    #[error("improper label name {}", quote(.0))]
    ImproperName(Vec<u8>),
    #[error("invalid base64 encoding for label {name}={}: illegal base64 data at input byte {at}", quote(.value))]
    ValueNotBase64 { name: String, value: Vec<u8>, at: usize },
    #[error("value of label {} is not valid utf8: {}", quote(.name.as_bytes()), quote(.value))]
    ValueNotUtf8 { name: String, value: Vec<u8> },
}

impl GroupingKey {
    /// Makes a key from a job and other labels; of two with one name the last counts, and `job` is always the first
    /// argument.
    pub fn new<N: Into<String>, V: Into<String>>(
        job: &str,
        labels: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut pairs: BTreeMap<String, String> =
            labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.insert(JOB_LABEL.to_owned(), job.to_owned());
        Self(Labels::from_pairs(pairs))
    }

    /// Reads the decoded path behind `/metrics/job` or `/metrics/job@base64`: the job's segment, and the rest from its
    /// first slash on.
    ///
    /// # Errors
    /// What the URL is to be refused for.
    pub fn from_path(
        job: &[u8],
        base64: bool,
        rest: &[u8],
        validation: Validation,
    ) -> Result<Self, GroupingError> {
        let job = if base64 {
            decode_base64(job).map_err(|(decoded, at)| GroupingError::JobNotBase64 { decoded, at })?
        } else {
            job.to_vec()
        };
        let labels = split_labels(rest, validation)?;
        tell_apart(labels.iter().map(|(name, _)| name.as_str()))?;
        if job.is_empty() {
            return Err(GroupingError::NoJob);
        }
        Ok(Self::new(&into_text(JOB_LABEL, job)?, labels))
    }

    /// The path behind `/metrics`, percent-encoded: `/job/a/instance/b`.
    pub fn to_path(&self) -> String {
        let mut path = String::new();
        push_pair(&mut path, JOB_LABEL, self.job());
        for (name, value) in self.0.iter().filter(|(name, _)| *name != JOB_LABEL) {
            push_pair(&mut path, name, value);
        }
        path
    }

    /// The same path with every value in base64, so that whatever is between here and there leaves it as it is.
    pub fn to_base64_path(&self) -> String {
        let mut path = String::new();
        push_base64(&mut path, JOB_LABEL, self.job());
        for (name, value) in self.0.iter().filter(|(name, _)| *name != JOB_LABEL) {
            push_base64(&mut path, name, value);
        }
        path
    }

    /// A name for the group that a URL can hold as one segment: names and values, percent-encoded, in base64.
    pub fn to_id(&self) -> String {
        let encoded = |text| utf8_percent_encode(text, SEGMENT);
        let others = self.0.iter().filter(|(name, _)| *name != JOB_LABEL);
        let pairs = std::iter::once((JOB_LABEL, self.job())).chain(others);
        let pairs = pairs.map(|(name, value)| format!("/{}/{}", encoded(name), encoded(value)));
        BASE64.encode(pairs.collect::<String>())
    }

    /// The key of an id.
    pub fn from_id(id: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64.decode(id).ok()?).ok()?;
        let decoded = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let texts = text.strip_prefix('/')?.split('/').map(decoded).collect::<Option<Vec<String>>>()?;
        let (pairs, _) = texts.as_chunks::<2>();
        let [_, job] = pairs.iter().find(|[name, _]| name == JOB_LABEL)?;
        let key = Self::new(job, pairs.iter().map(|[name, value]| (name.as_str(), value.as_str())));
        // One group has one id.
        (key.to_id() == id).then_some(key)
    }

    /// Whether a path may name it.
    ///
    /// # Errors
    /// The name of a label that no path may have.
    pub fn judge(&self, validation: Validation) -> Result<(), GroupingError> {
        let names = || self.0.iter().map(|(name, _)| name);
        let improper = names().find(|name| !is_proper(name, name, validation));
        improper.map_or(Ok(()), |name| Err(GroupingError::ImproperName(name.as_bytes().to_vec())))?;
        tell_apart(names())
    }

    /// Value of the `job` label.
    pub fn job(&self) -> &str {
        self.0.get(JOB_LABEL).expect("every constructor adds the job")
    }

    /// All labels, ordered by name.
    pub fn labels(&self) -> &Labels {
        &self.0
    }
}

impl fmt::Debug for GroupingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that a path cannot hold as it is can be held only by servers that unescape names.
fn push_pair(path: &mut String, name: &str, value: &str) {
    // An empty segment would be cleaned away, and so would dots; a slash would split.
    let plain = !value.is_empty() && !value.contains('/') && value != "." && value != "..";
    if plain {
        path.extend(["/", &Escaping::Values.escape_label(name), "/"]);
        path.extend(utf8_percent_encode(value, SEGMENT));
    } else {
        push_base64(path, name, value);
    }
}

fn push_base64(path: &mut String, name: &str, value: &str) {
    path.extend(["/", &Escaping::Values.escape_label(name), BASE64_SUFFIX, "/"]);
    // `=` alone stands for the empty value.
    let encoded = BASE64.encode(value);
    path.push_str(if encoded.is_empty() { "=" } else { &encoded });
}

fn split_labels(rest: &[u8], validation: Validation) -> Result<Vec<(String, String)>, GroupingError> {
    let mut labels = Vec::new();
    if rest.len() <= 1 {
        return Ok(labels);
    }
    let components: Vec<&[u8]> = rest[1..].split(|b| *b == b'/').collect();
    let (pairs, odd) = components.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(GroupingError::OddComponents(rest.to_vec()));
    }
    for [name, value] in pairs {
        let plain = name.strip_suffix(BASE64_SUFFIX.as_bytes());
        let name = label_name(plain.unwrap_or(name), validation)?;
        let value = match plain {
            None => value.to_vec(),
            Some(_) => decode_base64(value).map_err(|(_, at)| GroupingError::ValueNotBase64 {
                name: name.clone(),
                value: value.to_vec(),
                at,
            })?,
        };
        let value = into_text(&name, value)?;
        labels.push((name, value));
    }
    Ok(labels)
}

fn label_name(name: &[u8], validation: Validation) -> Result<String, GroupingError> {
    let improper = || GroupingError::ImproperName(name.to_vec());
    let text = std::str::from_utf8(name).map_err(|_| improper())?;
    let plain = match validation {
        Validation::Legacy => text.into(),
        Validation::Utf8 => unescape_values(text),
    };
    // The unescaped name counts as well: a reserved name must not come in disguise.
    if is_proper(text, &plain, validation) { Ok(plain.into_owned()) } else { Err(improper()) }
}

/// Whether a group may have a label of a name, as it is written and as it is.
fn is_proper(written: &str, plain: &str, validation: Validation) -> bool {
    validation.is_label_name(plain)
        && !written.starts_with(RESERVED_PREFIX)
        && !plain.starts_with(RESERVED_PREFIX)
}

/// Two names that are written alike for some reader would be one to it, in the group's push times too.
fn tell_apart<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Result<(), GroupingError> {
    if names.clone().all(|name| Validation::Legacy.is_label_name(name)) {
        // All readers see them as they are.
        return Ok(());
    }
    let mut written: BTreeMap<_, &str> = BTreeMap::new();
    for name in names {
        for rendering in label_renderings(name) {
            let improper = rendering == METRIC_NAME_LABEL
                || (rendering == JOB_LABEL && name != JOB_LABEL)
                || (rendering == INSTANCE_LABEL && name != INSTANCE_LABEL)
                || *written.entry(rendering).or_insert(name) != name;
            if improper {
                return Err(GroupingError::ImproperName(name.as_bytes().to_vec()));
            }
        }
    }
    Ok(())
}

fn into_text(name: &str, value: Vec<u8>) -> Result<String, GroupingError> {
    String::from_utf8(value)
        .map_err(|e| GroupingError::ValueNotUtf8 { name: name.to_owned(), value: e.into_bytes() })
}

/// Decodes after removing trailing `=`, and line ends, which Go passes over. A fault gives the bytes decoded before it and its place, as Go reports them.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, (Vec<u8>, usize)> {
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
    let text: Vec<u8> = text[..end].iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
    BASE64.decode(&text).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            // One character is left over.
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                text.len() - text.len() % 4
            }
        };
        // Go decodes groups of four up to the fault.
        let whole = at - at % 4;
        (BASE64.decode(&text[..whole]).unwrap_or_default(), at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, validation: Validation) -> Result<GroupingKey, String> {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
        let rest = &decoded[1..];
        let first = rest.iter().position(|b| *b == b'/').unwrap();
        let (head, tail) = rest.split_at(first);
        let tail = &tail[1..];
        let end = tail.iter().position(|b| *b == b'/').unwrap_or(tail.len());
        GroupingKey::from_path(&tail[..end], head.ends_with(b"@base64"), &tail[end..], validation)
            .map_err(|e| e.to_string())
    }

    fn key(labels: &[(&str, &str)]) -> GroupingKey {
        GroupingKey(Labels::from_pairs(labels.iter().copied()))
    }

    #[test]
    fn paths_give_keys() {
        let ok: [(&str, &[(&str, &str)]); 16] = [
            ("/job/x", &[("job", "x")]),
            ("/job/x/", &[("job", "x")]),
            ("/job/x/instance/", &[("instance", ""), ("job", "x")]),
            ("/job/x/b/1/a/2", &[("a", "2"), ("b", "1"), ("job", "x")]),
            ("/job/x/a/1/a/2", &[("a", "2"), ("job", "x")]),
            ("/job/x/job/y", &[("job", "x")]),
            ("/job/%CE%A0/name/%CE%A0", &[("job", "Π"), ("name", "Π")]),
            ("/job/a+b/c/d%20e", &[("c", "d e"), ("job", "a+b")]),
            ("/job/x/a/%00%0A", &[("a", "\0\n"), ("job", "x")]),
            ("/job/x/a@base64/=", &[("a", ""), ("job", "x")]),
            ("/job/x/a@base64/", &[("a", ""), ("job", "x")]),
            ("/job@base64/L3Zhci90bXA=", &[("job", "/var/tmp")]),
            ("/job@base64/L3Zhci90bXA", &[("job", "/var/tmp")]),
            ("/job%40base64/L3Zhci90bXA====", &[("job", "/var/tmp")]),
            ("/job/x/a@base64/Y%0AQ", &[("a", "a"), ("job", "x")]),
            ("/job/x/a%40base64/YQ", &[("a", "a"), ("job", "x")]),
        ];
        for (path, labels) in ok {
            assert_eq!(read(path, Validation::Legacy), Ok(key(labels)), "{path}");
        }
    }

    #[test]
    fn faults_have_the_pushgateways_words() {
        for (path, error) in [
            ("/job/x/a", r#"odd number of components in label string "/a""#),
            ("/job/x/a/b/", r#"odd number of components in label string "/a/b/""#),
            ("/job/x/a%2Fb/c", r#"odd number of components in label string "/a/b/c""#),
            ("/job/x/1a/b", r#"improper label name "1a""#),
            ("/job/x/__foo/b", r#"improper label name "__foo""#),
            ("/job/x/a@base64@base64/b", r#"improper label name "a@base64""#),
            ("/job/x/@base64/x", r#"improper label name """#),
            ("/job/x/a.b/x", r#"improper label name "a.b""#),
            (
                "/job@base64/e",
                r#"invalid base64 encoding in job name "": illegal base64 data at input byte 0"#,
            ),
            (
                "/job@base64/L3Zhci90bXA+/x/y",
                r#"invalid base64 encoding in job name "/var/t": illegal base64 data at input byte 11"#,
            ),
            ("/job@base64/=", "job name is required"),
            (
                "/job/x/a@base64/!",
                r#"invalid base64 encoding for label a="!": illegal base64 data at input byte 0"#,
            ),
            ("/job/%FF", r#"value of label "job" is not valid utf8: "\xff""#),
            ("/job/x/a@base64/_w", r#"value of label "a" is not valid utf8: "\xff""#),
        ] {
            assert_eq!(read(path, Validation::Legacy), Err(error.to_owned()), "{path}");
        }
    }

    #[test]
    fn utf8_names_are_unescaped() {
        let utf8 = Validation::Utf8;
        for (path, labels) in [
            ("/job/x/U__foo_2e_bar/1", [("foo.bar", "1"), ("job", "x")]),
            ("/job/x/foo.bar/1", [("foo.bar", "1"), ("job", "x")]),
            ("/job/x/U__in_xxx_valid/1", [("U__in_xxx_valid", "1"), ("job", "x")]),
            ("/job/x/a%20b/1", [("a b", "1"), ("job", "x")]),
        ] {
            assert_eq!(read(path, utf8), Ok(key(&labels)), "{path}");
        }
        for path in ["/job/x/a.b/1/a_b/2", "/job/x/..name../1", "/job/x/%00/1"] {
            assert!(
                matches!(read(path, utf8), Err(text) if text.starts_with("improper label name")),
                "{path}"
            );
        }
        for names in [[".", ".."], ["a/b", "ü"]] {
            let key = GroupingKey::new("x", names.map(|name| (name, "1")));
            assert_eq!(read(&key.to_path(), utf8), Ok(key));
        }
        assert_eq!(read("/job/x/U__job/b", utf8), Ok(key(&[("job", "x")])));
        assert_eq!(read("/job/x/U__/b", utf8), Err(r#"improper label name "U__""#.to_owned()));
        assert_eq!(read("/job/x/U______foo/b", utf8), Err(r#"improper label name "U______foo""#.to_owned()));
    }

    #[test]
    fn keys_give_paths() {
        let key =
            GroupingKey::new("a b", [("path", "/var/tmp"), ("empty", ""), ("dots", ".."), ("n", "ü+%")]);
        assert_eq!(
            key.to_path(),
            "/job/a%20b/dots@base64/Li4/empty@base64/=/n/%C3%BC%2B%25/path@base64/L3Zhci90bXA"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_key_survives_its_id(job in ".{1,12}", labels in proptest::collection::vec((".{1,9}", ".{0,12}"), 0..4)) {
            let key = GroupingKey::new(&job, labels);
            let id = key.to_id();
            proptest::prop_assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{}", id);
            proptest::prop_assert_eq!(GroupingKey::from_id(&id), Some(key));
        }

        #[test]
        fn no_id_panics(id in "[A-Za-z0-9_-]{0,40}", text in "[/%a-f0-9jobü]{0,40}") {
            let _ = GroupingKey::from_id(&id);
            let encoded = BASE64.encode(text);
            let key = GroupingKey::from_id(&encoded);
            proptest::prop_assert!(key.is_none_or(|key| key.to_id() == encoded));
        }

        #[test]
        fn a_key_survives_its_path(job in ".{1,12}", labels in proptest::collection::vec(("[a-z]{1,3}", ".{0,12}"), 0..4)) {
            let key = GroupingKey::new(&job, labels);
            proptest::prop_assert_eq!(read(&key.to_path(), Validation::Legacy), Ok(key));
        }

        #[test]
        fn no_path_panics(job: Vec<u8>, base64: bool, rest: Vec<u8>, utf8: bool) {
            let validation = if utf8 { Validation::Utf8 } else { Validation::Legacy };
            let _ = GroupingKey::from_path(&job, base64, &rest, validation);
        }
    }
}
