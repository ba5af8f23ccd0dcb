//! Selectors of groups: `{job="backup", instance=~"db-.*"}`, as Prometheus writes series selectors, over the labels of
//! grouping keys (<https://prometheus.io/docs/prometheus/latest/querying/basics/>). A label that a key does not have is empty.

use regex::{Regex, RegexBuilder};

use super::GroupingKey;
use crate::exposition::Validation;

/// Bytes that a compiled regular expression may take, and what it keeps while it searches: it is compiled for whoever asks.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// Matchers of a selector.
const MATCHERS_MAX: usize = 32;

/// A selector of groups: all matchers have to match.
#[derive(Debug, Clone)]
pub struct Selector(Vec<Matcher>);

#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    test: Test,
    /// Whether what passes the test is left out.
    is_negated: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    Regex(Regex),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at {rest:?}; write a selector such as {{job=\"backup\",instance=~\"db-.*\"}}")]
pub struct SelectorError {
    problem: String,
    /// The text from where it is wrong.
    rest: String,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong with it. One without matchers is wrong, too: nobody means every group by accident.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut rest = Rest(text.trim());
        rest.skip("{", "a selector begins with {, which curl takes for itself without -g")?;
        let mut matchers = Vec::new();
        while !rest.skips("}") {
            if matchers.len() == MATCHERS_MAX {
                return Err(rest.error("there are too many matchers"));
            }
            matchers.push(rest.matcher()?);
            if !rest.skips(",") && !rest.0.starts_with('}') {
                return Err(rest.error("a comma or } is missing"));
            }
        }
        if !rest.0.is_empty() {
            return Err(rest.error("nothing follows a selector"));
        }
        if matchers.is_empty() {
            return Err(Rest(text).error("it would select every group, as {job=~\".+\"} does"));
        }
        Ok(Self(matchers))
    }

    /// How many matchers it has.
    pub fn matchers(&self) -> usize {
        self.0.len()
    }

    /// How many regular expressions it has.
    pub fn regexes(&self) -> usize {
        self.0.iter().filter(|matcher| matches!(matcher.test, Test::Regex(_))).count()
    }

    /// Whether some label has to have a value, as Prometheus wants it of every selector. Without such a matcher one selects
    /// all groups that lack some labels: perhaps because a variable was empty, or a name was misspelt.
    pub fn needs_a_value(&self) -> bool {
        self.0.iter().any(|matcher| !matcher.is_match(""))
    }

    /// Whether a group is selected.
    pub fn is_match(&self, key: &GroupingKey) -> bool {
        let value = |label: &str| key.labels().get(label).unwrap_or_default();
        self.0.iter().all(|matcher| matcher.is_match(value(&matcher.label)))
    }
}

impl Matcher {
    fn is_match(&self, value: &str) -> bool {
        let passes = match &self.test {
            Test::Equal(wanted) => wanted == value,
            Test::Regex(regex) => regex.is_match(value),
        };
        passes != self.is_negated
    }
}

/// A regular expression as Prometheus has it: it is for the whole value, and a dot is any character. It may take so many bytes
/// when it is compiled, and what it keeps while it searches as many again.
///
/// # Errors
/// What is wrong with it.
pub fn regex_of_whole(text: &str, bytes_max: usize) -> Result<Regex, String> {
    let compiled =
        |text: &str| RegexBuilder::new(text).size_limit(bytes_max).dfa_size_limit(bytes_max).build();
    // It has to be one by itself: of `a)|(b` the frame would make one that is for the beginning of a value only.
    let both = compiled(text).and_then(|_| compiled(&format!("^(?s:{text})$")));
    both.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("the regular expression takes more than {} KiB of memory", bytes_max / 1024)
        }
        // The lines before the last one draw where it is.
        error => {
            let text = error.to_string();
            let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("it is no regular expression ({what})")
        }
    })
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn error(&self, problem: impl Into<String>) -> SelectorError {
        SelectorError { problem: problem.into(), rest: self.0.chars().take(40).collect() }
    }

    /// Reads a word and blanks behind it, if it is there.
    fn skips(&mut self, word: &str) -> bool {
        let rest = self.0.strip_prefix(word);
        self.0 = rest.map_or(self.0, str::trim_start);
        rest.is_some()
    }

    fn skip(&mut self, word: &str, problem: &str) -> Result<(), SelectorError> {
        if self.skips(word) { Ok(()) } else { Err(self.error(problem)) }
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let label = if self.0.starts_with(['"', '\'', '`']) { self.string()? } else { self.name()? };
        let operators = [("=~", true, false), ("!~", true, true), ("!=", false, true), ("=", false, false)];
        let operator = operators.into_iter().find(|(word, ..)| self.skips(word));
        let (_, is_regex, is_negated) = operator.ok_or_else(|| self.error("=, !=, =~ or !~ is missing"))?;
        let before = Rest(self.0);
        let value = self.string()?;
        let test = if is_regex {
            Test::Regex(regex_of_whole(&value, REGEX_BYTES_MAX).map_err(|problem| before.error(problem))?)
        } else {
            Test::Equal(value)
        };
        Ok(Matcher { label, test, is_negated })
    }

    fn name(&mut self) -> Result<String, SelectorError> {
        let end = self.0.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        if !Validation::Legacy.is_label_name(name) {
            return Err(self.error("the name of a label is missing"));
        }
        self.0 = rest.trim_start();
        Ok(name.to_owned())
    }

    /// Reads a text in quotes; all but backticks know escapes.
    fn string(&mut self) -> Result<String, SelectorError> {
        let missing = || self.error("a text in quotes is missing");
        let quote = self.0.chars().next().filter(|c| ['"', '\'', '`'].contains(c)).ok_or_else(missing)?;
        let mut text = String::new();
        let mut chars = self.0[1..].chars();
        loop {
            match chars.next().ok_or_else(|| self.error("the quote is not closed"))? {
                c if c == quote => break,
                '\\' if quote != '`' => text.push(match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(c @ ('\\' | '"' | '\'')) => c,
                    _ => return Err(self.error("an escape that means nothing: write \\\\ for a backslash")),
                }),
                c => text.push(c),
            }
        }
        self.0 = chars.as_str().trim_start();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(text: &str, labels: &[(&str, &str)]) -> bool {
        let key = GroupingKey::new("backup", labels.iter().copied());
        Selector::parse(text).expect(text).is_match(&key)
    }

    #[test]
    fn selectors_are_those_of_prometheus() {
        let db = &[("instance", "db-1")][..];
        for (text, labels, expected) in [
            (r#"{job="backup"}"#, db, true),
            (r#"{job="back"}"#, db, false),
            (r#"{job!="back"}"#, db, true),
            (r#"{ job =~ "back.*" , instance = 'db-1' , }"#, db, true),
            (r#"{job=~"back"}"#, db, false),
            (r#"{job=~"x|backup",instance!~"web-.*"}"#, db, true),
            (r#"{job=~"backup",instance!~"db-.*"}"#, db, false),
            (r#"{job="backup",zone=""}"#, db, true),
            (r#"{job="backup",zone!=""}"#, db, false),
            (r#"{job="backup",zone=~".*"}"#, db, true),
            (r#"{zone="a\"\\\n"}"#, &[("zone", "a\"\\\n")], true),
            (r#"{zone=~".+"}"#, &[("zone", "a\nb")], true),
            (r"{zone=~`\w\.\w`}", &[("zone", "a.b")], true),
            (r#"{"ä.b"="c"}"#, &[("ä.b", "c")], true),
        ] {
            assert_eq!(selects(text, labels), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for (text, problem) in [
            ("", "a selector begins with {, which curl takes for itself without -g, at \"\""),
            ("up{job=\"x\"}", "a selector begins with {"),
            ("{ }", "it would select every group, as {job=~\".+\"} does, at \"{ }\""),
            ("{job=\"x\"", "a comma or } is missing, at \"\""),
            ("{job=\"x\"} or {a=\"b\"}", "nothing follows a selector, at \"or"),
            ("{job=\"x}", "the quote is not closed"),
            ("{job=x}", "a text in quotes is missing, at \"x}\""),
            ("{job}", "=, !=, =~ or !~ is missing"),
            ("{=\"x\"}", "the name of a label is missing"),
            ("{1=\"x\"}", "the name of a label is missing"),
            ("{job=~\"(\"}", "it is no regular expression (unclosed group), at \"\\\"(\\\"}\""),
            ("{job=~\"(a{1000}){1000}\"}", "the regular expression takes more than 256 KiB of memory"),
            ("{job=~\"x)|(?:.*\"}", "it is no regular expression (unopened group)"),
            (&format!("{{{}}}", "a=\"b\",".repeat(33)), "there are too many matchers"),
            (r#"{job="\d"}"#, "an escape that means nothing"),
        ] {
            let error = Selector::parse(text).expect_err(text).to_string();
            assert!(
                error.starts_with(problem) && error.contains("write a selector such as {job="),
                "{error}"
            );
        }
    }

    #[test]
    fn what_selects_groups_for_what_they_lack_is_known() {
        for (text, expected) in [
            (r#"{job="x"}"#, true),
            (r#"{job="x",zone=""}"#, true),
            (r#"{zone!=""}"#, true),
            (r#"{job=~".+"}"#, true),
            (r#"{zone=""}"#, false),
            (r#"{jbo!="x"}"#, false),
            (r#"{job=~".*"}"#, false),
            (r#"{zone="",jbo!~"x.*"}"#, false),
        ] {
            assert_eq!(Selector::parse(text).expect(text).needs_a_value(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[{}a\"'`=~!,\\\\(.*ä ]{0,30}") {
            let _ = Selector::parse(&text);
        }
    }
}
