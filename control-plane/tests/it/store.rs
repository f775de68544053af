//! `ioex store`: what the engine says, as tables and as JSON.

use crate::fake_engine;
use crate::node::{code, json, on};
use crate::program::{err, out};
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A home with a node whose engine answers.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&home.path().join("data")).unwrap();
    let (identity, _) = NodeIdentity::load_or_create(&directory).unwrap();
    fake_engine::listen(&directory.engine_socket(), *identity.uid().as_bytes(), None);
    home
}

fn store(home: &Path, arguments: &[&str]) -> Command {
    let mut command = on(home, "store");
    command.args(arguments);
    command
}

#[test]
fn what_is_held_is_shown_by_opaque_names_with_ends() {
    let home = home();
    let listed = store(home.path(), &["ls"]).output().unwrap();
    let text = out(&listed);
    assert_eq!(text.lines().count(), 4, "{text}{}", err(&listed));
    assert!(text.contains(&"01".repeat(32)) && text.contains("without an end"), "{text}");
    assert!(text.contains("over since"), "{text}");
    let over = out(&store(home.path(), &["ls", "--over"]).output().unwrap());
    assert!(over.lines().count() == 2 && over.contains(&"02".repeat(32)), "{over}");
    let lines = out(&store(home.path(), &["ls", "--json"]).output().unwrap());
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[1]["ends_unix_s"], &rows[2]["ends_unix_s"]), (&400.into(), &Value::Null));
}

#[test]
fn figures_verification_and_tidying_up() {
    let home = home();
    let stat = json(&store(home.path(), &["stat", "--json"]).output().unwrap());
    assert_eq!((stat["segments"].as_u64(), stat["owners"][1]["uid"].as_str()), (Some(3), Some("nobody")));
    let text = out(&store(home.path(), &["stat"]).output().unwrap());
    assert!(text.contains("nobody") && text.lines().any(|line| line.starts_with("scrub")), "{text}");
    let verified = store(home.path(), &["verify"]).output().unwrap();
    assert_eq!(verified.status.code(), Some(4), "damage is an exit code of its own");
    assert!(out(&verified).contains("1 damaged"), "{}", out(&verified));
    let collected = json(&store(home.path(), &["gc", "--json"]).output().unwrap());
    assert_eq!(collected["bytes_freed"], 5 << 20);
    let (exit, text) = code(&mut store(home.path(), &["rm", &"01".repeat(32)]));
    assert!(exit == 1 && text.contains("under lease"), "{exit} {text}");
    let (exit, text) = code(&mut store(home.path(), &["rm", "xyz"]));
    assert!(exit == 2 && text.contains("HASH"), "{exit} {text}");
}

#[test]
fn without_an_engine_nothing_can_be_asked() {
    let home = tempfile::tempdir().unwrap();
    let (exit, text) = code(&mut store(home.path(), &["stat"]));
    assert!(exit == 3 && text.contains("ioex up"), "{exit} {text}");
}
