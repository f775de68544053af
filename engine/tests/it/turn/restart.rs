//! The engine is killed and comes back: so do its clients, and nothing of what it gives out has leaked.

use super::client::{Client, EchoPeer, Link, Login, Refused};
use super::node::{Settings, TurnNode};
use crate::node::DRIVERS;

const CHANNEL: u16 = 0x4000;

#[test]
fn clients_that_ask_again_are_served_at_once() {
    for driver in DRIVERS {
        let settings = Settings { cores: "0,1", ..Settings::on(driver) };
        let peer = EchoPeer::start(settings.ip);
        let mut node = TurnNode::start(settings);
        let mut clients: Vec<Client> = (0..8)
            .map(|_| {
                let (mut client, _) = Client::allocated(node.address);
                client.bind(CHANNEL, peer.address).expect("a channel");
                client.echo(CHANNEL, b"before");
                client
            })
            .collect();
        node.kill();
        for client in &clients {
            // Nobody is there; the error comes back with a later call.
            let _ = client.link.send(b"");
            let _ = client.link.receive();
        }
        node.start_again();
        for client in &mut clients {
            let sent = client.requests_sent;
            // The nonce is one of the process that was killed: it is stale. So is the allocation.
            assert_eq!(client.refresh(600), Err(Refused(437)), "{driver}");
            client.allocate().expect("a new allocation");
            client.bind(CHANNEL, peer.address).expect("a channel");
            // Two for the Refresh, as its nonce is stale; nothing had to be sent twice, so no client waited
            // for its timer of 500 ms.
            assert_eq!(client.requests_sent - sent, 4, "{driver}");
            assert_eq!(client.echo(CHANNEL, b"after"), 1, "{driver}");
        }
        assert_eq!(node.sessions().len(), 8, "{driver}");
    }
}

/// Allocates until there is no port left. The kernel chooses a client's shard, and each shard has half of the
/// ports: a hundred clients in a row do not all come to the one that has none while the other has.
fn exhaust(node: &TurnNode) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut refused_in_a_row = 0;
    while refused_in_a_row < 100 {
        let mut client = Client::new(Link::udp(node.address), Login::user());
        match client.allocate() {
            Ok(_) => {
                clients.push(client);
                refused_in_a_row = 0;
            }
            Err(Refused(508)) => refused_in_a_row += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    clients
}

#[test]
fn ports_and_quotas_are_whole_after_a_kill() {
    for driver in DRIVERS {
        let ports = Some("50000-50063");
        let mut node = TurnNode::start(Settings { cores: "0,1", ports, ..Settings::on(driver) });
        assert_eq!(exhaust(&node).len(), 64, "{driver}");
        node.kill();
        node.start_again();
        let clients = exhaust(&node);
        assert_eq!(clients.len(), 64, "{driver}: as many as before");
        let refused = Client::new(Link::udp(node.address), Login::user()).allocate();
        assert_eq!(refused, Err(Refused(508)), "{driver}");

        // The quota counts what there is, and no ghosts.
        let mut policy = node.policy();
        policy.limits.allocations_per_user_max = 16;
        node.set_policy(policy);
        for _ in 0..2 {
            node.kill();
            node.start_again();
            let mut kept = Vec::new();
            let refused = loop {
                let mut client = Client::new(Link::udp(node.address), Login::user());
                match client.allocate() {
                    Ok(_) => kept.push(client),
                    Err(refused) => break refused,
                }
            };
            assert_eq!((kept.len(), refused), (16, Refused(486)), "{driver}");
            // What a client gives back may be had again.
            kept[0].refresh(0).expect("it ends");
            kept[0].allocate().expect("and begins anew");
        }
    }
}
