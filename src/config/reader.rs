//! Each option's value: the flag, else the variable, else the file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::file::Settings;
use super::values::{boolean, split_urls};
use super::{BadCall, Surroundings, Warning};
use crate::cli::{About, Given, RunOption, Takes};

/// Options whose values may hold secrets.
pub(super) const PUSH_URL: &str = "push-url";
const SECRET: [&str; 3] = [PUSH_URL, "push-header", "push-proxy"];
const VARIABLE_PREFIX: &str = "JOBMON_";
/// Where configuration is looked for if nobody says otherwise: the machine's ...
const SYSTEM_FILE: &str = "/etc/jobmon/jobmon.toml";
/// ... and the user's, below `$XDG_CONFIG_HOME` or `$HOME/.config` (XDG Base Directory Specification).
const USER_FILE: &str = "jobmon/jobmon.toml";

pub(super) struct Reader<'a> {
    given: Given,
    surroundings: &'a dyn Surroundings,
    /// Our variables, most often none; an empty one is none.
    variables: Vec<(String, OsString)>,
    /// The one that counts first is first.
    files: Vec<Settings>,
    pub(super) warnings: Vec<Warning>,
    pub(super) wrong: Option<BadCall>,
}

/// Where a value comes from.
struct Source {
    name: String,
    is_flag: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(given: Given, surroundings: &'a dyn Surroundings) -> Self {
        let mut variables = surroundings.variables(VARIABLE_PREFIX);
        variables.retain(|(_, value)| !value.is_empty());
        Self { given, surroundings, variables, files: Vec::new(), warnings: Vec::new(), wrong: None }
    }

    /// Reads the configuration files for a job.
    pub(super) fn read_files(&mut self, job: &str) {
        let named = self.path("config");
        let is_named = named.is_some();
        let absolute = |name: &str| {
            let value = self.surroundings.variable(name).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        let files = match named {
            Some(path) => vec![path],
            None => user.map(|dir| dir.join(USER_FILE)).into_iter().chain([SYSTEM_FILE.into()]).collect(),
        };
        for path in files {
            match self.surroundings.read(&path) {
                Ok(text) => self.files.push(Settings::read(&path, &text, job, &mut self.warnings)),
                Err(error) if is_named || !is_no_file(&path, &error) => self.cannot_read(&path, &error),
                Err(_) => {}
            }
        }
    }

    fn cannot_read(&mut self, path: &Path, error: &std::io::Error) {
        let option = path.display().to_string();
        self.warnings.push(Warning { option, value: None, problem: format!("it cannot be read: {error}") });
    }

    fn values(&self, name: &str) -> (Source, Vec<OsString>) {
        if let Some(values) = self.given.get(name) {
            return (Source { name: format!("--{name}"), is_flag: true }, values.clone());
        }
        let option = RunOption::named(name).expect("only options of the table are read");
        let variable = option.variable();
        let value = self.surroundings.variable(&variable).filter(|value| !value.is_empty());
        if let Some(value) = value.filter(|_| !self.is_outer(name)) {
            let values = split(option, value);
            return (Source { name: variable, is_flag: false }, values);
        }
        match self.files.iter().find_map(|file| file.get(name)) {
            Some(setting) => (Source { name: setting.place.clone(), is_flag: false }, setting.values.clone()),
            None => (Source { name: variable, is_flag: false }, Vec::new()),
        }
    }

    /// Whether a variable was set for this command by a supervisor around us, about itself.
    fn is_outer(&self, name: &str) -> bool {
        ["job", "metrics"].contains(&name) && self.variables.iter().any(|(name, _)| name == "JOBMON_RUN_ID")
    }

    /// How far from the command line a value stands, if there is one: the nearest counts first.
    pub(super) fn distance(&self, name: &str) -> Option<usize> {
        let (source, values) = self.values(name);
        let is_in = |file: &Settings| file.get(name).is_some_and(|setting| setting.place == source.name);
        let file = self.files.iter().position(is_in).map(|file| file + 2);
        (!values.is_empty()).then(|| if source.is_flag { 0 } else { file.unwrap_or(1) })
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        !self.values(name).1.is_empty()
    }

    /// Tells of a value that is nonsense: the call is wrong where a flag says how to run the job, else it is passed over.
    fn pass_over(&mut self, name: &str, source: &Source, value: &OsStr, problem: String) {
        let value = if SECRET.contains(&name) {
            without_secrets(name, value)
        } else {
            value.to_string_lossy().into_owned()
        };
        let about = RunOption::named(name).map(|option| option.about);
        let warning = Warning { option: source.name.clone(), value: Some(value), problem };
        if source.is_flag && about == Some(About::Job) {
            self.wrong.get_or_insert(BadCall(warning));
        } else {
            self.warnings.push(warning);
        }
    }

    /// Tells of options that do not go together.
    pub(super) fn warn(&mut self, option: &str, problem: &str) {
        let option = format!("--{option}");
        self.warnings.push(Warning { option, value: None, problem: problem.to_owned() });
    }

    pub(super) fn many<T>(&mut self, name: &str, judge: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let (source, values) = self.values(name);
        let mut judged = Vec::with_capacity(values.len());
        for value in values {
            // Labels and job names are UTF-8; what is not becomes the replacement character.
            match judge(&value.to_string_lossy()) {
                Ok(value) => judged.push(value),
                Err(problem) => self.pass_over(name, &source, &value, problem),
            }
        }
        judged
    }

    pub(super) fn one<T>(&mut self, name: &str, judge: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.many(name, judge).pop()
    }

    /// A value that is never nonsense.
    pub(super) fn any<T>(&mut self, name: &str, read: impl Fn(&str) -> T) -> Option<T> {
        self.one(name, |text| Ok(read(text)))
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.one(name, boolean).unwrap_or(false)
    }

    /// A path, which need not be UTF-8.
    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        let (source, mut values) = self.values(name);
        let value = values.pop()?;
        if value.is_empty() {
            let problem =
                if name.ends_with("-dir") { "a directory must be named" } else { "a file must be named" };
            self.pass_over(name, &source, &value, problem.to_owned());
            return None;
        }
        Some(value.into())
    }
}

/// Whether it is as if there were no file: also where `$HOME` is that of somebody else, as it often is behind sudo(8).
fn is_no_file(path: &Path, error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    [NotFound, NotADirectory].contains(&error.kind())
        || (error.kind() == PermissionDenied && path != Path::new(SYSTEM_FILE))
}

/// The values in a variable.
fn split(option: &RunOption, value: OsString) -> Vec<OsString> {
    match (option.takes, value.to_str()) {
        (Takes::Many(_), Some(list)) if option.name == PUSH_URL => {
            split_urls(list).into_iter().map(OsString::from).collect()
        }
        (Takes::Many(_), Some(list)) => list.split(',').map(str::trim).map(OsString::from).collect(),
        // As those that are nothing but switches.
        (Takes::Optional(_), Some(text)) if let Ok(is_on) = boolean(text) => {
            is_on.then(OsString::new).into_iter().collect()
        }
        _ => vec![value],
    }
}

/// What of a value may be shown although it is nonsense: of a URL nothing if there may be a password in it, else all but its
/// query; of a header its name.
fn without_secrets(name: &str, value: &OsStr) -> String {
    let text = value.to_string_lossy();
    if name == "push-header" {
        return text.split_once(':').map_or_else(|| "***".to_owned(), |(name, _)| format!("{name}: ***"));
    }
    if text.contains('@') {
        return "***".to_owned();
    }
    text.split('?').next().unwrap_or_default().to_owned()
}
