//! Every flag and variable of both faces, as they are written; nothing is judged here.
//!
//! The options of the supervisor are a [table](options), because each has a twin in the environment and in the configuration
//! file: `--push-url` is `JOBMON_PUSH_URL` and `push-url = …`.

mod flags;
mod options;
mod quick;

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub use flags::{FlagTakes, GATEWAY_FLAGS, GatewayFlag};
pub use options::{About, RUN_OPTIONS, RunOption};

/// What the command line asks for.
#[derive(Debug)]
pub enum Call {
    /// Run a command under supervision.
    Run(RunCall),
    /// Be the gateway.
    Gateway(GatewayCall),
    /// Look after what could not be pushed.
    Spool(SpoolCall),
}

/// A call of the supervisor.
#[derive(Debug, PartialEq, Eq)]
pub struct RunCall {
    /// The options that were given.
    pub given: Given,
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Whether `-q` was given.
    pub quiet: bool,
}

/// A call of the gateway.
#[derive(Debug, Default)]
pub struct GatewayCall {
    /// The flags that were given, by their long names.
    pub given: BTreeMap<&'static str, Vec<String>>,
}

/// A call of `jobmon spool`.
#[derive(Debug)]
pub struct SpoolCall {
    /// What to do.
    pub verb: SpoolVerb,
    /// `--spool-dir` and `--config`, as far as they were given.
    pub given: Given,
    /// Whether a list is printed as JSON.
    pub json: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// What is done with the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolVerb {
    /// Show what is there.
    List,
    /// Deliver it.
    Flush,
    /// Throw it away.
    Drop,
}

/// Options with their values, by their long names.
pub type Given = BTreeMap<&'static str, Vec<OsString>>;

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// None: it is there or it is not.
    Nothing,
    /// One.
    One(&'static str),
    /// One after `=`, or none.
    Optional(&'static str),
    /// One each time it is given; in the environment, parted by commas.
    Many(&'static str),
}

const COMMAND: &str = "command";

/// Reads a command line; the first argument is the program's name.
///
/// # Errors
/// What is wrong with it, or the text that `--help` and `--version` ask for.
pub fn parse(args: Vec<OsString>) -> Result<Call, clap::Error> {
    let mut args = args;
    let face = args.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    if face == "gateway" {
        args.remove(1);
        let matches = flags::command().try_get_matches_from(args)?;
        return Ok(Call::Gateway(flags::call(&matches)));
    }
    if face == "spool" {
        args.remove(1);
        let matches = spool_command().try_get_matches_from(args)?;
        return Ok(Call::Spool(spool_call(&matches)));
    }
    if face == "run" {
        args.remove(1);
    }
    match quick::read(args.get(1..).unwrap_or_default()) {
        Some(call) => Ok(Call::Run(call)),
        None => parse_run(args).map(Call::Run),
    }
}

/// Reads any call of the supervisor, and says what is wrong with it.
fn parse_run(args: Vec<OsString>) -> Result<RunCall, clap::Error> {
    let matches = run_command().try_get_matches_from(args)?;
    let call = run_call(&matches);
    // Values may begin with dashes, but `--` is where the command begins, and the value has been forgotten.
    if let Some((name, _)) = call.given.iter().find(|(_, values)| values.iter().any(|value| value == "--")) {
        let message = format!("a value is required for '--{name}' but none was supplied");
        return Err(run_command().error(ErrorKind::InvalidValue, message));
    }
    Ok(call)
}

fn run_command() -> Command {
    let options = RUN_OPTIONS.iter().map(|option| {
        let arg =
            Arg::new(option.name).long(option.name).help(option.help).value_parser(value_parser!(OsString));
        match option.takes {
            Takes::Nothing => arg.action(ArgAction::SetTrue).value_parser(value_parser!(bool)),
            Takes::One(value) => arg.value_name(value).allow_hyphen_values(true),
            Takes::Optional(value) => {
                arg.value_name(value).num_args(0..=1).require_equals(true).default_missing_value("")
            }
            Takes::Many(value) => arg.value_name(value).action(ArgAction::Append).allow_hyphen_values(true),
        }
    });
    Command::new("jobmon")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs COMMAND, records how it went, and delivers that and its metrics to Prometheus")
        .override_usage("jobmon [OPTIONS] [--] COMMAND [ARG]...\n       jobmon gateway [FLAGS]\n       jobmon spool [list|flush|drop]")
        .after_help(
            "Every option has a variable: --push-url is JOBMON_PUSH_URL. The exit code is the command's own; 128+n where \
             signal n killed it, 124 timed out, 125 jobmon was called wrongly, 126 not executable, 127 not found.",
        )
        .args_override_self(true)
        .args(options)
        .arg(Arg::new("verbose").short('v').action(ArgAction::Count).help("Says more: -v info, -vv debug"))
        .arg(Arg::new("quiet").short('q').action(ArgAction::SetTrue).help("Says only what was lost"))
        .arg(
            Arg::new(COMMAND)
                .value_name("COMMAND")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .value_parser(value_parser!(OsString))
                .help("The command and its arguments; no shell is involved"),
        )
}

fn spool_command() -> Command {
    let verb = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        let value_parser = value_parser!(OsString);
        Arg::new(name).long(name).value_name(value).value_parser(value_parser).global(true).help(help)
    };
    Command::new("jobmon spool")
        .bin_name("jobmon spool")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Looks after the pushes that could not be delivered")
        .subcommand(verb("list", "Shows them, the oldest first (what happens without a word)"))
        .subcommand(verb("flush", "Delivers them; exit code 1 if one is left"))
        .subcommand(verb("drop", "Throws them away"))
        .arg(path("spool-dir", "DIR", "The spool [default: that of jobmon's runs by this user]"))
        .arg(path("config", "FILE", "Configuration file that names the spool"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).global(true).help("Lists as JSON"))
        .arg(Arg::new("verbose").short('v').action(ArgAction::Count).global(true).help("Says more"))
}

fn spool_call(matches: &ArgMatches) -> SpoolCall {
    let (verb, matches) = match matches.subcommand() {
        Some(("flush", matches)) => (SpoolVerb::Flush, matches),
        Some(("drop", matches)) => (SpoolVerb::Drop, matches),
        Some((_, matches)) => (SpoolVerb::List, matches),
        None => (SpoolVerb::List, matches),
    };
    let mut given = Given::new();
    for name in ["spool-dir", "config"] {
        given.extend(matches.get_one::<OsString>(name).map(|value| (name, vec![value.clone()])));
    }
    SpoolCall { verb, given, json: matches.get_flag("json"), verbose: matches.get_count("verbose") }
}

fn run_call(matches: &ArgMatches) -> RunCall {
    let mut given = Given::new();
    for option in RUN_OPTIONS {
        if option.takes == Takes::Nothing {
            if matches.get_flag(option.name) {
                given.insert(option.name, vec![OsString::from("true")]);
            }
        } else if let Some(values) = matches.get_many::<OsString>(option.name) {
            given.insert(option.name, values.cloned().collect());
        }
    }
    RunCall {
        given,
        command: matches.get_many::<OsString>(COMMAND).into_iter().flatten().cloned().collect(),
        verbose: matches.get_count("verbose"),
        quiet: matches.get_flag("quiet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Call, clap::Error> {
        parse(std::iter::once("jobmon").chain(words.iter().copied()).map(OsString::from).collect())
    }

    fn run(words: &[&str]) -> RunCall {
        match parse_words(words) {
            Ok(Call::Run(call)) => call,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn options_end_at_the_command() {
        for words in [
            &["--job", "x", "--", "ls", "-l", "--job", "y"][..],
            &["--job", "x", "ls", "-l", "--job", "y"],
            &["run", "--job=x", "ls", "-l", "--job", "y"],
        ] {
            let call = run(words);
            assert_eq!(call.command, ["ls", "-l", "--job", "y"]);
            assert_eq!(call.given["job"], ["x"]);
        }
        assert_eq!(run(&["--", "gateway"]).command, ["gateway"]);
        assert_eq!(run(&["--", "--", "x"]).command, ["--", "x"]);
        assert_eq!(run(&["--", "", " "]).command, ["", " "]);
        assert_eq!(run(&["-vv", "x"]).verbose, 2);
    }

    #[test]
    fn options_take_their_values() {
        let call = run(&[
            "--instance",
            "--label",
            "a=1",
            "--label=b=2",
            "--job",
            "-x",
            "--job",
            "y",
            "--no-push",
            "true",
        ]);
        assert_eq!(call.given["instance"], [""]);
        assert_eq!(call.given["label"], ["a=1", "b=2"]);
        assert_eq!(call.given["job"], ["y"]);
        assert_eq!(call.given["no-push"], ["true"]);
        assert_eq!(run(&["--instance=h", "true"]).given["instance"], ["h"]);
    }

    #[test]
    fn wrong_calls_are_refused() {
        for words in [
            &[][..],
            &["--"],
            &["--nonsense", "x"],
            &["--job"],
            &["run"],
            &["-x", "true"],
            &["--no-push=x", "y"],
            &["--job", "--", "y"],
        ] {
            assert!(parse_words(words).is_err(), "{words:?}");
        }
    }

    proptest::proptest! {
        /// What the quick reader understands, the other one understands alike.
        #[test]
        fn both_readers_agree(words in proptest::collection::vec(
            proptest::sample::select(vec![
                "--job", "--job=", "--job=x", "--instance", "--instance=i", "--label", "a=b", "--label=c=d", "--no-push",
                "--no-push=1", "--", "-v", "-q", "-vq", "-vv", "-x", "-", "ls", "--l", "--timeout", "5", "", "--lock",
                "--lock=--", "--help", "run", "--job=--", "--nonsense",
            ]),
            0..7,
        )) {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            if let Some(call) = quick::read(&args) {
                let all = std::iter::once(OsString::from("jobmon")).chain(args).collect();
                proptest::prop_assert_eq!(parse_run(all).ok(), Some(call));
            }
        }
    }

    #[test]
    fn plain_calls_are_read_quickly() {
        for words in [
            &["ls", "-l"][..],
            &["--", "-l"],
            &["--job", "x", "--label=a=b", "--lock", "--timeout=5", "--no-push", "-v", "--", "x"],
        ] {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert!(quick::read(&args).is_some(), "{words:?}");
        }
    }

    #[test]
    fn the_gateway_has_flags_of_its_own() {
        let words = [
            "gateway",
            "--web.listen-address=:1",
            "--web.listen-address",
            ":2",
            "--log.level=warn",
            "--log.level=error",
            "--web.enable-lifecycle",
            "--web.enable-admin-api",
            "--no-web.enable-admin-api",
            "--web.local-assets=/usr/share",
        ];
        let Ok(Call::Gateway(call)) = parse_words(&words) else { panic!("a gateway call") };
        assert_eq!(call.given["web.listen-address"], [":1", ":2"]);
        assert_eq!(call.given["log.level"], ["error"]);
        assert!(call.given.contains_key("web.enable-lifecycle"));
        assert!(!call.given.contains_key("web.enable-admin-api"));
        assert!(parse_words(&["gateway", "--job", "x"]).is_err());
    }

    #[test]
    fn the_spool_has_verbs() {
        for (words, verb) in [
            (&["spool"][..], SpoolVerb::List),
            (&["spool", "list", "--json"], SpoolVerb::List),
            (&["spool", "--spool-dir", "/s", "flush"], SpoolVerb::Flush),
            (&["spool", "drop", "--spool-dir=/s"], SpoolVerb::Drop),
        ] {
            match parse_words(words) {
                Ok(Call::Spool(call)) => {
                    assert_eq!(call.verb, verb);
                    let named = words.iter().any(|word| word.starts_with("--spool-dir"));
                    assert_eq!(call.given.get("spool-dir").is_some_and(|dirs| dirs[0] == "/s"), named);
                }
                other => panic!("{words:?}: {other:?}"),
            }
        }
        assert!(parse_words(&["spool", "burn"]).is_err());
    }

    #[test]
    fn options_have_variables() {
        assert_eq!(RUN_OPTIONS[4].variable(), "JOBMON_PUSH_URL");
        run_command().debug_assert();
        flags::command().debug_assert();
        spool_command().debug_assert();
    }
}
