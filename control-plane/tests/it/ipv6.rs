//! Everything between peers and nodes over IPv6 alone, and between a node that has no IPv4 and one that has no IPv6.

use crate::node::{Node, json, on};
use crate::program::err;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(60);

/// A node that has IPv6 alone.
fn up(home: &Path, arguments: &[&str]) -> Node {
    let mut up = on(home, "up");
    up.args(["--listen", "[::1]:0", "--cores", "0"]).args(arguments);
    Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"))
}

fn until(home: &Path, what: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let shown = json(&on(home, what[0]).args(&what[1..]).arg("--json").output().unwrap());
        if is_so(&shown) {
            return shown;
        }
        assert!(since.elapsed() < LONG, "not in time: {shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Makes them friends, and gives their UIDs.
fn befriend(one: &Path, two: &Path, at: &[&str]) -> [String; 2] {
    let id = json(&on(two, "id").arg("--json").output().unwrap());
    let address = id["address"].as_str().unwrap();
    let output = on(one, "friend").args(["add", address]).args(at).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    let asking = until(two, &["friend", "list"], |list| list["friends"][0]["standing"] == "asking");
    let uid = asking["friends"][0]["uid"].as_str().unwrap().to_owned();
    let output = on(two, "friend").args(["accept", &uid]).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    for home in [one, two] {
        until(home, &["friend", "list"], |list| list["friends"][0]["connected"] == true);
    }
    [uid, id["uid"].as_str().unwrap().to_owned()]
}

fn write(from: &Path, to: &str, text: &str) {
    let since = Instant::now();
    loop {
        let output = on(from, "msg").args([to, text]).output().unwrap();
        if output.status.success() {
            return;
        }
        // Where a friend is may take until its next word to be known.
        assert!(since.elapsed() < LONG, "{}", err(&output));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn content_mailbox_and_relay_are_there_over_ipv6_alone() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let first = up(one, &["--mailbox", "local", "--relay", "[::1]:0"]);
    assert!(first.url().contains("@[::1]:"), "{}", first.url());
    let relay = first.ready["relay"].to_string();
    assert!(relay.contains("turn:[::1]:"), "{}", first.ready);
    let second = up(two, &["--mailbox", &first.url()]);
    for home in [one, two] {
        until(home, &["friend", "list"], |list| list["node"]["connected"] == true);
    }
    let [uid_one, uid_two] = befriend(one, two, &[]);
    write(one, &uid_two, "over there");
    write(two, &uid_one, "and back");

    let file = one.join("firmware.img");
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    let published = json(&on(one, "publish").arg(&file).arg("--json").output().unwrap());
    let got = two.join("got.img");
    let mut fetch = on(two, "fetch");
    let output = fetch.arg(published["urls"][0].as_str().unwrap()).arg("-o").arg(&got).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    assert!(std::fs::read(&got).unwrap() == content);
    second.end();
    first.end();
}

#[test]
fn friends_meet_whose_nodes_have_both_families() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    // Nodes call each other: one that has IPv4 and IPv6 reaches one that has IPv6 alone, and is reached by it.
    let mut both = on(one, "up");
    both.args(["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--cores", "0", "--mailbox", "local"]);
    let first = Node::start(both.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"));
    let second = up(two, &["--mailbox", "local"]);
    for home in [one, two] {
        until(home, &["friend", "list"], |list| list["node"]["connected"] == true);
    }
    let [uid_one, uid_two] = befriend(one, two, &["--at", &second.url()]);
    write(one, &uid_two, "over there");
    write(two, &uid_one, "and back");
    let inbox = json(&on(two, "inbox").arg("--json").output().unwrap());
    assert!(inbox.to_string().contains("over there"), "{inbox}");
    second.end();
    first.end();
}
