//! Permissions and CreatePermission (RFC 8656 sections 9 and 10).

use super::world::{OWN_V4, RELAY_V4, World, client, peer, peer_v6, policy};
use relay::policy::{RelayLimits, RelayPolicy};
use relay::stun::{AttributeType, Method};
use relay::turn::Cause;
use std::net::SocketAddr;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_permission_lasts_five_minutes_for_every_port() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    let mut elsewhere = peer(1);
    elsewhere.set_port(1);
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(world.send(client(1), peer(1), b"hello"), None);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    world.pass_unnoticed(299);
    assert_eq!(world.receive(relay, elsewhere), Some((0, client(1))));
    assert_eq!(world.receive(relay, peer(2)), None);
    assert_eq!(world.send(client(1), elsewhere, b"hello"), Some((relay, elsewhere)));
    assert_eq!(world.send(client(1), peer(2), b"hello"), None);
    // Sending refreshes nothing.
    world.pass_unnoticed(1);
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(world.send(client(1), peer(1), b"hello"), None);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    assert_eq!(world.receive(relay, peer(1)), Some((0, client(1))));
}

#[test]
fn a_permission_is_refreshed_by_both_requests() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.refresh(client(1), 3_600).code(), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    world.pass(200);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    world.pass(200);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    world.pass(299);
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(1))));
    world.pass(1);
    assert_eq!(world.receive(relay, peer(1)), None, "the channel lives, the permission does not");
    assert_eq!(world.channel_data(client(1), 0x4000), None);
}

#[test]
fn permissions_of_one_allocation_are_nothing_to_another() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    let (other_relay, _) = world.allocated(client(2));
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    assert_eq!(world.receive(other_relay, peer(1)), None);
    assert_eq!(world.send(client(2), peer(1), b""), None);
    assert_eq!(world.send(client(1), peer(1), b""), Some((relay, peer(1))), "no bytes are a datagram too");
}

#[test]
fn all_permissions_or_none() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.permit(client(1), &[]), 400);
    assert_eq!(world.permit(client(1), &[peer(1), peer_v6(1)]), 443);
    assert_eq!(world.permit(client(1), &[peer(1), address("10.0.0.1:1")]), 403);
    let response = world.ask(client(1), Method::CreatePermission, |writer| {
        writer
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1))
            .attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2]);
    });
    assert_eq!(response.code(), 400);
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(world.permit(client(1), &[peer(1), peer(2), peer(1)]), 0);
    assert!(world.receive(relay, peer(1)).is_some() && world.receive(relay, peer(2)).is_some());
}

#[test]
fn denied_peers() {
    let mut world = World::new();
    world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    let denied = [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "10.1.2.3:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "[::1]:80",
        "[::]:80",
        "[::ffff:127.0.0.1]:80",
        // Allowed as IPv4, but no peer of an IPv6 socket.
        "[::ffff:192.0.2.1]:80",
        "[64:ff9b::7f00:1]:80",
        "[fe80::1]:80",
        "[fc00::1]:80",
        "[ff02::1]:80",
    ];
    for text in denied {
        assert_eq!(world.permit(client(1), &[address(text)]), 403, "{text}");
        assert_eq!(world.bind(client(1), 0x4000, address(text)), 403, "{text}");
        assert_eq!(world.send(client(1), address(text), b"x"), None, "{text}");
    }
}

#[test]
fn the_nodes_own_addresses_only_where_another_client_is_relayed() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    let (other_relay, other) = world.allocated(client(2));
    let mut service = other;
    service.set_port(53);
    assert_eq!(
        world.permit(client(1), &[service]),
        0,
        "a permission is for an address, the port does not count"
    );
    assert_eq!(world.send(client(1), other, b"x"), Some((relay, other)));
    assert_eq!(world.send(client(1), service, b"x"), None);
    assert_eq!(world.bind(client(1), 0x4000, service), 403);
    assert_eq!(world.bind(client(1), 0x4001, other), 0);
    assert_eq!(world.channel_data(client(1), 0x4001), Some((relay, other)));

    let own = world.relays.open[&relay];
    assert_eq!(world.permit(client(2), &[own]), 0);
    assert_eq!(world.receive(other_relay, own), Some((0, client(2))));

    assert_eq!(world.refresh(client(2), 0).code(), 0);
    assert_eq!(world.channel_data(client(1), 0x4001), None, "it is relayed no more");
    assert_eq!(world.send(client(1), other, b"x"), None);
}

#[test]
fn the_table_is_bounded() {
    let limits = RelayLimits { permissions_max: 3, channels_max: 2, ..RelayLimits::default() };
    let mut world = World::with(RelayPolicy { limits, ..policy() });
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.permit(client(1), &[peer(1), peer(2)]), 0);
    assert_eq!(world.permit(client(1), &[peer(1), peer(3), peer(4)]), 508);
    assert_eq!(world.receive(relay, peer(3)), None);
    assert_eq!(world.permit(client(1), &[peer(3)]), 0);
    assert_eq!(world.permit(client(1), &[peer(1), peer(2), peer(3)]), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(4)), 508, "no room for its permission");
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.bind(client(1), 0x4001, peer(2)), 0);
    assert_eq!(world.bind(client(1), 0x4002, peer(3)), 508);
    // What has expired makes room, whether or not a timer has run.
    world.pass_unnoticed(300);
    assert_eq!(world.permit(client(1), &[peer(4), peer(5), peer(6)]), 0);
    assert_eq!(world.permit(client(1), &[peer(1)]), 508);
}

#[test]
fn an_own_address_that_is_not_relayed_from_gets_no_permission() {
    let mut world = World::new();
    world.allocated(client(1));
    let own = SocketAddr::new(OWN_V4.parse().expect("an address"), 50_000);
    assert_eq!(world.permit(client(1), &[own]), 403);
    assert_eq!(world.permit(client(1), &[peer(1), own]), 403, "all of them or none");
    assert_eq!(world.bind(client(1), 0x4000, own), 403);
    let relayed_from = SocketAddr::new(RELAY_V4.parse().expect("an address"), 1);
    assert_eq!(world.permit(client(1), &[relayed_from]), 0, "an allocation may come there yet");
    assert_eq!(world.send(client(1), relayed_from, b"x"), None);
    // Whom the operator lets in is let in.
    world.policy.peer_allow.push("198.51.100.10/32".parse().expect("a prefix"));
    world.apply_policy();
    assert_eq!(world.permit(client(1), &[own]), 0);
}

#[test]
fn a_new_policy_holds_at_once() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    let (other_relay, _) = world.allocated(client(2));
    for from in [client(1), client(2)] {
        assert_eq!(world.permit(from, &[peer(1), peer(2)]), 0);
        assert_eq!(world.bind(from, 0x4001, peer(1)), 0);
        assert_eq!(world.bind(from, 0x4002, peer(2)), 0);
    }
    let before = world.policy.clone();
    world.policy.peer_deny = vec!["192.0.2.1/32".parse().expect("a prefix")];
    world.apply_policy();
    // Each way is the first one that an allocation is asked for under the new policy.
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(world.server.counters().drops[Cause::NoPermission as usize], 1);
    assert_eq!(world.channel_data(client(2), 0x4001), None);
    assert_eq!(world.channel_data(client(1), 0x4001), None);
    assert_eq!(world.receive(other_relay, peer(1)), None);
    for from in [client(1), client(2)] {
        assert_eq!(world.send(from, peer(1), b"x"), None);
        assert!(world.channel_data(from, 0x4002).is_some(), "the other peer is not concerned");
        assert_eq!(world.permit(from, &[peer(1)]), 403);
    }
    // What was taken away is not given back, but may be asked for again.
    world.policy = before;
    world.apply_policy();
    assert_eq!(world.channel_data(client(1), 0x4001), None);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    assert_eq!(world.channel_data(client(1), 0x4001), Some((relay, peer(1))));
}

#[test]
fn an_address_that_becomes_the_nodes_own_is_held_to_live_ports() {
    let mut world = World::new();
    world.policy.peer_allow.push("198.51.100.9/32".parse().expect("a prefix"));
    world.apply_policy();
    let (relay, _) = world.allocated(client(1));
    let service = SocketAddr::new(RELAY_V4.parse().expect("an address"), 53);
    assert_eq!(world.bind(client(1), 0x4000, service), 0);
    assert_eq!(world.channel_data(client(1), 0x4000), Some((relay, service)));
    world.policy.peer_allow.pop();
    world.apply_policy();
    assert_eq!(world.channel_data(client(1), 0x4000), None);
    assert_eq!(world.send(client(1), service, b"x"), None);
}
