//! Channels (RFC 8656 section 12).

use super::world::{World, client, peer, peer_v6};
use relay::stun::{AttributeType, Method};
use relay::turn::{Action, Cause};

#[test]
fn a_channel_carries_both_ways() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.channel_data(client(1), 0x4000), None);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.channel_data(client(1), 0x4000), Some((relay, peer(1))));
    assert_eq!(world.channel_data(client(1), 0x4001), None);
    assert_eq!(world.channel_data(client(2), 0x4000), None);
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(1))));
    let mut elsewhere = peer(1);
    elsewhere.set_port(1);
    assert_eq!(world.receive(relay, elsewhere), Some((0, client(1))), "permitted, but on no channel");
    assert_eq!(world.send(client(1), peer(1), b"x"), Some((relay, peer(1))), "indications work beside it");
}

#[test]
fn numbers_and_peers_must_be_valid() {
    let mut world = World::new();
    world.allocated(client(1));
    for number in [0, 0x3fff, 0x8000, 0xffff] {
        assert_eq!(world.bind(client(1), number, peer(1)), 400, "{number:#x}");
    }
    // What RFC 5766 allowed and its clients still choose.
    assert_eq!(world.bind(client(1), 0x7fff, peer(9)), 0);
    let mut no_port = peer(1);
    no_port.set_port(0);
    assert_eq!(world.bind(client(1), 0x4000, no_port), 400);
    assert_eq!(world.bind(client(1), 0x4000, peer_v6(1)), 443);
    let without_peer = world.ask(client(1), Method::ChannelBind, |writer| {
        writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
    });
    assert_eq!(without_peer.code(), 400);
    let without_number = world.ask(client(1), Method::ChannelBind, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1));
    });
    assert_eq!(without_number.code(), 400);
    assert_eq!(world.bind(client(2), 0x4000, peer(1)), 437);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.bind(client(1), 0x4fff, peer(2)), 0);
}

#[test]
fn one_number_one_peer() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(2)), 400);
    assert_eq!(world.bind(client(1), 0x4001, peer(1)), 400);
    assert_eq!(world.bind(client(1), 0x4001, peer(2)), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(2)), 400, "both are bound, to others");
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0, "the same again refreshes");
    assert_eq!(world.channel_data(client(1), 0x4000), Some((relay, peer(1))));
}

#[test]
fn a_channel_lasts_ten_minutes_and_rests_five() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.refresh(client(1), 3_600).code(), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    // ChannelData refreshes nothing; the permission needs a refresh of its own.
    world.pass(299);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    world.pass(299);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    world.pass_unnoticed(1);
    assert_eq!(world.channel_data(client(1), 0x4000), Some((relay, peer(1))));
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(1))));
    world.pass_unnoticed(1);
    assert_eq!(world.channel_data(client(1), 0x4000), None);
    assert_eq!(world.receive(relay, peer(1)), Some((0, client(1))), "the permission holds on");
    assert_eq!(world.bind(client(1), 0x4000, peer(2)), 400);
    assert_eq!(world.bind(client(1), 0x4001, peer(1)), 400);
    world.pass(299);
    assert_eq!(world.bind(client(1), 0x4000, peer(2)), 400);
    world.pass_unnoticed(1);
    assert_eq!(world.bind(client(1), 0x4000, peer(2)), 0);
    assert_eq!(world.bind(client(1), 0x4001, peer(1)), 0);
    assert_eq!(world.channel_data(client(1), 0x4000), Some((relay, peer(2))));
    assert_eq!(world.channel_data(client(1), 0x4001), Some((relay, peer(1))));
}

#[test]
fn a_resting_channel_may_be_bound_to_its_peer_again() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    assert_eq!(world.refresh(client(1), 3_600).code(), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    world.pass(700);
    assert_eq!(world.channel_data(client(1), 0x4000), None);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.channel_data(client(1), 0x4000), Some((relay, peer(1))));
}

#[test]
fn many_channels_in_any_order() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    // 7 and 101 are coprime: every one of 1 to 100 in a mixed order.
    for n in 1..=100_u8 {
        let at = (u16::from(n) * 7 % 101) as u8;
        assert_eq!(world.bind(client(1), 0x4000 + u16::from(at * 2), peer(101 - at)), 0);
    }
    for at in 1..=100_u8 {
        let number = 0x4000 + u16::from(at * 2);
        assert_eq!(world.channel_data(client(1), number), Some((relay, peer(101 - at))));
        assert_eq!(world.receive(relay, peer(101 - at)), Some((number, client(1))));
        assert_eq!(world.channel_data(client(1), number + 1), None);
    }
}

#[test]
fn lengths_of_channel_data() {
    let mut world = World::new();
    world.allocated(client(1));
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    let payload_len = |world: &mut World, bytes: &[u8]| {
        world.act(client(1), bytes, |action| match action {
            Action::Relay { payload, dont_fragment: false, .. } => Ok(payload.len()),
            Action::Drop(cause) => Err(cause),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(payload_len(&mut world, &[0x40, 0, 0, 0]), Ok(0), "no bytes are a datagram too");
    assert_eq!(payload_len(&mut world, &[0x40, 0, 0, 3, 1, 2, 3]), Ok(3));
    assert_eq!(payload_len(&mut world, &[0x40, 0, 0, 3, 1, 2, 3, 0]), Ok(3));
    assert_eq!(payload_len(&mut world, &[0x40, 0, 0, 4, 1, 2, 3]), Err(Cause::Malformed));
    assert_eq!(payload_len(&mut world, &[0x40, 0, 0]), Err(Cause::Malformed));
    assert_eq!(payload_len(&mut world, &[0x4f, 0xff, 0, 0]), Err(Cause::NoChannel));
}
