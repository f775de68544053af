//! The node's identity on disk.

use crate::program::{err, ioex, out};
use control_plane::data_directory::{DataDirectory, DataDirectoryError};
use control_plane::node_identity::{NodeIdentity, NodeIdentityError};
use std::fs::{Permissions, metadata, read_to_string, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn first_start_makes_it_and_every_later_one_reads_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&root.path().join("deep/data")).unwrap();
    let (first, is_new) = NodeIdentity::load_or_create(&directory).unwrap();
    assert!(is_new);
    assert_eq!(mode(&directory.identity_key()), 0o600);
    assert_eq!(mode(directory.identity_key().parent().unwrap()), 0o700);
    assert_eq!(mode(directory.engine_socket().parent().unwrap()), 0o700);
    assert_eq!(read_to_string(directory.identity_public()).unwrap(), format!("{}\n", first.uid()));
    assert_eq!(read_to_string(directory.identity_key()).unwrap().len(), 65);

    let (second, is_new) = NodeIdentity::load_or_create(&directory).unwrap();
    assert!(!is_new);
    assert_eq!((second.uid(), second.address()), (first.uid(), first.address()));
    let left: Vec<_> = std::fs::read_dir(directory.identity_key().parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 3, "nothing but uid.key, uid.pub and nospam: {left:?}");
}

#[test]
fn a_lax_directory_is_tightened_and_a_readable_key_refused() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    NodeIdentity::load_or_create(&directory).unwrap();
    set_permissions(root.path().join("run"), Permissions::from_mode(0o755)).unwrap();
    DataDirectory::prepare(root.path()).unwrap();
    assert_eq!(mode(&root.path().join("run")), 0o700);

    set_permissions(directory.identity_key(), Permissions::from_mode(0o640)).unwrap();
    let error = NodeIdentity::load(&directory).unwrap_err();
    assert!(
        matches!(error, NodeIdentityError::File(DataDirectoryError::TooOpen { mode: 0o640, .. })),
        "{error}"
    );
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_damaged_key_is_refused_and_never_replaced() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    NodeIdentity::load_or_create(&directory).unwrap();
    write(directory.identity_key(), "abc\n").unwrap();
    let error = NodeIdentity::load_or_create(&directory).unwrap_err();
    assert!(matches!(error, NodeIdentityError::Seed { .. }), "{error}");
    assert_eq!(read_to_string(directory.identity_key()).unwrap(), "abc\n");
}

#[test]
fn an_exchanged_key_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    NodeIdentity::load_or_create(&directory).unwrap();
    write(directory.identity_key(), format!("{}\n", "07".repeat(32))).unwrap();
    let error = NodeIdentity::load_or_create(&directory).unwrap_err();
    assert!(matches!(error, NodeIdentityError::Mismatch { .. }), "{error}");
}

#[test]
fn id_shows_what_create_made_and_creates_nothing_itself() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let missing = ioex(root.path()).args(["id", "--data"]).arg(&data).output().unwrap();
    assert_eq!(missing.status.code(), Some(3));
    assert!(err(&missing).contains("ioex id create"), "{}", err(&missing));
    assert!(!data.exists(), "a command that only shows must not create");

    let created = ioex(root.path()).args(["id", "create", "--json", "--data"]).arg(&data).output().unwrap();
    assert!(created.status.success(), "{}", err(&created));
    let created: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap();
    let shown = ioex(root.path()).args(["id", "--data"]).arg(&data).output().unwrap();
    let expected = format!(
        "UID      {}\naddress  {}\n",
        created["uid"].as_str().unwrap(),
        created["address"].as_str().unwrap()
    );
    assert_eq!(out(&shown), expected);
}
