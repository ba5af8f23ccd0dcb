//! Builders for what the tests start, and ways to wait for what they expect. Nothing is mocked: gateways, Prometheus,
//! Alertmanager, Pushgateways and node exporter are the real ones, on free ports of the loopback interface.

#![allow(dead_code, reason = "every test file uses some of it")]

pub mod certificates;
pub mod http;
pub mod peers;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub const JOBMON: &str = env!("CARGO_BIN_EXE_jobmon");
/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    pub fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process number")
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.id()), signal).expect("the process is there");
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        wait_for("a process to end", || self.0.try_wait().expect("our child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `jobmon gateway`.
pub struct Gateway {
    pub process: Process,
    pub url: String,
}

/// Starts a gateway on a free port.
pub fn gateway() -> Gateway {
    gateway_at("127.0.0.1:0")
}

/// Starts a gateway on an address.
pub fn gateway_at(address: &str) -> Gateway {
    start_gateway(&["--web.listen-address", address])
}

/// The same with more flags.
pub fn gateway_at_with(address: &str, flags: &[&str]) -> Gateway {
    start_gateway(&[&["--web.listen-address", address], flags].concat())
}

/// Starts a gateway on a free port with more flags.
pub fn gateway_with(flags: &[&str]) -> Gateway {
    start_gateway(&[&["--web.listen-address", "127.0.0.1:0"], flags].concat())
}

/// Starts the static release of a gateway, for what is measured.
pub fn released_gateway() -> Gateway {
    start_program(&static_binary(), &["--web.listen-address=127.0.0.1:0"])
}

fn start_gateway(flags: &[&str]) -> Gateway {
    start_program(Path::new(JOBMON), flags)
}

fn start_program(program: &Path, flags: &[&str]) -> Gateway {
    start_command(Command::new(program), flags)
}

/// Starts a gateway on a free port, with variables of the environment.
pub fn gateway_in(environment: &[(&str, &Path)], flags: &[&str]) -> Gateway {
    let mut command = Command::new(JOBMON);
    command.envs(environment.iter().copied());
    start_command(command, &[&["--web.listen-address", "127.0.0.1:0"], flags].concat())
}

fn start_command(mut command: Command, flags: &[&str]) -> Gateway {
    let mut child = command
        .args(["gateway", "--log.level=info"])
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut first = String::new();
    let address = loop {
        let line = lines.next().unwrap_or_else(|| panic!("the gateway ended: {first}")).expect("text");
        if let Some((_, address)) = line.split_once("msg=\"listening\" address=") {
            break address.to_owned();
        }
        first.push_str(&line);
    };
    // Its messages must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Gateway { process: Process(child), url: format!("http://{address}") }
}

impl Gateway {
    pub fn scrape(&self) -> String {
        http::get(&format!("{}/metrics", self.url)).text()
    }

    /// The value of a sample, by its line up to the blank.
    pub fn sample(&self, series: &str) -> Option<f64> {
        sample(&self.scrape(), series)
    }
}

/// The value of a sample in an exposition.
pub fn sample(exposition: &str, series: &str) -> Option<f64> {
    let rest = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(rest.parse().expect("a number"))
}

/// A run of jobmon, with nothing of this machine's environment that could matter.
pub struct Job(Command);

/// What a run gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// `jobmon` with these arguments.
pub fn job<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Job {
    let mut command = Command::new(JOBMON);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    // Nothing of a test stays on the machine.
    command.env("JOBMON_NO_SPOOL", "1");
    Job(command)
}

impl Job {
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Runs to the end.
    pub fn run(mut self) -> Output {
        let mut child = Process(
            self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program is built"),
        );
        let mut stderr = child.0.stderr.take().expect("piped");
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).expect("readable");
            text
        });
        let mut stdout = Vec::new();
        child.0.stdout.take().expect("piped").read_to_end(&mut stdout).expect("readable");
        let status = child.end();
        Output {
            code: status.code().unwrap_or_else(|| -status.signal().expect("one of both")),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&errors.join().expect("no panic")).into_owned(),
        }
    }

    /// Starts and goes on; output is dropped.
    pub fn start(mut self) -> Process {
        Process(self.0.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program is built"))
    }

    /// The command itself, for what the builder does not know; output is dropped. None of it goes to the test's own, which a
    /// command that outlives a failed test would keep open.
    pub fn command(mut self) -> Command {
        self.0.stdout(Stdio::null()).stderr(Stdio::null());
        self.0
    }
}

/// A directory that goes with the test.
pub fn temporary_directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("jobmon-test-").tempdir().expect("a directory")
}

/// The static binary that `make test` has built.
pub fn static_binary() -> PathBuf {
    let path = std::env::var_os("JOBMON_STATIC").map_or_else(
        || {
            let output = Command::new("sh")
                .arg(project().join("packaging/build-static.sh"))
                .output()
                .expect("sh is there");
            String::from_utf8_lossy(&output.stdout).trim().into()
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{}", path.display());
    path
}

/// The root of the project.
pub fn project() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
