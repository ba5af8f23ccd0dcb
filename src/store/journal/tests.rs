//! What is read again after files were cut and damaged at every place.

mod promises;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::exposition::{Compression, Format, MetricType, Validation, text};
use crate::grouping::GroupingKey;
use crate::store::expose::expose;
use crate::store::{
    Due, Push, PushMode, Rules, Run, Settings, SteadyNanos, Store, StoreError, StoredFamily, UnixNanos, Wish,
    Wishes,
};

fn settings() -> Settings {
    let rules = Rules { quarantine: false, groups_max: 1000, failed_groups_max: 10 };
    Settings::new(HashMap::new(), rules)
}

/// When everything is read again.
const NOW: Moment = Moment { unix: UnixNanos(100_000_000_000), steady: SteadyNanos(0) };

fn storage(path: &Path) -> Storage {
    Storage { path: path.to_owned(), damage: Damage::Refused, import: None }
}

fn open(path: &Path, damage: Damage) -> std::result::Result<Store, StorageError> {
    Store::open(settings(), &Storage { path: path.to_owned(), damage, import: None }, NOW)
}

fn exposed(store: &Store) -> String {
    let pieces = expose(&store.snapshot(), &[], Format::DEFAULT, Compression::Identity);
    String::from_utf8(pieces.concat()).expect("text is UTF-8")
}

/// Makes a change and waits until it is answered.
fn make(store: &Store, change: Change) {
    let answer = async {
        match store.make(change) {
            Ok(made) => store.durable(made).await,
            Err(StoreError::Inconsistent(_)) => store.flush().await,
            Err(other) => Err(other),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(answer).expect("the disk is well");
}

fn key(job: &str) -> GroupingKey {
    GroupingKey::new(job, [("zone", "Π/\"\n")])
}

fn push(mode: PushMode, job: &str, body: &str, at: i64) -> Change {
    Change::Push(raw(mode, job, body, at))
}

fn raw(mode: PushMode, job: &str, body: &str, at: i64) -> Push {
    let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
    Push::new(key(job), families, mode, UnixNanos(at))
}

/// One of every kind, and each different from the one before.
fn changes() -> Vec<Change> {
    let (put, post) = (PushMode::ReplaceGroup, PushMode::ReplaceFamilies);
    let histogram = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    vec![
        push(put, "a", "# HELP m one\n# TYPE m counter\nm 1\nm{l=\"x\"} 2\n", 1_000_000_001),
        push(put, "b", "# HELP m two\n# TYPE m counter\nm 1e300\n", 2_000_000_002),
        push(post, "a", histogram, 3_000_000_003),
        push(put, "c", "m 1\n", 4_000_000_004),
        Change::Failed { key: key("d"), at: UnixNanos(5_000_000_005) },
        push(post, "b", "# HELP m two\n# TYPE m counter\nm NaN\n", 6_000_000_006),
        Change::Delete(vec![key("a")]),
        push(put, "b", "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\ns_count 3\n", 7_000_000_007),
        Change::Wipe,
        push(put, "e", "g 1\n", 8_000_000_008),
        promising("e", 9_000_000_009),
        Change::Due { key: key("e").into(), due: Due::Overdue },
        push(PushMode::ReplaceMetrics, "e", "g{l=\"x\"} 2\n", 10_000_000_000),
        Change::Together(vec![
            raw(put, "f", "g 3\n", 11_000_000_000),
            raw(put, "h", "g 4\n", 11_000_000_000),
        ]),
        Change::Delete(vec![key("f"), key("h"), key("nobody")]),
        push(put, "i", "i 1\n", 12_000_000_000),
        Change::Due { key: key("e").into(), due: Due::Expired },
    ]
}

/// A push that promises something for long, and tells of a run.
fn promising(job: &str, at: i64) -> Change {
    let mut push = raw(PushMode::ReplaceFamilies, job, "p 1\n", at);
    let length = |seconds: u64| Some(Duration::from_secs(seconds));
    push.wishes = Wishes { ttl: Wish::ttl(length(2000), None), expect: Wish::expect(length(1000), None) };
    push.runs = ["1,5,0.5,0,success", "2,6,7,137,oom", "3,6,0,0,skipped"]
        .map(|run| Run::parse(run).expect(run))
        .into();
    Change::Push(push)
}

/// A directory in which all [`changes`] were answered one by one, and what was exposed after each.
fn recorded() -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), Damage::Refused).expect("it is new");
    let mut states = vec![exposed(&store)];
    for change in changes() {
        make(&store, change);
        states.push(exposed(&store));
    }
    (directory, states)
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let names = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it is there").path());
    let is_segment = |path: &std::path::PathBuf| path.to_string_lossy().contains("journal-");
    let mut segments: Vec<_> = names.filter(is_segment).collect();
    segments.sort();
    segments
}

/// Puts other bytes in the place of the only segment.
fn replaced(directory: &Path, bytes: &[u8]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let [segment] = &segments(directory)[..] else { panic!("there is one") };
    fs::write(copy.path().join(segment.file_name().expect("it has one")), bytes).expect("writable");
    copy
}

/// Where each record begins, and where the last one ends.
fn begins(bytes: &[u8]) -> Vec<usize> {
    let mut rest = bytes;
    let mut begins = vec![0];
    while let Some((_, after)) = frame::read(rest) {
        rest = after;
        begins.push(bytes.len() - rest.len());
    }
    begins
}

#[test]
fn what_was_answered_is_there_again() {
    let (directory, states) = recorded();
    for _ in 0..3 {
        let store = open(directory.path(), Damage::Refused).expect("it is whole");
        assert_eq!(exposed(&store), *states.last().expect("there are some"));
    }
    let store = open(directory.path(), Damage::Refused).expect("it is whole");
    make(&store, push(PushMode::ReplaceGroup, "f", "g 2\n", 9));
    let expected = exposed(&store);
    drop(store);
    assert_eq!(exposed(&open(directory.path(), Damage::Refused).expect("it is whole")), expected);
}

#[test]
fn two_gateways_do_not_share_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = open(directory.path(), Damage::Refused).expect("it is new");
    assert!(matches!(open(directory.path(), Damage::Refused), Err(StorageError::InUse(_))));
}

#[test]
fn a_journal_that_is_cut_anywhere_gives_all_that_is_whole() {
    let (directory, states) = recorded();
    let bytes = fs::read(&segments(directory.path())[0]).expect("readable");
    let begins = begins(&bytes);
    assert_eq!(begins.len(), states.len());
    for end in 0..=bytes.len() {
        let copy = replaced(directory.path(), &bytes[..end]);
        let store = open(copy.path(), Damage::Refused).unwrap_or_else(|error| panic!("at {end}: {error}"));
        let whole = begins.iter().filter(|begin| **begin <= end).count() - 1;
        assert_eq!(exposed(&store), states[whole], "cut at {end}");
        // It is as if the rest had never been.
        make(&store, push(PushMode::ReplaceGroup, "f", "g 2\n", 9));
        let expected = exposed(&store);
        drop(store);
        assert_eq!(exposed(&open(copy.path(), Damage::Refused).expect("whole again")), expected);
    }
}

#[test]
fn no_damage_goes_unnoticed() {
    let (directory, states) = recorded();
    let bytes = fs::read(&segments(directory.path())[0]).expect("readable");
    let begins = begins(&bytes);
    let last = begins[begins.len() - 2];
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let copy = replaced(directory.path(), &damaged);
        match open(copy.path(), Damage::Refused) {
            // It looks like what a crash leaves, and nothing tells that it was answered.
            Ok(store) => assert!(at >= last && exposed(&store) == states[states.len() - 2], "byte {at}"),
            Err(StorageError::Damaged { at: found, .. }) => {
                assert!(at < last && begins.contains(&usize::try_from(found).expect("small")), "byte {at}");
            }
            Err(other) => panic!("{other}"),
        }
        let store = open(copy.path(), Damage::LeftOut).expect("it goes on");
        let expected = exposed(&store);
        drop(store);
        let again = open(copy.path(), Damage::Refused).expect("and on, without being told");
        assert_eq!(sorted(&exposed(&again)), sorted(&expected));
    }
}

/// Frames of records that were brought to disk together, of which each knows of the same ones before.
#[test]
fn damage_is_noticed_also_where_records_were_written_together() {
    let payload = record::of_change(&push(PushMode::ReplaceGroup, "a", "m 1\n", 1));
    let mut bytes = Vec::new();
    let mut begins = Vec::new();
    for number in 1..=12 {
        begins.push(bytes.len());
        let synced = (number - 1) / 4 * 4;
        frame::write(&mut bytes, frame::Frame { number, synced, payload: &payload });
    }
    for (at, begin) in begins.iter().enumerate() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut damaged = bytes.clone();
        damaged[begin + 30] ^= 1;
        fs::write(directory.path().join("journal-00000000000000000001"), &damaged).expect("writable");
        // Nobody knows whether the last four were answered.
        assert_eq!(open(directory.path(), Damage::Refused).is_ok(), at >= 8, "record {}", at + 1);
    }
}

#[test]
fn a_whole_journal_needs_no_snapshot_but_of_what_was_imported() {
    let (directory, states) = recorded();
    let bogus = |number: u64| directory.path().join(format!("snapshot-{number:020}"));
    fs::write(bogus(5), "damaged").expect("writable");
    let store = open(directory.path(), Damage::Refused).expect("all of it is in the journal");
    assert_eq!(exposed(&store), *states.last().expect("there are some"));
    assert!(!bogus(5).exists(), "nothing relies on it any more");
    drop(store);
    for number in [1, 5] {
        fs::write(bogus(number), "damaged").expect("writable");
    }
    assert!(open(directory.path(), Damage::Refused).is_err(), "what was imported would be gone");
}

#[test]
fn missing_records_are_noticed() {
    let (directory, _) = recorded();
    let bytes = fs::read(&segments(directory.path())[0]).expect("readable");
    let begins = begins(&bytes);
    let without = [&bytes[..begins[3]], &bytes[begins[4]..]].concat();
    let copy = replaced(directory.path(), &without);
    let error = open(copy.path(), Damage::Refused).err().expect("one is missing").to_string();
    assert!(error.contains("records 4 to 4 are missing") && error.contains("--storage.repair"), "{error}");
    let copy = replaced(directory.path(), &bytes[begins[1]..]);
    assert!(open(copy.path(), Damage::Refused).is_err(), "the first is missing, and there is no snapshot");
}

/// Pushes until there have been some snapshots.
fn with_snapshots() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), Damage::Refused).expect("it is new");
    let snapshots = || {
        let names = fs::read_dir(directory.path()).expect("there").flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("snapshot-")).max()
    };
    let (mut seen, mut number) = (Vec::new(), 0);
    while seen.len() < 4 {
        number += 1;
        assert!(number < 100_000, "there is no snapshot");
        let job = format!("job{}", number % 40);
        let body = format!("# HELP m {}\n# TYPE m gauge\nm{{l=\"{}\"}} {number}\n", number % 3, number % 7);
        make(&store, push(PushMode::ReplaceGroup, &job, &body, number));
        if let Some(newest) = snapshots()
            && !seen.contains(&newest)
        {
            seen.push(newest);
        }
    }
    let exposed = exposed(&store);
    (directory, exposed)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_snapshot_stands_for_what_was_recorded_before_it() {
    let (directory, expected) = with_snapshots();
    let store = open(directory.path(), Damage::Refused).expect("it is whole");
    assert_eq!(sorted(&exposed(&store)), sorted(&expected));
    drop(store);
    let snapshots: Vec<_> =
        Directory::open(directory.path()).expect("nobody has it").snapshots().expect("readable");
    assert!(snapshots.len() <= 2, "old ones go: {snapshots:?}");
    assert!(segments(directory.path()).len() <= 8, "and what only they needed");
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_one_before() {
    let (directory, expected) = with_snapshots();
    let snapshots: Vec<_> =
        Directory::open(directory.path()).expect("nobody has it").snapshots().expect("readable");
    let [older, newest] = &snapshots[..] else { panic!("there are two: {snapshots:?}") };
    let bytes = fs::read(&newest.path).expect("readable");
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&newest.path, &damaged).expect("writable");
        let store = open(directory.path(), Damage::Refused).expect("the older one is good");
        assert_eq!(sorted(&exposed(&store)), sorted(&expected), "byte {at}");
    }
    fs::write(&newest.path, &bytes[..bytes.len() / 2]).expect("writable");
    fs::write(&older.path, b"").expect("writable");
    assert!(open(directory.path(), Damage::Refused).is_err(), "nothing is never what was pushed");
    let store = open(directory.path(), Damage::LeftOut).expect("it goes on");
    assert!(exposed(&store).contains("m{"), "what can be read is there");
}

/// Whatever the rules are when it is read again, nothing that was answered is lost, and nothing is exposed that contradicts.
#[test]
fn what_was_kept_aside_is_kept_aside_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut lenient = settings();
    lenient.rules.quarantine = true;
    let store = Store::open(lenient.clone(), &storage(directory.path()), NOW).expect("it is new");
    make(&store, push(PushMode::ReplaceGroup, "a", "# TYPE m gauge\nm 1\n", 1));
    make(&store, push(PushMode::ReplaceGroup, "b", "# TYPE m counter\nm 2\nother 3\n", 2));
    let expected = exposed(&store);
    assert!(expected.contains("# TYPE m gauge\nm{") && expected.contains("other{"), "{expected}");
    assert_eq!(expected.lines().filter(|line| line.starts_with("m{")).count(), 1, "{expected}");
    drop(store);
    for settings in [settings(), lenient] {
        let store = Store::open(settings, &storage(directory.path()), NOW).expect("it is whole");
        assert_eq!((exposed(&store), store.snapshot().aside), (expected.clone(), 1));
        let snapshot = store.snapshot();
        let reasons: Vec<_> =
            snapshot.groups().flat_map(|group| group.families()).filter_map(StoredFamily::aside).collect();
        assert!(reasons[0].to_string().contains("is not a GAUGE"), "{reasons:?}");
    }
    let store = Store::open(settings(), &storage(directory.path()), NOW).expect("it is whole");
    make(&store, Change::Delete(vec![key("a")]));
    assert!(
        exposed(&store).contains("# TYPE m counter\nm{instance=\"\",job=\"b\""),
        "its turn has come: {}",
        exposed(&store)
    );
}

/// What was pushed before the gateway had a family of that name stands in nobody's way.
#[test]
fn a_snapshot_does_not_contradict_what_the_gateway_exposes_now() {
    let (directory, exposed_before) = with_snapshots();
    assert!(exposed_before.contains("# TYPE m gauge"));
    let own = HashMap::from([("m".to_owned(), MetricType::Counter)]);
    let store =
        Store::open(Settings { own, ..settings() }, &storage(directory.path()), NOW).expect("it is whole");
    assert!(!exposed(&store).contains("\nm{"), "{}", exposed(&store));
    assert_eq!(store.snapshot().aside, 40);
    drop(store);
    let store = open(directory.path(), Damage::Refused).expect("it is whole");
    assert_eq!((sorted(&exposed(&store)), store.snapshot().aside), (sorted(&exposed_before), 0));
}

/// A journal of some megabytes, whose records were brought to disk sixteen at a time, and where each of them begins.
fn large() -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut begins) = (Vec::new(), Vec::new());
    for number in 1..=LARGE_RECORDS {
        let series: String =
            (0..100).map(|i| format!("m{{i=\"{i}\",k=\"{}\"}} {number}\n", "v".repeat(20))).collect();
        let change = push(PushMode::ReplaceGroup, &format!("job{}", number % LARGE_GROUPS), &series, 1);
        begins.push(bytes.len());
        let synced = (number - 1) / 16 * 16;
        let payload = record::of_change(&change);
        frame::write(&mut bytes, frame::Frame { number, synced, payload: &payload });
    }
    (bytes, begins)
}

const LARGE_RECORDS: u64 = 500;
const LARGE_GROUPS: u64 = 100;

/// The number that each group was pushed last, where only some records are left.
fn last_numbers(is_left: impl Fn(u64) -> bool) -> Vec<String> {
    let mut last = std::collections::BTreeMap::new();
    for number in (1..=LARGE_RECORDS).filter(|number| is_left(*number)) {
        last.insert(format!("job{}", number % LARGE_GROUPS), number);
    }
    last.into_iter().map(|(job, number)| format!("{job} {number}")).collect()
}

/// The same as it is exposed, where every group has all of one push.
fn exposed_numbers(store: &Store) -> Vec<String> {
    let mut seen = std::collections::BTreeMap::<String, Vec<String>>::new();
    let text = exposed(store);
    for line in text.lines().filter(|line| line.starts_with("m{")) {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let job =
            series.split("job=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("it has a job");
        seen.entry(job.to_owned()).or_default().push(value.to_owned());
    }
    let number = |(job, mut values): (String, Vec<String>)| {
        assert_eq!(values.len(), 100, "{job} is whole");
        values.dedup();
        format!("{job} {}", values.join(" "))
    };
    seen.into_iter().map(number).collect()
}

#[test]
fn large_journals_are_cut_and_damaged_anywhere() {
    let (bytes, begins) = large();
    assert!(bytes.len() > 2_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("journal-00000000000000000001");
    let write = |bytes: &[u8]| {
        for entry in fs::read_dir(directory.path()).expect("there").flatten() {
            fs::remove_file(entry.path()).expect("ours");
        }
        fs::write(&file, bytes).expect("writable");
    };
    // Another place each time the tests run.
    let random = std::hash::RandomState::new();
    for round in 0..12_u64 {
        let at = usize::try_from(std::hash::BuildHasher::hash_one(&random, round) % bytes.len() as u64)
            .expect("small");
        let before = begins.partition_point(|begin| *begin <= at) as u64 - 1;
        write(&bytes[..at]);
        let store =
            open(directory.path(), Damage::Refused).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
        assert_eq!(exposed_numbers(&store), last_numbers(|number| number <= before), "cut at {at}");
        drop(store);
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (round % 8);
        write(&damaged);
        let was_synced = before < (LARGE_RECORDS - 1) / 16 * 16;
        match open(directory.path(), Damage::Refused) {
            Ok(store) => {
                assert!(!was_synced, "byte {at} of record {}", before + 1);
                assert_eq!(exposed_numbers(&store), last_numbers(|number| number <= before), "byte {at}");
            }
            Err(StorageError::Damaged { at: found, .. }) => {
                assert!(
                    was_synced
                        && begins.contains(&usize::try_from(found).expect("small"))
                        && found <= at as u64,
                    "byte {at}: {found}"
                );
                let store = open(directory.path(), Damage::LeftOut).expect("it goes on");
                assert_eq!(exposed_numbers(&store), last_numbers(|number| number != before + 1), "byte {at}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// As early versions wrote it.
#[test]
fn a_recorded_family_without_metrics_says_nothing_of_single_metrics() {
    let directory = tempfile::tempdir().expect("a directory");
    {
        let store = open(directory.path(), Damage::Refused).expect("new");
        let stored = "# HELP a text\n# TYPE a gauge\na 1\nb 1\n";
        make(&store, push(PushMode::ReplaceGroup, "x", stored, 1_000_000_000));
        let families = text::parse(b"# HELP a other\n# TYPE a counter\nb 2\nc 3\n", Validation::Legacy);
        let families = families.expect("a good text");
        let mut early = Push::new(key("x"), families, PushMode::ReplaceFamilies, UnixNanos(2_000_000_000));
        early.mode = PushMode::ReplaceMetrics;
        let journal = store.journal.as_ref().expect("there is one");
        let number = journal.append(&Journal::payload(&Change::Push(early)).expect("a payload"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(journal.on_disk(number)).expect("written");
    }
    let text = exposed(&open(directory.path(), Damage::Refused).expect("whole"));
    assert!(text.contains("# HELP a text\n# TYPE a gauge\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("b{") && line.ends_with("} 2")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("c{")), "{text}");
}
