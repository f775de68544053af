//! The node's identity on disk.

use crate::node::on;
use crate::program::{err, ioex, out};
use control_plane::data_directory::{DataDirectory, DataDirectoryError};
use control_plane::node_identity::{NodeIdentity, NodeIdentityError};
use std::fs::{Permissions, metadata, read_to_string, set_permissions, write};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    assert!(matches!(error, NodeIdentityError::Key { .. }), "{error}");
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

/// `ioex id ACTION --data HOME/data --json`, with `input` as standard input.
fn id(home: &Path, action: &[&str], input: &str) -> Output {
    feed(on(home, "id").arg("--json").args(action), input)
}

fn feed(command: &mut Command, input: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn shown(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", err(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_new_nospam_makes_a_new_address_of_the_same_uid() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path();
    let first = shown(&id(home, &["create"], ""));
    let second = shown(&id(home, &["new-nospam"], ""));
    assert_eq!(first["uid"], second["uid"]);
    assert_ne!(first["address"], second["address"]);
    assert_eq!(shown(&id(home, &[], ""))["address"], second["address"]);
    assert_eq!(mode(&home.join("data/identity/nospam")), 0o600);
}

#[test]
fn a_backup_brings_uid_and_address_back_on_another_machine() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = shown(&id(old.path(), &["create"], ""));
    let file = old.path().join("node.ioex");
    let file = file.to_str().unwrap();
    let empty = id(old.path(), &["backup", file], "");
    assert!(!empty.status.success() && err(&empty).contains("no passphrase"), "{}", err(&empty));
    let written = shown(&id(old.path(), &["backup", file], "open sesame\n"));
    assert_eq!((&written["uid"], &written["passphrase"]), (&made["uid"], &true.into()));
    assert_eq!(mode(Path::new(file)), 0o600);
    let seed = read_to_string(old.path().join("data/identity/uid.key")).unwrap();
    assert!(!read_to_string(file).unwrap().contains(seed.trim()), "a sealed backup must not hold the seed");
    let again = id(old.path(), &["backup", file], "open sesame\n");
    assert_eq!(again.status.code(), Some(2), "a backup must not be overwritten: {}", err(&again));

    // Without the passphrase, or with another, nothing is restored.
    let restore = |passphrase: Option<&str>, more: &[&str]| {
        let mut command = on(new.path(), "id");
        command.args(["--json", "restore", file]).args(more);
        if let Some(passphrase) = passphrase {
            let path = new.path().join("passphrase");
            write(&path, passphrase).unwrap();
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            command.env("IOEX_PASSPHRASE_FILE", path);
        }
        feed(&mut command, "")
    };
    assert!(err(&restore(None, &[])).contains("IOEX_PASSPHRASE_FILE"));
    let wrong = restore(Some("close sesame\n"), &[]);
    assert!(!wrong.status.success() && err(&wrong).contains("does not open"), "{}", err(&wrong));
    assert_eq!(id(new.path(), &[], "").status.code(), Some(3));
    let back = shown(&restore(Some("open sesame\n"), &[]));
    assert_eq!((&back["uid"], &back["address"]), (&made["uid"], &made["address"]));
    assert_eq!(back["passphrase"], true);
    let plain = shown(&restore(Some("open sesame\n"), &["--no-passphrase"]));
    assert_eq!(plain["passphrase"], false);
    assert_eq!(read_to_string(new.path().join("data/identity/uid.key")).unwrap(), seed);
}

#[test]
fn a_backup_never_replaces_another_identity() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shown(&id(one.path(), &["create"], ""));
    let there = shown(&id(other.path(), &["create"], ""));
    let file = one.path().join("node.ioex");
    let file = file.to_str().unwrap();
    let written = shown(&id(one.path(), &["backup", file, "--no-passphrase"], ""));
    assert_eq!(written["passphrase"], false);
    let refused = id(other.path(), &["restore", file], "");
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(err(&refused).contains(there["uid"].as_str().unwrap()), "{}", err(&refused));
    assert_eq!(shown(&id(other.path(), &[], ""))["address"], there["address"]);

    let damaged = read_to_string(file).unwrap().replacen("ioex identity", "ioex", 1);
    write(file, damaged).unwrap();
    assert_eq!(id(other.path(), &["restore", file], "").status.code(), Some(4));
    assert_eq!(id(other.path(), &["restore", "/nowhere/node.ioex"], "").status.code(), Some(3));
}

#[test]
fn a_key_under_a_passphrase_shows_its_address_to_all_and_signs_for_none() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path();
    let made = shown(&id(home, &["create"], ""));
    shown(&id(home, &["passphrase"], "open sesame\n"));
    assert_eq!(mode(&home.join("data/identity/uid.key")), 0o600);
    let sealed = shown(&id(home, &["create"], ""));
    assert_eq!((&sealed["address"], &sealed["passphrase"]), (&made["address"], &true.into()));
    shown(&id(home, &["new-nospam"], ""));

    let up = feed(on(home, "up").args(["--listen", "127.0.0.1:0"]), "");
    assert_eq!(up.status.code(), Some(1));
    assert!(err(&up).contains("IOEX_PASSPHRASE_FILE"), "{}", err(&up));
    // As systemd hands it over.
    write(home.join("ioex-passphrase"), "open sesame\n").unwrap();
    let mut remove = on(home, "id");
    remove.args(["--json", "passphrase", "--remove"]).env("CREDENTIALS_DIRECTORY", home);
    assert_eq!(shown(&feed(&mut remove, ""))["passphrase"], false);
    assert_eq!(shown(&id(home, &[], ""))["passphrase"], false);
}
