//! Signals and the start of the command.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{children, command_of, finish, processes_with, spend, unique_seconds, unshared};
use crate::harness::peers::{free_port, python};
use crate::harness::{JOBMON, Process, gateway, job, temporary_directory, wait_for};
use crate::supervisor::{quiet, silent};

/// SIGTERM at any moment after the start ends the command: it is never lost between fork and exec.
#[test]
fn e01_no_signal_is_lost_while_the_command_starts() {
    let mut before_ours = 0;
    let seconds = unique_seconds();
    for round in 0..1000_u64 {
        let mut run = quiet(&["sleep", &seconds]).start();
        let start = Instant::now();
        // Up to a millisecond, and some more, for a machine that takes longer to get as far as the command.
        let pause = Duration::from_micros(round * 7 % if round < 700 { 1000 } else { 4000 });
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        run.signal(Signal::SIGTERM);
        let status = run.end();
        let died = status.signal() == Some(15);
        before_ours += u32::from(died);
        assert!(died || status.code() == Some(143), "round {round}: {status:?}");
    }
    assert!(before_ours < 1000, "no run got as far as taking signals");
    wait_for("the last command to end", || (processes_with(&seconds) == 0).then_some(()));
}

/// A command that names each signal it gets, and says when it is ready; it ends with signal 64.
const SIGNAL_NAMER: &str = r#"
import os, signal, sys, time
def name(number, frame):
    os.write(1, b"%d\n" % number)
    if number == 64:
        os._exit(0)
for number in list(range(1, 32)) + list(range(34, 65)):
    if number not in (9, 17, 18, 19, 20, 21, 22):
        signal.signal(number, name)
print("ready", flush=True)
while True:
    time.sleep(60)
"#;

fn signal_namer() -> (Process, impl FnMut() -> String) {
    let mut command = quiet(&["python3", "-c", SIGNAL_NAMER]).command();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = move || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "ready");
    (Process(child), line)
}

fn kill(process: &Process, number: i32) {
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(process.id(), number) };
}

#[test]
fn e02_several_signals_at_once_all_arrive() {
    let (mut run, mut line) = signal_namer();
    let sent = [1, 2, 3, 10, 12, 13, 14, 15, 28, 34, 40, 50];
    sent.iter().for_each(|number| kill(&run, *number));
    let mut received: Vec<i32> = sent.iter().map(|_| line().parse().expect("a number")).collect();
    received.sort_unstable();
    assert_eq!(received, sent);
    kill(&run, 64);
    assert_eq!(run.end().code(), Some(0));
}

#[test]
fn e03_a_signal_sent_a_hundred_times_arrives_and_harms_nothing() {
    let (mut run, mut line) = signal_namer();
    (0..100).for_each(|_| kill(&run, 10));
    assert_eq!(line(), "10");
    kill(&run, 64);
    assert_eq!(run.end().code(), Some(0));
}

#[test]
fn e04_an_orphan_that_ends_with_the_command_is_reaped_beside_it() {
    for round in 0..30 {
        let script = "(sh -c 'read x' <\"$0\" &); exec 3<>\"$0\"; exec 3>&-; exit 5";
        let directory = temporary_directory();
        let pipe = directory.path().join("p");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let output = job(["--no-push", "--subreaper", "--", "sh", "-c", script])
            .command()
            .arg(&pipe)
            .status()
            .expect("built");
        assert_eq!(output.code(), Some(5), "round {round}");
    }
}

#[test]
fn e05_a_command_killed_by_a_signal_gives_128_and_its_number() {
    for (signal, code) in
        [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("INT", 130), ("PIPE", 141), ("64", 192)]
    {
        assert_eq!(quiet(&["sh", "-c", &format!("kill -{signal} $$")]).run(), silent(code), "{signal}");
    }
}

#[test]
fn e06_a_caller_that_ignores_sigchld_is_served() {
    let mut command = Command::new("bash");
    command.args([
        "-c",
        "trap '' CHLD; exec \"$@\"",
        "bash",
        JOBMON,
        "--no-push",
        "--",
        "sh",
        "-c",
        "exit 3",
    ]);
    assert_eq!(command.status().expect("bash is there").code(), Some(3));
}

/// Every signal blocked, and every one that can be ignored ignored: the command finds it so.
#[test]
fn e07_blocked_and_ignored_signals_reach_the_command_unchanged() {
    let script = r#"
import os, signal, subprocess, sys
def unusual():
    for number in list(range(1, 32)) + list(range(34, 65)):
        if number not in (9, 19):
            signal.signal(number, signal.SIG_IGN if number % 2 else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, {n for n in range(1, 65) if n % 3 == 0 and n not in (9, 32, 33)})
def view(prefix):
    words = prefix + ["grep", "-E", "^(Sig(Blk|Ign|Cgt)|ShdPnd|SigPnd)", "/proc/self/status"]
    return subprocess.run(words, preexec_fn=unusual, restore_signals=False, stdout=subprocess.PIPE).stdout
alone, supervised = view([]), view([sys.argv[1], "--no-push", "--"])
assert b"SigIgn" in alone and alone == supervised, (alone, supervised)
"#;
    python(script, &[JOBMON]);
}

#[test]
fn e08_sigpipe_is_the_callers_and_does_not_end_us() {
    let view = |caller: &str| {
        let script = format!("{caller} exec \"$0\" --no-push -- sh -c 'grep SigIgn /proc/self/status'");
        finish(Command::new("bash").args(["-c", &script, JOBMON])).stdout
    };
    assert!(view("").trim_end().ends_with("0000"), "{}", view(""));
    assert!(view("trap '' PIPE;").trim_end().ends_with("1000"), "{}", view("trap '' PIPE;"));
    let script = "\"$0\" --no-push -- sh -c 'yes; echo $? >&2' | head -1";
    let output = finish(Command::new("bash").args(["-c", script, JOBMON]));
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("y\n", "141\n"));
}

#[test]
fn e09_every_signal_is_passed_on() {
    let (mut run, mut line) = signal_namer();
    // Faults (4 to 8, 11, 31) would end jobmon itself; 17 to 22 are children, stopping and continuing; 32 and 33 belong to
    // the C library.
    for number in (1..64).filter(|n| ![4, 5, 6, 7, 8, 9, 11, 17, 18, 19, 20, 21, 22, 31, 32, 33].contains(n))
    {
        kill(&run, number);
        assert_eq!(line(), number.to_string());
    }
    kill(&run, 64);
    assert_eq!(run.end().code(), Some(0));
}

/// What the scripts on a terminal begin with.
const TERMINAL: &str = r#"
import os, pty, select, signal, subprocess, sys, time
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
    assert word in out, out
    out = out[out.index(word) + len(word):]
def shell():
    global terminal
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PS1"] = "$ "
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    return pid
def states(argument):
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
                state = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if argument in words:
                found[words[0].split(b"/")[-1]] = state
    return found
def wait_states(argument, jobmon, command):
    end = time.time() + 20
    while True:
        found = states(argument)
        if (found.get(b"jobmon"), found.get(b"sleep")) == (jobmon, command):
            return
        assert time.time() < end, found
        time.sleep(0.02)
"#;

#[test]
fn e10_on_a_terminal_ctrl_c_reaches_the_command_once() {
    let script = r#"
counter = 'import signal,sys,time\nn=0\ndef f(*a):\n global n\n n+=1\nsignal.signal(2,f)\nprint("ready",flush=True)\nend=time.time()+1\nwhile time.time()<end: time.sleep(0.05)\nprint("interrupts",n,flush=True)\nsys.exit(n)'
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "--no-push", "--", "python3", "-c", counter])
read_until(b"ready")
os.write(terminal, b"\x03")
read_until(b"interrupts")
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 1, out
"#;
    python(&format!("{TERMINAL}{script}"), &[JOBMON]);
}

#[test]
fn e11_on_a_terminal_ctrl_z_stops_both_and_fg_continues_both() {
    let script = r#"
shell()
seconds = sys.argv[2].encode()
os.write(terminal, f"{sys.argv[1]} --no-push -- sleep {sys.argv[2]}\n".encode())
wait_states(seconds, "S", "S")
os.write(terminal, b"\x1a")
read_until(b"Stopped")
wait_states(seconds, "T", "T")
os.write(terminal, b"fg\n")
wait_states(seconds, "S", "S")
os.write(terminal, b"\x03")
os.write(terminal, b"echo code $?\n")
read_until(b"code 130")
os.write(terminal, b"exit\n")
"#;
    python(&format!("{TERMINAL}{script}"), &[JOBMON, &unique_seconds()]);
}

/// In the background of a terminal that stops whoever writes to it, a message stops nobody.
#[test]
fn e12_in_the_background_of_a_terminal_we_are_not_stopped() {
    let script = r#"
shell()
os.write(terminal, b"stty tostop\n")
os.write(terminal, f"{sys.argv[1]} --no-push --label bad -- sh -c 'sleep 0.3; exit 5' & wait $!; echo code $?\n".encode())
read_until(b"is passed over")
read_until(b"code 5")
os.write(terminal, b"exit\n")
"#;
    python(&format!("{TERMINAL}{script}"), &[JOBMON]);
}

#[test]
fn e13_a_second_termination_does_not_put_off_the_kill() {
    let script = "trap '' TERM; while :; do sleep 0.05; done";
    let start = Instant::now();
    let arguments = ["--no-push", "--timeout", "300ms", "--kill-after", "1s", "--", "sh", "-c", script];
    let mut run = job(arguments).start();
    command_of(&run);
    let end = wait_for("the end", || {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.id()), Signal::SIGTERM);
        run.0.try_wait().expect("our child")
    });
    let took = start.elapsed();
    assert_eq!(end.code(), Some(124));
    assert!(took > Duration::from_millis(1300) && took < Duration::from_secs(6), "{took:?}");
}

/// While it delivers, the number of its command is given to another process, and then it gets a signal. (Numbers are handed
/// out again at will in a PID namespace of our own.)
#[test]
fn e14_a_signal_never_hits_the_next_process_of_that_number() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let script = r#"
        "$0" --push-url "$1" --push-deadline 20s -- sh -c 'echo $$ > /dev/fd/1; exit 4' > "$2/pid" &
        run=$!
        while [ ! -s "$2/pid" ]; do sleep 0.02; done
        pid=$(cat "$2/pid")
        while [ -e /proc/$pid ]; do sleep 0.02; done
        echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid
        sleep 100 &
        [ $! = $pid ] || { echo "the number was not given again: $! $pid"; exit 9; }
        kill -TERM $run
        wait $run
        echo "code $?"
        kill -0 $pid && echo alive
        kill -9 $pid
    "#;
    let directory = temporary_directory();
    let flags = ["--pid", "--fork", "--mount-proc", "--map-root-user"];
    let mut command = unshared(&flags, &["bash", "-c", script, JOBMON, &url]);
    let output = finish(command.arg(directory.path()));
    assert_eq!(output.stdout, "code 4\nalive\n", "{output:?}");
}

#[test]
fn e15_sigterm_during_delivery_ends_it_soon_with_the_commands_code() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let directory = temporary_directory();
    let runs = directory.path().join("runs");
    let script = format!("echo x >> {}; exit 5", runs.display());
    let arguments =
        ["--push-url", &url, "--push-deadline", "25s", "--retries", "0", "--", "sh", "-c", &script];
    let mut run = job(arguments).start();
    silent.accept().expect("the push has begun");
    let start = Instant::now();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(5));
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(fs::read_to_string(&runs).expect("written"), "x\n", "it was not started again");
}

#[test]
fn e16_sigterm_while_no_command_runs_ends_the_run_and_says_so() {
    let gateway = gateway();
    let directory = temporary_directory();
    let mark = directory.path().join("ran");
    let failing = format!("touch {}; exit 3", mark.display());
    let name = format!("e16-{}", std::process::id());
    let lock = format!("--lock={name}");
    let mut holder = job(["--no-push", &lock, "--", "sleep", "1000"]).start();
    command_of(&holder);
    let waiting: [(&[&str], bool); 3] = [
        (&["--jitter", "10000000"], false),
        (&["--retries", "3", "--retry-delay", "1000"], true),
        (&[&lock, "--lock-wait", "1000"], false),
    ];
    for (options, has_run) in waiting {
        let _ = fs::remove_file(&mark);
        let common = ["--job", "e16", "--push-url", &gateway.url];
        let words = [&common[..], options, &["--", "sh", "-c", &failing]].concat();
        let mut command = job(words).command();
        let mut run = Process(command.stderr(Stdio::piped()).spawn().expect("built"));
        if has_run {
            wait_for("the first attempt", || mark.exists().then_some(()));
            wait_for("its end", || children(run.id()).is_empty().then_some(()));
        } else {
            // It is blocked in a wait, and its signals are taken, when its mask is full.
            wait_for("the wait", || {
                let status = fs::read_to_string(format!("/proc/{}/status", run.id())).ok()?;
                status.contains("SigBlk:\tf").then_some(())
            });
        }
        let start = Instant::now();
        run.signal(Signal::SIGTERM);
        let mut text = String::new();
        run.0.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
        assert_eq!(run.end().code(), Some(143), "{options:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{options:?}");
        assert_eq!(mark.exists(), has_run, "{options:?}");
        assert_eq!(text, "jobmon: a signal ended the run while no command ran signal=15\n");
        let sample = |metric: &str| gateway.sample(&format!("{metric}{{instance=\"\",job=\"e16\"}}"));
        assert_eq!(sample("jobmon_exit_code"), Some(143.0));
        assert_eq!(sample("jobmon_success"), Some(0.0));
        assert_eq!(sample("jobmon_attempts"), Some(if has_run { 1.0 } else { 0.0 }));
    }
    holder.signal(Signal::SIGTERM);
    holder.end();
}

/// jobmon is killed; its command goes on, writes far more than a pipe holds, and neither hangs nor dies; the next run tells.
#[test]
fn e17_a_killed_supervisor_does_not_harm_the_command_and_the_next_run_tells() {
    let gateway = gateway();
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let mark = directory.path().join("mark");
    let script = format!(
        "while [ ! -e {0}.go ]; do sleep 0.02; done; yes 'a 1' | head -c 20000000 > $JOBMON_METRICS && touch {0}.done",
        mark.display()
    );
    let start = |script: &str| {
        job(["--job", "e17", "--push-url", &gateway.url, "--", "sh", "-c", script])
            .env("TMPDIR", directory.path())
            .env("JOBMON_SPOOL_DIR", &spool)
            .env("JOBMON_NO_SPOOL", "0")
    };
    let mut run = start(&script).start();
    let running = "jobmon_running{instance=\"\",job=\"e17\"}";
    wait_for("the start push", || gateway.sample(running).filter(|value| (*value - 1.0).abs() < 0.1));
    let files = |end: &str| {
        let files = fs::read_dir(&spool).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(end)).count()
    };
    wait_for("the record of the run", || (files(".run") == 1).then_some(()));
    let started =
        gateway.sample("jobmon_start_timestamp_seconds{instance=\"\",job=\"e17\"}").expect("pushed");
    run.signal(Signal::SIGKILL);
    run.end();
    fs::write(mark.with_extension("go"), "").expect("writable");
    wait_for("the command to end well", || mark.with_extension("done").exists().then_some(()));
    let inboxes = || {
        let entries = fs::read_dir(directory.path()).expect("there").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("jobmon-")).count()
    };
    wait_for("the FIFO to go", || (inboxes() == 0).then_some(()));

    // Whoever is killed himself has told of it before, with his first push.
    let end = mark.with_extension("end");
    let mut second = start(&format!("while ! test -e {}; do sleep 0.05; done", end.display())).start();
    let lost = || gateway.sample("jobmon_last_run_lost_timestamp_seconds{instance=\"\",job=\"e17\"}");
    wait_for("the loss to be told", || lost().filter(|lost| (lost - started).abs() < 1e-3));
    let started =
        gateway.sample("jobmon_start_timestamp_seconds{instance=\"\",job=\"e17\"}").expect("pushed");
    second.signal(Signal::SIGKILL);
    second.end();
    fs::write(&end, "").expect("writable");
    wait_for("the FIFO to go", || (inboxes() == 0).then_some(()));

    let output = start("exit 0").run();
    assert_eq!(output.code, 0);
    assert!(
        output
            .stderr
            .starts_with("jobmon: the end of an earlier run is unknown: its jobmon was killed start=")
            && output.stderr.lines().count() == 1,
        "{output:?}"
    );
    assert!(lost().is_some_and(|lost| (lost - started).abs() < 1e-3), "{:?} {started}", lost());
    assert_eq!(files(".run"), 0);
    assert_eq!(start("exit 0").run(), silent(0), "it is told once");
}

/// The one that is started when jobmon has gone already gets the signal too: it asks after it has asked for it.
#[test]
fn e18_a_command_can_be_made_to_end_with_jobmon() {
    let seconds = unique_seconds();
    let mut run = job(["--no-push", "--pdeathsig", "TERM", "--", "sleep", &seconds]).start();
    command_of(&run);
    run.signal(Signal::SIGKILL);
    run.end();
    wait_for("the command to end", || (processes_with(&seconds) == 0).then_some(()));
    // By default it survives.
    let mut run = job(["--no-push", "--", "sleep", &seconds]).start();
    let command = command_of(&run);
    run.signal(Signal::SIGKILL);
    run.end();
    spend(Duration::from_millis(100));
    assert_eq!(processes_with(&seconds), 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(command), Signal::SIGKILL).expect("it is there");
}

/// Being stopped and continued interrupts system calls (signal(7)); none of them takes it for a failure.
#[test]
fn e19_interrupted_system_calls_are_repeated() {
    let gateway = gateway();
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo \"n $i\" > $JOBMON_METRICS; done; exit 3";
    let arguments =
        ["--push-url", &gateway.url, "--job", "e19", "--push-interval", "100ms", "--", "sh", "-c", script];
    let mut run = job(arguments).start();
    let status = wait_for("the end", || {
        for signal in [Signal::SIGSTOP, Signal::SIGCONT].into_iter().cycle().take(20) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.id()), signal);
        }
        run.0.try_wait().expect("our child")
    });
    assert_eq!(status.code(), Some(3));
    assert_eq!(gateway.sample("n{instance=\"\",job=\"e19\"}"), Some(300.0));
}

/// A stop at any moment of the start wedges nothing: who is continued goes on.
#[test]
fn e20_a_stop_while_the_command_starts_wedges_nothing() {
    for round in 0..200_u64 {
        let mut command = quiet(&["sh", "-c", "exit 6"]).command();
        let mut run = Process(command.process_group(0).spawn().expect("built"));
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(round * 20) {
            std::hint::spin_loop();
        }
        let group = nix::unistd::Pid::from_raw(run.id());
        let _ = nix::sys::signal::killpg(group, Signal::SIGTSTP);
        let status = wait_for("the end", || {
            let _ = nix::sys::signal::killpg(group, Signal::SIGCONT);
            run.0.try_wait().expect("our child")
        });
        assert_eq!(status.code(), Some(6), "round {round}");
    }
}

/// Ctrl-Z at any moment of the start, which a long PATH makes longer: both stop, and `fg` continues both.
#[test]
fn e20_a_key_on_a_terminal_while_the_command_starts_wedges_nothing() {
    let script = r#"
os.environ["PATH"] = ":".join(f"/none/{n}" for n in range(150)) + ":/usr/bin:/bin"
shell()
read_until(b"$ ")
for round in range(60):
    os.write(terminal, f"{sys.argv[1]} --no-push -- sleep 0.1\n".encode())
    # Another moment each time.
    moment = time.monotonic() + round * 0.00015
    while time.monotonic() < moment:
        pass
    os.write(terminal, b"\x1a")
    os.write(terminal, f"fg; echo over $((1000 + {round}))\n".encode())
    read_until(b"over %d" % (1000 + round))
os.write(terminal, b"exit\n")
"#;
    python(&format!("{TERMINAL}{script}"), &[JOBMON]);
}

/// A run whose signals and stops are told by its caller, off a terminal.
#[test]
fn e11_off_a_terminal_a_stop_is_shared_only_by_a_command_that_stops() {
    let state = |run: &Process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).expect("it is there");
        stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T')).expect("a state")
    };
    let mut stopped = quiet(&["sleep", "1000"]).start();
    command_of(&stopped);
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

/// What the caller ignores, as nohup does, hurries and cancels nothing.
#[test]
fn e07_an_ignored_hangup_does_not_hurry_the_delivery() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let directory = temporary_directory();
    let mark = directory.path().join("ended");
    let script = "trap '' HUP; exec \"$0\" --push-url \"$1\" --job e07 --push-deadline 20s -- touch \"$2\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, JOBMON, &url]).arg(&mark).env("JOBMON_NO_SPOOL", "1");
    let mut run = Process(command.stderr(Stdio::null()).spawn().expect("bash is there"));
    wait_for("the command to end", || mark.exists().then_some(()));
    let start = Instant::now();
    run.signal(Signal::SIGHUP);
    run.signal(Signal::SIGHUP);
    wait_for("more time than a hurried delivery has", || {
        assert!(run.0.try_wait().expect("our child").is_none(), "it has given up");
        (start.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let gateway = crate::harness::gateway_at(url.strip_prefix("http://").expect("plain"));
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(gateway.sample("jobmon_success{instance=\"\",job=\"e07\"}"), Some(1.0));
}
