//! A plain call of the supervisor, read without building the parser that knows help, suggestions and mistakes: that would be
//! a third of all that happens before the command is started.
//!
//! What is not plain, right or wrong, is left to that parser; a test holds the two together.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::{Given, RunCall, RunOption, Takes};

/// Reads the arguments behind the program's name. `None` for what is not plain.
pub(super) fn read(args: &[OsString]) -> Option<RunCall> {
    let (mut given, mut verbose, mut quiet) = (Given::new(), 0, false);
    let mut rest = args.iter();
    let command = loop {
        let word = rest.next()?;
        match word.as_bytes() {
            b"--" => break rest.next()?,
            b"-v" => verbose += 1,
            b"-q" => quiet = true,
            [b'-', b'-', ..] => {
                let (option, value) = split(word)?;
                let value = match (option.takes, value) {
                    (Takes::Nothing, None) => "true".into(),
                    (Takes::Optional(_), value) => value.unwrap_or_default().to_owned(),
                    (Takes::One(_) | Takes::Many(_), Some(value)) => value.to_owned(),
                    (Takes::One(_) | Takes::Many(_), None) => rest.next()?.clone(),
                    (Takes::Nothing, Some(_)) => return None,
                };
                if value == "--" {
                    return None;
                }
                let values: &mut Vec<OsString> = given.entry(option.name).or_default();
                if !matches!(option.takes, Takes::Many(_)) {
                    values.clear();
                }
                values.push(value);
            }
            [b'-', ..] => return None,
            _ => break word,
        }
    };
    let command = std::iter::once(command).chain(rest).cloned().collect();
    Some(RunCall { given, command, verbose, quiet })
}

/// The option that a word names, and the value behind its `=`.
fn split(word: &OsStr) -> Option<(&'static RunOption, Option<&OsStr>)> {
    let bytes = word.as_bytes().strip_prefix(b"--")?;
    let (name, value) = match bytes.iter().position(|b| *b == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    Some((RunOption::named(std::str::from_utf8(name).ok()?)?, value))
}
