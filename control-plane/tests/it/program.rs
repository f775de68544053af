//! Runs the `ioex` program as a person would, with nothing of this machine's own settings.

use std::path::Path;
use std::process::{Command, Output};

/// `ioex`, with a home of its own and without any variable of ours.
pub fn ioex(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioex"));
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IOEX_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    // A file of no lines stands in for /etc/ioex/ioex.toml, which this machine may have.
    let empty = home.join("empty.toml");
    std::fs::write(&empty, "").expect("the test's own directory is writable");
    command.env("IOEX_CONFIG", empty).env("HOME", home).env_remove("XDG_DATA_HOME");
    command
}

/// Standard output as text.
pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("standard output is UTF-8")
}

/// Standard error as text.
pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("standard error is UTF-8")
}
