//! What the text of an option means, or why it means nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

use super::{LockName, MetricsMode, OutputMode, SuccessCodes};
use crate::exposition::labels::{RESERVED_PREFIX, Validation};
use crate::grouping::JOB_LABEL;

/// Longer times than this (a century) mean the same as this.
pub(super) const DURATION_MAX: Duration = Duration::from_hours(100 * 366 * 24);
/// Pushing more often would be a burden for everybody.
const PUSH_INTERVAL_MIN: Duration = Duration::from_millis(100);

type Judged<T> = Result<T, String>;

pub(super) fn text(text: &str) -> String {
    text.to_owned()
}

pub(super) fn job_name(text: &str) -> Judged<String> {
    if text.is_empty() { Err("a job needs a name".to_owned()) } else { Ok(text.to_owned()) }
}

/// The command's file name without its extension.
pub(super) fn default_job(command: &OsStr) -> String {
    let stem = Path::new(command).file_stem().unwrap_or(command).to_string_lossy().into_owned();
    if stem.is_empty() { "unknown".to_owned() } else { stem }
}

pub(super) fn label(text: &str) -> Judged<(String, String)> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if !Validation::Legacy.is_label_name(name) {
        return Err("a label name has letters, digits and _ and does not begin with a digit".to_owned());
    }
    if name.starts_with(RESERVED_PREFIX) || name == "le" || name == "quantile" {
        return Err(format!("the label name {name} is reserved"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A label of the grouping key.
pub(super) fn grouping_label(text: &str) -> Judged<(String, String)> {
    let label = label(text)?;
    match label.0.as_str() {
        JOB_LABEL => Err("use --job for the job".to_owned()),
        // It tells the two series of jobmon_context_switches apart.
        "kind" => Err("the label kind is jobmon's own in a grouping key".to_owned()),
        _ => Ok(label),
    }
}

/// Reads a duration: `90s`, `1m30s`, `250ms`, or a number of seconds.
///
/// # Errors
/// How to write one.
pub fn duration(text: &str) -> Judged<Duration> {
    let bare = text.parse::<f64>().ok().map(Duration::try_from_secs_f64);
    let parsed = match bare {
        Some(Ok(duration)) => Some(duration),
        // Too many seconds for a Duration, or less than none.
        Some(Err(_)) => {
            let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0);
            seconds.map(|_| DURATION_MAX)
        }
        // Its `M` is a month, which nobody means.
        None => humantime::parse_duration(text).ok().filter(|_| !text.contains('M')),
    };
    let parsed = parsed.ok_or("write a duration such as 90s, 1m30s, 250ms, or a number of seconds")?;
    // What is not nothing does not become nothing, which often stands for ever.
    let is_nothing = parsed.is_zero() && !text.parse::<f64>().is_ok_and(|seconds| seconds > 0.0);
    Ok(if is_nothing { parsed } else { parsed.clamp(Duration::from_nanos(1), DURATION_MAX) })
}

/// For a key of a YAML file that is a fault with nothing behind it: something was meant to be there, as where a template's
/// variable is empty.
///
/// # Errors
/// Where there is nothing, or no text.
pub fn not_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let nothing =
        || D::Error::custom("nothing stands behind it; write what it is to be, or leave the key out");
    Option::deserialize(value)?.ok_or_else(nothing).map(Some)
}

/// A duration where 0 means that there is none.
pub(super) fn duration_or_none(text: &str) -> Judged<Option<Duration>> {
    duration(text).map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
}

pub(super) fn interval(text: &str) -> Judged<Duration> {
    let interval = duration(text)?;
    Ok(if interval.is_zero() { interval } else { interval.max(PUSH_INTERVAL_MIN) })
}

/// `TERM`, `SIGTERM`, `15`; `RTMIN+3` and the like.
pub(super) fn signal(text: &str) -> Judged<i32> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |from: &str, base: i32| {
        let rest = name.strip_prefix(from)?;
        if rest.is_empty() { Some(base) } else { rest.parse::<i32>().ok().map(|offset| base + offset) }
    };
    let number = Signal::from_str(&format!("SIG{name}"))
        .ok()
        .map(|signal| signal as i32)
        .or_else(|| name.parse().ok())
        .or_else(|| real_time("RTMIN", libc::SIGRTMIN()))
        .or_else(|| real_time("RTMAX", libc::SIGRTMAX()));
    number
        .filter(|number| (1..=libc::SIGRTMAX()).contains(number))
        .ok_or_else(|| "write a signal such as TERM or 15".to_owned())
}

pub(super) fn count(text: &str) -> Judged<u32> {
    text.parse().map_err(|_| "write a number".to_owned())
}

/// `0,3,10-19`
pub(super) fn success_codes(text: &str) -> Judged<SuccessCodes> {
    let problem = || "write exit codes from 0 to 255 such as 0,3,10-19".to_owned();
    let ranges = text.split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = (first.trim().parse::<u8>().ok()?, last.trim().parse::<u8>().ok()?);
        (range.0 <= range.1).then_some(range.0..=range.1)
    });
    ranges.collect::<Option<Vec<_>>>().map(SuccessCodes).ok_or_else(problem)
}

/// An absolute path is a lock file; anything else is a name, and nothing at all the job's own.
pub(super) fn lock(text: &str) -> LockName {
    match text {
        "" => LockName::Job,
        path if path.starts_with('/') => LockName::File(path.into()),
        name => LockName::Named(name.to_owned()),
    }
}

pub(super) fn metrics_mode(text: &str) -> Judged<MetricsMode> {
    match text {
        "fifo" => Ok(MetricsMode::Fifo),
        "file" => Ok(MetricsMode::File),
        "off" => Ok(MetricsMode::Off),
        _ => Err("use fifo, file or off".to_owned()),
    }
}

pub(super) fn output_mode(text: &str) -> Judged<OutputMode> {
    match text {
        "inherit" => Ok(OutputMode::Inherit),
        "on-failure" => Ok(OutputMode::OnFailure),
        "discard" => Ok(OutputMode::Discard),
        _ => Err("use inherit, on-failure or discard".to_owned()),
    }
}

/// `Name: value`, as HTTP has it (RFC 9110, section 5.1).
pub(super) fn header(text: &str) -> Judged<(String, String)> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) || value.chars().any(char::is_control) {
        return Err("write NAME: VALUE as HTTP has it".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

pub(super) fn boolean(text: &str) -> Judged<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("use 1, true, yes or on, or 0, false, no or off".to_owned()),
    }
}

/// Parts a list of URLs, which may have commas themselves, where a new one begins.
pub(super) fn split_urls(list: &str) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in
            [("90s", 90_000), ("1m30s", 90_000), ("250ms", 250), ("7", 7_000), ("1.5", 1_500), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("1e300"), Ok(DURATION_MAX));
        assert_eq!(duration("18446744073709551615"), Ok(DURATION_MAX));
        assert_eq!(duration("1e-10"), Ok(Duration::from_nanos(1)));
        assert_eq!(duration("-0"), Ok(Duration::ZERO));
        for text in ["", "x", "-1", "nan", "5 parsecs", "-inf", "5M", "1h5M"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration_or_none("0"), Ok(None));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigint", 2), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+2", 36), ("RTMAX-1", 63)]
        {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "TERMINATE", "RTMIN+99", "RTMIN-x"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn success_codes_are_a_list_of_ranges() {
        let codes = success_codes("0, 3,10-12").expect("a list");
        let good: Vec<u8> = (0..=255).filter(|code| codes.contains(*code)).collect();
        assert_eq!(good, [0, 3, 10, 11, 12]);
        for text in ["", "x", "256", "5-3", "0,,1", "-1"] {
            assert!(success_codes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_are_https() {
        assert_eq!(header("X-A: b: c"), Ok(("X-A".to_owned(), "b: c".to_owned())));
        for text in ["", "x", ": y", "a b: c", "a: b\nc"] {
            assert!(header(text).is_err(), "{text}");
        }
    }
}
