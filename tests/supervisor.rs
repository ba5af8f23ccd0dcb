//! The supervisor, as its caller and its command meet it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};

use crate::harness::peers::{Suite, free_port, node_exporter, pushgateway};
use crate::harness::{
    JOBMON, Job, Output, Process, gateway, http, job, sample, temporary_directory, wait_for,
};

/// A run that delivers nothing.
fn quiet(arguments: &[&str]) -> Job {
    job(["--no-push", "--"].iter().chain(arguments))
}

fn silent(code: i32) -> Output {
    Output { code, stdout: String::new(), stderr: String::new() }
}

// ---- exit codes

#[test]
fn every_exit_code_is_passed_on() {
    for code in 0..=255 {
        assert_eq!(quiet(&["sh", "-c", &format!("exit {code}")]).run(), silent(code));
    }
}

#[test]
fn a_command_killed_by_a_signal_gives_128_and_its_number() {
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("INT", 130), ("PIPE", 141)] {
        assert_eq!(quiet(&["sh", "-c", &format!("kill -{signal} $$")]).run(), silent(code), "{signal}");
    }
}

#[test]
fn what_cannot_be_run_is_named_and_reported() {
    let directory = temporary_directory();
    let file = directory.path().join("no-x");
    fs::write(&file, "#!/bin/sh\n").expect("writable");
    let bad_interpreter = directory.path().join("bad");
    fs::write(&bad_interpreter, "#!/does/not/exist\n").expect("writable");
    fs::set_permissions(&bad_interpreter, fs::Permissions::from_mode(0o755)).expect("ours");
    let gateway = gateway();
    for (command, code, error) in [
        ("/does/not/exist", 127, "No such file or directory"),
        ("does-not-exist-on-path", 127, "No such file or directory"),
        ("/tmp", 126, "Permission denied"),
        (file.to_str().expect("plain"), 126, "Permission denied"),
        (bad_interpreter.to_str().expect("plain"), 127, "No such file or directory"),
        ("", 127, "No such file or directory"),
    ] {
        for url in [gateway.url.as_str(), "http://127.0.0.1:1"] {
            let output =
                job(["--job", "x", "--push-deadline", "300ms", "--push-url", url, "--", command]).run();
            assert_eq!(output.code, code, "{command}: {output:?}");
            assert!(output.stderr.contains(&format!("error={error:?}")), "{output:?}");
        }
        assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"x\"}"), Some(f64::from(code)));
        assert_eq!(gateway.sample("jobmon_attempts{instance=\"\",job=\"x\"}"), Some(0.0));
    }
}

#[test]
fn a_wrong_call_runs_nothing() {
    let directory = temporary_directory();
    let mark = directory.path().join("ran");
    let mark = mark.to_str().expect("plain");
    for arguments in [
        &[][..],
        &["--"],
        &["--nonsense", "touch", mark],
        &["--no-push=1", "touch", mark],
        &["-z", "touch", mark],
    ] {
        let output = job(arguments).run();
        assert_eq!(output.code, 125, "{arguments:?}");
        assert!(output.stderr.contains("Usage: jobmon"), "{output:?}");
        assert!(!Path::new(mark).exists(), "{arguments:?}");
    }
    let output = job(["--version"]).run();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, concat!("jobmon ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let output = job(["--help"]).run();
    assert!(output.code == 0 && output.stdout.contains("--push-url <URL>"), "{output:?}");
}

#[test]
fn a_script_without_interpreter_line_runs_under_sh() {
    let directory = temporary_directory();
    let script = directory.path().join("script");
    fs::write(&script, "echo \"$0 $1\"; exit 5\n").expect("writable");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("ours");
    let path = script.to_str().expect("plain");
    let output = quiet(&[path, "a b"]).run();
    assert_eq!((output.code, output.stdout), (5, format!("{path} a b\n")));
}

// ---- transparency

/// What a command sees of its caller, but for what jobmon adds and documents.
const VIEW: &str = r#"
    pwd -P; umask; ulimit -a; env | grep -v -e '^JOBMON_' -e '^_=' | sort
    grep -E '^(SigBlk|SigIgn|SigCgt|ShdPnd|NoNewPrivs|Seccomp):' /proc/self/status
    ls -l /proc/self/fd | sed -n 's/.* \([0-9]* -> .*\)/\1/p' | grep -v '/proc/'
    nice; cat /proc/self/oom_score_adj
    printf '<%s>' "$@"
"#;

/// A command line that looks at its surroundings, alone or under jobmon, in surroundings that are unusual in every way.
fn view(prefix: &[&str]) -> String {
    let mut words: Vec<&str> = prefix.to_vec();
    words.extend(["bash", "-c", VIEW, "view", "", " ", "--x", "a\nb", "%"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/bin:/bin").env("A", "b=c").current_dir("/usr");
    command.stdin(Stdio::null());
    // SAFETY: only async-signal-safe calls.
    unsafe {
        command.pre_exec(|| {
            let block = SigSet::from_iter([Signal::SIGUSR2, Signal::SIGCHLD]);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&block), None)?;
            for ignored in [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGCHLD] {
                nix::sys::signal::signal(ignored, SigHandler::SigIgn)?;
            }
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
            // A descriptor for the command, and a closed one.
            nix::unistd::dup2_raw(std::io::stderr(), 7).map(std::mem::forget)?;
            libc::close(0);
            Ok(())
        });
    }
    let output = command.output().expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_command_cannot_tell_that_it_is_supervised() {
    let without = view(&["env"]);
    let ignored = without.lines().find(|line| line.starts_with("SigIgn:"));
    assert!(ignored.is_some_and(|line| line.ends_with("11001")), "the surroundings are as meant: {without}");
    assert_eq!(
        inodes_removed(&view(&[JOBMON, "--no-push", "--metrics", "off", "--"])),
        inodes_removed(&without)
    );
    // A FIFO is one descriptor more, out of the way.
    let with_fifo = inodes_removed(&view(&[JOBMON, "--no-push", "--"]));
    let beside: Vec<&str> = with_fifo.lines().filter(|line| !line.starts_with("100 -> ")).collect();
    assert_eq!(beside.join("\n"), inodes_removed(&without).lines().collect::<Vec<_>>().join("\n"));
    assert!(with_fifo.contains("\n100 -> ") && with_fifo.contains("/metrics\n"), "{with_fifo}");
}

/// Pipes have other numbers each time.
fn inodes_removed(view: &str) -> String {
    view.lines()
        .map(|line| line.split_once("pipe:[").map_or(line, |(before, _)| before))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn bytes_pass_through_unchanged() {
    let mut child =
        quiet(&["cat"]).command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("built");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let mut received = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut received).expect("readable");
    writer.join().expect("no panic").expect("taken");
    assert!(received == bytes);
    assert!(child.wait().expect("ends").success());
    // An argument that is no text.
    let mut command = quiet(&["printf", "%s"]).command();
    let output = command.arg(OsStr::from_bytes(b"\xff\xfe")).output().expect("built");
    assert_eq!(output.stdout, b"\xff\xfe");
}

/// Under any limit of descriptors the command runs, supervised or not.
#[test]
fn a_limit_of_descriptors_does_not_keep_the_command_from_running() {
    for limit in 4..16 {
        let script = format!("ulimit -n {limit}; exec \"$0\" --no-push -- /bin/sh -c 'echo ran; exit 7'");
        let output = Command::new("bash")
            .args(["-c", &script, JOBMON])
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        assert_eq!(output.status.code(), Some(7), "{limit}: {output:?}");
        assert_eq!(output.stdout, b"ran\n", "{limit}");
    }
}

#[test]
fn a_caller_that_ignores_sigchld_is_served() {
    let output = Command::new("bash")
        .args(["-c", "trap '' CHLD; exec \"$@\"", "bash", JOBMON, "--no-push", "--", "sh", "-c", "exit 3"])
        .output()
        .expect("bash is there");
    assert_eq!(output.status.code(), Some(3));
}

// ---- signals

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

// ---- a stderr that is of no use

#[test]
fn messages_that_nobody_takes_harm_nothing() {
    let calls: [(&[&str], i32); 5] = [
        (&["--no-push", "--label", "bad", "--", "sh", "-c", "exit 7"], 7),
        (&["--dry-run", "--", "sh", "-c", "exit 7"], 7),
        (&["--no-push", "--", "/nonexistent"], 127),
        (&["--no-push", "--", "sh", "-c", "echo bad line x > $JOBMON_METRICS; exit 7"], 7),
        (&["--push-url", "http://127.0.0.1:1", "--push-deadline", "200ms", "--", "sh", "-c", "exit 7"], 7),
    ];
    for (arguments, code) in calls {
        let directory = temporary_directory();
        let full = fs::File::options().write(true).open("/dev/full").expect("there");
        // A pipe that nobody reads and that has no room, and one whose reader has gone.
        let (unread, stuck) = nix::unistd::pipe().expect("a pipe");
        let room = nix::fcntl::fcntl(&stuck, nix::fcntl::FcntlArg::F_GETPIPE_SZ).expect("a size");
        let filler = vec![b'x'; usize::try_from(room).expect("positive")];
        fs::File::from(stuck.try_clone().expect("copied")).write_all(&filler).expect("room");
        let (reader, broken) = nix::unistd::pipe().expect("a pipe");
        drop(reader);
        for stderr in [Stdio::from(full), Stdio::from(stuck), Stdio::from(broken)] {
            let mut command = job(arguments).env("TMPDIR", directory.path()).command();
            let mut run = Process(command.stderr(stderr).stdout(Stdio::null()).spawn().expect("built"));
            let start = Instant::now();
            assert_eq!(run.end().code(), Some(code), "{arguments:?}");
            assert!(start.elapsed() < Duration::from_secs(8), "{arguments:?}");
            assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0, "{arguments:?}");
        }
        drop(unread);
    }
}

// ---- metrics of the command

#[test]
fn what_was_written_before_the_end_is_never_lost() {
    let gateway = gateway();
    for round in 0..20 {
        let script = format!(
            "for i in 1 2 3; do echo \"items {round}\" > $JOBMON_METRICS; done; printf 'last {round}' > $JOBMON_METRICS"
        );
        assert_eq!(
            job(["--push-url", &gateway.url, "--job", "x", "--", "sh", "-c", &script]).run(),
            silent(0)
        );
        let text = gateway.scrape();
        for name in ["items", "last"] {
            assert_eq!(sample(&text, &format!("{name}{{instance=\"\",job=\"x\"}}")), Some(f64::from(round)));
        }
    }
}

#[test]
fn a_grandchild_that_keeps_the_fifo_open_delays_nothing() {
    let script = "sleep 60 <> $JOBMON_METRICS & echo 'a 1' > $JOBMON_METRICS; exit 2";
    let start = Instant::now();
    let mut run = quiet(&["sh", "-c", script]).start();
    assert_eq!(run.end().code(), Some(2));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn bad_lines_are_counted_and_named_once() {
    let gateway = gateway();
    let script = r#"printf 'good 1\nbad x\njobmon_success 5\nlate 1 1395066363000\na{job="y"} 1\n' > "$JOBMON_METRICS""#;
    let output = job(["--push-url", &gateway.url, "--job", "x", "--", "sh", "-c", script]).run();
    assert_eq!(output.code, 0);
    assert_eq!(
        output.stderr,
        "jobmon: metrics of the command were refused refused=4 line=2 reason=\"expected float as value, got \\\"x\\\"\"\n"
    );
    let text = gateway.scrape();
    for (name, value) in [
        ("good", 1.0),
        ("jobmon_success", 1.0),
        ("jobmon_child_samples", 1.0),
        ("jobmon_child_samples_rejected", 4.0),
    ] {
        assert_eq!(sample(&text, &format!("{name}{{instance=\"\",job=\"x\"}}")), Some(value), "{name}");
    }
}

#[test]
fn a_metrics_file_works_like_the_fifo() {
    let gateway = gateway();
    let script = r#"[ -f "$JOBMON_METRICS" ] || exit 9; echo 'a 1' >> "$JOBMON_METRICS"; echo 'a 2' >> "$JOBMON_METRICS""#;
    assert_eq!(
        job(["--push-url", &gateway.url, "--metrics", "file", "--job", "x", "--", "sh", "-c", script]).run(),
        silent(0)
    );
    assert_eq!(gateway.sample("a{instance=\"\",job=\"x\"}"), Some(2.0));
    // Without a place to write to, scripts that write do not break.
    let script = r#"set -e; echo 'a 1' > "$JOBMON_METRICS""#;
    assert_eq!(job(["--no-push", "--metrics", "off", "--", "sh", "-c", script]).run(), silent(0));
}

#[test]
fn the_fifo_is_private_and_goes_with_the_run() {
    let directory = temporary_directory();
    let script = r#"stat -c '%a %F' "$JOBMON_METRICS" "$(dirname "$JOBMON_METRICS")"; echo "$JOBMON_JOB ${#JOBMON_RUN_ID}""#;
    for (ending, code) in [("exit 0", 0), ("kill -KILL $$", 137)] {
        let output = job(["--no-push", "--job", "x", "--", "sh", "-c", &format!("{script}; {ending}")])
            .env("TMPDIR", directory.path())
            .run();
        assert_eq!(
            output,
            Output { code, stdout: "600 fifo\n700 directory\nx 32\n".to_owned(), stderr: String::new() }
        );
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
    }
    // No usable TMPDIR: another place is found.
    let output =
        job(["--no-push", "--", "sh", "-c", "[ -p $JOBMON_METRICS ]"]).env("TMPDIR", "/does/not/exist").run();
    assert_eq!(output, silent(0));
}

/// The supervisor dies, the command neither hangs nor dies when it goes on writing.
#[test]
fn a_killed_supervisor_does_not_harm_the_command() {
    let directory = temporary_directory();
    let mark = directory.path().join("done");
    let script = format!(
        "echo up > {0}.up; while [ ! -e {0}.go ]; do sleep 0.02; done; for i in 1 2 3; do echo 'a 1' > $JOBMON_METRICS || exit 1; done; touch {0}",
        mark.display()
    );
    let mut run = quiet(&["sh", "-c", &script]).env("TMPDIR", directory.path()).start();
    wait_for("the command", || mark.with_extension("up").exists().then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    fs::write(mark.with_extension("go"), "").expect("writable");
    wait_for("the command to end well", || mark.exists().then_some(()));
}

// ---- delivery

#[test]
fn a_gateway_that_is_down_costs_a_line_and_the_deadline() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let start = Instant::now();
    let output =
        job(["--push-url", &url, "--push-deadline", "1s", "--", "sh", "-c", "echo hi; exit 7"]).run();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!((output.code, output.stdout.as_str()), (7, "hi\n"));
    assert!(output.stderr.starts_with(&format!(
        "jobmon: the result of the run could not be pushed url={url}/ error=\"Connection refused"
    )));
    assert_eq!(output.stderr.lines().count(), 1);
}

#[test]
fn a_gateway_that_comes_back_in_time_gets_the_result() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let directory = temporary_directory();
    let mark = directory.path().join("ended");
    let mark_path = mark.to_str().expect("plain");
    let mut run =
        job(["--push-url", &url, "--job", "x", "--push-deadline", "20s", "--", "touch", mark_path]).start();
    // The command has ended, so delivery begins, before the gateway starts.
    wait_for("the command to end", || mark.exists().then_some(()));
    let gateway = crate::harness::gateway_at(&format!("127.0.0.1:{port}"));
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"x\"}"), Some(1.0));
}

#[test]
fn a_gateway_that_never_answers_costs_the_deadline() {
    // The kernel accepts, nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let start = Instant::now();
    let output =
        job(["--push-url", &url, "--push-deadline", "1s", "--", "sh", "-c", "sleep 0.3; exit 7"]).run();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(output.code, 7);
    assert!(output.stderr.starts_with("jobmon: the result of the run could not be pushed"), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1);
}

/// However late the server answers what was pushed during the run, the end is what it knows last.
#[test]
fn the_last_report_arrives_last() {
    let gateway = gateway();
    let directory = temporary_directory();
    let mark = directory.path().join("ended");
    let script = format!(
        "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo \"big$i $i\"; done > $JOBMON_METRICS; sleep 0.4; touch {}",
        mark.display()
    );
    gateway.process.signal(Signal::SIGSTOP);
    let arguments =
        ["--push-url", &gateway.url, "--push-deadline", "20s", "--job", "x", "--", "sh", "-c", &script];
    let mut run = job(arguments).start();
    wait_for("the command to end", || mark.exists().then_some(()));
    // The first attempt of the last report is under way when its predecessor has been given up.
    let start = Instant::now();
    wait_for("the predecessor to be given up", || {
        (start.elapsed() > Duration::from_millis(1500)).then_some(())
    });
    gateway.process.signal(Signal::SIGCONT);
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(gateway.sample("jobmon_running{instance=\"\",job=\"x\"}"), Some(0.0));
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"x\"}"), Some(1.0));
}

#[test]
fn a_short_deadline_still_tells_what_was_lost() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let output =
        job(["--push-url", &url, "--push-deadline", "300ms", "--", "sh", "-c", "sleep 0.3; exit 7"]).run();
    assert_eq!((output.code, output.stderr.lines().count()), (7, 1), "{output:?}");
}

#[test]
fn labels_that_could_spoil_every_push_do_not() {
    let gateway = gateway();
    for arguments in
        [&["--label", "a=1", "--label", "a=2"][..], &["--grouping", "kind=x"], &["--label", "kind=x"]]
    {
        let arguments =
            [&["--push-url", &gateway.url, "--job", "l"][..], arguments, &["--", "true"]].concat();
        let output = job(arguments).run();
        assert!(output.code == 0 && !output.stderr.contains("could not be pushed"), "{output:?}");
    }
    let text = gateway.scrape();
    assert!(sample(&text, "jobmon_context_switches{instance=\"\",job=\"l\",kind=\"voluntary\"}").is_some());
}

#[test]
fn a_job_whose_name_is_too_long_runs() {
    let name = "a".repeat(131_066);
    let output = job(["--no-push", "--job", &name, "--", "sh", "-c", "exit 7"]).run();
    assert_eq!(output, silent(7));
    let url = format!("http://127.0.0.1:{}", free_port());
    let output = job(["--push-url", &url, "--job", &name, "--", "sh", "-c", "exit 7"]).run();
    assert_eq!((output.code, output.stderr.lines().count()), (7, 1));
}

#[test]
fn a_supervised_supervisor_is_a_job_of_its_own() {
    let gateway = gateway();
    let script = format!("{JOBMON} -- sh -c 'exit 3'; true");
    let output =
        job(["--job", "outer", "--", "sh", "-c", &script]).env("JOBMON_PUSH_URL", &gateway.url).run();
    assert_eq!(output, silent(0));
    let code =
        |job_name: &str| gateway.sample(&format!("jobmon_exit_code{{instance=\"\",job=\"{job_name}\"}}"));
    assert_eq!((code("outer"), code("sh")), (Some(0.0), Some(3.0)));
}

/// A server that gives each connection the next of these answers, and keeps the requests.
fn scripted(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let n = stream.read(&mut buffer).expect("readable");
                request.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|l| {
                        l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                    });
                    if length.and_then(|l| l.parse::<usize>().ok()) == Some(body.len()) {
                        requests.push(text);
                        break;
                    }
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
        requests
    });
    (url, server)
}

#[test]
fn what_may_pass_is_tried_again_with_the_whole_body() {
    let (url, server) = scripted(&[
        "HTTP/1.1 503 x\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 429 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ]);
    assert_eq!(job(["--push-url", &url, "--", "true"]).run(), silent(0));
    let requests = server.join().expect("no panic");
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert!(request.starts_with("POST /metrics/job/true HTTP/1.1\r\n"), "{request}");
        let body = |request: &str| request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        assert_eq!(body(request), body(&requests[0]));
    }
}

#[test]
fn what_cannot_pass_is_told_at_once() {
    for (answer, told) in [
        (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n",
            "answered 401 Unauthorized: no",
        ),
        (
            "HTTP/1.1 301 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "answered 301",
        ),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "answered 400"),
    ] {
        let (url, server) = scripted(Box::leak(Box::new([answer])));
        let output = job(["--push-url", &url, "--", "sh", "-c", "exit 6"]).run();
        assert_eq!(output.code, 6);
        assert!(output.stderr.contains(told) && output.stderr.lines().count() == 1, "{output:?}");
        server.join().expect("no panic");
    }
}

#[test]
fn nonsense_is_passed_over_and_the_job_runs() {
    for (arguments, told) in [
        (
            &["--push-url", "nonsense"][..],
            "--push-url \"nonsense\" is passed over: relative URL without a base; write http://HOST:PORT",
        ),
        (&["--push-url", "ftp://u:secret@h/"], "--push-url \"***\" is passed over: pushes do not go to ftp:"),
        (&["--no-push", "--label", "1=2"], "--label \"1=2\" is passed over: a label name"),
        (
            &["--no-push", "--push-interval", "soon"],
            "--push-interval \"soon\" is passed over: write a duration",
        ),
    ] {
        let output = job(arguments.iter().chain(&["--", "sh", "-c", "exit 3"])).run();
        assert_eq!(output.code, 3, "{output:?}");
        assert!(
            output.stderr.starts_with(&format!("jobmon: {told}")) && output.stderr.lines().count() == 1,
            "{output:?}"
        );
        assert!(!output.stderr.contains("secret"));
    }
    let output = job(["--no-push", "--", "true"]).env("JOBMON_PUSH_DEADLINE", "later").run();
    assert!(output.stderr.starts_with("jobmon: JOBMON_PUSH_DEADLINE \"later\" is passed over"), "{output:?}");
}

#[test]
fn variables_are_options_and_several_servers_all_get_it() {
    let (ours, theirs) = (gateway(), pushgateway(Suite::Newest));
    let output = job(["--", "true"])
        .env("JOBMON_PUSH_URL", format!("{},{}/", ours.url, theirs.url))
        .env("JOBMON_JOB", "from env")
        .env("JOBMON_INSTANCE", "i")
        .env("JOBMON_GROUPING", "a=1,b=/x")
        .run();
    assert_eq!(output, silent(0));
    let series = "jobmon_success{a=\"1\",b=\"/x\",instance=\"i\",job=\"from env\"}";
    assert_eq!(ours.sample(series), Some(1.0));
    assert_eq!(sample(&theirs.metrics(), series), Some(1.0));
}

#[test]
fn a_name_is_looked_up_and_a_socket_is_found() {
    let gateway = gateway();
    let by_name = gateway.url.replace("127.0.0.1", "localhost");
    assert_eq!(job(["--push-url", &by_name, "--job", "named", "--", "true"]).run(), silent(0));
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"named\"}"), Some(1.0));

    let directory = temporary_directory();
    let path = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 24];
        stream.read_exact(&mut head).expect("readable");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("writable");
        // Read on, so that the rest of the request does not reset the connection.
        let _ = stream.read_to_end(&mut Vec::new());
        head
    });
    assert_eq!(job(["--push-url", &format!("unix:{}", path.display()), "--", "true"]).run(), silent(0));
    assert_eq!(&server.join().expect("no panic"), b"POST /metrics/job/true H");
}

#[test]
fn a_proxy_is_not_asked_for_this_machine() {
    let gateway = gateway();
    let output = job(["--push-url", &gateway.url, "--", "true"])
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .run();
    assert_eq!(output, silent(0));
}

#[test]
fn a_dry_run_prints_what_would_be_sent() {
    let gateway = gateway();
    let url = gateway.url.replace("http://", "http://user:secret@");
    let script = "echo 'items 5' > $JOBMON_METRICS; exit 2";
    let output = job([
        "--push-url",
        &url,
        "--textfile-dir",
        "/d",
        "--job",
        "x",
        "--dry-run",
        "--",
        "sh",
        "-c",
        script,
    ])
    .run();
    assert_eq!(output.code, 2);
    let start = format!(
        "jobmon: would POST to {}/metrics/job/x\njobmon: would write /d/jobmon_x.prom\n# HELP jobmon_",
        gateway.url
    );
    assert!(output.stderr.starts_with(&start), "{output:?}");
    assert!(
        output.stderr.contains("\njobmon_exit_code 2\n")
            && output.stderr.ends_with("# TYPE items untyped\nitems 5\n")
    );
    assert!(!gateway.scrape().contains("job=\"x\""));
}

#[test]
fn a_short_run_sends_one_push_and_a_longer_one_its_start() {
    let gateway = gateway();
    let pushes =
        || gateway.sample("pushgateway_http_push_size_bytes_count{method=\"post\"}").unwrap_or_default();
    // On a busy machine even `true` may take long; what counts is how long it took.
    let short = wait_for("a short run", || {
        let before = pushes();
        job(["--push-url", &gateway.url, "--job", "x", "--", "true"]).run();
        let duration =
            gateway.sample("jobmon_duration_seconds{instance=\"\",job=\"x\"}").expect("a duration");
        (duration < 0.1).then(|| pushes() - before)
    });
    assert!((short - 1.0).abs() < 0.1, "{short}");
    let before = pushes();
    job(["--push-url", &gateway.url, "--push-interval", "0", "--", "sleep", "0.4"]).run();
    assert!((pushes() - before - 2.0).abs() < 0.1);
}

#[test]
fn sigterm_during_delivery_ends_it_soon_with_the_commands_code() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let directory = temporary_directory();
    let mark = directory.path().join("ended");
    let script = format!("touch {}; exit 5", mark.display());
    let mut run = job(["--push-url", &url, "--push-deadline", "25s", "--", "sh", "-c", &script]).start();
    wait_for("the command to end", || mark.exists().then_some(()));
    silent.accept().expect("the push has begun");
    let start = Instant::now();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(5));
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[test]
fn node_exporter_serves_the_textfile() {
    let directory = temporary_directory();
    let exporter = node_exporter(directory.path());
    let dir = directory.path().to_str().expect("plain");
    let run = |ending: &str| {
        let script = format!("umask 077; echo 'items 5' > $JOBMON_METRICS; {ending}");
        job(["--textfile-dir", dir, "--job", "a/b", "--instance=h", "--", "sh", "-c", &script]).run()
    };
    assert_eq!(run("exit 0"), silent(0));
    assert_eq!(run("exit 4"), silent(4));
    let text = exporter.metrics();
    let own = |name: &str| sample(&text, &format!("{name}{{instance=\"h\",job=\"a/b\"}}"));
    assert_eq!((own("jobmon_exit_code"), own("items")), (Some(4.0), Some(5.0)), "{text}");
    assert!(own("jobmon_last_success_timestamp_seconds") <= own("jobmon_last_failure_timestamp_seconds"));
    assert!(own("jobmon_last_success_timestamp_seconds").is_some());
    assert_eq!(sample(&text, "node_textfile_scrape_error"), Some(0.0));

    let output = job(["--textfile-dir", "/does/not/exist", "--", "sh", "-c", "exit 3"]).run();
    assert_eq!(output.code, 3);
    assert!(
        output
            .stderr
            .starts_with("jobmon: the result of the run could not be written, see --textfile-dir path="),
        "{output:?}"
    );
}

/// Nothing that can come after the command's start comes before it.
#[test]
fn nothing_is_prepared_before_the_command_runs() {
    let directory = temporary_directory();
    let trace = directory.path().join("trace");
    let url = format!("http://127.0.0.1:{}", free_port());
    let status = Command::new("strace")
        .args(["-f", "-e", "trace=socket,connect,clone,clone3,fork,vfork,execve,openat,open", "-o"])
        .arg(&trace)
        .args([JOBMON, "--push-url", &url, "--push-deadline", "100ms", "--", "true"])
        .stderr(Stdio::null())
        .status()
        .expect("strace is there");
    assert!(status.success());
    let trace = fs::read_to_string(&trace).expect("written");
    let before: Vec<&str> = trace.lines().skip(1).take_while(|line| !line.contains("execve(")).collect();
    assert!(before.len() < trace.lines().count() - 2, "the command was executed: {trace}");
    let threads = before.iter().filter(|line| line.contains("CLONE_THREAD")).count();
    let forks = before.iter().filter(|line| line.contains("clone(") || line.contains("fork(")).count();
    assert_eq!((threads, forks), (0, 1), "{before:#?}");
    for word in ["socket(", "connect(", "resolv.conf", "/etc/hosts", "ssl", "certs"] {
        assert!(!before.iter().any(|line| line.contains(word)), "{word}: {before:#?}");
    }
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_gateway() {
    let gateway = gateway();
    let body: String = (0..50_000).map(|i| format!("a{{i=\"{i}\"}} 1\n")).collect();
    assert_eq!(http::put(&format!("{}/metrics/job/x", gateway.url), body.as_bytes()).status, 200);
    for _ in 0..20 {
        let (host, _) = http::split(&gateway.url);
        let mut stream = std::net::TcpStream::connect(host).expect("connected");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut some = [0; 100];
        stream.read_exact(&mut some).expect("an answer begins");
    }
    assert_eq!(http::get(&format!("{}/-/healthy", gateway.url)).status, 200);
}
