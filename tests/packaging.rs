//! What is shipped, and the examples.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::peers::{Suite, free_port, prometheus, python};
use crate::harness::{Process, gateway, http, project, sample, static_binary, temporary_directory, wait_for};

/// Runs the program in a directory that holds nothing but what the test puts there.
fn in_empty_root(root: &Path, arguments: &[&str]) -> Command {
    fs::copy(static_binary(), root.join("jobmon")).expect("copied");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--root"]).arg(root).arg("/jobmon").args(arguments).env_clear();
    command
}

#[test]
fn the_static_binary_needs_no_library() {
    let output = Command::new("ldd").arg(static_binary()).env("LC_ALL", "C").output().expect("ldd is there");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("not a dynamic executable") || text.contains("statically linked"), "{text}");
}

#[test]
fn the_static_binary_runs_in_an_empty_root() {
    let gateway = gateway();
    let root = temporary_directory();
    let push = |url: &str, job: &str| {
        let arguments =
            ["--push-url", url, "--push-deadline", "5s", "--job", job, "--", "/jobmon", "--version"];
        let output = in_empty_root(root.path(), &arguments).output().expect("unshare is there");
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("jobmon "), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let succeeded = |job: &str| gateway.sample(&format!("jobmon_success{{instance=\"\",job=\"{job}\"}}"));
    // There is no place for a FIFO, and it says so; the result arrives all the same.
    let messages = push(&gateway.url, "empty");
    assert!(
        messages.starts_with("jobmon: the command's metrics cannot be taken")
            && messages.lines().count() == 1,
        "{messages}"
    );
    assert_eq!(succeeded("empty"), Some(1.0));
    push(&gateway.url.replace("127.0.0.1", "localhost"), "localhost");
    assert_eq!(succeeded("localhost"), Some(1.0));
    // Names are looked up without NSS: what a container's /etc says is enough.
    fs::create_dir(root.path().join("etc")).expect("made");
    fs::create_dir(root.path().join("tmp")).expect("made");
    fs::write(root.path().join("etc/hosts"), "127.0.0.1 gateway.test\n").expect("written");
    fs::write(root.path().join("etc/resolv.conf"), "nameserver 127.0.0.1\n").expect("written");
    assert_eq!(push(&gateway.url.replace("127.0.0.1", "gateway.test"), "named"), "");
    assert_eq!(succeeded("named"), Some(1.0));
    // A secure URL has certificates to check against, though the system has none.
    let messages = push("https://127.0.0.1:1/", "secure");
    assert!(messages.contains("Connection refused"), "{messages}");
}

/// What is resident is what is in use, also once something has been pushed.
#[test]
fn the_static_binary_is_small_while_the_command_runs() {
    let gateway = gateway();
    let mut command = Command::new(static_binary());
    command.args(["--push-url", &gateway.url, "--push-interval", "200ms", "--", "sleep", "1000"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut run = Process(child.expect("executable"));
    let pushes = || gateway.sample("pushgateway_http_push_size_bytes_count{method=\"post\"}");
    wait_for("some pushes", || pushes().filter(|pushes| *pushes >= 3.0));
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", run.id())).expect("it runs");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB").map(str::trim));
        line.expect("a size").parse::<u32>().expect("a number")
    };
    wait_for("a size between two pushes", || (resident() < 2 * 1024).then_some(()));
    run.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.end().code(), Some(143));
}

#[test]
fn the_gateway_runs_in_an_empty_root() {
    let root = temporary_directory();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut command = in_empty_root(root.path(), &["gateway", "--web.listen-address", &address]);
    let child = command.stderr(Stdio::null()).spawn().expect("unshare is there");
    let _gateway = Process(child);
    let request = format!("GET /-/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    wait_for("the gateway", || {
        http::exchange(&address, request.as_bytes(), false).ok().filter(|a| a.status == 200)
    });
    assert_eq!(http::put(&format!("http://{address}/metrics/job/x"), b"a 1\n").status, 200);
    let text = http::get(&format!("http://{address}/metrics")).text();
    assert_eq!(sample(&text, "a{instance=\"\",job=\"x\"}"), Some(1.0));
}

#[test]
fn the_quickstart_ends_with_the_jobs_metrics() {
    let output = Command::new(project().join("examples/quickstart.sh"))
        .stdin(Stdio::null())
        .output()
        .expect("executable");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let (during, after) = text.split_once("== what Prometheus scrapes after it").expect("the headings");
    assert_eq!(sample(during, "jobmon_running{instance=\"\",job=\"count-items\"}"), Some(1.0), "{text}");
    assert!(
        sample(during, "processed_items{instance=\"\",job=\"count-items\"}")
            .is_some_and(|items| items < 30.0),
        "{text}"
    );
    for (name, value) in [
        ("processed_items", 30.0),
        ("jobmon_success", 1.0),
        ("jobmon_exit_code", 0.0),
        ("jobmon_running", 0.0),
    ] {
        assert_eq!(
            sample(after, &format!("{name}{{instance=\"\",job=\"count-items\"}}")),
            Some(value),
            "{text}"
        );
    }
}

/// The simulator of the compose example, its gateway and a real Prometheus, without the containers.
#[test]
fn the_simulators_counter_grows_in_prometheus() {
    let gateway = gateway();
    let prometheus = prometheus(Suite::Newest, &gateway.url);
    let script = project().join("examples/compose/simulator.sh");
    let run = crate::harness::job(
        ["--", "/bin/sh"].map(std::ffi::OsStr::new).into_iter().chain([script.as_os_str()]),
    )
    .env("JOBMON_PUSH_URL", &gateway.url)
    .env("JOBMON_PUSH_INTERVAL", "200ms")
    .env("JOBMON_JOB", "simulator")
    .env("SIMULATOR_PAUSE", "0.2")
    .start();
    let items = || prometheus.query("processed_items{job=\"simulator\"}");
    let first = wait_for("items", items);
    wait_for("more items", || items().filter(|items| *items > first));
    run.signal(nix::sys::signal::Signal::SIGTERM);
    let mut run = run;
    assert_eq!(run.end().code(), Some(143));
}

#[test]
fn the_configuration_of_prometheus_is_valid() {
    let promtool = project().join("target/peers/release/usr/bin/promtool");
    let output = Command::new(promtool)
        .args(["check", "config"])
        .arg(project().join("examples/compose/prometheus.yml"))
        .output()
        .expect("promtool is there");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_manifests_are_valid_yaml_and_name_what_exists() {
    let script = r#"
import sys, yaml
root = sys.argv[1]
job = yaml.safe_load(open(root + "/examples/kubernetes/cronjob.yaml"))
container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
print("\n".join(e["name"] for e in container["env"]))
assert container["command"][1] == "--"
compose = yaml.safe_load(open(root + "/examples/compose/compose.yaml"))
assert set(compose["services"]) == {"gateway", "prometheus", "simulator"}
print("\n".join(compose["services"]["simulator"]["environment"]))
"#;
    let names = python(script, &[project().to_str().expect("plain")]);
    for name in names.lines() {
        assert!(jobmon::cli::RUN_OPTIONS.iter().any(|option| option.variable() == name), "{name}");
    }
}

/// Each line of the crontab example as cron runs it: by sh, in a bare environment. The commands are replaced by `true`.
#[test]
fn the_crontab_lines_are_good_calls() {
    let crontab = fs::read_to_string(project().join("examples/crontab")).expect("text");
    let directory = temporary_directory();
    let lines: Vec<&str> =
        crontab.lines().filter(|line| line.contains("jobmon ") && !line.starts_with('#')).collect();
    assert!(lines.len() >= 4, "{crontab}");
    for line in lines {
        let command = line.split_whitespace().skip(5).collect::<Vec<_>>().join(" ");
        let (options, _) = command.split_once(" -- ").expect("the command stands after --");
        let dir = directory.path().to_str().expect("plain");
        let options = options.replace("/var/lib/prometheus/node-exporter", dir).replacen(
            "jobmon",
            "\"$JOBMON\" --dry-run",
            1,
        );
        let output = Command::new("sh")
            .args(["-c", &format!("{options} -- true")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("JOBMON", crate::harness::JOBMON)
            .stdin(Stdio::null())
            .output()
            .expect("sh is there");
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && messages.contains("jobmon_success 1"), "{line}: {messages}");
        assert!(!messages.contains("passed over"), "{line}: {messages}");
    }
}
