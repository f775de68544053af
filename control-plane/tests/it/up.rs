//! `ioex up` before and around the engine: first start, missing engine, an engine that does not live.

use crate::fake_engine;
use crate::program::{err, ioex};
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A program in the engine's place.
fn script(root: &Path, text: &str) -> PathBuf {
    let path = root.join("ioex-engine");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_missing_engine_is_named_and_the_first_start_is_idempotent() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let up = || {
        let engine = root.path().join("no-engine");
        let output =
            ioex(root.path()).args(["up", "--data"]).arg(&data).env("IOEX_ENGINE", engine).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("IOEX_ENGINE names"), "{}", err(&output));
    };
    up();
    let read = |name: &str| std::fs::read(data.join(name)).unwrap();
    let files = ["identity/uid.key", "identity/uid.pub", "tls/cert.pem", "tls/key.pem"];
    let first = files.map(read);
    up();
    assert_eq!(files.map(read), first);
}

#[test]
fn an_engine_that_ends_at_its_start_ends_up_too() {
    let root = tempfile::tempdir().unwrap();
    let engine = script(root.path(), "echo \"arguments: $@\" >&2; exit 7");
    let output = ioex(root.path())
        .args(["up", "--listen", "127.0.0.1:7000", "--cores", "0-1", "--driver", "epoll", "--data"])
        .arg(root.path().join("data"))
        .env("IOEX_ENGINE", engine)
        .env("IOEX_ENGINE_TCP", "false")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = err(&output);
    let data = root.path().join("data");
    let arguments =
        format!("--data {} --listen 127.0.0.1:7000 --cores 0-1 --driver epoll --no-tcp", data.display());
    assert!(text.contains(&format!("arguments: {arguments}\n")), "{text}");
    assert!(text.contains("the engine ended at its start (exit status: 7)"), "{text}");
}

#[test]
fn a_running_engine_is_adopted_and_gets_its_policy() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&root.path().join("data")).unwrap();
    let (identity, _) = NodeIdentity::load_or_create(&directory).unwrap();
    let seen = fake_engine::listen(&directory.engine_socket(), *identity.uid().as_bytes(), None);
    let other = identity::SecretKey::from_seed([3; 32]).uid();
    let mut up = ioex(root.path())
        .args(["up", "--json", "--data"])
        .arg(directory.root())
        .env("IOEX_ENGINE", script(root.path(), "exit 1"))
        .env("IOEX_PUBLISHERS_TRUSTED", other.to_string())
        .env("IOEX_LIMITS_CONNECTIONS_MAX", "4321")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(ready["event"], "ready");
    assert_eq!(ready["engine"]["adopted"], true);
    assert_eq!(ready["engine"]["pid"], std::process::id());
    assert_eq!(ready["uid"], identity.uid().to_string());
    assert_eq!(ready["urls"], serde_json::json!([format!("https://{}@[::1]:4433", identity.uid())]));
    {
        let seen = seen.lock().unwrap();
        let policy = &seen.policies[0];
        assert_eq!(policy.generation, 1);
        assert_eq!(policy.limits.connections_max, 4321);
        let mut expected = [*identity.uid().as_bytes(), *other.as_bytes()];
        expected.sort_unstable();
        assert_eq!(policy.publishers, expected);
    }
    let second = ioex(root.path()).args(["up", "--data"]).arg(directory.root()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains(&format!("another `ioex up` (process {})", up.id())), "{}", err(&second));
    // Not a signal that it may catch: it would drain the engine that it adopted, and that is this test
    // itself.
    up.kill().unwrap();
    up.wait().unwrap();
}

#[test]
fn an_engine_of_another_node_is_not_adopted() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&root.path().join("data")).unwrap();
    fake_engine::listen(&directory.engine_socket(), [1; 32], None);
    let output = ioex(root.path()).args(["up", "--data"]).arg(directory.root()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("has the UID"), "{}", err(&output));
}
