//! Pushes of metrics: they cost what they bring and a look through the families that they name, not what it would cost to
//! push these families.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::{Judged, State};
use crate::exposition::MetricFamily;
use crate::exposition::check::Inconsistent;
use crate::exposition::series::{Fingerprint, GroupHash};
use crate::grouping::GroupingKey;
use crate::store::Push;
use crate::store::group::{Place, Slot, StoredFamily};
use crate::store::metric::StoredMetric;
use crate::store::snapshot::{Snapshot, family_bytes, segments_mut};

/// Where the metrics of a pushed family are in that of the group; those that are not there come to it.
type Places = Vec<Option<usize>>;

/// Labels with a value: one without is none.
type Told<'a> = SmallVec<[(&'a str, &'a str); 8]>;

impl State {
    /// Makes a push of metrics that brings nothing but values for series that its group exposes. Returns whether it was such
    /// a push; its values are gone then.
    pub(super) fn set_metrics(&mut self, push: &mut Push) -> bool {
        let Some((slot, places)) = self.places(push) else { return false };
        let is_update = places.iter().flatten().all(Option::is_some);
        if is_update {
            self.amend(slot, push, &places, &[]);
        }
        is_update
    }

    /// Makes a push of metrics that was judged by itself, where the families of its group take them as they are. Otherwise it
    /// becomes one of families, each with what the group has of it, and how that was judged by itself is returned.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(super) fn patch(&mut self, push: &mut Push, judged: &Judged) -> Result<Option<Judged>, Inconsistent> {
        match judged {
            // Kept aside, it would take along what the group has of its families.
            Err(fault) if !self.rules.quarantine || *fault != Inconsistent::Timestamps => {
                return Err(fault.clone());
            }
            Ok(_) if self.add_metrics(push) => return Ok(None),
            _ => {}
        }
        let group = self.slots.get(&push.key).map(|slot| self.snapshot.group(*slot));
        let is_changed = push.completed_from(group)?;
        Ok(Some(if is_changed { push.judge(self.hash()) } else { judged.clone() }))
    }

    /// Makes a push of metrics whose families the group exposes, if nothing else exposes the series that come to them.
    /// Names and types need no check: they stay what they are.
    fn add_metrics(&mut self, push: &mut Push) -> bool {
        let Some((slot, places)) = self.places(push) else { return false };
        let hash = GroupHash::new(self.hash(), Some(push.key.labels()));
        let series_of = |(family, places): (&MetricFamily, &Places)| {
            let new = family.metrics.iter().zip(places).filter(|(_, place)| place.is_none());
            new.flat_map(|(metric, _)| hash.metric(&family.name, metric.labels.iter())).collect::<Vec<_>>()
        };
        let series: Vec<_> = push.families.iter().zip(&places).map(series_of).collect();
        let is_free = series.iter().flatten().all(|series| self.index.owner(*series).is_none());
        if is_free {
            self.amend(slot, push, &places, &series);
        }
        is_free
    }

    /// Where all that is pushed is in the group; nothing where a family has to be made anew.
    fn places(&self, push: &Push) -> Option<(Slot, Vec<Places>)> {
        let slot = *self.slots.get(&push.key)?;
        let group = self.snapshot.group(slot);
        let is_repeated = push.families.windows(2).any(|pair| pair[0].name == pair[1].name);
        // The first push that is taken changes what the group counts as.
        if is_repeated || !group.has_succeeded() {
            return None;
        }
        let places = |family: &MetricFamily| places(group.family(&family.name)?, family);
        let places = push.families.iter().map(places).collect::<Option<_>>()?;
        Some((slot, places))
    }

    /// Sets the values of metrics that are there, and adds the others, which have these series.
    fn amend(&mut self, slot: Slot, push: &mut Push, places: &[Places], series: &[Vec<Fingerprint>]) {
        for (at, (family, places)) in push.families.iter_mut().zip(places).enumerate() {
            let Some(stored) = self.snapshot.group_mut(slot).family_mut(&family.name) else { continue };
            stored.said_at = push.at.unix;
            let (is_changed, added_bytes) = amend(stored, family, places, &push.key);
            let Place::Exposed(number) = stored.head.place else { continue };
            series.get(at).into_iter().flatten().for_each(|series| self.index.add_series(*series, slot));
            let Snapshot { groups, exposed, .. } = &mut self.snapshot;
            let exposed = segments_mut(exposed, number);
            match added_bytes {
                0 if is_changed => exposed.touch(slot),
                0 => {}
                bytes => exposed.insert(slot, bytes, |slot| family_bytes(groups, slot, &family.name)),
            }
        }
        self.change_group(slot, |group| group.take(push));
        self.arm(slot);
    }
}

/// Sets the values of metrics that are there, and adds the others. Returns whether a value is another one now, and about how
/// many bytes of text were added.
fn amend(
    stored: &mut StoredFamily,
    family: &mut MetricFamily,
    places: &Places,
    key: &GroupingKey,
) -> (bool, usize) {
    let (mut is_changed, mut new) = (false, Vec::new());
    for (metric, place) in family.metrics.iter_mut().zip(places) {
        match place {
            Some(place) => is_changed |= stored.metrics[*place].set(metric.take_value()),
            None => new.push(StoredMetric::new(metric)),
        }
    }
    let added_bytes = stored.text_bytes_of(&new, key);
    if !new.is_empty() {
        stored.metrics.extend(new);
    }
    (is_changed, added_bytes)
}

/// Where the metrics of a pushed family are in a stored one; nothing where that has to be made anew.
fn places(stored: &StoredFamily, family: &MetricFamily) -> Option<Places> {
    if stored.aside().is_some() || !stored.head.stays_with(family) {
        return None;
    }
    let mut wanted = HashMap::with_capacity(family.metrics.len());
    for (at, metric) in family.metrics.iter().enumerate() {
        if wanted.insert(told(metric.labels.iter()), at).is_some() {
            return None;
        }
    }
    let mut places = vec![None; family.metrics.len()];
    for (place, metric) in stored.metrics.iter().enumerate() {
        if let Some(at) = wanted.get(&told(metric.own_labels())) {
            if !metric.takes(&family.metrics[*at]) {
                return None;
            }
            places[*at] = Some(place);
        }
    }
    Some(places)
}

fn told<'l>(labels: impl Iterator<Item = (&'l str, &'l str)>) -> Told<'l> {
    labels.filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap as StdHashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::exposition::series::SeriesHash;
    use crate::exposition::{Compression, Format, Validation, text};
    use crate::store::expose::expose;
    use crate::store::{Change, PushMode, Rules, Settings, UnixNanos};

    fn state_with(quarantine: bool) -> State {
        let rules = Rules { quarantine, groups_max: 10, failed_groups_max: 2 };
        State::new(Settings::new(StdHashMap::new(), rules), SeriesHash::default())
    }

    fn push(key: &GroupingKey, mode: PushMode, body: &str) -> Push {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        Push::new(key.clone(), families, mode, UnixNanos(1_000_000_000))
    }

    fn key(zone: Option<&str>) -> GroupingKey {
        GroupingKey::new("x", zone.map(|zone| ("zone", zone)))
    }

    fn make(state: &mut State, push: Push) -> bool {
        state.make(Change::Push(push)).is_ok()
    }

    fn samples(state: &State) -> Vec<String> {
        let pieces = expose(&state.snapshot(), &[], Format::DEFAULT, Compression::Identity);
        let text = String::from_utf8(pieces.concat()).expect("text is UTF-8");
        let is_sample = |line: &&str| !line.starts_with("# HELP") && !line.contains("push_");
        text.lines().filter(is_sample).map(str::to_owned).collect()
    }

    #[test]
    fn families_are_not_made_anew_for_new_values_and_new_series() {
        for quarantine in [false, true] {
            let mut state = state_with(quarantine);
            let stored = "# HELP a text\n# TYPE a gauge\na{i=\"1\"} 1\na{i=\"2\"} 2\na{i=\"3\",j=\"\"} 3\nb 1\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n";
            assert!(make(&mut state, push(&key(None), PushMode::ReplaceGroup, stored)));
            for (body, is_update, is_amendment) in [
                ("a{i=\"2\"} 5\n", true, true),
                ("a{i=\"3\"} 5\na{i=\"1\",j=\"\"} 5\nb 2\n", true, true),
                ("# HELP a text\n# TYPE a gauge\na{i=\"3\"} 6\n", true, true),
                ("# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 2\nh_count 2\n", true, true),
                ("# HELP a text\n", true, true),
                ("a{i=\"1\"} 7\na{i=\"4\"} 8\n", false, true),
                ("b{i=\"4\"} 8\n", false, true),
                // What the family is changes, or there is none.
                ("# HELP a other\na{i=\"3\"} 6\n", false, false),
                ("# TYPE a counter\na{i=\"3\"} 6\n", false, false),
                (
                    "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 2\nh_sum 2\nh_count 2\n",
                    false,
                    false,
                ),
                ("c 1\n", false, false),
                ("a{i=\"1\"} 1 5\n", false, false),
                ("a{i=\"1\"} 1\na{i=\"1\"} 1\n", false, false),
            ] {
                let patch = || push(&key(None), PushMode::ReplaceMetrics, body);
                assert_eq!(state.update(&mut patch()), is_update, "{body}");
                assert_eq!(state.add_metrics(&mut patch()), is_amendment, "{body}");
            }
            assert_eq!(
                samples(&state),
                [
                    "# TYPE a gauge",
                    r#"a{i="1",instance="",job="x"} 7"#,
                    r#"a{i="2",instance="",job="x"} 5"#,
                    r#"a{i="4",instance="",job="x"} 8"#,
                    r#"a{i="3",instance="",j="",job="x"} 6"#,
                    "# TYPE b untyped",
                    r#"b{instance="",job="x"} 2"#,
                    r#"b{i="4",instance="",job="x"} 8"#,
                    "# TYPE h histogram",
                    r#"h_bucket{instance="",job="x",le="+Inf"} 2"#,
                    r#"h_sum{instance="",job="x"} 2"#,
                    r#"h_count{instance="",job="x"} 2"#,
                ]
            );
        }
    }

    #[test]
    fn a_series_of_another_group_does_not_come_to_a_family() {
        let mut state = state_with(false);
        assert!(make(&mut state, push(&key(Some("a")), PushMode::ReplaceGroup, "m{l=\"1\"} 1\n")));
        assert!(make(&mut state, push(&key(None), PushMode::ReplaceGroup, "m{l=\"1\"} 1\n")));
        let before = samples(&state);
        for body in ["m{l=\"1\",zone=\"a\"} 1\n", "m{l=\"2\"} 1\nm{l=\"1\"} 5\nm{l=\"1\",zone=\"a\"} 1\n"] {
            assert!(!make(&mut state, push(&key(None), PushMode::ReplaceMetrics, body)), "{body}");
            assert_eq!(samples(&state), before, "{body}");
        }
        assert!(make(&mut state, push(&key(None), PushMode::ReplaceMetrics, "m{l=\"1\",zone=\"b\"} 1\n")));
        assert!(!make(&mut state, push(&key(Some("b")), PushMode::ReplaceMetrics, "m{l=\"1\"} 1\n")));
        // What came to the family goes with it.
        assert!(make(&mut state, push(&key(None), PushMode::ReplaceGroup, "m 1\n")));
        assert!(make(&mut state, push(&key(Some("b")), PushMode::ReplaceMetrics, "m{l=\"1\"} 1\n")));
    }

    /// Values by family and labels.
    type Told = BTreeMap<&'static str, BTreeMap<String, u8>>;

    fn body(families: &Told) -> String {
        let line = |name: &str, labels: &str, value: u8| format!("{name}{{{labels}}} {value}\n");
        let lines = |(name, metrics): (&&str, &BTreeMap<String, u8>)| {
            let lines = metrics.iter().map(|(labels, value)| line(name, labels, *value));
            format!("# TYPE {name} gauge\n{}", lines.collect::<String>())
        };
        families.iter().map(lines).collect()
    }

    fn told() -> impl Strategy<Value = Told> {
        let labels = ("[1-9]", prop::option::of("[ab]")).prop_map(|(l, zone)| {
            let zone = zone.map_or_else(String::new, |zone| format!(",zone=\"{zone}\""));
            format!("l=\"{l}\"{zone}")
        });
        let metrics = prop::collection::btree_map(labels, any::<u8>(), 1..5);
        prop::collection::btree_map(prop::sample::select(&["m", "n", "o"]), metrics, 1..3)
    }

    proptest! {
        /// A push of metrics comes to what a push of all that the group has then would.
        #[test]
        fn a_patch_is_a_push_of_the_whole(
            patches in prop::collection::vec((prop::option::of(prop::sample::select(&["a", "b"])), told()), 1..40),
        ) {
            let (mut state, mut whole) = (state_with(false), state_with(false));
            let mut groups: BTreeMap<Option<&str>, Told> = BTreeMap::new();
            for (zone, patch) in patches {
                let mut group = groups.get(&zone).cloned().unwrap_or_default();
                for (name, metrics) in &patch {
                    // The group's own label is in the place of the metric's.
                    let plain = |labels: &str| match zone {
                        None => labels.to_owned(),
                        Some(_) => labels.split(',').next().unwrap_or_default().to_owned(),
                    };
                    let family = group.entry(name).or_default();
                    family.extend(metrics.iter().map(|(labels, value)| (plain(labels), *value)));
                }
                let is_made = make(&mut state, push(&key(zone), PushMode::ReplaceMetrics, &body(&patch)));
                let is_twice = zone.is_some()
                    && patch.values().any(|metrics| {
                        let names: std::collections::BTreeSet<_> = metrics.keys().map(|l| &l[..5]).collect();
                        names.len() < metrics.len()
                    });
                let is_wanted = !is_twice
                    && make(&mut whole, push(&key(zone), PushMode::ReplaceGroup, &body(&group)));
                prop_assert_eq!(is_made, is_wanted);
                if is_made {
                    groups.insert(zone, group);
                }
                prop_assert_eq!(samples(&state), samples(&whole));
            }
        }
    }
}
