//! `ioex relay`: users, credentials, sessions; what of it reaches the engine.

use crate::fake_engine::{self, Seen};
use crate::node::{code, json, on};
use crate::program::{err, out};
use control_plane::configuration::Relay;
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use control_plane::relay_credentials::{RelayCredentialsError, RelayFiles};
use relay::policy::{RelaySelector, RelaySession};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// Keys of alice with the password "correct horse" in realm "ioex": Python's hashlib over `alice:ioex:correct horse`.
const MD5: &str = "ab3bfe240207ee0d3de2247010d003cd";
const SHA256: &str = "c389a0c0368a50a7a2c04a20b10a468d38b01c3a2b158481022f02807b2d6c71";

fn relay_on() -> Relay {
    Relay { listen: vec!["[::]:3478".parse().unwrap()], ..Relay::default() }
}

/// `ioex relay ARGUMENTS` on a node whose configuration turns the relay on.
fn relay(home: &Path, arguments: &[&str]) -> Command {
    let mut command = on(home, "relay");
    command.args(arguments).env("IOEX_RELAY_LISTEN", "[::]:3478");
    command
}

/// The same with `input` on its standard input.
fn relay_with(home: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = relay(home, arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn users_are_kept_as_keys_in_a_file_of_their_owner() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let added = relay_with(home, &["user", "add", "alice"], "correct horse\nnot this line\n");
    assert_eq!(err(&added), "");
    assert_eq!(out(&added), "added alice (no node runs here; in force from its next start)\n");
    let path = home.join("data/relay/users");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with(&format!("\nalice:ioex:{MD5}:{SHA256}\n")), "{text}");
    assert!(!text.contains("horse"), "{text}");
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

    let added = relay_with(home, &["user", "add", "bob", "--json"], "other\r\n");
    assert_eq!(json(&added), json!({ "user": "bob", "done": "added", "in_force": null }));
    let changed = relay_with(home, &["user", "add", "alice"], "another horse");
    assert!(out(&changed).starts_with("changed alice"), "{}", out(&changed));
    let list = relay(home, &["user", "list"]).output().unwrap();
    assert_eq!(out(&list), "alice\nbob\n");
    let again = std::fs::read_to_string(&path).unwrap();
    assert!(!again.contains(MD5) && again.lines().count() == 3, "{again}");

    let removed = relay(home, &["user", "remove", "alice"]).output().unwrap();
    assert!(out(&removed).starts_with("removed alice"), "{}", err(&removed));
    let (exit, text) = code(&mut relay(home, &["user", "remove", "alice"]));
    assert!(exit == 3 && text.contains("there is no user alice"), "{exit} {text}");
    let users = json(&relay(home, &["user", "list", "--json"]).output().unwrap());
    assert_eq!(users, json!({ "users": [{ "name": "bob", "realm": "ioex" }], "realm": "ioex" }));
}

#[test]
fn names_and_passwords_that_no_client_could_send_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for (name, password, exit, expected) in [
        ("a:b", "x\n", 1, "no colon"),
        (" alice", "x\n", 1, "space at its ends"),
        ("#alice", "x\n", 1, "# at its start"),
        ("", "x\n", 1, "1 to 508 bytes"),
        ("alice", "", 2, "no password"),
        ("alice", "\n", 2, "no password"),
        ("alice", "a\u{7}b\n", 1, "the password"),
    ] {
        let output = relay_with(home, &["user", "add", name], password);
        let text = err(&output);
        assert!(output.status.code() == Some(exit) && text.contains(expected), "{name:?}: {output:?}");
        assert!(!home.join("data/relay/users").exists());
    }
    // A password as an argument is not understood, so that nobody gets used to it.
    let output = relay_with(home, &["user", "add", "alice", "secret"], "");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn damaged_files_are_named_with_their_line() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    let settings = relay_on();
    let files = RelayFiles::new(&directory, &settings);
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let users = directory.relay_users();
    for line in [
        "alice",
        "alice:ioex:00:11",
        &format!("alice:ioex:{MD5}:{SHA256}:x"),
        &format!(":ioex:{MD5}:{SHA256}"),
    ] {
        write(&users, &format!("# a remark\n\nbob:ioex:{MD5}:{SHA256}\n{line}\n"));
        let error = files.policy().unwrap_err();
        assert!(matches!(&error, RelayCredentialsError::User { line: 4, .. }), "{error}");
        assert!(error.to_string().contains("relay/users:4:"), "{error}");
    }
    write(&users, "");
    write(&directory.relay_secret(), &format!("\nfirst\n{}\n", "x".repeat(257)));
    assert!(matches!(files.policy().unwrap_err(), RelayCredentialsError::Secret { line: 3, .. }));
    write(&directory.relay_secret(), &"secret\n".repeat(17));
    assert!(matches!(files.policy().unwrap_err(), RelayCredentialsError::TooManySecrets { count: 17 }));
    write(&directory.relay_secret(), "one\n");
    std::fs::set_permissions(directory.relay_secret(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = files.policy().unwrap_err().to_string();
    assert!(error.contains("may be read by others (mode 0644)"), "{error}");
}

#[test]
fn the_secret_is_made_once_and_others_are_accepted_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    // Without a relay nothing is made, and nobody is let in.
    let off = Relay::default();
    let policy = RelayFiles::new(&directory, &off).policy().unwrap();
    assert!(policy.rest_secrets.is_empty() && !directory.relay_secret().exists());

    let mut settings = relay_on();
    let first = RelayFiles::new(&directory, &settings).policy().unwrap();
    assert_eq!(mode(&directory.relay_secret()), 0o600);
    let [secret] = &first.rest_secrets[..] else { panic!("one secret") };
    // 256 bits as 64 digits, which fit a line of any other program's configuration.
    assert!(secret.len() == 64 && secret.iter().all(u8::is_ascii_hexdigit));
    assert_eq!(RelayFiles::new(&directory, &settings).policy().unwrap(), first);

    // Rotation: a new line before the old one; and another issuer's file.
    let old = std::fs::read_to_string(directory.relay_secret()).unwrap();
    std::fs::write(directory.relay_secret(), format!("# since today\nnorth\n{old}")).unwrap();
    let other = root.path().join("other");
    std::fs::write(&other, "south\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    settings.secrets.push(other.clone());
    let files = RelayFiles::new(&directory, &settings);
    let secrets = files.policy().unwrap().rest_secrets;
    assert_eq!(secrets, [b"north".to_vec(), secret.clone(), b"south".to_vec()]);
    // The first one issues. The password is Python's base64(hmac(b"north", b"1433895918:alice", "sha1")).
    let credential = files.credential("alice", 1_433_895_918).unwrap().unwrap();
    assert_eq!(credential.username, "1433895918:alice");
    assert_eq!(*credential.password, "RqMvcGPYTJMGThVLSi4amT4zFtI=");
    assert!(matches!(files.credential("", 1), Err(RelayCredentialsError::Name { .. })));
    assert!(matches!(files.credential(&"n".repeat(508), 1), Err(RelayCredentialsError::Name { .. })));

    std::fs::remove_file(&other).unwrap();
    assert!(matches!(files.policy(), Err(RelayCredentialsError::NoSecrets { .. })));
    settings.ephemeral = false;
    let policy = RelayFiles::new(&directory, &settings).policy().unwrap();
    assert!(policy.rest_secrets.is_empty(), "only users with a password are let in");
}

#[test]
fn users_of_another_realm_are_kept_and_not_let_in() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    relay_with(home, &["user", "add", "alice"], "correct horse\n");
    let moved = |arguments: &[&str]| {
        let mut command = relay(home, arguments);
        command.env("IOEX_RELAY_REALM", "other");
        command
    };
    let list = out(&moved(&["user", "list"]).output().unwrap());
    assert_eq!(list, "alice  (of realm ioex, cannot log in; the realm is other now)\n");
    let directory = DataDirectory::existing(&home.join("data"));
    let settings = Relay { realm: "other".into(), ..relay_on() };
    assert!(RelayFiles::new(&directory, &settings).policy().unwrap().users.is_empty());
    let settings = relay_on();
    assert_eq!(RelayFiles::new(&directory, &settings).policy().unwrap().users.len(), 1);
}

/// A node whose engine is a fake with a relay.
fn node_with_sessions(home: &Path) -> (DataDirectory, Arc<Mutex<Seen>>) {
    let directory = DataDirectory::prepare(&home.join("data")).unwrap();
    let (identity, _) = NodeIdentity::load_or_create(&directory).unwrap();
    let seen = fake_engine::listen(&directory.engine_socket(), *identity.uid().as_bytes(), None);
    let session = |id, user: &str, since_unix_s| RelaySession {
        id,
        user: user.into(),
        transport: "udp".into(),
        client: "192.0.2.1:5000".parse().unwrap(),
        server: "203.0.113.7:3478".parse().unwrap(),
        relayed: vec!["203.0.113.7:49152".parse().unwrap()],
        since_unix_s,
        remaining_s: 599,
        to_peer_packets: 10,
        to_peer_bytes: 3 << 20,
        to_client_packets: 20,
        to_client_bytes: 17,
        peers: ["198.51.100.1", "198.51.100.2", "198.51.100.3", "2001:db8::1"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        peers_count: 70,
    };
    seen.lock().unwrap().sessions = vec![
        vec![session(0x0001_0000_0000_002a, "alice", 1_700_000_100), session(7, "bob", 1_700_000_000)],
        vec![session(8, "alice\u{1b}[2J", 1_700_000_200)],
    ];
    (directory, seen)
}

#[test]
fn sessions_of_every_page_are_listed_from_the_oldest() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (exit, text) = code(&mut relay(home, &["sessions"]));
    assert!(exit == 3 && text.contains("ioex up"), "{exit} {text}");
    let (_directory, _seen) = node_with_sessions(home);
    let text = out(&relay(home, &["sessions"]).output().unwrap());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["ID", "USER", "SINCE", "CLIENT", "RELAYED", "TO", "PEERS", "TO", "CLIENT", "PEERS"]
    );
    assert!(lines[1].starts_with("0000000000000007  bob "), "{text}");
    assert!(lines[2].starts_with("000100000000002a  alice "), "{text}");
    for part in ["192.0.2.1:5000/udp", "203.0.113.7:49152", "3.00 MiB", "17 B", "198.51.100.3 and 67 more"] {
        assert!(lines[2].contains(part), "{part} is missing in\n{text}");
    }
    // A name cannot play with the terminal.
    assert!(!text.contains('\u{1b}') && lines[3].contains("alice\\u{1b}[2J"), "{text}");
    assert_eq!(lines[4], "3 sessions");

    let all = json(&relay(home, &["sessions", "--json"]).output().unwrap());
    let first = &all["sessions"][1];
    assert_eq!((&first["id"], &first["user"]), (&"000100000000002a".into(), &"alice".into()));
    assert_eq!(first["to_peer"], json!({ "packets": 10, "bytes": 3 << 20 }));
    assert_eq!((&first["peers"][3], &first["peers_count"]), (&"2001:db8::1".into(), &70.into()));
}

#[test]
fn sessions_are_ended_by_user_and_by_id() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (_directory, seen) = node_with_sessions(home);
    assert_eq!(out(&relay(home, &["kick", "alice"]).output().unwrap()), "ended 1 session\n");
    let kicked = json(&relay(home, &["kick", "000100000000002a", "--json"]).output().unwrap());
    assert_eq!(kicked, json!({ "kicked": 1 }));
    let (exit, text) = code(&mut relay(home, &["kick", "000100000000002a", "--user"]));
    assert!(exit == 3 && text.contains("no session of the user 000100000000002a"), "{exit} {text}");
    let (exit, text) = code(&mut relay(home, &["kick", "00000000000000ff"]));
    assert!(exit == 3 && text.contains("no session of the id"), "{exit} {text}");
    assert_eq!(
        seen.lock().unwrap().kicks,
        [
            RelaySelector::User("alice".into()),
            RelaySelector::Id(0x0001_0000_0000_002a),
            RelaySelector::User("000100000000002a".into()),
            RelaySelector::Id(0xff),
        ]
    );
}

#[test]
fn a_drain_is_told_and_kept_in_mind() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let settings = relay_on();
    // No node runs: it holds from the next start.
    let text = out(&relay(home, &["drain"]).output().unwrap());
    assert!(text.contains("refuses new allocations") && text.contains("next start"), "{text}");
    let (directory, seen) = node_with_sessions(home);
    assert!(RelayFiles::new(&directory, &settings).policy().unwrap().draining);
    assert!(seen.lock().unwrap().relay_drains.is_empty());

    let text = out(&relay(home, &["drain", "--end"]).output().unwrap());
    assert_eq!(text, "the relay takes new allocations again\n");
    assert!(!RelayFiles::new(&directory, &settings).policy().unwrap().draining);
    let drained = json(&relay(home, &["drain", "--json"]).output().unwrap());
    assert_eq!(drained, json!({ "draining": true, "running": true }));
    assert_eq!(seen.lock().unwrap().relay_drains, [false, true]);
}

#[test]
fn a_credential_names_whom_it_is_for_and_where_to_go() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    // Nothing is said before there is a relay and a secret.
    let (exit, text) = code(on(home, "relay").args(["credential", "phone"]));
    assert!(exit == 3 && text.contains("set relay.listen"), "{exit} {text}");
    let (exit, text) = code(&mut relay(home, &["credential", "phone"]));
    assert!(exit == 3 && text.contains("`ioex up` makes it"), "{exit} {text}");
    let (exit, text) = code(relay(home, &["credential", "phone"]).env("IOEX_RELAY_EPHEMERAL", "false"));
    assert!(exit == 3 && text.contains("relay.ephemeral is false"), "{exit} {text}");
    assert_eq!(relay(home, &["credential", "phone", "--ttl", "0"]).output().unwrap().status.code(), Some(2));

    let directory = DataDirectory::prepare(&home.join("data")).unwrap();
    let settings = relay_on();
    let files = RelayFiles::new(&directory, &settings);
    files.policy().unwrap();
    let issue = |arguments: &[&str]| {
        let mut command = relay(home, &["credential", "phone", "--json"]);
        command.args(arguments).env("IOEX_NODE_NAMES", "relay.example.com,2001:db8::7");
        command.env("IOEX_RELAY_TLS_LISTEN", "203.0.113.7:443");
        json(&command.output().unwrap())
    };
    // Of a node that does not run, by its settings.
    let before_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let credential = issue(&["--ttl", "60"]);
    let username = credential["username"].as_str().unwrap();
    let expiry: u64 = username.strip_suffix(":phone").unwrap().parse().unwrap();
    assert!((before_s + 60..before_s + 120).contains(&expiry), "{username} at {before_s}");
    let expected = files.credential("phone", expiry).unwrap().unwrap();
    assert_eq!(credential["password"], *expected.password);
    assert_eq!(credential["ttl"], 60);
    assert_eq!(
        credential["uris"],
        json!([
            "turn:relay.example.com:3478?transport=udp",
            "turn:[2001:db8::7]:3478?transport=udp",
            "turn:relay.example.com:3478?transport=tcp",
            "turn:[2001:db8::7]:3478?transport=tcp",
            "turns:203.0.113.7:443?transport=tcp",
        ])
    );
    // Of one that runs, by what it says.
    let (_directory, _seen) = node_with_sessions(home);
    let credential = issue(&[]);
    assert_eq!(credential["ttl"], 86_400);
    assert_eq!(
        credential["uris"],
        json!([
            "turn:relay.example.com:3478?transport=udp",
            "turn:[2001:db8::7]:3478?transport=udp",
            "turns:[::1]:5349?transport=tcp",
        ])
    );
    let text =
        out(&relay(home, &["credential", "phone"]).env("IOEX_NODE_NAMES", "a.example").output().unwrap());
    let words: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(words, ["username", "password", "ttl", "uris", "turns:[::1]:5349?transport=tcp"], "{text}");
}

#[test]
fn an_engine_without_a_relay_is_told_apart_from_one_without_sessions() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (_directory, seen) = node_with_sessions(home);
    seen.lock().unwrap().sessions = vec![Vec::new()];
    let output = relay(home, &["sessions"]).output().unwrap();
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("", "no sessions\n"));
    seen.lock().unwrap().sessions = Vec::new();
    for arguments in [&["sessions"][..], &["kick", "alice"], &["drain"]] {
        let (exit, text) = code(&mut relay(home, arguments));
        assert!(exit == 3 && text.contains("this node has no relay; set relay.listen"), "{exit} {text}");
    }
    assert!(!home.join("data/relay/draining").exists());
}

#[test]
fn the_engine_is_started_with_the_relays_flags() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let engine = home.join("ioex-engine");
    std::fs::write(&engine, "#!/bin/sh\necho \"arguments: $@\" >&2; exit 7\n").unwrap();
    std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = on(home, "up")
        .args(["--listen", "127.0.0.1:7000", "--relay", "127.0.0.1:3478", "--relay", "[::1]:3478"])
        .env("IOEX_ENGINE", engine)
        .env("IOEX_RELAY_TLS_LISTEN", "127.0.0.1:5349")
        .env("IOEX_RELAY_ADDRESSES", "10.0.0.5=203.0.113.7,2001:db8::7")
        .env("IOEX_RELAY_PORTS", "50000-50999")
        .output()
        .unwrap();
    let text = err(&output);
    let expected = "--listen 127.0.0.1:7000 --relay 127.0.0.1:3478 --relay [::1]:3478 --relay-tls 127.0.0.1:5349 \
                    --relay-address 10.0.0.5=203.0.113.7 --relay-address 2001:db8::7 --relay-ports 50000-50999\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn an_adopted_engine_gets_users_secret_and_limits() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    relay_with(home, &["user", "add", "alice"], "correct horse\n");
    let (directory, seen) = node_with_sessions(home);
    let mut up = on(home, "up")
        .args(["--json", "--relay", "[::]:3478"])
        .env("IOEX_RELAY_BYTES_PER_S", "10 MB")
        .env("IOEX_RELAY_PEER_ALLOW", "127.0.0.0/8, ::1")
        .env("IOEX_NODE_NAMES", "relay.example.com")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    // Not a signal that it may catch: it would drain the engine that it adopted, and that is this test itself.
    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(
        ready["relay"],
        json!(["turn:relay.example.com:3478?transport=udp", "turns:[::1]:5349?transport=tcp"])
    );
    let secret = std::fs::read_to_string(directory.relay_secret()).unwrap();
    let seen = seen.lock().unwrap();
    let policy = &seen.policies[0].relay;
    assert_eq!(policy.rest_secrets, [secret.trim().as_bytes()]);
    let [alice] = &policy.users[..] else { panic!("one user") };
    let key = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        (alice.name.as_str(), key(&alice.key_md5), key(&alice.key_sha256)),
        ("alice", MD5.into(), SHA256.into())
    );
    assert_eq!(policy.limits.bytes_per_s, 10_000_000);
    let allowed: Vec<String> = policy.peer_allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["127.0.0.0/8", "::1/128"]);
}
