//! What was promised is kept over restarts.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::store::GroupState;
use crate::store::{OwnNames, PushingRun, RunId};

/// In every state, from the journal and from a snapshot, with the clock going on or set back.
#[test]
fn a_restart_keeps_every_promise() {
    const SECOND: i64 = 1_000_000_000;
    for is_in_snapshot in [false, true] {
        let (directory, mut now) = (tempfile::tempdir().expect("a directory"), 100);
        let open_at = |seconds: i64| {
            // After a restart of the machine the other clock begins anew.
            let now = Moment { unix: UnixNanos(seconds * SECOND), steady: SteadyNanos(7 * SECOND) };
            let store = Store::open(settings(), &storage(directory.path()), now).expect("it is whole");
            if is_in_snapshot {
                make_snapshot(&store, directory.path());
            }
            store
        };
        let mut first = raw(PushMode::ReplaceGroup, "a", "m 1\n", now * SECOND);
        let length = |seconds: u64| Some(Duration::from_secs(seconds));
        first.wishes = Wishes { ttl: Wish::ttl(length(20), None), expect: Wish::expect(length(10), None) };
        first.runs = vec![Run::parse("1,5,0.5,0,success").expect("a run")];
        let store = open_at(now);
        make(&store, Change::Push(first));
        drop(store);
        for (later, state, is_exposed) in [
            (5, GroupState::Up, true),
            (4, GroupState::Up, true),
            (1, GroupState::Overdue, true),
            // The clock is set back; what has happened has happened.
            (-8, GroupState::Overdue, true),
            (18, GroupState::Overdue, false),
            (-15, GroupState::Overdue, false),
        ] {
            now += later;
            let store = open_at(now);
            let snapshot = store.snapshot();
            let group = snapshot.get(&key("a")).expect("it is there");
            assert_eq!((group.state(), group.is_expired()), (state, !is_exposed), "at {now}");
            assert_eq!(group.expected_at(), Some(UnixNanos(110 * SECOND)));
            let text = exposed(&store);
            let has = |name: &str| text.lines().any(|line| line.starts_with(name) && line.contains("\"a\""));
            let expected = [is_exposed, is_exposed, true, true];
            let names = ["m{", "jobmon_runs_total", "push_time_seconds", "push_up"];
            assert_eq!(names.map(has), expected, "at {now}: {text}");
            assert_eq!(group.runs().map(|runs| runs.last().len()), Some(1));
        }
        let week = 7 * 24 * 3600;
        assert!(open_at(120 + week - 1).snapshot().get(&key("a")).is_some());
        assert!(open_at(120 + week).snapshot().get(&key("a")).is_none());
    }
}

/// Groups that cannot be beside others are not made by a restart either, and those beside them are not refused by one.
#[test]
fn a_restart_refuses_nothing_that_was_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), Damage::Refused).expect("it is new");
    make(&store, push(PushMode::ReplaceGroup, "a", "m 1\n", 1));
    make(&store, push(PushMode::ReplaceGroup, "b", "m 1\n", 1));
    let mut twin = raw(PushMode::ReplaceGroup, "a", "m 1\n", 2);
    twin.key = GroupingKey::new("a", [("zone", "Π/\"\n"), ("rack", "")]);
    let together = ["b", "new"].map(|job| raw(PushMode::ReplaceGroup, job, "m 2\n", 2)).into_iter();
    let refused = store.make(Change::Together(together.chain([twin]).collect()));
    assert!(matches!(refused, Err(StoreError::Inconsistent(_))), "{refused:?}");
    let before = exposed(&store);
    drop(store);
    assert_eq!(exposed(&open(directory.path(), Damage::Refused).expect("it is whole")), before);
}

/// Pushes until there is one more.
fn make_snapshot(store: &Store, path: &Path) {
    let newest = || {
        let names = fs::read_dir(path).expect("there").flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("snapshot-")).max()
    };
    let before = newest();
    for number in 0..100_000 {
        if newest() != before {
            return;
        }
        make(store, push(PushMode::ReplaceGroup, "other", "other 1\n", number));
    }
    panic!("there is no snapshot");
}

/// The name of the liveness metric may be another one after a restart, and that of a sample of some family.
#[test]
fn a_snapshot_does_not_collide_with_what_the_gateway_exposes_now() {
    for is_snapshot in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(directory.path(), Damage::Refused).expect("it is new");
        let mut summary = raw(PushMode::ReplaceGroup, "a", "# TYPE s summary\ns_count 3\n", 1);
        summary.wishes.expect = Wish::expect(Some(Duration::from_secs(1000)), None);
        make(&store, Change::Push(summary));
        if is_snapshot {
            make_snapshot(&store, directory.path());
        }
        drop(store);
        let named = Settings { names: OwnNames::new("s_count"), ..settings() };
        let store = Store::open(named, &storage(directory.path()), NOW).expect("it is whole");
        let text = exposed(&store);
        let samples: Vec<_> = text.lines().filter(|line| line.starts_with("s_count{")).collect();
        assert_eq!((samples.len(), store.snapshot().aside), (1, 1), "{text}");
    }
}

/// Something that happens to one of a few groups.
#[derive(Debug, Clone)]
enum Step {
    Push { mode: u8, job: u8, body: Vec<(u8, u8, u8)>, ttl: Option<u8>, expect: Option<u8>, run: Option<u8> },
    Together { jobs: Vec<u8>, body: Vec<(u8, u8, u8)> },
    Delete(Vec<u8>),
    Pass(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let body = || prop::collection::vec((0..4_u8, 0..3_u8, 0..4_u8), 0..4);
    let length = || prop::option::of(prop::sample::select(vec![0_u8, 1, 3, 20]));
    let push = (0..3_u8, 0..6_u8, body(), length(), length(), prop::option::of(0..5_u8));
    prop_oneof![
        8 => push.prop_map(|(mode, job, body, ttl, expect, run)| Step::Push { mode, job, body, ttl, expect, run }),
        2 => (prop::collection::vec(0..6_u8, 1..4), body()).prop_map(|(jobs, body)| Step::Together { jobs, body }),
        1 => prop::collection::vec(0..6_u8, 0..3).prop_map(Step::Delete),
        3 => (0..8_u8).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// A text whose families contradict others now and then.
fn text_of(body: &[(u8, u8, u8)]) -> String {
    let mut text = String::new();
    for (at, (name, label, value)) in body.iter().enumerate() {
        if body[..at].iter().all(|(other, ..)| other != name) {
            let kind = if *name == 3 && *value == 0 { "counter" } else { "gauge" };
            writeln!(text, "# TYPE m{name} {kind}").expect("it grows");
        }
        writeln!(text, "m{name}{{l=\"{label}\"}} {value}").expect("it grows");
    }
    text
}

fn change_of(step: &Step, now: i64) -> Option<Change> {
    let job = |job: &u8| format!("job{job}");
    let length = |seconds: Option<u8>| seconds.map(|s| Duration::from_secs(s.into()));
    Some(match step {
        Step::Push { mode, job: of, body, ttl, expect, run } => {
            let modes = [PushMode::ReplaceGroup, PushMode::ReplaceFamilies, PushMode::ReplaceMetrics];
            let mut push = raw(modes[usize::from(*mode)], &job(of), &text_of(body), now);
            push.wishes =
                Wishes { ttl: Wish::ttl(length(*ttl), None), expect: Wish::expect(length(*expect), None) };
            if *run == Some(4) {
                push.wishes.expect = push.wishes.expect.of_another();
            }
            push.runs = run.iter().filter_map(|id| Run::parse(&format!("{id},5,0.5,0,success"))).collect();
            push.run = run.map(|id| {
                // Some have waited for long, others go on.
                let ended_at = push.at.unix.before(Duration::from_secs(u64::from(id % 3) * 5));
                let id_of = |id: u8| RunId::parse(&id.to_string()).expect("an id");
                match id {
                    3 => PushingRun { id: id_of(2), ended_at: None },
                    _ => PushingRun { id: id_of(id), ended_at: Some(ended_at) },
                }
            });
            Change::Push(push)
        }
        Step::Together { jobs, body } => {
            let mut jobs = jobs.clone();
            jobs.sort_unstable();
            jobs.dedup();
            let push = |of: &u8| raw(PushMode::ReplaceGroup, &job(of), &text_of(body), now);
            Change::Together(jobs.iter().map(push).collect())
        }
        Step::Delete(jobs) => Change::Delete(jobs.iter().map(|of| key(&job(of))).collect()),
        Step::Pass(_) | Step::Restart => return None,
    })
}

/// Everything that is known about groups.
fn known(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot();
    let mut known: Vec<String> = exposed(store).lines().map(str::to_owned).collect();
    known.extend(snapshot.groups().map(|group| {
        let runs = group.runs().map(|runs| runs.last().copied().collect::<Vec<_>>());
        format!("{:?} {:?} {} {runs:?}", group.key, group.state(), group.is_expired())
    }));
    known.sort();
    known
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever has happened, a restart changes nothing, and what falls due afterwards does so as it would have without it.
    #[test]
    fn a_restart_changes_nothing(all in prop::collection::vec(steps(), 1..60), quarantine in any::<bool>()) {
        const SECOND: i64 = 1_000_000_000;
        let directory = tempfile::tempdir().expect("a directory");
        let settings = || {
            let mut settings = Settings { retention: Duration::from_secs(10), ..settings() };
            settings.rules.quarantine = quarantine;
            settings
        };
        let moment = |now: i64| Moment { unix: UnixNanos(now), steady: SteadyNanos(now) };
        let open = |now: i64| {
            Store::open(settings(), &storage(directory.path()), moment(now)).expect("it is whole")
        };
        let (mut now, mut store, without) = (100 * SECOND, open(100 * SECOND), Store::new(settings()));
        for step in all.iter().chain([&Step::Restart, &Step::Pass(7), &Step::Restart]) {
            now += SECOND / 10;
            for store in [&store, &without] {
                if let Some(change) = change_of(step, now) {
                    let _ = store.make(change);
                }
            }
            match step {
                Step::Pass(seconds) => {
                    now += i64::from(*seconds) * SECOND;
                    for store in [&store, &without] {
                        while store.let_fall_due(SteadyNanos(now)) {}
                    }
                }
                Step::Restart => {
                    drop(store);
                    store = open(now);
                    while without.let_fall_due(SteadyNanos(now)) {}
                }
                _ => {}
            }
            prop_assert_eq!(known(&store), known(&without), "after {:?}", step);
        }
    }
}
