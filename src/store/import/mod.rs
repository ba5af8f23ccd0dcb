//! What a Pushgateway has left in its `--persistence.file`.
//!
//! The file is a `gob` of `map[string]MetricGroup` (the Pushgateway's `storage/diskmetricstore.go`): for each group its
//! labels, and its families by name, each with the time of its push and as protobuf.

mod gob;

use gob::Value as Gob;
use tracing::warn;

use super::group::{Group, UnixNanos};
use super::journal::record::{Exposed, StoredGroup};
use super::own::{Own, OwnNames};
use crate::exposition::{Limits, MetricFamily, Value, protobuf, series};
use crate::grouping::{GroupingKey, JOB_LABEL};

/// From the year 1 to 1970, in seconds.
const UNIX_EPOCH: i64 = 62_135_596_800;

/// Reads the groups, by their keys. Nothing where the bytes are no such file.
pub(super) fn groups(bytes: &[u8]) -> Option<Vec<StoredGroup>> {
    let file = gob::decode(bytes)?;
    let Gob::Map(entries) = file else { return None };
    let mut groups: Vec<StoredGroup> =
        entries.iter().map(|(_, stored)| group(stored)).collect::<Option<_>>()?;
    groups.sort_by(|a, b| a.group.key.cmp(&b.group.key));
    // Nobody knows which came first.
    groups.iter_mut().zip(1..).for_each(|(stored, sequence)| stored.group.sequence = sequence);
    Some(groups)
}

fn group(stored: &Gob) -> Option<StoredGroup> {
    let labels = stored.field("Labels").map(Gob::entries).unwrap_or_default();
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| Some((name.text()?, value.text()?))).collect::<Option<_>>()?;
    let (_, job) = labels.iter().find(|(name, _)| *name == JOB_LABEL)?;
    let key = GroupingKey::new(job, labels.iter().copied());
    let names = OwnNames::default();
    let mut families = Vec::new();
    let (mut succeeded_at, mut failed_at) = (UnixNanos::default(), UnixNanos::default());
    for (name, timestamped) in stored.field("Metrics").map(Gob::entries).unwrap_or_default() {
        let at = timestamped.field("Timestamp").and_then(Gob::bytes).and_then(time).unwrap_or_default();
        let Some(mut family) = family(timestamped.field("GobbableMetricFamily")?.bytes()?) else {
            // A Pushgateway that checks nothing keeps what nobody can read.
            warn!(?name, "not imported: a family that cannot be exposed");
            continue;
        };
        match name.text()? {
            name if name == names.name(Own::PushTime) => succeeded_at = push_time(&family, at),
            name if name == names.name(Own::PushFailureTime) => failed_at = push_time(&family, at),
            _ => {
                series::strip(&mut family, key.labels());
                // Whether it can be exposed is to be found out.
                families.push((family, at, Exposed::No));
            }
        }
    }
    let since = [succeeded_at, failed_at].into_iter().filter(|at| *at != UnixNanos::default()).min();
    let mut group = Group::new(key, since.unwrap_or_default(), 0);
    (group.succeeded_at, group.failed_at) = (succeeded_at, failed_at);
    group.is_refused = failed_at > succeeded_at;
    Some(StoredGroup { group, families })
}

fn family(message: &[u8]) -> Option<MetricFamily> {
    let mut delimited = Vec::with_capacity(message.len() + 10);
    prost::encode_length_delimiter(message.len(), &mut delimited).ok()?;
    delimited.extend_from_slice(message);
    protobuf::decode(&delimited, &Limits::NONE).ok()?.pop()
}

/// Go's `Time.MarshalBinary`: a version, seconds since the year 1, nanoseconds, and a time zone, the highest byte first.
fn time(bytes: &[u8]) -> Option<UnixNanos> {
    let (version, rest) = bytes.split_first()?;
    let (seconds, rest) = rest.split_first_chunk::<8>()?;
    let (nanos, _) = rest.split_first_chunk::<4>()?;
    (1..=2).contains(version).then_some(())?;
    let seconds = i64::from_be_bytes(*seconds).checked_sub(UNIX_EPOCH)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(i32::from_be_bytes(*nanos))).map(UnixNanos)
}

/// What a group's push time stands for: the time of the family is the same, and exact.
#[allow(clippy::cast_possible_truncation)]
fn push_time(family: &MetricFamily, at: UnixNanos) -> UnixNanos {
    match family.metrics.first().map(|metric| &metric.value) {
        Some(Value::Gauge(seconds)) if at.seconds().to_bits() == seconds.to_bits() => at,
        Some(Value::Gauge(seconds)) => UnixNanos((seconds * 1e9) as i64),
        _ => UnixNanos::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_go() {
        // time.Unix(1, 2).UTC().MarshalBinary()
        let bytes = [1, 0, 0, 0, 14, 119, 145, 247, 1, 0, 0, 0, 2, 255, 255];
        assert_eq!(time(&bytes), Some(UnixNanos(1_000_000_002)));
        assert_eq!(time(&bytes[..9]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = groups(&bytes);
        }
    }
}
