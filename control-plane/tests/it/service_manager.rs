//! `ioex up` under a service manager: a datagram socket that takes what sd_notify(3) sends.

use crate::node::{Node, on};
use rustix::process::Signal;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(home: &Path) -> Manager {
        let path = home.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        Manager { socket, path }
    }

    /// The next message with the assignment `wanted`, and what came before it.
    fn until(&self, wanted: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let len = self.socket.recv(&mut bytes).unwrap_or_else(|error| {
                panic!("no {wanted} came ({error}), but {before:?}");
            });
            let message = String::from_utf8(bytes[..len].to_vec()).unwrap();
            if message.lines().any(|line| line == wanted) {
                return (message, before);
            }
            before.push(message);
        }
    }
}

#[test]
fn the_manager_hears_of_readiness_reloads_and_the_end() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let manager = Manager::new(home);
    let settings = home.join("ioex.toml");
    std::fs::write(&settings, "").unwrap();
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--config"]).arg(&settings);
    up.env("NOTIFY_SOCKET", &manager.path).env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000");
    let mut node = Node::start(&mut up);
    let (ready, before) = manager.until("READY=1");
    assert_eq!(before, [""; 0], "nothing is said before it is ready");
    let listener = node.ready["listeners"][0].as_str().unwrap();
    assert!(ready.contains(&format!("STATUS=serves on {listener}")), "{ready}");

    // A wrong configuration is said in one line, and the node is ready as before.
    std::fs::write(&settings, "[limits]\nconections_max = 5\n").unwrap();
    node.signal(Signal::HUP);
    node.event("reload_failed");
    let (reloading, _) = manager.until("RELOADING=1");
    let since_boot = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(since_boot.is_some_and(|text| text.parse::<u64>().is_ok()), "{reloading}");
    let (_, between) = manager.until("READY=1");
    assert_eq!(
        between,
        ["STATUS=not reloaded, the configuration in force stays: 1 problem in the configuration\n"]
    );

    node.signal(Signal::TERM);
    let (stopping, _) = manager.until("STOPPING=1");
    // The drain's 1 s, 10 s until the engine would be killed, 10 s for the rest.
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=21000000\n"), "{stopping}");
    manager.until("STATUS=drained");
    assert!(node.up.wait().unwrap().success());
}
