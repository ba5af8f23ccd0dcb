//! The program: parse, start logging, call a face, turn its answer into an exit code.
//!
//! `main` is the C entry point, because the start of Rust's runtime would ignore SIGPIPE and open `/dev/null` on closed
//! descriptors, and the command would inherit both.
#![no_main]

use std::ffi::{OsString, c_char, c_int};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::exit;

use jobmon::cli::{self, Call, GatewayCall, RunCall, SpoolCall};
use jobmon::config::{LogFormat, Surroundings, gateway_config, run_config, spool_config};
use jobmon::logging::{self, Style};
use jobmon::supervise::{self, EXIT_USAGE};
use jobmon::{gateway, tools};

/// The largest configuration file.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// The exit code of a gateway that cannot serve.
const EXIT_GATEWAY: u8 = 1;

#[allow(unsafe_code, reason = "the linker must find the entry point; no code here is unsafe")]
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    supervise::keep_standard_descriptors_free();
    let code = match cli::parse(std::env::args_os().collect()) {
        Ok(Call::Run(call)) => run(call),
        Ok(Call::Gateway(call)) => serve(&call),
        Ok(Call::Spool(call)) => spool(&call),
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
    match run_config(call, &Machine) {
        Ok((config, warnings)) => {
            logging::start(Style::Prefixed, config.log_level);
            supervise::run(&config, &warnings)
        }
        Err(wrong) => {
            logging::print(&format!("jobmon: {wrong}\n"));
            EXIT_USAGE
        }
    }
}

fn spool(call: &SpoolCall) -> u8 {
    let (config, warnings) = spool_config(call, &Machine);
    logging::start(Style::Prefixed, config.log_level);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    tools::spool::run(call, &config)
}

fn serve(call: &GatewayCall) -> u8 {
    let config = match gateway_config(call) {
        Ok(config) => config,
        Err(error) => {
            logging::print(&format!("jobmon gateway: {error}\n"));
            return EXIT_USAGE;
        }
    };
    let style = match config.log_format {
        LogFormat::Logfmt => Style::Logfmt,
        LogFormat::Json => Style::Json,
    };
    logging::start(style, config.log_level);
    match gateway::run(config) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the gateway cannot serve");
            EXIT_GATEWAY
        }
    }
}

/// What this process is surrounded by.
struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn variables(&self, prefix: &str) -> Vec<(String, OsString)> {
        let named = |(name, value): (OsString, OsString)| {
            Some((name.to_str().filter(|name| name.starts_with(prefix))?.to_owned(), value))
        };
        std::env::vars_os().filter_map(named).collect()
    }

    fn host_name(&self) -> Option<String> {
        nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        // Something else under that name must not hold a job up.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut text = String::new();
        file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {CONFIG_BYTES_MAX} bytes")));
        }
        Ok(text)
    }
}
