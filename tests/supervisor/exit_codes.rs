//! What the command ends with is what jobmon ends with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{quiet, silent};
use crate::harness::{gateway, job, temporary_directory};

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
