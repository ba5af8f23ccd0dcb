//! How an exposition is compressed: piece by piece, because pieces that are compressed already can be put together.

use std::io::Write as _;

use flate2::write::GzEncoder;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// A piece as a member of its own (RFC 1952, section 2.2) or a frame of its own (RFC 8878, section 3.1): whoever reads
    /// several of them one after the other has the pieces one after the other.
    pub fn compress(self, piece: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Identity => piece,
            Self::Gzip => {
                let out = Vec::with_capacity(piece.len() / 8);
                let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(&piece).and_then(|()| encoder.finish()).expect("a Vec takes every write")
            }
            Self::Zstd => zstd::encode_all(&piece[..], zstd::DEFAULT_COMPRESSION_LEVEL)
                .expect("a Vec takes every write"),
        }
    }
}
