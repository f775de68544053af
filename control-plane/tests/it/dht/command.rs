//! `ioex dht` against running nodes.

use crate::node::{Node, code, json, on};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// `ioex dht ARGUMENTS` of the node in `home`, as JSON.
fn dht(home: &Path, arguments: &[&str]) -> Value {
    json(&on(home, "dht").args(arguments).arg("--json").output().unwrap())
}

/// Asks until it is so.
fn until(home: &Path, arguments: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let output = on(home, "dht").args(arguments).arg("--json").output().unwrap();
        let answer = if output.status.success() { json(&output) } else { Value::Null };
        if is_so(&answer) {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{arguments:?}: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn nodes_find_each_other_and_what_they_say_of_themselves() {
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let home = |i: usize| homes[i].path();
    let first = Node::up(home(0), &["--dht", "127.0.0.1:0"]);
    let listens = first.ready["dht"].as_str().unwrap().to_string();
    let others: Vec<_> =
        (1..3).map(|i| Node::up(home(i), &["--dht", "127.0.0.1:0", "--dht-bootstrap", &listens])).collect();
    for i in 0..3 {
        let stat = until(home(i), &["stat"], |stat| stat["nodes"].as_u64() > Some(1));
        assert_eq!((&stat["network"], &stat["server"]), (&"private".into(), &true.into()));
        until(home(i), &["stat"], |stat| stat["record"]["sequence_ms"].is_i64());
    }
    // What one says of itself, the others read.
    let uid = others[0].ready["uid"].as_str().unwrap();
    let record = dht(home(2), &["get", uid]);
    assert_eq!((&record["uid"], &record["over"]), (&uid.into(), &false.into()));
    let endpoints = record["endpoints"].as_array().unwrap();
    let authority = others[0].url().split_once('@').unwrap().1.to_string();
    assert!(
        endpoints.contains(&serde_json::json!({ "service": "content", "address": authority })),
        "{record}"
    );
    let mine = others[0].ready["dht"].as_str().unwrap();
    assert!(endpoints.contains(&serde_json::json!({ "service": "dht", "address": mine })), "{record}");
    let again = dht(home(1), &["put"]);
    assert!(again["sequence_ms"].as_i64() > record["sequence_ms"].as_i64());
    // Who provides a list.
    let list = "5e".repeat(32);
    let (exit, text) = code(on(home(0), "dht").args(["get", &list]));
    assert!(exit == 3 && text.contains("nobody announces"), "{exit} {text}");
    dht(home(1), &["put", &list]);
    assert_eq!(dht(home(0), &["get", &list])["providers"], serde_json::json!([uid]));
    assert_eq!(dht(home(1), &["stat"])["lists"], 1);
    dht(home(1), &["put", &list, "--end"]);
    assert_eq!(dht(home(1), &["stat"])["lists"], 0);
    // For people.
    let text = crate::program::out(&on(home(2), "dht").args(["get", uid]).output().unwrap());
    assert!(text.contains("UID") && text.contains(&authority), "{text}");
    let text = crate::program::out(&on(home(2), "dht").arg("stat").output().unwrap());
    assert!(text.contains("private on udp://127.0.0.1:"), "{text}");
    // What cannot be.
    let stranger = identity::SecretKey::from_seed([3; 32]).uid().to_string();
    for (arguments, expected, what) in [
        (vec!["get", stranger.as_str()], 3, "no record"),
        (vec!["get", "nonsense"], 2, "neither a UID"),
        (vec!["put", "nonsense"], 2, "64 hexadecimal digits"),
        (vec!["put", list.as_str(), "--end"], 3, "does not announce"),
    ] {
        let (exit, text) = code(on(home(2), "dht").args(&arguments));
        assert!(exit == expected && text.contains(what), "{arguments:?}: {exit} {text}");
    }
}

#[test]
fn without_a_node_or_without_a_dht_it_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let (exit, text) = code(on(home.path(), "dht").arg("stat"));
    assert!(exit == 3 && text.contains("ioex up"), "{exit} {text}");
    let node = Node::up(home.path(), &[]);
    assert!(node.ready["dht"].is_null());
    let (exit, text) = code(on(home.path(), "dht").arg("stat"));
    assert!(exit == 3 && text.contains("dht.listen"), "{exit} {text}");
}

#[test]
fn a_node_finds_its_network_again_without_its_bootstrap_node() {
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let home = |i: usize| homes[i].path();
    let first = Node::up(home(0), &["--dht", "127.0.0.1:0"]);
    let listens = first.ready["dht"].as_str().unwrap().to_string();
    let up = |i: usize| Node::up(home(i), &["--dht", "127.0.0.1:0", "--dht-bootstrap", &listens]);
    let (second, third) = (up(1), up(2));
    for i in 1..3 {
        until(home(i), &["stat"], |stat| stat["nodes"].as_u64() > Some(1));
    }
    let known = home(1).join("data/dht/nodes");
    let others = third.ready["dht"].as_str().unwrap();
    let start = Instant::now();
    while !std::fs::read_to_string(&known).is_ok_and(|text| text.contains(others)) {
        assert!(start.elapsed() < Duration::from_secs(60), "the third node is not written down");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(first);
    drop(second);
    let again = up(1);
    until(home(1), &["stat"], |stat| stat["nodes"].as_u64() > Some(0));
    drop(again);
}
