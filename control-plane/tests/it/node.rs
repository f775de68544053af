//! A whole node: `ioex up` with the real engine, publishing to it and fetching from it.

use crate::program::{err, ioex};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::node_identity::NodeIdentity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// A running `ioex up`.
pub struct Node {
    pub up: Child,
    events: Lines<BufReader<ChildStdout>>,
    pub ready: Value,
}

impl Node {
    /// Starts `ioex up` in `home` on a free port of loopback and waits until it is ready.
    pub fn up(home: &Path, arguments: &[&str]) -> Node {
        let mut up = on(home, "up");
        up.args(["--listen", "127.0.0.1:0", "--cores", "0"]).args(arguments);
        // A client that was refused amid an upload may leave without a word: quinn holds CONNECTION_CLOSE back while
        // its congestion window is full. The engine waits for such a client as long as a drain may last.
        Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"))
    }

    /// Starts this `ioex up` and waits until it is ready.
    pub fn start(up: &mut Command) -> Node {
        let engine = Path::new(env!("CARGO_BIN_EXE_ioex")).with_file_name("ioex-engine");
        assert!(engine.exists(), "{} is missing; run: cargo build -p engine", engine.display());
        let mut up = up.arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let events = BufReader::new(up.stdout.take().unwrap()).lines();
        let mut node = Node { up, events, ready: Value::Null };
        node.ready = node.event("ready");
        node
    }

    pub fn url(&self) -> String {
        self.ready["urls"][0].as_str().unwrap().to_string()
    }

    fn uid(&self) -> &str {
        self.ready["uid"].as_str().unwrap()
    }

    pub fn engine(&self) -> Pid {
        Pid::from_raw(self.ready["engine"]["pid"].as_i64().unwrap() as i32).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.up), signal).unwrap();
    }

    /// The next event, which must be `name`. What the DHT says by the way, whenever it happens, is passed over.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.events.next();
            let line =
                line.unwrap_or_else(|| panic!("`ioex up` ended before {name}; why stands above")).unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
            assert_eq!(event["event"], "dht_joined", "{line} in place of {name}");
        }
    }

    pub fn end(mut self) {
        self.signal(Signal::TERM);
        self.event("draining");
        assert_eq!(self.event("stopped")["drained"], true);
        assert!(self.up.wait().unwrap().success());
    }
}

/// A test that fails leaves no processes behind.
impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(None) = self.up.try_wait() {
            self.signal(Signal::INT);
            let _ = self.up.wait();
        }
    }
}

/// `ioex COMMAND --data HOME/data`.
pub fn on(home: &Path, command: &str) -> Command {
    let mut ioex = ioex(home);
    ioex.arg(command).arg("--data").arg(home.join("data"));
    ioex
}

pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", err(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn code(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), err(&output))
}

/// A file whose segments all differ, and whose last one is short.
fn file(home: &Path) -> (PathBuf, Vec<u8>) {
    let mut content = vec![0; (3 << 20) + 4321];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for byte in &mut content {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    let path = home.join("firmware.img");
    std::fs::write(&path, &content).unwrap();
    (path, content)
}

#[test]
fn a_file_goes_through_a_node_and_every_failure_has_its_code() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (path, content) = file(home);
    let node = Node::up(home, &[]);
    let published =
        json(&on(home, "publish").arg(&path).args(["--version", "1.4.2", "--json"]).output().unwrap());
    assert_eq!((&published["bytes"], &published["segments"]), (&Value::from(content.len()), &Value::from(4)));
    let list = published["list"].as_str().unwrap();
    let url = published["urls"][0].as_str().unwrap();
    assert_eq!(url, format!("{}/list/{list}", node.url()));

    // By URL, under the publisher's name, in another directory.
    let elsewhere = tempfile::tempdir().unwrap();
    let fetch = |arguments: &[&str]| {
        let mut command = ioex(elsewhere.path());
        command.current_dir(elsewhere.path()).arg("fetch").args(arguments);
        command.arg("--data").arg(elsewhere.path().join("data"));
        command
    };
    let fetched = json(&fetch(&[url, "--publisher", node.uid(), "--json"]).output().unwrap());
    assert_eq!((&fetched["name"], &fetched["version"]), (&"firmware.img".into(), &"1.4.2".into()));
    assert_eq!(std::fs::read(elsewhere.path().join("firmware.img")).unwrap(), content);
    // What is there already is not overwritten unless it is named.
    let (exit, text) = code(&mut fetch(&[url]));
    assert!(exit == 2 && text.contains("is there already"), "{exit} {text}");
    // By hash, to standard output, from the local node.
    let piped = on(home, "fetch").args([list, "-o", "-"]).output().unwrap();
    assert!(piped.status.success(), "{}", err(&piped));
    assert!(piped.stdout == content, "{} bytes of {} came", piped.stdout.len(), content.len());

    // A segment is fetched as one, and never in a list's place.
    let segment = store::Hash::of(&content[..1 << 20]).to_string();
    let as_segment = fetch(&[&format!("{}/b3/{segment}", node.url()), "-o", "-"]).output().unwrap();
    assert!(as_segment.stdout == content[..1 << 20], "{}", err(&as_segment));

    let stranger = identity::SecretKey::from_seed([3; 32]).uid().to_string();
    let unknown = "ab".repeat(32);
    let authority = node.url().split_once('@').unwrap().1.to_string();
    let pinned_wrongly = format!("https://{stranger}@{authority}");
    let ca = home.join("data/tls/cert.pem");
    for (arguments, expected, what) in [
        (vec![unknown.as_str(), "--from", &node.url()], 3, "does not hold"),
        (vec![segment.as_str(), "--from", &node.url()], 4, "not a list"),
        (vec![list, "--from", &node.url(), "--publisher", &stranger], 4, "is signed by"),
        (vec![list, "--from", &pinned_wrongly], 7, "but the URL pins"),
        (vec![list, "--from", &format!("https://{authority}")], 7, "not trusted"),
        (vec![list, "--from", &format!("https://{authority}"), "--ca", ca.to_str().unwrap()], 0, ""),
    ] {
        let (exit, text) = code(fetch(&arguments).args(["-o", "other"]));
        assert!(exit == expected && text.contains(what), "{arguments:?}: {exit} {text}");
        assert_eq!(elsewhere.path().join("other").exists(), expected == 0, "{arguments:?}");
    }
    node.end();
}

#[test]
fn a_publisher_is_taken_once_the_configuration_names_it() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (path, content) = file(home);
    let vendor = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&vendor.path().join("data")).unwrap();
    let uid = NodeIdentity::load_or_create(&directory).unwrap().0.uid();
    let settings = home.join("ioex.toml");
    std::fs::write(&settings, "").unwrap();
    let mut node = Node::up(home, &["--config", settings.to_str().unwrap()]);
    let publish = || {
        let mut command = on(vendor.path(), "publish");
        command.arg(&path).args(["--to", &node.url(), "--json"]);
        command
    };
    let (exit, text) = code(&mut publish());
    assert!(exit == 7 && text.contains("add that UID to the publishers"), "{exit} {text}");

    std::fs::write(&settings, "[publishers]\ntrusted = [\"nobody\"]\n").unwrap();
    let mut publish = publish();
    node.signal(Signal::HUP);
    let failed = node.event("reload_failed");
    assert!(failed["reason"].as_str().unwrap().contains("ioex.toml:2:12"), "{failed}");

    std::fs::write(&settings, format!("[publishers]\ntrusted = [\"{uid}\"]\n")).unwrap();
    node.signal(Signal::HUP);
    let reloaded = node.event("reloaded");
    assert_eq!(
        reloaded["policy_generation"].as_u64(),
        node.ready["policy_generation"].as_u64().map(|n| n + 1)
    );
    // One more publisher is a change of one entry, and no whole policy.
    let mut engine = EngineSocket::connect(&home.join("data/run/engine.sock")).unwrap();
    let counters = engine.status().unwrap().counters;
    let counter = |name: &str| counters.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    assert_eq!(counter("ioex_policies_total{result=\"applied\"}"), Some(1));
    assert_eq!(counter("ioex_policy_changes_total{result=\"applied\"}"), Some(1));
    let published = json(&publish.output().unwrap());
    assert_eq!(published["publisher"], uid.to_string());
    let url = published["urls"][0].as_str().unwrap();
    let fetched = on(vendor.path(), "fetch").args([url, "-o", "-"]).output().unwrap();
    assert!(fetched.stdout == content, "{}", err(&fetched));
    node.end();
}

#[test]
fn a_full_store_has_its_own_code_and_goes_on_reading() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let settings = home.join("ioex.toml");
    std::fs::write(&settings, "[limits]\nstore_bytes_max = \"16 MiB\"\n").unwrap();
    let settings = settings.to_str().unwrap();
    let node = Node::up(home, &["--config", settings]);
    let (small, content) = file(home);
    let published = json(&on(home, "publish").arg(&small).arg("--json").output().unwrap());
    let large = home.join("large.img");
    let repeated: Vec<u8> = (0u32..5 << 20).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&large, repeated).unwrap();
    for to in [vec![], vec!["--to".to_string(), node.url()]] {
        let (exit, text) = code(on(home, "publish").arg(&large).args(&to));
        assert!(exit == 5 && text.contains("full"), "{to:?}: {exit} {text}");
    }
    let url = published["urls"][0].as_str().unwrap();
    let fetched = on(home, "fetch").args([url, "-o", "-"]).output().unwrap();
    assert!(fetched.stdout == content, "{}", err(&fetched));
    node.end();
}

#[test]
fn an_engine_that_dies_is_replaced_on_the_same_port() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (path, content) = file(home);
    let mut node = Node::up(home, &["--driver", "epoll"]);
    assert_eq!(node.ready["engine"]["driver"], "epoll");
    let published = json(&on(home, "publish").arg(&path).arg("--json").output().unwrap());
    kill_process(node.engine(), Signal::KILL).unwrap();
    let died = node.event("engine_died");
    assert!(died["status"].as_str().unwrap().contains("signal: 9"), "{died}");
    let started = node.event("engine_started");
    assert_ne!(started["pid"], node.ready["engine"]["pid"]);
    let url = published["urls"][0].as_str().unwrap();
    let fetched = on(home, "fetch").args([url, "-o", "-"]).output().unwrap();
    assert!(fetched.stdout == content, "{}", err(&fetched));
    node.end();
}

#[test]
fn an_engine_outlives_its_control_plane_and_is_adopted() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut first = Node::up(home, &[]);
    first.up.kill().unwrap();
    first.up.wait().unwrap();
    let second = Node::up(home, &[]);
    assert_eq!(second.ready["engine"]["adopted"], true);
    assert_eq!(second.ready["engine"]["pid"], first.ready["engine"]["pid"]);
    assert_eq!((second.url(), &second.ready["certificate"]), (first.url(), &Value::from("kept")));
    let engine = second.engine();
    second.end();
    // It has ended: either its number is free, or its parent (this machine's init) has yet to collect it.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", engine.as_raw_pid())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}
