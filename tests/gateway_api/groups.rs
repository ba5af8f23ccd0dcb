//! Groups are listed, looked at and deleted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::harness::http::request;
use crate::harness::{Gateway, gateway, gateway_with};

/// The groups of all pages, and what is done between them.
fn all_pages(gateway: &Gateway, query: &str, mut between: impl FnMut(&Value)) -> Vec<Value> {
    let (mut groups, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.data("GET", &format!("/api/v1/groups?{query}{after}"));
        let of_page = page["groups"].as_array().expect("groups").clone();
        assert!(of_page.len() <= 4);
        groups.extend(of_page);
        let Some(next) = page["next"].as_str() else { return groups };
        assert_eq!(page["groups"].as_array().map(Vec::len), Some(4), "only the last page is not full");
        after = format!("&after={}", encoded(next));
        between(&page);
    }
}

/// What an order goes by: a state, a time, a key.
fn rank(order: &str, group: &Value) -> (usize, i64, Vec<(String, String)>) {
    let labels = group["labels"].as_object().expect("labels").iter();
    let key = labels.map(|(name, value)| (name.clone(), value.to_string())).collect();
    let time = group["push_time"].as_str().map(chrono::DateTime::parse_from_rfc3339);
    let time = time.map(|time| time.ok().and_then(|time| time.timestamp_nanos_opt()).expect("a time"));
    let state = STATES.iter().position(|state| group["state"] == *state);
    match order {
        "age" => (0, time.unwrap_or_default(), key),
        "state" => (state.expect("a state"), time.unwrap_or_default(), key),
        _ => (0, 0, key),
    }
}

#[test]
fn pages_give_each_group_once_and_in_order() {
    for order in ["key", "age", "state"] {
        let gateway = gateway();
        push_every_state(&gateway);
        // Not in the order of their names.
        for number in 0..19 {
            let promise = if number % 3 == 0 { "?expect=1h" } else { "" };
            gateway.done("PUT", &format!("/metrics/job/g{:02}/zone/a{promise}", number * 7 % 19), "k 1\n");
        }
        let query = format!("limit=4&sort={order}");
        let groups = all_pages(&gateway, &query, |_| ());
        assert_eq!(groups.len(), 25);
        let ranks: Vec<_> = groups.iter().map(|group| rank(order, group)).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{order} {ranks:?}");
        assert_eq!(gateway.data("GET", &format!("/api/v1/groups?sort={order}"))["groups"], json!(groups));

        // Groups come, and those go that were just seen, the last of each page among them.
        let mut seen = BTreeSet::new();
        let mut number = 0;
        let again = all_pages(&gateway, &query, |page| {
            number += 1;
            gateway.done("PUT", &format!("/metrics/job/a{number}"), "k 1\n");
            gateway.done("PUT", &format!("/metrics/job/z{number}?expect=1h"), "k 1\n");
            for group in [3, 1] {
                let labels = &page["groups"][group]["labels"];
                let known = labels["zone"].as_str().map(|zone| format!("/zone/{zone}")).unwrap_or_default();
                let job = labels["job"].as_str().expect("a job");
                gateway.done("DELETE", &format!("/metrics/job/{job}{known}"), "");
            }
        });
        for group in &again {
            assert!(seen.insert(group["id"].to_string()), "{order}: {group} is there twice");
        }
        let all = groups.iter().map(|group| group["id"].to_string());
        for id in all {
            assert!(seen.contains(&id), "{order}: {id} is missing");
        }
        assert!(again.iter().map(|group| rank(order, group)).is_sorted(), "{order}");
    }
}

fn selectors(all: &[&str]) -> String {
    all.iter().fold(String::new(), |query, one| query + "&match[]=" + &encoded(one))
}

#[test]
fn groups_are_selected_by_labels_and_state() {
    let gateway = gateway();
    push_every_state(&gateway);
    for (path, body) in
        [("a/zone/x", "m 1\n"), ("a/zone/y", "m 1\n"), ("b", "m 1\n"), ("b.c/zone/x", "m 1\n")]
    {
        gateway.done("PUT", &format!("/metrics/job/{path}"), body.replace('m', "k").as_str());
    }
    let all = ["a", "a", "b", "b.c", "expired", "failed", "failed", "overdue", "unpromised", "up"];
    for (query, expected) in [
        (selectors(&[]), &all[..]),
        (selectors(&["{job=\"a\"}"]), &["a", "a"]),
        (selectors(&["{job=\"a\",zone=\"y\"}"]), &["a"]),
        (selectors(&["{job!=\"a\",zone!=\"\"}"]), &["b.c"]),
        (selectors(&["{job=~\"b.?.?\"}"]), &["b", "b.c"]),
        (selectors(&["{job=~`b\\.c`}"]), &["b.c"]),
        (selectors(&["{job!~\".*[deo].*\"}"]), &["a", "a", "b", "b.c", "up"]),
        (selectors(&["{job=\"b\"}", "{zone=\"x\"}"]), &["a", "b", "b.c"]),
        (selectors(&["{zone=\"none\"}"]), &[]),
        ("state=up".to_owned(), &["up"]),
        ("state=failed&state=overdue".to_owned(), &["failed", "failed", "overdue"]),
        ("state=unpromised".to_owned() + &selectors(&["{job=~\"b.*|up\"}"]), &["b", "b.c"]),
    ] {
        assert_eq!(gateway.jobs(&query), expected, "{query}");
    }
    let labels = &gateway.data("GET", "/api/v1/groups?match[]={zone=%22y%22}")["groups"][0]["labels"];
    assert_eq!(*labels, json!({"job": "a", "zone": "y"}));
}

#[test]
fn exactly_the_selected_groups_are_deleted() {
    let gateway = gateway();
    for group in ["a", "a/zone/x", "b/zone/x", "c"] {
        gateway.done("PUT", &format!("/metrics/job/{group}"), "m 1\n");
    }
    gateway.done("PUT", "/metrics/job/c?expect=1h", "m 1\n");
    let delete = |query: &str| {
        let data = gateway.data("DELETE", &format!("/api/v1/groups?{query}"));
        (data["dry_run"] == true, data["deleted"].as_u64().expect("a number"), jobs(&data))
    };
    let zone = selectors(&["{zone=\"x\"}"]);
    let both = vec!["a".to_owned(), "b".to_owned()];
    for yes in ["1", "true", "YES", "on"] {
        assert_eq!(delete(&format!("dry_run={yes}{zone}")), (true, 0, both.clone()));
    }
    assert_eq!(gateway.jobs("").len(), 4);
    assert_eq!(delete(&format!("dry_run=0{zone}")), (false, 2, both));
    assert_eq!(delete(&zone), (false, 0, Vec::new()));
    assert_eq!(gateway.jobs(""), ["a", "c"]);
    assert!(!gateway.scrape().contains("zone"));
    assert_eq!(
        delete(&format!("state=up{}", selectors(&["{job=~\".+\"}"]))),
        (false, 1, vec!["c".to_owned()])
    );
    // Without a selector it is none: nobody means everything by accident.
    for query in ["", "state=unpromised", "match[]=", "match[]={}"] {
        let text = gateway.refused(400, "DELETE", &format!("/api/v1/groups?{query}"), "");
        assert!(text.contains("match[]"), "{text}");
    }
    // Nor because a variable was empty, a name was misspelt, or the parameters went where nobody reads them.
    for selector in ["{zone=\"\"}", "{job=~\".*\"}", "{jbo!=\"x\"}", "{job=\"a\"}&match[]={zone=\"\"}"] {
        let path = format!("/api/v1/groups?match[]={}", selector.replace('"', "%22"));
        let text = gateway.refused(400, "DELETE", &path, "");
        assert!(text.contains("for what they lack"), "{text}");
        gateway.data("GET", &path);
    }
    let text = gateway.refused(400, "DELETE", "/api/v1/groups?match[]={job=%22a%22}", "dry_run=1");
    assert!(text.contains("has no body"), "{text}");
    let text = gateway.refused(400, "DELETE", "/metrics/job/a?dry_run=1", "");
    assert!(text.contains("dry_run"), "{text}");
    let many = format!("/api/v1/groups?{}", selectors(&["{job=\"a\"}"; 65]));
    for method in ["GET", "DELETE"] {
        let text = gateway.refused(400, method, &many, "");
        assert!(text.contains("more than 64 matchers"), "{text}");
    }
    assert_eq!(gateway.jobs(""), ["a"]);
}

/// A page of another site asks first, and is told that it may look.
#[test]
fn other_sites_delete_nothing() {
    let gateway = gateway_with(&["--web.enable-admin-api"]);
    for (path, expected) in [
        ("/api/v1/groups", "GET, HEAD, OPTIONS"),
        ("/api/v1/groups/", "GET, HEAD, OPTIONS"),
        ("/api/v1/groups/L2pvYi94", "GET, HEAD, OPTIONS"),
        // As a Pushgateway says it; there is nothing to delete, and PUT is not among them.
        ("/api/v1/metrics", "GET, POST, DELETE, OPTIONS"),
        ("/api/v1/admin/wipe", "GET, POST, DELETE, OPTIONS"),
    ] {
        let url = format!("{}{path}", gateway.url);
        let asks = [("Origin", "http://elsewhere.example"), ("Access-Control-Request-Method", "DELETE")];
        let answer = request("OPTIONS", &url, &asks, b"");
        assert_eq!(
            (answer.status, answer.header("access-control-allow-methods")),
            (200, Some(expected)),
            "{path}"
        );
    }
    // Elsewhere they are told nothing.
    let answer = request("OPTIONS", &format!("{}/metrics/job/x", gateway.url), &[], b"");
    assert_eq!(answer.header("access-control-allow-methods"), None);
}

#[test]
fn a_token_is_good_for_its_jobs_only() {
    let (_directory, gateway) = gateway_with_tokens();
    let ask = |token: &str, method: &str, path: &str, body: &str| {
        let credentials = format!("Bearer {token}");
        let headers = [("Authorization", credentials.as_str())];
        let answer = request(method, &format!("{}{path}", gateway.url), &headers, body.as_bytes());
        (answer.status, answer.text())
    };
    let jobs_of = |token: &str, method: &str, path: &str| {
        let (status, text) = ask(token, method, path, "");
        assert_eq!(status, 200, "{text}");
        jobs(&serde_json::from_str::<Value>(&text).expect("JSON")["data"])
    };
    // Of another team's families nothing is seen either, whatever they are called and whenever they came.
    assert_eq!(ask("all", "PUT", "/metrics/job/b-z", "secret 1\n").0, 200);
    let many = "m{job=\"a-x\"} 1\nm{job=\"b-x\"} 1\n";
    let together = "/metrics?group_by=job";
    assert_eq!(ask("team", "PUT", together, many).0, 403, "one of them is another team's");
    assert_eq!(ask("reader", "PUT", together, many).0, 403);
    assert_eq!(ask("all", "PUT", together, many).0, 200);
    assert_eq!(ask("team", "PUT", together, "m{job=\"a-x\"} 2\nm{job=\"a-y\"} 2\n").0, 200);
    assert_eq!(ask("team", "PATCH", "/metrics/job/b-x", "m 3\n").0, 403);
    assert_eq!(jobs_of("all", "GET", "/api/v1/groups"), ["a-x", "a-y", "b-x", "b-z"]);
    assert_eq!(jobs_of("reader", "GET", "/api/v1/groups"), ["a-x", "a-y", "b-x", "b-z"]);
    for order in ["key", "age", "state"] {
        assert_eq!(jobs_of("team", "GET", &format!("/api/v1/groups?sort={order}")), ["a-x", "a-y"]);
    }
    let (_, all) = ask("all", "GET", "/api/v1/groups?sort=age", "");
    let all: Value = serde_json::from_str(&all).expect("JSON");
    for group in all["data"]["groups"].as_array().expect("groups") {
        let is_theirs = group["labels"]["job"].as_str().is_some_and(|job| job.starts_with("a-"));
        for path in ["", "/runs"] {
            let path = format!("/api/v1/groups/{}{path}", group["id"].as_str().expect("an id"));
            assert_eq!(ask("team", "GET", &path, "").0, if is_theirs { 200 } else { 404 }, "{path}");
            assert_eq!(ask("all", "GET", &path, "").0, 200);
        }
    }
    assert_eq!(ask("team", "GET", "/metrics/job/b-x", ""), (200, String::new()));
    assert!(ask("team", "GET", "/metrics/job/a-x", "").1.contains("\nm{instance=\"\",job=\"a-x\"} 2\n"));
    let everything = format!("/api/v1/groups?{}", selectors(&["{job=~\".+\"}"]));
    assert_eq!(ask("reader", "DELETE", &everything, "").0, 403);
    assert_eq!(ask("reader", "DELETE", &format!("{everything}&dry_run=1"), "").0, 403);
    assert_eq!(jobs_of("team", "DELETE", &format!("{everything}&dry_run=1")), ["a-x", "a-y"]);
    assert_eq!(jobs_of("team", "DELETE", &everything), ["a-x", "a-y"]);
    assert_eq!(jobs_of("all", "GET", "/api/v1/groups"), ["b-x", "b-z"]);
    assert_eq!(ask("nobody", "GET", "/api/v1/groups", "").0, 401);
}

/// Whatever a group is called, its id is its name.
#[test]
fn every_group_can_be_asked_for_by_its_id() {
    for flags in [&[][..], &["--push.enable-utf8-names"]] {
        let gateway = gateway_with(flags);
        let paths = [
            "x",
            "x/U__a_2e_b/1",
            "U__x",
            "..%20%25",
            "%C3%A4%0A/a@base64/Li4vLg",
            "x/a@base64/YQ/b/%40base64",
            "x/empty@base64/=/full/1",
            "x/zz/1/U__y/2",
        ];
        for path in paths {
            gateway.done("PUT", &format!("/metrics/job/{path}"), "m 1\n");
        }
        for order in ["key", "age", "state"] {
            let (mut seen, mut after) = (0, String::new());
            loop {
                let page = gateway.data("GET", &format!("/api/v1/groups?limit=1&sort={order}{after}"));
                let group = &page["groups"][0];
                let id = group["id"].as_str().expect("an id");
                assert_eq!(encoded(id).replace("%5F", "_").replace("%2D", "-"), id);
                let same = gateway.data("GET", &format!("/api/v1/groups/{id}"));
                assert_eq!(same["labels"], group["labels"]);
                gateway.data("GET", &format!("/api/v1/groups/{id}/runs"));
                seen += 1;
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(seen, paths.len(), "{flags:?} {order}");
        }
    }
}

/// A run may say that it ended whenever it likes.
#[test]
fn runs_of_any_time_are_listed() {
    let gateway = gateway();
    let path = "/metrics/job/x?earlier_run=a,1e300,1,0,success&earlier_run=b,-1e300,1,0,success&earlier_run=c,1e10,1,0,failure";
    gateway.done("PUT", path, &RUN.replace("1700000000.5", "1e15"));
    let id = id_of(&gateway, "x");
    let runs = gateway.data("GET", &format!("/api/v1/groups/{id}/runs"));
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(4));
    for run in runs["runs"].as_array().expect("runs") {
        let time = run["end_time"].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
}
