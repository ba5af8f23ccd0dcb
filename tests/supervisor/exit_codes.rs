//! What the command ends with is what jobmon ends with.

use std::path::Path;

use super::{quiet, silent};
use crate::harness::{job, temporary_directory};

#[test]
fn every_exit_code_is_passed_on() {
    for code in 0..=255 {
        assert_eq!(quiet(&["sh", "-c", &format!("exit {code}")]).run(), silent(code));
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
