//! The configuration file: keys are the long options, `[job.NAME]` tables override them for one job.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Warning;
use crate::cli::{RUN_OPTIONS, RunOption, Takes};

/// The table of tables for single jobs.
const JOBS: &str = "job";
/// Options that make no sense in a file.
const FLAGS_ONLY: [&str; 2] = ["job", "config"];
/// The ways to say when a job runs.
const TIMETABLES: [&str; 2] = ["schedule", "every"];
/// How alike a wrong key must be to a right one to be taken for a slip (Jaro-Winkler).
const ALIKE_MIN: f64 = 0.8;

/// What a file says about a job.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

/// The value of a key.
#[derive(Debug)]
pub(super) struct Setting {
    /// File, line and key.
    pub(super) place: String,
    pub(super) values: Vec<OsString>,
}

impl Settings {
    /// Reads a file for a job. What makes no sense is told and passed over, the rest counts.
    pub(super) fn read(path: &Path, text: &str, job: &str, warnings: &mut Vec<Warning>) -> Self {
        let mut reader = FileReader { path, text, warnings, bad_lines: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            reader.bad_lines.push(reader.line(at));
            let problem = error.message().lines().next().unwrap_or_default().to_owned();
            reader.warn(at, "", format!("{problem}; the file is TOML, see https://toml.io"));
        }
        let mut settings = Self::default();
        for (key, value) in table.get_ref() {
            if key.get_ref() != JOBS {
                reader.setting(&mut settings, key, value);
            }
        }
        let of_job = reader.job(&table, job);
        // Who says when this job runs in one way means it, whatever is said for all in the other one.
        if TIMETABLES.iter().any(|name| of_job.get(name).is_some()) {
            settings.0.retain(|name, _| !TIMETABLES.contains(name));
        }
        settings.0.extend(of_job.0);
        settings
    }

    pub(super) fn get(&self, name: &str) -> Option<&Setting> {
        self.0.get(name)
    }
}

struct FileReader<'a> {
    path: &'a Path,
    text: &'a str,
    warnings: &'a mut Vec<Warning>,
    /// Lines that make no sense: what was made of them counts for nothing.
    bad_lines: Vec<usize>,
}

impl FileReader<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    fn place(&self, at: usize, key: &str) -> String {
        let line = self.line(at);
        format!("{}:{line}{}{key}", self.path.display(), if key.is_empty() { "" } else { ": " })
    }

    fn warn(&mut self, at: usize, key: &str, problem: impl Into<String>) {
        let option = self.place(at, key);
        self.warnings.push(Warning { option, value: None, problem: problem.into() });
    }

    /// The table of one job. Those of the others are read too, so that a slip is told before its job runs at night.
    fn job(&mut self, table: &Spanned<DeTable<'_>>, job: &str) -> Settings {
        let mut found = Settings::default();
        let Some((key, jobs)) = table.get_ref().iter().find(|(key, _)| key.get_ref() == JOBS) else {
            return found;
        };
        let Some(jobs) = jobs.get_ref().as_table() else {
            self.warn(key.span().start, JOBS, "settings of one job are a table, [job.NAME]");
            return found;
        };
        for (name, settings) in jobs {
            let mut of_this = Settings::default();
            match settings.get_ref().as_table() {
                Some(settings) => {
                    settings.iter().for_each(|(key, value)| self.setting(&mut of_this, key, value));
                }
                None => self.warn(
                    name.span().start,
                    name.get_ref(),
                    "settings of one job are a table, [job.NAME]",
                ),
            }
            if name.get_ref() == job {
                found = of_this;
            }
        }
        found
    }

    fn setting(
        &mut self,
        settings: &mut Settings,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        if self.bad_lines.contains(&self.line(at)) {
            return;
        }
        let Some(option) = RunOption::named(name).filter(|option| !FLAGS_ONLY.contains(&option.name)) else {
            return self.warn(at, name, unknown(name));
        };
        match values(option.takes, value.get_ref()) {
            Ok(values) => {
                settings.0.insert(option.name, Setting { place: self.place(at, name), values });
            }
            Err(problem) => self.warn(at, name, problem),
        }
    }
}

fn unknown(name: &str) -> String {
    let known = RUN_OPTIONS.iter().map(|option| option.name).filter(|name| !FLAGS_ONLY.contains(name));
    let alike = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match alike {
        Some((_, known)) => format!("there is no such key, did you mean {known}?"),
        None => "there is no such key; keys are the long options, see jobmon --help".to_owned(),
    }
}

/// The value as a flag would have it; none where the file switches something off that another part of it switches on.
fn values(takes: Takes, value: &DeValue<'_>) -> Result<Vec<OsString>, String> {
    match (takes, value) {
        (Takes::Optional(_), DeValue::Boolean(given)) => Ok(given.then(OsString::new).into_iter().collect()),
        (Takes::Many(_), DeValue::Array(values)) => {
            values.iter().map(|value| scalar(value.get_ref())).collect::<Result<_, _>>()
        }
        (Takes::Many("NAME=VALUE"), DeValue::Table(pairs)) => pairs
            .iter()
            .map(|(name, value)| {
                let mut pair = OsString::from(format!("{}=", name.get_ref()));
                pair.push(scalar(value.get_ref())?);
                Ok(pair)
            })
            .collect::<Result<_, _>>(),
        (_, value) => scalar(value).map(|value| vec![value]),
    }
}

fn scalar(value: &DeValue<'_>) -> Result<OsString, String> {
    match value {
        DeValue::String(text) => Ok(text.as_ref().into()),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix());
            value.map(|value| value.to_string().into()).map_err(|_| "the number is too large".to_owned())
        }
        DeValue::Float(number) => Ok(number.as_str().replace('_', "").into()),
        DeValue::Boolean(yes) => Ok(yes.to_string().into()),
        other => Err(format!("it cannot be {}", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, job: &str) -> (Settings, Vec<String>) {
        let mut warnings = Vec::new();
        let settings = Settings::read(Path::new("/j.toml"), text, job, &mut warnings);
        (settings, warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_jobs_table_comes_before_the_rest() {
        let text = "timeout = 5\nlock = true\nno-push = false\nlabel = {a = \"1\"}\npush-url = [\"http://a\", \"http://b\"]\n\
                    [job.x]\ntimeout = \"1h\"\n[job.\"y.z\"]\ninstance = false\n";
        let (settings, warnings) = read(text, "x");
        assert_eq!(warnings, [""; 0]);
        let values =
            |name: &str| settings.get(name).map(|setting| setting.values.clone()).unwrap_or_default();
        assert_eq!(values("timeout"), ["1h"]);
        assert_eq!(values("lock"), [""]);
        assert_eq!(values("no-push"), ["false"]);
        assert_eq!(values("label"), ["a=1"]);
        assert_eq!(values("push-url"), ["http://a", "http://b"]);
        assert_eq!(settings.get("timeout").map(|setting| setting.place.as_str()), Some("/j.toml:7: timeout"));
        assert_eq!(read(text, "y.z").0.get("timeout").map(|s| s.values.clone()), Some(vec!["5".into()]));
    }

    #[test]
    fn slips_are_named_with_their_line() {
        let (settings, warnings) = read(
            "\npush-ulr = \"x\"\nretries = 2\nzzz = 1\n[job.other]\ntimeot = 3\nlabel = 1979-05-27\n",
            "x",
        );
        assert_eq!(
            warnings,
            [
                "/j.toml:2: push-ulr is passed over: there is no such key, did you mean push-url?",
                "/j.toml:4: zzz is passed over: there is no such key; keys are the long options, see jobmon --help",
                "/j.toml:7: label is passed over: it cannot be datetime",
                "/j.toml:6: timeot is passed over: there is no such key, did you mean timeout?",
            ]
        );
        assert!(settings.get("retries").is_some());
        for text in ["job = 1", "[job]\nx = 1", "config = \"y\"", "=", "a = [", "\0", "[[job]]"] {
            assert_eq!(read(text, "x").1.len().min(1), 1, "{text}");
        }
        let (settings, warnings) = read("timeout = \"1s\nretries = 3\n", "x");
        assert!(warnings[0].starts_with("/j.toml:1 is passed over: "), "{warnings:?}");
        assert!(settings.get("retries").is_some());
    }
}
