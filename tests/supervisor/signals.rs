//! Signals reach the command, and nothing is missed; more of this is among the edge cases.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::quiet;
use crate::harness::{JOBMON, Process, temporary_directory, wait_for};

#[test]
fn a_signal_reaches_the_whole_group() {
    let directory = temporary_directory();
    let mark = directory.path().join("both");
    let script = format!(
        "(trap 'echo inner >> {0}; exit' TERM; echo up >> {0}; while :; do sleep 0.05; done) &\n\
         trap 'echo outer >> {0}; wait; exit 9' TERM; while :; do sleep 0.05; done",
        mark.display()
    );
    let mut run =
        quiet(&["sh", "-c", &script]).command().process_group(0).spawn().map(Process).expect("built");
    wait_for("the command to be up", || fs::read_to_string(&mark).ok().filter(|text| text.contains("up")));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(9));
    let text = fs::read_to_string(&mark).expect("written");
    assert!(text.contains("inner") && text.contains("outer"), "{text}");
}

/// The command ends while we are stopped: that is noticed when we go on.
#[test]
fn an_end_while_stopped_is_not_missed() {
    let directory = temporary_directory();
    let go = directory.path().join("go");
    let script = format!("trap '' TSTP; while [ ! -e {} ]; do sleep 0.02; done; exit 5", go.display());
    let mut run = quiet(&["sh", "-c", &script]).start();
    let child = wait_for("the command", || children(run.id()).first().copied());
    run.signal(Signal::SIGSTOP);
    fs::write(&go, "").expect("writable");
    wait_for("the command to end", || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        stat.contains(") Z").then_some(())
    });
    run.signal(Signal::SIGCONT);
    let start = Instant::now();
    assert_eq!(run.end().code(), Some(5));
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_alarm_of_the_callers_reaches_the_command_on_a_terminal() {
    let script = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    import signal
    signal.alarm(1)
    os.execv(sys.argv[1], [sys.argv[1], "--no-push", "--", "sleep", "20"])
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 142, status
"#;
    crate::harness::peers::python(script, &[JOBMON]);
}

fn children(process: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}
