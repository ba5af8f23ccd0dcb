//! How an exposition is compressed: piece by piece, so that a piece that has not changed is never compressed again, and yet
//! what is sent is one stream, because many readers end at the end of the first.

use std::io::Write as _;

use crc32fast::Hasher;
use flate2::write::DeflateEncoder;

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

/// What the end of a stream says of a piece in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum {
    crc: u32,
    /// Bytes before compression.
    pub plain_bytes: usize,
}

impl Checksum {
    fn of(plain: &[u8]) -> Self {
        Self { crc: crc32fast::hash(plain), ..Self::of_plain(plain) }
    }

    /// Of what nobody checks.
    pub fn of_plain(plain: &[u8]) -> Self {
        Self { crc: 0, plain_bytes: plain.len() }
    }

    /// Takes in what follows.
    pub fn append(&mut self, next: Self) {
        let of = |sum: Self| Hasher::new_with_initial_len(sum.crc, sum.plain_bytes as u64);
        let mut hasher = of(*self);
        hasher.combine(&of(next));
        *self = Self { crc: hasher.finalize(), plain_bytes: self.plain_bytes + next.plain_bytes };
    }
}

/// The header of a gzip stream without name and time (RFC 1952, section 2.3).
const GZIP_BEGIN: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The last block of a deflate stream, with nothing in it (RFC 1951, section 3.2.3).
const DEFLATE_END: [u8; 2] = [3, 0];

impl Compression {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// What a stream begins with.
    pub fn begin(self) -> &'static [u8] {
        match self {
            Self::Gzip => &GZIP_BEGIN,
            Self::Identity | Self::Zstd => &[],
        }
    }

    /// What a stream of such pieces ends with.
    #[allow(clippy::cast_possible_truncation)]
    pub fn end(self, all: Checksum) -> Vec<u8> {
        match self {
            // The size is told modulo 2^32.
            Self::Gzip => {
                [&DEFLATE_END[..], &all.crc.to_le_bytes(), &(all.plain_bytes as u32).to_le_bytes()].concat()
            }
            Self::Identity | Self::Zstd => Vec::new(),
        }
    }
}

/// Compresses piece after piece, in the same room.
pub struct Compressor {
    compression: Compression,
    deflate: DeflateEncoder<Vec<u8>>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl Compressor {
    /// For pieces of one stream.
    pub fn new(compression: Compression) -> Self {
        let zstd = (compression == Compression::Zstd)
            .then(|| zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL))
            .and_then(Result::ok);
        let deflate = DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        Self { compression, deflate, zstd, out: Vec::new() }
    }

    /// How it compresses.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// A piece as it stands in a stream, whatever stands before it and behind it: blocks of deflate that end with a byte and
    /// look back at nothing before them, or a frame of its own (RFC 8878, section 3.1).
    pub fn compress<'a>(&'a mut self, piece: &'a [u8]) -> (&'a [u8], Checksum) {
        match self.compression {
            Compression::Identity => (piece, Checksum::of_plain(piece)),
            Compression::Gzip => {
                self.deflate.write_all(piece).and_then(|()| self.deflate.flush()).expect(TAKES_ALL);
                std::mem::swap(&mut self.out, self.deflate.get_mut());
                // The end of the stream goes into what was swapped in, and is not wanted.
                let mut ended = self.deflate.reset(Vec::new()).expect(TAKES_ALL);
                ended.clear();
                *self.deflate.get_mut() = ended;
                (&self.out, Checksum::of(piece))
            }
            Compression::Zstd => {
                self.out.clear();
                self.out.reserve(zstd::zstd_safe::compress_bound(piece.len()));
                let zstd = self.zstd.as_mut().expect("it was made for this");
                zstd.compress_to_buffer(piece, &mut self.out).expect(TAKES_ALL);
                (&self.out, Checksum::of_plain(piece))
            }
        }
    }
}

const TAKES_ALL: &str = "a Vec takes every write";

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn pieces_make_one_stream() {
        let pieces = [b"a".repeat(100_000), Vec::new(), b"aaaa".to_vec(), (0..=255).collect()];
        let mut all = Checksum::default();
        let mut stream = Compression::Gzip.begin().to_vec();
        let mut compressor = Compressor::new(Compression::Gzip);
        for piece in &pieces {
            let (bytes, checksum) = compressor.compress(piece);
            stream.extend(bytes);
            all.append(checksum);
        }
        stream.extend(Compression::Gzip.end(all));
        // One that reads a single member, and to its end.
        let mut reader = flate2::bufread::GzDecoder::new(&stream[..]);
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain).expect("a good stream");
        assert_eq!(plain, pieces.concat());
        assert_eq!(reader.into_inner(), b"", "nothing is left");
    }
}
