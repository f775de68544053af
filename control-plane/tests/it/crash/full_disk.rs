//! A file system without a free byte: what was acknowledged stays and is served, the rest is refused with a reason, and
//! room makes the node take uploads again.

use super::Seed;
use super::content::{File, Seeded};
use super::load::{Acknowledged, Entry, Load};
use super::receiver::Receiver;
use crate::node::{Node, code, on};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::node_identity::NodeIdentity;
use peer::{Client, ClientOptions};
use rustix::process::{Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs on a directory, as long as this lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Tmpfs> {
        std::fs::create_dir(at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], at).then(|| Tmpfs(at.into()))
    }

    fn resize(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], &self.0));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    Command::new("mount").args(arguments).arg(at).output().is_ok_and(|output| output.status.success())
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it was skipped")]
fn a_full_disk_refuses_uploads_and_serves_on() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let Some(disk) = Tmpfs::mount(&home.join("data"), "40m") else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let seed = Seed::or(0xd15c);
    let mut seeded = Seeded(seed.0);
    let mut node = Node::up(home, &[]);
    let directory = DataDirectory::existing(&home.join("data"));
    let key = NodeIdentity::load(&directory).unwrap().key;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let handle = runtime.handle();
    let client = runtime.block_on(async { Client::new(ClientOptions::default()) }).unwrap();
    let peer = client.node(node.url().parse().unwrap());
    let receiver = Receiver { handle, node: &peer, key: &key };

    // Each publisher ends with the first refusal. Smaller files fit where larger ones do not, so each has its own end.
    let mut load = Load::start(handle, &peer, &key, 3, &mut seeded);
    load.import(&directory.engine_socket(), &key, &mut seeded);
    let mut ledger = load.until_refused(handle);
    let refusals: Vec<&String> = ledger.iter().filter_map(refusal).collect();
    assert_eq!(refusals.len(), 4);
    assert!(refusals.iter().all(|why| why.contains("full") || why.contains("space")), "{refusals:?}");
    assert!(ledger.iter().any(|entry| matches!(entry.acknowledged, Acknowledged::File)));
    receiver.check(&ledger);

    // A person is told, with the exit code for it, in both ways to publish.
    let large = File { seed: seeded.next(), len: 40 << 20, segment_len: 1 << 20, has_outboards: true };
    let path = home.join(large.name());
    std::fs::write(&path, large.bytes()).unwrap();
    for to in [vec![], vec!["--to".to_string(), node.url()]] {
        let (exit, text) = code(on(home, "publish").arg(&path).args(&to));
        assert!(exit == 5 && (text.contains("full") || text.contains("space")), "{to:?}: {exit} {text}");
    }

    // An engine that dies on the full disk is replaced, and serves; also where not even its policy can be written.
    for filler in ["filler", "more"] {
        fill(&home.join("data").join(filler));
        kill_process(node.engine(), Signal::KILL).unwrap();
        node.event("engine_died");
        node.ready["engine"]["pid"] = node.event("engine_started")["pid"].take();
        receiver.check(&ledger);
    }
    let generation =
        EngineSocket::connect(&directory.engine_socket()).unwrap().status().unwrap().policy_generation;
    assert!(generation >= 1, "the policy before it holds");
    let (exit, text) = code(on(home, "publish").arg(&path));
    assert!(exit == 5, "{exit} {text}");

    disk.resize("96m");
    let load = Load::start(handle, &peer, &key, 3, &mut seeded);
    load.wait_for(4 << 20);
    let more = load.finish(handle);
    assert_eq!(more.iter().find_map(refusal), None);
    ledger.extend(more);
    let (exit, text) = code(on(home, "publish").arg(&path).args(["--to", &node.url()]));
    assert!(exit == 0, "{exit} {text}");
    receiver.check(&ledger);
    node.end();
}

fn refusal(entry: &Entry) -> Option<&String> {
    match &entry.acknowledged {
        Acknowledged::File => None,
        Acknowledged::Bytes(_, why) => Some(why),
    }
}

/// Takes what is left of the file system.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok_and(|len| len > 0) {}
}
