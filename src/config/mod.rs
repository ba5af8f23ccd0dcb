//! Flags, environment and files made into a configuration: checked, with defaults, before anything is opened.
//!
//! A nonsense value of a monitoring option never keeps a job from running: it becomes a [`Warning`], and the job runs
//! without it. A nonsense flag about how to run the job is a [`BadCall`].

mod file;
mod gateway;
mod reader;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use xxhash_rust::xxh3::xxh3_64;

use crate::cli::{RunCall, SpoolCall};
use crate::deliver::{Access, Proxy, SpoolPlace, Target};
use crate::exposition::labels::Labels;
use crate::grouping::GroupingKey;
pub use gateway::{
    Address, BadFlag, Consistency, GatewayConfig, Limits, Listen, LogFormat, Paths, PromisesConfig,
    StorageConfig, gateway_config,
};
use reader::{PUSH_URL, Reader};
pub use values::{duration, not_null};

/// Where pushes go if nobody says otherwise.
const DEFAULT_PUSH_URL: &str = "http://127.0.0.1:9091";
const DEFAULT_PUSH_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_PUSH_INTERVAL: Duration = Duration::from_secs(15);
const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(10);
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How a command is to be run.
#[derive(Debug)]
pub struct RunConfig {
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// The group that is pushed.
    pub key: GroupingKey,
    /// Labels for every sample.
    pub labels: Labels,
    /// How the command is run.
    pub control: Control,
    /// How the command hands its metrics over.
    pub metrics: MetricsMode,
    /// When the next run is due.
    pub timetable: Timetable,
    /// Where reports go.
    pub delivery: DeliveryConfig,
    /// What is said on stderr.
    pub log_level: LevelFilter,
}

/// How a command is run.
#[derive(Debug)]
pub struct Control {
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// What ends the command then.
    pub timeout_signal: i32,
    /// How long after that it is killed; `None` for never.
    pub kill_after: Option<Duration>,
    /// Whether somebody asked for that time: then it holds for a termination from outside in a container too.
    pub kill_after_is_given: bool,
    /// How often it is started again after a failure.
    pub retries: u32,
    /// The first pause before that.
    pub retry_delay: Duration,
    /// What counts as success.
    pub success_codes: SuccessCodes,
    /// What keeps runs apart.
    pub lock: Option<LockName>,
    /// How long the lock is waited for.
    pub lock_wait: Duration,
    /// How long the start may be delayed, on whatever host.
    pub jitter: Duration,
    /// How long it is on this one: a part of the jitter that host and job settle.
    pub start_delay: Duration,
    /// What becomes of the command's output.
    pub output: OutputMode,
    /// Whether orphans are taken in and ended.
    pub subreaper: bool,
    /// What the command gets if we are killed.
    pub parent_death_signal: Option<i32>,
}

/// Exit codes that count as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessCodes(pub Vec<RangeInclusive<u8>>);

impl SuccessCodes {
    /// Whether a code is among them.
    pub fn contains(&self, code: u8) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }
}

/// What keeps runs apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockName {
    /// The job with its grouping labels.
    Job,
    /// A name.
    Named(String),
    /// A file, which flock(1) may use as well.
    File(PathBuf),
}

/// What becomes of the command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    /// It goes where jobmon's own would.
    Inherit,
    /// It is kept, and shown if the run fails.
    OnFailure,
    /// It is thrown away.
    Discard,
}

/// How the command hands its metrics over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsMode {
    /// Through a FIFO, read while the command runs.
    Fifo,
    /// Through a regular file, read now and then.
    File,
    /// Not at all.
    Off,
}

/// When a job runs, as it was written: it is judged when the command runs, because it may take a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timetable {
    /// Five fields, as in a crontab.
    pub schedule: Option<String>,
    /// Their time zone.
    pub timezone: Option<String>,
    /// Or the time from start to start.
    pub every: Option<Duration>,
    /// How late a run may be.
    pub grace: Duration,
}

/// Where reports go.
#[derive(Debug)]
pub struct DeliveryConfig {
    /// Where pushes go.
    pub targets: Vec<Target>,
    /// How they get in there.
    pub access: Access,
    /// Where the textfile goes.
    pub textfile_dir: Option<PathBuf>,
    /// Where undelivered pushes wait.
    pub spool: SpoolPlace,
    /// Total time of the final delivery.
    pub push_deadline: Duration,
    /// Time between pushes while the command runs; zero means only at start and end.
    pub push_interval: Duration,
    /// How long series stay in the gateway after the last push; zero for ever, `None` as the gateway has it.
    pub ttl: Option<Duration>,
    /// Whether to print instead of delivering.
    pub dry_run: bool,
    /// Whether failed delivery is a failure.
    pub strict: bool,
    /// Whether a server was named to which nothing can be pushed.
    pub has_bad_target: bool,
}

/// Where the spool is, for those who look after it.
#[derive(Debug)]
pub struct SpoolConfig {
    /// Where undelivered pushes wait.
    pub spool: SpoolPlace,
    /// What is said on stderr.
    pub log_level: LevelFilter,
}

/// What a configuration depends on beside the call.
pub trait Surroundings {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<OsString>;
    /// All variables whose names begin with this.
    fn variables(&self, prefix: &str) -> Vec<(String, OsString)>;
    /// This machine's name.
    fn host_name(&self) -> Option<String>;
    /// The text of a configuration file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// A value or a setting that was passed over.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning {
    /// The flag, the variable, or the file with line and key.
    pub option: String,
    /// Its value, if that is what is wrong.
    pub value: Option<String>,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, problem } = self;
        match value {
            Some(value) => write!(f, "{option} {value:?} is passed over: {problem}"),
            None => write!(f, "{option} is passed over: {problem}"),
        }
    }
}

/// A flag that leaves unclear how the command is to be run, so it is not run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {:?} makes no sense, nothing was run: {}", .0.option, .0.value.as_deref().unwrap_or_default(), .0.problem)]
pub struct BadCall(Warning);

/// Makes the configuration of a run. What is nonsense but harms nothing is told in the warnings.
///
/// # Errors
/// A flag about how to run the command that makes no sense.
pub fn run_config(
    call: RunCall,
    surroundings: &dyn Surroundings,
) -> Result<(RunConfig, Vec<Warning>), BadCall> {
    let mut reader = Reader::new(call.given, surroundings);
    let job = reader.one("job", values::job_name).unwrap_or_else(|| values::default_job(&call.command[0]));
    reader.read_files(&job);
    let mut grouping = reader.many("grouping", values::grouping_label);
    if let Some(instance) = reader.any("instance", values::text) {
        let name = if instance.is_empty() { surroundings.host_name() } else { Some(instance) };
        grouping.extend(name.map(|name| ("instance".to_owned(), name)));
    }
    let key = GroupingKey::new(&job, grouping);
    let config = RunConfig {
        labels: labels(&mut reader, &key),
        control: control(&mut reader, surroundings, &key),
        metrics: reader.one("metrics", values::metrics_mode).unwrap_or(MetricsMode::Fifo),
        timetable: timetable(&mut reader),
        delivery: delivery(&mut reader),
        log_level: log_level(&mut reader, call.quiet, call.verbose),
        command: call.command,
        key,
    };
    match reader.wrong {
        Some(wrong) => Err(wrong),
        None => Ok((config, reader.warnings)),
    }
}

/// Finds out where the spool is.
pub fn spool_config(call: &SpoolCall, surroundings: &dyn Surroundings) -> (SpoolConfig, Vec<Warning>) {
    let mut reader = Reader::new(call.given.clone(), surroundings);
    // No job has this name, so no job's own settings count.
    reader.read_files("");
    let spool = reader.path("spool-dir").map_or(SpoolPlace::Default, SpoolPlace::Dir);
    let log_level = log_level(&mut reader, false, call.verbose);
    (SpoolConfig { spool, log_level }, reader.warnings)
}

fn labels(reader: &mut Reader<'_>, key: &GroupingKey) -> Labels {
    let pairs: BTreeMap<String, String> = reader
        .many("label", |text| {
            let (name, value) = values::label(text)?;
            let free = key.labels().get(&name).is_none();
            free.then_some((name, value)).ok_or_else(|| "the label is part of the grouping key".to_owned())
        })
        .into_iter()
        .collect();
    Labels::from_pairs(pairs)
}

fn control(reader: &mut Reader<'_>, surroundings: &dyn Surroundings, key: &GroupingKey) -> Control {
    let jitter = reader.one("jitter", values::duration).unwrap_or_default();
    let kill_after = reader.one("kill-after", values::duration_or_none);
    Control {
        timeout: reader.one("timeout", values::duration_or_none).flatten(),
        timeout_signal: reader.one("timeout-signal", values::signal).unwrap_or(libc::SIGTERM),
        kill_after_is_given: kill_after.is_some(),
        kill_after: kill_after.unwrap_or(Some(DEFAULT_KILL_AFTER)),
        retries: reader.one("retries", values::count).unwrap_or(0),
        retry_delay: reader.one("retry-delay", values::duration).unwrap_or(DEFAULT_RETRY_DELAY),
        success_codes: reader
            .one("success-codes", values::success_codes)
            .unwrap_or_else(|| SuccessCodes(vec![0..=0])),
        lock: reader.any("lock", values::lock),
        lock_wait: reader.one("lock-wait", values::duration).unwrap_or_default(),
        jitter,
        start_delay: if jitter.is_zero() { jitter } else { start_delay(jitter, surroundings, key) },
        output: reader.one("output", values::output_mode).unwrap_or(OutputMode::Inherit),
        subreaper: reader.flag("subreaper"),
        parent_death_signal: reader.one("pdeathsig", values::signal),
    }
}

/// The part of a jitter that this job has on this host, always the same.
fn start_delay(jitter: Duration, surroundings: &dyn Surroundings, key: &GroupingKey) -> Duration {
    let name = format!("{}\0{}", surroundings.host_name().unwrap_or_default(), key.to_path());
    jitter.mul_f64(xxh3_64(name.as_bytes()) as f64 / u64::MAX as f64)
}

/// How late a run may be where nothing else is said: cron wakes up a little late, and the first push takes its time.
const GRACE: Duration = Duration::from_secs(5);

fn timetable(reader: &mut Reader<'_>) -> Timetable {
    let mut schedule = reader.any("schedule", values::text);
    let given = reader.one("every", values::duration_or_none);
    let mut every = given.flatten();
    // What is nonsense says nothing.
    let distance = given.and_then(|_| reader.distance("every"));
    match (reader.distance("schedule"), distance) {
        (Some(schedule), Some(every)) if schedule == every => {
            reader.warn("every", "--schedule says when the job runs, and counts");
        }
        (Some(of_schedule), Some(of_every)) if of_every < of_schedule => schedule = None,
        _ => {}
    }
    if schedule.is_some() {
        every = None;
    }
    Timetable {
        schedule,
        timezone: reader.any("timezone", values::text),
        every,
        grace: reader.one("grace", values::duration).unwrap_or(GRACE),
    }
}

fn delivery(reader: &mut Reader<'_>) -> DeliveryConfig {
    let textfile_dir = reader.path("textfile-dir");
    let spool = reader.path("spool-dir").map_or(SpoolPlace::Default, SpoolPlace::Dir);
    let targets = targets(reader, textfile_dir.is_some());
    DeliveryConfig {
        has_bad_target: reader.warnings.iter().any(|warning| warning.option.contains(PUSH_URL)),
        targets,
        access: access(reader),
        textfile_dir,
        spool: if reader.flag("no-spool") { SpoolPlace::Nowhere } else { spool },
        push_deadline: reader.one("push-deadline", values::duration).unwrap_or(DEFAULT_PUSH_DEADLINE),
        push_interval: reader.one("push-interval", values::interval).unwrap_or(DEFAULT_PUSH_INTERVAL),
        ttl: reader.one("ttl", values::duration),
        dry_run: reader.flag("dry-run"),
        strict: reader.flag("strict"),
    }
}

/// A sink that was configured, even badly, replaces the default.
fn targets(reader: &mut Reader<'_>, other_sink: bool) -> Vec<Target> {
    let configured = reader.is_given(PUSH_URL);
    let targets = reader.many(PUSH_URL, |url| Target::parse(url).map_err(|error| error.to_string()));
    if reader.flag("no-push") {
        Vec::new()
    } else if configured || other_sink {
        targets
    } else {
        vec![Target::parse(DEFAULT_PUSH_URL).expect("the default is a good URL")]
    }
}

fn access(reader: &mut Reader<'_>) -> Access {
    let access = Access {
        username: reader.any("push-username", values::text),
        password_file: reader.path("push-password-file"),
        bearer_token_file: reader.path("push-bearer-token-file"),
        headers: reader.many("push-header", values::header),
        ca_file: reader.path("push-ca-file"),
        cert_file: reader.path("push-cert-file"),
        key_file: reader.path("push-key-file"),
        proxy: reader
            .one("push-proxy", |text| Proxy::parse(text).map_err(|error| error.to_string()))
            .unwrap_or(Proxy::System),
    };
    if access.username.is_some() != access.password_file.is_some() {
        reader.warn("push-username", "it goes together with --push-password-file");
    }
    if access.cert_file.is_some() != access.key_file.is_some() {
        reader.warn("push-cert-file", "it goes together with --push-key-file");
    }
    access
}

fn log_level(reader: &mut Reader<'_>, quiet: bool, verbose: u8) -> LevelFilter {
    let configured = reader.one("log-level", |text| {
        let known = ["off", "error", "warn", "info", "debug"].contains(&text);
        let level = text.parse().ok().filter(|_| known);
        level.ok_or_else(|| "use off, error, warn, info or debug".to_owned())
    });
    match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => configured.unwrap_or(LevelFilter::WARN),
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Given;

    /// An environment and files.
    struct World<'a>(&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

    impl Surroundings for World<'_> {
        fn variable(&self, name: &str) -> Option<OsString> {
            self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        }

        fn variables(&self, prefix: &str) -> Vec<(String, OsString)> {
            let named = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
            named.map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
        }

        fn host_name(&self) -> Option<String> {
            Some("host".to_owned())
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            let file = self.1.iter().find(|(name, _)| path == Path::new(name));
            file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    fn judge(
        flags: &[(&'static str, &str)],
        surroundings: &World<'_>,
    ) -> Result<(RunConfig, Vec<String>), String> {
        let mut given = Given::new();
        for (name, value) in flags {
            given.entry(name).or_default().push(OsString::from(value));
        }
        let call = RunCall { given, command: vec!["/usr/bin/clean.up.sh".into()], verbose: 0, quiet: false };
        match run_config(call, surroundings) {
            Ok((config, warnings)) => Ok((config, warnings.iter().map(ToString::to_string).collect())),
            Err(wrong) => Err(wrong.to_string()),
        }
    }

    fn config_with(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> (RunConfig, Vec<String>) {
        judge(flags, &World(environment, &[])).expect("no wrong call")
    }

    fn urls(config: &RunConfig) -> Vec<String> {
        config.delivery.targets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let (config, warnings) = config_with(&[], &[]);
        assert_eq!(warnings, [""; 0]);
        assert_eq!(config.key, GroupingKey::new("clean.up", [("", ""); 0]));
        assert_eq!(urls(&config), ["http://127.0.0.1:9091/"]);
        assert_eq!(config.delivery.push_deadline, Duration::from_secs(10));
        assert_eq!(config.delivery.push_interval, Duration::from_secs(15));
        assert_eq!(config.metrics, MetricsMode::Fifo);
        assert_eq!(config.log_level, LevelFilter::WARN);
    }

    #[test]
    fn flags_come_before_variables() {
        let (config, warnings) = config_with(
            &[("job", "a"), ("label", "x=1,2")],
            &[
                ("JOBMON_JOB", "b"),
                ("JOBMON_GROUPING", "c=1,d=2"),
                ("JOBMON_INSTANCE", "i"),
                ("JOBMON_DRY_RUN", "Yes"),
            ],
        );
        assert_eq!(warnings, [""; 0]);
        assert_eq!(config.key, GroupingKey::new("a", [("c", "1"), ("d", "2"), ("instance", "i")]));
        assert_eq!(config.labels, Labels::from_pairs([("x", "1,2")]));
        assert!(config.delivery.dry_run);
    }

    #[test]
    fn an_instance_without_value_is_the_host() {
        let (config, _) = config_with(&[("instance", "")], &[]);
        assert_eq!(config.key.labels().get("instance"), Some("host"));
    }

    #[test]
    fn a_configured_sink_replaces_the_default() {
        assert_eq!(urls(&config_with(&[("textfile-dir", "/d")], &[]).0), [""; 0]);
        assert_eq!(urls(&config_with(&[("no-push", "true")], &[]).0), [""; 0]);
        let (config, _) = config_with(&[], &[("JOBMON_PUSH_URL", "http://a:1, https://b/p")]);
        assert_eq!(urls(&config), ["http://a:1/", "https://b/p"]);
        let (config, warnings) = config_with(&[("push-url", "nonsense")], &[]);
        assert_eq!(urls(&config), [""; 0]);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn nonsense_is_named_and_passed_over() {
        for (flags, needle) in [
            (("push-interval", "soon"), "--push-interval \"soon\" is passed over: write a duration"),
            (("push-deadline", "-1"), "--push-deadline"),
            (("ttl", "never"), "--ttl \"never\" is passed over: write a duration"),
            (("label", "x"), "write NAME=VALUE"),
            (("label", "1x=y"), "label name"),
            (("label", "le=y"), "reserved"),
            (("label", "job=y"), "part of the grouping key"),
            (("grouping", "job=x"), "use --job"),
            (("grouping", "__a=x"), "reserved"),
            (("metrics", "pipe"), "use fifo, file or off"),
            (("job", ""), "needs a name"),
            (("log-level", "loud"), "use off"),
            (
                ("push-url", "ftp://user:secret@x"),
                "--push-url \"***\" is passed over: pushes do not go to ftp:",
            ),
            (("push-url", "user:secret@host:9091"), "--push-url \"***\""),
            (("push-url", "ftp://x/?token=secret"), "--push-url \"ftp://x/\""),
            (("grouping", "kind=x"), "jobmon's own"),
            (("push-url", "localhost:9091"), "http://localhost:9091"),
            (("textfile-dir", ""), "a directory"),
        ] {
            let (_, warnings) = config_with(&[flags], &[]);
            assert_eq!(warnings.len(), 1, "{flags:?}: {warnings:?}");
            assert!(warnings[0].contains(needle), "{warnings:?}");
            assert!(!warnings[0].contains("secret"));
        }
        let (_, warnings) = config_with(&[], &[("JOBMON_NO_PUSH", "maybe")]);
        assert!(warnings[0].starts_with("JOBMON_NO_PUSH \"maybe\" is passed over"), "{warnings:?}");
    }

    #[test]
    fn lists_of_urls_may_hold_commas() {
        let (config, warnings) = config_with(&[], &[("JOBMON_PUSH_URL", "http://u:sec,ret@a:1,unix:/s")]);
        assert_eq!(
            (urls(&config), warnings.len()),
            (vec!["http://a:1/".to_owned(), "unix:/s".to_owned()], 0)
        );
    }

    #[test]
    fn what_a_supervisor_around_us_has_set_is_its_own() {
        let outer = [("JOBMON_RUN_ID", "1"), ("JOBMON_JOB", "outer"), ("JOBMON_METRICS", "/tmp/x/metrics")];
        let (config, warnings) = config_with(&[], &outer);
        assert_eq!((config.key.job(), config.metrics, warnings.len()), ("clean.up", MetricsMode::Fifo, 0));
    }

    #[test]
    fn of_two_labels_with_one_name_the_last_counts() {
        let (config, _) = config_with(&[("label", "a=1"), ("label", "a=2")], &[]);
        assert_eq!(config.labels, Labels::from_pairs([("a", "2")]));
    }

    #[test]
    fn flags_variables_and_files_in_this_order() {
        let files = [
            ("/home/me/.config/jobmon/jobmon.toml", "timeout = 4\npush-interval = 5\n"),
            ("/etc/jobmon/jobmon.toml", "timeout = 6\nretries = 3\n[job.\"clean.up\"]\nlock = true\n"),
        ];
        let environment = [("HOME", "/home/me"), ("JOBMON_TIMEOUT", "3"), ("JOBMON_OUTPUT", "discard")];
        let (config, warnings) = judge(&[], &World(&environment, &files)).expect("a good call");
        assert_eq!(warnings, [""; 0]);
        assert_eq!(config.control.timeout, Some(Duration::from_secs(3)));
        assert_eq!(config.control.output, OutputMode::Discard);
        assert_eq!(config.delivery.push_interval, Duration::from_secs(5));
        assert_eq!((config.control.retries, config.control.lock), (3, Some(LockName::Job)));
        let (config, _) = judge(&[("timeout", "0")], &World(&environment, &files)).expect("a good call");
        assert_eq!(config.control.timeout, None);

        let (_, warnings) = judge(&[("config", "/none.toml")], &World(&[], &files)).expect("a good call");
        assert_eq!(warnings, ["/none.toml is passed over: it cannot be read: entity not found"]);
        let named = [("/etc/jobmon/jobmon.toml", "retries = \"many\"\n")];
        let (config, warnings) = judge(&[], &World(&[], &named)).expect("the job runs");
        assert_eq!(config.control.retries, 0);
        assert_eq!(warnings, ["/etc/jobmon/jobmon.toml:1: retries \"many\" is passed over: write a number"]);
    }

    #[test]
    fn series_stay_as_long_as_the_gateway_has_it_unless_somebody_says_otherwise() {
        let ttl = |flags: &[(&'static str, &str)], environment: &[(&str, &str)]| {
            config_with(flags, environment).0.delivery.ttl
        };
        assert_eq!(ttl(&[], &[]), None);
        assert_eq!(ttl(&[("ttl", "36h")], &[("JOBMON_TTL", "1")]), Some(Duration::from_hours(36)));
        assert_eq!(ttl(&[], &[("JOBMON_TTL", "0")]), Some(Duration::ZERO));
        let files = [("/etc/jobmon/jobmon.toml", "ttl = 90\n")];
        let (config, _) = judge(&[], &World(&[], &files)).expect("a good call");
        assert_eq!(config.delivery.ttl, Some(Duration::from_secs(90)));
    }

    #[test]
    fn a_nonsense_flag_about_the_job_is_a_wrong_call() {
        for (name, value) in [
            ("timeout", "soon"),
            ("timeout-signal", "BANG"),
            ("kill-after", "-1"),
            ("retries", "-1"),
            ("retry-delay", "x"),
            ("lock-wait", "x"),
            ("jitter", "x"),
            ("output", "loud"),
            ("pdeathsig", "0"),
        ] {
            let wrong = judge(&[(name, value)], &World(&[], &[])).expect_err(name);
            assert!(
                wrong.starts_with(&format!("--{name} {value:?} makes no sense, nothing was run: ")),
                "{wrong}"
            );
            let variable = format!("JOBMON_{}", name.to_uppercase().replace('-', "_"));
            let (_, warnings) = config_with(&[], &[(&variable, value)]);
            assert_eq!(warnings.len(), 1, "{name}");
        }
        assert_eq!(config_with(&[("success-codes", "x")], &[]).1.len(), 1);
        assert_eq!(config_with(&[("push-username", "x")], &[]).1.len(), 1);
        assert_eq!(
            config_with(&[("push-header", "X-A secret")], &[]).1,
            ["--push-header \"***\" is passed over: write NAME: VALUE"]
        );
    }

    #[test]
    fn the_start_delay_is_a_stable_part_of_the_jitter() {
        let delay = |job| config_with(&[("jitter", "60"), ("job", job)], &[]).0.control.start_delay;
        assert_eq!(delay("a"), delay("a"));
        assert_ne!(delay("a"), delay("b"));
        assert!(delay("a") < Duration::from_mins(1));
        assert_eq!(config_with(&[], &[]).0.control.start_delay, Duration::ZERO);
    }
}
