//! Text that strangers push: nothing panics, and what is accepted renders to an exposition that is read again.
#![no_main]

use jobmon::exposition::{Limits, Rules, Validation, text};
use libfuzzer_sys::fuzz_target;

mod oracle;

fuzz_target!(|body: &[u8]| {
    let limits = Limits { samples: 1000, labels: 100, name_bytes: 1000, label_value_bytes: 1000 };
    for validation in [Validation::Legacy, Validation::Utf8] {
        if let Ok(families) = text::parse(body, Rules { validation, limits }) {
            oracle::what_is_accepted_is_read_again(families);
        }
    }
});
