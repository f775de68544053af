//! Files to friends through real nodes: in parts, over kills and moves, and as commands.

use crate::api::{self, ask, get};
use crate::friends::{Peer, address, key, uid, up};
use crate::node::{Node, code, json, on};
use crate::program::{err, out};
use peer::friends::{FILE_LEN_MAX, FileTransfer, Outcome, SendError, Standing};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(120);

/// Some hundred parts that differ from each other.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 1_000 + i % 241) as u8).collect()
}

async fn befriended(home: &Path, node: &Node) -> (Peer, Peer) {
    let (one, two) = (Peer::start(home, node, 1).await, Peer::start(home, node, 2).await);
    assert_eq!(one.friends.add(address(2), String::new()).await.unwrap(), Standing::Asked);
    two.until_standing(1, Standing::Asking).await;
    two.friends.accept(uid(1)).await.unwrap();
    one.until_connected(2).await;
    two.until_connected(1).await;
    (one, two)
}

async fn begin(from: &Peer, to: u8, name: &str, bytes: &[u8]) -> FileTransfer {
    from.friends.send_file(uid(to).to_string(), name.into(), bytes.to_vec().into()).await.unwrap()
}

/// Waits until the receiver keeps so many bytes.
async fn until_kept(transfer: &FileTransfer, bytes: u64) {
    let mut progress = transfer.progress.clone();
    let kept = progress.wait_for(|progress| progress.kept >= bytes);
    timeout(LONG, kept).await.expect("in time").unwrap();
}

async fn outcome(transfer: &FileTransfer) -> Outcome {
    timeout(LONG, transfer.outcome()).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_both_ways_beside_messages_and_over_kills_of_the_receiver() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let (one, mut two) = befriended(home.path(), &node).await;
    let (large, small) = (bytes(330_000), bytes(5));
    let there = begin(&one, 2, "large.bin", &large).await;
    let another = one.friends.send_file(uid(2).to_string(), "x".into(), vec![1].into()).await;
    assert!(matches!(another, Err(SendError::FileUnderWay { .. })), "{another:?}");
    let back = begin(&two, 1, "small.bin", &small).await;
    until_kept(&there, 1).await;
    assert!(matches!(one.send(2, "beside it").await.unwrap(), Outcome::Delivered(_)));
    assert!(matches!(outcome(&back).await, Outcome::Delivered(_)));
    assert_eq!(one.friends.file(1).await.unwrap().unwrap().1, small);
    // Killed without a word, twice; what was acknowledged is not sent again.
    for share in [3, 2] {
        until_kept(&there, large.len() as u64 / share).await;
        let kept = there.progress.borrow().kept;
        two.kill().await;
        two = Peer::start(home.path(), &node, 2).await;
        until_kept(&there, kept + 1).await;
    }
    assert!(matches!(outcome(&there).await, Outcome::Delivered(_)));
    assert_eq!(two.texts().await, ["beside it", ""], "each once; a file counts when it is whole");
    let (file, got) = two.friends.file(2).await.unwrap().unwrap();
    assert!(got == large && file.name == "large.bin" && file.len as usize == large.len());
    assert_eq!(file.hash, *blake3::hash(&large).as_bytes());
    // A sender that is killed amid it sends the same file again, and it goes on.
    let third = bytes(300_000);
    let transfer = begin(&one, 2, "third.bin", &third).await;
    until_kept(&transfer, 100_000).await;
    let kept = transfer.progress.borrow().kept;
    one.kill().await;
    let one = Peer::start(home.path(), &node, 1).await;
    one.until_connected(2).await;
    let transfer = begin(&one, 2, "third.bin", &third).await;
    let mut progress = transfer.progress.clone();
    let first = timeout(LONG, progress.wait_for(|progress| progress.kept > 0)).await.unwrap().unwrap().kept;
    assert!(first >= kept, "it went on: {first} of {kept}");
    assert!(matches!(outcome(&transfer).await, Outcome::Delivered(_)));
    assert_eq!(two.friends.file(3).await.unwrap().unwrap().1, third);
    let counters = two.friends.status().await.unwrap().counters;
    assert_eq!((counters.malformed, counters.flooded, counters.files_refused), (0, 0, 0));
    // Nobody is there to take one.
    two.friends.leave().await;
    one.until(async |friends| {
        friends.view(uid(2)).await.unwrap().filter(|view| !view.is_connected).map(drop)
    })
    .await;
    assert_eq!(outcome(&begin(&one, 2, "late.bin", &small).await).await, Outcome::Offline);
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_checked_in_order_before_it_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let one = Peer::start(home.path(), &node, 1).await;
    let send = async |to: &str, name: &str, len: usize| {
        one.friends.send_file(to.into(), name.into(), vec![0; len].into()).await
    };
    assert!(matches!(send("nobody", "", 0).await, Err(SendError::Empty)));
    let long = send("nobody", "", FILE_LEN_MAX + 1).await.unwrap_err();
    assert!(long.to_string().contains("5 MiB"), "{long}");
    assert!(matches!(send("nobody", "a/b", 1).await, Err(SendError::FileName { .. })));
    assert!(matches!(send("nobody", "n", 1).await, Err(SendError::BadAddress { .. })));
    assert!(matches!(send(&uid(1).to_string(), "n", 1).await, Err(SendError::Oneself { .. })));
    let stranger = send(&key(2).uid().to_string(), "n", FILE_LEN_MAX).await;
    assert!(matches!(stranger, Err(SendError::NotFriend { standing: None, .. })));
    node.end();
}

/// Two nodes, the second at the first one's mailbox, that are friends; and the second one's UID.
fn befriended_nodes(one: &Path, two: &Path) -> (Node, Node, String) {
    let list = |home: &Path| json(&on(home, "friend").args(["list", "--json"]).output().unwrap());
    let until = |home: &Path, is_so: &dyn Fn(&Value) -> bool| {
        let since = Instant::now();
        loop {
            let list = list(home);
            if is_so(&list) {
                return list;
            }
            assert!(since.elapsed() < LONG, "not in time: {list}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let first = Node::up(one, &["--mailbox", "local"]);
    let second = Node::up(two, &["--mailbox", &first.url()]);
    let uid_of = |list: Value| list["node"]["uid"].as_str().unwrap().to_owned();
    let uid_a = uid_of(until(one, &|list| list["node"]["connected"] == true));
    let list = until(two, &|list| list["node"]["connected"] == true);
    let address = list["node"]["address"].as_str().unwrap().to_owned();
    assert!(on(one, "friend").args(["add", &address]).output().unwrap().status.success());
    until(two, &|list| list["friends"][0]["standing"] == "asking");
    assert!(on(two, "friend").args(["accept", &uid_a]).output().unwrap().status.success());
    for home in [one, two] {
        until(home, &|list| list["friends"][0]["connected"] == true);
    }
    (first, second, uid_of(list))
}

#[test]
fn commands_send_and_save_a_file_though_the_receiving_node_is_killed() {
    let homes: [_; 2] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (one, two) = (homes[0].path(), homes[1].path());
    let (first, mut second, uid) = befriended_nodes(one, two);
    let (path, copy) = (one.join("manual.pdf"), two.join("copy.pdf"));
    let content = bytes(400_000);
    std::fs::write(&path, &content).unwrap();
    // Killed amid it: what was acknowledged is kept, and the rest follows.
    let octets = "content-type: application/octet-stream";
    let answer = ask(one, &format!("POST /v1/files?to={uid}&name=manual.pdf"), &[octets], &content);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let transfer = format!("/v1/files/{}", answer.json()["id"]);
    let kept = || get(one, &transfer).json()["kept_bytes"].as_u64().unwrap();
    api::until(|| kept() > 100_000);
    kill_process(Pid::from_child(&second.up), Signal::KILL).unwrap();
    second.up.wait().unwrap();
    let before = kept();
    assert!(before < 400_000, "it was killed amid it");
    second = Node::up(two, &["--mailbox", &first.url()]);
    api::until(|| kept() > before);
    api::until(|| !get(one, &transfer).json()["status"].is_null());
    let answer = get(one, &transfer).json();
    assert_eq!(
        (&answer["status"], &answer["kept_bytes"]),
        (&"delivered".into(), &400_000.into()),
        "{answer}"
    );

    let message: Value =
        serde_json::from_str(&out(&on(two, "inbox").arg("--json").output().unwrap())).unwrap();
    let hash = blake3::hash(&content).to_string();
    assert_eq!((&message["file"]["name"], &message["file"]["blake3"]), (&"manual.pdf".into(), &hash.into()));
    let shown = out(&on(two, "inbox").output().unwrap());
    assert!(shown.contains("manual.pdf") && shown.contains("ioex inbox save 1"), "{shown}");
    let save = || {
        let mut save = on(two, "inbox");
        save.args(["save", "1", "--output", copy.to_str().unwrap()]);
        save
    };
    let saved = save().output().unwrap();
    assert!(saved.status.success(), "{}", err(&saved));
    assert!(std::fs::read(&copy).unwrap() == content);
    let (exit, said) = code(&mut save());
    assert!(exit == 2 && said.contains("there already"), "{exit} {said}");
    let (exit, said) = code(on(two, "inbox").args(["save", "7", "--output", "-"]));
    assert!(exit == 3 && said.contains("message 7"), "{exit} {said}");

    let small = one.join("small");
    std::fs::write(&small, "a few words").unwrap();
    let answer =
        json(&on(one, "msg").args([&uid, "--json", "--file", small.to_str().unwrap()]).output().unwrap());
    assert_eq!((&answer["status"], &answer["name"]), (&"delivered".into(), &"small".into()), "{answer}");
    let saved = on(two, "inbox").args(["save", "2", "--output", "-"]).output().unwrap();
    assert_eq!(out(&saved), "a few words");

    let (long, empty) = (one.join("long"), one.join("empty"));
    std::fs::write(&long, vec![0; FILE_LEN_MAX + 1]).unwrap();
    std::fs::write(&empty, "").unwrap();
    for (to, path, expected, what) in [
        ("nobody", &empty, 2, "empty"),
        ("nobody", &long, 2, "5 MiB"),
        ("nobody", &one.join("none"), 2, "cannot be read"),
        ("nobody", &path, 2, "no friend's label"),
    ] {
        let (exit, said) = code(on(one, "msg").args([to, "--file", path.to_str().unwrap()]));
        assert!(exit == expected && said.contains(what), "{exit} {said}");
    }
    let (exit, said) = code(on(one, "msg").args([&uid, "text", "--file", path.to_str().unwrap()]));
    assert!(exit == 2 && said.contains("cannot be used with"), "{exit} {said}");
    second.end();
    first.end();
}
