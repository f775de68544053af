//! kill -9, a hundred times over one data directory: of the engine, which `ioex up` starts again, and of the whole node,
//! under load, while files are removed, packs compacted and everything scrubbed, and amid its start.

use super::content::Seeded;
use super::load::{Acknowledged, Entry, Load, Removed};
use super::receiver::Receiver;
use super::tidying::Tidying;
use super::{Seed, children, count, processes};
use crate::node::{Node, on};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::node_identity::NodeIdentity;
use identity::SecretKey;
use peer::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Each of these lives of a `ioex up` ends by a kill of the whole node...
const LIVES: u64 = 30;
/// ... after one or two of the engine alone. More in a row would only wait for the supervisor's growing back-off.
const ENGINES_KILLED: u64 = 60;
/// So many of the lives are preceded by one that is killed amid its start.
const STARTS_KILLED: u64 = 10;

#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    let seed = Seed::or(0x10e8);
    let mut seeded = Seeded(seed.0);
    let mut engines_killed: Vec<u64> = (0..LIVES).map(|i| ENGINES_KILLED / LIVES - 1 + i % 2 * 2).collect();
    seeded.shuffle(&mut engines_killed);
    let mut starts_killed: Vec<bool> = (0..LIVES).map(|i| i < STARTS_KILLED).collect();
    seeded.shuffle(&mut starts_killed);
    assert_eq!(LIVES + STARTS_KILLED + engines_killed.iter().sum::<u64>(), 100);

    let mut trial = Trial::new(seeded);
    for (engines_killed, start_killed) in engines_killed.into_iter().zip(starts_killed) {
        if start_killed {
            trial.kill_a_start();
        }
        let mut node = trial.up();
        for _ in 0..engines_killed {
            trial.kill_the_engine(&mut node);
        }
        trial.kill_the_node(node);
    }
    trial.end();
}

struct Trial {
    home: tempfile::TempDir,
    /// One port for all lives: others hold this node's URL.
    listen: String,
    runtime: Runtime,
    client: Client,
    key: SecretKey,
    seeded: Seeded,
    ledger: Vec<Entry>,
}

impl Trial {
    fn new(seeded: Seeded) -> Trial {
        let home = tempfile::tempdir().unwrap();
        let directory = DataDirectory::prepare(&home.path().join("data")).unwrap();
        let key = NodeIdentity::load_or_create(&directory).unwrap().0.key;
        // A loopback address of this process's own and a port that the kernel gives to nobody by itself.
        let [.., a, b, c] = (std::process::id() + 256).to_be_bytes();
        let listen = format!("127.{a}.{b}.{c}:14433");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // A client amid a handshake, or with nothing to send, cannot be told that the engine has died: it must find out.
        let options = ClientOptions {
            connect_timeout: Duration::from_secs(3),
            keep_alive_interval: Duration::from_secs(1),
            ..ClientOptions::default()
        };
        let client = runtime.block_on(async { Client::new(options) }).unwrap();
        Trial { home, listen, runtime, client, key, seeded, ledger: Vec::new() }
    }

    /// `ioex up` with a driver and a storage executor that the seed chooses.
    fn command(&mut self) -> Command {
        let mut up = on(self.home.path(), "up");
        up.args(["--listen", &self.listen])
            .env("IOEX_LOG", "error")
            .env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000")
            // The scrub never rests.
            .env("IOEX_LIMITS_SCRUB_PERIOD_S", "1")
            .env("IOEX_LIMITS_UPKEEP_SHARE_PERCENT", "50");
        up.env("IOEX_ENGINE_STORAGE", ["auto", "threads"][self.seeded.below(2) as usize]);
        up.env("IOEX_ENGINE_DRIVER", ["auto", "epoll"][self.seeded.below(2) as usize]);
        up
    }

    fn up(&mut self) -> Node {
        let node = Node::start(&mut self.command());
        self.check_after_start(&node);
        node
    }

    fn kill_a_start(&mut self) {
        let mut up = self.command().stdout(Stdio::null()).spawn().unwrap();
        // Amid making the certificate, opening the store, listening, or just after all that.
        std::thread::sleep(Duration::from_micros(self.seeded.below(300_000)));
        let pid = Pid::from_child(&up);
        // Stopped, so that it starts no engine while its children are counted.
        kill_process(pid, Signal::STOP).unwrap();
        // The engine of every other one goes on without its `ioex up`; the next one must find it.
        if self.seeded.below(2) == 0 {
            for child in children(pid) {
                let _ = kill_process(child, Signal::KILL);
            }
        }
        up.kill().unwrap();
        up.wait().unwrap();
    }

    fn kill_the_engine(&mut self, node: &mut Node) {
        let (load, tidying) = self.load(node);
        // Half of the publishers have the patience to wait for the engine that takes its place.
        let is_patient = self.seeded.below(2) == 0;
        load.stop();
        kill_process(node.engine(), Signal::KILL).unwrap();
        let (patient, given_up) =
            if is_patient { (Some(load), Vec::new()) } else { (None, load.abort(self.runtime.handle())) };
        node.event("engine_died");
        node.ready["engine"]["pid"] = node.event("engine_started")["pid"].take();
        let entries = match patient {
            Some(load) => {
                let entries = load.finish(self.runtime.handle());
                if let Some(failed) = entries.iter().find(|entry| is_failed_publication(entry)) {
                    panic!("a publication did not outlast a restart of the engine: {failed:?}");
                }
                entries
            }
            None => given_up,
        };
        tidying.note(&mut self.ledger);
        self.ledger.extend(entries);
        self.check_after_start(node);
    }

    fn kill_the_node(&mut self, mut node: Node) {
        let (load, tidying) = self.load(&node);
        load.stop();
        let mut pids = [node.engine(), Pid::from_child(&node.up)];
        self.seeded.shuffle(&mut pids);
        for pid in pids {
            kill_process(pid, Signal::KILL).unwrap();
        }
        node.up.wait().unwrap();
        tidying.note(&mut self.ledger);
        self.ledger.extend(load.abort(self.runtime.handle()));
    }

    /// Publishers at work that have been told of as many bytes as the seed wants, and an operator beside them.
    fn load(&mut self, node: &Node) -> (Load, Tidying) {
        let tidying =
            Tidying::start(&engine_socket(self.home.path()), &self.ledger, &self.key, &mut self.seeded);
        let publishers = 1 + self.seeded.below(4);
        let peer = self.client.node(node.url().parse().unwrap());
        let mut load = Load::start(self.runtime.handle(), &peer, &self.key, publishers, &mut self.seeded);
        if self.seeded.below(3) == 0 {
            load.import(&engine_socket(self.home.path()), &self.key, &mut self.seeded);
        }
        // From "none at all" to "several large files".
        let bytes = [0, 1, 64 << 10, 1 << 20, 2 << 20][self.seeded.below(5) as usize];
        load.wait_for(self.seeded.below(bytes + 1));
        (load, tidying)
    }

    /// The newest entries, which the last kill may have hurt, and a sample of the older ones.
    fn check_after_start(&mut self, node: &Node) {
        let newest = self.ledger.len().saturating_sub(8);
        let sample: Vec<usize> =
            (0..newest.min(4)).map(|_| self.seeded.below(newest as u64) as usize).collect();
        self.check(node, |ledger| {
            sample.iter().chain(&Vec::from_iter(newest..ledger.len())).copied().collect()
        });
    }

    fn check(&self, node: &Node, choose: impl Fn(&[Entry]) -> Vec<usize>) {
        let peer = self.client.node(node.url().parse().unwrap());
        let receiver = Receiver { handle: self.runtime.handle(), node: &peer, key: &self.key };
        receiver.check(choose(&self.ledger).into_iter().map(|i| &self.ledger[i]));
    }

    fn end(mut self) {
        let node = self.up();
        self.check(&node, |ledger| (0..ledger.len()).collect());
        let status = EngineSocket::connect(&engine_socket(self.home.path())).unwrap().status().unwrap();
        let quarantined = count(&status, &["ioex_store_quarantined"]);
        assert_eq!(quarantined, 0, "kill -9 damages nothing that was acknowledged");
        let acknowledged =
            self.ledger.iter().filter(|e| matches!(e.acknowledged, Acknowledged::File)).count();
        let removed = |state| self.ledger.iter().filter(|entry| entry.removed == state).count();
        assert!(removed(Removed::Done) > 10 && removed(Removed::Begun) > 0, "hardly anything was removed");
        let cut_off = self.ledger.len() - acknowledged;
        assert!(acknowledged > 50 && cut_off > 20, "{acknowledged} files acknowledged, {cut_off} cut off");
        node.end();
    }
}

/// A test that fails leaves no engine behind that has lost its `ioex up`.
impl Drop for Trial {
    fn drop(&mut self) {
        let home = self.home.path().to_str().unwrap();
        for engine in processes("cmdline", |line| line.contains("ioex-engine") && line.contains(home)) {
            let _ = kill_process(engine, Signal::KILL);
        }
    }
}

/// An import ends with its engine; a publication over HTTP/3 goes on with the next one.
fn is_failed_publication(entry: &Entry) -> bool {
    let Acknowledged::Bytes(_, why) = &entry.acknowledged else { return false };
    !why.contains("control socket") && !why.contains("no engine runs")
}

fn engine_socket(home: &Path) -> std::path::PathBuf {
    DataDirectory::existing(&home.join("data")).engine_socket()
}
