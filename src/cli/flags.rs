//! The flags of the gateway: the Pushgateway's, and those that limit what a stranger can cost.
//!
//! The syntax is kingpin's: `--flag=value`, `--flag value`, and `--no-flag` for what is on or off.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::GatewayCall;

/// A flag of the gateway.
#[derive(Debug)]
pub struct GatewayFlag {
    /// The long name, without dashes.
    pub name: &'static str,
    /// What values it takes.
    pub takes: FlagTakes,
    /// What it does, for `--help`.
    pub help: &'static str,
}

/// What values a flag of the gateway takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagTakes {
    /// None: it is on, or off as it is without it.
    OnOff,
    /// One; with the name of the value and what it is without it.
    One(&'static str, &'static str),
    /// One each time it is given.
    Many(&'static str, &'static str),
}
use FlagTakes::{Many, OnOff, One};

impl GatewayFlag {
    /// What the flag means where it is not given.
    pub fn default_value(&self) -> &'static str {
        match self.takes {
            OnOff => "false",
            One(_, default) | Many(_, default) => default,
        }
    }
}

const fn flag(name: &'static str, takes: FlagTakes, help: &'static str) -> GatewayFlag {
    GatewayFlag { name, takes, help }
}

/// The flags of the gateway, in the order of the documentation.
#[rustfmt::skip]
pub const GATEWAY_FLAGS: &[GatewayFlag] = &[
    flag("web.listen-address", Many("ADDRESS", ":9091"), "Address to listen on: :9091, [::1]:9091, vsock://:9091, unix:/PATH (repeatable)"),
    flag("web.systemd-socket", OnOff, "Listens on the sockets that systemd hands over instead"),
    flag("web.config.file", One("FILE", ""), "File that sets up TLS, passwords, tokens, headers and a rate limit"),
    flag("web.telemetry-path", One("PATH", "/metrics"), "Path of the exposition"),
    flag("web.external-url", One("URL", ""), "URL under which the gateway is reached from outside"),
    flag("web.route-prefix", One("PATH", ""), "Prefix of all paths [default: the path of --web.external-url]"),
    flag("web.enable-lifecycle", OnOff, "Lets PUT /-/quit end the gateway"),
    flag("web.enable-admin-api", OnOff, "Lets PUT /api/v1/admin/wipe delete everything"),
    flag("web.enable-openmetrics", OnOff, "Offers OpenMetrics to those who ask for it; it renames counters"),
    flag("storage.path", One("DIR", ""), "Directory in which every push is on disk before it is answered; without it metrics are kept in memory only"),
    flag("storage.repair", OnOff, "Starts although something in the directory is damaged, and leaves out what cannot be read"),
    flag("persistence.file", One("FILE", ""), "The same as --storage.path=FILE.d; a file that a Pushgateway has left there is imported at first"),
    flag("persistence.interval", One("DURATION", "5m"), "Accepted; every push is on disk before it is answered"),
    flag("push.disable-consistency-check", OnOff, "Takes pushes that contradict others, answers 202, and keeps what cannot be exposed aside"),
    flag("push.enable-utf8-names", OnOff, "Allows every UTF-8 name for metrics and labels"),
    flag("push.default-ttl", One("DURATION", "0"), "Series of a group whose pushes ask for no ttl go this long after its last push; 0: never"),
    flag("push.max-ttl", One("DURATION", "0"), "No group's series stay longer than this after its last push, whatever is asked for; 0: no limit"),
    flag("push.tombstone-retention", One("DURATION", "7d"), "How long push times and liveness of a group stay after its series have gone"),
    flag("push.rules-file", One("FILE", ""), "File with ttl, expect and limits for groups, by their labels"),
    flag("liveness.metric-name", One("NAME", "push_up"), "Name of the metric that tells whether a group's pushes come as they have promised (?expect=25h)"),
    flag("limit.body-size", One("SIZE", "16MiB"), "Bytes of a pushed body"),
    flag("limit.inflated-body-size", One("SIZE", "32MiB"), "Bytes of a compressed body when it is inflated"),
    flag("limit.push-series", One("N", "100000"), "Series of one push"),
    flag("limit.push-label-size", One("SIZE", "32MiB"), "Bytes of the group's labels, once for each series of a push"),
    flag("limit.series-labels", One("N", "1024"), "Labels of one series"),
    flag("limit.name-length", One("SIZE", "128KiB"), "Bytes of a metric's or label's name"),
    flag("limit.label-value-length", One("SIZE", "1MiB"), "Bytes of a label's value"),
    flag("limit.groups", One("N", "1000000"), "Groups"),
    flag("limit.failed-groups", One("N", "1000"), "Groups that are known for nothing but a refused push"),
    flag("limit.header-size", One("SIZE", "64KiB"), "Bytes of a request's line and headers"),
    flag("limit.requests", One("N", "1000"), "Requests that are served at a time; those that read and those that change are counted apart"),
    flag("limit.requests-size", One("SIZE", "256MiB"), "Bytes of pushed bodies and of unread answers that are held at a time"),
    flag("limit.connections", One("N", "16384"), "Connections at a time; more wait to be accepted"),
    flag("limit.body-time", One("DURATION", "1m"), "Time in which a body has to arrive"),
    flag("limit.idle-time", One("DURATION", "2m"), "Time in which headers have to arrive, and an answer has to be read on"),
    flag("log.level", One("LEVEL", "info"), "Messages of this level and above are shown: debug, info, warn, error"),
    flag("log.format", One("FORMAT", "logfmt"), "How messages look: logfmt, json"),
];

/// Flags of Debian's package that mean nothing here.
const IGNORED: [&str; 1] = ["web.local-assets"];

pub(super) fn command() -> Command {
    let command = Command::new("jobmon gateway")
        .bin_name("jobmon gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Takes pushed metrics and serves them to Prometheus, in place of a Pushgateway")
        .args_override_self(true);
    let ignored = IGNORED.map(|name| Arg::new(name).long(name).num_args(1).hide(true));
    GATEWAY_FLAGS.iter().fold(command, add).args(ignored)
}

fn add(command: Command, flag: &'static GatewayFlag) -> Command {
    let help = match flag.default_value() {
        "" | "false" => flag.help.to_owned(),
        default => format!("{} [default: {default}]", flag.help),
    };
    let arg = Arg::new(flag.name).long(flag.name).help(help);
    match flag.takes {
        One(value, _) => command.arg(arg.value_name(value).allow_hyphen_values(true)),
        Many(value, _) => {
            command.arg(arg.value_name(value).allow_hyphen_values(true).action(ArgAction::Append))
        }
        OnOff => {
            // The last of the two counts.
            let opposite: &'static str = Box::leak(format!("no-{}", flag.name).into_boxed_str());
            let no = Arg::new(opposite).long(opposite).action(ArgAction::SetTrue).hide(true);
            command
                .arg(arg.action(ArgAction::SetTrue).overrides_with(opposite))
                .arg(no.overrides_with(flag.name))
        }
    }
}

pub(super) fn call(matches: &ArgMatches) -> GatewayCall {
    let values = |flag: &GatewayFlag| match flag.takes {
        OnOff => matches.get_flag(flag.name).then(|| vec!["true".to_owned()]),
        One(..) | Many(..) => matches.get_many::<String>(flag.name).map(|values| values.cloned().collect()),
    };
    let given = GATEWAY_FLAGS.iter().filter_map(|flag| Some((flag.name, values(flag)?)));
    GatewayCall { given: given.collect() }
}
