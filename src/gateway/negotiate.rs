//! What a scrape is answered with: pure, headers in, a format and a compression out.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderName};
use mime::Mime;

use crate::exposition::labels::Escaping;
use crate::exposition::{Compression, Format, Syntax};

/// The format that is asked for, as `expfmt.Negotiate` finds it: the first known type by weight; an `escaping` counts
/// wherever it stands before that. Everybody who asks for nothing known gets text.
pub fn format(headers: &HeaderMap, open_metrics: bool) -> Format {
    let mut escaping = Escaping::Underscores;
    for media_type in weighed(headers, &ACCEPT).iter().filter_map(|clause| media_type(clause)) {
        let parameter = |name: &str| media_type.get_param(name).map(|value| value.as_str().to_owned());
        escaping = parameter("escaping").and_then(|name| Escaping::from_parameter(&name)).unwrap_or(escaping);
        let version = parameter("version");
        let syntax = match media_type.essence_str() {
            PROTOBUF => protobuf(&media_type),
            "text/plain" if matches!(version.as_deref(), None | Some("0.0.4" | "1.0.0")) => {
                Some(Syntax::Text)
            }
            "application/openmetrics-text"
                if open_metrics && matches!(version.as_deref(), None | Some("0.0.1" | "1.0.0")) =>
            {
                Some(Syntax::OpenMetrics)
            }
            _ => None,
        };
        if let Some(syntax) = syntax {
            return Format { syntax, escaping };
        }
    }
    Format { syntax: Syntax::Text, escaping }
}

const PROTOBUF: &str = "application/vnd.google.protobuf";

/// Which of its forms a media type of protobuf stands for, if it is of metric families.
fn protobuf(media_type: &Mime) -> Option<Syntax> {
    let is = |name, value| media_type.get_param(name).is_some_and(|given| given.as_str() == value);
    let forms = [
        ("delimited", Syntax::ProtobufDelimited),
        ("text", Syntax::ProtobufText),
        ("compact-text", Syntax::ProtobufCompact),
    ];
    let form = forms.into_iter().find(|(encoding, _)| is("encoding", *encoding));
    form.filter(|_| is("proto", "io.prometheus.client.MetricFamily")).map(|(_, syntax)| syntax)
}

/// Whether a body is declared as delimited protobuf; everything else is text.
pub fn is_protobuf(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| media_type(value.to_str().ok()?));
    declared.is_some_and(|media_type| {
        media_type.essence_str() == PROTOBUF && protobuf(&media_type) == Some(Syntax::ProtobufDelimited)
    })
}

/// Reads a media type; blanks around its parameters mean nothing (RFC 9110, section 5.6.6).
fn media_type(text: &str) -> Option<Mime> {
    text.split(';').map(str::trim).collect::<Vec<_>>().join(";").parse().ok()
}

/// The compression that is asked for (RFC 9110, section 12.5.3); of two with one weight zstd, which is faster and smaller.
pub fn compression(headers: &HeaderMap) -> Compression {
    let clauses = values(headers, &ACCEPT_ENCODING);
    let weight_of = |wanted: &str| {
        let find = |wanted: &str| {
            let of_name = |clause: &&String| {
                clause.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
            };
            clauses.iter().find(of_name).map(|clause| weight(clause))
        };
        find(wanted).or_else(|| find("*")).unwrap_or(0.0)
    };
    let (zstd, gzip) = (weight_of("zstd"), weight_of("gzip"));
    if zstd > 0.0 && zstd >= gzip {
        Compression::Zstd
    } else if gzip > 0.0 {
        Compression::Gzip
    } else {
        Compression::Identity
    }
}

/// The clauses of a header, the weightiest first; those without weight not at all.
fn weighed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let mut clauses = values(headers, name);
    clauses.retain(|clause| weight(clause) > 0.0);
    clauses.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    clauses
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|clause| clause.trim().to_owned()).collect()
}

fn weight(clause: &str) -> f32 {
    let weight = clause.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().ok())?
    });
    weight.filter(|weight: &f32| !weight.is_nan()).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn asking(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
         version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    #[test]
    fn formats_are_negotiated_as_by_expfmt() {
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=";
        let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=";
        for (accept, start, rest) in [
            ("", text, "underscores"),
            ("*/*", text, "underscores"),
            ("text/html, application/json;q=0.9", text, "underscores"),
            ("text/plain;version=0.0.4", text, "underscores"),
            ("text/plain;version=1.0.0;escaping=allow-utf-8", text, "allow-utf-8"),
            ("text/plain;escaping=dots", text, "dots"),
            ("text/plain ; escaping=dots ; q=0.5", text, "dots"),
            ("text/plain;escaping=values", text, "values"),
            ("text/plain;escaping=nonsense", text, "underscores"),
            ("application/openmetrics-text;version=1.0.0", text, "underscores"),
            (OPEN_METRICS, text, "allow-utf-8"),
            (
                "text/plain;q=0.5,application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6",
                protobuf,
                "delimited; escaping=underscores",
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
                protobuf,
                "text; escaping=underscores",
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text",
                protobuf,
                "compact-text; escaping=underscores",
            ),
            ("application/vnd.google.protobuf;proto=other;encoding=delimited", text, "underscores"),
        ] {
            let format = format(&asking(ACCEPT, accept), false);
            assert_eq!(format.content_type(), format!("{start}{rest}"), "{accept}");
        }
        let offered = format(&asking(ACCEPT, OPEN_METRICS), true);
        assert_eq!(
            offered.content_type(),
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
        );
    }

    #[test]
    fn compression_is_for_those_who_ask_for_it() {
        for (value, expected) in [
            ("gzip", Compression::Gzip),
            ("deflate, gzip;q=0.5", Compression::Gzip),
            ("GZIP", Compression::Gzip),
            ("gzip, zstd", Compression::Zstd),
            ("gzip, zstd;q=0.9", Compression::Gzip),
            ("*", Compression::Zstd),
            ("gzip;q=0", Compression::Identity),
            ("*;q=1, gzip; q=0, zstd;q=0", Compression::Identity),
            ("identity", Compression::Identity),
            ("", Compression::Identity),
        ] {
            assert_eq!(compression(&asking(ACCEPT_ENCODING, value)), expected, "{value}");
        }
        assert_eq!(compression(&HeaderMap::new()), Compression::Identity);
    }
}
