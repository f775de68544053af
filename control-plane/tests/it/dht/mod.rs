//! The distributed hash table, over real sockets.

mod command;
mod hostile;
pub(crate) mod independent;
mod network;
mod sybil;

use control_plane::dht::{GateSettings, Node, NodeSettings};
use identity::SecretKey;
use std::time::Duration;

/// A node on a free port that talks with this machine without caps.
async fn node(bootstrap: &[String], change: impl FnOnce(&mut NodeSettings)) -> Node {
    let mut settings = NodeSettings {
        port: 0,
        is_server: true,
        bootstrap: bootstrap.to_vec(),
        public_ip: None,
        items_max: 4_096,
        gate: GateSettings { own_networks: vec!["127.0.0.1/32".parse().unwrap()], ..GateSettings::default() },
    };
    change(&mut settings);
    Node::start(&settings).await.unwrap()
}

fn address(node: &Node) -> String {
    format!("127.0.0.1:{}", node.port())
}

/// A private network of so many servers, all of which know others.
async fn network(count: usize) -> Vec<Node> {
    let mut nodes = vec![node(&[], |_| {}).await];
    let bootstrap = [address(&nodes[0])];
    for _ in 1..count {
        nodes.push(node(&bootstrap, |_| {}).await);
    }
    for node in nodes.iter().skip(1).chain(&nodes) {
        joined(node).await;
    }
    nodes
}

/// Waits until a node knows others.
async fn joined(node: &Node) {
    for _ in 0..40 {
        if node.refresh().await.unwrap() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the node on port {} found nobody", node.port());
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}
