//! The programs of the field, as `tests/setup.sh` has fetched them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Process, http, project, temporary_directory, wait_for};

/// Which packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Those of this release of Debian.
    Release,
    /// The newest.
    Newest,
}

/// Where the packages are unpacked.
fn root(suite: Suite) -> PathBuf {
    let suite = match suite {
        Suite::Release => "release",
        Suite::Newest => "newest",
    };
    project().join("target/peers").join(suite)
}

pub fn program(suite: Suite, name: &str) -> PathBuf {
    let path = root(suite).join("usr/bin").join(name);
    assert!(path.exists(), "{} is missing: run tests/setup.sh", path.display());
    path
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A server that answers on a path when it is up.
pub struct Server {
    pub process: Process,
    pub url: String,
    _directory: tempfile::TempDir,
}

fn serve(command: &mut Command, port: u16, directory: tempfile::TempDir, path: &str) -> Server {
    let child = command.current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = Server {
        process: Process(child.expect("it can be executed")),
        url: format!("http://127.0.0.1:{port}"),
        _directory: directory,
    };
    wait_for("a server to answer", || {
        let url = format!("{}{path}", server.url);
        let (host, path) = http::split(&url);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        http::exchange(host, request.as_bytes(), false).ok().filter(|answer| answer.status == 200)
    });
    server
}

/// A real Pushgateway.
pub fn pushgateway(suite: Suite) -> Server {
    pushgateway_with(suite, &[])
}

pub fn pushgateway_with(suite: Suite, flags: &[&str]) -> Server {
    let port = free_port();
    let mut command = Command::new(program(suite, "prometheus-pushgateway"));
    // As Debian builds it, it looks for its page where the package would be installed.
    let assets = root(suite).join("usr/share/prometheus/pushgateway");
    command.arg(format!("--web.local-assets={}", assets.display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).args(flags);
    if !flags.iter().any(|flag| flag.starts_with("--persistence.file=")) {
        command.arg("--persistence.file=");
    }
    let flag = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name));
    let external = || flag("--web.external-url=").and_then(|url| url.split('/').nth(3));
    let prefix =
        flag("--web.route-prefix=").map(str::to_owned).or_else(|| external().map(|path| format!("/{path}")));
    let prefix = prefix.filter(|prefix| prefix != "/").unwrap_or_default();
    serve(&mut command, port, temporary_directory(), &format!("{prefix}/-/ready"))
}

/// A real Pushgateway that lets in whom its `--web.config.file` says; its URL has the name in its certificate.
pub fn pushgateway_behind_tls(suite: Suite, config: &Path) -> Server {
    let port = free_port();
    let directory = temporary_directory();
    let mut command = Command::new(program(suite, "prometheus-pushgateway"));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--persistence.file=");
    command.arg(format!("--web.config.file={}", config.display())).current_dir(directory.path());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be executed");
    wait_for("the server", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    Server { process: Process(child), url: format!("https://localhost:{port}"), _directory: directory }
}

/// A real node exporter that reads textfiles and nothing else.
pub fn node_exporter(textfiles: &Path) -> Server {
    let port = free_port();
    let mut command = Command::new(program(Suite::Release, "prometheus-node-exporter"));
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--collector.disable-defaults", "--collector.textfile"])
        .arg(format!("--collector.textfile.directory={}", textfiles.display()));
    serve(&mut command, port, temporary_directory(), "/metrics")
}

/// A real Prometheus that scrapes one server every second, with honor_labels.
pub fn prometheus(suite: Suite, target: &str) -> Server {
    prometheus_with(suite, target, &[])
}

/// The same with more flags.
pub fn prometheus_with(suite: Suite, target: &str, flags: &[&str]) -> Server {
    prometheus_every(1, suite, target, flags)
}

/// The same, scraping every so many seconds; each scrape may take as long.
pub fn prometheus_every(seconds: u32, suite: Suite, target: &str, flags: &[&str]) -> Server {
    start_prometheus(suite, &scraping(seconds, target), temporary_directory(), flags)
}

/// A real Prometheus that scrapes one server and judges rules every second, and tells an Alertmanager.
pub fn prometheus_with_rules(suite: Suite, target: &str, rules: &str, alertmanager: &Server) -> Server {
    let directory = temporary_directory();
    fs::write(directory.path().join("rules.yml"), rules).expect("writable");
    let (host, _) = http::split(&alertmanager.url);
    let config = format!(
        "{}rule_files: [rules.yml]\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['{host}']}}]}}]}}\n",
        scraping(1, target)
    );
    start_prometheus(suite, &config, directory, &[])
}

fn scraping(seconds: u32, target: &str) -> String {
    let (host, _) = http::split(target);
    format!(
        "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: {seconds}s}}\n\
         scrape_configs:\n- job_name: pushed\n  honor_labels: true\n  static_configs: [{{targets: ['{host}']}}]\n"
    )
}

fn start_prometheus(suite: Suite, config: &str, directory: tempfile::TempDir, flags: &[&str]) -> Server {
    fs::write(directory.path().join("prometheus.yml"), config).expect("writable");
    let port = free_port();
    let mut command = Command::new(program(suite, "prometheus"));
    command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]).args(flags);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    serve(&mut command, port, directory, "/-/ready")
}

/// A real Alertmanager that sends each alert by itself, and at once.
pub fn alertmanager(webhook: &str) -> Server {
    let directory = temporary_directory();
    let config = format!(
        "route: {{receiver: webhook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: webhook, webhook_configs: [{{url: '{webhook}'}}]}}]\n"
    );
    fs::write(directory.path().join("alertmanager.yml"), config).expect("writable");
    let port = free_port();
    // Debian's looks for its templates below /usr/share only, so that is shown to it, and to nobody else, as in its package.
    let share = project().join("target/peers/release/usr/share");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", "mount --bind \"$0\" /usr/share && exec \"$@\""]);
    command.arg(share).arg(program(Suite::Release, "prometheus-alertmanager"));
    command.args(["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="]);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    serve(&mut command, port, directory, "/-/ready")
}

impl Server {
    /// The value that an instant query gives, if it gives one.
    pub fn query(&self, query: &str) -> Option<f64> {
        let encoded = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let answer = http::get(&format!("{}/api/v1/query?query={encoded}", self.url));
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"][0]["value"][1].as_str().map(|text| text.parse().expect("a number"))
    }

    pub fn metrics(&self) -> String {
        http::get(&format!("{}/metrics", self.url)).text()
    }
}

/// A real proxy.
pub struct Proxy {
    _process: Process,
    pub url: String,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

/// Starts tinyproxy.
pub fn tinyproxy() -> Proxy {
    let directory = temporary_directory();
    let (config, log) = (directory.path().join("config"), directory.path().join("log"));
    let port = free_port();
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nLogFile \"{}\"\nLogLevel Connect\nMaxClients 10\n",
        log.display()
    );
    fs::write(&config, text).expect("writable");
    let child = Command::new("tinyproxy")
        .arg("-d")
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let process = Process(child.expect("tests/setup.sh installs it"));
    wait_for("the proxy", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    Proxy { _process: process, url: format!("http://127.0.0.1:{port}"), log, _directory: directory }
}

impl Proxy {
    /// How many requests it has seen.
    pub fn served(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches("Request (").count()
    }
}

/// Runs a Python script with the client library on its path; panics with its output if it fails.
pub fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new("python3")
        .env("PYTHONPATH", project().join("target/peers/python"))
        .args(["-c", script])
        .args(arguments)
        .output()
        .expect("python3 is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
