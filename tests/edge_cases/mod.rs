//! What a supervisor of somebody else's command must survive. Each test is named by its number in the project's list of edge
//! cases; what a test does not show, and why, is said where it belongs.
//!
//! Namespaces are made with unshare(1). Where the kernel forbids them, a test that needs one fails and says so.

mod environment;
mod metrics;
mod processes;
mod signals;
mod time;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{JOBMON, Output, Process, wait_for};

/// A command in new namespaces, as root in them.
fn unshared(flags: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(flags).args(arguments).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("JOBMON_NO_SPOOL", "1").stdin(Stdio::null());
    command
}

/// Runs a shell script in a mount namespace of its own, where it may mount what it likes; `$0` is jobmon.
fn in_mounts(body: &str) -> Output {
    // Wherever this is checked out, nothing is mounted over the program.
    let script = r#"mount -t tmpfs none /opt; touch /opt/jobmon; mount --bind "$0" /opt/jobmon; exec sh -ec "$1" /opt/jobmon"#;
    let mut command = unshared(&["--mount", "--map-root-user"], &["sh", "-ec", script, JOBMON, body]);
    finish(&mut command)
}

/// Runs a command to its end.
fn finish(command: &mut Command) -> Output {
    let output = command.output().expect("it can be started");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// How many processes have a word as one of their arguments.
fn processes_with(word: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("procfs").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|b| *b == 0).any(|argument| argument == word.as_bytes())).count()
}

/// A number of seconds that no other process sleeps.
fn unique_seconds() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("1{}.{}", std::process::id(), 1000 + NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The children of a process.
fn children(process: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

/// The command of a supervisor, when it runs.
fn command_of(run: &Process) -> i32 {
    wait_for("the command", || {
        children(run.id()).into_iter().find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            !name.starts_with("jobmon")
        })
    })
}

/// Passes time, which is what some tests are about.
fn spend(time: Duration) {
    let start = Instant::now();
    wait_for("time to pass", || (start.elapsed() >= time).then_some(()));
}
