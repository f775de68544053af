//! kill -9 of nodes while a file is spread over them and while it is fetched from them: both end as if nothing had
//! happened, for the code makes one node losable, and a node that comes back is used again.

use super::{Seed, Seeded, kill_amid, kills};
use crate::node::{Node, on};
use crate::program::err;
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use identity::Uid;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Four of any six shards suffice, and each node holds two of each group.
const CODE: &str = "4+2";
const NODES: usize = 3;

/// Kills of nodes in `make test`; half of them while publishing, half while fetching.
const NODE_KILLS: u64 = 28;

const FILE_LEN: usize = 12 << 20;

/// A node, which is killed and started again at the same address.
struct Source {
    home: TempDir,
    listen: String,
    node: Node,
    /// Times that `ioex up` has started its engine again; it waits longer each time.
    restarts: u32,
}

/// What of a node is killed.
enum Victim {
    /// The engine alone: `ioex up` starts it again.
    Engine,
    /// Both programs, one after the other.
    Node,
}

/// When a killed node is there again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    /// At once: whoever publishes is patient with a node that has a part of the file.
    Soon,
    /// At once, or when the others have done without it.
    SoonOrLate,
}

impl Source {
    fn start(number: usize, publisher: &Uid) -> Source {
        let home = tempfile::tempdir().unwrap();
        let settings = format!("[publishers]\ntrusted = [\"{publisher}\"]\n");
        std::fs::write(home.path().join("ioex.toml"), settings).unwrap();
        // A loopback address of this process's own and a port that the kernel gives to nobody by itself.
        let [.., a, b, c] = (std::process::id() + 256).to_be_bytes();
        let listen = format!("127.{a}.{b}.{c}:{}", 14_440 + number);
        let node = up(home.path(), &listen);
        Source { home, listen, node, restarts: 0 }
    }

    fn kill(&mut self, victim: &Victim) {
        // Its `ioex up` first: it might start another engine meanwhile, and that one would keep the port.
        if matches!(victim, Victim::Node) {
            self.node.up.kill().unwrap();
        }
        kill_process(self.node.engine(), Signal::KILL).unwrap();
    }

    /// Waits until the node is there again.
    fn revive(&mut self, victim: &Victim) {
        match victim {
            Victim::Engine => {
                self.node.event("engine_died");
                self.node.ready["engine"]["pid"] = self.node.event("engine_started")["pid"].take();
                self.restarts += 1;
            }
            Victim::Node => {
                self.node.up.wait().unwrap();
                self.node = up(self.home.path(), &self.listen);
                self.restarts = 0;
            }
        }
    }
}

fn up(home: &Path, listen: &str) -> Node {
    let mut up = on(home, "up");
    up.args(["--listen", listen, "--cores", "0", "--config"]).arg(home.join("ioex.toml"));
    Node::start(
        up.env("IOEX_LOG", "error")
            .env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000")
            .env("IOEX_LIMITS_SCRUB_PERIOD_S", "1"),
    )
}

/// A publisher with its nodes.
struct Fleet {
    vendor: TempDir,
    sources: Vec<Source>,
    seeded: Seeded,
}

impl Fleet {
    fn start(seeded: Seeded) -> Fleet {
        let vendor = tempfile::tempdir().unwrap();
        let directory = DataDirectory::prepare(&vendor.path().join("data")).unwrap();
        let publisher = NodeIdentity::load_or_create(&directory).unwrap().0.uid();
        let sources = (0..NODES).map(|number| Source::start(number, &publisher)).collect();
        Fleet { vendor, sources, seeded }
    }

    fn new_file(&mut self) -> (PathBuf, Vec<u8>) {
        let seeded = &mut self.seeded;
        let bytes: Vec<u8> =
            std::iter::repeat_with(|| seeded.next().to_le_bytes()).flatten().take(FILE_LEN).collect();
        let path = self.vendor.path().join("firmware.img");
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    fn publish(&self, file: &Path) -> Child {
        let mut publish = on(self.vendor.path(), "publish");
        publish.arg(file).args(["--code", CODE, "--segment-size", "128KiB", "--encrypt", "open"]);
        self.spawn(publish, "--to")
    }

    fn fetch(&self, list: &str, out: &Path) -> Child {
        let mut fetch = on(self.vendor.path(), "fetch");
        fetch.arg(list).arg("-o").arg(out);
        self.spawn(fetch, "--from")
    }

    fn spawn(&self, mut command: Command, flag: &str) -> Child {
        for source in &self.sources {
            command.args([flag, &source.node.url()]);
        }
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Kills a node at some moment of `within` and brings it back, before `beside` is done or after.
    fn kill_one<T>(&mut self, within: Duration, back: Back, beside: impl FnOnce() -> T) -> T {
        std::thread::sleep(Duration::from_micros(self.seeded.below(within.as_micros() as u64)));
        let victim = self.seeded.below(NODES as u64) as usize;
        let is_late = back == Back::SoonOrLate && self.seeded.below(2) == 0;
        let source = &mut self.sources[victim];
        let what =
            if source.restarts < 2 && self.seeded.below(2) == 0 { Victim::Engine } else { Victim::Node };
        source.kill(&what);
        if is_late {
            let outcome = beside();
            source.revive(&what);
            return outcome;
        }
        source.revive(&what);
        beside()
    }

    fn end(self) {
        self.sources.into_iter().for_each(|source| source.node.end());
    }
}

fn report(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list_of(published: &Value) -> String {
    published["list"].as_str().unwrap().to_owned()
}

#[test]
fn nodes_that_are_killed_amid_transfers_cost_nothing_but_time() {
    let seed = Seed::or(0x50_c3);
    let mut fleet = Fleet::start(Seeded(seed.0));
    let (path, _) = fleet.new_file();
    let started = Instant::now();
    let mut list = list_of(&report(fleet.publish(&path)));
    let publishing = started.elapsed();
    let out = fleet.vendor.path().join("fetched.img");
    let started = Instant::now();
    report(fleet.fetch(&list, &out));
    let fetching = started.elapsed();
    std::fs::remove_file(&out).unwrap();

    let (mut left_behind, mut killed) = (0, 0);
    while killed < kills(NODE_KILLS) {
        let (path, bytes) = fleet.new_file();
        let publisher = fleet.publish(&path);
        let published = fleet.kill_one(publishing, Back::Soon, || report(publisher));
        list = list_of(&published);
        let nodes = published["nodes"].as_array().unwrap();
        if nodes.iter().any(|node| !node["failure"].is_null()) {
            // The node was away for longer than a publisher waits; it gets its part from another publication.
            left_behind += 1;
            list = list_of(&report(fleet.publish(&path)));
        }

        let mut fetcher = fleet.fetch(&list, &out);
        let mut is_something_kept = false;
        if fleet.seeded.below(3) == 0 {
            is_something_kept = kill_amid(&mut fetcher, &out);
            if !is_something_kept {
                assert!(std::fs::read(&out).unwrap() == bytes, "what has the name is whole");
                std::fs::remove_file(&out).unwrap();
            }
            fetcher = fleet.fetch(&list, &out);
        }
        let fetched = fleet.kill_one(fetching, Back::SoonOrLate, || report(fetcher));
        let has_resumed = fetched["bytes_resumed"].as_u64().unwrap() > 0;
        assert!(has_resumed || !is_something_kept, "what a killed fetcher had verified was not kept");
        assert!(std::fs::read(&out).unwrap() == bytes, "another file than was published");
        std::fs::remove_file(&out).unwrap();
        killed += 2;
    }
    assert!(left_behind < killed / 2, "{left_behind} of {} publications gave a node up", killed / 2);
    // Nobody's disk is the worse for it.
    for source in &fleet.sources {
        let verified = on(source.home.path(), "store").args(["verify", "--json"]).output().unwrap();
        assert!(verified.status.success(), "{}", err(&verified));
    }
    fleet.end();
}
