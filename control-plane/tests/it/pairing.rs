//! `ioex pair` between nodes that run.

use crate::node::{Node, on};
use crate::program::err;
use identity::{SecretKey, Uid};
use peer::mailbox::Kind;
use peer::pairing::Code;
use peer::{Client, ClientOptions, Event, Login, Mailbox};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(60);

/// A device in `home`, with its mailbox at `node` ("local" for its own), connected.
fn device(home: &Path, mailbox: &str) -> Node {
    let node = Node::up(home, &["--mailbox", mailbox]);
    until(home, |list| list["node"]["connected"] == true);
    node
}

fn friends(home: &Path) -> Value {
    crate::node::json(&on(home, "friend").args(["list", "--json"]).output().unwrap())
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

fn uid(home: &Path) -> Value {
    friends(home)["node"]["uid"].clone()
}

/// An `ioex pair` that waits.
struct Waiting {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    code: String,
}

impl Waiting {
    fn start(home: &Path, arguments: &[&str]) -> Waiting {
        let mut pair = on(home, "pair");
        pair.args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = pair.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let offered: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(offered["pairing"]["state"], "waiting");
        Waiting { process, lines, code: offered["code"].as_str().unwrap().to_owned() }
    }

    /// What has become of it, and its exit code.
    fn end(mut self) -> (Value, i32) {
        let status = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        (status, self.process.wait().unwrap().code().unwrap())
    }
}

/// `ioex pair -` with this code.
fn typed(home: &Path, code: &str, arguments: &[&str]) -> Output {
    wait(start_typing(home, code, arguments))
}

fn start_typing(home: &Path, code: &str, arguments: &[&str]) -> Child {
    let mut pair = on(home, "pair");
    pair.arg("-").args(arguments).arg("--json");
    let mut process =
        pair.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(process.stdin.take().unwrap(), "{code}").unwrap();
    process
}

fn wait(process: Child) -> Output {
    process.wait_with_output().unwrap()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Other codes with the same nameplate.
fn wrong(code: &str) -> impl Iterator<Item = String> {
    let nameplate = code[..4].to_owned();
    let texts = (0..).flat_map(move |n: u64| {
        (0..10).map({
            let nameplate = nameplate.clone();
            move |check| format!("{nameplate}{n:07}{check}")
        })
    });
    let right: Code = code.parse().unwrap();
    texts.filter(move |text| text.parse::<Code>().is_ok_and(|code| code != right))
}

#[test]
fn a_code_makes_two_devices_friends_and_nothing_writes_it_down() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let log = std::fs::File::create(one.join("log")).unwrap();
    let mut up = on(one, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--mailbox", "local"]);
    up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000").env("IOEX_LOG", "trace").stderr(log);
    let first = Node::start(&mut up);
    until(one, |list| list["node"]["connected"] == true);
    let second = device(two, &first.url());

    let waiting = Waiting::start(one, &[]);
    let code = waiting.code.clone();
    let joined = crate::node::json(&typed(two, &code, &[]));
    assert_eq!((&joined["uid"], &joined["own_device"]), (&uid(one), &true.into()));
    let (status, code_of_exit) = waiting.end();
    assert_eq!((&status["state"], &status["uid"], code_of_exit), (&"paired".into(), &uid(two), 0));
    assert_eq!((&status["confirmed"], &status["wrong_guesses"]), (&true.into(), &0.into()));
    for (home, other) in [(one, two), (two, one)] {
        let list = until(home, |list| list["friends"][0]["connected"] == true);
        let friend = &list["friends"][0];
        assert_eq!((&friend["standing"], &friend["own_device"]), (&"friend".into(), &true.into()));
        assert_eq!((&friend["uid"], list["friends"].as_array().unwrap().len()), (&uid(other), 1));
        let sent = on(home, "msg").arg(uid(other).as_str().unwrap()).arg("it works").output().unwrap();
        assert!(sent.status.success(), "{}", err(&sent));
    }
    // It was for one device.
    assert_eq!(exit(&typed(two, &code, &[])), 3);
    let log = std::fs::read_to_string(one.join("log")).unwrap();
    for text in [code.clone(), code.replace('-', "")] {
        assert!(!log.contains(&text), "the code is in the log");
    }
    second.end();
    first.end();
}

#[test]
fn guesses_are_told_and_the_third_wrong_one_ends_the_code() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let first = device(one, "local");
    let second = device(two, &first.url());
    let waiting = Waiting::start(one, &[]);
    let code = waiting.code.clone();
    for (guess, seen) in wrong(&code).zip(1..=3) {
        let output = typed(two, &guess, &[]);
        assert_eq!(exit(&output), 7, "{}", err(&output));
        assert!(err(&output).contains("the code is wrong"), "{}", err(&output));
        let status = crate::api::get(one, "/v1/pairing").json();
        assert_eq!((&status["wrong_guesses"], &status["wrong_guesses_max"]), (&seen.into(), &3.into()));
    }
    let (status, code_of_exit) = waiting.end();
    assert_eq!((&status["state"], &status["wrong_guesses"], code_of_exit), (&"guessed".into(), &3.into(), 1));
    assert_eq!(exit(&typed(two, &code, &[])), 3, "even the right code comes too late");
    for home in [one, two] {
        assert_eq!(friends(home)["friends"].as_array().unwrap().len(), 0);
    }

    // What is mistyped is found before anybody is asked.
    let mut mistyped = code.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == '0' { '1' } else { '0' });
    let output = typed(two, &mistyped, &[]);
    assert_eq!(exit(&output), 2, "{}", err(&output));
    assert!(!err(&output).contains(&mistyped[5..]), "a code is not repeated: {}", err(&output));

    // A code ends with its time, and when its owner wants it to.
    let waiting = Waiting::start(one, &["--valid", "1"]);
    let code = waiting.code.clone();
    let (status, code_of_exit) = waiting.end();
    assert_eq!((&status["state"], code_of_exit), (&"expired".into(), 1));
    assert_eq!(exit(&typed(two, &code, &[])), 3);
    let waiting = Waiting::start(one, &[]);
    assert_eq!(exit(&typed(one, &waiting.code, &[])), 2, "on the device itself");
    let code = waiting.code.clone();
    assert!(on(one, "pair").arg("--cancel").output().unwrap().status.success());
    let (status, code_of_exit) = waiting.end();
    assert_eq!((&status["state"], code_of_exit), (&"withdrawn".into(), 1));
    assert_eq!(exit(&typed(two, &code, &[])), 3);
    second.end();
    first.end();
}

#[test]
fn of_two_that_type_the_right_code_at_once_one_is_taken() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two, three] = [homes[0].path(), homes[1].path(), homes[2].path()];
    let first = device(one, "local");
    let (second, third) = (device(two, &first.url()), device(three, &first.url()));
    let waiting = Waiting::start(one, &[]);
    let code = waiting.code.clone();
    let racing = [start_typing(two, &code, &[]), start_typing(three, &code, &[])];
    let exits = racing.map(|process| exit(&wait(process)));
    assert_eq!(exits.iter().filter(|exit| **exit == 0).count(), 1, "{exits:?}");
    let (status, _) = waiting.end();
    let winner = if exits[0] == 0 { two } else { three };
    assert_eq!((&status["state"], &status["uid"]), (&"paired".into(), &uid(winner)));
    let list = friends(one);
    assert_eq!((list["friends"].as_array().unwrap().len(), &list["friends"][0]["uid"]), (1, &uid(winner)));
    let loser = if exits[0] == 0 { three } else { two };
    assert_eq!(friends(loser)["friends"].as_array().unwrap().len(), 0);
    [first, second, third].into_iter().for_each(Node::end);
}

#[test]
fn devices_whose_mailboxes_are_at_different_nodes_meet_at_one_and_find_each_other() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let (first, second) = (device(one, "local"), device(two, "local"));
    let waiting = Waiting::start(one, &[]);
    let code = waiting.code.clone();
    let output = typed(two, &code, &[]);
    assert_eq!(exit(&output), 3, "{}", err(&output));
    assert!(err(&output).contains("--at"), "{}", err(&output));
    let joined = crate::node::json(&typed(two, &code, &["--at", &first.url()]));
    assert_eq!(joined["uid"], uid(one));
    assert_eq!(waiting.end().0["confirmed"], true);
    for home in [one, two] {
        let list = until(home, |list| list["friends"][0]["connected"] == true);
        assert_eq!(list["friends"][0]["nodes"].as_array().unwrap().len(), 1, "{list}");
    }
    second.end();
    first.end();
}

/// As `peer/docs/pairing.md` has it: everybody who knows the nameplate can wait there.
fn meeting_of(code: &str) -> (SecretKey, [u8; 4]) {
    let mut bytes = [0; 36];
    let mut hasher = blake3::Hasher::new_derive_key("ioex pairing v1 meeting key");
    hasher.update(&code.as_bytes()[..4]).finalize_xof().fill(&mut bytes);
    (SecretKey::from_seed(bytes[..32].try_into().unwrap()), bytes[32..].try_into().unwrap())
}

async fn open(node: &Node, key: SecretKey, nospam: [u8; 4], friends: Vec<(Uid, u64)>) -> Mailbox {
    let client = Client::new(ClientOptions::default()).unwrap();
    let node = client.node(node.url().parse().unwrap());
    Mailbox::open(&node, Login { key, nospam, friends, latest_sent_us: 0 }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_the_nameplate_ends_the_code_and_learns_nothing() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let first = device(one, "local");
    let second = device(two, &first.url());
    let waiting = Waiting::start(one, &[]);
    let code = waiting.code.clone();
    let (key, nospam) = meeting_of(&code);
    let mut thief = open(&first, key, nospam, Vec::new()).await;
    let typing = start_typing(two, &code, &[]);
    // The base point of the curve, which has the form of a share.
    let mut offer = [0x66; 33];
    (offer[0], offer[1]) = (0x02, 0x58);
    let lying = async {
        loop {
            match thief.next().await.unwrap() {
                Event::Request { from, .. } => {
                    thief.allow(&[(from, 0)]).unwrap();
                    thief.send(Kind::Message, &from, [0; 4], &offer).unwrap();
                }
                Event::Message { from, body, .. } => {
                    assert_eq!(body[0], 0x03, "a proof");
                    assert!(!body.windows(4).any(|part| part == &code.as_bytes()[5..9]));
                    // Reflected, as if it were the host's own.
                    let done = [&[0x04], &body[1..]].concat();
                    thief.send(Kind::Message, &from, [0; 4], &done).unwrap();
                    thief.flush().await.unwrap();
                    return;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LONG, lying).await.expect("in time");
    let output = wait(typing);
    assert_eq!(exit(&output), 4, "{}", err(&output));
    let (status, code_of_exit) = waiting.end();
    assert_eq!((&status["state"], code_of_exit), (&"displaced".into(), 1));
    for home in [one, two] {
        assert_eq!(friends(home)["friends"].as_array().unwrap().len(), 0);
    }
    second.end();
    first.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_know_the_nameplate_get_shares_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let node = device(home.path(), "local");
    let waiting = Waiting::start(home.path(), &[]);
    let (key, nospam) = meeting_of(&waiting.code);
    let meeting = key.uid();
    let mut stranger = open(&node, SecretKey::from_seed([9; 32]), [0; 4], vec![(meeting, 0)]).await;
    // Without a knock nothing is taken, and what is no knock is not answered.
    stranger.send(Kind::Message, &meeting, [0; 4], &[0x03; 200]).unwrap();
    let refused = tokio::time::timeout(LONG, stranger.next()).await.unwrap().unwrap();
    assert!(matches!(refused, Event::NotDelivered { .. }), "{refused:?}");
    let mut share = [0x66; 33];
    (share[0], share[1]) = (0x01, 0x58);
    stranger.send(Kind::Request, &meeting, nospam, &[0x01; 7]).unwrap();
    stranger.send(Kind::Request, &meeting, nospam, &share).unwrap();
    let offered = tokio::time::timeout(LONG, stranger.next()).await.unwrap().unwrap();
    let Event::Message { body, .. } = offered else { panic!("{offered:?}") };
    assert_eq!(
        (body[0], body.len()),
        (0x02, 33),
        "a share, which says nothing of the code or of whose it is"
    );
    // A proof without the code is a guess.
    stranger.send(Kind::Message, &meeting, [0; 4], &[0x03; 200]).unwrap();
    let ended = tokio::time::timeout(LONG, stranger.next()).await.unwrap().unwrap();
    assert!(matches!(&ended, Event::Message { body, .. } if body == &[0x06, 0x01]), "{ended:?}");
    // The device itself has heard of nobody.
    assert_eq!(friends(home.path())["friends"].as_array().unwrap().len(), 0);
    let status = crate::api::get(home.path(), "/v1/pairing").json();
    assert_eq!((&status["state"], &status["wrong_guesses"]), (&"waiting".into(), &1.into()));
    assert!(on(home.path(), "pair").arg("--cancel").output().unwrap().status.success());
    waiting.end();
    node.end();
}

#[test]
fn killed_amid_it_the_two_are_friends_or_strangers_or_one_asks_the_other() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [middle, one, two] = [homes[0].path(), homes[1].path(), homes[2].path()];
    let node = Node::up(middle, &[]);
    let url = node.url();
    for wait_ms in [10, 25, 40] {
        let (mut first, mut second) = (device(one, &url), device(two, &url));
        let (uid_one, uid_two) = (uid(one), uid(two));
        let mut waiting = Waiting::start(one, &[]);
        let typing = start_typing(two, &waiting.code, &[]);
        std::thread::sleep(Duration::from_millis(wait_ms));
        for node in [&mut first, &mut second] {
            node.signal(Signal::KILL);
            node.up.wait().unwrap();
        }
        waiting.process.wait().unwrap();
        wait(typing);
        // Their engines live on, and are adopted.
        let (second, first) = (device(two, &url), device(one, &url));
        let standing = |home: &Path| {
            let list = friends(home);
            list["friends"][0]["standing"].as_str().unwrap_or("none").to_owned()
        };
        let since = Instant::now();
        let (at_one, at_two) = loop {
            let pair = (standing(one), standing(two));
            match (pair.0.as_str(), pair.1.as_str()) {
                ("none", "none") | ("friend", "friend") | ("asked", "asking") => break pair,
                _ => assert!(since.elapsed() < LONG, "{pair:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        // For the next round they are strangers again.
        if at_one != "none" {
            let remove = |home: &Path, who: &Value| {
                let output = on(home, "friend").arg("remove").arg(who.as_str().unwrap()).output().unwrap();
                assert!(output.status.success(), "after ({at_one}, {at_two}): {}", err(&output));
            };
            remove(one, &uid_two);
            remove(two, &uid_one);
        }
        second.end();
        first.end();
    }
    node.end();
}

#[test]
fn without_a_mailbox_there_is_no_code() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::up(home.path(), &[]);
    let pair = |arguments: &[&str]| -> Output {
        let mut pair: Command = on(home.path(), "pair");
        pair.args(arguments).output().unwrap()
    };
    let output = pair(&[]);
    assert_eq!(exit(&output), 3);
    assert!(err(&output).contains("no mailbox"), "{}", err(&output));
    node.end();
}

/// A device that is delivered with a code.
fn delivered_with(home: &Path, code: &str, mailbox: &str) -> Node {
    let file = home.join("sticker");
    std::fs::write(&file, code).unwrap();
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--mailbox", mailbox]);
    up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000").env("IOEX_FRIENDS_PAIRING_CODE", file);
    Node::start(&mut up)
}

/// A code as the factory draws it.
fn drawn(home: &Path) -> String {
    let output = on(home, "pair").arg("--draw").output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until the code that the device was delivered with stands so.
fn until_default_code(home: &Path, state: &str) -> Value {
    let since = Instant::now();
    loop {
        let status = crate::node::json(&on(home, "pair").args(["--status", "--json"]).output().unwrap());
        if status["default_code"]["state"] == state {
            return status["default_code"].clone();
        }
        assert!(since.elapsed() < LONG, "not {state} in time: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_code_of_a_sticker_is_good_for_the_first_device_and_for_no_other_even_after_a_restart() {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [one, two, three] = [0, 1, 2].map(|n| homes[n].path());
    let code = drawn(one);
    assert_eq!((code.len(), code.matches('-').count()), (24, 4), "{code}");
    let first = delivered_with(one, &code, "local");
    let waiting = until_default_code(one, "waiting");
    assert_eq!(waiting["wrong_guesses"], 0, "{waiting}");
    let (second, third) = (device(two, &first.url()), device(three, &first.url()));

    let output = typed(two, &code, &[]);
    assert_eq!(exit(&output), 0, "{}", err(&output));
    for (home, other) in [(one, two), (two, one)] {
        let list = until(home, |list| list["friends"][0]["connected"] == true);
        let friend = &list["friends"][0];
        assert_eq!((&friend["uid"], &friend["own_device"]), (&uid(other), &true.into()), "{list}");
    }
    until_default_code(one, "used");
    let shown = on(one, "pair").arg("--status").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("default code  used"), "{shown}");
    assert_eq!(exit(&typed(three, &code, &[])), 3, "nobody waits any more");

    // Neither is it good once the friend is gone.
    let output = on(one, "friend").args(["remove", uid(two).as_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    first.end();
    let first = delivered_with(one, &code, "local");
    until_default_code(one, "used");
    for node in [third, second, first] {
        node.end();
    }
}

#[test]
fn guesses_make_the_code_of_a_sticker_rest_and_another_code_ends_it() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [homes[0].path(), homes[1].path()];
    let code = drawn(one);
    let first = delivered_with(one, &code, "local");
    until_default_code(one, "waiting");
    let second = device(two, &first.url());
    let nameplate = code.replace('-', "")[..8].to_owned();
    let wrong = (0..).map(|n: u64| format!("{nameplate}{n:012}")).filter(|text| text.parse::<Code>().is_ok());
    for wrong in wrong.filter(|wrong| *wrong != code.replace('-', "")).take(3) {
        let output = typed(two, &wrong, &[]);
        assert_eq!(exit(&output), 7, "{}", err(&output));
    }
    let resting = until_default_code(one, "resting");
    assert_eq!(resting["wrong_guesses"], 3, "{resting}");
    assert!(resting["until_unix_s"].as_u64().is_some(), "{resting}");
    let output = typed(two, &code, &[]);
    assert_eq!(exit(&output), 3, "{}", err(&output));

    let waiting = Waiting::start(one, &[]);
    let output = typed(two, &waiting.code, &[]);
    assert_eq!(exit(&output), 0, "{}", err(&output));
    assert_eq!(waiting.end().0["state"], "paired");
    until_default_code(one, "used");
    second.end();
    first.end();
}

#[test]
fn a_file_that_holds_no_code_for_a_device_ends_the_start() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("sticker");
    let start = |code: Option<&str>| {
        match code {
            Some(code) => std::fs::write(&file, code).unwrap(),
            None => drop(std::fs::remove_file(&file)),
        }
        let mut up = on(home.path(), "up");
        up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--mailbox", "local"]);
        let output = up.env("IOEX_FRIENDS_PAIRING_CODE", &file).output().unwrap();
        assert!(!output.status.success());
        err(&output)
    };
    let code = drawn(home.path());
    let last = if code.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("{}{last}", &code[..23]);
    let short = (0..10).map(|check| format!("12345678901{check}")).find(|text| text.parse::<Code>().is_ok());
    for (content, reason) in [
        (None, "friends.pairing_code names the file"),
        (Some(mistyped.as_str()), "check digit"),
        (Some("5018-2207"), "has 8"),
        (short.as_deref(), "ioex pair --draw"),
    ] {
        let said = start(content);
        assert!(said.contains(reason) && said.contains("sticker"), "{reason}: {said}");
    }
}
