//! What the parts of a push and of a scrape cost: parse, check, apply, render, journal append.
//!
//!   cargo bench --bench store [FILTER]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use jobmon::exposition::labels::Escaping;
use jobmon::exposition::series::SeriesHash;
use jobmon::exposition::{
    Compression, Format, Limits, MetricFamily, Syntax, Validation, check, protobuf, text,
};
use jobmon::grouping::GroupingKey;
use jobmon::store::expose::expose;
use jobmon::store::{
    Change, Damage, Push, PushMode, Rules, Settings, SteadyNanos, Storage, Store, UnixNanos, Wish, Wishes,
};

fn main() {
    divan::main();
}

/// Families of one metric each, or one family of many metrics.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Families(usize),
    Metrics(usize),
}

const SHAPES: [Shape; 3] = [Shape::Families(10), Shape::Families(1000), Shape::Metrics(1000)];

impl Shape {
    fn series(self) -> usize {
        match self {
            Self::Families(series) | Self::Metrics(series) => series,
        }
    }

    fn text(self, value: usize) -> String {
        match self {
            Self::Families(count) => (0..count)
                .map(|i| format!("# TYPE bench_metric_{i} gauge\nbench_metric_{i} {value}.25\n"))
                .collect(),
            Self::Metrics(count) => {
                let lines =
                    (0..count).map(|i| format!("bench_metric{{disk=\"sd{i}\",mode=\"read\"}} {value}.25\n"));
                "# TYPE bench_metric gauge\n".to_owned() + &lines.collect::<String>()
            }
        }
    }

    fn families(self, value: usize) -> Vec<MetricFamily> {
        text::parse(self.text(value).as_bytes(), Validation::Legacy).expect("a good text")
    }
}

fn key(group: usize) -> GroupingKey {
    GroupingKey::new("bench", [("instance", format!("machine-{group}"))])
}

fn push(group: usize, shape: Shape, value: usize) -> Change {
    Change::Push(Push::new(key(group), shape.families(value), PushMode::ReplaceGroup, UnixNanos(1)))
}

fn settings() -> Settings {
    let rules = Rules { quarantine: false, groups_max: usize::MAX, failed_groups_max: 0 };
    Settings::new(HashMap::new(), rules)
}

fn store_of(groups: usize) -> Store {
    let store = Store::new(settings());
    for group in 0..groups {
        let _ = store.make(push(group, Shape::Families(10), 0)).expect("a good push");
    }
    store
}

#[divan::bench(args = SHAPES)]
fn parse_text(bencher: Bencher, shape: Shape) {
    let body = shape.text(1);
    bencher
        .counter(BytesCount::of_str(&body))
        .bench(|| text::parse(black_box(body.as_bytes()), Validation::Legacy));
}

#[divan::bench(args = SHAPES)]
fn parse_protobuf(bencher: Bencher, shape: Shape) {
    let mut body = Vec::new();
    protobuf::encode(&mut body, &shape.families(1));
    bencher.counter(BytesCount::of_slice(&body)).bench(|| protobuf::decode(black_box(&body), &Limits::NONE));
}

#[divan::bench(args = SHAPES)]
fn check_alone(bencher: Bencher, shape: Shape) {
    let (families, key, hash) = (shape.families(1), key(1), SeriesHash::default());
    bencher
        .counter(ItemsCount::new(shape.series()))
        .bench(|| check::alone(black_box(&families), key.labels(), &hash));
}

/// New values for what a group has, beside so many other groups.
#[divan::bench(args = [10, 10_000])]
fn apply_new_values(bencher: Bencher, groups: usize) {
    let store = store_of(groups);
    let mut made = 0;
    bencher
        .with_inputs(|| {
            made += 1;
            push(made * 7919 % groups, Shape::Families(10), made)
        })
        .bench_local_values(|change| store.make(change));
}

/// A group that comes to be, beside so many others.
#[divan::bench(args = [10, 10_000])]
fn apply_new_group(bencher: Bencher, groups: usize) {
    let store = store_of(groups);
    let mut made = groups;
    bencher
        .with_inputs(|| {
            made += 1;
            push(made, Shape::Families(10), 0)
        })
        .bench_local_values(|change| store.make(change));
}

/// One sample into a family of so many, new ones and old ones in turn.
#[divan::bench(args = [10, 1000, 100_000])]
fn patch_one_sample(bencher: Bencher, series: usize) {
    let store = Store::new(settings());
    let _ = store.make(push(0, Shape::Metrics(series), 0)).expect("a good push");
    let mut made = 0;
    bencher
        .with_inputs(|| {
            made += 1;
            let disk = if made % 2 == 0 { made % series } else { series + made };
            let line = format!("bench_metric{{disk=\"sd{disk}\",mode=\"read\"}} {made}\n");
            let families = text::parse(line.as_bytes(), Validation::Legacy).expect("a good text");
            Change::Push(Push::new(key(0), families, PushMode::ReplaceMetrics, UnixNanos(1)))
        })
        .bench_local_values(|change| store.make(change));
}

/// What is asked of a group: nothing, that the next push is expected, or that its series go, too. Beside the last: nothing,
/// and each group is deleted, so that its series go and come all the same.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Nothing,
    Expect,
    ExpectAndTtl,
    Deletion,
}

const PROMISING_GROUPS: usize = 100_000;

/// A push to each of 100,000 groups, and all that was promised with it falls due: what this takes more than without promises
/// is arming, firing and revival.
#[divan::bench(args = [Asked::Nothing, Asked::Expect, Asked::ExpectAndTtl, Asked::Deletion], sample_count = 5, sample_size = 1)]
fn promise_and_break(bencher: Bencher, asked: Asked) {
    let store = Store::new(settings());
    let mut round: i64 = 0;
    let pushes = |round: i64| {
        let length = |is_asked: bool| is_asked.then_some(Duration::from_secs(1));
        let wishes = Wishes {
            expect: Wish::expect(length(matches!(asked, Asked::Expect | Asked::ExpectAndTtl)), None),
            ttl: Wish::ttl(length(matches!(asked, Asked::ExpectAndTtl)), None),
        };
        let push = |group| {
            let families = Shape::Families(10).families(usize::try_from(round).expect("small"));
            let at = UnixNanos(round * 10_000_000_000);
            let mut push = Push::new(key(group), families, PushMode::ReplaceGroup, at);
            push.wishes = wishes;
            Change::Push(push)
        };
        (0..PROMISING_GROUPS).map(push).collect::<Vec<_>>()
    };
    for change in pushes(0) {
        let _ = store.make(change).expect("a good push");
    }
    bencher
        .counter(ItemsCount::new(PROMISING_GROUPS))
        .with_inputs(|| {
            round += 1;
            (round, pushes(round))
        })
        .bench_local_values(|(round, changes)| {
            for change in changes {
                let _ = store.make(change).expect("a good push");
            }
            while store.let_fall_due(SteadyNanos(round * 10_000_000_000 + 5_000_000_000)) {}
            if matches!(asked, Asked::Deletion) {
                for group in 0..PROMISING_GROUPS {
                    let _ = store.make(Change::Delete(vec![key(group)])).expect("deleted");
                }
            }
        });
}

const SCRAPES: [(Syntax, Compression); 5] = [
    (Syntax::Text, Compression::Identity),
    (Syntax::Text, Compression::Gzip),
    (Syntax::Text, Compression::Zstd),
    (Syntax::OpenMetrics, Compression::Gzip),
    (Syntax::ProtobufDelimited, Compression::Gzip),
];
const SCRAPED_GROUPS: usize = 10_000;

/// A scrape of 10,000 groups of 10 series, all of which have changed since the last one.
#[divan::bench(args = SCRAPES, sample_count = 10)]
fn render_all_changed(bencher: Bencher, scrape: (Syntax, Compression)) {
    render(bencher, scrape, SCRAPED_GROUPS);
}

/// The same where one group in a hundred has, those that came to be together.
#[divan::bench(args = SCRAPES, sample_count = 10)]
fn render_some_changed(bencher: Bencher, scrape: (Syntax, Compression)) {
    render(bencher, scrape, SCRAPED_GROUPS / 100);
}

/// The same where none has.
#[divan::bench(args = SCRAPES, sample_count = 10)]
fn render_unchanged(bencher: Bencher, scrape: (Syntax, Compression)) {
    render(bencher, scrape, 0);
}

fn render(bencher: Bencher, (syntax, compression): (Syntax, Compression), changed: usize) {
    let store = store_of(SCRAPED_GROUPS);
    let format = Format { syntax, escaping: Escaping::Underscores };
    let scrape = || expose(&store.snapshot(), &[], format, compression);
    scrape();
    let mut value = 0;
    bencher
        .with_inputs(|| {
            value += 1;
            for group in 0..changed {
                let _ = store.make(push(group, Shape::Families(10), value)).expect("a good push");
            }
        })
        .bench_local_values(|()| scrape());
}

/// A push and what it waits for the disk, together with so many others.
#[divan::bench(args = [1, 64], sample_count = 20)]
fn journal_append(bencher: Bencher, together: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = Storage { path: directory.path().to_owned(), damage: Damage::Refused, import: None };
    let store = Store::open(settings(), &storage, UnixNanos(1).into()).expect("an empty directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut value = 0;
    bencher
        .counter(ItemsCount::new(together))
        .with_inputs(|| {
            value += 1;
            (0..together).map(|group| push(group, Shape::Families(10), value)).collect::<Vec<_>>()
        })
        .bench_local_values(|changes| {
            let push = |change| store.make(change).expect("a good push");
            let made: Vec<_> = changes.into_iter().map(push).collect();
            // The last one is on disk when all are.
            let last = *made.last().expect("there is one");
            runtime.block_on(store.durable(last)).expect("the disk works");
        });
}
