//! Content encodings of pushed bodies, inflated within a bound.
//!
//! Gzip and framed snappy are the Pushgateway's; block snappy, zstd and deflate come on top. Whatever else is declared is
//! passed over, as there: it is mostly a client's mistake for the charset, and the body is as it is.

use std::io::{self, Read};

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// Largest window of a zstd stream, as a power of two: what a decoder holds beside its output.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// What a framed snappy stream begins with.
const SNAPPY_IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Why a body cannot be inflated. The texts are the Pushgateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It ends too soon.
    #[error("unexpected EOF")]
    Truncated,
    /// It is not what was declared.
    #[error("{0}")]
    Corrupt(&'static str),
    /// It would be larger than this.
    #[error("the inflated body is larger than {0} bytes, see --limit.inflated-body-size")]
    TooLarge(usize),
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952, of one member or several.
    Gzip,
    /// Framed, or a block.
    Snappy,
    /// RFC 8878.
    Zstd,
    /// RFC 1950, or, as some send it, RFC 1951.
    Deflate,
}

impl Encoding {
    /// What a request declares.
    pub fn of(headers: &HeaderMap) -> Self {
        let declared =
            headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match declared.trim().to_ascii_lowercase().as_str() {
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "zstd" => Self::Zstd,
            "deflate" => Self::Deflate,
            _ => Self::Identity,
        }
    }

    /// Inflates a body to at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Bytes that are not what was declared, or too many.
    pub fn inflate(self, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        match self {
            Self::Identity => Ok(body.to_vec()),
            // Go's reader wants at least a header.
            Self::Gzip if body.is_empty() => Err(InflateError::Corrupt("EOF")),
            Self::Gzip => read(MultiGzDecoder::new(body), bytes_max, gzip_fault),
            Self::Deflate if is_zlib(body) => {
                read(ZlibDecoder::new(body), bytes_max, |_| "zlib: invalid data")
            }
            Self::Deflate => read(DeflateDecoder::new(body), bytes_max, |_| "flate: corrupt input"),
            Self::Zstd => {
                let fault = "zstd: corrupt input";
                let invalid = |_| InflateError::Corrupt(fault);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(invalid)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(invalid)?;
                read(decoder, bytes_max, |_| fault)
            }
            Self::Snappy if body.is_empty() => Ok(Vec::new()),
            Self::Snappy if body.starts_with(SNAPPY_IDENTIFIER) => {
                read(snap::read::FrameDecoder::new(body), bytes_max, |_| SNAPPY_FAULT)
            }
            Self::Snappy => snappy_block(body, bytes_max),
        }
    }
}

const SNAPPY_FAULT: &str = "snappy: corrupt input";

/// A block says how long it is; that is believed only as far as its bytes can bear it out.
fn snappy_block(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let fault = || InflateError::Corrupt(SNAPPY_FAULT);
    let length = snap::raw::decompress_len(body).map_err(|_| fault())?;
    if length > bytes_max {
        // What is no snappy at all claims any length.
        let plausible = length <= body.len().saturating_mul(SNAPPY_RATIO_MAX);
        return Err(if plausible { InflateError::TooLarge(bytes_max) } else { fault() });
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(|_| fault())
}

/// Three bytes of snappy copy at most 64.
const SNAPPY_RATIO_MAX: usize = 22;

fn is_zlib(body: &[u8]) -> bool {
    // RFC 1950, section 2.2: compression method 8, and a multiple of 31.
    matches!(body, [cmf, flags, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flags)) % 31 == 0)
}

fn gzip_fault(error: &io::Error) -> &'static str {
    let text = error.to_string();
    if text.contains("header") {
        "gzip: invalid header"
    } else if text.contains("checksum") {
        "gzip: invalid checksum"
    } else {
        "flate: corrupt input"
    }
}

fn read(
    decoder: impl Read,
    bytes_max: usize,
    fault: impl Fn(&io::Error) -> &'static str,
) -> Result<Vec<u8>, InflateError> {
    let mut inflated = Vec::new();
    match decoder.take((bytes_max as u64).saturating_add(1)).read_to_end(&mut inflated) {
        Ok(length) if length > bytes_max => Err(InflateError::TooLarge(bytes_max)),
        Ok(_) => Ok(inflated),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(InflateError::Truncated),
        Err(error) => Err(InflateError::Corrupt(fault(&error))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn inflate(encoding: Encoding, body: &[u8]) -> Result<Vec<u8>, String> {
        encoding.inflate(body, 1000).map_err(|error| error.to_string())
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).and_then(|()| encoder.finish()).expect("a Vec takes every write")
    }

    fn bodies(text: &[u8]) -> Vec<(Encoding, Vec<u8>)> {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(text).expect("a Vec takes every write");
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        deflate.write_all(text).expect("a Vec takes every write");
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        framed.write_all(text).expect("a Vec takes every write");
        vec![
            (Encoding::Gzip, gzip(text)),
            (Encoding::Deflate, zlib.finish().expect("finished")),
            (Encoding::Deflate, deflate.finish().expect("finished")),
            (Encoding::Snappy, framed.into_inner().expect("finished")),
            (Encoding::Snappy, snap::raw::Encoder::new().compress_vec(text).expect("compressed")),
            (Encoding::Zstd, zstd::encode_all(text, 0).expect("compressed")),
        ]
    }

    #[test]
    fn every_encoding_is_inflated_within_its_bound() {
        for (encoding, body) in bodies(b"a 1\n") {
            assert_eq!(inflate(encoding, &body), Ok(b"a 1\n".to_vec()), "{encoding:?}");
            assert!(inflate(encoding, &body[..body.len() - 1]).is_err(), "{encoding:?}");
        }
        for (encoding, body) in bodies(&[b'#'; 1001]) {
            let refused = inflate(encoding, &body).expect_err("too long");
            assert!(refused.contains("--limit.inflated-body-size"), "{encoding:?}: {refused}");
        }
    }

    #[test]
    fn faults_have_the_pushgateways_words() {
        let good = gzip(b"a 1\n");
        let mut spoiled = good.clone();
        let checksum = spoiled.len() - 6;
        spoiled[checksum] ^= 1;
        for (encoding, body, text) in [
            (Encoding::Gzip, &b""[..], "EOF"),
            (Encoding::Gzip, b"abc", "unexpected EOF"),
            (Encoding::Gzip, b"a 1\na 2\na 3\na 4\n", "gzip: invalid header"),
            (Encoding::Gzip, &spoiled, "gzip: invalid checksum"),
            (Encoding::Gzip, &good[..good.len() - 3], "unexpected EOF"),
            (Encoding::Snappy, b"abcdefghijklmnop", "snappy: corrupt input"),
        ] {
            assert_eq!(inflate(encoding, body), Err(text.to_owned()), "{}", body.escape_ascii());
        }
        assert_eq!(inflate(Encoding::Gzip, &[good.clone(), good].concat()), Ok(b"a 1\na 1\n".to_vec()));
        assert_eq!(inflate(Encoding::Snappy, b""), Ok(Vec::new()));
    }
}
