//! `ioex store`: what the engine says, as tables and as JSON; and the store of a node that is stopped.

use crate::fake_engine;
use crate::node::{Node, code, json, on};
use crate::program::{err, out};
use bytes::Bytes;
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::leases::{Change, Leases, Now};
use store::{FileBackend, Hash, Options, Store};

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

/// A node that has been stopped: its own segments of 100,000 bytes, then another owner's whose lease is over.
fn stopped(home: &Path) -> (Vec<Hash>, Hash) {
    let directory = DataDirectory::prepare(&home.join("data")).unwrap();
    let (identity, _) = NodeIdentity::load_or_create(&directory).unwrap();
    // As a first start leaves it, for the engine.
    Node::up(home, &[]).end();
    let backend = Arc::new(FileBackend::new());
    let (store, _) = Store::open(&directory.store(), Options::default(), backend).unwrap();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Now { wall, mono: Duration::ZERO };
    let (leases, _) = Leases::open(&store, *identity.uid().as_bytes(), now).unwrap();
    let segments: Vec<(Hash, Bytes)> = (0..6u8)
        .map(|i| {
            let bytes = Bytes::from(vec![i; 100_000]);
            (Hash::of(&bytes), bytes)
        })
        .collect();
    let (own, theirs) = segments.split_at(5);
    store.append(segments.clone()).unwrap();
    leases.keep(&own.iter().map(|(hash, bytes)| (*hash, bytes.len() as u32)).collect::<Vec<_>>()).unwrap();
    leases.apply(&[Change::Grant { hash: theirs[0].0, owner: [9; 32], ends_s: 1000 }]).unwrap();
    (own.iter().map(|(hash, _)| *hash).collect(), theirs[0].0)
}

#[test]
fn the_store_of_a_stopped_node_is_opened_itself() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (own, theirs) = stopped(home);
    let listed = store(home, &["ls", "--over"]).output().unwrap();
    assert!(
        out(&listed).contains(&theirs.to_string()) && out(&listed).lines().count() == 2,
        "{}",
        err(&listed)
    );
    assert!(err(&listed).contains("not running"), "{}", err(&listed));
    let stat = json(&store(home, &["stat", "--json"]).output().unwrap());
    assert_eq!(
        (&stat["segments"], &stat["over"]["segments"], &stat["leases"]),
        (&6.into(), &1.into(), &6.into())
    );
    let verified = json(&store(home, &["verify", "--json"]).output().unwrap());
    assert_eq!((&verified["segments"], &verified["bytes"]), (&6.into(), &600_000.into()));
    let removed = json(&store(home, &["rm", &own[0].to_string(), "--json"]).output().unwrap());
    assert_eq!(removed["bytes"], 100_000);
    let (exit, text) = code(&mut store(home, &["rm", &own[0].to_string()]));
    assert!(exit == 1 && text.contains("is not held"), "{exit} {text}");

    // A flipped bit is found, and known from then on.
    let pack = home.join("data/store/packs/0000000001.pack");
    let mut file = std::fs::read(&pack).unwrap();
    let at = file.windows(1000).position(|window| window == [2; 1000]).unwrap();
    file[at + 500] ^= 1;
    std::fs::write(&pack, file).unwrap();
    let verified = store(home, &["verify"]).output().unwrap();
    assert!(
        verified.status.code() == Some(4) && out(&verified).contains(&own[2].to_string()),
        "{}",
        out(&verified)
    );
    let stat = json(&store(home, &["stat", "--json"]).output().unwrap());
    assert_eq!((&stat["segments"], stat["damage"].as_array().unwrap().len()), (&4.into(), 1));
    // What is over goes, and what was damaged with its pack.
    let collected = store(home, &["gc", "--json"]).output().unwrap();
    let done: Value = serde_json::from_slice(&collected.stdout).unwrap();
    assert_eq!((&done["segments"], &done["packs"], collected.status.code()), (&1.into(), &1.into(), Some(4)));
    let compacted = json(&store(home, &["compact", "--json"]).output().unwrap());
    assert_eq!(compacted["packs"], 0, "nothing is left to be given back");

    // The node finds all of that as if it had done it itself.
    let node = Node::up(home, &[]);
    let stat = json(&store(home, &["stat", "--json"]).output().unwrap());
    assert_eq!((&stat["segments"], &stat["damage"]), (&3.into(), &Value::Array(Vec::new())));
    node.end();
}

#[test]
fn a_store_that_somebody_has_open_says_who() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    stopped(home);
    let backend = Arc::new(FileBackend::new());
    let held = Store::open(&home.join("data/store"), Options::default(), backend).unwrap();
    let (exit, text) = code(&mut store(home, &["stat"]));
    assert!(
        exit == 1 && text.contains(&format!("in use by process {}", std::process::id())),
        "{exit} {text}"
    );
    drop(held);
    let (exit, text) = code(&mut store(home, &["stat"]));
    assert_eq!(exit, 0, "{text}");
}

#[test]
fn without_an_engine_and_a_store_nothing_can_be_asked() {
    let home = tempfile::tempdir().unwrap();
    let (exit, text) = code(&mut store(home.path(), &["stat"]));
    assert!(exit == 3 && text.contains("ioex up"), "{exit} {text}");
}
