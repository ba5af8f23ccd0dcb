//! Web configurations: nothing panics, and what is wrong is said in words.
#![no_main]

use jobmon::gateway::access::check_syntax;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problem) = check_syntax(text) {
        assert!(!problem.is_empty());
    }
});
