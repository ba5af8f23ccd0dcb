//! What could not be delivered is delivered later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::silent;
use crate::harness::http::put;
use crate::harness::peers::free_port;
use crate::harness::{
    JOBMON, Job, Output, Process, gateway_at, gateway_at_with, gateway_with, job, sample,
    temporary_directory, wait_for,
};

/// A run with a spool.
fn spooling(spool: &Path, arguments: &[&str]) -> Job {
    job(arguments).env("JOBMON_SPOOL_DIR", spool).env("JOBMON_NO_SPOOL", "0")
}

pub fn entries(spool: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(spool).into_iter().flatten().flatten().map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "push")).collect()
}

fn tool(spool: &Path, words: &[&str]) -> Output {
    let output =
        Command::new(JOBMON).arg("spool").args(words).arg("--spool-dir").arg(spool).output().expect("built");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn the_next_run_delivers_what_waits() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let run = |name: &str, script: &str| {
        spooling(
            &spool,
            &["--push-url", &url, "--push-deadline", "300ms", "--job", name, "--", "sh", "-c", script],
        )
        .run()
    };
    let output = run("one", "echo 'items 5' > $JOBMON_METRICS");
    assert_eq!((output.code, output.stderr.lines().count()), (0, 1), "{output:?}");
    assert!(
        output.stderr.contains(&format!("kept=\"in {} for the next run\"", spool.display())),
        "{output:?}"
    );
    assert_eq!(run("one", "exit 4").code, 4);
    assert_eq!(run("two", "exit 5").code, 5);
    assert_eq!(entries(&spool).len(), 2, "one for each group");
    for entry in entries(&spool) {
        assert_eq!(fs::metadata(&entry).expect("there").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&spool).expect("there").permissions().mode() & 0o777, 0o700);

    let gateway = gateway_at(&address);
    assert_eq!(run("three", "exit 0"), silent(0));
    let text = gateway.scrape();
    let value = |job: &str, name: &str| sample(&text, &format!("{name}{{instance=\"\",job=\"{job}\"}}"));
    // What the failed run did not say is what the successful one before it had said.
    assert_eq!(value("one", "jobmon_exit_code"), Some(4.0));
    assert_eq!(value("one", "items"), Some(5.0));
    assert!(value("one", "jobmon_last_success_timestamp_seconds").is_some());
    assert!(value("one", "jobmon_last_failure_timestamp_seconds").is_some());
    assert_eq!(value("two", "jobmon_exit_code"), Some(5.0));
    assert_eq!(entries(&spool).len(), 0);
}

#[test]
fn what_waits_of_the_same_job_goes_with_its_next_push_and_never_after_it() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let run = |script: &str| {
        let arguments =
            ["--push-url", &url, "--push-deadline", "300ms", "--job", "x", "--", "sh", "-c", script];
        spooling(&spool, &arguments).run().code
    };
    assert_eq!(run("echo 'items 5' > $JOBMON_METRICS; exit 0"), 0);
    let gateway = gateway_at(&address);
    assert_eq!(run("exit 4"), 4);
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"x\"}}"));
    assert_eq!((value("jobmon_exit_code"), value("items")), (Some(4.0), Some(5.0)));
    assert!(value("jobmon_last_success_timestamp_seconds").is_some());
    assert_eq!(entries(&spool).len(), 0);
    assert_eq!(tool(&spool, &["flush"]).stdout, "0 delivered, 0 left, 0 refused\n");
}

/// What waits may be what a gateway finds fault with; the run that goes on is told of all the same.
#[test]
fn what_waits_and_is_refused_hides_no_run_that_goes_on() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let of_x = |arguments: &[&str], script: &str| {
        let start =
            ["--push-url", &url, "--push-deadline", "300ms", "--job", "x", "--push-interval", "100ms"];
        spooling(&spool, &[&start[..], arguments, &["--", "sh", "-c", script]].concat())
    };
    let output = of_x(&[], "printf '# TYPE m gauge\nm 1\n' > $JOBMON_METRICS").run();
    assert_eq!((output.code, entries(&spool).len()), (0, 1), "{output:?}");
    let gateway = gateway_at(&address);
    assert_eq!(put(&format!("{url}/metrics/job/y"), b"# TYPE m counter\nm 1\n").status, 200);
    let mut run = of_x(&[], "while ! test -e $0; do sleep 0.05; done");
    let note = directory.path().join("end");
    run = run.arguments(&[note.to_str().expect("a plain path")]);
    let mut run = run.start();
    wait_for("the run that goes on", || {
        (gateway.sample("jobmon_running{instance=\"\",job=\"x\"}") == Some(1.0)).then_some(())
    });
    assert_eq!(gateway.sample("push_up{instance=\"\",job=\"x\"}"), Some(1.0));
    fs::write(&note, "").expect("writable");
    run.end();
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"x\"}"), Some(1.0));
    assert_eq!(entries(&spool).len(), 0);
}

/// What has waited on one machine says nothing about what has run on another one since; it counts.
#[test]
fn an_older_result_takes_no_newer_ones_place() {
    let directory = temporary_directory();
    let spool = |host: &str| directory.path().join(host);
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let run = |host: &str, deadline: &str, script: &str| {
        let start = ["--push-url", &url, "--job", "x", "--every", "1h", "--push-deadline", deadline];
        spooling(&spool(host), &[&start[..], &["--", "sh", "-c", script]].concat()).run()
    };
    assert_eq!(run("a", "0", "exit 3").code, 3);
    assert_eq!(run("c", "0", "exit 3").code, 3);
    let gateway = gateway_at(&address);
    assert_eq!(run("b", "10s", "exit 0"), silent(0));
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"x\"}}")).map(f64::to_bits);
    let seen = |names: &[&str]| names.iter().map(|name| value(name)).collect::<Vec<_>>();
    let of_result = ["jobmon_success", "jobmon_exit_code", "jobmon_end_timestamp_seconds"];
    let of_promise = ["push_expected_time_seconds", "push_up"];
    let before = (seen(&of_result), seen(&of_promise));
    let output = tool(&spool("a"), &["flush"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "1 delivered, 0 left, 0 refused\n"), "{output:?}");
    assert_eq!((seen(&of_result), seen(&of_promise)), before);
    assert_eq!(value("jobmon_success"), Some(1_f64.to_bits()));
    assert!(value("jobmon_last_failure_timestamp_seconds").is_some(), "what nobody has said since is taken");
    // With the next run of that host, too.
    let end = directory.path().join("end");
    let script = format!("until [ -e {} ]; do sleep 0.02; done", end.display());
    let arguments = ["--push-url", &url, "--job", "x", "--", "sh", "-c", &script];
    let mut next = spooling(&spool("c"), &arguments).start();
    wait_for("the next run", || (value("jobmon_running") == Some(1_f64.to_bits())).then_some(()));
    assert_eq!((seen(&of_result), entries(&spool("c")).len()), (before.0, 0));
    fs::write(&end, "").expect("writable");
    assert_eq!(next.end().code(), Some(0));
    let runs = |outcome: &str| {
        gateway.sample(&format!("jobmon_runs_total{{instance=\"\",job=\"x\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((runs("success"), runs("failure")), (Some(2.0), Some(2.0)), "each counts");
}

/// A gateway that has no room for one group has room for others.
#[test]
fn a_push_that_has_to_wait_keeps_no_others_waiting() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    for name in ["new", "known"] {
        let arguments = ["--push-url", &url, "--push-deadline", "0", "--job", name, "--", "true"];
        assert_eq!(spooling(&spool, &arguments).run().code, 0);
    }
    let gateway = gateway_at_with(&address, &["--limit.groups=1"]);
    assert_eq!(put(&format!("{url}/metrics/job/known"), b"m 1\n").status, 200);
    let output = tool(&spool, &["flush"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "1 delivered, 1 left, 0 refused\n"), "{output:?}");
    assert!(output.stderr.contains("--limit.groups"), "{output:?}");
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"known\"}"), Some(1.0));
}

#[test]
fn the_spool_is_listed_delivered_and_dropped() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://user:secret@{address}");
    assert_eq!(tool(&spool, &["list"]).stdout, format!("nothing waits in {}\n", spool.display()));
    let keep = |name: &str| {
        let arguments =
            ["--push-url", &url, "--push-deadline", "0", "--job", name, "--grouping", "a=b", "--", "true"];
        spooling(&spool, &arguments).run()
    };
    let output = keep("x");
    assert!(output.code == 0 && !output.stderr.contains("secret"), "{output:?}");
    keep("y");
    let list = tool(&spool, &[]).stdout;
    assert!(list.starts_with("TIME ") && list.lines().count() == 3 && list.contains(" a=b "), "{list}");
    assert!(!list.contains("secret"));
    let json: serde_json::Value =
        serde_json::from_str(&tool(&spool, &["list", "--json"]).stdout).expect("JSON");
    assert_eq!(
        (json[0]["job"].as_str(), json[0]["url"].as_str()),
        (Some("x"), Some(format!("http://{address}/").as_str()))
    );
    let output = tool(&spool, &["flush"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "0 delivered, 2 left, 0 refused\n"), "{output:?}");
    let gateway = gateway_at(&address);
    let output = tool(&spool, &["flush"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "2 delivered, 0 left, 0 refused\n"), "{output:?}");
    assert_eq!(gateway.sample("jobmon_success{a=\"b\",instance=\"\",job=\"x\"}"), Some(1.0));
    drop(gateway);
    keep("z");
    assert_eq!(tool(&spool, &["drop"]).stdout, "1 dropped\n");
    assert_eq!(entries(&spool).len(), 0);
    let output = tool(Path::new("/proc/nowhere"), &["drop"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "0 dropped\n"));
}

/// The result is on disk before delivery has been given up: to be killed meanwhile costs nothing.
#[test]
fn a_supervisor_that_is_killed_while_it_delivers_loses_nothing() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let url = format!("http://127.0.0.1:{}", free_port());
    let mut run =
        spooling(&spool, &["--push-url", &url, "--push-deadline", "30s", "--", "sh", "-c", "exit 4"]).start();
    wait_for("the spool", || (entries(&spool).len() == 1).then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    let json: serde_json::Value =
        serde_json::from_str(&tool(&spool, &["list", "--json"]).stdout).expect("JSON");
    assert_eq!(json[0]["job"].as_str(), Some("sh"));
}

/// What arrives after all does not wait any more.
#[test]
fn a_push_that_arrives_late_leaves_nothing_in_the_spool() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let arguments =
        ["--push-url", &url, "--push-deadline", "20s", "--job", "late", "--", "sh", "-c", "exit 4"];
    let mut run = spooling(&spool, &arguments).start();
    wait_for("the spool", || (entries(&spool).len() == 1).then_some(()));
    let gateway = gateway_at(&address);
    assert_eq!(run.end().code(), Some(4));
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"late\"}"), Some(4.0));
    assert_eq!(entries(&spool).len(), 0);
}

#[test]
fn a_spool_that_cannot_be_used_costs_a_line_and_no_time() {
    let directory = temporary_directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("writable");
    let url = format!("http://127.0.0.1:{}", free_port());
    for spool in [Path::new("/proc/nowhere"), &file, &file.join("below")] {
        let start = Instant::now();
        let arguments = ["--push-url", &url, "--push-deadline", "300ms", "--", "sh", "-c", "exit 4"];
        let output = spooling(spool, &arguments).run();
        assert_eq!((output.code, output.stderr.lines().count()), (4, 1), "{output:?}");
        assert!(output.stderr.contains("kept=\"it is lost, "), "{output:?}");
        assert!(start.elapsed() < Duration::from_secs(3));
    }
    let output = job(["--push-url", &url, "--push-deadline", "300ms", "--", "sh", "-c", "exit 4"]).run();
    assert!(output.stderr.ends_with("kept=\"it is lost, see --spool-dir\"\n"), "{output:?}");
}

/// In a full file system nothing is left half written.
#[test]
fn a_full_disk_keeps_what_was_kept() {
    let script = r#"mount -t tmpfs -o size=64k none /mnt; mkdir /mnt/spool
        jobmon="$0"; run() { "$jobmon" --push-url http://127.0.0.1:1 --push-deadline 100ms --spool-dir /mnt/spool --job "$1" -- sh -c 'exit 4' || true; }
        run first 2>/dev/null; cat /dev/zero > /mnt/fill 2>/dev/null || true; run second; run first
        ls /mnt/spool | wc -l; "$jobmon" spool --spool-dir /mnt/spool --json | grep job"#;
    let mut command = Command::new("unshare");
    let output =
        command.args(["--mount", "--map-root-user", "sh", "-ec", script, JOBMON]).output().expect("there");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout, "1\n    \"job\": \"first\",\n", "{stderr}");
    assert_eq!(stderr.matches("No space left on device").count(), 2, "{stderr}");
}

/// The gateway is killed in the midst of a hundred runs: some have ended and had their answer, which is in its journal; the
/// others end before it is back, and wait in the spool.
#[test]
fn a_hundred_runs_survive_the_death_of_their_gateway() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let storage = format!("--storage.path={}", directory.path().join("gateway").display());
    let mut first = gateway_with(&[&storage]);
    let address = first.url.strip_prefix("http://").expect("plain").to_owned();
    // Every other run may end before the rest.
    let go = |rest: usize| directory.path().join(format!("go{rest}"));
    let script = format!(
        "echo \"own $1\" > $JOBMON_METRICS; while [ ! -e {}/go$(($1 % 2)) ]; do sleep 0.05; done; exit 3",
        directory.path().display()
    );
    let names: Vec<String> = (0..100).map(|n| format!("run{n}")).collect();
    let runs: Vec<Process> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let n = n.to_string();
            let arguments = [
                "--push-url",
                &first.url,
                "--push-deadline",
                "1s",
                "--job",
                name,
                "--",
                "sh",
                "-c",
                &script,
                "sh",
                &n,
            ];
            spooling(&spool, &arguments).start()
        })
        .collect();
    wait_for("some of them to be seen", || {
        (first.scrape().matches("jobmon_running{").count() > 30).then_some(())
    });
    fs::write(go(0), "").expect("writable");
    wait_for("some of them to have ended", || {
        (first.scrape().matches("\njobmon_exit_code{").count() > 10).then_some(())
    });
    first.process.signal(Signal::SIGKILL);
    first.process.end();
    fs::write(go(1), "").expect("writable");
    for mut run in runs {
        assert_eq!(run.end().code(), Some(3));
    }
    let second = gateway_with(&[&format!("--web.listen-address={address}"), &storage]);
    let output = tool(&spool, &["flush"]);
    assert!(output.code == 0 && output.stdout.ends_with(" delivered, 0 left, 0 refused\n"), "{output:?}");
    let text = second.scrape();
    for (n, name) in names.iter().enumerate() {
        let value = |metric: &str| sample(&text, &format!("{metric}{{instance=\"\",job=\"{name}\"}}"));
        assert_eq!(value("jobmon_exit_code"), Some(3.0), "{name}");
        assert_eq!(value("own"), Some(n as f64), "{name}");
    }
}

/// A run that goes on says so, whatever waits of its job: that is older.
#[test]
fn what_waits_of_a_job_is_never_pushed_over_what_its_run_says() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let common = [
        "--push-url",
        &url,
        "--push-deadline",
        "5s",
        "--push-interval",
        "200ms",
        "--job",
        "x",
        "--",
        "sh",
        "-c",
    ];
    let keep = ["--push-url", &url, "--push-deadline", "0", "--job", "x", "--", "sh", "-c", "exit 3"];
    spooling(&spool, &keep).run();
    let gateway = gateway_at(&address);
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"x\"}}"));
    let go = directory.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let mut run = spooling(&spool, &[&common[..], &[&script]].concat()).start();
    wait_for("progress", || value("jobmon_running"));
    let start = Instant::now();
    wait_for("more progress", || {
        assert_eq!(value("jobmon_running"), Some(1.0));
        (start.elapsed() > Duration::from_millis(700)).then_some(())
    });
    fs::write(&go, "").expect("writable");
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(value("jobmon_exit_code"), Some(0.0));
    assert!(value("jobmon_last_failure_timestamp_seconds").is_some(), "what waited is not lost");
    assert_eq!(entries(&spool).len(), 0);
}

/// Locks of entries, so that none can be changed.
pub fn hold_locks(spool: &Path) -> Vec<fs::File> {
    let hold = |n: u8| {
        let file = fs::File::create(spool.join(format!(".0-{n:x}.lock"))).expect("made");
        file.try_lock().expect("free");
        file
    };
    (0..16).map(hold).collect()
}

/// Somebody holds all the locks: that is told within the deadline, and what was to be kept is said to be lost.
#[test]
fn a_spool_that_hangs_is_told() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    fs::create_dir(&spool).expect("made");
    let held = hold_locks(&spool);
    let url = format!("http://127.0.0.1:{}", free_port());
    let start = Instant::now();
    let output =
        spooling(&spool, &["--push-url", &url, "--push-deadline", "500ms", "--", "sh", "-c", "exit 4"]).run();
    assert_eq!((output.code, output.stderr.lines().count()), (4, 1), "{output:?}");
    assert!(output.stderr.contains("does not answer"), "{output:?}");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    drop(held);
}

/// What waits can be read and delivered, and cannot be taken out: the result arrives all the same, and each run counts once.
#[test]
fn a_spool_that_hangs_holds_no_result_up() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let run = |deadline: &str, script: &str| {
        let arguments =
            ["--push-url", &url, "--push-deadline", deadline, "--job", "x", "--", "sh", "-c", script];
        spooling(&spool, &arguments).run().code
    };
    assert_eq!(run("0", "exit 3"), 3);
    let gateway = gateway_at(&address);
    let held = hold_locks(&spool);
    // Less than a lock is waited for.
    assert_eq!(run("4s", "exit 0"), 0);
    let value = |series: &str| gateway.sample(series);
    let runs =
        |outcome: &str| value(&format!("jobmon_runs_total{{instance=\"\",job=\"x\",outcome=\"{outcome}\"}}"));
    assert_eq!(value("jobmon_exit_code{instance=\"\",job=\"x\"}"), Some(0.0));
    drop(held);
    assert_eq!(run("20s", "exit 0"), 0);
    assert_eq!((runs("success"), runs("failure")), (Some(2.0), Some(1.0)));
    assert_eq!(entries(&spool).len(), 0);
}
