//! Programs from npm.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where `.ci/setup test` puts them.
pub fn modules() -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node/node_modules");
    assert!(modules.is_dir(), "{} is missing; run .ci/setup test", modules.display());
    modules
}

/// Runs a script of this crate with `input` on its standard input; it answers in JSON.
pub fn run(script: &str, input: &Value) -> Value {
    let mut process = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .env("NODE_PATH", modules())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts; .ci/setup test installs it");
    let mut stdin = process.stdin.take().expect("a pipe");
    let input = input.to_string();
    // A script that does not read its input may be gone already.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = process.wait_with_output().expect("node ends");
    writer.join().expect("the input is written");
    assert!(output.status.success(), "{script} failed, see above");
    serde_json::from_slice(&output.stdout).expect("the script answers in JSON")
}
