//! The configuration of a gateway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use tracing::level_filters::LevelFilter;

use super::values;
use crate::cli::{FlagTakes, GATEWAY_FLAGS, GatewayCall};
use crate::exposition::Validation;

/// How the gateway is to run.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Where connections come from.
    pub listen: Listen,
    /// File that sets up TLS, passwords, tokens, headers and a rate limit.
    pub web_config: Option<PathBuf>,
    /// Under which paths what is served.
    pub paths: Paths,
    /// Whether a request may end the gateway.
    pub lifecycle: bool,
    /// Whether a request may delete everything.
    pub admin: bool,
    /// Whether OpenMetrics is offered.
    pub open_metrics: bool,
    /// What becomes of pushes that contradict others.
    pub consistency: Consistency,
    /// Which names are taken.
    pub names: Validation,
    /// Where what is pushed is kept, if not in memory only.
    pub storage: Option<StorageConfig>,
    /// What is promised for groups.
    pub promises: PromisesConfig,
    /// What a stranger can cost at most.
    pub limits: Limits,
    /// What is said on stderr.
    pub log_level: LevelFilter,
    /// How it looks.
    pub log_format: LogFormat,
    /// Every flag with its value, as `/api/v1/status` shows them.
    pub flags: BTreeMap<&'static str, String>,
}

/// How messages on stderr look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`.
    Logfmt,
    /// An object a line.
    Json,
}

/// Where connections come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Addresses to listen on, at least one.
    Addresses(Vec<Address>),
    /// Sockets that systemd hands over (`sd_listen_fds(3)`).
    Systemd,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host (empty: all addresses) and port.
    Tcp(String, u16),
    /// Port of a virtual machine's socket (vsock(7)).
    Vsock(u32),
    /// A path in the file system.
    Unix(PathBuf),
}

/// Under which paths what is served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// Before every path; without a slash at its end.
    pub prefix: String,
    /// Path of the exposition behind the prefix.
    pub telemetry: String,
    /// Path of the external URL, where one was given: what links begin with.
    pub external: Option<String>,
}

/// What becomes of pushes that contradict others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// They are refused.
    Checked,
    /// They are taken; what cannot be exposed beside the rest is kept aside.
    Quarantined,
}

/// What a stranger can cost at most. Each field is named like its flag.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Limits {
    pub body_bytes: usize,
    pub inflated_body_bytes: usize,
    pub push_series: usize,
    pub push_label_bytes: usize,
    pub series_labels: usize,
    pub name_bytes: usize,
    pub label_value_bytes: usize,
    pub groups: usize,
    pub failed_groups: usize,
    pub header_bytes: usize,
    pub requests: usize,
    pub requests_bytes: usize,
    pub connections: usize,
    pub body_time: Duration,
    pub idle_time: Duration,
}

/// Why a gateway cannot be configured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {value:?}: {problem}")]
pub struct BadFlag {
    flag: &'static str,
    value: String,
    problem: String,
}

/// Makes the configuration of a gateway.
///
/// # Errors
/// A flag whose value means nothing: a gateway that is not what it was meant to be must not start.
pub fn gateway_config(call: &GatewayCall) -> Result<GatewayConfig, BadFlag> {
    let flags = Flags(call);
    let listen = if flags.is_on("web.systemd-socket") {
        Listen::Systemd
    } else {
        Listen::Addresses(flags.all("web.listen-address", address)?)
    };
    let paths = paths(&flags)?;
    let path = |name| Some(flags.text(name)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let on = |name| flags.is_on(name);
    let persistence_interval = flags.one("persistence.interval", values::duration)?;
    let mut shown: BTreeMap<_, _> =
        GATEWAY_FLAGS.iter().map(|flag| (flag.name, flags.values(flag.name).join(","))).collect();
    shown.insert("persistence.interval", go_duration(persistence_interval));
    shown.insert("web.route-prefix", paths.prefix.clone());
    Ok(GatewayConfig {
        listen,
        web_config: path("web.config.file"),
        paths,
        lifecycle: on("web.enable-lifecycle"),
        admin: on("web.enable-admin-api"),
        open_metrics: on("web.enable-openmetrics"),
        consistency: if on("push.disable-consistency-check") {
            Consistency::Quarantined
        } else {
            Consistency::Checked
        },
        names: if on("push.enable-utf8-names") { Validation::Utf8 } else { Validation::Legacy },
        storage: storage(path("storage.path"), path("persistence.file"), on("storage.repair"))?,
        promises: promises(&flags)?,
        limits: limits(&flags)?,
        log_level: flags.one("log.level", log_level)?,
        log_format: flags.one("log.format", log_format)?,
        flags: shown,
    })
}

/// Where what is pushed is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// The directory.
    pub path: PathBuf,
    /// Whether what is damaged in it is left out.
    pub repair: bool,
    /// A Pushgateway's file, to begin with.
    pub import: Option<PathBuf>,
}

fn storage(
    path: Option<PathBuf>,
    persistence_file: Option<PathBuf>,
    repair: bool,
) -> Result<Option<StorageConfig>, BadFlag> {
    let beside = persistence_file.clone().map(|file| {
        let mut path = file.into_os_string();
        path.push(".d");
        PathBuf::from(path)
    });
    let path = match (path, beside) {
        (Some(path), Some(_)) => {
            let value = path.display().to_string();
            let problem = "--persistence.file names a directory, too: give one of them".to_owned();
            return Err(BadFlag { flag: "storage.path", value, problem });
        }
        (path, beside) => path.or(beside),
    };
    if repair && path.is_none() {
        let problem = "it needs --storage.path".to_owned();
        return Err(BadFlag { flag: "storage.repair", value: "true".to_owned(), problem });
    }
    Ok(path.map(|path| StorageConfig { path, repair, import: persistence_file }))
}

/// What is promised for groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromisesConfig {
    /// How long after the last push series go where no push asks for it.
    pub default_ttl: Option<Duration>,
    /// How long they stay at most.
    pub ttl_max: Option<Duration>,
    /// How long push times stay after that.
    pub retention: Duration,
    /// File with what holds for some groups.
    pub rules_file: Option<PathBuf>,
    /// What the metric is called that tells whether pushes come.
    pub liveness_name: String,
}

fn promises(flags: &Flags<'_>) -> Result<PromisesConfig, BadFlag> {
    let ttl_max = flags.one("push.max-ttl", values::duration_or_none)?;
    let default_ttl = flags.one("push.default-ttl", |text| match values::duration_or_none(text)? {
        Some(ttl) if ttl_max.is_some_and(|max| ttl > max) => Err("it is more than --push.max-ttl".to_owned()),
        ttl => Ok(ttl),
    })?;
    Ok(PromisesConfig {
        default_ttl,
        ttl_max,
        retention: flags.one("push.tombstone-retention", values::duration)?,
        rules_file: Some(flags.text("push.rules-file")).filter(|path| !path.is_empty()).map(PathBuf::from),
        liveness_name: flags.one("liveness.metric-name", liveness_name)?,
    })
}

/// A name that nothing else has that the gateway exposes.
fn liveness_name(text: &str) -> Result<String, String> {
    let is_taken =
        ["push_", "pushgateway_", "jobmon_", "process_"].iter().any(|prefix| text.starts_with(prefix));
    match text {
        "push_up" => Ok(text.to_owned()),
        _ if is_taken => Err("that is a name of the gateway's own; write another one".to_owned()),
        _ if Validation::Legacy.is_metric_name(text) => Ok(text.to_owned()),
        _ => Err("write a name of a metric, such as push_up".to_owned()),
    }
}

fn limits(flags: &Flags<'_>) -> Result<Limits, BadFlag> {
    let body_bytes = flags.one("limit.body-size", size)?;
    let requests_bytes = flags.one("limit.requests-size", |text| match size(text)? {
        bytes if bytes < body_bytes => Err("it is less than --limit.body-size".to_owned()),
        bytes => Ok(bytes),
    })?;
    Ok(Limits {
        body_bytes,
        inflated_body_bytes: flags.one("limit.inflated-body-size", size)?,
        push_series: flags.one("limit.push-series", count)?,
        push_label_bytes: flags.one("limit.push-label-size", size)?,
        series_labels: flags.one("limit.series-labels", count)?,
        name_bytes: flags.one("limit.name-length", size)?,
        label_value_bytes: flags.one("limit.label-value-length", size)?,
        groups: flags.one("limit.groups", count)?,
        failed_groups: flags.one("limit.failed-groups", count)?,
        header_bytes: flags.one("limit.header-size", header_size)?,
        requests: flags.one("limit.requests", count)?,
        requests_bytes,
        connections: flags.one("limit.connections", count)?,
        body_time: flags.one("limit.body-time", values::duration)?,
        idle_time: flags.one("limit.idle-time", values::duration)?,
    })
}

/// The flags of a call, with what they mean where they were not given.
struct Flags<'a>(&'a GatewayCall);

impl Flags<'_> {
    fn values(&self, name: &'static str) -> Vec<String> {
        let flag = GATEWAY_FLAGS.iter().find(|flag| flag.name == name).expect("it is in the table");
        let given = self.0.given.get(name).cloned();
        let mut values = given.unwrap_or_else(|| vec![flag.default_value().to_owned()]);
        // Of one that is given twice the last counts.
        if !matches!(flag.takes, FlagTakes::Many(..)) {
            values.drain(..values.len() - 1);
        }
        values
    }

    fn text(&self, name: &'static str) -> String {
        self.values(name).concat()
    }

    fn is_on(&self, name: &'static str) -> bool {
        self.text(name) == "true"
    }

    fn all<T>(
        &self,
        name: &'static str,
        judge: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, BadFlag> {
        let judge = |value: String| judge(&value).map_err(|problem| BadFlag { flag: name, value, problem });
        self.values(name).into_iter().map(judge).collect()
    }

    fn one<T>(&self, name: &'static str, judge: impl Fn(&str) -> Result<T, String>) -> Result<T, BadFlag> {
        Ok(self.all(name, judge)?.swap_remove(0))
    }
}

fn address(text: &str) -> Result<Address, String> {
    if let Some(rest) = text.strip_prefix("vsock://") {
        let port = rest.rsplit(':').next().and_then(|port| port.parse().ok());
        return port.map(Address::Vsock).ok_or_else(|| "a port is missing, as in vsock://:9091".to_owned());
    }
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') {
            Ok(Address::Unix(path.into()))
        } else {
            Err("write unix: and an absolute path".to_owned())
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or("a port is missing, as in :9091")?;
    let port = port.parse().map_err(|_| "the port must be a number up to 65535")?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(Address::Tcp(host.to_owned(), port))
}

/// The Pushgateway's rules: the prefix is that of the external URL if none is given, and `/` is none.
fn paths(flags: &Flags<'_>) -> Result<Paths, BadFlag> {
    let external = flags.one("web.external-url", external_path)?;
    let telemetry = flags.one("web.telemetry-path", |path| match path {
        "" => Err("a path is needed".to_owned()),
        path => Ok(prefix(path)),
    })?;
    let given = flags.text("web.route-prefix");
    let prefix = if given.is_empty() { external.clone().unwrap_or_default() } else { prefix(&given) };
    Ok(Paths { prefix, telemetry, external })
}

/// With a slash before it and none behind; `/` is nothing.
fn prefix(path: &str) -> String {
    match path.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

fn external_path(url: &str) -> Result<Option<String>, String> {
    if url.is_empty() {
        return Ok(None);
    }
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("{error}"))?;
    Ok(Some(prefix(parsed.path())))
}

fn size(text: &str) -> Result<usize, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "write a size such as 16MiB, 500kB, or a number of bytes")?;
    usize::try_from(size.as_u64()).map_err(|_| "that is more than this machine can count".to_owned())
}

/// Smaller buffers are none to a server.
fn header_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        size if size < 8192 => Err("write at least 8KiB".to_owned()),
        size => Ok(size),
    }
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "write a number from 1 on".to_owned())
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "debug" | "info" | "warn" | "error" => Ok(text.parse().expect("it is one of tracing's")),
        _ => Err("write debug, info, warn or error".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "logfmt" => Ok(LogFormat::Logfmt),
        "json" => Ok(LogFormat::Json),
        _ => Err("write logfmt or json".to_owned()),
    }
}

/// A duration as Go writes it: `5m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{point}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{point}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{point}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(given: &[(&'static str, &str)]) -> Result<GatewayConfig, String> {
        let given = given.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect();
        gateway_config(&GatewayCall { given }).map_err(|error| error.to_string())
    }

    #[test]
    fn listen_addresses_are_gos() {
        for (text, expected) in [
            (":9091", Address::Tcp(String::new(), 9091)),
            ("127.0.0.1:0", Address::Tcp("127.0.0.1".to_owned(), 0)),
            ("[::1]:80", Address::Tcp("::1".to_owned(), 80)),
            ("vsock://:9091", Address::Vsock(9091)),
            ("unix:/run/jobmon.sock", Address::Unix("/run/jobmon.sock".into())),
            ("unix:///run/jobmon.sock", Address::Unix("/run/jobmon.sock".into())),
        ] {
            assert_eq!(address(text), Ok(expected), "{text}");
        }
        for text in ["9091", ":99999", "vsock://", "unix:x"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes_follow_the_external_url() {
        let paths = |given: &[(&'static str, &str)]| {
            let paths = config(given).expect("good flags").paths;
            (paths.prefix, paths.telemetry, paths.external)
        };
        let text = str::to_owned;
        let url = ("web.external-url", "http://h:1/ext/");
        assert_eq!(paths(&[]), (text(""), text("/metrics"), None));
        assert_eq!(paths(&[url]), (text("/ext"), text("/metrics"), Some(text("/ext"))));
        assert_eq!(
            paths(&[url, ("web.route-prefix", "/")]),
            (text(""), text("/metrics"), Some(text("/ext")))
        );
        assert_eq!(paths(&[("web.route-prefix", "p/"), ("web.telemetry-path", "t")]).0, "/p");
    }

    #[test]
    fn nonsense_is_named() {
        for (flag, value) in [
            ("limit.body-size", "x"),
            ("limit.header-size", "1"),
            ("limit.requests-size", "1MiB"),
            ("limit.groups", "0"),
            ("log.level", "loud"),
            ("log.format", "xml"),
            ("persistence.interval", "x"),
            ("push.default-ttl", "soon"),
            ("push.max-ttl", "-1"),
            ("push.tombstone-retention", ""),
            ("liveness.metric-name", "1up"),
            ("liveness.metric-name", "push_time_seconds"),
            ("web.external-url", "%zz"),
        ] {
            let error = config(&[(flag, value)]).expect_err(flag);
            assert!(error.starts_with(&format!("--{flag} {value:?}: ")), "{error}");
        }
    }

    #[test]
    fn flags_are_shown_with_what_they_mean() {
        let config = config(&[("web.enable-lifecycle", "true")]).expect("good flags");
        for (flag, value) in [
            ("persistence.interval", "5m0s"),
            ("web.enable-lifecycle", "true"),
            ("web.enable-admin-api", "false"),
            ("web.listen-address", ":9091"),
        ] {
            assert_eq!(config.flags[flag], value, "{flag}");
        }
        assert_eq!(go_duration(Duration::from_millis(3_600_500)), "1h0m0.5s");
    }
}
