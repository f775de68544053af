//! `ioex publish` to the local engine.

use crate::fake_engine;
use crate::program::{err, ioex};
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use std::io::Write;
use std::process::Stdio;
use store::list::ListView;

/// A data directory with an identity, and its UID.
fn node(root: &std::path::Path) -> (DataDirectory, identity::Uid) {
    let directory = DataDirectory::prepare(&root.join("data")).unwrap();
    let (identity, _) = NodeIdentity::load_or_create(&directory).unwrap();
    (directory, identity.uid())
}

#[test]
fn the_engine_gets_the_file_and_a_list_that_the_node_signed() {
    let root = tempfile::tempdir().unwrap();
    let (directory, uid) = node(root.path());
    let seen = fake_engine::listen(&directory.engine_socket(), *uid.as_bytes(), None);
    let file = root.path().join("firmware.img");
    let content: Vec<u8> = (0..2500u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    let output = ioex(root.path())
        .arg("publish")
        .arg(&file)
        .args(["--version", "1.4.2", "--counter", "77", "--segment-size", "1KiB", "--json", "--data"])
        .arg(directory.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", err(&output));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.imports, [(1024, content.clone())]);
    let list = ListView::open(&seen.lists[0]).unwrap();
    assert_eq!(
        (list.publisher(), list.name(), list.version(), list.counter()),
        (uid, "firmware.img", (1, 4, 2), 77)
    );
    assert_eq!((list.file_len(), list.data_count()), (2500, 3));
    assert_eq!(list.file_hash(), Some(store::Hash::of(&content)));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["list"], list.hash().to_string());
    assert_eq!(report["urls"][0], format!("https://{uid}@[::1]:4433/list/{}", list.hash()));
}

#[test]
fn standard_input_is_passed_on_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (directory, uid) = node(root.path());
    let seen = fake_engine::listen(&directory.engine_socket(), *uid.as_bytes(), None);
    let mut child = ioex(root.path())
        .args(["publish", "-", "--name", "stream", "--data"])
        .arg(directory.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(seen.lock().unwrap().imports[0].1, b"through a pipe");
}

#[test]
fn failures_have_codes_that_a_script_can_tell_apart() {
    let root = tempfile::tempdir().unwrap();
    let (directory, uid) = node(root.path());
    let file = root.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let publish = |arguments: &[&str]| {
        let output = ioex(root.path())
            .arg("publish")
            .args(arguments)
            .arg("--data")
            .arg(directory.root())
            .output()
            .unwrap();
        (output.status.code().unwrap(), err(&output))
    };
    let path = file.to_str().unwrap();
    let (code, text) = publish(&[path]);
    assert!(code == 3 && text.contains("ioex up"), "no engine runs: {code} {text}");
    fake_engine::listen(&directory.engine_socket(), *uid.as_bytes(), Some("the store is full"));
    let (code, text) = publish(&[path]);
    assert!(code == 5 && text.contains("the store is full"), "{code} {text}");
    for (arguments, expected) in [
        (vec!["-"], "--name"),
        (vec![path, "--version", "1.2"], "MAJOR.MINOR.PATCH"),
        (vec![path, "--segment-size", "17MiB"], "allowed are 1 to 16777216"),
        (vec![path, "--to", "http://node:1"], "https://"),
        (vec![root.path().to_str().unwrap()], "tar c"),
    ] {
        let (code, text) = publish(&arguments);
        assert!(code == 2 && text.contains(expected), "{arguments:?}: {code} {text}");
    }
    let (code, _) = publish(&["/nowhere/file"]);
    assert_eq!(code, 3);
}

#[test]
fn without_an_identity_it_says_how_to_make_one() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let data = root.path().join("none");
    let output = ioex(root.path()).arg("publish").arg(&file).arg("--data").arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("ioex id create"), "{}", err(&output));
    assert!(!data.exists());
}
