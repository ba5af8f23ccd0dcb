//! What is pushed together, and where contradictions are kept aside.

use super::*;

/// Who is exposed stays, whatever is pushed together and however many series are left of it.
#[test]
fn whoever_is_exposed_stays() {
    let mut state = state_with(true);
    put(&mut state, "old", "other 1\n").expect("accepted");
    put(&mut state, "x", "# TYPE m gauge\nm{l=\"1\"} 1\nm{l=\"2\"} 1\n").expect("accepted");
    post(&mut state, "old", "# TYPE m counter\nm 7\n").expect("taken all the same");
    let of_x = |state: &State| samples(state).iter().filter(|line| line.contains("job=\"x\"")).count();
    assert_eq!((of_x(&state), state.snapshot().aside), (2, 1));
    put(&mut state, "x", "# TYPE m gauge\nm{l=\"1\"} 3\n").expect("accepted");
    assert_eq!((of_x(&state), state.snapshot().aside), (1, 1));
    let together = |body: &str| {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        let key = GroupingKey::new("x", [("", ""); 0]);
        Change::Together(vec![Push::new(key, families, PushMode::ReplaceGroup, UnixNanos(8_000_000_000))])
    };
    for body in ["# TYPE m gauge\nm{l=\"1\"} 4\n", "# TYPE m gauge\nm{l=\"3\"} 5\nn 1\n"] {
        state.make(together(body)).expect("accepted");
        assert_eq!(state.snapshot().aside, 1, "{body}");
    }
    assert_eq!(of_x(&state), 2);
    // A type of its own is another matter.
    state.make(together("# TYPE m summary\nm_count 1\n")).expect("accepted");
    assert!(samples(&state).contains(&r#"m{instance="",job="old"} 7"#.to_owned()));
}

#[test]
fn a_series_that_is_given_up_is_for_whoever_waits_for_it() {
    let mut state = state_with(true);
    let key = |zone: &str| GroupingKey::new("x", [("zone", zone)]);
    let push = |state: &mut State, key: GroupingKey, body: &str| {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        let push = Push::new(key, families, PushMode::ReplaceGroup, UnixNanos(7_000_000_000));
        state.make(Change::Push(push)).expect("taken");
    };
    push(&mut state, GroupingKey::new("x", [("", ""); 0]), "m{zone=\"a\"} 1\nm{zone=\"b\"} 1\n");
    push(&mut state, key("a"), "m 2\n");
    push(&mut state, key("c"), "m 3\n");
    assert_eq!(state.snapshot().aside, 1);
    push(&mut state, GroupingKey::new("x", [("", ""); 0]), "m{zone=\"b\"} 1\n");
    assert_eq!(state.snapshot().aside, 0);
    assert!(samples(&state).contains(&r#"m{instance="",job="x",zone="a"} 2"#.to_owned()));
}

/// What many wait for the end of is judged again when the last one of it goes, and not before.
#[test]
fn a_deletion_costs_nothing_while_others_are_in_the_way() {
    let mut state = state_with(true);
    for job in ["a", "b"] {
        put(&mut state, job, "# TYPE m gauge\nm 1\n").expect("accepted");
    }
    put(&mut state, "y", "# TYPE m counter\nm 1\n").expect("taken all the same");
    let waiting = |state: &State| {
        let snapshot = state.snapshot();
        let group = snapshot.groups().find(|group| group.key.job() == "y").expect("it is there").clone();
        group.families()[0].head.clone()
    };
    let before = waiting(&state);
    let delete = |job: &str| Change::Delete(vec![GroupingKey::new(job, [("", ""); 0])]);
    state.make(delete("a")).expect("deleted");
    assert!(Arc::ptr_eq(&before, &waiting(&state)), "it was judged again");
    state.make(delete("b")).expect("deleted");
    assert_eq!(state.snapshot().aside, 0);
}

#[test]
fn a_patch_that_contradicts_itself_is_refused_where_nothing_is_checked() {
    let mut state = state_with(true);
    put(&mut state, "x", "# TYPE m gauge\nm{l=\"1\"} 1\nm{l=\"2\"} 1\n").expect("accepted");
    let before = samples(&state);
    for body in ["m{l=\"1\"} 2\nm{l=\"1\"} 3\n", "m{__x=\"1\"} 4\n"] {
        push(&mut state, PushMode::ReplaceMetrics, "x", body).expect_err(body);
        assert_eq!((samples(&state), state.snapshot().aside), (before.clone(), 0), "{body}");
    }
    push(&mut state, PushMode::ReplaceMetrics, "x", "m{l=\"1\"} 4 5\n").expect("nobody is told");
    assert_eq!(samples(&state), before);
    push(&mut state, PushMode::ReplaceMetrics, "x", "m{l=\"1\"} 5\n").expect("accepted");
    assert_eq!(state.snapshot().aside, 0);
}

/// New values for many groups in one push cost no check, and the others are as they were.
#[test]
fn pushes_together_of_known_series_are_updates() {
    let mut state = state();
    let together = |value: u8, extra: &str| {
        let of = |job: &str| {
            let body = format!("m {value}\n{extra}");
            let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
            let key = GroupingKey::new(job, [("", ""); 0]);
            Push::new(key, families, PushMode::ReplaceGroup, UnixNanos(7_000_000_000))
        };
        ["a", "b"].map(of)
    };
    assert!(!state.update_together(&mut together(1, "")), "the groups are not there yet");
    state.make(Change::Together(together(1, "").into())).expect("accepted");
    assert!(state.update_together(&mut together(2, "")));
    let expected = [r#"m{instance="",job="a"} 2"#, r#"m{instance="",job="b"} 2"#];
    assert_eq!(samples(&state), expected);
    assert!(!state.update_together(&mut together(3, "n 1\n")));
    let [one, _] = together(3, "");
    let [twice, _] = together(3, "");
    assert!(!state.update_together(&mut [one, twice]), "a group is pushed to once");
    assert_eq!(samples(&state), expected);
}
