//! Compressed bodies that strangers push: nothing panics, and nothing inflates beyond its bound.
#![no_main]

use jobmon::gateway::encoding::Encoding;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for encoding in [Encoding::Gzip, Encoding::Snappy, Encoding::Zstd, Encoding::Deflate] {
        if let Ok(inflated) = encoding.inflate(body, 1 << 16) {
            assert!(inflated.len() <= 1 << 16);
        }
    }
});
