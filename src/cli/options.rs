//! The options of the supervisor: one table for flags, variables and keys of the configuration file.

use super::Takes::{self, Many, Nothing, One, Optional};

/// An option of the supervisor.
#[derive(Debug)]
pub struct RunOption {
    /// The long name, without dashes.
    pub name: &'static str,
    /// What values it takes.
    pub takes: Takes,
    /// What it is about.
    pub about: About,
    /// What it does, for `--help`.
    pub help: &'static str,
}

/// What an option is about, and so what a nonsense value of it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What is recorded and where it goes: the job runs without it.
    Monitoring,
    /// How the job itself is run: given as a flag, nothing runs.
    Job,
}

impl RunOption {
    /// The option of a name, if it is one.
    pub fn named(name: &str) -> Option<&'static Self> {
        RUN_OPTIONS.iter().find(|option| option.name == name)
    }

    /// The option's name in the environment.
    pub fn variable(&self) -> String {
        format!("JOBMON_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

const fn monitoring(name: &'static str, takes: Takes, help: &'static str) -> RunOption {
    RunOption { name, takes, about: About::Monitoring, help }
}

const fn job(name: &'static str, takes: Takes, help: &'static str) -> RunOption {
    RunOption { name, takes, about: About::Job, help }
}

/// The options of the supervisor, in the order of the documentation.
#[rustfmt::skip]
pub const RUN_OPTIONS: &[RunOption] = &[
    monitoring("job", One("NAME"), "Value of the `job` label [default: file name of COMMAND without its extension]"),
    monitoring("instance", Optional("NAME"), "Adds `instance` to the grouping key; without NAME, the host name"),
    monitoring("grouping", Many("NAME=VALUE"), "Adds a label to the grouping key (repeatable)"),
    monitoring("label", Many("NAME=VALUE"), "Puts a label on every sample (repeatable)"),
    monitoring("push-url", Many("URL"), "Pushgateway-compatible server: http://, https:// or unix:/PATH (repeatable) [default: http://127.0.0.1:9091]"),
    monitoring("textfile-dir", One("DIR"), "Writes DIR/jobmon_<job>.prom for node exporter"),
    monitoring("no-push", Nothing, "No push at all"),
    monitoring("push-deadline", One("DURATION"), "Total time that delivery may take after the command has ended [default: 10s]"),
    monitoring("push-interval", One("DURATION"), "Push this often while the command runs; 0: only at start and end [default: 15s]"),
    monitoring("push-username", One("NAME"), "User for basic authentication, with --push-password-file"),
    monitoring("push-password-file", One("FILE"), "Password for basic authentication"),
    monitoring("push-bearer-token-file", One("FILE"), "Token for bearer authentication"),
    monitoring("push-header", Many("NAME: VALUE"), "Header of every push (repeatable)"),
    monitoring("push-ca-file", One("FILE"), "Certificates to trust in place of the system's, PEM"),
    monitoring("push-cert-file", One("FILE"), "Client certificate, PEM, with --push-key-file"),
    monitoring("push-key-file", One("FILE"), "Key of the client certificate, PEM"),
    monitoring("push-proxy", One("URL|none"), "Proxy for pushes [default: http_proxy, https_proxy, all_proxy, no_proxy]"),
    monitoring("spool-dir", One("DIR"), "Keeps what could not be pushed [default: /var/spool/jobmon or $XDG_STATE_HOME/jobmon/spool]"),
    monitoring("no-spool", Nothing, "Keeps nothing that could not be pushed"),
    monitoring("metrics", One("fifo|file|off"), "What $JOBMON_METRICS names, for the command to write metrics into [default: fifo]"),
    job("timeout", One("DURATION"), "Ends the command and its group after this time; 0: never [default: 0]"),
    job("timeout-signal", One("SIGNAL"), "What is sent then [default: TERM]"),
    job("kill-after", One("DURATION"), "Sends KILL if it still runs this long after that; 0: never [default: 10s]"),
    job("retries", One("N"), "Starts the command again after a failure, so many times [default: 0]"),
    job("retry-delay", One("DURATION"), "Pause before that, doubling each time [default: 1s]"),
    monitoring("success-codes", One("LIST"), "Exit codes that count as success, such as 0,3,10-19 [default: 0]"),
    job("lock", Optional("NAME"), "At most one run at a time of this NAME [default: the job], or of this lock file"),
    job("lock-wait", One("DURATION"), "How long to wait for the run that holds the lock before this one is skipped [default: 0s]"),
    job("jitter", One("DURATION"), "Delays the start by up to this time, the same for this host and job each time [default: 0s]"),
    monitoring("schedule", One("CRON"), "When the job runs, five fields as in a crontab: tells when the next run is due"),
    monitoring("every", One("DURATION"), "How often the job runs, from start to start: promises the gateway when the next run is due"),
    monitoring("grace", One("DURATION"), "How late the next run may be before it is overdue [default: 5s]"),
    monitoring("ttl", One("DURATION"), "Series leave the gateway this long after the last push; 0: never [default: the gateway's]"),
    monitoring("timezone", One("TZ"), "Time zone of --schedule, such as Europe/Berlin [default: the system's]"),
    job("output", One("inherit|on-failure|discard"), "What becomes of the command's output [default: inherit]"),
    job("subreaper", Nothing, "Takes orphans in and ends them with the command, as process 1 does anyway"),
    job("pdeathsig", One("SIGNAL"), "What the command gets if jobmon is killed [default: nothing]"),
    job("strict", Nothing, "Exit code 121 where the command succeeded but delivery failed"),
    monitoring("dry-run", Nothing, "Runs the command, sends nothing, prints what would have been delivered"),
    monitoring("config", One("FILE"), "Configuration [default: /etc/jobmon/jobmon.toml, $XDG_CONFIG_HOME/jobmon/jobmon.toml]"),
    monitoring("log-level", One("LEVEL"), "off, error, warn, info or debug [default: warn]"),
];
