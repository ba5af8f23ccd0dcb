//! What the command ends with is what jobmon ends with.

use super::{quiet, silent};
use crate::harness::job;

#[test]
fn every_exit_code_is_passed_on() {
    for code in 0..=255 {
        assert_eq!(quiet(&["sh", "-c", &format!("exit {code}")]).run(), silent(code));
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    let output = job(["--version"]).run();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, concat!("jobmon ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let output = job(["--help"]).run();
    assert!(output.code == 0 && output.stdout.contains("--push-url <URL>"), "{output:?}");
}
