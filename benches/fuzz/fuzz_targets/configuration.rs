//! The configuration file: whatever is in it, the answer is a configuration or a list of problems.
#![no_main]

use std::path::Path;

use control_plane::configuration::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(Path::new("ioex.toml"), text) {
        Ok(loaded) => {
            loaded.configuration.limits.check().expect("what was accepted is within the limits");
        }
        Err(error) => assert!(!error.problems.is_empty() && !error.to_string().is_empty()),
    }
});
