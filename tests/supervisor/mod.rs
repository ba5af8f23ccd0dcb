//! The supervisor, as its caller and its command meet it.

mod access;
mod configuration;
mod control;
pub mod delivery;
mod exit_codes;
mod metrics;
mod promises;
mod signals;
mod spool;
mod stderr;

use crate::harness::{Job, Output, job};

/// A run that delivers nothing.
pub fn quiet(arguments: &[&str]) -> Job {
    job(["--no-push", "--"].iter().chain(arguments))
}

pub fn silent(code: i32) -> Output {
    Output { code, stdout: String::new(), stderr: String::new() }
}
