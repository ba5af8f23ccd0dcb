//! The command's metrics: lines gathered into families, the last value of a series wins.
//!
//! A bad line costs itself and nothing else: it is counted, the first one is reported, and what a gateway would refuse the
//! whole push for is refused here, sample by sample.

use crate::exposition::check::{self, Inconsistent};
use crate::exposition::labels::{Labels, RESERVED_PREFIX};
use crate::exposition::text::error::LineError;
use crate::exposition::text::line::{self, Line, Sample};
use crate::exposition::text::parse::{Gatherer, Repeated};
use crate::exposition::{Limits, MetricFamily, Rules, Validation};
use crate::grouping::JOB_LABEL;

/// How a line is read; how much is bounded by the line itself.
const RULES: Rules = Rules { validation: Validation::Legacy, limits: Limits::NONE };

/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Series, helps and types that a command may have.
pub const SERIES_MAX: usize = 50_000;
/// Bytes of lines that begin a series, a help or a type; about what gathering them costs.
pub const GATHERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Names that belong to the supervisor.
const OWN_PREFIX: &str = "jobmon_";

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] LineError),
    /// It cannot be exposed.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// It is too long.
    #[error("a line may have {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// There are too many.
    #[error("a command may have {SERIES_MAX} series and {GATHERED_BYTES_MAX} bytes of metrics")]
    TooMany,
    /// Its name is ours.
    #[error("names that begin with {OWN_PREFIX} are the supervisor's own")]
    OwnName,
    /// It has a label that the run has already.
    #[error("the label {0} comes from the grouping key")]
    GroupingLabel(String),
    /// It has a label that Prometheus keeps for itself.
    #[error("label names that begin with {RESERVED_PREFIX} are Prometheus' own: {0}")]
    ReservedLabel(String),
    /// It has a time.
    #[error("a sample must not have a timestamp")]
    Timestamp,
}

/// Families in the making.
#[derive(Debug, Clone)]
pub struct Collector {
    grouping: Labels,
    /// What every sample gets beside its own labels.
    labels: Labels,
    gatherer: Gatherer,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Whether the line that has begun is too long.
    overlong: bool,
    /// Series, helps and types that were begun.
    entries: usize,
    gathered_bytes: usize,
    lines: u64,
    taken: u64,
    refused: u64,
    first_refused: Option<(u64, Refused)>,
}

/// What was collected.
#[derive(Debug)]
pub struct Collected {
    /// Families that can be exposed together.
    pub families: Vec<MetricFamily>,
    /// Samples that were taken.
    pub taken: u64,
    /// Lines that were refused.
    pub refused: u64,
    /// Number of the first refused line (0: a whole family), and why.
    pub first_refused: Option<(u64, Refused)>,
}

impl Collector {
    /// Starts with nothing; `grouping` are the labels of the run, `labels` those for every sample.
    pub fn new(grouping: Labels, labels: Labels) -> Self {
        Self {
            grouping,
            labels,
            gatherer: Gatherer::new(Repeated::Replaces),
            partial: Vec::new(),
            overlong: false,
            entries: 0,
            gathered_bytes: 0,
            lines: 0,
            taken: 0,
            refused: 0,
            first_refused: None,
        }
    }

    /// Takes bytes in, however they are cut.
    pub fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let ends = piece.ends_with(b"\n");
            if self.overlong || self.partial.len() + piece.len() > LINE_BYTES_MAX {
                self.partial.clear();
                self.overlong = !ends;
                if ends {
                    self.lines += 1;
                    self.refuse(Refused::TooLong);
                }
            } else if !ends {
                self.partial.extend_from_slice(piece);
            } else if self.partial.is_empty() {
                self.line(piece);
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(piece);
                self.line(&line);
            }
        }
    }

    /// Everything up to now. The last line may do without its end if `ended`.
    pub fn collected(&self, ended: bool) -> Collected {
        let mut all = self.clone();
        if ended && (all.overlong || !all.partial.is_empty()) {
            all.take(b"\n");
        }
        let mut families = all.gatherer.finish();
        families.iter_mut().for_each(|family| family.add_missing_labels(&all.labels));
        let kept = check::keep_exposable(families);
        let dropped = kept.dropped as u64;
        Collected {
            families: kept.families,
            taken: all.taken.saturating_sub(dropped),
            refused: all.refused + dropped,
            first_refused: all.first_refused.or(kept.first_fault.map(|fault| (0, fault.into()))),
        }
    }

    /// Notes that there was more than can be taken.
    pub fn refuse_rest(&mut self) {
        self.lines += 1;
        self.refuse(Refused::TooMany);
    }

    fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        // What Windows tools write.
        let without_cr = line.strip_suffix(b"\r\n").map(|line| [line, b"\n"].concat());
        if let Err(refused) = self.add(without_cr.as_deref().unwrap_or(line)) {
            self.refuse(refused);
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut line = line::read(bytes, &self.gatherer, &RULES)?;
        let is_new = match &mut line {
            Line::Blank => return Ok(()),
            Line::Help { family, .. } | Line::Type { family, .. } => {
                not_ours(&family.name)?;
                true
            }
            Line::Sample(sample) => {
                self.judge(sample)?;
                // To Prometheus a label without value is no label.
                sample.labels.retain(|(_, value)| !value.is_empty());
                self.gatherer.is_new_series(sample)
            }
        };
        if is_new {
            if self.entries >= SERIES_MAX || self.gathered_bytes + bytes.len() > GATHERED_BYTES_MAX {
                return Err(Refused::TooMany);
            }
            self.gathered_bytes += bytes.len();
            self.entries += 1;
        }
        self.taken += u64::from(matches!(line, Line::Sample(_)));
        self.gatherer.add(line);
        Ok(())
    }

    fn judge(&self, sample: &Sample<'_>) -> Result<(), Refused> {
        not_ours(&sample.family.name)?;
        if sample.timestamp_ms.is_some() {
            return Err(Refused::Timestamp);
        }
        for (name, _) in &sample.labels {
            if name == JOB_LABEL || self.grouping.get(name).is_some() {
                return Err(Refused::GroupingLabel(name.to_string()));
            }
            if name.starts_with(RESERVED_PREFIX) {
                return Err(Refused::ReservedLabel(name.to_string()));
            }
        }
        Ok(())
    }

    fn refuse(&mut self, refused: Refused) {
        self.refused += 1;
        self.first_refused.get_or_insert((self.lines, refused));
    }
}

fn not_ours(name: &str) -> Result<(), Refused> {
    if format!("{name}_").starts_with(OWN_PREFIX) { Err(Refused::OwnName) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::labels::Escaping;
    use crate::exposition::text;

    fn collector() -> Collector {
        Collector::new(Labels::from_pairs([("job", "j"), ("team", "x")]), Labels::default())
    }

    fn collect(body: &[u8]) -> (String, Collected) {
        let mut collector = collector();
        collector.take(body);
        let collected = collector.collected(true);
        let mut out = Vec::new();
        text::encode(&mut out, &collected.families, Escaping::Underscores);
        (String::from_utf8(out).expect("text is UTF-8"), collected)
    }

    #[test]
    fn the_last_value_of_a_series_wins() {
        let (text, collected) = collect(
            b"# TYPE items counter\nitems 1\nitems{a=\"1\",b=\"2\"} 5\nitems 2\nitems{b=\"2\",a=\"1\"} 6\n\
              # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1\"} 2\nh_count 3\n",
        );
        assert_eq!(
            text,
            "# TYPE items counter\nitems 2\nitems{a=\"1\",b=\"2\"} 6\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\n\
             h_bucket{le=\"+Inf\"} 3\nh_sum 0\nh_count 3\n"
        );
        assert_eq!((collected.taken, collected.refused), (7, 0));
    }

    #[test]
    fn a_bad_line_costs_itself_only() {
        for bad in [
            "items x",
            "jobmon_success 1",
            "# TYPE jobmon histogram",
            "# HELP jobmon_success mine",
            "items{job=\"y\"} 1",
            "items{team=\"y\"} 1",
            "items{__x=\"y\"} 1",
            "items 1 1395066363000",
            "\0\u{fffd}",
            "items{a=\"\\q\"} 1",
            "# TYPE items gauge",
        ] {
            let (text, collected) = collect(format!("items 1\n{bad}\nother 2\n").as_bytes());
            assert_eq!(text, "# TYPE items untyped\nitems 1\n# TYPE other untyped\nother 2\n", "{bad}");
            assert_eq!((collected.taken, collected.refused), (2, 1), "{bad}");
            assert_eq!(collected.first_refused.map(|(line, _)| line), Some(2), "{bad}");
        }
        // Nothing of a bad line stays behind: the name is still free for its type.
        let (text, _) = collect(b"items x\n# TYPE items counter\nitems 1\n");
        assert_eq!(text, "# TYPE items counter\nitems 1\n");
    }

    #[test]
    fn families_that_collide_are_refused() {
        let (text, collected) = collect(b"s_sum 1\n# TYPE s summary\ns 1\nx 1\n");
        assert_eq!(text, "# TYPE s_sum untyped\ns_sum 1\n# TYPE x untyped\nx 1\n");
        assert_eq!((collected.refused, collected.first_refused.map(|(line, _)| line)), (1, Some(0)));
    }

    #[test]
    fn a_sample_that_collides_costs_itself_only() {
        let (text, collected) = collect(b"m{a=\"\"} 1\nm 2\nm{b=\"x\"} 4\nother 3\n");
        assert_eq!(text, "# TYPE m untyped\nm 2\nm{b=\"x\"} 4\n# TYPE other untyped\nother 3\n");
        assert_eq!(
            (collected.taken, collected.refused),
            (4, 0),
            "an empty label is no label: the last value won"
        );

        let labels = Labels::from_pairs([("a", "1")]);
        let mut collector = Collector::new(Labels::default(), labels);
        collector.take(b"m{a=\"1\"} 1\nm 2\nm{a=\"2\"} 3\n");
        let collected = collector.collected(true);
        let mut out = Vec::new();
        text::encode(&mut out, &collected.families, Escaping::Underscores);
        assert_eq!(String::from_utf8_lossy(&out), "# TYPE m untyped\nm{a=\"1\"} 1\nm{a=\"2\"} 3\n");
        assert_eq!((collected.taken, collected.refused), (2, 1));
    }

    #[test]
    fn types_without_samples_have_a_limit_too() {
        let flood: String = (0..SERIES_MAX + 5).map(|i| format!("# TYPE t{i} gauge\n")).collect();
        assert_eq!(collect(flood.as_bytes()).1.refused, 5);
    }

    #[test]
    fn lines_end_as_people_end_them() {
        let (text, collected) = collect(b"a 1\r\n\r\nb 2");
        assert_eq!(text, "# TYPE a untyped\na 1\n# TYPE b untyped\nb 2\n");
        assert_eq!(collected.refused, 0);
    }

    #[test]
    fn pieces_make_lines() {
        let mut collector = collector();
        for byte in b"a 1\nb 2\n" {
            collector.take(&[*byte]);
        }
        collector.take(b"c");
        assert_eq!(collector.collected(false).taken, 2);
        collector.take(b" 3");
        assert_eq!(collector.collected(false).taken, 2);
        assert_eq!(collector.collected(true).taken, 3);
    }

    #[test]
    fn limits_hold() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let (text, collected) = collect(format!("a 1\n{long}{long}{long}\nb 2\n{long}").as_bytes());
        assert_eq!(text, "# TYPE a untyped\na 1\n# TYPE b untyped\nb 2\n");
        assert_eq!(collected.refused, 2);
        assert_eq!(collected.first_refused, Some((2, Refused::TooLong)));
        let many: String = (0..SERIES_MAX + 5).map(|i| format!("a{{i=\"{i}\"}} 1\n")).collect();
        let (_, collected) = collect((many + "a{i=\"0\"} 2\n").as_bytes());
        assert_eq!((collected.taken, collected.refused), (SERIES_MAX as u64 + 1, 5));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(chunks: Vec<Vec<u8>>) {
            let mut collector = collector();
            chunks.iter().for_each(|chunk| collector.take(chunk));
            collector.collected(true);
        }
    }
}
