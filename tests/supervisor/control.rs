//! How the command is run: limits, attempts, locks, delays.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::silent;
use crate::harness::{JOBMON, Output, Process, gateway, job, sample, temporary_directory, wait_for};

/// A lock that no other test has.
fn lock_name(name: &str) -> String {
    format!("--lock=test-{name}-{}", std::process::id())
}

fn touched_by(mark: &std::path::Path) -> String {
    format!("touch {}; while [ ! -e {}.go ]; do sleep 0.02; done; exit 3", mark.display(), mark.display())
}

#[test]
fn a_run_that_finds_another_one_is_skipped_and_disturbs_nothing() {
    let gateway = gateway();
    let directory = temporary_directory();
    let mark = directory.path().join("mark");
    let lock = lock_name("skip");
    let common = ["--push-url", &gateway.url, "--job", "locked", &lock];
    let command = touched_by(&mark);
    let mut first = job(common.iter().chain(&["--", "sh", "-c", &command])).start();
    wait_for("the first run", || mark.exists().then_some(()));
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"locked\"}}"));
    wait_for("its start push", || value("jobmon_running"));
    let output = job(common.iter().chain(&["--", "echo", "never"])).run();
    assert_eq!(
        output,
        Output {
            code: 0,
            stdout: String::new(),
            stderr: "jobmon: another run is going on, this one is skipped, see --lock\n".to_owned()
        }
    );
    assert!(value("jobmon_last_skip_timestamp_seconds").is_some());
    assert_eq!((value("jobmon_running"), value("jobmon_exit_code")), (Some(1.0), None));
    // One that waits gets its turn.
    let waiting = [&common[..], &["--lock-wait", "20s", "--", "sh", "-c", "exit 5"]].concat();
    let mut second = job(waiting).start();
    fs::write(mark.with_extension("go"), "").expect("writable");
    assert_eq!(first.end().code(), Some(3));
    assert_eq!(second.end().code(), Some(5));
    assert_eq!(value("jobmon_exit_code"), Some(5.0));
    // One that waits in vain is skipped after its time.
    let _ = fs::remove_file(mark.with_extension("go"));
    let _ = fs::remove_file(&mark);
    let mut first = job(common.iter().chain(&["--", "sh", "-c", &command])).start();
    wait_for("the first run", || mark.exists().then_some(()));
    let start = Instant::now();
    let waiting = [&common[..], &["-q", "--lock-wait", "300ms", "--", "echo", "never"]].concat();
    assert_eq!(job(waiting).run(), silent(0));
    assert!(start.elapsed() >= Duration::from_millis(300));
    fs::write(mark.with_extension("go"), "").expect("writable");
    first.end();
}

/// A supervisor that is killed leaves its command running: the lock stays taken until that ends.
#[test]
fn the_lock_of_a_killed_supervisor_is_held_by_its_command() {
    let directory = temporary_directory();
    let mark = directory.path().join("mark");
    let lock = lock_name("killed");
    let mut run = job(["--no-push", &lock, "--", "sh", "-c", &touched_by(&mark)]).start();
    wait_for("the command", || mark.exists().then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    let next = || job(["--no-push", "-q", &lock, "--", "echo", "ran"]).run().stdout;
    assert_eq!(next(), "");
    // However often it is asked for.
    let waiting = ["--no-push", "-q", &lock, "--lock-wait", "300ms", "--", "echo", "ran"];
    assert_eq!(job(waiting).run(), silent(0));
    fs::write(mark.with_extension("go"), "").expect("writable");
    wait_for("the command to end", || (next() == "ran\n").then_some(()));
}

#[test]
fn a_lock_file_is_shared_with_flock_and_a_broken_one_keeps_nobody_from_working() {
    let directory = temporary_directory();
    let file = directory.path().join("lock");
    let lock = format!("--lock={}", file.display());
    let script =
        format!("flock {} sh -c '{} --no-push -q {lock} -- echo ran'; echo code $?", file.display(), JOBMON);
    let output =
        Command::new("sh").args(["-c", &script]).env("JOBMON_NO_SPOOL", "1").output().expect("there");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "code 0\n");
    assert_eq!(job(["--no-push", &lock, "--", "echo", "ran"]).run().stdout, "ran\n");
    let output = job(["--no-push", "--lock=/does/not/exist", "--", "echo", "ran"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (0, "ran\n"));
    assert!(
        output.stderr.starts_with("jobmon: the command runs without its lock, see --lock: /does/not/exist"),
        "{output:?}"
    );
}

#[test]
fn attempts_are_one_run_with_one_result() {
    let gateway = gateway();
    let directory = temporary_directory();
    let count = directory.path().join("count");
    // It fails twice, and uses some time each time.
    let script = format!(
        "echo x >> {0}; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo \"n $(wc -l < {0})\" > $JOBMON_METRICS; [ $(wc -l < {0}) -ge 3 ]",
        count.display()
    );
    let arguments = [
        "--push-url",
        &gateway.url,
        "--job",
        "retried",
        "--retries",
        "5",
        "--retry-delay",
        "200ms",
        "--",
        "sh",
        "-c",
        &script,
    ];
    assert_eq!(job(arguments).run(), silent(0));
    let value =
        |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"retried\"}}")).unwrap_or(-1.0);
    assert!((value("jobmon_attempts") - 3.0).abs() < 0.1 && (value("n") - 3.0).abs() < 0.1);
    assert!((value("jobmon_success") - 1.0).abs() < 0.1);
    // Pauses of 200 and 400 ms, each shortened by up to a half.
    let duration = value("jobmon_duration_seconds");
    assert!(duration > 0.3 && duration < 20.0, "{duration}");
    let started = value("jobmon_end_timestamp_seconds") - value("jobmon_start_timestamp_seconds");
    assert!((started - duration).abs() < 0.5, "{started} {duration}");
}

#[test]
fn success_is_what_the_codes_say() {
    let gateway = gateway();
    for (codes, script, success) in [
        ("0,3", "exit 3", 1.0),
        ("3", "exit 0", 0.0),
        ("10-19", "exit 15", 1.0),
        ("143", "kill -TERM $$", 1.0),
    ] {
        let arguments = [
            "--push-url",
            &gateway.url,
            "--job",
            "codes",
            "--success-codes",
            codes,
            "--",
            "sh",
            "-c",
            script,
        ];
        let code = job(arguments).run().code;
        let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"codes\"}}"));
        assert_eq!(value("jobmon_success"), Some(success), "{codes} {script}");
        assert_eq!(value("jobmon_exit_code"), Some(f64::from(code)));
    }
}

#[test]
fn the_next_run_is_told() {
    let next = |options: &[&str]| {
        let words = [options, &["--dry-run", "--", "true"]].concat();
        let output = job(words).env("TZ", "America/New_York").run();
        sample(&output.stderr, "jobmon_next_run_timestamp_seconds").unwrap_or_else(|| panic!("{output:?}"))
    };
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let hourly = next(&["--schedule", "0 * * * *"]);
    assert!((hourly % 3600.0).abs() < 0.5 && hourly > now && hourly <= now + 7300.0, "{hourly}");
    let every = next(&["--every", "90m"]);
    assert!((every - now - 5400.0).abs() < 60.0, "{every}");
    // Tokyo has no daylight saving time: 9 hours before UTC.
    let tokyo = next(&["--schedule", "@daily", "--timezone", "Asia/Tokyo"]);
    assert!((tokyo % 86400.0 - 15.0 * 3600.0).abs() < 0.5, "{tokyo}");
    let local = next(&["--schedule", "30 12 * * *"]);
    assert!([16.5, 17.5].iter().any(|hour| (local % 86400.0 - hour * 3600.0).abs() < 0.5), "{local}");
}

#[test]
fn two_hundred_runs_at_once_all_deliver() {
    let gateway = gateway();
    let names: Vec<String> = (0..200).map(|n| format!("many{n}")).collect();
    let runs: Vec<Process> = names
        .iter()
        .map(|name| {
            job([
                "--push-url",
                &gateway.url,
                "--push-deadline",
                "60s",
                "--job",
                name,
                "--",
                "sh",
                "-c",
                "exit 3",
            ])
            .start()
        })
        .collect();
    for mut run in runs {
        assert_eq!(run.end().code(), Some(3));
    }
    let text = gateway.scrape();
    for name in &names {
        assert_eq!(
            sample(&text, &format!("jobmon_exit_code{{instance=\"\",job=\"{name}\"}}")),
            Some(3.0),
            "{name}"
        );
    }
}

/// The shell dies when its time is up; what it has started takes its time to end, and what it says meanwhile counts.
#[test]
fn what_ends_after_its_parent_is_heard() {
    let directory = temporary_directory();
    let worker = directory.path().join("worker.sh");
    let text = "trap 'sleep 0.2; echo \"partial 42\" > $JOBMON_METRICS; seq 100000; echo cleaned; exit 0' TERM\n\
                while :; do sleep 0.05; done\n";
    fs::write(&worker, text).expect("writable");
    let script = format!("sh {}; :", worker.display());
    let arguments =
        ["--dry-run", "-q", "--timeout", "500ms", "--kill-after", "10s", "--output", "on-failure"];
    let start = Instant::now();
    let output = job(arguments.iter().chain(&["--", "sh", "-c", &script])).run();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(output.code, 124);
    assert!(output.stdout.starts_with("1\n2\n") && output.stdout.ends_with("\n100000\ncleaned\n"));
    assert_eq!(sample(&output.stderr, "partial"), Some(42.0));
}

#[test]
fn kept_output_comes_out_on_the_side_that_is_still_open_and_outlives_us() {
    let directory = temporary_directory();
    let errors = directory.path().join("errors");
    let script = format!(
        "{JOBMON} --no-push --output on-failure -- sh -c 'seq 200000; echo important >&2; exit 3' 2>{} | head -1",
        errors.display()
    );
    let output =
        Command::new("sh").args(["-c", &script]).env("JOBMON_NO_SPOOL", "1").output().expect("there");
    assert_eq!(output.stdout, b"1\n");
    wait_for("the other side", || {
        (fs::read_to_string(&errors).unwrap_or_default() == "important\n").then_some(())
    });
    // If we are killed, the command goes on writing into nothing.
    let mark = directory.path().join("mark");
    let script =
        format!("while [ ! -e {0}.go ]; do sleep 0.02; done; seq 1000000 && touch {0}.done", mark.display());
    let mut run = job(["--no-push", "--output", "on-failure", "--", "sh", "-c", &script]).start();
    wait_for("the guard", || {
        let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap_or_default();
        (list.split_whitespace().count() == 2).then_some(())
    });
    run.signal(Signal::SIGKILL);
    run.end();
    fs::write(mark.with_extension("go"), "").expect("writable");
    wait_for("the command to end well", || mark.with_extension("done").exists().then_some(()));
}

/// On a terminal the group is ours, too; what the command has started is ended all the same.
#[test]
fn on_a_terminal_a_time_limit_holds_for_all_that_was_started() {
    let script = r#"
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    inner = "trap 'echo cleanup; exit 7' TERM; while :; do sleep 0.05; done"
    os.execv(sys.argv[1], [sys.argv[1], "--no-push", "--timeout", "0.5", "--kill-after", "20", "--", "sh", "-c", "sh -c \"%s\"; exit 3" % inner])
out, start = b"", time.time()
while True:
    try:
        out += os.read(terminal, 1000)
    except OSError:
        break
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 124 and b"cleanup" in out, (status, out)
assert time.time() - start < 10, time.time() - start
"#;
    crate::harness::peers::python(script, &[JOBMON]);
}

#[test]
fn a_server_that_was_named_wrongly_is_a_failed_delivery() {
    let arguments = ["-q", "--strict", "--push-url", "nonsense", "--", "true"];
    assert_eq!(job(arguments).run(), silent(121));
}
