//! The command's metrics, its output, and files of our own.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{command_of, finish, in_mounts};
use crate::harness::peers::{free_port, python};
use crate::harness::{JOBMON, Output, Process, gateway, job, sample, temporary_directory, wait_for};
use crate::supervisor::delivery::scripted;
use crate::supervisor::{quiet, silent};

/// The largest that a process has been, in bytes.
fn peak_memory(process: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
}

#[test]
fn e45_a_command_may_write_nothing_or_far_too_much() {
    assert_eq!(quiet(&["sh", "-c", "exit 4"]).run(), silent(4));
    // 100 MB: the same series over and over, and then ever new ones.
    let gateway = gateway();
    let script = "awk 'BEGIN { for (i = 0; i < 3000000; i++) print \"same{x=\\\"1\\\"} \" i;\n\
                  for (i = 0; i < 1500000; i++) print \"new{x=\\\"\" i \"\\\"} 1 \" }' > $JOBMON_METRICS; exit 4";
    let mut run = job([
        "-q",
        "--push-url",
        &gateway.url,
        "--job",
        "e45",
        "--push-interval",
        "0",
        "--",
        "sh",
        "-c",
        script,
    ])
    .start();
    let mut peak = 0;
    let status = wait_for_long("100 MB", || {
        peak = peak.max(peak_memory(run.id()));
        run.0.try_wait().expect("our child")
    });
    assert_eq!(status.code(), Some(4));
    let text = gateway.scrape();
    let value = |series: &str| sample(&text, series).unwrap_or_default();
    assert!((value("same{instance=\"\",job=\"e45\",x=\"1\"}") - 2_999_999.0).abs() < 0.5);
    assert!(value("jobmon_child_samples_rejected{instance=\"\",job=\"e45\"}") > 1_000_000.0);
    assert!(peak > 0 && peak < 400 * 1024 * 1024, "{peak}");
}

/// As [`wait_for`], for what takes a debug build some time.
fn wait_for_long<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_mins(4), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn e45_ten_thousand_series_are_taken() {
    let gateway = gateway();
    let script =
        "i=0; while [ $i -lt 10000 ]; do echo \"s{i=\\\"$i\\\"} $i\"; i=$((i+1)); done > $JOBMON_METRICS";
    assert_eq!(job(["--push-url", &gateway.url, "--job", "e45s", "--", "sh", "-c", script]).run(), silent(0));
    let text = gateway.scrape();
    assert_eq!(text.lines().filter(|line| line.starts_with("s{")).count(), 10_000);
    assert_eq!(sample(&text, "jobmon_child_samples{instance=\"\",job=\"e45s\"}"), Some(10_000.0));
}

/// Fifty writers at once, each line in one write.
#[test]
fn e46_interleaved_writers_lose_nothing() {
    let gateway = gateway();
    let script = "for w in $(seq 50); do (for i in $(seq 40); do echo \"w$w $i\" > $JOBMON_METRICS; done) & done; wait; exit 2";
    assert_eq!(job(["--push-url", &gateway.url, "--job", "e46", "--", "sh", "-c", script]).run(), silent(2));
    let text = gateway.scrape();
    for writer in 1..=50 {
        assert_eq!(sample(&text, &format!("w{writer}{{instance=\"\",job=\"e46\"}}")), Some(40.0), "{writer}");
    }
}

#[test]
fn e46_a_torn_line_costs_itself_only() {
    let gateway = gateway();
    for (text, refused) in [
        ("a 1\\r\\n\\r\\nb 2", 0.0),
        ("a 1\\nb 2\\nc{x=\"", 1.0),
        ("\\0\\0\\na 1\\n\\0b 7\\nb 2\\n", 2.0),
        ("a 1\\nb 1\\nxb 2\\377\\nb 2", 1.0),
        ("a 1\\n\\n\\n   \\nb 2\\n", 0.0),
    ] {
        let script = format!("printf '{text}' > $JOBMON_METRICS");
        let output =
            job(["-q", "--push-url", &gateway.url, "--job", "e46t", "--", "sh", "-c", &script]).run();
        assert_eq!(output, silent(0), "{text}");
        let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"e46t\"}}"));
        assert_eq!((value("a"), value("b")), (Some(1.0), Some(2.0)), "{text}");
        assert_eq!(value("jobmon_child_samples_rejected"), Some(refused), "{text}");
    }
}

#[test]
fn e47_what_a_gateway_would_refuse_is_refused_here_line_by_line() {
    let gateway = gateway();
    let script = r#"printf '# TYPE g gauge\n# TYPE g counter\ng 1\ng 2\nnan NaN\ninf +Inf\nlate 1 1395066363000\nx{job="y"} 1\n' > "$JOBMON_METRICS"
        printf 'jobmon_success 5\nx{e="1"} 1 # {trace="1"} 1\n# HELP g one\n# HELP g two\nlast 1\ninst{instance="z"} 1\n' > "$JOBMON_METRICS""#;
    let output = job(["--push-url", &gateway.url, "--job", "e47", "--", "sh", "-c", script]).run();
    assert_eq!((output.code, output.stderr.lines().count()), (0, 1), "{output:?}");
    assert!(output.stderr.starts_with("jobmon: metrics of the command were refused refused="), "{output:?}");
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"e47\"}}"));
    assert_eq!((value("g"), value("last"), value("jobmon_success")), (Some(2.0), Some(1.0), Some(1.0)));
    assert!(value("nan").is_some_and(f64::is_nan) && value("inf") == Some(f64::INFINITY));
    assert_eq!((value("late"), value("x")), (None, None));
    // The label is the command's own as long as it is not in the grouping key.
    assert_eq!(gateway.sample("inst{instance=\"z\",job=\"e47\"}"), Some(1.0));
}

/// A server that finds fault with what we find none with: the result arrives without the command's metrics.
#[test]
fn e47_a_refused_push_is_repeated_without_the_commands_metrics() {
    let answers = &[
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ];
    let (url, server) = scripted(answers);
    let script = "echo 'own 1' > $JOBMON_METRICS; exit 3";
    let output = job(["--push-url", &url, "--", "sh", "-c", script]).run();
    assert_eq!(output.code, 3);
    assert!(
        output.stderr.starts_with("jobmon: the command's metrics were refused, pushing without them"),
        "{output:?}"
    );
    let requests = server.join().expect("no panic");
    assert!(requests[0].contains("\nown 1\n") && !requests[1].contains("\nown 1\n"));
    assert!(requests.iter().all(|request| request.contains("\njobmon_exit_code 3\n")));
}

/// The job of a user that calls something as root, and of root that calls something as a user: the shell's `>` opens the
/// FIFO of another, which the kernel refuses in a shared directory (`protected_fifos`), but not in a private one.
#[test]
fn e48_a_command_of_another_user_writes_metrics() {
    let directory = temporary_directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("ours");
    let program = directory.path().join("jobmon");
    fs::copy(JOBMON, &program).expect("copied");
    let (path_file, go) = (directory.path().join("path"), directory.path().join("go"));
    let script =
        "echo $JOBMON_METRICS > \"$0.new\"; mv \"$0.new\" \"$0\"; while [ ! -e \"$1\" ]; do sleep 0.02; done";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["--dry-run", "--", "sh", "-c", script]).arg(&path_file).arg(&go);
    command.env("JOBMON_NO_SPOOL", "1").env("TMPDIR", directory.path()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("setpriv is there");
    let mut stderr = child.stderr.take().expect("piped");
    let mut run = Process(child);
    let path = wait_for("the command", || fs::read_to_string(&path_file).ok());
    let as_root = finish(Command::new("sh").args(["-c", "echo 'by_root 1' > \"$0\"", path.trim()]));
    assert_eq!(as_root, silent(0));
    fs::write(&go, "").expect("writable");
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("text");
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(sample(&text, "by_root"), Some(1.0), "{text}");
    // The other way round the FIFO is closed to others, at once and not with a hang; what the shell has opened is not.
    let script = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'echo by_path 1 > $JOBMON_METRICS' 2>/dev/null; \
                  setpriv --reuid=65534 --regid=65534 --clear-groups echo by_shell 1 > $JOBMON_METRICS";
    let output = job(["--dry-run", "--", "sh", "-c", script]).run();
    assert_eq!((output.code, sample(&output.stderr, "by_shell")), (0, Some(1.0)), "{output:?}");
    assert_eq!(sample(&output.stderr, "by_path"), None);
}

/// Places for the FIFO that cannot hold it, one after the other; at last a pipe without a name, and nothing at all.
#[test]
fn e49_the_command_runs_wherever_its_metrics_can_go() {
    let script = "test -p $JOBMON_METRICS || test -c $JOBMON_METRICS; set -e; echo a 1 > $JOBMON_METRICS; echo $JOBMON_METRICS; exit 3";
    let run = |mounts: &str| {
        let all = format!("{mounts} exec \"$0\" --dry-run -- sh -c '{script}'");
        in_mounts(&all)
    };
    let read_only = |dir: &str| format!("mount -t tmpfs -o ro none {dir};");
    let nothing = format!("{}{}", read_only("/tmp"), read_only("/dev/shm"));
    let made = "mkdir -p /mnt/t /mnt/x;";
    let tmpfs = "mount -t tmpfs none /mnt;";
    for (mounts, place) in [
        (format!("{tmpfs}{made} export TMPDIR=/mnt/t XDG_RUNTIME_DIR=/mnt/x;"), "/mnt/t/jobmon-"),
        (format!("{tmpfs}{made} export TMPDIR=/none XDG_RUNTIME_DIR=/mnt/x;"), "/mnt/x/jobmon-"),
        ("export TMPDIR=relative; mount -t tmpfs none /tmp;".to_owned(), "/tmp/jobmon-"),
        (
            format!("mount -t tmpfs -o size=4k,nr_inodes=1 none /tmp; mount -t tmpfs none /dev/shm; {}", ""),
            "/dev/shm/jobmon-",
        ),
        (nothing.clone(), "/proc/self/fd/"),
    ] {
        let output = run(&mounts);
        assert_eq!(output.code, 3, "{mounts}: {output:?}");
        assert!(output.stdout.starts_with(place), "{mounts}: {output:?}");
        assert_eq!(sample(&output.stderr, "a"), Some(1.0), "{mounts}: {output:?}");
        assert!(!output.stderr.contains("cannot be taken"), "{output:?}");
    }
    let output = run(&format!("{nothing} mount -t tmpfs none /proc;"));
    assert_eq!((output.code, output.stdout.as_str()), (3, "/dev/null\n"), "{output:?}");
    assert!(output.stderr.starts_with("jobmon: the command's metrics cannot be taken"), "{output:?}");
}

#[test]
fn e50_the_fifo_is_private_and_goes_whatever_happens() {
    let directory = temporary_directory();
    let left = || fs::read_dir(directory.path()).expect("there").count();
    let script = r#"stat -c '%a %F' "$JOBMON_METRICS" "$(dirname "$JOBMON_METRICS")"; echo "$JOBMON_JOB ${#JOBMON_RUN_ID}""#;
    let seen = "600 fifo\n700 directory\nx 32\n";
    for (options, ending, code, stdout) in [
        (&[][..], "exit 0", 0, seen),
        (&[], "kill -KILL $$", 137, seen),
        (&["--timeout", "200ms", "-q"], "sleep 1000", 124, seen),
        (&["--metrics", "file"], "exit 3", 3, "600 regular empty file\n700 directory\nx 32\n"),
        (
            &["--retries", "1", "--retry-delay", "0"],
            "exit 3",
            3,
            "600 fifo\n700 directory\nx 32\n600 fifo\n700 directory\nx 32\n",
        ),
    ] {
        let words = [&["--no-push", "--job", "x"][..], options, &["--", "sh", "-c"]].concat();
        let script = format!("{script}; {ending}");
        let output = job(words.iter().chain(&[script.as_str()])).env("TMPDIR", directory.path()).run();
        assert_eq!(output, Output { code, stdout: stdout.to_owned(), stderr: String::new() });
        assert_eq!(left(), 0, "{ending}");
    }
    assert_eq!(job(["--no-push", "--", "/none"]).env("TMPDIR", directory.path()).run().code, 127);
    let mut run = quiet(&["sleep", "1000"]).env("TMPDIR", directory.path()).start();
    command_of(&run);
    run.signal(Signal::SIGTERM);
    run.end();
    assert_eq!(left(), 0);
    // What is left of one that was killed at once, before it had a guard, is swept by the next one that takes a while.
    let stale = directory.path().join("jobmon-abcdefabcdef");
    fs::create_dir(&stale).expect("made");
    nix::unistd::mkfifo(&stale.join("metrics"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let old = std::time::SystemTime::now() - Duration::from_mins(5);
    fs::File::open(&stale).and_then(|dir| dir.set_modified(old)).expect("ours");
    let mut run = quiet(&["sleep", "1000"]).env("TMPDIR", directory.path()).start();
    wait_for("the stale one to go", || (!stale.exists()).then_some(()));
    run.signal(Signal::SIGTERM);
    run.end();
    assert_eq!(left(), 0);
}

#[test]
fn e51_a_textfile_is_whole_and_readable_or_the_old_one() {
    let directory = temporary_directory();
    let file = directory.path().join("jobmon_e51.prom");
    let run = |code: &str| {
        let script = "umask 077; exec \"$0\" --textfile-dir \"$1\" --job e51 -- sh -c \"exit $2\"";
        finish(
            Command::new("sh")
                .args(["-c", script, JOBMON])
                .arg(directory.path())
                .arg(code)
                .env("JOBMON_NO_SPOOL", "1"),
        )
    };
    assert_eq!(run("0"), silent(0));
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o644);
    let success = sample(
        &fs::read_to_string(&file).expect("text"),
        "jobmon_last_success_timestamp_seconds{job=\"e51\"}",
    );
    assert_eq!(run("3"), silent(3));
    let text = fs::read_to_string(&file).expect("text");
    assert_eq!(sample(&text, "jobmon_last_success_timestamp_seconds{job=\"e51\"}"), success);
    assert_eq!(sample(&text, "jobmon_exit_code{job=\"e51\"}"), Some(3.0));
    // A full disk.
    let script = r#"mount -t tmpfs -o size=64k none /mnt; echo 'old 1' > /mnt/jobmon_e51.prom
        cat /dev/zero > /mnt/fill 2>/dev/null || true
        "$0" --textfile-dir /mnt --job e51 -- sh -c 'exit 3' || echo code $?
        ls -A /mnt; cat /mnt/jobmon_e51.prom"#;
    let output = in_mounts(script);
    assert_eq!(output.stdout, "code 3\nfill\njobmon_e51.prom\nold 1\n", "{output:?}");
    assert!(
        output.stderr.contains("No space left on device") && output.stderr.lines().count() == 1,
        "{output:?}"
    );
}

#[test]
fn e52_endless_output_is_kept_in_bounded_memory() {
    let directory = temporary_directory();
    let out = fs::File::create(directory.path().join("out")).expect("made");
    let script =
        "echo first line; head -c 1000000000 /dev/zero | tr '\\0' '\\377'; echo; echo last line; exit 3";
    let mut command = job(["--no-push", "--output", "on-failure", "--", "sh", "-c", script]).command();
    command.env("TMPDIR", directory.path()).stdout(out);
    let mut run = Process(command.spawn().expect("built"));
    let mut peak = 0;
    let status = wait_for_long("a gigabyte", || {
        peak = peak.max(peak_memory(run.id()));
        run.0.try_wait().expect("our child")
    });
    assert_eq!(status.code(), Some(3));
    assert!(peak < 32 * 1024 * 1024, "{peak}");
    let shown = fs::read(directory.path().join("out")).expect("written");
    assert!(shown.starts_with(b"first line\n") && shown.ends_with(b"last line\n"));
    assert!(shown.len() < 100_000_000, "{}", shown.len());
    // Where there is nowhere for a file, less is kept, and it is no failure.
    let script = r#"mount -t tmpfs -o ro none /tmp; mount -t tmpfs -o ro none /dev/shm
        exec "$0" --no-push --output on-failure -- sh -c 'echo first; seq 1000000; exit 3'"#;
    let output = in_mounts(script);
    assert_eq!(output.code, 3);
    assert!(output.stdout.starts_with("first\n1\n") && output.stdout.ends_with("\n1000000\n"));
    assert!(output.stderr.contains("bytes of output are left out here"), "{}", output.stderr);
}

/// Whatever it is, the command writes to the caller's own.
#[test]
fn e53_output_is_the_callers_terminal_file_pipe_or_socket() {
    let view = "readlink /proc/self/fd/1; [ -t 1 ] && echo tty; exit 0";
    let directory = temporary_directory();
    let file = directory.path().join("file");
    let mut command = quiet(&["sh", "-c", view]).command();
    assert!(command.stdout(fs::File::create(&file).expect("made")).status().expect("built").success());
    assert_eq!(fs::read_to_string(&file).expect("written"), format!("{}\n", file.display()));
    let script = r#"
import os, pty, socket, subprocess, sys
view = [sys.argv[1], "--no-push", "--", "sh", "-c", sys.argv[2]]
a, b = socket.socketpair()
subprocess.run(view, stdout=b, check=True)
assert a.recv(1000).startswith(b"socket:["), "socket"
assert subprocess.run(view, stdout=subprocess.PIPE, check=True).stdout.startswith(b"pipe:["), "pipe"
pid, terminal = pty.fork()
if pid == 0:
    os.execv(view[0], view)
out = b""
while b"tty\r\n" not in out:
    out += os.read(terminal, 1000)
assert out.startswith(b"/dev/pts/"), out
"#;
    python(script, &[JOBMON, view]);
    // Kept, both streams come out where they belong, and in the order of their writes where they are one.
    let both = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 4";
    let output = job(["--no-push", "--output", "on-failure", "--", "sh", "-c", both]).run();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out 1\nout 2\nout 3\n", "err 1\nerr 2\nerr 3\n")
    );
    let script = format!("exec 2>&1; exec \"$0\" --no-push --output on-failure -- sh -c '{both}'");
    let output = finish(Command::new("bash").args(["-c", &script, JOBMON]));
    assert_eq!(output.stdout, "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
    let url = format!("http://127.0.0.1:{}", free_port());
    let quiet_success = job([
        "--push-url",
        &url,
        "-q",
        "--push-deadline",
        "0",
        "--output",
        "on-failure",
        "--",
        "sh",
        "-c",
        "echo x; exit 0",
    ])
    .run();
    assert_eq!((quiet_success.code, quiet_success.stdout.as_str()), (0, ""));
}
