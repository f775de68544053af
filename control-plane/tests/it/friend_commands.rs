//! `ioex friend`, `ioex msg` and `ioex inbox` against nodes that run.

use crate::node::{Node, code, json, on};
use crate::program::{err, out};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(60);

fn run(home: &Path, command: &str, arguments: &[&str]) -> Value {
    json(&on(home, command).args(arguments).arg("--json").output().unwrap())
}

fn friends(home: &Path) -> Value {
    run(home, "friend", &["list"])
}

/// Waits until the list of friends is so.
fn until(home: &Path, is_so: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let list = friends(home);
        if is_so(&list) {
            return list;
        }
        assert!(since.elapsed() < LONG, "not in time: {list}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn texts(home: &Path) -> Vec<String> {
    let output = on(home, "inbox").arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    let message = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    out(&output).lines().map(|line| message(line)["text"].as_str().unwrap().to_owned()).collect()
}

fn uid_of(list: &Value) -> String {
    list["node"]["uid"].as_str().unwrap().to_owned()
}

/// Two nodes, the second at the first one's mailbox, that are friends; and their UIDs.
fn befriended(one: &Path, two: &Path) -> (Node, Node, String, String) {
    let first = Node::up(one, &["--mailbox", "local"]);
    let second = Node::up(two, &["--mailbox", &first.url()]);
    let (a, b) = (
        until(one, |list| list["node"]["connected"] == true),
        until(two, |list| list["node"]["connected"] == true),
    );
    let (uid_a, uid_b) = (uid_of(&a), uid_of(&b));
    let address = b["node"]["address"].as_str().unwrap();
    let asked = run(one, "friend", &["add", address, "--greeting", "the kitchen"]);
    assert_eq!((&asked["uid"], &asked["standing"]), (&uid_b.clone().into(), &"asked".into()));
    let list = until(two, |list| list["friends"][0]["standing"] == "asking");
    assert_eq!(list["friends"][0]["greeting"], "the kitchen");
    assert_eq!(run(two, "friend", &["accept", &uid_a])["standing"], "friend");
    for home in [one, two] {
        until(home, |list| list["friends"][0]["connected"] == true);
    }
    (first, second, uid_a, uid_b)
}

#[test]
fn friends_are_made_named_and_written_to() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (one.path(), two.path());
    let (first, second, uid_a, uid_b) = befriended(one, two);

    assert_eq!(run(one, "friend", &["label", &uid_b, "kitchen", "--notes", "new"])["label"], "kitchen");
    run(one, "friend", &["profile", "--name", "Living room", "--presence", "away"]);
    until(two, |list| list["friends"][0]["profile"]["name"] == "Living room");
    let list = out(&on(two, "friend").arg("list").output().unwrap());
    assert!(list.contains("Living room") && list.contains("away") && list.contains(&uid_a), "{list}");

    let mut following = on(two, "inbox").args(["--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for text in ["dinner is ready", "really\u{1b}[2J"] {
        assert_eq!(run(one, "msg", &["kitchen", text])["status"], "delivered");
        let message: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((&message["text"], &message["from"]), (&text.into(), &uid_a.clone().into()));
    }
    // Whoever read along has gone: the next message ends the command.
    drop(lines);
    assert_eq!(run(one, "msg", &["kitchen", "the last"])["status"], "delivered");
    assert!(following.wait().unwrap().success());
    assert_eq!(texts(two), ["dinner is ready", "really\u{1b}[2J", "the last"]);
    let shown = out(&on(two, "inbox").args(["--after", "1"]).output().unwrap());
    assert!(shown.starts_with("2  ") && shown.lines().count() == 2 && !shown.contains('\u{1b}'), "{shown:?}");

    let stranger = identity::SecretKey::from_seed([3; 32]).uid().to_string();
    let long = "x".repeat(1_025);
    for (to, text, expected, what) in [
        ("nobody", "", 2, "empty"),
        ("nobody", long.as_str(), 2, "1025 bytes; at most 1024"),
        ("nobody", "text", 2, "no UID, no address and no friend's label"),
        (uid_a.as_str(), "text", 2, "this node itself"),
        (stranger.as_str(), "text", 7, "not a friend"),
    ] {
        let (exit, said) = code(on(one, "msg").args([to, text]));
        assert!(exit == expected && said.contains(what), "{to}: {exit} {said}");
    }
    // A new nospam value is in force at once.
    let old = friends(one)["node"]["address"].as_str().unwrap().to_owned();
    let new = run(one, "id", &["new-nospam"])["address"].clone();
    assert_ne!(new, old);
    assert_eq!(friends(one)["node"]["address"], new);

    second.end();
    until(one, |list| list["friends"][0]["connected"] == false);
    let (exit, said) = code(on(one, "msg").args(["kitchen", "anybody?"]));
    assert!(exit == 6 && said.contains("is not connected"), "{exit} {said}");
    let (exit, said) = code(on(two, "msg").args([&uid_a, "text"]));
    assert!(exit == 3 && said.contains("ioex up"), "{exit} {said}");
    first.end();
}

#[test]
fn what_was_acknowledged_outlives_a_killed_node() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (one.path(), two.path());
    let (first, mut second, _, uid_b) = befriended(one, two);
    let mut delivered = Vec::new();
    for round in 0..3 {
        // Messages are under way when the node dies: nobody waits for it.
        let victim = rustix::process::Pid::from_child(&second.up);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            rustix::process::kill_process(victim, Signal::KILL).unwrap();
        });
        for n in 0..1_000 {
            let text = format!("{round} {n}");
            let output = on(one, "msg").args([&uid_b, &text, "--json"]).output().unwrap();
            if !output.status.success() {
                break;
            }
            delivered.push(text);
        }
        killer.join().unwrap();
        second.up.wait().unwrap();
        second = Node::up(two, &["--mailbox", &first.url()]);
        until(one, |list| list["friends"][0]["connected"] == true);
        let kept = texts(two);
        let wanted: Vec<_> = kept.iter().filter(|text| delivered.contains(text)).cloned().collect();
        assert_eq!(wanted, delivered, "each that was acknowledged, once and in order");
        // At most the one whose receipt did not come back, in every round.
        assert!(kept.len() <= delivered.len() + round + 1, "{kept:?}");
    }
    assert!(!delivered.is_empty(), "nothing got through before any of the kills");
    second.end();
    first.end();
}
