//! Native histograms: what Prometheus takes, and their buckets one by one
//! (<https://prometheus.io/docs/specs/native_histograms/>).

use super::family::{Count, Histogram, NativeBuckets, NativeHistogram, Span};

/// The resolutions that every Prometheus with native histograms knows.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// One bucket of a native histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NativeBucket {
    /// Which ends belong to it.
    pub boundaries: Boundaries,
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// Observations in it.
    pub count: f64,
}

/// Which ends of a bucket belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundaries {
    /// The upper end: buckets of positive observations.
    UpperClosed,
    /// The lower end: buckets of negative observations.
    LowerClosed,
    /// Both ends: the zero bucket.
    Closed,
}

impl From<Boundaries> for u8 {
    /// The number that Prometheus' API has for it.
    fn from(boundaries: Boundaries) -> Self {
        match boundaries {
            Boundaries::UpperClosed => 0,
            Boundaries::LowerClosed => 1,
            Boundaries::Closed => 3,
        }
    }
}

/// Why a native histogram would make Prometheus refuse the whole scrape, if it would (`model/histogram`, `Validate`).
pub fn fault(histogram: &Histogram) -> Option<&'static str> {
    let native = histogram.native.as_deref()?;
    // What Prometheus' parser takes for a native histogram at all.
    let is_native = !native.positive.spans.is_empty()
        || !native.negative.spans.is_empty()
        || native.zero_threshold > 0.0
        || native.zero_count.as_f64() > 0.0;
    if !is_native {
        return None;
    }
    if !SCHEMAS.contains(&native.schema) {
        return Some("has a schema that is not between -4 and 8");
    }
    if is_float(histogram, native) { float_fault(native) } else { integer_fault(histogram, native) }
}

/// Whether Prometheus reads the float fields.
fn is_float(histogram: &Histogram, native: &NativeHistogram) -> bool {
    [histogram.count, native.zero_count].iter().any(|count| matches!(count, Count::Float(f) if *f > 0.0))
}

const MISMATCH: &str = "has spans that do not fit its buckets";
const NEGATIVE: &str = "has a negative number of observations in a bucket";

fn spans_fault(spans: &[Span], buckets: usize) -> Option<&'static str> {
    if spans.iter().skip(1).any(|span| span.offset < 0) {
        return Some("has a span that begins before the one before it ends");
    }
    let needed: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    (needed != buckets as u64).then_some(MISMATCH)
}

fn float_fault(native: &NativeHistogram) -> Option<&'static str> {
    let negative = |count: &f64| *count < 0.0;
    [&native.positive, &native.negative].into_iter().find_map(|side| {
        spans_fault(&side.spans, side.counts.len())
            .or_else(|| side.counts.iter().any(negative).then_some(NEGATIVE))
    })
}

fn integer_fault(histogram: &Histogram, native: &NativeHistogram) -> Option<&'static str> {
    let mut sum = whole(native.zero_count);
    for side in [&native.positive, &native.negative] {
        if let Some(fault) = spans_fault(&side.spans, side.deltas.len()) {
            return Some(fault);
        }
        let mut count = 0_i64;
        for delta in &side.deltas {
            count = match count.checked_add(*delta) {
                Some(count) if count >= 0 => count,
                _ => return Some(NEGATIVE),
            };
            sum = sum.saturating_add(count.unsigned_abs());
        }
    }
    let count = whole(histogram.count);
    let fits = if histogram.sum.is_nan() { sum <= count } else { sum == count };
    (!fits).then_some("does not count the observations that are in its buckets")
}

fn whole(count: Count) -> u64 {
    match count {
        Count::Integer(count) => count,
        Count::Float(_) => 0,
    }
}

impl NativeHistogram {
    /// The buckets that hold something, from the lowest on.
    pub fn buckets(&self) -> Vec<NativeBucket> {
        let side =
            |buckets: &NativeBuckets| indexed(buckets).filter(|(_, count)| *count != 0.0).collect::<Vec<_>>();
        let mut all: Vec<NativeBucket> = side(&self.negative)
            .into_iter()
            .rev()
            .map(|(index, count)| NativeBucket {
                boundaries: Boundaries::LowerClosed,
                lower: -self.bound(index),
                upper: -self.bound(index - 1),
                count,
            })
            .collect();
        let count = self.zero_count.as_f64();
        if count != 0.0 {
            let (lower, upper) = (-self.zero_threshold, self.zero_threshold);
            all.push(NativeBucket { boundaries: Boundaries::Closed, lower, upper, count });
        }
        all.extend(side(&self.positive).into_iter().map(|(index, count)| NativeBucket {
            boundaries: Boundaries::UpperClosed,
            lower: self.bound(index - 1),
            upper: self.bound(index),
            count,
        }));
        all
    }

    /// Upper end of the positive bucket with an index.
    fn bound(&self, index: i64) -> f64 {
        (index as f64 * f64::from(-self.schema).exp2()).exp2()
    }
}

/// Index and count of each bucket, as far as there are counts.
fn indexed(buckets: &NativeBuckets) -> impl Iterator<Item = (i64, f64)> {
    let counts: Vec<f64> = if buckets.counts.is_empty() {
        let running = buckets.deltas.iter().scan(0_i64, |count, delta| {
            *count = count.wrapping_add(*delta);
            Some(*count as f64)
        });
        running.collect()
    } else {
        buckets.counts.clone()
    };
    let mut next = 0_i64;
    let indices = buckets.spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    indices.zip(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(count: u64, native: NativeHistogram) -> Histogram {
        Histogram { count: Count::Integer(count), native: Some(Box::new(native)), ..Histogram::default() }
    }

    fn native(spans: &[(i32, u32)], deltas: &[i64]) -> NativeHistogram {
        let spans = spans.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect();
        let positive = NativeBuckets { spans, deltas: deltas.to_vec(), counts: Vec::new() };
        NativeHistogram { positive, ..NativeHistogram::default() }
    }

    #[test]
    fn what_prometheus_refuses_is_found() {
        for (count, native, is_fault) in [
            (5, native(&[(0, 2)], &[3, -1]), false),
            (4, native(&[(0, 2)], &[3, -1]), true),
            (0, native(&[(0, 0)], &[]), false),
            (3, native(&[(0, 3)], &[3]), true),
            (3, native(&[(0, 1)], &[3, 0]), true),
            (0, native(&[(0, 2)], &[1, -2]), true),
            (2, native(&[(0, 1), (-1, 1)], &[1, 0]), true),
            (2, native(&[(-3, 1), (1, 1)], &[1, 0]), false),
            (1, NativeHistogram { schema: 9, ..native(&[(0, 1)], &[1]) }, true),
            (1, NativeHistogram { schema: 9, ..native(&[], &[]) }, false),
        ] {
            let text = format!("{native:?}");
            assert_eq!(fault(&histogram(count, native)).is_some(), is_fault, "{count} {text}");
        }
        let nan = Histogram { sum: f64::NAN, ..histogram(9, native(&[(0, 1)], &[3])) };
        assert_eq!(fault(&nan), None);
        let float = NativeHistogram {
            positive: NativeBuckets {
                deltas: Vec::new(),
                counts: vec![0.5],
                ..native(&[(0, 1)], &[]).positive
            },
            ..NativeHistogram::default()
        };
        let float = Histogram { count: Count::Float(0.5), ..histogram(0, float) };
        assert_eq!(fault(&float), None);
    }

    #[test]
    fn buckets_go_from_the_lowest_on() {
        let mut histogram = native(&[(0, 2)], &[3, -1]);
        histogram.zero_threshold = 0.001;
        histogram.zero_count = Count::Integer(2);
        histogram.negative =
            NativeBuckets { spans: vec![Span { offset: 1, length: 1 }], deltas: vec![3], counts: Vec::new() };
        let buckets: Vec<_> =
            histogram.buckets().iter().map(|b| (u8::from(b.boundaries), b.lower, b.upper, b.count)).collect();
        assert_eq!(
            buckets,
            [(1, -2.0, -1.0, 3.0), (3, -0.001, 0.001, 2.0), (0, 0.5, 1.0, 3.0), (0, 1.0, 2.0, 2.0)]
        );
    }
}
