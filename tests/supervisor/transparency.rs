//! The command cannot tell that it is supervised.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};

use super::quiet;
use crate::harness::JOBMON;

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
    command.stdout(Stdio::piped());
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
