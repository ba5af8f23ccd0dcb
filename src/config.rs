//! Flags and environment made into a configuration: checked, with defaults, before anything is opened.
//!
//! A nonsense value of a monitoring option never keeps a job from running: it becomes a [`Warning`], and the job runs
//! without it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::cli::{GatewayCall, Given, RUN_OPTIONS, RunCall, Takes};
use crate::deliver::Target;
use crate::exposition::labels::{Labels, RESERVED_PREFIX, Validation};
use crate::grouping::{GroupingKey, JOB_LABEL};

const PUSH_URL: &str = "push-url";
/// Where pushes go if nobody says otherwise.
const DEFAULT_PUSH_URL: &str = "http://127.0.0.1:9091";
const DEFAULT_PUSH_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_PUSH_INTERVAL: Duration = Duration::from_secs(15);
/// Pushing more often would be a burden for everybody.
const PUSH_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longer times than this (a century) mean the same as this.
const DURATION_MAX: Duration = Duration::from_hours(100 * 366 * 24);

/// How a command is to be run.
#[derive(Debug)]
pub struct RunConfig {
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// The group that is pushed.
    pub key: GroupingKey,
    /// Labels for every sample.
    pub labels: Labels,
    /// Where pushes go.
    pub targets: Vec<Target>,
    /// Where the textfile goes.
    pub textfile_dir: Option<PathBuf>,
    /// Total time of the final delivery.
    pub push_deadline: Duration,
    /// Time between pushes while the command runs; zero means only at start and end.
    pub push_interval: Duration,
    /// How the command hands its metrics over.
    pub metrics: MetricsMode,
    /// Whether to print instead of delivering.
    pub dry_run: bool,
    /// What is said on stderr.
    pub log_level: LevelFilter,
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

/// How the gateway is to run.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Host (empty: all addresses) and port, as they were given.
    pub listen: Vec<(String, u16)>,
    /// What is said on stderr.
    pub log_level: LevelFilter,
}

/// A value that was passed over.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning {
    /// The flag or variable.
    pub option: String,
    /// Its value.
    pub value: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is passed over: {}", self.option, self.value, self.problem)
    }
}

/// Why a gateway cannot be configured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--web.listen-address {0:?}: {1}")]
pub struct BadAddress(String, &'static str);

/// Makes the configuration of a run. `environment` looks variables up, `host_name` is asked for only if it is needed.
/// Nothing here fails: what is nonsense is told in the warnings.
pub fn run_config(
    call: RunCall,
    environment: impl Fn(&str) -> Option<OsString>,
    host_name: impl FnOnce() -> Option<String>,
) -> (RunConfig, Vec<Warning>) {
    let mut reader = Reader { given: call.given, environment: &environment, warnings: Vec::new() };
    let job = reader.one("job", job_name).unwrap_or_else(|| default_job(&call.command[0]));
    let mut grouping = reader.many("grouping", |text| label(text).and_then(not_ours));
    if let Some(instance) = reader.one("instance", |name| Ok(name.to_owned())) {
        let name = if instance.is_empty() { host_name() } else { Some(instance) };
        grouping.extend(name.map(|name| ("instance".to_owned(), name)));
    }
    let key = GroupingKey::new(&job, grouping);
    let labels: BTreeMap<String, String> = reader
        .many("label", |text| {
            let (name, value) = label(text)?;
            let free = key.labels().get(&name).is_none();
            free.then_some((name, value)).ok_or_else(|| "the label is part of the grouping key".to_owned())
        })
        .into_iter()
        .collect();
    let textfile_dir = reader.path("textfile-dir");
    let targets = reader.targets(textfile_dir.is_some());
    let config = RunConfig {
        key,
        labels: Labels::from_pairs(labels),
        targets,
        textfile_dir,
        push_deadline: reader.one("push-deadline", duration).unwrap_or(DEFAULT_PUSH_DEADLINE),
        push_interval: reader.one("push-interval", interval).unwrap_or(DEFAULT_PUSH_INTERVAL),
        metrics: reader.one("metrics", metrics_mode).unwrap_or(MetricsMode::Fifo),
        dry_run: reader.flag("dry-run"),
        log_level: reader.log_level(call.quiet, call.verbose),
        command: call.command,
    };
    (config, reader.warnings)
}

/// Makes the configuration of a gateway.
///
/// # Errors
/// An address that is none.
pub fn gateway_config(call: &GatewayCall) -> Result<GatewayConfig, BadAddress> {
    let listen = call.listen.iter().map(|address| listen_address(address)).collect::<Result<_, _>>()?;
    let log_level = call.log_level.parse().unwrap_or(LevelFilter::INFO);
    Ok(GatewayConfig { listen, log_level })
}

fn listen_address(address: &str) -> Result<(String, u16), BadAddress> {
    let bad = |problem| BadAddress(address.to_owned(), problem);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("a port is missing, as in `:9091`"))?;
    let port = port.parse().map_err(|_| bad("the port must be a number up to 65535"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), port))
}

/// Finds each option's value: the flag, else the variable.
struct Reader<'a, E> {
    given: Given,
    environment: &'a E,
    warnings: Vec<Warning>,
}

impl<E: Fn(&str) -> Option<OsString>> Reader<'_, E> {
    /// The values of an option and where they come from.
    fn values(&self, name: &str) -> (String, Vec<OsString>) {
        if let Some(values) = self.given.get(name) {
            return (format!("--{name}"), values.clone());
        }
        let option = RUN_OPTIONS
            .iter()
            .find(|option| option.name == name)
            .expect("only options of the table are read");
        let variable = option.variable();
        let Some(value) =
            (self.environment)(&variable).filter(|value| !value.is_empty() && !self.is_outer(name))
        else {
            return (variable, Vec::new());
        };
        let values = match (option.takes, value.to_str()) {
            (Takes::Many(_), Some(list)) if name == PUSH_URL => {
                split_urls(list).into_iter().map(OsString::from).collect()
            }
            (Takes::Many(_), Some(list)) => list.split(',').map(str::trim).map(OsString::from).collect(),
            _ => vec![value],
        };
        (variable, values)
    }

    /// Whether a variable was set for this command by a supervisor around us, about itself.
    fn is_outer(&self, name: &str) -> bool {
        ["job", "metrics"].contains(&name) && (self.environment)("JOBMON_RUN_ID").is_some()
    }

    fn warn(&mut self, option: &str, value: &OsStr, problem: impl Into<String>) {
        let value = value.to_string_lossy().into_owned();
        self.warnings.push(Warning { option: option.to_owned(), value, problem: problem.into() });
    }

    fn many<T>(&mut self, name: &str, judge: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let (source, values) = self.values(name);
        let mut judged = Vec::with_capacity(values.len());
        for value in values {
            // Labels and job names are UTF-8; what is not becomes the replacement character.
            match judge(&value.to_string_lossy()) {
                Ok(value) => judged.push(value),
                Err(problem) if name == PUSH_URL => {
                    self.warn(&source, OsStr::new(&without_secrets(&value)), problem);
                }
                Err(problem) => self.warn(&source, &value, problem),
            }
        }
        judged
    }

    fn one<T>(&mut self, name: &str, judge: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.many(name, judge).pop()
    }

    fn flag(&mut self, name: &str) -> bool {
        self.one(name, boolean).unwrap_or(false)
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        let (source, mut values) = self.values(name);
        let value = values.pop()?;
        if value.is_empty() {
            self.warn(&source, &value, "a directory must be named");
            return None;
        }
        Some(value.into())
    }

    /// A sink that was configured, even badly, replaces the default.
    fn targets(&mut self, other_sink: bool) -> Vec<Target> {
        let configured = !self.values(PUSH_URL).1.is_empty();
        let targets = self.many(PUSH_URL, |url| Target::parse(url).map_err(|error| error.to_string()));
        if self.flag("no-push") {
            Vec::new()
        } else if configured || other_sink {
            targets
        } else {
            vec![Target::parse(DEFAULT_PUSH_URL).expect("the default is a good URL")]
        }
    }

    fn log_level(&mut self, quiet: bool, verbose: u8) -> LevelFilter {
        let configured = self.one("log-level", |text| {
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
}

/// What of a URL may be shown although it is none: nothing if there may be a password in it, else all but its query.
fn without_secrets(value: &OsStr) -> String {
    let text = value.to_string_lossy();
    if text.contains('@') {
        return "***".to_owned();
    }
    text.split('?').next().unwrap_or_default().to_owned()
}

/// Parts a list of URLs, which may have commas themselves, where a new one begins.
fn split_urls(list: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in list.split(',') {
        let begins = ["http:", "https:", "unix:"].iter().any(|scheme| piece.trim_start().starts_with(scheme));
        match urls.last_mut().filter(|_| !begins) {
            Some(url) => *url = format!("{url},{piece}"),
            None => urls.push(piece.trim().to_owned()),
        }
    }
    urls
}

fn job_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a job needs a name".to_owned()) } else { Ok(text.to_owned()) }
}

/// The command's file name without its extension.
fn default_job(command: &OsStr) -> String {
    let stem = Path::new(command).file_stem().unwrap_or(command).to_string_lossy().into_owned();
    if stem.is_empty() { "unknown".to_owned() } else { stem }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if !Validation::Legacy.is_label_name(name) {
        return Err("a label name has letters, digits and _ and does not begin with a digit".to_owned());
    }
    if name.starts_with(RESERVED_PREFIX) || name == "le" || name == "quantile" {
        return Err(format!("the label name {name} is reserved"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn not_ours(label: (String, String)) -> Result<(String, String), String> {
    match label.0.as_str() {
        JOB_LABEL => Err("use --job for the job".to_owned()),
        // It tells the two series of jobmon_context_switches apart.
        "kind" => Err("the label kind is jobmon's own in a grouping key".to_owned()),
        _ => Ok(label),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let bare = text.parse::<f64>().ok().map(Duration::try_from_secs_f64);
    let parsed = match bare {
        Some(Ok(duration)) => Some(duration),
        // Too many seconds for a Duration, or less than none.
        Some(Err(_)) => text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0).map(|_| DURATION_MAX),
        None => humantime::parse_duration(text).ok(),
    };
    let parsed = parsed.ok_or("write a duration such as 90s, 1m30s, 250ms, or a number of seconds")?;
    Ok(parsed.min(DURATION_MAX))
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    Ok(if interval.is_zero() { interval } else { interval.max(PUSH_INTERVAL_MIN) })
}

fn metrics_mode(text: &str) -> Result<MetricsMode, String> {
    match text {
        "fifo" => Ok(MetricsMode::Fifo),
        "file" => Ok(MetricsMode::File),
        "off" => Ok(MetricsMode::Off),
        _ => Err("use fifo, file or off".to_owned()),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("use 1, true, yes or on, or 0, false, no or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_with(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> (RunConfig, Vec<String>) {
        let mut given = Given::new();
        for (name, value) in flags {
            given.entry(name).or_default().push(OsString::from(value));
        }
        let call = RunCall { given, command: vec!["/usr/bin/clean.up.sh".into()], verbose: 0, quiet: false };
        let environment =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        let (config, warnings) = run_config(call, environment, || Some("host".to_owned()));
        (config, warnings.iter().map(ToString::to_string).collect())
    }

    fn urls(config: &RunConfig) -> Vec<String> {
        config.targets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let (config, warnings) = config_with(&[], &[]);
        assert_eq!(warnings, [""; 0]);
        assert_eq!(config.key, GroupingKey::new("clean.up", [("", ""); 0]));
        assert_eq!(urls(&config), ["http://127.0.0.1:9091/"]);
        assert_eq!(config.push_deadline, Duration::from_secs(10));
        assert_eq!(config.push_interval, Duration::from_secs(15));
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
        assert!(config.dry_run);
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
    fn durations_are_read() {
        for (text, millis) in
            [("90s", 90_000), ("1m30s", 90_000), ("250ms", 250), ("7", 7_000), ("1.5", 1_500), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("1e300"), Ok(DURATION_MAX));
        assert_eq!(duration("18446744073709551615"), Ok(DURATION_MAX));
        for text in ["", "x", "-1", "nan", "5 parsecs", "-inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listen_addresses_are_gos() {
        assert_eq!(listen_address(":9091"), Ok((String::new(), 9091)));
        assert_eq!(listen_address("127.0.0.1:0"), Ok(("127.0.0.1".to_owned(), 0)));
        assert_eq!(listen_address("[::1]:80"), Ok(("::1".to_owned(), 80)));
        assert!(listen_address("9091").is_err());
        assert!(listen_address(":99999").is_err());
    }
}
