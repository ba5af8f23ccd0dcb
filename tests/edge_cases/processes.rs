//! Processes: how they start, what they inherit, what they leave behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};

use super::{finish, in_mounts, processes_with, unique_seconds, unshared};
use crate::harness::{JOBMON, Output, gateway, job, temporary_directory, wait_for};
use crate::supervisor::{quiet, silent};

/// Writes a file that can be executed.
fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("plain")
}

#[test]
fn e21_what_cannot_be_run_is_named_and_reported() {
    let directory = temporary_directory();
    let file = directory.path().join("no-x");
    fs::write(&file, "#!/bin/sh\n").expect("writable");
    let bad_interpreter = script(directory.path(), "bad", "#!/does/not/exist\n");
    let gateway = gateway();
    for (command, code, error) in [
        ("/does/not/exist", 127, "No such file or directory"),
        ("does-not-exist-on-path", 127, "No such file or directory"),
        ("/tmp", 126, "Permission denied"),
        (text(&file), 126, "Permission denied"),
        (text(&bad_interpreter), 127, "No such file or directory"),
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
    // On a file system that executes nothing.
    let mounts = "mount -t tmpfs -o noexec none /mnt; echo '#!/bin/sh' > /mnt/x; chmod +x /mnt/x; exec \"$0\" --no-push -- /mnt/x";
    let output = in_mounts(mounts);
    assert_eq!((output.code, output.stderr.contains("Permission denied")), (126, true), "{output:?}");
    // More arguments than the kernel takes: one of them is too long.
    let long = "x".repeat(130_000);
    let mut command = quiet(&["true"]).command();
    let just_fits = finish(command.arg(&long).stderr(Stdio::piped()));
    assert_eq!(just_fits.code, 0, "{}", just_fits.stderr);
}

#[test]
fn e22_a_script_without_interpreter_line_runs_under_sh() {
    let directory = temporary_directory();
    let script = script(directory.path(), "script", "echo \"$0 $1\"; exit 5\n");
    let output = quiet(&[text(&script), "a b"]).run();
    assert_eq!((output.code, output.stdout), (5, format!("{} a b\n", text(&script))));
}

#[test]
fn e23_options_behind_the_command_are_the_commands() {
    for words in [&["--", "echo", "--job", "x", "--help"][..], &["echo", "--job", "x", "--help"]] {
        let output = job([&["--no-push"][..], words].concat()).run();
        assert_eq!(output, Output { code: 0, stdout: "--job x --help\n".to_owned(), stderr: String::new() });
    }
    assert_eq!(quiet(&["printf", "%s|", "--", "-v"]).run().stdout, "--|-v|");
}

#[test]
fn e24_bytes_that_are_no_text_pass_through() {
    let gateway = gateway();
    let raw = OsStr::from_bytes(b"\xff\xfe a");
    let directory = temporary_directory();
    let odd = directory.path().join(raw);
    fs::create_dir(&odd).expect("made");
    let name = script(&odd, "x", "#!/bin/sh\nprintf '%s|%s|' \"$1\" \"$ODD\"; pwd\n");
    let mut command = job(["--push-url", &gateway.url, "--label"]).command();
    command.arg(OsStr::from_bytes(b"l=\xff")).arg("--job").arg(raw).arg("--").arg(&name).arg(raw);
    let output = command.env("ODD", raw).current_dir(&odd).stdout(Stdio::piped()).output().expect("built");
    let expected = [raw.as_bytes(), b"|", raw.as_bytes(), b"|", odd.as_os_str().as_bytes(), b"\n"].concat();
    assert_eq!(output.stdout, expected);
    let series = "jobmon_success{instance=\"\",job=\"\u{fffd}\u{fffd} a\",l=\"\u{fffd}\"}";
    assert_eq!(gateway.sample(series), Some(1.0), "{}", gateway.scrape());
    // What goes through its stdin and stdout is not looked at.
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
}

#[test]
fn e25_empty_arguments_and_blanks_are_kept() {
    let output = quiet(&["printf", "<%s>", "", " ", "a b", "\t", "*", "$HOME", "%"]).run();
    assert_eq!(output.stdout, "<><   ><a b><\t><*><$HOME><%>".replace("   ", " "));
}

/// A daemon that keeps everything open: nobody waits for it, whatever is done with the output.
#[test]
fn e26_a_daemon_that_keeps_everything_open_delays_nothing() {
    let gateway = gateway();
    let seconds = unique_seconds();
    let script =
        format!("sleep {seconds} <> $JOBMON_METRICS & echo 'a 1' > $JOBMON_METRICS; echo out; exit 2");
    for output in ["inherit", "on-failure", "discard"] {
        let start = Instant::now();
        let arguments =
            ["--push-url", &gateway.url, "--job", output, "--output", output, "--", "sh", "-c", &script];
        let status = job(arguments).command().status().expect("built");
        assert_eq!(status.code(), Some(2));
        assert!(start.elapsed() < Duration::from_secs(5), "{output}: {:?}", start.elapsed());
        assert_eq!(gateway.sample(&format!("a{{instance=\"\",job=\"{output}\"}}")), Some(1.0));
    }
    kill_all(&seconds);
}

fn kill_all(argument: &str) {
    for process in fs::read_dir("/proc").expect("procfs").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if line.split(|b| *b == 0).any(|word| word == argument.as_bytes())
            && let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok())
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// With `--output on-failure` its stdout is a pipe of ours, which ends with us: the README says so. Otherwise it is not.
#[test]
fn e27_a_daemon_keeps_the_callers_output_unless_it_is_kept_by_us() {
    let directory = temporary_directory();
    let mark = directory.path().join("mark");
    let script = format!(
        "trap '' PIPE; (while [ ! -e {0}.go ]; do sleep 0.02; done; echo late && echo ok > {0}.done || echo refused > {0}.done) 2>/dev/null & exit 0",
        mark.display()
    );
    for (output, expected) in [("inherit", "ok\n"), ("on-failure", "refused\n")] {
        let (go, done) = (mark.with_extension("go"), mark.with_extension("done"));
        let _ = fs::remove_file(&go);
        let _ = fs::remove_file(&done);
        let file = fs::File::create(directory.path().join("out")).expect("made");
        let mut command = job(["--no-push", "--output", output, "--", "sh", "-c", &script]).command();
        assert!(command.stdout(file).status().expect("built").success());
        fs::write(&go, "").expect("writable");
        let text = wait_for("the daemon", || fs::read_to_string(&done).ok().filter(|text| !text.is_empty()));
        assert_eq!(text, expected, "{output}");
    }
    let readme = fs::read_to_string(crate::harness::project().join("README.md")).expect("text");
    assert!(readme.contains("a daemon that it leaves behind loses its stdout"), "the README says so");
}

const INIT: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--map-root-user"];

#[test]
fn e28_process_1_passes_on_what_ends_it_and_reaps_what_comes_to_it() {
    // Orphans end before, with and after the command; the code is the command's.
    let script = "for i in 1 2 3; do (sh -c 'exit 9' &); done; (sleep 0.1 &); sleep 0.3; \
                  ls /proc | grep -c '^[0-9]'; grep -l '^State:.Z' /proc/[0-9]*/status; exit 6";
    let output = finish(&mut unshared(&INIT, &[JOBMON, "--no-push", "--", "sh", "-c", script]));
    assert_eq!(output.code, 6, "{output:?}");
    assert!(!output.stdout.contains("status"), "no zombie is left: {output:?}");
    let mut command = unshared(&INIT, &["sh", "-c", "echo $$ >&2; exec \"$0\" \"$@\"", JOBMON]);
    command.args([
        "--no-push",
        "--",
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("unshare is there");
    let mut up = [0; 3];
    child.stdout.take().expect("piped").read_exact(&mut up).expect("it is up");
    // unshare's child is process 1 in there.
    let init = wait_for("process 1", || {
        super::children(i32::try_from(child.id()).expect("a number")).first().copied()
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), Signal::SIGTERM).expect("it is there");
    assert_eq!(child.wait().expect("ends").code(), Some(7));
}

#[test]
fn e29_what_is_left_is_ended_in_bounded_time_where_we_are_its_reaper() {
    let stubborn = format!("1{}", unique_seconds());
    let polite = unique_seconds();
    let script = format!(
        "setsid sleep {polite} & setsid sh -c 'trap \"\" TERM; sleep {stubborn}; sleep {stubborn}' & sleep 0.2; exit 3"
    );
    let start = Instant::now();
    let arguments = ["--no-push", "--subreaper", "--kill-after", "1s", "--", "sh", "-c", &script];
    assert_eq!(job(arguments).command().status().expect("built").code(), Some(3));
    let took = start.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(processes_with(&polite) + processes_with(&stubborn), 0);
    // Elsewhere it is nobody's business.
    let start = Instant::now();
    assert_eq!(
        quiet(&["sh", "-c", &format!("setsid sleep {polite} & exit 3")])
            .command()
            .status()
            .expect("built")
            .code(),
        Some(3)
    );
    assert!(start.elapsed() < Duration::from_secs(1));
    wait_for("what is left", || (processes_with(&polite) == 1).then_some(()));
    kill_all(&polite);
}

#[test]
fn e30_a_command_that_leaves_its_group_is_reached_and_what_it_starts_is_ended() {
    // It joins the group of its parent.
    let leaver =
        "import os,time\nos.setpgid(0, os.getpgid(os.getppid()))\nprint('up', flush=True)\ntime.sleep(1000)";
    let mut command = quiet(&["python3", "-c", leaver]).command();
    let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().expect("built");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("piped").read_exact(&mut up).expect("up");
    let mut run = crate::harness::Process(child);
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(143));
    // When the time is up, a session of its own protects nobody.
    let seconds = unique_seconds();
    let script = format!("setsid setsid sleep {seconds} & sleep {seconds}");
    let output = job(["--no-push", "-q", "--timeout", "300ms", "--", "sh", "-c", &script]).run();
    assert_eq!(output, silent(124));
    assert_eq!(processes_with(&seconds), 0);
}

#[test]
fn e31_a_stopped_command_ends_when_its_time_is_up() {
    for (script, seconds_max) in
        [("kill -STOP $$; exit 0", 5), ("trap '' TERM; kill -STOP $$; sleep 1000", 8)]
    {
        let start = Instant::now();
        let arguments =
            ["--no-push", "-q", "--timeout", "300ms", "--kill-after", "1s", "--", "sh", "-c", script];
        assert_eq!(job(arguments).run(), silent(124), "{script}");
        assert!(start.elapsed() < Duration::from_secs(seconds_max), "{script}");
    }
}

/// As a user who may have no more processes; nor threads, so the report is delivered without.
#[test]
fn e32_where_no_process_can_be_started_that_is_reported() {
    let gateway = gateway();
    let directory = temporary_directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let program = directory.path().join("jobmon");
    fs::copy(JOBMON, &program).expect("copied");
    let script = "ulimit -u 0; exec \"$0\" --push-url \"$1\" --job e32 --push-deadline 5s -- true";
    // A user with no other processes.
    let user = ["--reuid=64321", "--regid=64321", "--clear-groups", "bash", "-c", script];
    let mut command = Command::new("setpriv");
    command.args(user).arg(&program).arg(&gateway.url).env("JOBMON_NO_SPOOL", "1");
    let output = finish(&mut command);
    assert_eq!(output.code, 126, "{output:?}");
    assert!(output.stderr.contains("no process can be started: Try again"), "{output:?}");
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"e32\"}"), Some(126.0), "{output:?}");
}

/// What a command sees of its caller, but for what jobmon adds and documents.
const VIEW: &str = r#"
    pwd -P; umask; ulimit -a; env | grep -v -e '^JOBMON_' -e '^_=' | sort
    grep -E '^(SigBlk|SigIgn|SigCgt|ShdPnd|NoNewPrivs|Seccomp|Cap...|Cpus_allowed|Uid|Gid|Groups):' /proc/self/status
    ls -l /proc/self/fd | sed -n 's/.* \([0-9]* -> .*\)/\1/p' | grep -v '/proc/'
    nice; ionice; cat /proc/self/oom_score_adj; taskset -p $$ | sed 's/.*: //'
    printf '<%s>' "$@"
"#;

/// A command line that looks at its surroundings, alone or under jobmon, in surroundings that are unusual in every way.
fn view(prefix: &[&str]) -> String {
    let mut words = vec!["nice", "-n", "3", "ionice", "-c", "2", "-n", "6", "taskset", "1"];
    words.extend(["prlimit", "--core=4096:8192", "--stack=4194304", "--nofile=300:400"]);
    words.extend(prefix);
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
            fs::write("/proc/self/oom_score_adj", "321")?;
            // A descriptor for the command, and a closed one.
            nix::unistd::dup2_raw(std::io::stderr(), 7).map(std::mem::forget)?;
            libc::close(0);
            Ok(())
        });
    }
    let output = finish(&mut command);
    inodes_removed(&format!("{}{}", output.stdout, output.stderr))
}

/// Pipes have other numbers each time.
fn inodes_removed(view: &str) -> String {
    let without = |line: &str| line.split_once("pipe:[").map_or(line, |(before, _)| before).to_owned();
    view.lines().map(without).collect::<Vec<_>>().join("\n")
}

#[test]
fn e33_the_command_cannot_tell_that_it_is_supervised() {
    let without = view(&["env"]);
    let line =
        |prefix: &str| without.lines().find(|line| line.starts_with(prefix)).unwrap_or_default().to_owned();
    assert!(line("SigIgn:").ends_with("11001"), "the surroundings are as meant: {without}");
    assert!(without.contains("\n321") && line("open files").ends_with("300"), "{without}");
    assert_eq!(view(&[JOBMON, "--no-push", "--metrics", "off", "--"]), without);
    // A FIFO is one descriptor more, out of the way.
    let with_fifo = view(&[JOBMON, "--no-push", "--"]);
    let beside: Vec<&str> = with_fifo.lines().filter(|line| !line.starts_with("100 -> ")).collect();
    assert_eq!(beside.join("\n"), without);
    assert!(with_fifo.contains("\n100 -> ") && with_fifo.contains("/metrics\n"), "{with_fifo}");
}

#[test]
fn e34_inherited_descriptors_reach_the_command_and_ours_do_not() {
    let directory = temporary_directory();
    let lock = directory.path().join("lock");
    let own = format!("{}.own", lock.display());
    let seen = |prefix: &[&str]| {
        let script = r#"exec 9> "$0" 3</dev/null; flock 9; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" \
            sh -c 'ls /proc/self/fd | sort -n | tr "\n" " "; echo $LISTEN_FDS; sleep 1000 & echo $! >&9'"#;
        let out = directory.path().join("out");
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(&lock).args(prefix).env("JOBMON_NO_SPOOL", "1").stdin(Stdio::null());
        command.stdout(fs::File::create(&out).expect("made")).stderr(Stdio::null());
        assert!(command.status().expect("bash is there").success());
        fs::read_to_string(&out).expect("written")
    };
    let daemon = || {
        let pid = fs::read_to_string(&lock).expect("written").trim().parse().expect("a number");
        nix::unistd::Pid::from_raw(pid)
    };
    let without = seen(&["env"]);
    nix::sys::signal::kill(daemon(), Signal::SIGKILL).expect("it is there");
    let with = seen(&[JOBMON, "--no-push", &format!("--lock={own}"), "--"]);
    let is_ours = |word: &&str| *word != "100";
    let words = |text: &str| text.split_whitespace().filter(is_ours).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&with), words(&without));
    assert!(with.contains(" 9 ") && with.contains(" 100 ") && with.ends_with(" 1\n"), "{with}");
    // The daemon that was left behind has the caller's lock, but not ours.
    assert!(Command::new("flock").args(["-n", &own, "true"]).status().expect("there").success());
    assert!(!Command::new("flock").args(["-n", text(&lock), "true"]).status().expect("there").success());
    nix::sys::signal::kill(daemon(), Signal::SIGKILL).expect("it is there");
}

#[test]
fn e35_closed_descriptors_stay_closed() {
    let gateway = gateway();
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let directory = temporary_directory();
        let seen = directory.path().join("seen");
        let script = format!(
            "exec \"$0\" --push-url \"$1\" --job e35 --lock -- sh -c 'for i in 0 1 2; do [ -e /proc/$$/fd/$i ] && echo $i >> {0}; done; exit 5' {closed}",
            seen.display()
        );
        fs::write(&seen, "").expect("writable");
        let mut command = Command::new("bash");
        let output = finish(command.args(["-c", &script, JOBMON, &gateway.url]).env("JOBMON_NO_SPOOL", "1"));
        assert_eq!(output.code, 5, "{closed}: {output:?}");
        let open: String =
            ["0", "1", "2"].iter().filter(|n| !closed.contains(*n)).map(|n| format!("{n}\n")).collect();
        assert_eq!(fs::read_to_string(&seen).expect("there"), open, "{closed}");
        assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"e35\"}"), Some(5.0));
    }
}

/// What is shown of the output with `on-failure`, too, goes nowhere without harm.
#[test]
fn e36_output_that_nobody_takes_harms_nothing() {
    for options in ["", "--output on-failure", "--label bad", "--output on-failure --dry-run"] {
        let script = format!(
            "\"$0\" --no-push {options} -- sh -c 'trap \"\" PIPE; yes | head -c 300000; exit 5' 2>&1 | true; echo ${{PIPESTATUS[0]}}"
        );
        let output = finish(Command::new("bash").args(["-c", &script, JOBMON]).env("JOBMON_NO_SPOOL", "1"));
        assert_eq!(output.stdout, "5\n", "{options}: {output:?}");
    }
}

/// The command becomes root, and we, who are not, may not signal it: that is told, and we go on.
#[test]
fn e37_a_command_of_another_user_is_reported_not_fatal() {
    let directory = temporary_directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let (source, program) = (directory.path().join("c.c"), directory.path().join("becomes-root"));
    let code = "#include <unistd.h>\n#include <stdio.h>\n#include <sys/stat.h>\n\
                int main(int c, char **v) { if (setuid(0)) return 9; mknod(v[1], 0100644, 0); \
                while (access(v[2], 0)) usleep(10000); return 4; }\n";
    fs::write(&source, code).expect("writable");
    assert!(Command::new("cc").arg(&source).arg("-o").arg(&program).status().expect("cc is there").success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("ours");
    let jobmon = directory.path().join("jobmon");
    fs::copy(JOBMON, &jobmon).expect("copied");
    let (up, go) = (directory.path().join("up"), directory.path().join("go"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&jobmon).args(["--no-push", "--"]);
    command.arg(&program).arg(&up).arg(&go).env("JOBMON_NO_SPOOL", "1").stderr(Stdio::piped());
    let mut child = command.spawn().expect("setpriv is there");
    let mut stderr = child.stderr.take().expect("piped");
    let mut run = crate::harness::Process(child);
    wait_for("the command to be root", || up.exists().then_some(()));
    run.signal(Signal::SIGTERM);
    run.signal(Signal::SIGUSR1);
    let first = "jobmon: a signal could not be passed on to the command signal=";
    let mut told = vec![0; first.len()];
    stderr.read_exact(&mut told).expect("it tells");
    assert_eq!(String::from_utf8_lossy(&told), first);
    fs::write(&go, "").expect("writable");
    assert_eq!(run.end().code(), Some(4));
    // Nothing here needs privileges that can be given up.
    let output = finish(Command::new("setpriv").args([
        "--no-new-privs",
        "--bounding-set=-all",
        JOBMON,
        "--no-push",
        "--",
        "sh",
        "-c",
        "exit 3",
    ]));
    assert_eq!(output, silent(3));
}

#[test]
fn e38_a_deleted_or_unreadable_working_directory_is_passed_on() {
    let script = r#"mkdir "$1/gone"; cd "$1/gone"; rmdir "$1/gone"; exec "$0" --no-push -- sh -c 'readlink /proc/self/cwd; exit 3'"#;
    let directory = temporary_directory();
    let output = finish(Command::new("bash").args(["-c", script, JOBMON]).arg(directory.path()));
    assert_eq!(output.code, 3);
    assert!(output.stdout.contains("/gone (deleted)"), "{output:?}");
    let script = r#"mkdir -m 0 "$1/closed"; chown 65534 "$1/closed"; chmod 755 "$1"; cp "$0" "$1/jobmon"; cd "$1/closed"
        exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$1/jobmon" --no-push -- sh -c 'exit 3'"#;
    let output = finish(Command::new("bash").args(["-c", script, JOBMON]).arg(directory.path()));
    assert_eq!(output.code, 3, "{output:?}");
}

/// Under any limit of descriptors the command runs, and the limits stay what they were; a limit of file sizes keeps the
/// textfile from being written, and that is all.
#[test]
fn e39_limits_are_neither_raised_nor_fatal() {
    for limit in 4..16 {
        let script = format!("ulimit -n {limit}; exec \"$0\" --no-push -- /bin/sh -c 'ulimit -n; exit 7'");
        let output = finish(Command::new("bash").args(["-c", &script, JOBMON]).stdin(Stdio::null()));
        assert_eq!((output.code, output.stdout.trim()), (7, limit.to_string().as_str()), "{output:?}");
    }
    let directory = temporary_directory();
    fs::write(directory.path().join("jobmon_e39.prom"), "old 1\n").expect("writable");
    let script = "ulimit -f 1; exec \"$0\" --textfile-dir \"$1\" --job e39 -- sh -c 'ulimit -f; grep SigIgn /proc/self/status; exit 7'";
    let output = finish(
        Command::new("bash").args(["-c", script, JOBMON]).arg(directory.path()).env("JOBMON_NO_SPOOL", "1"),
    );
    assert_eq!(output.code, 7, "{output:?}");
    assert!(output.stdout.starts_with("2\n") && output.stdout.trim_end().ends_with("0000"), "{output:?}");
    assert!(output.stderr.contains("File too large") && output.stderr.lines().count() == 1, "{output:?}");
    assert_eq!(fs::read_to_string(directory.path().join("jobmon_e39.prom")).expect("there"), "old 1\n");
    assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1, "nothing is left behind");
}

/// The kernel never counts a command as smaller than the process that it was forked from: that has next to nothing of its own.
#[test]
fn e40_the_memory_of_a_small_command_is_not_ours() {
    let directory = temporary_directory();
    let (source, program) = (directory.path().join("c.c"), directory.path().join("small"));
    fs::write(&source, "int main(void) { return 0; }\n").expect("writable");
    let built = Command::new("cc").arg("-static").arg(&source).arg("-o").arg(&program).status();
    assert!(built.expect("cc is there").success());
    let mut command = Command::new(crate::harness::static_binary());
    let output = finish(command.args(["--dry-run", "--no-push", "--"]).arg(&program).env_clear());
    let bytes = crate::harness::sample(&output.stderr, "jobmon_max_resident_memory_bytes").expect("measured");
    assert!(bytes > 100_000.0 && bytes < 1_500_000.0, "{bytes}");
}
