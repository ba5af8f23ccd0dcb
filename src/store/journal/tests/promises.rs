//! What was promised is kept over restarts.

use super::*;
use crate::store::GroupState;

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
        let wish = |seconds: u64| Wish::new(Some(Duration::from_secs(seconds)), None);
        first.wishes = Wishes { ttl: wish(20), expect: wish(10) };
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
