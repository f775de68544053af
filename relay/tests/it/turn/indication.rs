//! Send and Data indications, the ICMP attribute (RFC 8656 section 11), and what is counted.

use super::world::{World, client, peer, peer_v6, policy};
use relay::policy::{RelayLimits, RelayPolicy};
use relay::stun::{AttributeType, Class, Message, Method};
use relay::turn::{Action, Cause, DATA_INDICATION_HEADER_LEN_MAX, Direction, Usage};

#[test]
fn a_send_indication_needs_its_attributes() {
    let mut world = World::new();
    world.allocated(client(1));
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    let mut no_port = peer(1);
    no_port.set_port(0);
    assert_eq!(world.send(client(1), no_port, b"x"), None);
    let without_data = world.unsigned(Class::Indication, Method::Send, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1));
    });
    let without_peer = world.unsigned(Class::Indication, Method::Send, |writer| {
        writer.attribute(AttributeType::DATA, b"x");
    });
    let with_unknown = world.unsigned(Class::Indication, Method::Send, |writer| {
        writer
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1))
            .attribute(AttributeType::DATA, b"x")
            .attribute(AttributeType(0x7777), &[]);
    });
    for message in [without_data, without_peer, with_unknown] {
        assert!(world.act(client(1), &message, |action| action == Action::Drop(Cause::Malformed)));
    }
}

#[test]
fn dont_fragment_is_for_ipv4() {
    let mut world = World::new();
    world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(world.permit(client(1), &[peer(1), peer_v6(1)]), 0);
    for (to, expected) in [(peer(1), true), (peer_v6(1), false)] {
        let message = world.unsigned(Class::Indication, Method::Send, |writer| {
            writer
                .xor_address(AttributeType::XOR_PEER_ADDRESS, to)
                .attribute(AttributeType::DONT_FRAGMENT, &[])
                .attribute(AttributeType::DATA, b"x");
        });
        let set = world.act(client(1), &message, |action| match action {
            Action::Relay { dont_fragment, .. } => dont_fragment,
            other => panic!("{other:?}"),
        });
        assert_eq!(set, expected);
    }
}

#[test]
fn a_data_indication_is_what_clients_read() {
    let mut world = World::new();
    for (from, header_len) in [(peer(1), 36), (peer_v6(1), 48)] {
        for payload_len in [0, 1, 4, 1_200, 65_000] {
            let mut message = vec![0; DATA_INDICATION_HEADER_LEN_MAX];
            assert_eq!(world.server.data_indication(from, payload_len, &mut message), header_len);
            message.truncate(header_len);
            message.resize(header_len + payload_len, 7);
            message.resize(message.len().next_multiple_of(4), 0);
            let message = Message::decode(&message).expect("well-formed");
            assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
            assert_eq!(message.xor_address(AttributeType::XOR_PEER_ADDRESS), Ok(Some(from)));
            assert_eq!(message.data(), Some(&vec![7; payload_len][..]));
        }
    }
    assert_eq!(world.server.data_indication(peer(1), 70_000, &mut [0; 48]), 0);
    assert_eq!(world.server.data_indication(peer_v6(1), 10, &mut [0; 47]), 0);
}

#[test]
fn icmp_errors_are_told_to_whoever_has_a_permission() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    let now = world.now();
    assert_eq!(world.server.icmp(now, relay, peer(1), 3, 3, 0), None);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    let (to, bytes) = world.server.icmp(now, relay, peer(1), 3, 4, 1_400).expect("told");
    assert_eq!(to, client(1));
    let message = Message::decode(bytes).expect("well-formed");
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
    assert_eq!(message.xor_address(AttributeType::XOR_PEER_ADDRESS), Ok(Some(peer(1))));
    // RFC 8656 section 18.13: 16 reserved bits, 7 of type, 9 of code, 32 of data.
    let expected = [0, 0, 3 << 1, 4, 0, 0, 5, 0x78];
    assert_eq!(message.find(AttributeType::ICMP), Some(&expected[..]));
    assert_eq!(message.data(), None);
    for kind in [0, 4, 5, 8, 12] {
        assert_eq!(world.server.icmp(now, relay, peer(1), kind, 0, 0), None, "type {kind}");
    }
    world.pass_unnoticed(300);
    let now = world.now();
    assert_eq!(world.server.icmp(now, relay, peer(1), 3, 3, 0), None);
}

#[test]
fn what_goes_is_counted() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    world.bind(client(1), 0x4000, peer(1));
    assert!(world.send(client(1), peer(1), &[0; 100]).is_some());
    let now = world.now();
    let index = world.server.find(&client(1)).expect("it lives");
    assert!(world.server.admit(now, index, Direction::ToPeer, 50, 60_000));
    assert!(world.server.admit(now, index, Direction::ToClient, 2, 2_400));
    assert!(world.server.peer(now, relay, peer(2)).is_err());
    assert!(world.server.channel(now, index, 0x4001).is_err());
    let expected =
        Usage { to_peer_packets: 51, to_peer_bytes: 60_100, to_client_packets: 2, to_client_bytes: 2_400 };
    let record = world.server.sessions(now).next().expect("a session");
    assert_eq!((record.usage, &record.peers[..]), (expected, &[peer(1).ip()][..]));
    let counters = world.server.counters();
    assert_eq!(counters.usage, expected);
    assert_eq!(counters.drops[Cause::NoPermission as usize], 1);
    assert_eq!(counters.drops[Cause::NoChannel as usize], 1);
}

#[test]
fn above_the_rate_everything_is_dropped() {
    let limits = RelayLimits { bytes_per_s_per_user: 1_000_000, ..RelayLimits::default() };
    let mut world = World::with(RelayPolicy { limits, ..policy() });
    world.allocated(client(1));
    world.bind(client(1), 0x4000, peer(1));
    let now = world.now();
    let index = world.server.find(&client(1)).expect("it lives");
    let mut admitted = 0;
    while world.server.admit(now, index, Direction::ToPeer, 50, 60_000) {
        admitted += 60_000;
        assert!(admitted <= 1_000_000, "a bucket holds at most a quarter of a second, or 256 KiB");
    }
    assert_eq!(world.server.counters().drops[Cause::RateLimit as usize], 50);
    assert_eq!(world.channel_data_cause(client(1), 0x4000, 60_000), Some(Cause::RateLimit));
    assert_eq!(world.server.counters().drops[Cause::RateLimit as usize], 51);
    world.pass(1);
    assert_eq!(world.channel_data_cause(client(1), 0x4000, 1_000), None);
}
