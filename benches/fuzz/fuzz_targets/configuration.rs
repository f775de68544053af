//! The configuration file and its layers: whatever is in it, the answer is a configuration or a list of problems.
#![no_main]

use control_plane::configuration::{Flags, Sources, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("ioex-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, data).expect("write to the temporary folder");
    let sources = Sources { file: Some(path), environment: Vec::new(), flags: Flags::default() };
    match load(&sources) {
        Ok(loaded) => loaded.configuration.limits.check().expect("what was accepted is within the limits"),
        Err(error) => assert!(!error.problems.is_empty() && !error.to_string().is_empty()),
    }
});
