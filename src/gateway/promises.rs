//! What a push asks for in its query string, and what the rules of `--push.rules-file` say of its group.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use serde_saphyr::UserMessageFormatter;

use super::error::Failure;
use crate::config::{PromisesConfig, duration, not_null};
use crate::exposition::Validation;
use crate::exposition::labels::RESERVED_PREFIX;
use crate::grouping::{GroupingKey, JOB_LABEL, Selector};
use crate::run::RunOutcome;
use crate::store::{RUNS_MAX, Run, RunId, Wish, Wishes};

/// Labels that one push of many groups may tell them apart by: each is looked for in each metric.
const GROUP_BY_MAX: usize = 32;

/// What a push asks for, beside being stored. Parameters that nobody knows mean nothing, as to a Pushgateway.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    ttl: Option<Duration>,
    expect: Option<Duration>,
    /// The id of the run that it tells of.
    pub(super) run_id: Option<RunId>,
    /// How long ago it ended, by the clock of whoever pushes; nothing where it has just ended.
    pub(super) run_age: Duration,
    /// How that run ended, where its metrics do not tell.
    pub(super) run_outcome: Option<RunOutcome>,
    /// Runs whose own pushes have never arrived.
    pub(super) earlier_runs: Vec<Run>,
    /// The labels whose values name the groups.
    pub(super) group_by: Vec<String>,
}

impl Asked {
    /// Reads a query string.
    ///
    /// # Errors
    /// A parameter that means nothing, or is given twice.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Failure> {
        let mut asked = Self::default();
        let mut seen = Vec::new();
        for (name, value) in query.into_iter().flat_map(|query| form_urlencoded::parse(query.as_bytes())) {
            let bad = |problem: &str| Failure::BadParameter {
                name: name.clone().into_owned(),
                value: value.chars().take(80).collect(),
                problem: problem.to_owned(),
            };
            let is_known =
                ["ttl", "expect", "run_id", "run_age", "run_outcome", "group_by"].contains(&&*name);
            if is_known && seen.contains(&name) {
                return Err(bad("it is given twice"));
            }
            match &*name {
                "ttl" => asked.ttl = Some(duration(&value).map_err(|problem| bad(&problem))?),
                "expect" => asked.expect = Some(duration(&value).map_err(|problem| bad(&problem))?),
                "run_id" => {
                    let id = RunId::parse(&value).ok_or_else(|| bad("write up to 32 hexadecimal digits"))?;
                    asked.run_id = Some(id);
                }
                "run_age" => asked.run_age = duration(&value).map_err(|problem| bad(&problem))?,
                "run_outcome" => {
                    let outcome = RunOutcome::named(&value);
                    let names = || RunOutcome::ALL.map(RunOutcome::name).join(", ");
                    asked.run_outcome =
                        Some(outcome.ok_or_else(|| bad(&format!("write one of {}", names())))?);
                }
                "earlier_run" if asked.earlier_runs.len() == RUNS_MAX => {
                    return Err(bad("there are too many of them"));
                }
                "earlier_run" => {
                    let form =
                        "write ID,END,DURATION,EXIT,OUTCOME with seconds, and an outcome such as success";
                    asked.earlier_runs.push(Run::parse(&value).ok_or_else(|| bad(form))?);
                }
                "group_by" => {
                    asked.group_by = value.split(',').map(str::to_owned).collect();
                    let (names, mut unique) = (asked.group_by.len(), asked.group_by.clone());
                    unique.sort();
                    unique.dedup();
                    if names > GROUP_BY_MAX {
                        return Err(bad(&format!("there are more than {GROUP_BY_MAX} labels")));
                    }
                    let is_complete = unique.iter().any(|name| name == JOB_LABEL);
                    if unique.len() < names || !is_complete || !unique.iter().all(|name| is_label(name)) {
                        return Err(bad(
                            "write names of labels, each once, and job among them: job,instance",
                        ));
                    }
                }
                _ => {}
            }
            seen.push(name);
        }
        Ok(asked)
    }

    /// # Errors
    /// Where a deletion is only to be tried, and this one is none that can be: it would be made.
    pub(super) fn no_trial(query: Option<&str>) -> Result<(), Failure> {
        if !Self::has(query, "dry_run") {
            return Ok(());
        }
        let problem = "this deletes at once; DELETE /api/v1/groups with match[] knows dry_run".to_owned();
        Err(Failure::BadParameter { name: "dry_run".to_owned(), value: String::new(), problem })
    }

    /// Whether a query string has a parameter.
    pub(super) fn has(query: Option<&str>, wanted: &str) -> bool {
        let mut pairs = query.into_iter().flat_map(|query| form_urlencoded::parse(query.as_bytes()));
        pairs.any(|(name, _)| name == wanted)
    }
}

/// Whether groups may be told apart by a label. Names that a server may refuse are for it to judge.
fn is_label(name: &str) -> bool {
    Validation::Utf8.is_label_name(name) && !name.starts_with(RESERVED_PREFIX)
}

/// A rules file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct RulesError {
    path: PathBuf,
    problem: String,
}

/// What holds for groups, whatever their pushes ask for.
#[derive(Debug, Default)]
pub(super) struct PushRules {
    rules: Vec<PushRule>,
    default_ttl: Option<Duration>,
    ttl_max: Option<Duration>,
}

/// What holds for some groups.
#[derive(Debug)]
pub(super) struct PushRule {
    groups: Selector,
    /// Nothing at all where the rule does not say; 0 where it says that there is none.
    ttl: Option<Duration>,
    expect: Option<Duration>,
    /// Series of one push.
    pub(super) series_max: Option<usize>,
    /// Bytes of a body, as it comes.
    pub(super) body_bytes_max: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    rules: Vec<RuleEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    r#match: String,
    #[serde(default, deserialize_with = "not_null")]
    ttl: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    expect: Option<String>,
    #[serde(default)]
    limits: LimitsEntry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsEntry {
    #[serde(default)]
    series: Option<usize>,
    #[serde(default)]
    body_size: Option<String>,
}

impl PushRules {
    /// Reads the rules file, if there is one.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn load(config: &PromisesConfig) -> Result<Self, RulesError> {
        let rules = config.rules_file.as_deref().map_or(Ok(Vec::new()), |path: &Path| {
            let wrong = |problem: String| RulesError { path: path.to_owned(), problem };
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            parse(&text).map_err(wrong)
        })?;
        Ok(Self { rules, default_ttl: config.default_ttl, ttl_max: config.ttl_max })
    }

    /// The first rule whose selector matches.
    pub(super) fn of(&self, key: &GroupingKey) -> Option<&PushRule> {
        self.rules.iter().find(|rule| rule.groups.is_match(key))
    }

    /// What a push promises: what it asks for, else what its group's rule says; series never stay longer than is allowed.
    pub(super) fn wishes(&self, rule: Option<&PushRule>, asked: &Asked) -> Wishes {
        let some = |length: Option<Duration>| length.filter(|length| !length.is_zero());
        let default_ttl = rule.and_then(|rule| rule.ttl).or(self.default_ttl);
        Wishes {
            ttl: Wish::ttl(asked.ttl, some(default_ttl)).at_most(self.ttl_max),
            expect: Wish::expect(asked.expect, some(rule.and_then(|rule| rule.expect))),
        }
    }
}

fn parse(text: &str) -> Result<Vec<PushRule>, String> {
    let wrong = |error: serde_saphyr::Error| {
        let problem = error.without_snippet().render_with_formatter(&UserMessageFormatter);
        format!(
            "{problem}; write a list of rules, each with its selector in quotes, such as \
             rules: [{{match: '{{job=\"backup\"}}', ttl: 36h, expect: 25h, limits: {{series: 1000, body_size: 1MiB}}}}]"
        )
    };
    let file: RulesFile = serde_saphyr::from_str(text).map_err(wrong)?;
    let rule = |(number, entry): (usize, RuleEntry)| {
        let groups = entry.r#match.clone();
        rule(entry).map_err(|problem| format!("rule {number}, {groups}: {problem}"))
    };
    (1..).zip(file.rules).map(rule).collect()
}

fn rule(entry: RuleEntry) -> Result<PushRule, String> {
    let length = |name: &str, text: Option<String>| {
        text.map(|text| duration(&text).map_err(|problem| format!("{name} {text:?}: {problem}"))).transpose()
    };
    let size = |text: String| {
        let parsed = text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
        parsed.ok_or_else(|| format!("body_size {text:?}: write a size such as 1MiB"))
    };
    Ok(PushRule {
        groups: Selector::parse(&entry.r#match).map_err(|error| error.to_string())?,
        ttl: length("ttl", entry.ttl)?,
        expect: length("expect", entry.expect)?,
        series_max: entry.limits.series,
        body_bytes_max: entry.limits.body_size.map(size).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn queries_are_read() {
        let asked = Asked::of(Some(
            "ttl=36h&expect=1m30s&x=y&run_id=ab&run_outcome=oom&earlier_run=1,2,3,0,success&ttl2",
        ));
        let asked = asked.expect("a good query");
        assert_eq!((asked.ttl, asked.expect), (Some(seconds(36 * 3600)), Some(seconds(90))));
        assert_eq!((asked.run_id, asked.earlier_runs.len()), (RunId::parse("ab"), 1));
        assert_eq!(asked.run_outcome, Some(RunOutcome::Oom));
        assert_eq!(Asked::of(None).expect("nothing"), Asked::default());
        assert_eq!(Asked::of(Some("expect=0")).expect("withdrawn").expect, Some(Duration::ZERO));
        let asked = Asked::of(Some("group_by=job%2Cinstance")).expect("a good query");
        assert_eq!(asked.group_by, ["job", "instance"]);
        assert!(
            Asked::has(Some("a=1&group_by=x"), "group_by") && !Asked::has(Some("a=group_by"), "group_by")
        );
    }

    #[test]
    fn nonsense_in_a_query_is_named() {
        let many = (0..=RUNS_MAX).map(|id| format!("earlier_run={id:x},1,1,0,success&")).collect::<String>();
        for (query, text) in [
            ("ttl=soon", "the parameter ttl=\"soon\": write a duration such as 90s, 1m30s, 250ms"),
            ("ttl=", "the parameter ttl=\"\": write a duration"),
            ("expect=-5", "the parameter expect=\"-5\": write a duration"),
            ("expect=NaN", "the parameter expect=\"NaN\": write a duration"),
            ("ttl=1&ttl=1", "the parameter ttl=\"1\": it is given twice"),
            ("run_id=x", "the parameter run_id=\"x\": write up to 32 hexadecimal digits"),
            ("run_age=old", "the parameter run_age=\"old\": write a duration"),
            ("run_outcome=bad", "the parameter run_outcome=\"bad\": write one of failure, oom, signal"),
            ("earlier_run=1,2", "the parameter earlier_run=\"1,2\": write ID,END,DURATION,EXIT,OUTCOME"),
            ("group_by=", "the parameter group_by=\"\": write names of labels"),
            ("group_by=instance", "the parameter group_by=\"instance\": write names of labels"),
            ("group_by=job,", "the parameter group_by=\"job,\": write names of labels"),
            ("group_by=job,__name__", "the parameter group_by=\"job,__name__\": write names of labels"),
            ("group_by=job,job", "the parameter group_by=\"job,job\": write names of labels, each once"),
            (&many, "the parameter earlier_run="),
            (&format!("group_by=job{}", ",a".repeat(32)), "the parameter group_by="),
        ] {
            let error = Asked::of(Some(query)).expect_err(query).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    const RULES: &str = "
rules:
- match: '{job=~\"backup-.*\"}'
  ttl: 36h
  expect: 25h
- match: '{job=\"kept\"}'
  ttl: 0
- match: '{job=\"big\"}'
  limits: {series: 10, body_size: 1kB}
";

    #[test]
    fn the_first_rule_that_matches_says_what_pushes_do_not() {
        let rules = PushRules {
            rules: parse(RULES).expect("good rules"),
            default_ttl: Some(seconds(60)),
            ttl_max: Some(seconds(3600)),
        };
        let wishes = |job: &str, query: &str| {
            let key = GroupingKey::new(job, [("", ""); 0]);
            rules.wishes(rules.of(&key), &Asked::of(Some(query)).expect("a good query"))
        };
        let ttl = |asked: Option<u64>, otherwise: Option<u64>| {
            Wish::ttl(asked.map(seconds), otherwise.map(seconds)).at_most(Some(seconds(3600)))
        };
        let expect = |asked: Option<u64>, otherwise: Option<u64>| {
            Wish::expect(asked.map(seconds), otherwise.map(seconds))
        };
        for (job, query, ttl, expect) in [
            ("x", "", ttl(None, Some(60)), expect(None, None)),
            ("x", "ttl=5&expect=7", ttl(Some(5), Some(60)), expect(Some(7), None)),
            ("x", "ttl=2h", ttl(Some(3600), Some(60)), expect(None, None)),
            ("backup-db", "", ttl(None, Some(3600)), expect(None, Some(25 * 3600))),
            ("backup-db", "expect=0", ttl(None, Some(3600)), expect(Some(0), Some(25 * 3600))),
            // Not even a rule or a push lets series stay longer than they may.
            ("kept", "", ttl(None, Some(3600)), expect(None, None)),
            ("kept", "ttl=0", ttl(Some(3600), Some(3600)), expect(None, None)),
        ] {
            assert_eq!(wishes(job, query), Wishes { ttl, expect }, "{job} {query}");
        }
        let big = GroupingKey::new("big", [("", ""); 0]);
        let big = rules.of(&big).expect("a rule");
        assert_eq!((big.series_max, big.body_bytes_max), (Some(10), Some(1000)));
    }

    #[test]
    fn nonsense_in_a_rules_file_is_told() {
        for (text, problem) in [
            ("", ""),
            ("rules: [{match: '{}'}]", "rule 1, {}: it would select every group"),
            (
                "rules: [{match: '{job=\"x\"}', ttl: soon}]",
                "rule 1, {job=\"x\"}: ttl \"soon\": write a duration",
            ),
            ("rules: [{match: '{job=\"x\"}', limits: {body_size: big}}]", "rule 1, {job=\"x\"}: body_size"),
            ("rules: [{match: '{job=\"x\"}', tll: 5}]", "unknown field `tll`"),
            ("rules: [{ttl: 5}]", "missing field `match`"),
            ("rules: [{match: '{job=\"x\"}', ttl: }]", "nothing stands behind it"),
            ("rules: [{match: {job=\"x\"}}]", "expected "),
            ("rules: [{match: '{job=\"x\"}', ttl: 5, ttl: 6}]", "duplicate mapping key `ttl`"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(problem), "{error}");
            let is_of_library = ["Policy", "from_str", "Options"].iter().any(|word| error.contains(word));
            assert!(error.contains("such as") && !is_of_library, "{error}");
        }
    }
}
