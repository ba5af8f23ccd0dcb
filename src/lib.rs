//! jobmon
pub mod cli;
pub mod config;
pub mod deliver;
pub mod exposition;
pub mod gateway;
pub mod grouping;
pub mod logging;
pub mod store;
pub mod supervise;

/// This machine's name.
pub fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
}
