//! The store is what was pushed, whatever came before.

mod aside;
mod late;

use std::collections::HashMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::exposition::{Compression, Format, MetricType, Validation, text};
use crate::store::expose::expose;
use crate::store::segments::Segment;

fn state() -> State {
    state_with(false)
}

fn state_with(quarantine: bool) -> State {
    let own = HashMap::from([("own_total".to_owned(), MetricType::Counter)]);
    let rules = Rules { quarantine, groups_max: 10, failed_groups_max: 2 };
    State::new(Settings::new(own, rules), SeriesHash::default())
}

fn push(state: &mut State, mode: PushMode, job: &str, body: &str) -> Result<(), String> {
    let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
    let key = GroupingKey::new(job, [("", ""); 0]);
    state.make(Change::Push(Push::new(key, families, mode, UnixNanos(7_000_000_000)))).map_err(|error| {
        match error {
            StoreError::Inconsistent(fault) => fault.to_string(),
            other @ (StoreError::TooManyGroups(_) | StoreError::Disk(_)) => panic!("{other}"),
        }
    })
}

fn put(state: &mut State, job: &str, body: &str) -> Result<(), String> {
    push(state, PushMode::ReplaceGroup, job, body)
}

fn post(state: &mut State, job: &str, body: &str) -> Result<(), String> {
    push(state, PushMode::ReplaceFamilies, job, body)
}

fn exposed(snapshot: &Snapshot) -> String {
    let pieces = expose(snapshot, &[], Format::DEFAULT, Compression::Identity);
    String::from_utf8(pieces.concat()).expect("text is UTF-8")
}

/// What is exposed but for types and push times.
fn samples(state: &State) -> Vec<String> {
    exposed(&state.snapshot())
        .lines()
        .filter(|l| !l.starts_with('#') && !l.starts_with("push_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn put_replaces_the_group_and_post_the_families() {
    let mut state = state();
    put(&mut state, "x", "a{i=\"1\"} 1\nb 1\n").expect("accepted");
    post(&mut state, "x", "a{i=\"2\"} 2\nc 1\n").expect("accepted");
    assert_eq!(
        samples(&state),
        [r#"a{i="2",instance="",job="x"} 2"#, r#"b{instance="",job="x"} 1"#, r#"c{instance="",job="x"} 1"#]
    );
    put(&mut state, "x", "c 2\n").expect("accepted");
    assert_eq!(samples(&state), [r#"c{instance="",job="x"} 2"#]);
    put(&mut state, "x", "").expect("accepted");
    assert_eq!(samples(&state), [""; 0]);
    assert_eq!(state.snapshot().len(), 1);
    state.make(Change::Delete(vec![GroupingKey::new("x", [("", ""); 0])])).expect("deleted");
    assert_eq!(state.snapshot().len(), 0);
}

#[test]
fn patch_replaces_metrics() {
    let mut state = state();
    let patch = |state: &mut State, body: &str| push(state, PushMode::ReplaceMetrics, "x", body);
    patch(&mut state, "# HELP a old\n# TYPE a gauge\na{i=\"2\"} 2\nb 1\n").expect("a new group");
    patch(&mut state, "a{i=\"1\"} 1\na{i=\"2\"} 3\n").expect("without a type it has the one that is stored");
    patch(&mut state, "# HELP a new\n# TYPE a gauge\n").expect("nothing is said about any metric");
    assert_eq!(
        samples(&state),
        [
            r#"a{i="1",instance="",job="x"} 1"#,
            r#"a{i="2",instance="",job="x"} 3"#,
            r#"b{instance="",job="x"} 1"#
        ]
    );
    assert!(exposed(&state.snapshot()).starts_with("# HELP a old\n# TYPE a gauge\n"));
    patch(&mut state, "# HELP a new\n# TYPE a gauge\na{i=\"1\"} 4\n").expect("accepted");
    assert!(exposed(&state.snapshot()).starts_with("# HELP a new\n"));
    let before = samples(&state);
    for (body, problem) in [
        ("# TYPE a counter\na{i=\"1\"} 1\n", "is not a GAUGE"),
        ("c 1\na{i=\"1\"} 1\na{i=\"1\"} 2\n", "collected before"),
        ("a{i=\"1\"} 1 5\n", "timestamps"),
    ] {
        let error = patch(&mut state, body).expect_err(problem);
        assert!(error.contains(problem), "{error}");
        assert_eq!(samples(&state), before);
    }
    assert_eq!(state.snapshot().groups().next().map(|group| group.failed_at), Some(UnixNanos(7_000_000_000)));
}

#[test]
fn patch_loses_nothing_where_contradictions_are_kept_aside() {
    let mut state = state_with(true);
    let patch = |state: &mut State, body: &str| push(state, PushMode::ReplaceMetrics, "x", body);
    let stored = "# TYPE a gauge\na{i=\"1\"} 1\na{i=\"2\"} 2\n# TYPE b gauge\nb{i=\"1\"} 1\nb{i=\"2\"} 2\n";
    patch(&mut state, stored).expect("a new group");
    let before = samples(&state);
    let contradiction = "# TYPE a counter\na{i=\"1\"} 5\nb{i=\"1\"} 5\n";
    let error = patch(&mut state, contradiction).expect_err("it could not be kept");
    assert!(error.contains("is not a GAUGE"), "{error}");
    assert_eq!(samples(&state), before);
    assert!(state.snapshot().groups().all(|group| !group.last_push_successful() || group.failed_at.0 > 0));
    patch(&mut state, "b{i=\"1\"} 5\n").expect("accepted");
    assert_eq!(samples(&state).len(), before.len());
}

#[test]
fn a_name_has_one_type_over_all_groups() {
    let mut state = state();
    put(&mut state, "x", "# TYPE m counter\nm 1\n").expect("accepted");
    let conflict = concat!(
        r#"collected metric "m" { label:{name:"instance"  value:""}  label:{name:"job"  value:"y"}  "#,
        "gauge:{value:1}} is not a COUNTER"
    );
    assert_eq!(put(&mut state, "y", "# TYPE m gauge\nm 1\n"), Err(conflict.to_owned()));
    // Whoever is alone with a name may change its type.
    put(&mut state, "x", "# TYPE m gauge\nm 1\n").expect("accepted");
    post(&mut state, "x", "# TYPE m counter\nm 1\n").expect("accepted");
    put(&mut state, "y", "# TYPE m counter\nm 1\n").expect("accepted");
    assert!(put(&mut state, "x", "# TYPE m gauge\nm 1\n").is_err());
    state.make(Change::Delete(vec![GroupingKey::new("y", [("", ""); 0])])).expect("deleted");
    put(&mut state, "x", "# TYPE m gauge\nm 1\n").expect("accepted");
    assert_eq!(
        put(&mut state, "x", "# TYPE own_total gauge\nown_total 1\n"),
        Err("gathered metric family own_total has type GAUGE but should have COUNTER".to_owned())
    );
    put(&mut state, "x", "# TYPE own_total counter\nown_total 1\n").expect("the same type beside our own");
}

#[test]
fn a_refused_push_changes_nothing_but_the_failure_time() {
    let mut state = state();
    put(&mut state, "x", "a 1\n").expect("accepted");
    assert!(put(&mut state, "x", "a 2\na 3\n").is_err());
    assert!(put(&mut state, "x", "a 2 5\n").is_err());
    assert_eq!(samples(&state), [r#"a{instance="",job="x"} 1"#]);
    let snapshot = state.snapshot();
    let group = snapshot.groups().next().expect("the group");
    assert_eq!(group.failed_at, UnixNanos(7_000_000_000));
    put(&mut state, "x", "a 2\n").expect("nothing of the refused push is in the index");
}

#[test]
fn series_are_unique_as_prometheus_sees_them() {
    let mut state = state();
    assert!(put(&mut state, "x", "m{x=\"\"} 1\nm 2\n").is_err(), "an empty label is no label");
    assert!(put(&mut state, "x", "m{a=\"1\",b=\"2\"} 1\nm{b=\"2\",a=\"1\"} 2\n").is_err());
    put(&mut state, "x", "m{a=\"1\"} 1\nm{a=\"2\"} 1\n").expect("accepted");
}

#[test]
fn series_are_unique_however_their_names_are_escaped() {
    let mut state = state();
    let mut put = |body: &str| {
        let families = text::parse(body.as_bytes(), Validation::Utf8).expect("it parses");
        let push =
            Push::new(GroupingKey::new("x", [("", ""); 0]), families, PushMode::ReplaceGroup, UnixNanos(1));
        state.make(Change::Push(push)).map_err(|error| error.to_string())
    };
    for body in [
        "m{\"a.b\"=\"1\"} 1\nm{a_b=\"1\"} 1\n",
        "m{\"a.b\"=\"1\"} 1\nm{a_dot_b=\"1\"} 1\n",
        "m{\"a.b\"=\"1\"} 1\nm{U__a_2e_b=\"1\"} 1\n",
    ] {
        assert!(put(body).expect_err(body).contains("collected before"), "{body}");
    }
    put("m{\"a.b\"=\"1\"} 1\nm{\"a.b\"=\"2\"} 1\nm{a_b=\"3\"} 1\n").expect("accepted");
}

#[test]
fn samples_of_histograms_and_summaries_do_not_collide() {
    let mut state = state();
    put(&mut state, "x", "# TYPE h histogram\nh_count 1\n").expect("accepted");
    assert_eq!(
        put(&mut state, "y", "h_bucket 1\n"),
        Err(r#"collected metric named "h_bucket" collides with previously collected histogram named "h""#
            .into())
    );
    put(&mut state, "y", "s_count 1\n").expect("accepted");
    assert_eq!(
        put(&mut state, "x", "# TYPE s summary\ns 1\n"),
        Err("collected histogram or summary named \"s\" collides with previously collected metric named \
             \"s_count\""
            .into())
    );
    put(&mut state, "y", "# TYPE s summary\ns 1\n")
        .expect("the colliding family is replaced by the same push");
}

#[test]
fn push_times_are_never_taken_from_a_push() {
    let mut state = state();
    for _ in 0..2 {
        post(&mut state, "x", "push_failure_time_seconds 9\npush_time_seconds 9\n").expect("accepted");
    }
    assert_eq!(
        exposed(&state.snapshot()),
        "# HELP push_failure_time_seconds Last Unix time when changing this group in the Pushgateway failed.\n\
         # TYPE push_failure_time_seconds gauge\npush_failure_time_seconds{instance=\"\",job=\"x\"} 0\n\
         # HELP push_time_seconds Last Unix time when changing this group in the Pushgateway succeeded.\n\
         # TYPE push_time_seconds gauge\npush_time_seconds{instance=\"\",job=\"x\"} 7\n"
    );
}

#[test]
fn of_several_help_texts_the_first_in_the_alphabet_is_exposed() {
    let mut state = state();
    put(&mut state, "a", "a 1\n").expect("accepted");
    put(&mut state, "z", "# HELP a second\na 1\n").expect("accepted");
    assert!(exposed(&state.snapshot()).starts_with("# HELP a second\n"), "one is better than none");
    put(&mut state, "b", "# HELP a first\na 1\n").expect("accepted");
    assert!(exposed(&state.snapshot()).starts_with("# HELP a first\n"));
    put(&mut state, "b", "a 1\n").expect("accepted");
    assert!(exposed(&state.snapshot()).starts_with("# HELP a second\n"));
}

#[test]
fn groups_of_refused_pushes_are_few() {
    let mut state = state();
    for job in ["a", "b", "c", "d"] {
        put(&mut state, job, "x 1 5\n").expect_err("a timestamp");
    }
    assert_eq!((state.snapshot().len(), state.failed_groups), (2, 2));
    put(&mut state, "a", "").expect("accepted, and nothing else changes");
    assert_eq!(state.failed_groups, 1);
    put(&mut state, "c", "x 1 5\n").expect_err("there is room again");
    state.make(Change::Delete(vec![GroupingKey::new("b", [("", ""); 0])])).expect("deleted");
    assert_eq!((state.snapshot().len(), state.failed_groups), (2, 1));
}

#[test]
fn a_family_without_metrics_hides_nothing() {
    let mut state = state();
    put(&mut state, "x", "# TYPE h histogram\nh_count{b=\"c\"} 1\n").expect("accepted");
    let text = "# TYPE h_count gauge\nh_count{b=\"c\"} 7\n";
    let mut families = vec![crate::exposition::MetricFamily::new("h", MetricType::Gauge)];
    families.extend(text::parse(text.as_bytes(), Validation::Legacy).expect("a good text"));
    let key = GroupingKey::new("y", [("", ""); 0]);
    let push = Push::new(key, families, PushMode::ReplaceGroup, UnixNanos(1));
    assert!(matches!(state.make(Change::Push(push)), Err(StoreError::Inconsistent(_))));
}

#[test]
fn large_groups_are_replaced_in_no_time() {
    let body = |from: u32| {
        (from..from + 50_000).fold(String::new(), |mut text, name| {
            writeln!(text, "m{name:06} 1").expect("it grows");
            text
        })
    };
    for quarantine in [false, true] {
        let mut state = state_with(quarantine);
        let start = std::time::Instant::now();
        put(&mut state, "x", &body(0)).expect("accepted");
        post(&mut state, "x", &body(25_000)).expect("accepted");
        put(&mut state, "x", "one 1\n").expect("accepted");
        // Where each family costs what the group holds, it takes minutes.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}

#[test]
fn groups_are_limited() {
    let mut state = state();
    for job in 0..10 {
        put(&mut state, &job.to_string(), "").expect("accepted");
    }
    let push =
        Push::new(GroupingKey::new("x", [("", ""); 0]), Vec::new(), PushMode::ReplaceGroup, UnixNanos(1));
    assert!(matches!(state.make(Change::Push(push)), Err(StoreError::TooManyGroups(10))));
    put(&mut state, "5", "a 1\n").expect("it is there already");
}

#[test]
fn a_wipe_leaves_nothing() {
    let mut state = state_with(true);
    put(&mut state, "x", "a 1\n").expect("accepted");
    put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("accepted");
    state.make(Change::Wipe).expect("wiped");
    assert!(state.snapshot().is_empty() && exposed(&state.snapshot()).is_empty());
    assert_eq!((state.snapshot().aside, state.failed_groups), (0, 0));
    put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("accepted");
    assert_eq!(samples(&state), [r#"a{instance="",job="y"} 1"#]);
}

#[test]
fn what_contradicts_others_is_kept_aside_until_its_turn_comes() {
    let mut state = state_with(true);
    let aside = |state: &State| state.snapshot().aside;
    put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
    put(&mut state, "y", "# TYPE a gauge\na 2\nb 1\n").expect("taken all the same");
    put(&mut state, "z", "# TYPE a gauge\na 3\n").expect("taken all the same");
    let only_x = [r#"a{instance="",job="x"} 1"#, r#"b{instance="",job="y"} 1"#];
    assert_eq!((samples(&state), aside(&state)), (only_x.map(str::to_owned).to_vec(), 2));
    // The oldest one stays, however often it is pushed.
    put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
    assert_eq!((samples(&state), aside(&state)), (only_x.map(str::to_owned).to_vec(), 2));
    // When it changes its mind, both others fit.
    put(&mut state, "x", "# TYPE a gauge\na 1\n").expect("accepted");
    assert_eq!((samples(&state).len(), aside(&state)), (4, 0));
    // What is wrong by itself never fits.
    put(&mut state, "w", "c 1\nc 1\n# TYPE own_total gauge\nown_total 1\n").expect("taken all the same");
    assert_eq!((samples(&state).len(), aside(&state)), (4, 2));
    state.make(Change::Delete(vec![GroupingKey::new("w", [("", ""); 0])])).expect("deleted");
    assert_eq!(aside(&state), 0);
}

#[test]
fn a_family_waits_for_another_one_whose_samples_have_its_name() {
    let mut state = state_with(true);
    put(&mut state, "x", "# TYPE s summary\ns_count 1\n").expect("accepted");
    put(&mut state, "y", "s_count 5\n").expect("taken all the same");
    assert_eq!(state.snapshot().aside, 1);
    put(&mut state, "x", "").expect("accepted");
    assert_eq!(samples(&state), [r#"s_count{instance="",job="y"} 5"#]);
    assert_eq!(state.snapshot().aside, 0);
}

#[test]
fn what_is_aside_costs_nothing_while_nothing_changes_for_it() {
    let mut state = state_with(true);
    put(&mut state, "x", "# TYPE a counter\na 1\n").expect("accepted");
    put(&mut state, "y", "# TYPE a gauge\na 1\n").expect("taken all the same");
    let waiting = |state: &State| {
        let snapshot = state.snapshot();
        let group = snapshot.groups().find(|group| group.key.job() == "y").expect("it is there").clone();
        group.families()[0].head.clone()
    };
    let before = waiting(&state);
    put(&mut state, "x", "# TYPE a counter\na 2\na{l=\"1\"} 1\n").expect("accepted");
    put(&mut state, "z", "# TYPE a gauge\na 1\n").expect("taken all the same");
    assert!(Arc::ptr_eq(&before, &waiting(&state)), "it was judged again");
    put(&mut state, "x", "b 1\n").expect("accepted");
    assert_eq!(state.snapshot().aside, 0);
}

#[test]
fn a_timestamp_is_no_push_even_where_nothing_is_checked() {
    let mut state = state_with(true);
    put(&mut state, "x", "a 1\n").expect("accepted");
    put(&mut state, "x", "a 2 5\n").expect("nobody is told");
    assert_eq!(samples(&state), [r#"a{instance="",job="x"} 1"#]);
    assert_eq!(state.snapshot().groups().next().expect("one group").failed_at, UnixNanos(7_000_000_000));
}

/// A change of one of a few groups, with a few families of one to four series.
fn changes() -> impl Strategy<Value = (u8, u8, Vec<(u8, u8, u8)>)> {
    let family = (0..5_u8, 0..5_u8, 0..4_u8);
    (0..40_u8, 0..3_u8, prop::collection::vec(family, 0..4))
}

fn body(families: &[(u8, u8, u8)]) -> String {
    let mut text = String::new();
    let mut names = HashSet::new();
    for (name, series, value) in families.iter().filter(|(name, ..)| names.insert(*name)) {
        // One that some push as a counter, and one of many series.
        let kind = if *name == 3 && *value == 0 { "counter" } else { "gauge" };
        writeln!(text, "# HELP m{name} text {}\n# TYPE m{name} {kind}", value / 3).expect("it grows");
        let count = if *name == 4 { 30 * series } else { *series };
        (0..count).for_each(|l| writeln!(text, "m{name}{{l=\"{l}\"}} {value}").expect("it grows"));
    }
    text
}

/// What is reckoned with beside the groups is what they have: bytes of segments, and who has which series.
fn assert_accounts(state: &State) {
    let snapshot = &state.snapshot;
    for segments in snapshot.exposed.iter().flatten().filter(|family| family.source == Source::Pushed) {
        for (slots, bytes) in segments.segments().iter().map(Segment::account) {
            let bytes_of = |slot: &Slot| family_bytes(&snapshot.groups, *slot, &segments.name);
            assert_eq!(bytes, slots.iter().map(bytes_of).sum::<usize>(), "{}", segments.name);
        }
    }
    let mut series = HashMap::new();
    for group in snapshot.groups() {
        let slot = state.slots[&group.key];
        let exposed = group.families().iter().filter(|family| family.aside().is_none());
        let pushed = exposed.flat_map(|family| family.fingerprints(&group.key, state.hash()));
        for fingerprint in state.index.marks(&group.key).chain(pushed) {
            assert_eq!(series.insert(fingerprint, slot), None, "a series is one group's");
            assert_eq!(state.index.owner(fingerprint), Some(slot));
        }
    }
    assert_eq!(state.index.len(), series.len());
}

proptest::proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever became of the segments, they hold what the groups hold.
    #[test]
    fn what_is_kept_rendered_is_what_is_stored(
        changes in prop::collection::vec(changes(), 1..60),
        quarantine in any::<bool>(),
    ) {
        let mut state = state_with(quarantine);
        state.rules.groups_max = 100;
        let mut before = state.snapshot();
        for (group, mode, families) in changes {
            let job = format!("job{}", group % 20);
            let modes = [PushMode::ReplaceGroup, PushMode::ReplaceFamilies, PushMode::ReplaceMetrics];
            let mode = modes[usize::from(mode)];
            if group >= 36 {
                state.make(Change::Delete(vec![GroupingKey::new(&job, [("", ""); 0])])).expect("deleted");
            } else {
                let _ = push(&mut state, mode, &job, &body(&families));
            }
            let (now, old) = (state.snapshot(), before.only(|_| true));
            let sorted = |snapshot: &Snapshot| {
                let text = exposed(snapshot);
                let mut lines: Vec<_> =
                    text.lines().filter(|line| !line.starts_with("# HELP")).map(str::to_owned).collect();
                lines.sort();
                lines
            };
            prop_assert_eq!(sorted(&before), sorted(&old), "a snapshot does not change");
            prop_assert_eq!(sorted(&now), sorted(&now.only(|_| true)));
            let aside = now.groups().flat_map(|group| group.families()).filter(|f| f.aside().is_some());
            prop_assert_eq!(now.aside, aside.count());
            assert_accounts(&state);
            before = now;
        }
        state.make(Change::Wipe).expect("wiped");
    }
}
