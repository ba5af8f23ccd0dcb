//! What a gateway keeps through crashes, losses of power and disks that fail.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::harness::http::{self, get, put, request};
use crate::harness::peers::{Suite, pushgateway_with};
use crate::harness::{
    Gateway, JOBMON, gateway_in, gateway_with, project, sample, temporary_directory, wait_for,
};

fn gateway_on(directory: &Path) -> Gateway {
    gateway_with(&[&format!("--storage.path={}", directory.display())])
}

/// What was pushed to a group: whole numbers that grow.
#[derive(Debug, Clone, Copy, Default)]
struct Pushed {
    tried: u64,
    answered: u64,
}

/// Pushes from some connections, each to groups of its own, until the gateway is gone.
struct Load {
    groups: Mutex<HashMap<String, Pushed>>,
    answered: AtomicUsize,
    ends: AtomicBool,
}

const CLIENTS: usize = 4;
const GROUPS_A_CLIENT: u64 = 5;

impl Load {
    fn new() -> Self {
        Self { groups: Mutex::default(), answered: AtomicUsize::new(0), ends: AtomicBool::new(false) }
    }

    fn group(&self, name: &str) -> Pushed {
        self.groups.lock().expect("not poisoned").get(name).copied().unwrap_or_default()
    }

    fn client(&self, gateway: &str, client: usize) {
        for round in 0.. {
            let name = format!("c{client}g{}", round % GROUPS_A_CLIENT);
            let next = self.group(&name).tried + 1;
            self.groups.lock().expect("not poisoned").entry(name.clone()).or_default().tried = next;
            let body =
                format!("# TYPE v gauge\nv {next}\n# TYPE w counter\nw{{l=\"{}\"}} {next}\n", next % 3);
            let (host, _) = http::split(gateway);
            let bytes = format!(
                "PUT /metrics/job/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            match http::exchange(host, bytes.as_bytes(), false) {
                Ok(answer) if answer.status == 200 => {
                    self.groups.lock().expect("not poisoned").entry(name).or_default().answered = next;
                    self.answered.fetch_add(1, Ordering::SeqCst);
                }
                _ => return,
            }
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Everything that was answered is there, and nothing is there by half.
    fn verify(&self, exposition: &str) {
        for (name, pushed) in &*self.groups.lock().expect("not poisoned") {
            let v = sample(exposition, &format!("v{{instance=\"\",job=\"{name}\"}}"));
            let w: Vec<_> = (0..3)
                .filter_map(|l| sample(exposition, &format!("w{{instance=\"\",job=\"{name}\",l=\"{l}\"}}")))
                .collect();
            let number = v.unwrap_or_default();
            let possible = pushed.answered as f64..=pushed.tried as f64;
            assert!(possible.contains(&number), "{name}: {number} of {pushed:?}");
            assert_eq!(w, v.into_iter().collect::<Vec<_>>(), "{name} is there by half");
        }
    }

    /// Pushes until so many more were answered, then kills the gateway.
    fn crash(&self, mut gateway: Gateway, after: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + after;
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let url = gateway.url.clone();
                scope.spawn(move || self.client(&url, client));
            }
            wait_for("pushes", || (self.answered.load(Ordering::SeqCst) >= goal).then_some(()));
            gateway.process.signal(nix::sys::signal::Signal::SIGKILL);
        });
        gateway.process.end();
    }
}

#[test]
fn what_was_answered_survives_fifty_crashes() {
    let directory = temporary_directory();
    let load = Load::new();
    for round in 0..50 {
        let gateway = gateway_on(directory.path());
        load.verify(&gateway.scrape());
        load.crash(gateway, round * 7 % 40);
    }
    load.verify(&gateway_on(directory.path()).scrape());
}

/// Takes from every segment of the journal what was not brought to disk.
fn lose_power(directory: &Path, synced: &Path) {
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("journal-") {
            let note = fs::read(synced.join(&name)).unwrap_or_default();
            let size = note.try_into().map_or(0, u64::from_ne_bytes);
            let file = fs::File::options().write(true).open(entry.path()).expect("it is there");
            let length = file.metadata().expect("it is there").len();
            file.set_len(size.min(length)).expect("cut");
        }
    }
}

/// A library that notes what is brought to disk.
fn noting_library(directory: &Path) -> PathBuf {
    let library = directory.join("synced.so");
    let source = project().join("tests/storage/synced.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
    assert!(built.expect("cc is there").success());
    library
}

#[test]
fn what_was_answered_survives_losses_of_power() {
    let (directory, notes) = (temporary_directory(), temporary_directory());
    let library = noting_library(notes.path());
    let load = Load::new();
    let start = || {
        let storage = format!("--storage.path={}", directory.path().display());
        gateway_in(&[("LD_PRELOAD", &library), ("SYNCED_DIRECTORY", notes.path())], &[&storage])
    };
    for round in 0..10 {
        let gateway = start();
        load.verify(&gateway.scrape());
        load.crash(gateway, 20 + round * 7 % 40);
        lose_power(directory.path(), notes.path());
    }
    load.verify(&start().scrape());
}

/// What must be there again: the exposition without the gateway's own metrics.
fn pushed(exposition: &str) -> Vec<&str> {
    let own = |line: &&str| {
        line.contains("pushgateway_") || line.contains("process_") || line.contains("jobmon_gateway_")
    };
    exposition.lines().filter(|line| !own(line)).collect()
}

#[test]
fn everything_is_there_after_a_stop() {
    let directory = temporary_directory();
    let mut gateway = gateway_on(directory.path());
    let url = |path: &str| format!("{}/metrics/job/{path}", gateway.url);
    assert_eq!(put(&url("a/zone/b"), b"# HELP m help\n# TYPE m counter\nm{l=\"1\"} 1e99\n").status, 200);
    assert_eq!(put(&url("b"), b"# TYPE m gauge\nm 1\n").status, 400);
    assert_eq!(put(&url("c"), b"x 1\n").status, 200);
    assert_eq!(request("DELETE", &url("c"), &[], b"").status, 202);
    let mut histogram = Vec::new();
    jobmon::exposition::protobuf::encode(&mut histogram, [&crate::gateway::native_histogram()]);
    let protobuf = [("Content-Type", jobmon::exposition::protobuf::CONTENT_TYPE)];
    assert_eq!(request("POST", &url("a/zone/b"), &protobuf, &histogram).status, 200);
    let accept = [("Accept", jobmon::exposition::protobuf::CONTENT_TYPE)];
    let families = |gateway: &Gateway| {
        let body = request("GET", &format!("{}/metrics", gateway.url), &accept, b"").body;
        let mut families =
            jobmon::exposition::protobuf::decode(&body, &jobmon::exposition::Limits::NONE).expect("families");
        families.retain(|family| {
            !["pushgateway_", "process_", "jobmon_"].iter().any(|own| family.name.starts_with(own))
        });
        families
    };
    let (text, messages) = (gateway.scrape(), families(&gateway));
    gateway.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(gateway.process.end().success());
    let gateway = gateway_on(directory.path());
    assert_eq!(pushed(&gateway.scrape()), pushed(&text));
    assert_eq!(families(&gateway), messages);
}

/// What a Pushgateway has in its file is there when ours takes its place, to the last digit.
fn a_file_is_imported(suite: Suite) {
    let directory = temporary_directory();
    let file = directory.path().join("metrics");
    let flag = format!("--persistence.file={}", file.display());
    let mut theirs = pushgateway_with(suite, &[&flag]);
    let url = |path: &str| format!("{}/metrics/job/{path}", theirs.url);
    let text = "# HELP c help \\n more\n# TYPE c counter\nc{l=\"\u{3a0}\"} 3\n# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\n\
                s_count 3\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 2\nh_count 2\nu NaN\n";
    assert_eq!(put(&url("a/zone/b"), text.as_bytes()).status, 200);
    assert_eq!(put(&url("b/instance/x"), b"# TYPE g gauge\ng -1e-9\n").status, 200);
    assert_eq!(put(&url("b/instance/x"), b"g 1 5\n").status, 400);
    assert_eq!(put(&url("refused"), b"g 1 5\n").status, 400);
    assert_eq!(put(&url("d/e@base64/="), b"").status, 200);
    let mut histogram = Vec::new();
    jobmon::exposition::protobuf::encode(&mut histogram, [&crate::gateway::native_histogram()]);
    let protobuf = ("Content-Type", jobmon::exposition::protobuf::CONTENT_TYPE);
    assert_eq!(request("POST", &url("a/zone/b"), &[protobuf], &histogram).status, 200);
    let families = |url: &str| {
        let accept = ("Accept", jobmon::exposition::protobuf::CONTENT_TYPE);
        let body = request("GET", &format!("{url}/metrics"), &[accept], b"").body;
        let limits = jobmon::exposition::Limits::NONE;
        let mut families = jobmon::exposition::protobuf::decode(&body, &limits).expect("families");
        let own = ["pushgateway_", "process_", "jobmon_", "go_"];
        families.retain(|family| !own.iter().any(|own| family.name.starts_with(own)));
        families
    };
    let expected = families(&theirs.url);
    assert!(expected.len() >= 8, "{expected:?}");
    theirs.process.signal(nix::sys::signal::Signal::SIGTERM);
    theirs.process.end();
    let bytes = fs::read(&file).expect("it was written");
    for _ in 0..2 {
        let ours = gateway_with(&[&flag]);
        // NaN is no value that is like itself.
        assert_eq!(format!("{:?}", families(&ours.url)), format!("{expected:?}"));
    }
    assert_eq!(fs::read(&file).expect("it is there"), bytes, "the file is left as it is");
    let ours = gateway_with(&[&flag]);
    assert_eq!(request("DELETE", &format!("{}/metrics/job/b/instance/x", ours.url), &[], b"").status, 202);
    drop(ours);
    assert!(!gateway_with(&[&flag]).scrape().contains("g{"), "it is imported once");
}

#[test]
fn the_file_of_a_pushgateway_is_imported() {
    a_file_is_imported(Suite::Newest);
    a_file_is_imported(Suite::Release);
    let directory = temporary_directory();
    let file = directory.path().join("metrics");
    fs::write(&file, "something else").expect("writable");
    let flag = format!("--persistence.file={}", file.display());
    let output = Command::new(JOBMON).args(["gateway", "--web.listen-address=127.0.0.1:0", &flag]).output();
    let output = output.expect("it ran");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("is no file that a Pushgateway has written"),
        "{error}"
    );
}

#[test]
fn a_disk_that_is_full_refuses_pushes_and_nothing_else() {
    let directory = temporary_directory();
    let mut gateway = gateway_on(directory.path());
    let push = |body: &str| put(&format!("{}/metrics/job/x", gateway.url), body.as_bytes());
    let limit = |bytes: &str| {
        let limit = format!("--fsize={bytes}:unlimited");
        let pid = gateway.process.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(set.expect("prlimit is there").success());
    };
    let status = |path: &str| get(&format!("{}{path}", gateway.url)).status;
    assert_eq!((push("a 1\n").status, status("/-/writable")), (200, 200));
    limit("0");
    let refused = push("a 2\n");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("cannot write the journal") && refused.header("retry-after").is_some());
    assert_eq!(push("a 3\n").status, 503);
    assert_eq!([status("/-/writable"), status("/-/ready"), status("/metrics")], [503, 200, 200]);
    limit("unlimited");
    wait_for("the disk to be well", || (push("a 4\n").status == 200).then_some(()));
    assert_eq!(status("/-/writable"), 200);
    gateway.process.signal(nix::sys::signal::Signal::SIGKILL);
    gateway.process.end();
    assert_eq!(gateway_on(directory.path()).sample("a{instance=\"\",job=\"x\"}"), Some(4.0));
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = temporary_directory();
    let started = |flags: &[&str]| {
        let mut command = Command::new(JOBMON);
        let output = command
            .args(["gateway", "--web.listen-address=127.0.0.1:0"])
            .args(flags)
            .output()
            .expect("it ran");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    let path = directory.path().display().to_string();
    let _gateway = gateway_on(directory.path());
    assert!(started(&[&format!("--storage.path={path}")]).contains(&format!("another gateway uses {path}")));
    let error = started(&["--storage.path=/proc/nothing"]);
    assert!(error.contains("--storage.path: cannot make /proc/nothing"), "{error}");
    assert!(started(&["--storage.repair"]).contains("needs --storage.path"));
    assert!(started(&["--storage.path=/x", "--persistence.file=/y"]).contains("give one of them"));
}

#[test]
fn damage_keeps_a_gateway_from_starting_until_it_is_told_to() {
    let directory = temporary_directory();
    let mut gateway = gateway_on(directory.path());
    for job in ["a", "b", "c"] {
        assert_eq!(put(&format!("{}/metrics/job/{job}", gateway.url), b"m 1\n").status, 200);
    }
    gateway.process.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.process.end();
    let mut files = fs::read_dir(directory.path()).expect("there").flatten().map(|entry| entry.path());
    let journal = files.find(|path| path.to_string_lossy().contains("journal-")).expect("there is one");
    let mut bytes = fs::read(&journal).expect("readable");
    bytes[40] ^= 1;
    fs::write(&journal, &bytes).expect("writable");
    let storage = format!("--storage.path={}", directory.path().display());
    let flags = ["gateway", "--web.listen-address=127.0.0.1:0", &storage];
    let output = Command::new(JOBMON).args(flags).output().expect("it ran");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    for part in [journal.to_str().expect("text"), "damaged at byte 0", "--storage.repair"] {
        assert!(error.contains(part), "{error}");
    }
    let gateway = gateway_with(&[&storage, "--storage.repair"]);
    let exposition = gateway.scrape();
    assert!(exposition.contains("job=\"b\"") && exposition.contains("job=\"c\""), "{exposition}");
}
