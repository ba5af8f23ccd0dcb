//! Clocks.
//!
//! E42 (the machine is suspended) cannot be shown here, because a test cannot suspend its machine. The policy is this: times
//! are measured with `CLOCK_MONOTONIC` (`std::time::Instant` on Linux), which stands still meanwhile, so a suspended command
//! is not killed for time in which it could not run; timestamps are those of the wall clock. What can be shown is which clock
//! is asked.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::finish;
use crate::harness::{JOBMON, gateway, job, sample, temporary_directory, wait_for};
use crate::supervisor::silent;

/// Where faketime(1) has its library.
fn faketime_library() -> String {
    let output = finish(Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]));
    output.stdout.trim().to_owned()
}

/// The wall clock is set forward by an hour while the command runs; only the timestamps notice.
#[test]
fn e41_a_clock_that_is_set_does_not_change_a_duration() {
    let directory = temporary_directory();
    let clock = directory.path().join("clock");
    fs::write(&clock, "+0s\n").expect("writable");
    let script = "echo '+3600s' > \"$1\"; sleep 0.5; exit 0";
    let mut command = Command::new(JOBMON);
    command.args(["--no-push", "--dry-run", "--timeout", "20s", "--", "sh", "-c", script, "sh"]).arg(&clock);
    command.env("LD_PRELOAD", faketime_library()).env("FAKETIME_TIMESTAMP_FILE", &clock);
    let output = finish(command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
    assert_eq!(output.code, 0, "{output:?}");
    let value = |name: &str| sample(&output.stderr, name).expect("reported");
    let duration = value("jobmon_duration_seconds");
    assert!(duration > 0.4 && duration < 15.0, "{duration}");
    let apart = value("jobmon_end_timestamp_seconds") - value("jobmon_start_timestamp_seconds");
    assert!(apart > 3500.0, "{apart}");
}

#[test]
fn e42_times_are_those_of_a_clock_that_stands_still_while_the_machine_is_suspended() {
    let directory = temporary_directory();
    let trace = directory.path().join("trace");
    // Under ltrace or strace the vDSO hides the call; what is seen of it is what std documents and the kernel's name for it.
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=poll,ppoll,timerfd_create,clock_nanosleep", "-o"]).arg(&trace);
    command.args([JOBMON, "--no-push", "--timeout", "10s", "--", "sleep", "0.3"]);
    assert_eq!(finish(&mut command).code, 0);
    let trace = fs::read_to_string(&trace).expect("written");
    // poll(2) counts on CLOCK_MONOTONIC; no timer of another clock is made.
    assert!(trace.contains("poll([") && !trace.contains("timerfd_create"), "{trace}");
}

#[test]
fn e43_time_limits_are_those_of_timeout() {
    for never in ["0", "0s", "18446744073709551615", "1e300", "100y"] {
        assert_eq!(
            job(["--no-push", "--timeout", never, "--", "sh", "-c", "sleep 0.2; exit 3"]).run(),
            silent(3),
            "{never}"
        );
    }
    for soon in ["0.2", "200ms", "0.2s"].iter().filter(|text| !text.ends_with("2s")) {
        let start = Instant::now();
        let output = job(["--no-push", "-q", "--timeout", soon, "--", "sleep", "1000"]).run();
        assert_eq!(output, silent(124), "{soon}");
        assert!(start.elapsed() < Duration::from_secs(5), "{soon}");
    }
    let gateway = gateway();
    let arguments = ["--push-url", &gateway.url, "--job", "e43", "-q", "--timeout", "1m30s", "--", "true"];
    assert_eq!(job(arguments).run(), silent(0));
    assert_eq!(gateway.sample("jobmon_timeout_seconds{instance=\"\",job=\"e43\"}"), Some(90.0));
    assert_eq!(gateway.sample("jobmon_timed_out{instance=\"\",job=\"e43\"}"), Some(0.0));
    let arguments =
        ["--push-url", &gateway.url, "--job", "e43", "-q", "--timeout", "0.1", "--timeout-signal", "INT"];
    assert_eq!(job(arguments.iter().chain(&["--", "sleep", "1000"])).run(), silent(124));
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"e43\"}}"));
    assert_eq!(value("jobmon_timed_out"), Some(1.0));
    assert_eq!(value("jobmon_term_signal"), Some(2.0));
    assert_eq!(value("jobmon_exit_code"), Some(124.0));
}

/// In the system's time zone: what is due at a time that comes twice is due once, as with cron(8).
#[test]
fn the_next_run_is_told_right_when_the_clock_goes_back() {
    // On 25 October 2026 three o'clock is two o'clock again, at one o'clock UTC.
    for (schedule, now, next) in [
        ("30 2 * * *", "2026-10-24 23:50:00", "2026-10-25T00:30:00Z"),
        ("30 2 * * *", "2026-10-25 01:10:00", "2026-10-26T01:30:00Z"),
        ("0 3 * * *", "2026-10-25 00:10:00", "2026-10-25T02:00:00Z"),
        ("*/30 * * * *", "2026-10-25 00:20:00", "2026-10-25T00:30:00Z"),
        ("5 * * * *", "2026-10-25 00:07:00", "2026-10-25T01:05:00Z"),
        ("30 2 * * *", "2027-03-27 12:00:00", "2027-03-28T01:00:00Z"),
    ] {
        let mut command = Command::new(JOBMON);
        command.args(["--dry-run", "--schedule", schedule, "--", "true"]);
        command.env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        // The clock is that of the machine, shifted.
        let to_seconds = |time: &str| {
            let output = finish(Command::new("date").args(["-u", "+%s", "-d", time]));
            output.stdout.trim().parse::<i64>().expect("seconds")
        };
        let shift = to_seconds(now) - to_seconds("now");
        command.env("LD_PRELOAD", faketime_library()).env("FAKETIME", format!("{shift:+}s"));
        let output = finish(&mut command);
        let told = sample(&output.stderr, "jobmon_next_run_timestamp_seconds").expect("it is told");
        let late = told - to_seconds(next) as f64;
        assert!(late.abs() < 0.5, "{schedule} {now}: {late} s late, {output:?}");
    }
}

/// A machine whose clock has no battery: 1970, and even before.
#[test]
fn e44_a_clock_that_is_wrong_by_decades_keeps_nothing_from_arriving() {
    for (clock, start_max) in [("@1970-01-02 00:00:00", 200_000.0), ("@1999-12-31 00:00:00", 1e9)] {
        let gateway = gateway();
        let mut command = Command::new(JOBMON);
        command.args([
            "--push-url",
            &gateway.url,
            "--job",
            "e44",
            "--every",
            "1h",
            "--",
            "sh",
            "-c",
            "exit 3",
        ]);
        command.env("LD_PRELOAD", faketime_library()).env("FAKETIME", clock).env("JOBMON_NO_SPOOL", "1");
        let output = finish(command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC"));
        assert_eq!(output.code, 3, "{output:?}");
        let start = wait_for("the push", || {
            gateway.sample("jobmon_start_timestamp_seconds{instance=\"\",job=\"e44\"}")
        });
        assert!(start > 0.0 && start < start_max, "{start}");
    }
}
