//! The alert rules that are shipped: as promtool tests them, and from a run that dies to the receiver of an Alertmanager.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::peers::{Server, Suite, alertmanager, program, prometheus_with_rules};
use crate::harness::{
    Gateway, Job, Process, gateway, gateway_at_with, gateway_with, http, job, project, temporary_directory,
    wait_for,
};

fn rules_directory() -> PathBuf {
    project().join("packaging/prometheus")
}

fn rules() -> String {
    fs::read_to_string(rules_directory().join("jobmon.rules.yml")).expect("text")
}

fn runbook() -> String {
    fs::read_to_string(project().join("docs/runbook.md")).expect("text")
}

#[test]
fn the_rules_do_what_their_tests_say() {
    let promtool = |suite, arguments: &[&str]| {
        let mut command = Command::new(program(suite, "promtool"));
        let output = command.args(arguments).current_dir(rules_directory()).output().expect("executable");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{suite:?} {arguments:?}: {text}");
    };
    for suite in [Suite::Release, Suite::Newest] {
        promtool(suite, &["check", "rules", "jobmon.rules.yml"]);
        promtool(suite, &["test", "rules", "jobmon.rules.test.yml"]);
    }
    // The older one cannot write native histograms down.
    promtool(Suite::Newest, &["test", "rules", "jobmon.rules.native.test.yml"]);
}

#[test]
fn every_alert_is_tested_and_has_a_section_in_the_runbook() {
    let rules: Value = serde_saphyr::from_str(&rules()).expect("YAML");
    let groups = rules["groups"].as_array().expect("groups").iter();
    let alerts: Vec<&Value> = groups
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .filter(|rule| rule["alert"].is_string())
        .collect();
    assert_eq!(alerts.len(), 10);
    let (tests, runbook) =
        (fs::read_to_string(rules_directory().join("jobmon.rules.test.yml")).expect("text"), runbook());
    // An anchor is its heading in small letters.
    let mut headings: BTreeSet<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    for alert in alerts {
        let name = alert["alert"].as_str().expect("a name");
        let annotation = |key: &str| alert["annotations"][key].as_str().filter(|text| !text.is_empty());
        assert!(annotation("summary").is_some() && annotation("description").is_some(), "{name}");
        let (page, anchor) =
            annotation("runbook_url").and_then(|url| url.split_once('#')).expect("an anchor");
        assert_eq!((page, headings.remove(anchor)), ("docs/runbook.md", true), "{name}");
        assert!(matches!(alert["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
        assert!(runbook.contains(&format!("| [{name}](#{anchor}) |")), "{name} is not in the table");
    }
    assert_eq!(headings, BTreeSet::new(), "there are no such alerts");
}

/// What the runbook tells people to type at a gateway is answered, and does what it says.
#[test]
fn the_commands_of_the_runbook_work() {
    let gateway = gateway();
    assert_eq!(job(["--job", "JOB", "--push-url", &gateway.url, "--", "true"]).run().code, 0);
    let groups = || {
        let answer = http::get(&format!("{}/api/v1/groups", gateway.url));
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["data"]["groups"].as_array().expect("groups").clone()
    };
    let id = groups()[0]["id"].as_str().expect("an id").to_owned();
    let type_in = |line: &str| {
        let script =
            format!("curl() {{ command curl --fail \"$@\"; }}\n{}", line.replace("/ID/", &format!("/{id}/")));
        let mut command = Command::new("bash");
        let output = command.args(["-o", "pipefail", "-c", &script]).env("GATEWAY", &gateway.url).output();
        let output = output.expect("bash is there");
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let runbook = runbook();
    let commands = runbook.lines().map(str::trim_start);
    let commands = commands.filter(|line| line.starts_with("curl ") && line.contains("$GATEWAY"));
    let (deleting, reading): (Vec<&str>, Vec<&str>) = commands.partition(|line| line.contains("-X DELETE"));
    assert!(reading.len() >= 5, "{reading:?}");
    let about_the_job = reading.iter().map(|line| type_in(line)).filter(|answer| answer.contains("\"JOB\""));
    assert!(about_the_job.count() >= 3);
    let [dry_run, delete] = deleting[..] else { panic!("{deleting:?}") };
    assert!(type_in(dry_run).contains("\"JOB\""));
    assert_eq!(groups().len(), 1);
    assert!(type_in(delete).contains("\"deleted\":1"));
    assert_eq!(groups().len(), 0);
}

/// What an Alertmanager says of an alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Notice {
    job: String,
    alert: String,
    status: String,
}

fn notice(job: &str, alert: &str, status: &str) -> Notice {
    Notice { job: job.to_owned(), alert: alert.to_owned(), status: status.to_owned() }
}

/// Whom an Alertmanager tells.
struct Receiver {
    url: String,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = notices.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                // One that is kept open for later must not keep the others waiting.
                std::thread::spawn(move || {
                    let Ok(notices) = read_notices(&stream) else { return };
                    heard.lock().expect("no panic").extend(notices);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = (&stream).write_all(answer);
                });
            }
        });
        Self { url, notices }
    }

    /// All that it was told, by job.
    fn notices(&self) -> Vec<Notice> {
        let mut notices = self.notices.lock().expect("no panic").clone();
        notices.sort();
        notices
    }

    fn wait_for(&self, expected: &Notice) {
        wait_for(&format!("{expected:?}"), || self.notices().contains(expected).then_some(()));
    }
}

/// Reads a request of an Alertmanager.
fn read_notices(stream: &TcpStream) -> std::io::Result<Vec<Notice>> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a number");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |alert: &Value| Notice {
        job: text(&alert["labels"]["job"]),
        alert: text(&alert["labels"]["alertname"]),
        status: text(&alert["status"]),
    };
    Ok(body["alerts"].as_array().expect("alerts").iter().map(one).collect())
}

/// A gateway and all that is behind it.
struct Site {
    gateway: Gateway,
    prometheus: Server,
    receiver: Receiver,
    _alertmanager: Server,
}

impl Site {
    /// With the rules as they are shipped, but for how long they wait.
    fn behind(gateway: Gateway, suite: Suite) -> Self {
        let mut rules = rules();
        for time in ["1m", "2m", "5m"] {
            rules = rules.replace(&format!("for: {time}\n"), "for: 1s\n");
        }
        assert_eq!(rules.matches("for: 1s\n").count(), 5);
        let receiver = Receiver::start();
        let alertmanager = alertmanager(&receiver.url);
        let prometheus = prometheus_with_rules(suite, &gateway.url, &rules, &alertmanager);
        // Prometheus takes some seconds until it looks for the first time.
        wait_for("a scrape", || prometheus.query("up").filter(|up| *up > 0.0));
        Self { gateway, prometheus, receiver, _alertmanager: alertmanager }
    }

    fn job(&self, name: &str, arguments: &[&str]) -> Job {
        job(["--job", name, "--push-url", &self.gateway.url]).arguments(arguments)
    }

    /// Runs a job to its end.
    fn run(&self, name: &str, arguments: &[&str], exit_code: i32) {
        let script = format!("exit {exit_code}");
        let output = self.job(name, arguments).arguments(&["--", "sh", "-c", &script]).run();
        assert_eq!((output.code, output.stderr.as_str()), (exit_code, ""));
    }

    /// Starts a job that goes on.
    fn start(&self, name: &str, arguments: &[&str]) -> Run {
        let directory = temporary_directory();
        let note = directory.path().join("pid");
        let script = "echo $$ > \"$0.new\"; mv \"$0.new\" \"$0\"; exec sleep 600";
        let supervisor = self
            .job(name, arguments)
            .arguments(&["--", "sh", "-c", script, note.to_str().expect("a plain path")])
            .start();
        let command = wait_for("the command", || fs::read_to_string(&note).ok());
        let command = LeftBehind(Pid::from_raw(command.trim().parse().expect("a number")));
        Run { supervisor, _command: command }
    }

    fn push(&self, path: &str) {
        let answer = http::put(&format!("{}/metrics/job/{path}", self.gateway.url), b"items 5\n");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What the gateway exposes of a job's group.
    fn sample(&self, metric: &str, job: &str) -> Option<f64> {
        self.gateway.sample(&format!("{metric}{{instance=\"\",job=\"{job}\"}}"))
    }

    /// What Prometheus knows of it.
    fn query(&self, metric: &str, job: &str) -> Option<f64> {
        self.prometheus.query(&format!("{metric}{{job=\"{job}\"}}"))
    }
}

/// A job that goes on; both of its processes end with the test.
struct Run {
    supervisor: Process,
    _command: LeftBehind,
}

/// A command that nobody may be there to end any more.
struct LeftBehind(Pid);

impl Drop for LeftBehind {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

const LOST: &str = "JobmonRunLost";
const OVERDUE: &str = "JobmonRunOverdue";
const FAILED: &str = "JobmonJobFailed";

/// Each alert reaches who is to know, and is over when the job runs again; none comes that nobody has promised.
#[test]
fn what_becomes_of_runs_is_told_and_when_it_is_over() {
    let site = Site::behind(gateway(), Suite::Release);
    let mut lost = site.start("lost", &["--push-interval", "1s"]);
    let mut silent = site.start("silent", &["--push-interval", "0"]);
    site.run("overdue", &["--every", "1s", "--grace", "0s"], 0);
    site.run("failed", &[], 3);
    wait_for("its heartbeats", || site.query("push_up", "lost").filter(|up| *up > 0.0));
    wait_for("the other run", || site.query("jobmon_running", "silent"));

    silent.supervisor.signal(Signal::SIGKILL);
    lost.supervisor.signal(Signal::SIGKILL);
    let killed = Instant::now();
    wait_for("its silence", || site.query("push_up", "lost").filter(|up| *up == 0.0));
    let took = killed.elapsed();
    eprintln!("a run was seen to be lost {took:.1?} after it was killed");
    // Three intervals of 1 s, the scrape that is going on and the next one, and what this machine is busy with.
    assert!(took <= Duration::from_secs(3 + 2 + 1), "{took:?}");
    lost.supervisor.end();
    silent.supervisor.end();

    let alerts = [("failed", FAILED), ("lost", LOST), ("overdue", OVERDUE)];
    for (job, alert) in alerts {
        site.receiver.wait_for(&notice(job, alert, "firing"));
    }
    assert_eq!(site.query("jobmon_running", "silent"), Some(1.0));
    assert_eq!(site.query("push_up", "silent"), None, "it promises nothing while it runs");

    site.run("failed", &[], 0);
    site.run("lost", &[], 0);
    site.run("overdue", &["--every", "1h"], 0);
    for (job, alert) in alerts {
        site.receiver.wait_for(&notice(job, alert, "resolved"));
    }
    let told = alerts.map(|(job, alert)| [notice(job, alert, "firing"), notice(job, alert, "resolved")]);
    assert_eq!(site.receiver.notices(), told.concat(), "and nothing else was told");
    assert_eq!(site.prometheus.query("ALERTS"), None);
}

/// Series that go are gone for Prometheus at its next scrape, and what is left tells that the job is overdue.
#[test]
fn series_that_go_are_not_seen_any_more() {
    let site = Site::behind(gateway(), Suite::Newest);
    site.push("gone?ttl=3s&expect=4s");
    wait_for("its series", || site.query("items", "gone"));
    wait_for("its series to go", || site.sample("items", "gone").is_none().then_some(()));
    let gone = Instant::now();
    wait_for("Prometheus to see it", || site.query("items", "gone").is_none().then_some(()));
    let took = gone.elapsed();
    eprintln!("series were seen to be gone after {took:.1?}");
    // Without a marker it would look back for five minutes.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let scrapes =
        |metric: &str| site.prometheus.query(&format!("count_over_time({metric}{{job=\"gone\"}}[5m])"));
    let (items, pushes) = (scrapes("items"), scrapes("push_time_seconds"));
    assert!(items >= Some(1.0), "it has been there within five minutes");
    site.receiver.wait_for(&notice("gone", OVERDUE, "firing"));
    wait_for("two more scrapes", || {
        scrapes("push_time_seconds").filter(|count| *count >= pushes.unwrap_or_default() + 2.0)
    });
    assert_eq!(scrapes("items"), items);
    assert_eq!((site.query("push_up", "gone"), site.query("items", "gone")), (Some(0.0), None));
    site.push("gone?expect=1h");
    wait_for("its series", || site.query("items", "gone"));
    site.receiver.wait_for(&notice("gone", OVERDUE, "resolved"));
}

/// A gateway that is killed and started again keeps what was promised, and what was not kept.
#[test]
fn a_restart_of_the_gateway_keeps_what_is_promised() {
    let directory = temporary_directory();
    let storage = format!("--storage.path={}", directory.path().display());
    let mut site = Site::behind(gateway_with(&[&storage]), Suite::Newest);
    let run = site.start("running", &["--push-interval", "2s"]);
    site.push("overdue?expect=1s");
    site.push("gone?ttl=1s&expect=1h");
    wait_for("its heartbeats", || site.query("push_up", "running"));
    wait_for("its series to go", || site.sample("items", "gone").is_none().then_some(()));
    site.receiver.wait_for(&notice("overdue", OVERDUE, "firing"));
    let what_stays = |site: &Site| {
        let pushed = ["overdue", "gone"].map(|job| site.sample("push_time_seconds", job));
        let up = ["running", "overdue", "gone"].map(|job| site.sample("push_up", job));
        assert_eq!(up, [Some(1.0), Some(0.0), Some(1.0)]);
        assert_eq!((site.sample("items", "overdue"), site.sample("items", "gone")), (Some(5.0), None));
        pushed
    };
    let before = what_stays(&site);
    assert!(before[0].is_some() && before[1].is_some(), "{before:?}");

    let heard = site.query("push_time_seconds", "running");
    let address = http::split(&site.gateway.url).0.to_owned();
    site.gateway.process.signal(Signal::SIGKILL);
    site.gateway.process.end();
    site.gateway = gateway_at_with(&address, &[&storage]);
    assert_eq!(what_stays(&site), before);
    wait_for("more heartbeats", || site.query("push_time_seconds", "running").filter(|at| Some(*at) > heard));
    wait_for("the alert", || site.prometheus.query("ALERTS{job=\"overdue\",alertstate=\"firing\"}"));
    assert_eq!(site.query("items", "gone"), None);
    let lowest = |job: &str| site.prometheus.query(&format!("min_over_time(push_up{{job=\"{job}\"}}[5m])"));
    assert_eq!((lowest("running"), lowest("gone")), (Some(1.0), Some(1.0)));
    what_stays(&site);

    site.push("overdue?expect=1h");
    site.receiver.wait_for(&notice("overdue", OVERDUE, "resolved"));
    assert!(site.receiver.notices().iter().all(|notice| notice.job == "overdue"));
    drop(run);
}
