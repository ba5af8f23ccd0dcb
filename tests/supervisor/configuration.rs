//! The configuration file.

use std::fs;

use super::silent;
use crate::harness::{Job, gateway, job, sample, temporary_directory};

#[test]
fn a_file_says_what_flags_say_and_a_jobs_table_more() {
    let gateway = gateway();
    let home = temporary_directory();
    let file = home.path().join("jobmon/jobmon.toml");
    fs::create_dir(home.path().join("jobmon")).expect("made");
    let text = format!(
        "push-url = \"{}\"\nlabel = {{team = \"a\"}}\ninstance = \"i\"\nsuccess-codes = \"0,3\"\n[job.special]\ntimeout = 0.2\nquiet = 1\n",
        gateway.url
    );
    fs::write(&file, text).expect("writable");
    let run = |arguments: &[&str]| job(arguments).env("XDG_CONFIG_HOME", home.path());
    let told = format!(
        "jobmon: {}:7: quiet is passed over: there is no such key; keys are the long options, see jobmon --help\n",
        file.display()
    );
    let output = run(&["--job", "plain", "--", "sh", "-c", "sleep 0.4; exit 3"]).run();
    assert_eq!((output.code, output.stderr.as_str()), (3, told.as_str()));
    let value = |series: &str| gateway.sample(series);
    assert_eq!(value("jobmon_success{instance=\"i\",job=\"plain\",team=\"a\"}"), Some(1.0));
    let output = run(&["-q", "--job", "special", "--label", "team=b", "--", "sh", "-c", "sleep 10"]).run();
    assert_eq!(output, silent(124));
    assert_eq!(value("jobmon_timeout_seconds{instance=\"i\",job=\"special\",team=\"b\"}"), Some(0.2));
    // A variable comes before the file, and a flag before both.
    let special = |job: Job| job.env("JOBMON_TIMEOUT", "20s").run();
    assert_eq!(special(run(&["-q", "--job", "special", "--", "sh", "-c", "sleep 0.4; exit 3"])), silent(3));
    assert_eq!(
        special(run(&["-q", "--job", "special", "--timeout", "0.2", "--", "sleep", "10"])),
        silent(124)
    );
}

#[test]
fn whatever_stands_in_the_files_place_the_job_runs() {
    let directory = temporary_directory();
    let path = directory.path().join("c");
    let run = || {
        let output = job(["--no-push", "--config"])
            .arguments(&[path.to_str().expect("plain"), "--", "sh", "-c", "exit 3"])
            .run();
        assert_eq!(output.code, 3, "{output:?}");
        output.stderr
    };
    assert!(run().contains("it cannot be read: No such file or directory"));
    fs::create_dir(&path).expect("made");
    assert!(run().contains("it cannot be read: "));
    fs::remove_dir(&path).expect("empty");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
    assert!(run().contains("it is not a file"));
    fs::remove_file(&path).expect("ours");
    for (text, told) in [
        (&b"\xff\xfe"[..], "it cannot be read: stream did not contain valid UTF-8"),
        (b"timeout = \n", ":1 is passed over: "),
        (
            b"no-push = true\n\ntimout = 3\n",
            ":3: timout is passed over: there is no such key, did you mean timeout?",
        ),
        (b"timeout = \"soon\"\n", ":1: timeout \"soon\" is passed over: write a duration"),
        (b"timeout = [1]\n", ":1: timeout is passed over: it cannot be "),
        (b"timeout = 1 \"h\"\n", ":1 is passed over: "),
        (b"timeout = 0.1,5\n", ":1 is passed over: "),
        (b"retries = 99999999999999999999\n", ":1: retries is passed over: the number is too large"),
        (&vec![b'#'; 2_000_000], "it cannot be read: it is larger than 1048576 bytes"),
    ] {
        fs::write(&path, text).expect("writable");
        let stderr = run();
        assert!(stderr.contains(told) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn what_a_file_switches_on_a_jobs_table_switches_off() {
    let directory = temporary_directory();
    let path = directory.path().join("c.toml");
    fs::write(
        &path,
        "instance = \"i\"\nno-push = true\ntimeout = 0x10\n[job.x]\ninstance = false\nno-push = false\n",
    )
    .expect("writable");
    let told = |name: &str| {
        let arguments = ["--config", path.to_str().expect("plain"), "--dry-run", "--job", name, "--", "true"];
        job(arguments).run().stderr
    };
    assert!(
        told("x").starts_with("jobmon: would POST to http://127.0.0.1:9091/metrics/job/x?expect=0&run_id="),
        "{}",
        told("x")
    );
    assert!(!told("y").contains("would POST"), "{}", told("y"));
    assert!(told("y").contains("\njobmon_timeout_seconds 16\n"));
}

/// Whoever says it nearer to the command line says when a job runs.
#[test]
fn of_a_schedule_and_an_interval_the_nearer_counts() {
    let directory = temporary_directory();
    let path = directory.path().join("c.toml");
    let text = "schedule = \"0 0 29 2 *\"\n[job.often]\nevery = \"5m\"\n[job.x]\ngrace = \"1s\"\n";
    fs::write(&path, text).expect("writable");
    let is_soon = |job_name: &str, arguments: &[&str], variable: Option<&str>| {
        let config = path.to_str().expect("plain");
        let job = job(["--config", config, "--dry-run", "--job", job_name]).arguments(arguments);
        let job = variable.into_iter().fold(job, |job, every| job.env("JOBMON_EVERY", every));
        let stderr = job.arguments(&["--", "true"]).run().stderr;
        let next = sample(&stderr, "jobmon_next_run_timestamp_seconds").expect("it is told");
        let start = sample(&stderr, "jobmon_start_timestamp_seconds").expect("it is told");
        (next - start < 400.0, stderr.contains("--every is passed over: --schedule says when the job runs"))
    };
    let yearly = ["--schedule", "0 0 29 2 *"];
    assert_eq!(is_soon("x", &[], None), (false, false));
    assert_eq!(is_soon("x", &["--every", "5m"], None), (true, false));
    assert_eq!(is_soon("x", &[], Some("5m")), (true, false));
    assert_eq!(is_soon("often", &[], None), (true, false));
    assert_eq!(is_soon("often", &yearly, None), (false, false));
    assert_eq!(is_soon("x", &yearly, Some("5m")), (false, false));
    assert_eq!(is_soon("x", &[yearly[0], yearly[1], "--every", "5m"], None), (false, true));
}

/// `JOBMON_LOCK=1` is `--lock`, and no lock of that name.
#[test]
fn a_variable_switches_on_what_needs_no_value() {
    let run = |name: &str, value: &str| {
        job(["--dry-run", "--job", name, "--", "true"]).env("JOBMON_INSTANCE", value).run().stderr
    };
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("text");
    assert!(run("x", "true").contains(&format!("/job/x/instance/{host}?expect")));
    assert!(run("x", "off").contains("/job/x?expect"));
    assert!(run("x", "web-1").contains("/job/x/instance/web-1?expect"));
}
