//! The format of the web configuration: exporter-toolkit's, and `tokens`. Unknown keys are faults.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};

use crate::config::not_null;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebConfig {
    pub(super) tls_server_config: Option<TlsConfig>,
    #[serde(deserialize_with = "null_or")]
    pub(super) http_server_config: HttpConfig,
    #[serde(deserialize_with = "null_or")]
    pub(super) basic_auth_users: BTreeMap<String, String>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) tokens: Vec<TokenConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsConfig {
    pub(super) cert: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) client_ca_file: Option<String>,
    #[serde(deserialize_with = "null_or")]
    pub(super) client_auth_type: String,
    #[serde(deserialize_with = "null_or")]
    pub(super) client_allowed_sans: Vec<String>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    #[serde(deserialize_with = "null_or")]
    pub(super) cipher_suites: Vec<String>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    #[serde(deserialize_with = "null_or")]
    pub(super) curve_preferences: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpConfig {
    /// Accepted; the gateway speaks HTTP/1.1 to everybody.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    #[serde(deserialize_with = "null_or")]
    pub(super) headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    interval: String,
    #[serde(default)]
    burst: Option<u32>,
}

/// A token and what it is good for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenConfig {
    pub(super) name: String,
    pub(super) sha256: String,
    pub(super) scopes: Vec<String>,
    /// All jobs where it is not there; with nothing behind it, it is a fault, or a token would be good for more than was meant.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) jobs: Option<String>,
}

/// A key with nothing behind it is as if it were not there, as exporter-toolkit has it.
fn null_or<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl WebConfig {
    /// Whether there is nothing in a text.
    pub(super) fn is_nothing(text: &str) -> bool {
        text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    }

    /// Reads the text; nothing at all means that everybody may do everything.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if Self::is_nothing(text) {
            return Ok(Self::default());
        }
        // What is around the fault may be a secret.
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())
    }
}

/// The headers that exporter-toolkit knows, with the values that it takes.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

pub(super) fn headers(headers: BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let judge = |(name, value): (String, String)| {
        let known = HEADERS.iter().find(|(known, _)| *known == name);
        let (_, values) = known.ok_or_else(|| format!("HTTP header {name:?} can not be configured"))?;
        if !values.is_empty() && !values.contains(&value.to_ascii_lowercase().as_str()) {
            return Err(format!("invalid value for {name}. Expected one of: {values:?}, but got: {value:?}"));
        }
        let value =
            HeaderValue::try_from(&value).map_err(|_| format!("invalid value for {name}: {value:?}"))?;
        Ok((HeaderName::try_from(name).expect("it is one of the known"), value))
    };
    headers.into_iter().filter(|(_, value)| !value.is_empty()).map(judge).collect()
}

/// A bucket of `burst` requests that is refilled by one each `interval`.
pub(super) fn rate_limit(limit: &RateLimit) -> Result<DefaultDirectRateLimiter, String> {
    let interval = humantime::parse_duration(&limit.interval)
        .map_err(|_| format!("rate_limit: write the interval as in 1s or 100ms, not {:?}", limit.interval))?;
    let quota = Quota::with_period(interval).ok_or("rate_limit: the interval must be more than 0")?;
    let burst = NonZeroU32::new(limit.burst.unwrap_or(1)).unwrap_or(NonZeroU32::MIN);
    Ok(RateLimiter::direct(quota.allow_burst(burst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_named_with_their_place() {
        let error = WebConfig::parse("tls_server_config:\n  bogus: 1\n").expect_err("unknown");
        assert!(error.contains("bogus") && error.contains("line 2"), "{error}");
        assert!(WebConfig::parse("bogus: 1\n").is_err());
        assert!(WebConfig::parse("").is_ok());
        assert!(WebConfig::parse("# nothing yet\n").is_ok());
        let emptied =
            "basic_auth_users:\nhttp_server_config:\n  headers:\ntls_server_config:\n  cipher_suites:\n";
        assert!(WebConfig::parse(emptied).is_ok(), "a Pushgateway takes it");
        for token in ["jobs:", "jobs: null", "jobs: ~"] {
            let text = format!("tokens:\n- name: t\n  sha256: x\n  scopes: []\n  {token}\n");
            let error = WebConfig::parse(&text).expect_err(token);
            assert!(error.contains("leave the key out"), "{error}");
        }
        assert!(WebConfig::parse("tokens:\n").is_err());
    }

    #[test]
    fn only_known_headers_are_set() {
        let set = |name: &str, value: &str| {
            headers(BTreeMap::from([(name.to_owned(), value.to_owned())])).map(|headers| headers.len())
        };
        assert_eq!(set("X-Frame-Options", "DENY"), Ok(1));
        assert_eq!(set("X-Foo", "1"), Err("HTTP header \"X-Foo\" can not be configured".to_owned()));
        assert!(set("X-Frame-Options", "maybe").is_err());
        assert!(set("Content-Security-Policy", "a\nb").is_err());
    }

    #[test]
    fn a_bucket_has_a_size() {
        let limit = |interval: &str, burst| RateLimit { interval: interval.to_owned(), burst };
        let bucket = rate_limit(&limit("1h", Some(2))).expect("a good limit");
        assert_eq!([1, 2, 3].map(|_| bucket.check().is_ok()), [true, true, false]);
        assert!(rate_limit(&limit("soon", None)).is_err());
        assert!(rate_limit(&limit("0s", None)).is_err());
    }
}
