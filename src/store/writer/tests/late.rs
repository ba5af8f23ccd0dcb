//! Whatever comes when, a group shows the newest that is known.

use std::time::Duration;

use super::*;
use crate::store::promises::{Due, Moment, Wish};
use crate::store::{GroupState, PushingRun, Run, RunId, Runs};

const SECOND: i64 = 1_000_000_000;

/// A push of a run, at a second.
#[derive(Clone, Copy)]
struct Told {
    run: &'static str,
    /// How long it has waited; nothing where the run goes on.
    age: Option<u64>,
    body: &'static str,
    /// When to expect the next one.
    expect: u64,
}

fn at(second: i64) -> Moment {
    UnixNanos(second * SECOND).into()
}

fn key() -> GroupingKey {
    GroupingKey::new("x", [("", ""); 0])
}

fn goes_on(run: &'static str, body: &'static str) -> Told {
    Told { run, age: None, body, expect: 45 }
}

fn ended(run: &'static str, age: u64, body: &'static str) -> Told {
    Told { run, age: Some(age), body, expect: 900 }
}

impl Told {
    fn push(self, mode: PushMode, second: i64) -> Push {
        let families = text::parse(self.body.as_bytes(), Validation::Legacy).expect("a good text");
        let mut push = Push::new(key(), families, mode, at(second));
        push.wishes.expect = Wish::expect(Some(Duration::from_secs(self.expect)), None);
        let id = RunId::parse(self.run).expect("an id");
        let ended_at = self.age.map(|age| at(second).unix.before(Duration::from_secs(age)));
        push.run = Some(PushingRun { id, ended_at });
        if ended_at.is_some() {
            // What the machine's own clock shows means nothing.
            push.runs = vec![Run::parse(&format!("{},7,1,0,success", self.run)).expect("a run")];
        }
        push
    }

    fn posted(self, state: &mut State, second: i64) {
        state.make(Change::Push(self.push(PushMode::ReplaceFamilies, second))).expect("a good push");
    }
}

/// The values of what is exposed, and the second at which the next push is due.
fn shown(state: &State) -> (Vec<String>, Option<i64>) {
    let values = samples(state)
        .into_iter()
        .filter(|line| !line.starts_with("jobmon_run_") && !line.starts_with("jobmon_runs_"));
    let values = values.map(|line| line.replace(r#"{instance="",job="x"}"#, "")).collect();
    let due = state.snapshot().get(&key()).and_then(|group| group.expected_at());
    (values, due.map(|at| at.0 / SECOND))
}

fn runs(state: &State) -> u64 {
    state.snapshot().get(&key()).and_then(|group| group.runs().map(Runs::total)).unwrap_or_default()
}

/// Pushes one after the other, and what is there at last.
fn after(pushes: &[(i64, Told)]) -> (Vec<String>, Option<i64>) {
    let mut state = state();
    pushes.iter().for_each(|(second, told)| told.posted(&mut state, *second));
    shown(&state)
}

fn is(values: &[&str], due: i64) -> (Vec<String>, Option<i64>) {
    (values.iter().map(|value| (*value).to_owned()).collect(), Some(due))
}

#[test]
fn an_older_result_takes_no_newer_ones_place() {
    let newer = (100, ended("9", 0, "m 1\n"));
    // It ended at 90 s, on a machine whose clock is ahead; so does one that comes twice.
    let older = [(110, ended("f0", 20, "m 2\n")), (111, ended("f0", 21, "m 2\n"))];
    assert_eq!(after(&[newer, older[0], older[1]]), is(&["m 1"], 1000));
    assert_eq!(after(&[newer, older[0], (120, ended("3", 10, "m 3\n"))]), is(&["m 3"], 1020));
    let mut state = state();
    [newer, older[0], older[1]].iter().for_each(|(second, told)| told.posted(&mut state, *second));
    assert_eq!(runs(&state), 2, "each counts once");
}

/// However the clock of the gateway is set.
#[test]
fn a_clock_that_was_set_back_makes_nothing_old() {
    let ahead = (3700, ended("4", 0, "m 4\n"));
    assert_eq!(after(&[ahead, (130, ended("5", 0, "m 5\n"))]), is(&["m 5"], 1030));
    assert_eq!(
        after(&[ahead, (130, ended("5", 0, "m 5\n")), (135, ended("6", 30, "m 6\n"))]),
        is(&["m 5"], 1030)
    );
    // By less than what the next result has waited.
    let next = [(96, goes_on("b", "m 0\n")), (101, ended("b", 3, "m 2\n"))];
    assert_eq!(after(&[(100, ended("a", 0, "m 1\n")), next[0], next[1]]), is(&["m 2"], 1001));
}

#[test]
fn a_result_that_comes_again_takes_no_newer_ones_place() {
    let first = (100, ended("a", 0, "m 1\n"));
    // The first attempt was held up and names no age.
    let again = (110, ended("a", 0, "m 1\n"));
    assert_eq!(after(&[first, (101, goes_on("b", "m 2\n")), again]), is(&["m 2"], 146));
    assert_eq!(after(&[first, (105, ended("b", 0, "m 2\n")), again]), is(&["m 2"], 1005));
    assert_eq!(after(&[first, again]), is(&["m 1"], 1010));
    // What held it up the first time does not now: it is not older than itself.
    let sooner = (102, ended("a", 5, "m 3\n"));
    assert_eq!(after(&[first, sooner]), is(&["m 3"], 1002));
    // Nor newer when it comes again.
    let next = (112, ended("b", 5, "m 2\n"));
    assert_eq!(after(&[first, again, next]), is(&["m 2"], 1012));
}

/// It may be served later, from a connection that was given up.
#[test]
fn progress_takes_no_place_of_the_end_of_its_run() {
    let (start, end) = ((1, goes_on("a", "m 1\n")), (2, ended("a", 0, "m 2\n")));
    let late = (3, goes_on("a", "m 3\nn 3\n"));
    assert_eq!(after(&[start, end, late]), is(&["m 2"], 902));
    assert_eq!(after(&[start, end, late, (4, goes_on("b", "m 4\n"))]), is(&["m 4"], 49));
    // Who asks for the whole group has his will.
    let mut state = state();
    [start, end].iter().for_each(|(second, told)| told.posted(&mut state, *second));
    state.make(Change::Push(late.1.push(PushMode::ReplaceGroup, 5))).expect("a good push");
    assert_eq!(shown(&state), is(&["m 3", "n 3"], 50));
}

/// One that was overtaken while it was judged.
#[test]
fn what_counts_is_how_the_group_is_when_it_is_changed() {
    let mut state = state();
    let mut late = goes_on("a", "m 3\n").push(PushMode::ReplaceFamilies, 3);
    assert!(!state.update(&mut late));
    let judged = late.judge(state.hash());
    ended("a", 0, "m 2\n").posted(&mut state, 2);
    state.push(&mut late, &judged).expect("a good push");
    assert_eq!(shown(&state), is(&["m 2"], 902));
}

/// What is shown was said since, and goes on being shown; what nobody has said since is shown beside it.
#[test]
fn an_old_result_says_nothing_about_a_run_that_goes_on() {
    let progress = (100, goes_on("b", "jobmon_running 1\n"));
    let old = |age: u64| (110, ended("a", age, "jobmon_running 0\nexit_code 3\n"));
    assert_eq!(after(&[progress, old(60)]), is(&["exit_code 3", "jobmon_running 1"], 145));
    // One that has just ended beside it: nobody knows who says more of the job.
    assert_eq!(after(&[progress, old(5)]), is(&["exit_code 3", "jobmon_running 0"], 1010));
    let next = (120, goes_on("b", "jobmon_running 1\n"));
    assert_eq!(after(&[progress, old(5), next]), is(&["exit_code 3", "jobmon_running 1"], 165));
}

/// A job that has ended is not shown as running, though another one ended later.
#[test]
fn the_end_of_the_run_that_is_shown_is_never_late() {
    let other = (104, ended("b", 0, "jobmon_running 0\nok 1\n"));
    let held_up = (105, goes_on("a", "jobmon_running 1\n"));
    let end = (110, ended("a", 7, "jobmon_running 0\nok 0\n"));
    assert_eq!(after(&[other, held_up, end]), (after(&[end]).0, Some(1010)));
    // Also where another run of an outage tells of it.
    let ends = |runs: &[&str]| {
        let mut state = state();
        [other, held_up].iter().for_each(|(second, told)| told.posted(&mut state, *second));
        let runs = runs.iter().map(|id| Run::parse(&format!("{id},7,1,0,success")).expect("a run"));
        let mut later = ended("c", 6, "jobmon_running 0\nok 1\n").push(PushMode::ReplaceFamilies, 109);
        later.runs = runs.collect();
        state.make(Change::Push(later)).expect("a good push");
        shown(&state).0[0].clone()
    };
    assert_eq!(ends(&["c"]), "jobmon_running 1", "it goes on, for all that is known");
    assert_eq!(ends(&["a", "c"]), "jobmon_running 0");
    // Nor does it make what ended before the other one new.
    let old = (120, ended("c", 17, "jobmon_running 0\nok 7\n"));
    assert_eq!(after(&[other, held_up, end, old]), after(&[other, held_up, end]));
}

/// As it would be had it come in time.
#[test]
fn what_no_later_run_has_told_is_taken_of_an_older_result() {
    let pushes = [
        (10, ended("1", 0, "last_success 10\nm 1\n")),
        (200, ended("3", 0, "last_failure 200\nm 3\n")),
        (210, ended("2", 110, "last_success 100\nm 2\nonly_of_2 1\n")),
    ];
    let all = is(&["last_failure 200", "last_success 100", "m 3", "only_of_2 1"], 1100);
    assert_eq!(after(&pushes), all);
    // But not again.
    let newest = (220, ended("4", 0, "only_of_2 4\n"));
    assert_eq!(
        after(&[&pushes[..], &[newest, (230, ended("2", 0, "only_of_2 1\n"))]].concat()).0[3],
        "only_of_2 4"
    );
    // Of two that are late the later one, whichever comes first; and of one that came in time and had waited.
    let older = (220, ended("5", 170, "last_success 50\nonly_of_2 5\n"));
    assert_eq!(after(&[pushes[0], pushes[1], pushes[2], older]), all);
    assert_eq!(after(&[pushes[0], pushes[1], older, pushes[2]]), all);
    let waited = (110, ended("6", 80, "last_success 30\nm 6\n"));
    assert_eq!(after(&[waited, (112, goes_on("3", "")), pushes[1], pushes[2]]), all);
}

/// What contradicts others is refused, and leaves all as it was.
#[test]
fn a_late_push_that_is_refused_says_nothing_about_its_group() {
    let mut state = state();
    put(&mut state, "y", "# TYPE m counter\nm 1\n").expect("accepted");
    ended("1", 0, "exit_code 0\n").posted(&mut state, 100);
    let of_x = |state: &State| state.snapshot().get(&key()).map(|group| (group.state(), group.failed_at));
    let before = (samples(&state), of_x(&state));
    let mut late = ended("2", 20, "# TYPE m gauge\nm 2\n").push(PushMode::ReplaceFamilies, 110);
    let judged = late.judge(state.hash());
    assert!(matches!(state.push(&mut late, &judged), Err(StoreError::Inconsistent(_))));
    assert!(late.is_late, "so that it is not recorded either");
    assert_eq!((samples(&state), of_x(&state)), before);
}

/// It neither revives its group nor makes it one whose pushes are taken.
#[test]
fn a_late_push_says_nothing_about_its_group() {
    let state_of =
        |state: &State| state.snapshot().get(&key()).map(|group| (group.state(), group.succeeded_at));
    for late in [goes_on("a", "m 0\nn 1\n"), ended("b", 20, "m 0\nn 1\n")] {
        let mut state = state();
        ended("a", 0, "m 1\n").posted(&mut state, 1);
        state.make(Change::Due { key: Arc::new(key()), due: Due::Expired }).expect("noted");
        let before = state_of(&state);
        assert_eq!(before.map(|(state, _)| state), Some(GroupState::Expired));
        late.posted(&mut state, 12);
        assert_eq!((state_of(&state), shown(&state).0), (before, vec![]));
    }
    let mut state = state();
    ended("a", 0, "m 1\n").posted(&mut state, 1);
    state.make(Change::Failed { key: key(), at: at(2).unix }).expect("noted");
    goes_on("a", "m 0\n").posted(&mut state, 3);
    assert_eq!(state_of(&state), Some((GroupState::Failed, at(1).unix)));
}
