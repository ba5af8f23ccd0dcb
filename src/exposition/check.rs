//! What may be exposed: the rules that pushed families must meet alone and beside others.
//!
//! The rules judge what would be *rendered*, because that is what Prometheus reads: names as they are escaped, an empty
//! label as an absent one. Whatever passes renders to an exposition that parses, whoever else pushed what.
//! Texts are those of client_golang's `Gather`, as clients of a Pushgateway know them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::family::{Metric, MetricFamily, MetricType, SAMPLE_SUFFIXES, Value};
use super::labels::{Labels, METRIC_NAME_LABEL, RESERVED_PREFIX, Validation, label_renderings, renderings};
use super::native;
use super::protobuf::prototext::{describe, describe_labels};
use super::series::{Fingerprint, Fingerprints, GroupHash, SeriesHash, completed, stripped};
use super::text::go::quote;

/// Why families cannot be exposed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Inconsistent {
    #[error("not judged yet")]
    NotJudged,
    #[error("pushed metrics must not have timestamps")]
    Timestamps,
    #[error("collected metric family has a name that is not utf8: {}", quote(.bytes))]
    NameNotUtf8 { bytes: Vec<u8> },
    #[error("collected metric family has no name")]
    NoName,
    #[error("collected metric family has a name with a NUL in it: {}", quote(.family.as_bytes()))]
    NameWithNul { family: String },
    #[error("collected metric {} has a help text that is not utf8: {}", quote(.family.as_bytes()), quote(.bytes))]
    HelpNotUtf8 { family: String, bytes: Vec<u8> },
    #[error("collected metric {} has an unknown type: {number}", quote(.family.as_bytes()))]
    UnknownType { family: String, number: i32 },
    #[error("collected metric {} {{ {}}} is not a {}", quote(.family.as_bytes()), describe_labels(.labels), .kind.proto_name())]
    WrongValue { family: String, labels: Labels, kind: MetricType },
    #[error("collected metric {} has a label with an invalid name: {}", quote(.family.as_bytes()), quote(.bytes))]
    LabelNameNotUtf8 { family: String, bytes: Vec<u8> },
    #[error("collected metric {} has a label named {} whose value is not utf8: {}", quote(.family.as_bytes()), quote(.label.as_bytes()), quote(.bytes))]
    LabelValueNotUtf8 { family: String, label: String, bytes: Vec<u8> },
    #[error("collected metric {} {{ {metric}}} has two or more labels with the same name: {label}", quote(.family.as_bytes()))]
    DuplicateLabel { family: String, metric: String, label: String },
    #[error("collected metric {} {{ {metric}}} has a label with an invalid name: {label}", quote(.family.as_bytes()))]
    InvalidLabelName { family: String, metric: String, label: String },
    #[error("collected metric {} {{ {metric}}} must not have an explicit {} label", quote(.family.as_bytes()), quote(.label.as_bytes()))]
    ExplicitBound { family: String, metric: String, label: &'static str },
    #[error("collected metric {} {{ {metric}}} {problem}, Prometheus would refuse it", quote(.family.as_bytes()))]
    BadHistogram { family: String, metric: String, problem: &'static str },
    #[error("collected metric {} {{ {metric}}} was collected before with the same name and label values", quote(.family.as_bytes()))]
    DuplicateSeries { family: String, metric: String },
    #[error("collected metric {} {{ {metric}}} is not a {}", quote(.family.as_bytes()), .expected.proto_name())]
    TypeConflict { family: String, metric: String, expected: MetricType },
    #[error("gathered metric family {family} has type {} but should have {}", .kind.proto_name(), .expected.proto_name())]
    OwnTypeConflict { family: String, kind: MetricType, expected: MetricType },
    #[error("collected metric named {} collides with previously collected {} named {}", quote(.name.as_bytes()), .kind.text_name(), quote(.base.as_bytes()))]
    CollidesWithBase { name: String, base: String, kind: MetricType },
    #[error("collected {} named {} collides with previously collected metric named {}", collided(.name, .other), quote(.name.as_bytes()), quote(.other.as_bytes()))]
    CollidesWithPart { name: String, other: String },
    #[error("collected metric named {} collides with previously collected metric named {}: both may be exposed as {escaped}", quote(.name.as_bytes()), quote(.other.as_bytes()))]
    CollidesEscaped { name: String, other: String, escaped: String },
    #[error("{count} error(s) occurred:{}", list(*.count, .listed))]
    Several { count: usize, listed: Vec<Inconsistent> },
}

/// How many of several faults are listed in an answer.
const LISTED_FAULTS_MAX: usize = 100;

fn list(count: usize, listed: &[Inconsistent]) -> String {
    let mut text = String::new();
    for fault in listed {
        write!(text, "\n* {fault}").expect("a String grows");
    }
    if count > listed.len() { text + "\n* ..." } else { text }
}

/// Faults found so far; beyond [`LISTED_FAULTS_MAX`] they are only counted.
#[derive(Default)]
struct Faults {
    count: usize,
    listed: Vec<Inconsistent>,
}

impl Faults {
    fn add(&mut self, fault: impl FnOnce() -> Inconsistent) {
        self.count += 1;
        if self.listed.len() < LISTED_FAULTS_MAX {
            self.listed.push(fault());
        }
    }

    fn into_result(mut self) -> Result<(), Inconsistent> {
        match self.count {
            0 => Ok(()),
            1 => Err(self.listed.swap_remove(0)),
            count => Err(Inconsistent::Several { count, listed: self.listed }),
        }
    }
}

fn collided(name: &str, other: &str) -> &'static str {
    if other.len() > name.len() && other.ends_with("_bucket") { "histogram" } else { "histogram or summary" }
}

/// What is exposed beside the families that are judged.
pub trait Exposed {
    /// The name (as pushed) and type of the family that is exposed under an escaped name by others.
    fn family(&self, escaped: &str) -> Option<(&str, MetricType)>;
    /// Type of a family of the server's own.
    fn own(&self, name: &str) -> Option<MetricType>;
    /// Whether others expose a series of this identity.
    fn has_series(&self, fingerprint: Fingerprint) -> bool;
}

/// Nothing is exposed yet.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Exposed for Nothing {
    fn family(&self, _: &str) -> Option<(&str, MetricType)> {
        None
    }

    fn own(&self, _: &str) -> Option<MetricType> {
        None
    }

    fn has_series(&self, _: Fingerprint) -> bool {
        false
    }
}

/// Judges families that [`strip`](super::series::strip) has been applied to, by themselves: beside nothing else. Returns the fingerprints of each
/// family's series.
///
/// # Errors
/// Every fault found, in the order of the families.
pub fn alone(
    families: &[MetricFamily],
    grouping: &Labels,
    hash: &SeriesHash,
) -> Result<Vec<Vec<Fingerprint>>, Inconsistent> {
    if families.iter().flat_map(|family| &family.metrics).any(|metric| metric.timestamp_ms.is_some()) {
        return Err(Inconsistent::Timestamps);
    }
    let mut check = Check::new(&Nothing, Some(grouping), hash);
    check.names.reserve(families.len());
    check.series.reserve(families.len());
    let fingerprints = families.iter().map(|family| check.family(family)).collect();
    check.faults.into_result()?;
    Ok(fingerprints)
}

/// Judges families that are sound [`alone`] beside what is exposed; costs what they hold, however much that is.
///
/// # Errors
/// Every fault found, in the order of the families.
pub fn beside<'a>(
    families: impl IntoIterator<Item = (&'a MetricFamily, &'a [Fingerprint])>,
    grouping: &'a Labels,
    exposed: &impl Exposed,
    hash: &SeriesHash,
) -> Result<(), Inconsistent> {
    let families = families.into_iter().filter(|(family, _)| !family.metrics.is_empty());
    // One after the other, because each look is a wait for memory, and so many of them wait at once.
    let has_series = |series: &[Fingerprint]| series.iter().any(|series| exposed.has_series(*series));
    let families: Vec<_> = families.map(|(family, series)| (family, has_series(series))).collect();
    let mut check = Check::new(exposed, Some(grouping), hash);
    for (family, has_series) in families {
        if let Err(fault) = check.name_and_type(family) {
            check.faults.add(|| fault);
        } else if has_series {
            // Now it matters which.
            check.family(family);
        }
    }
    check.faults.into_result()
}

/// What [`keep_exposable`] has left, and what it has not.
#[derive(Debug)]
pub struct Kept {
    /// Families that can be exposed together.
    pub families: Vec<MetricFamily>,
    /// Metrics that were taken out.
    pub dropped: usize,
    /// Why the first one was.
    pub first_fault: Option<Inconsistent>,
}

/// Takes out what cannot be exposed together with the rest; of two that collide the first stays.
pub fn keep_exposable(families: Vec<MetricFamily>) -> Kept {
    let (good, first_fault) = {
        let hash = SeriesHash::default();
        let mut check = Check::new(&Nothing, None, &hash);
        let mut good: Vec<Vec<bool>> = Vec::with_capacity(families.len());
        for family in &families {
            let fits = check.name_and_type(family).map_err(|fault| check.faults.add(|| fault)).is_ok();
            good.push(family.metrics.iter().map(|metric| fits && check.fits(family, metric)).collect());
        }
        (good, check.faults.listed.into_iter().next())
    };
    let mut dropped = 0;
    let mut kept = families;
    for (family, good) in kept.iter_mut().zip(good) {
        dropped += good.iter().filter(|good| !**good).count();
        let mut good = good.into_iter();
        family.metrics.retain(|_| good.next().unwrap_or_default());
    }
    kept.retain(|family| !family.metrics.is_empty());
    Kept { families: kept, dropped, first_fault }
}

struct Check<'a, E> {
    exposed: &'a E,
    /// Labels of the group that the families do not have yet.
    grouping: Option<&'a Labels>,
    hash: GroupHash<'a>,
    /// A type for which the group's own labels were found good.
    bare: Option<MetricType>,
    /// Escaped names of the families judged so far.
    names: HashMap<Cow<'a, str>, (&'a str, MetricType)>,
    series: HashSet<Fingerprint>,
    faults: Faults,
}

impl<'a, E: Exposed> Check<'a, E> {
    fn new(exposed: &'a E, grouping: Option<&'a Labels>, hash: &'a SeriesHash) -> Self {
        Self {
            exposed,
            grouping,
            hash: GroupHash::new(hash, grouping),
            bare: None,
            names: HashMap::new(),
            series: HashSet::new(),
            faults: Faults::default(),
        }
    }

    fn family(&mut self, family: &'a MetricFamily) -> Vec<Fingerprint> {
        if family.metrics.is_empty() {
            // It exposes nothing, so that nothing can contradict it and it must not stand before what does.
            if let Err(fault) = name(family) {
                self.faults.add(|| fault);
            }
            return Vec::new();
        }
        if let Err(fault) = self.name_and_type(family) {
            self.faults.add(|| fault);
            return Vec::new();
        }
        let mut fingerprints = Vec::with_capacity(family.metrics.len());
        for metric in &family.metrics {
            match self.metric(family, metric) {
                Ok(more) => fingerprints.extend(more),
                Err(flaw) => self.add(flaw, family, metric),
            }
        }
        fingerprints
    }

    fn fits(&mut self, family: &MetricFamily, metric: &Metric) -> bool {
        self.metric(family, metric).map_err(|flaw| self.add(flaw, family, metric)).is_ok()
    }

    fn add(&mut self, flaw: Flaw, family: &MetricFamily, metric: &Metric) {
        let grouping = self.grouping;
        self.faults.add(|| flaw.of(family, describe_all(metric, grouping)));
    }

    fn describe(&self, metric: &Metric) -> String {
        describe_all(metric, self.grouping)
    }

    fn known(&self, escaped: &str) -> Option<(&str, MetricType)> {
        self.names.get(escaped).copied().or_else(|| self.exposed.family(escaped))
    }

    fn name_and_type(&mut self, family: &'a MetricFamily) -> Result<(), Inconsistent> {
        name(family)?;
        for escaped in renderings(&family.name) {
            self.name_as(family, &escaped)?;
        }
        for escaped in renderings(&family.name) {
            self.names.insert(escaped, (&family.name, family.kind));
        }
        Ok(())
    }

    /// Judges a family as it is exposed under one of its names.
    fn name_as(&self, family: &MetricFamily, escaped: &str) -> Result<(), Inconsistent> {
        let name = || family.name.clone();
        let collision = |other: &str| Inconsistent::CollidesEscaped {
            name: name(),
            other: other.to_owned(),
            escaped: escaped.to_owned(),
        };
        match self.known(escaped) {
            Some((other, _)) if other != family.name => return Err(collision(other)),
            Some((_, expected)) if expected != family.kind => {
                let Some(metric) = family.metrics.first().map(|metric| self.describe(metric)) else {
                    return Ok(());
                };
                return Err(Inconsistent::TypeConflict { family: name(), metric, expected });
            }
            Some(_) | None => {}
        }
        match self.exposed.own(escaped) {
            Some(_) if escaped != family.name => return Err(collision(escaped)),
            Some(expected) if expected != family.kind => {
                return Err(Inconsistent::OwnTypeConflict { family: name(), kind: family.kind, expected });
            }
            Some(_) | None => {}
        }
        self.suffixes(family, escaped)
    }

    /// No sample of a histogram or summary may have the name of another family.
    fn suffixes(&self, family: &MetricFamily, escaped: &str) -> Result<(), Inconsistent> {
        let taken = |name: &str| self.known(name).map(|(_, kind)| kind).or_else(|| self.exposed.own(name));
        for suffix in SAMPLE_SUFFIXES {
            let Some(base) = escaped.strip_suffix(suffix).filter(|base| !base.is_empty()) else { continue };
            if let Some(kind) = taken(base).filter(|kind| kind.suffixes().contains(&suffix)) {
                let (name, base) = (family.name.clone(), base.to_owned());
                return Err(Inconsistent::CollidesWithBase { name, base, kind });
            }
        }
        for suffix in family.kind.suffixes() {
            let other = format!("{escaped}{suffix}");
            if taken(&other).is_some() {
                return Err(Inconsistent::CollidesWithPart { name: family.name.clone(), other });
            }
        }
        Ok(())
    }

    fn metric(&mut self, family: &MetricFamily, metric: &Metric) -> Result<Fingerprints, Flaw> {
        self.labels(family, metric)?;
        if let Value::Histogram(histogram) = &metric.value
            && let Some(problem) = native::fault(histogram)
        {
            return Err(Flaw::BadHistogram(problem));
        }
        let fingerprints = self.hash.metric(&family.name, metric.labels.iter());
        for fingerprint in fingerprints.clone() {
            if !self.series.insert(fingerprint) || self.exposed.has_series(fingerprint) {
                return Err(Flaw::DuplicateSeries);
            }
        }
        Ok(fingerprints)
    }

    fn labels(&mut self, family: &MetricFamily, metric: &Metric) -> Result<(), Flaw> {
        let bound = family.kind.bound_label();
        let is_bare = metric.labels.is_empty();
        if is_bare && self.bare == Some(family.kind) {
            return Ok(());
        }
        let labels = all_labels(metric, self.grouping);
        let mut names = HashMap::with_capacity(labels.len());
        for (place, (label, _)) in labels.iter().enumerate() {
            if !Validation::Utf8.is_label_name(label) || label.starts_with(RESERVED_PREFIX) {
                return Err(Flaw::InvalidLabelName(label.to_owned()));
            }
            if let Some(bound) = bound.filter(|bound| *bound == label) {
                return Err(Flaw::ExplicitBound(bound));
            }
            for escaped in label_renderings(label) {
                if escaped == METRIC_NAME_LABEL {
                    return Err(Flaw::InvalidLabelName(label.to_owned()));
                }
                if *names.entry(escaped).or_insert(place) != place {
                    return Err(Flaw::DuplicateLabel(label.to_owned()));
                }
            }
        }
        if is_bare {
            self.bare = Some(family.kind);
        }
        Ok(())
    }
}

fn all_labels<'m>(metric: &'m Metric, grouping: Option<&Labels>) -> Cow<'m, Labels> {
    match grouping {
        None => Cow::Borrowed(&metric.labels),
        Some(grouping) => Cow::Owned(Labels::from_pairs(completed(metric.labels.iter(), grouping))),
    }
}

fn describe_all(metric: &Metric, grouping: Option<&Labels>) -> String {
    let labels = all_labels(metric, grouping).into_owned();
    describe(&Metric { labels, ..metric.clone() })
}

/// Whether a family can have its name.
fn name(family: &MetricFamily) -> Result<(), Inconsistent> {
    if family.name.is_empty() {
        return Err(Inconsistent::NoName);
    }
    if !Validation::Utf8.is_metric_name(&family.name) {
        return Err(Inconsistent::NameWithNul { family: family.name.clone() });
    }
    Ok(())
}

/// What is wrong with one metric, before it is put into words: a push may have millions of them.
enum Flaw {
    InvalidLabelName(String),
    ExplicitBound(&'static str),
    DuplicateLabel(String),
    BadHistogram(&'static str),
    DuplicateSeries,
}

impl Inconsistent {
    /// The same, where it was found before the metric had the labels of its group.
    #[must_use]
    pub fn in_group(self, grouping: &Labels) -> Self {
        match self {
            Self::WrongValue { family, labels, kind } => {
                let names: Vec<&str> = grouping.iter().map(|(name, _)| name).collect();
                let labels = Labels::from_pairs(completed(stripped(&labels, &names).iter(), grouping));
                Self::WrongValue { family, labels, kind }
            }
            other => other,
        }
    }
}

impl Flaw {
    fn of(self, family: &MetricFamily, metric: String) -> Inconsistent {
        let family = family.name.clone();
        match self {
            Self::InvalidLabelName(label) => Inconsistent::InvalidLabelName { family, metric, label },
            Self::ExplicitBound(label) => Inconsistent::ExplicitBound { family, metric, label },
            Self::DuplicateLabel(label) => Inconsistent::DuplicateLabel { family, metric, label },
            Self::BadHistogram(problem) => Inconsistent::BadHistogram { family, metric, problem },
            Self::DuplicateSeries => Inconsistent::DuplicateSeries { family, metric },
        }
    }
}

/// The fault that a family of another type than it has to be is.
pub fn type_conflict(family: &MetricFamily, grouping: &Labels, expected: MetricType) -> Inconsistent {
    let metric =
        family.metrics.first().map_or_else(String::new, |metric| describe_all(metric, Some(grouping)));
    Inconsistent::TypeConflict { family: family.name.clone(), metric, expected }
}

/// The fault that a series which somebody else exposes already would be.
pub fn duplicate(family: &str, metric: &Metric) -> Inconsistent {
    Inconsistent::DuplicateSeries { family: family.to_owned(), metric: describe(metric) }
}
