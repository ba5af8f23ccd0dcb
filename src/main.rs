//! The program: parse, start logging, call a face, turn its answer into an exit code.
//!
//! `main` is the C entry point, because the start of Rust's runtime would ignore SIGPIPE and open `/dev/null` on closed
//! descriptors, and the command would inherit both.
#![no_main]

use std::ffi::{c_char, c_int};
use std::process::exit;

use jobmon::cli::{self, Call, GatewayCall, RunCall};
use jobmon::config::{gateway_config, run_config};
use jobmon::gateway;
use jobmon::logging::{self, Style};
use jobmon::supervise::{self, EXIT_USAGE};

/// The exit code of a gateway that cannot serve.
const EXIT_GATEWAY: u8 = 1;

#[allow(unsafe_code, reason = "the linker must find the entry point; no code here is unsafe")]
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    supervise::keep_standard_descriptors_free();
    let code = match cli::parse(std::env::args_os().collect()) {
        Ok(Call::Run(call)) => run(call),
        Ok(Call::Gateway(call)) => serve(&call),
        Err(error) => {
            // Help and version go to stdout and are no mistake.
            let is_mistake = error.use_stderr();
            let _ = error.print();
            if is_mistake { EXIT_USAGE } else { 0 }
        }
    };
    exit(c_int::from(code))
}

fn run(call: RunCall) -> u8 {
    let (config, warnings) = run_config(call, |name| std::env::var_os(name), host_name);
    logging::start(Style::Prefixed, config.log_level);
    supervise::run(config, &warnings)
}

fn serve(call: &GatewayCall) -> u8 {
    let config = match gateway_config(call) {
        Ok(config) => config,
        Err(error) => {
            logging::print(&format!("jobmon gateway: {error}\n"));
            return EXIT_USAGE;
        }
    };
    logging::start(Style::Logfmt, config.log_level);
    match gateway::run(config) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the gateway cannot serve");
            EXIT_GATEWAY
        }
    }
}

/// This machine's name, as `--instance` without a value gives it.
fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
}
