//! Tokens: secrets that are good for some things, for some jobs. Only their SHA-256 is in the file, which is enough for
//! secrets that nobody can guess.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;
use ring::digest::{SHA256, digest};

use super::file::TokenConfig;
use crate::grouping::regex_of_whole;

/// Memory that the expression for a token's jobs may take.
const JOBS_BYTES_MAX: usize = 10 * 1024 * 1024;

/// What a token may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Scope {
    /// Pushing to groups.
    Push,
    /// Reading what was pushed.
    Read,
    /// Deleting groups.
    Delete,
    /// Deleting everything, ending the gateway.
    Admin,
}

const SCOPES: [(&str, Scope); 4] =
    [("push", Scope::Push), ("read", Scope::Read), ("delete", Scope::Delete), ("admin", Scope::Admin)];

impl Scope {
    fn name(self) -> &'static str {
        SCOPES.iter().find(|(_, scope)| *scope == self).expect("all are there").0
    }
}

/// A token, without its secret.
#[derive(Debug)]
pub(in crate::gateway) struct Token {
    name: String,
    scopes: Vec<Scope>,
    jobs: Option<Regex>,
}

impl Token {
    /// # Errors
    /// What it may not do.
    pub(super) fn may(&self, scope: Scope, job: Option<&str>) -> Result<(), String> {
        if !self.scopes.contains(&scope) {
            return Err(format!("the token {:?} is not good for {}", self.name, scope.name()));
        }
        match (job, &self.jobs) {
            (Some(job), Some(jobs)) if !jobs.is_match(job) => {
                Err(format!("the token {:?} is not good for the job {job:?}", self.name))
            }
            // What concerns all jobs is not for one that is limited to some.
            (None, Some(_)) if scope == Scope::Admin => {
                Err(format!("the token {:?} is not good for all jobs", self.name))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn jobs(&self) -> Option<&Regex> {
        self.jobs.as_ref()
    }
}

/// All tokens, by the digests of their secrets.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<Vec<u8>, Arc<Token>>);

impl Tokens {
    pub(super) fn new(configs: Vec<TokenConfig>) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for config in configs {
            let name = config.name.clone();
            let (digest, token) = token(config).map_err(|problem| format!("tokens: {name:?}: {problem}"))?;
            if tokens.insert(digest, Arc::new(token)).is_some() {
                return Err(format!("tokens: {name:?}: another token has the same sha256"));
            }
        }
        Ok(Self(tokens))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, secret: &str) -> Option<Arc<Token>> {
        self.0.get(digest(&SHA256, secret.as_bytes()).as_ref()).cloned()
    }
}

fn token(config: TokenConfig) -> Result<(Vec<u8>, Token), String> {
    let digest = sha256(&config.sha256).ok_or("sha256 must be the 64 hexadecimal digits of `sha256sum`")?;
    let scope = |name: &String| {
        let known = SCOPES.iter().find(|(known, _)| known == name).map(|(_, scope)| *scope);
        known.ok_or_else(|| format!("{name:?} is no scope; there are push, read, delete and admin"))
    };
    let scopes = config.scopes.iter().map(scope).collect::<Result<_, _>>()?;
    let jobs = config.jobs.map(|jobs| regex_of_whole(&jobs, JOBS_BYTES_MAX)).transpose();
    let jobs = jobs.map_err(|problem| format!("jobs: {problem}"))?;
    Ok((digest, Token { name: config.name, scopes, jobs }))
}

fn sha256(hex: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let is_hex = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| (0..32).map(digit).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scopes: &[&str], jobs: Option<&str>) -> TokenConfig {
        TokenConfig {
            name: "team".to_owned(),
            // Of "secret".
            sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            jobs: jobs.map(str::to_owned),
        }
    }

    #[test]
    fn tokens_are_good_for_what_they_say() {
        let tokens = Tokens::new(vec![config(&["push", "admin"], Some("team-.*|x"))]).expect("good");
        assert!(tokens.find("Secret").is_none());
        let token = tokens.find("secret").expect("it is known");
        for (scope, job, expected) in [
            (Scope::Push, Some("team-a"), true),
            (Scope::Push, Some("x"), true),
            (Scope::Push, Some("xy"), false),
            (Scope::Push, Some("my team-a"), false),
            (Scope::Delete, Some("team-a"), false),
            (Scope::Admin, None, false),
        ] {
            assert_eq!(token.may(scope, job).is_ok(), expected, "{scope:?} {job:?}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (config, expected) in [
            (config(&["fly"], None), "no scope"),
            (config(&["push"], Some("(")), "jobs: it is no regular expression (unclosed group)"),
            (config(&["push"], Some("x)|(?:.*")), "jobs: it is no regular expression (unopened group)"),
            (TokenConfig { sha256: "+f".repeat(32), ..config(&[], None) }, "sha256"),
            (TokenConfig { sha256: "abc".to_owned(), ..config(&[], None) }, "sha256"),
        ] {
            let error = Tokens::new(vec![config]).expect_err(expected);
            assert!(error.starts_with("tokens: \"team\": ") && error.contains(expected), "{error}");
        }
        assert!(Tokens::new(vec![config(&[], None), config(&[], None)]).is_err());
    }
}
