//! ICE agents by others (aioice): they gather relayed candidates, check connectivity and talk, through the
//! relay alone.

use std::net::SocketAddr;

use super::node::{PASSWORD, Settings, TurnNode, USER};
use crate::node::{DRIVERS, python};

/// Two agents reach each other over `transport`; each sends so many messages, and gets each one back.
fn agents_connect(node: &TurnNode, server: SocketAddr, transport: &str) {
    const MESSAGES: u64 = 100;
    let (ip, port, messages) = (server.ip().to_string(), server.port().to_string(), MESSAGES.to_string());
    let seen = python("ice_agents.py", &[&ip, &port, USER, PASSWORD, transport, &messages]);
    for candidates in seen["candidates"].as_array().expect("two agents") {
        let candidates = candidates.as_array().expect("candidates");
        assert!(!candidates.is_empty(), "{seen}");
        for candidate in candidates {
            assert_eq!((&candidate[0], &candidate[1]), (&"relay".into(), &ip.as_str().into()), "{seen}");
        }
    }
    assert_eq!(
        seen["intact"],
        serde_json::json!([MESSAGES, MESSAGES]),
        "{transport}: {seen}\n{}",
        node.log()
    );
}

#[test]
fn aioice_agents_connect_through_the_relay_alone() {
    for driver in DRIVERS {
        for cores in ["0", "0,1"] {
            let mut settings = Settings { cores, has_tls: true, ..Settings::on(driver) };
            // They need no peer but each other.
            settings.policy.peer_allow = Vec::new();
            let node = TurnNode::start(settings);
            agents_connect(&node, node.address, "udp");
            let relayed = node.metric("ioex_relay_packets_total", "direction=\"to_peer\"");
            agents_connect(&node, node.address, "tcp");
            agents_connect(&node, node.tls.expect("a TLS listener"), "tls");
            assert!(relayed >= 400, "{driver}: {relayed} packets went through the relay");
        }
    }
}
