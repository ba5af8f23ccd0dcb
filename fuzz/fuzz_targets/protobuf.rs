//! Messages that strangers push: nothing panics or grows beyond its limits, and what is accepted renders to an exposition
//! that is read again.
#![no_main]

use jobmon::exposition::{Limits, protobuf};
use libfuzzer_sys::fuzz_target;

mod oracle;

fuzz_target!(|body: &[u8]| {
    let limits = Limits { samples: 1000, labels: 100, name_bytes: 1000, label_value_bytes: 1000 };
    if let Ok(families) = protobuf::decode(body, &limits) {
        let samples: usize = families.iter().map(|family| family.metrics.len()).sum();
        assert!(samples <= limits.samples);
        oracle::what_is_accepted_is_read_again(families);
    }
});
