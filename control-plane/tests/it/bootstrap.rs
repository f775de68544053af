//! Bootstrap nodes that find each other, and peers that choose among them.

use crate::node::{Node, code, json, on};
use crate::program::out;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(90);

/// `ioex up` in this role, through this node of the DHT, looking and publishing every second.
fn up(home: &Path, role: &str, dht: Option<&str>, more: &[&str]) -> Node {
    let mut up = on(home, "up");
    up.args(["--role", role, "--listen", "127.0.0.1:0", "--cores", "0", "--dht", "127.0.0.1:0"]);
    if role == "bootstrap" {
        up.args(["--relay", "127.0.0.1:0"]);
    }
    if let Some(dht) = dht {
        up.args(["--dht-bootstrap", dht]);
    }
    up.env("IOEX_DHT_REPUBLISH_S", "1").env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000");
    Node::start(up.args(more))
}

pub fn dht(node: &Node) -> String {
    node.ready["dht"].as_str().unwrap().to_string()
}

pub fn uid(node: &Node) -> String {
    node.ready["uid"].as_str().unwrap().to_string()
}

/// Asks until it is so; what is not answered is `Null`.
pub fn until(home: &Path, command: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let output = on(home, command[0]).args(&command[1..]).arg("--json").output().unwrap();
        let answer = if output.status.success() { json(&output) } else { Value::Null };
        if is_so(&answer) {
            return answer;
        }
        assert!(start.elapsed() < LONG, "{command:?}: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The node with this UID in the answer of `ioex bootstrap list`.
pub fn entry<'a>(answer: &'a Value, uid: &str) -> &'a Value {
    let nodes = answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().find(|node| node["uid"] == uid).unwrap_or(&Value::Null)
}

/// Waits until `home` has found all of these up.
fn until_up(home: &Path, uids: &[&str]) -> Value {
    until(home, &["bootstrap", "list"], |list| uids.iter().all(|uid| entry(list, uid)["up"] == true))
}

/// As a machine that has lost its power: neither program can say anything.
pub fn kill(mut node: Node) {
    node.signal(Signal::KILL);
    node.up.wait().unwrap();
    kill_process(node.engine(), Signal::KILL).unwrap();
}

#[test]
fn given_one_address_they_find_each_other_and_survive_a_wiped_disk() {
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let home = |i: usize| homes[i].path();
    let first = up(home(0), "bootstrap", None, &[]);
    assert_eq!(first.ready["role"], "bootstrap");
    assert!(!first.ready["relay"].as_array().unwrap().is_empty());
    let second = up(home(1), "bootstrap", Some(&dht(&first)), &[]);
    let third = up(home(2), "bootstrap", Some(&dht(&first)), &[]);
    let uids = [uid(&first), uid(&second), uid(&third)];
    for i in 0..3 {
        let others: Vec<_> = uids.iter().map(String::as_str).filter(|other| *other != uids[i]).collect();
        let list = until_up(home(i), &others);
        let other = entry(&list, others[0]);
        assert!(other["urls"][0].as_str().unwrap().contains(others[0]), "{other}");
        assert_eq!(
            (&other["version"], &other["origin"]),
            (&env!("CARGO_PKG_VERSION").into(), &"found".into())
        );
        assert!(other["load_percent"].is_u64() && other["round_trip_ms"].is_f64(), "{other}");
    }
    let text = out(&on(home(0), "bootstrap").arg("list").output().unwrap());
    assert!(text.contains(&second.url()) && text.contains("LOAD"), "{text}");

    // A pure bootstrap node stores nothing for anybody, itself included, and says so.
    let file = home(0).join("file");
    std::fs::write(&file, "content").unwrap();
    let (exit, text) = code(on(home(0), "publish").arg(&file).args(["--to", &first.url()]));
    assert!(exit != 0 && text.contains("keeps no content for anybody"), "{exit} {text}");

    // Most of the others die. What is left is found by one that has lost its disk, and with it its identity.
    kill(third);
    let second_dht = dht(&second);
    kill(first);
    std::fs::remove_dir_all(home(2).join("data")).unwrap();
    let again = up(home(2), "bootstrap", Some(&second_dht), &[]);
    assert!(!uids.contains(&uid(&again)));
    until_up(home(2), &[&uids[1]]);
    until_up(home(1), &[&uid(&again)]);
    until(home(1), &["bootstrap", "list"], |list| entry(list, &uids[0])["up"] == false);
    // What one knows is on its disk.
    let known = home(1).join("data/bootstrap/nodes");
    let start = Instant::now();
    while !std::fs::read_to_string(&known).is_ok_and(|text| text.contains(&uid(&again))) {
        assert!(start.elapsed() < LONG, "the new node is not written down");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_peer_whose_node_dies_is_at_another() {
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let home = |i: usize| homes[i].path();
    let first = up(home(0), "bootstrap", None, &[]);
    let uid_of_first = uid(&first);
    let mut nodes = vec![up(home(1), "bootstrap", Some(&dht(&first)), &[]), first];
    let peer = up(home(2), "peer", Some(&dht(&nodes[1])), &[]);
    assert_eq!(peer.ready["mailbox"], "auto");
    let knows_both = |peers: &Value| {
        peers["node"]["connected"] == true && nodes.iter().all(|node| entry(peers, &uid(node))["up"] == true)
    };
    let before = until(home(2), &["peers"], knows_both);
    let at = before["node"]["url"].as_str().unwrap().to_string();
    let (dies, stays) = {
        let dies = nodes.iter().position(|node| at == node.url()).expect("it is at one of the two");
        (nodes.remove(dies), nodes.remove(0))
    };
    assert_eq!(entry(&before, &uid(&dies))["use"], "current");
    assert_eq!(entry(&before, &uid(&stays))["use"], "spare");
    // Its record says where it is, to others as well: as the node that will stay reads it.
    let observer = if uid(&stays) == uid_of_first { home(0) } else { home(1) };
    let names = |record: &Value| record["bootstrap_nodes"][0].as_str().unwrap_or_default().to_string();
    let died = uid(&dies);
    until(observer, &["dht", "get", &uid(&peer)], |record| names(record) == died);
    let survivor = stays.url();
    kill(dies);
    until(home(2), &["peers"], |peers| {
        peers["node"]["connected"] == true && peers["node"]["url"] == survivor.as_str()
    });
    let text = out(&on(home(2), "peers").output().unwrap());
    assert!(text.contains(&format!("connected to {survivor}")) && text.contains("no friends"), "{text}");
    until(observer, &["dht", "get", &uid(&peer)], |record| names(record) == uid(&stays));

    // Without a DHT a peer goes to what its owner names.
    let mut alone = on(home(3), "up");
    alone.args(["--listen", "127.0.0.1:0", "--cores", "0", "--mailbox", "auto"]);
    let alone = Node::start(&mut alone);
    until(home(3), &["peers"], |peers| {
        peers["node"]["reason"].as_str().is_some_and(|reason| reason.contains("ioex bootstrap add"))
    });
    let (exit, text) = code(on(home(3), "bootstrap").args(["add", &alone.url()]));
    assert!(exit == 2 && text.contains("the node itself"), "{exit} {text}");
    let (exit, text) = code(on(home(3), "bootstrap").args(["add", "https://127.0.0.1:4433"]));
    assert!(exit == 2 && text.contains("pins no UID"), "{exit} {text}");
    let added = json(&on(home(3), "bootstrap").args(["add", &survivor, "--json"]).output().unwrap());
    assert_eq!(added["uid"], uid(&stays));
    until(home(3), &["peers"], |peers| peers["node"]["connected"] == true);
}

#[test]
fn friends_at_different_nodes_find_each_other_by_their_addresses() {
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let home = |i: usize| homes[i].path();
    let first = up(home(0), "bootstrap", None, &[]);
    let second = up(home(1), "bootstrap", Some(&dht(&first)), &[]);
    // Each at a node that it names; of the other they know an address.
    let one = up(home(2), "peer", Some(&dht(&first)), &["--mailbox", &first.url()]);
    let two = up(home(3), "peer", Some(&dht(&first)), &["--mailbox", &second.url()]);
    let names = |record: &Value| record["bootstrap_nodes"][0].as_str().unwrap_or_default().to_string();
    for (peer, node) in [(&one, &first), (&two, &second)] {
        let at = uid(node);
        until(home(0), &["dht", "get", &uid(peer)], |record| names(record) == at);
    }
    let address = json(&on(home(3), "id").args(["show", "--json"]).output().unwrap());
    let address = address["address"].as_str().unwrap().to_string();
    json(&on(home(2), "friend").args(["add", &address, "--json"]).output().unwrap());
    until(home(3), &["friend", "accept", &uid(&one)], |accepted| !accepted.is_null());
    let sent = until(home(2), &["msg", &uid(&two), "hello"], |sent| !sent.is_null());
    assert_eq!(sent["status"], "delivered", "{sent}");
    let inbox = out(&on(home(3), "inbox").output().unwrap());
    assert!(inbox.contains(&format!("{}: hello", uid(&one))), "{inbox}");
}

#[test]
fn a_file_is_found_by_its_address_alone_though_a_holder_has_vanished() {
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let home = |i: usize| homes[i].path();
    let holder = up(home(0), "cache", None, &[]);
    let vanishes = up(home(1), "cache", Some(&dht(&holder)), &[]);
    let asks = up(home(2), "phone", Some(&dht(&holder)), &[]);
    for i in 0..3 {
        until(home(i), &["dht", "stat"], |stat| stat["record"]["sequence_ms"].is_i64());
    }
    let file = home(0).join("firmware.img");
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    // Nothing but this makes the holder announce it.
    let published = json(&on(home(0), "publish").arg(&file).arg("--json").output().unwrap());
    let list = published["list"].as_str().unwrap();
    json(&on(home(1), "dht").args(["put", list, "--json"]).output().unwrap());
    until(home(2), &["dht", "get", list], |found| {
        found["providers"].as_array().is_some_and(|all| all.len() == 2)
    });
    kill(vanishes);
    let fetched = until(home(2), &["fetch", list, "-o", home(2).join("out").to_str().unwrap()], |fetched| {
        !fetched.is_null()
    });
    assert_eq!(std::fs::read(home(2).join("out")).unwrap(), content);
    let from = fetched["nodes"].as_array().unwrap().iter().find(|node| node["bytes"] != 0).unwrap();
    assert!(from["node"].as_str().unwrap().contains(&uid(&holder)), "{fetched}");
    // What nobody announces is not there.
    let (exit, text) = code(on(home(2), "fetch").args([&"5e".repeat(32), "-o", "-"]));
    assert!(exit == 3, "{exit} {text}");
    drop(asks);
}

#[test]
fn without_a_running_node_it_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for command in [vec!["bootstrap", "list"], vec!["peers"]] {
        let (exit, text) = code(on(home.path(), command[0]).args(&command[1..]));
        assert!(exit == 3 && text.contains("ioex up"), "{exit} {text}");
    }
}
