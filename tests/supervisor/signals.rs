//! Signals reach the command, once, and nothing is missed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::quiet;
use crate::harness::{JOBMON, Process, temporary_directory, wait_for};

/// A command that names each signal it gets, and says when it is ready.
const SIGNAL_NAMER: &str = r#"
import os, signal, sys, time
def name(number, frame):
    os.write(1, b"%d\n" % number)
    if number == 64:
        os._exit(0)
for number in list(range(1, 32)) + [34, 64]:
    if number not in (9, 17, 18, 19, 20, 21, 22):
        signal.signal(number, name)
print("ready", flush=True)
while True:
    time.sleep(60)
"#;

#[test]
fn every_signal_is_passed_on() {
    let mut child =
        quiet(&["python3", "-c", SIGNAL_NAMER]).command().stdout(Stdio::piped()).spawn().expect("built");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let mut process = Process(child);
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "ready");
    // Faults (4 to 8, 11, 31) would end jobmon itself; 17 to 22 are children, stopping and continuing.
    for number in (1..=64).filter(|n| ![4, 5, 6, 7, 8, 9, 11, 17, 18, 19, 20, 21, 22, 31, 32, 33].contains(n))
    {
        if (35..64).contains(&number) {
            continue;
        }
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(process.id(), number) };
        assert_eq!(line(), number.to_string());
    }
    assert_eq!(process.end().code(), Some(0));
}

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

/// SIGTERM at any moment after the start ends the command: it is never lost between fork and exec.
#[test]
fn no_signal_is_lost_while_the_command_starts() {
    let mut delivered_early = 0;
    // An argument that tells these commands from all others.
    let time = format!("1000.{}", std::process::id());
    for round in 0..200_u64 {
        let mut run = quiet(&["sleep", &time]).start();
        let start = Instant::now();
        let pause = Duration::from_micros(round * 15 % 3000);
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        run.signal(Signal::SIGTERM);
        let status = run.end();
        let before_start = std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
        delivered_early += u32::from(before_start);
        assert!(before_start || status.code() == Some(143), "round {round}: {status:?}");
    }
    assert!(delivered_early < 200, "no run got as far as its command");
    let survivors = || {
        let processes = fs::read_dir("/proc").expect("procfs").flatten();
        let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| line.split(|b| *b == 0).any(|word| word == time.as_bytes())).count()
    };
    wait_for("the last command to end", || (survivors() == 0).then_some(()));
}

#[test]
fn on_a_terminal_keys_reach_the_command_once() {
    let script = r#"
import os, pty, select, signal, subprocess, sys, time
pid, terminal = pty.fork()
if pid == 0:
    counter = 'import signal,sys,time\nn=0\ndef f(*a):\n global n\n n+=1\nsignal.signal(2,f)\nprint("ready",flush=True)\nend=time.time()+1\nwhile time.time()<end: time.sleep(0.05)\nprint("interrupts",n,flush=True)\nsys.exit(n)'
    os.execv(sys.argv[1], [sys.argv[1], "--no-push", "--", "python3", "-c", counter])
out = b""
def read_until(word):
    global out
    end = time.time() + 20
    while word not in out:
        assert time.time() < end, out
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                out += os.read(terminal, 1000)
            except OSError:
                break
read_until(b"ready")
os.write(terminal, b"\x03")
read_until(b"interrupts")
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), out)
assert os.waitstatus_to_exitcode(status) == 1, out
"#;
    crate::harness::peers::python(script, &[JOBMON]);
}

#[test]
fn on_a_terminal_ctrl_z_stops_both_and_fg_continues_both() {
    let script = r#"
import os, pty, select, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.environ["PS1"] = "$ "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
out = b""
def read_until(word):
    global out
    end = time.time() + 20
    while word not in out:
        assert time.time() < end, out
        if select.select([terminal], [], [], 0.1)[0]:
            out += os.read(terminal, 1000)
    out = out[out.index(word) + len(word):]
def states():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
                state = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if b"4711.4711" in words:
                found[words[0].split(b"/")[-1]] = state
    return found
def wait_states(jobmon, sleep):
    end = time.time() + 20
    while True:
        found = states()
        if (found.get(b"jobmon"), found.get(b"sleep")) == (jobmon, sleep):
            return
        assert time.time() < end, found
        time.sleep(0.02)
os.write(terminal, f"{sys.argv[1]} --no-push -- sleep 4711.4711\n".encode())
wait_states("S", "S")
os.write(terminal, b"\x1a")
read_until(b"Stopped")
wait_states("T", "T")
os.write(terminal, b"fg\n")
wait_states("S", "S")
os.write(terminal, b"\x03")
os.write(terminal, b"echo code $?\n")
read_until(b"code 130")
os.write(terminal, b"exit\n")
"#;
    crate::harness::peers::python(script, &[JOBMON]);
}

/// A run whose signals and stops are told by its caller, off a terminal.
#[test]
fn a_stop_is_shared_only_by_a_command_that_stops() {
    let state = |run: &Process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).expect("it is there");
        stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T')).expect("a state")
    };
    let mut stopped = quiet(&["sleep", "1000"]).start();
    wait_for("the command", || children(stopped.id()).first().copied());
    stopped.signal(Signal::SIGTSTP);
    wait_for("both to stop", || state(&stopped).then_some(()));
    stopped.signal(Signal::SIGCONT);
    stopped.signal(Signal::SIGTERM);
    assert_eq!(stopped.end().code(), Some(143));

    // A command that ignores it goes on, and so do we, up to its end.
    let script = "trap '' TSTP; echo up; read line; exit 5";
    let mut command = quiet(&["sh", "-c", script]).command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("built");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("piped").read_exact(&mut up).expect("up");
    let mut stdin = child.stdin.take().expect("piped");
    let mut run = Process(child);
    run.signal(Signal::SIGTSTP);
    stdin.write_all(b"go\n").expect("read");
    assert_eq!(run.end().code(), Some(5));
}

fn children(process: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(|word| word.parse().expect("a number")).collect()
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
