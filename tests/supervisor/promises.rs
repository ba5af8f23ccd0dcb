//! What pushes promise in their queries, as a server reads it.

use std::path::Path;

use nix::sys::signal::Signal;

use super::delivery::{scripted, scripted_at};
use crate::harness::peers::free_port;
use crate::harness::{JOBMON, Job, job, temporary_directory};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BAD: &str = "HTTP/1.1 400 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The query of a request.
fn query(request: &str) -> &str {
    let target = request.split(' ').nth(1).expect("a request line");
    target.split_once('?').expect("a query").1
}

/// A parameter of a request, as often as it is there.
fn all<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = query(request).split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(n, _)| *n == name).map(|(_, value)| value).collect()
}

fn spooling(spool: &Path, arguments: &[&str]) -> Job {
    job(arguments).env("JOBMON_SPOOL_DIR", spool).env("JOBMON_NO_SPOOL", "0")
}

#[test]
fn while_the_command_runs_three_intervals_and_at_its_end_nothing_is_promised() {
    for (interval, expect) in [("10s", "expect=30s"), ("11.5s", "expect=34500ms"), ("0", "expect=0")] {
        let (url, server) = scripted(&[OK, OK]);
        let arguments = ["--push-url", &url, "--push-interval", interval, "--", "sh", "-c"];
        let output = job(arguments).arguments(&["echo $JOBMON_RUN_ID; sleep 0.8"]).run();
        let requests = server.join().expect("no panic");
        let id = output.stdout.trim();
        assert_eq!(query(&requests[0]), format!("{expect}&run_id={id}"));
        assert_eq!(query(&requests[1]), format!("expect=0&run_id={id}&run_outcome=success"));
    }
}

#[test]
fn each_attempt_promises_the_next_run_anew_and_names_the_same_run() {
    let (url, server) = scripted(&[BUSY, BAD, OK]);
    let url = format!("{url}?a=%2F&ttl=1h");
    let arguments = ["--push-url", &url, "--every", "1h", "--grace", "10m", "--ttl", "5s", "-q", "--"];
    let script = "echo a 1 > $JOBMON_METRICS; echo $JOBMON_RUN_ID";
    let output = job(arguments).arguments(&["sh", "-c", script]).run();
    let requests = server.join().expect("no panic");
    assert!(requests[1].contains("\na 1\n") && !requests[2].contains("\na 1\n"), "without the command's");
    for request in requests {
        let expect = all(&request, "expect")[0].strip_suffix('s').and_then(|s| s.parse::<u64>().ok());
        assert!(expect.is_some_and(|seconds| (4100..=4200).contains(&seconds)), "{request}");
        assert!(query(&request).starts_with("a=%2F&ttl=1h&expect="), "{request}");
        assert_eq!(all(&request, "ttl"), ["1h"]);
        assert_eq!(all(&request, "run_id"), [output.stdout.trim()]);
    }
}

#[test]
fn a_skipped_run_keeps_what_was_promised_while_another_one_goes_on() {
    let directory = temporary_directory();
    let named = format!("--lock=test-promises-{}", std::process::id());
    // The job whose run goes on, the lock, whether records are kept, and whether the next run is promised.
    let file = format!("--lock={}", directory.path().join("lock").display());
    let own = &*format!("skipped-{}", std::process::id());
    for (running, lock, has_spool, is_promised) in [
        (own, &*named, true, false),
        (own, "--lock", true, false),
        ("other", &*named, true, true),
        ("other", &*named, false, false),
        // A file may be anybody's, on other machines, too.
        ("other", &*file, true, false),
    ] {
        let (url, server) = scripted(&[OK]);
        let skipped = format!("{JOBMON} -q --job {own} --push-url {url} --every 1h --ttl 0 {lock} -- true");
        let noted = "until ls $JOBMON_SPOOL_DIR/*.run >/dev/null 2>&1; do sleep 0.05; done";
        let script = if has_spool { format!("{noted}; {skipped}") } else { skipped };
        let arguments = ["--job", running, "--no-push", lock, "--timeout", "30", "--", "sh", "-c", &script];
        let output =
            spooling(directory.path(), &arguments).env("JOBMON_NO_SPOOL", if has_spool { "0" } else { "1" });
        let output = output.run();
        assert_eq!(output.code, 0, "{output:?}");
        let requests = server.join().expect("no panic");
        let run_id = all(&requests[0], "run_id");
        assert_eq!((run_id.len(), run_id[0].len()), (1, 32));
        let told = format!("ttl=0&run_id={}&run_outcome=skipped", run_id[0]);
        let expect = if is_promised { "expect=3605s&" } else { "" };
        assert_eq!(query(&requests[0]), format!("{expect}{told}"), "{running} {lock} {has_spool}");
        assert_eq!(requests[0].contains("\njobmon_next_run_timestamp_seconds "), is_promised);
        assert_eq!(requests[0].contains("\njobmon_running 0\n"), is_promised, "one may have been killed");
    }
}

/// It never began, so it has nothing to say about the job; another run has.
#[test]
fn a_run_that_is_given_up_while_it_waits_is_as_a_skipped_one() {
    let directory = temporary_directory();
    let (url, server) = scripted(&[OK]);
    // The lock of a job is one for the whole machine.
    let name = &format!("given-up-{}", std::process::id());
    let waiting =
        format!("{JOBMON} -q --job {name} --push-url {url} --every 1h --lock --lock-wait 1m -- true");
    // It takes signals, which it blocks, when it waits.
    let script = format!(
        "until ls $JOBMON_SPOOL_DIR/*.run >/dev/null 2>&1; do sleep 0.05; done; {waiting} & p=$!; \
         until [ $((0x$(awk '/SigBlk/ {{print substr($2, 13)}}' /proc/$p/status) & 0x4000)) -ne 0 ]; do sleep 0.05; done; \
         kill $p; wait $p; exit $?"
    );
    let arguments =
        ["--job", name, "--no-push", "-q", "--lock", "--timeout", "30", "--", "sh", "-c", &script];
    assert_eq!(spooling(directory.path(), &arguments).run().code, 143);
    let requests = server.join().expect("no panic");
    let run_id = all(&requests[0], "run_id")[0];
    assert_eq!(query(&requests[0]), format!("run_id={run_id}&run_outcome=skipped"));
    assert!(requests[0].contains("\njobmon_last_skip_timestamp_seconds "), "{}", requests[0]);
    for name in ["jobmon_running", "jobmon_exit_code", "jobmon_next_run_timestamp_seconds"] {
        assert!(!requests[0].contains(name), "{name}: {}", requests[0]);
    }
}

/// Runs of an outage; the names of three of them, and a server where they could not be told.
fn outage(spool: &Path, address: &str) -> Vec<String> {
    let url = format!("http://{address}");
    let run = |script: &str| {
        let arguments = ["--push-url", &url, "--push-deadline", "0", "--job", "x", "--every", "1h", "-q"];
        spooling(spool, &arguments).arguments(&["--timeout", "0.2", "--", "sh", "-c", script]).run()
    };
    let scripts = ["exit 0", "exit 3", "sleep 10"];
    scripts
        .iter()
        .map(|script| run(&format!("echo $JOBMON_RUN_ID; {script}")).stdout.trim().to_owned())
        .collect()
}

/// The ids, exit codes and outcomes of earlier runs.
fn earlier(request: &str) -> Vec<String> {
    let told = all(request, "earlier_run");
    let without_times = |run: &&str| {
        let fields: Vec<&str> = run.split(',').collect();
        assert_eq!(fields.len(), 5, "{run}");
        assert!(fields[1].parse::<f64>().is_ok_and(|end| end > 1.7e9), "{run}");
        assert!(fields[2].parse::<f64>().is_ok_and(|took| (0.0..20.0).contains(&took)), "{run}");
        [fields[0], fields[3], fields[4]].join(",")
    };
    told.iter().map(without_times).collect()
}

#[test]
fn runs_of_an_outage_are_told_with_the_last_of_them() {
    let directory = temporary_directory();
    let address = format!("127.0.0.1:{}", free_port());
    let ids = outage(directory.path(), &address);
    let (_, server) = scripted_at(&address, &[BAD, OK]);
    let flush =
        job(["spool", "flush", "--spool-dir"]).arguments(&[directory.path().to_str().expect("plain")]);
    assert_eq!(flush.run().stdout, "1 delivered, 0 left, 0 refused\n");
    for request in server.join().expect("no panic") {
        assert_eq!(earlier(&request), [format!("{},0,success", ids[0]), format!("{},3,failure", ids[1])]);
        assert_eq!(all(&request, "run_id"), [&ids[2]]);
        assert!(all(&request, "expect")[0].starts_with('3'), "{request}");
    }
}

/// What has waited goes first, as what it is; where it is refused, its runs are told all the same.
#[test]
fn runs_of_an_outage_are_told_before_the_next_run() {
    let directory = temporary_directory();
    let (waiting, progress, end) = ("expect=360", "expect=45s&", "expect=0&");
    for (script, steps) in [
        ("true", &[(waiting, BUSY), (waiting, OK), (end, OK)][..]),
        ("true", &[(waiting, BAD), (waiting, BAD), (end, OK)]),
        ("sleep 0.8", &[(waiting, OK), (progress, OK), (end, OK)]),
        ("sleep 0.8", &[(waiting, BUSY), (waiting, OK), (end, OK)]),
    ] {
        let address = format!("127.0.0.1:{}", free_port());
        let ids = outage(directory.path(), &address);
        let answers: Vec<&str> = steps.iter().map(|(_, answer)| *answer).collect();
        let (url, server) = scripted_at(&address, &answers);
        let script = format!("echo $JOBMON_RUN_ID; {script}");
        let arguments = ["--push-url", &url, "--job", "x", "--", "sh", "-c", &script];
        let output = spooling(directory.path(), &arguments).run();
        let requests = server.join().expect("no panic");
        let mut told = vec![format!("{},0,success", ids[0]), format!("{},3,failure", ids[1])];
        for (request, (start, _)) in requests.iter().zip(steps) {
            assert!(query(request).starts_with(start), "{request}");
            let (id, earlier_runs) = match *start {
                start if start == waiting => (&*ids[2], &told[..]),
                _ => (output.stdout.trim(), &[][..]),
            };
            assert_eq!(all(request, "run_id"), [id]);
            if answers[1] != BAD || *start == waiting {
                assert_eq!(earlier(request), earlier_runs, "what has arrived is not told again");
            }
        }
        told.push(format!("{},124,timeout", ids[2]));
        let last = earlier(&requests[2]);
        assert_eq!(last, if answers[1] == BAD { &told[..] } else { &[] });
        assert_eq!(super::spool::entries(directory.path()).len(), 0);
    }
}

/// Behind a Pushgateway the job would seem to end again and again.
#[test]
fn what_cannot_be_taken_out_of_the_spool_goes_before_the_first_push_only() {
    let directory = temporary_directory();
    let address = format!("127.0.0.1:{}", free_port());
    let ids = outage(directory.path(), &address);
    let held = super::spool::hold_locks(directory.path());
    let (url, server) = scripted_at(&address, &[OK; 6]);
    let arguments = ["--push-url", &url, "--job", "x", "--push-interval", "100ms", "--push-deadline", "0"];
    let mut run = spooling(directory.path(), &arguments).arguments(&["--", "sleep", "1000"]).start();
    let requests = server.join().expect("no panic");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(143));
    let of_outage: Vec<bool> = requests.iter().map(|request| all(request, "run_id") == [&ids[2]]).collect();
    assert_eq!(of_outage, [true, false, false, false, false, false]);
    drop(held);
}
