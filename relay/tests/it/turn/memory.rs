//! What an allocation costs in memory, and that data cost none.

use super::world::{World, client, peer, peer_v6, policy};
use crate::counting;
use relay::policy::{RelayLimits, RelayPolicy};
use relay::stun::{AttributeType, Class, Method};
use relay::turn::{Action, DATA_INDICATION_HEADER_LEN_MAX, Direction, Server};

fn crowd(count: u16) -> World {
    let limits = RelayLimits {
        allocations_per_user_max: 0,
        allocations_per_min_per_user: 0,
        strangers_per_s: 1_000_000,
        ..RelayLimits::default()
    };
    let mut world = World::with(RelayPolicy { limits, ..policy() });
    world.relays.capacity = usize::from(count);
    for n in 0..count {
        world.allocated(client(n));
        assert_eq!(world.events().len(), 1);
    }
    world
}

/// Bytes that a server gives back when it goes.
fn weight(server: Server) -> i64 {
    let before = counting::held_bytes();
    drop(server);
    before - counting::held_bytes()
}

#[test]
fn an_idle_allocation_takes_less_than_one_kibibyte() {
    const COUNT: u16 = 10_000;
    let empty = weight(crowd(0).server);
    let mut world = crowd(COUNT);
    for n in 0..COUNT {
        assert_eq!(world.bind(client(n), 0x4000, peer(1)), 0);
    }
    let each = (weight(world.server) - empty) / i64::from(COUNT);
    assert!(each < 1_024, "{each} bytes an allocation");
    assert!(each > 300, "{each} bytes: it was not measured");
}

#[test]
fn a_server_gives_back_what_allocations_took() {
    let mut world = crowd(1_000);
    let full = counting::held_bytes();
    // A hundred generations of permissions, channels, refreshes: nothing piles up, not even in the heap of timers.
    for _ in 0..100 {
        world.pass(100);
        for n in 0..10 {
            assert_eq!(world.refresh(client(n), 3_600).code(), 0);
            assert_eq!(world.refresh(client(n), 600).code(), 0);
            assert_eq!(world.permit(client(n), &[peer(1), peer(2)]), 0);
            assert_eq!(world.bind(client(n), 0x4000, peer(1)), 0);
        }
        world.events();
    }
    let left = counting::held_bytes();
    assert!(left < full - 990 * 300, "{full} bytes with 1,000 allocations, {left} with 10");
    assert_eq!(world.server.sessions_len(), 10);
}

#[test]
fn data_take_no_memory() {
    let mut world = World::new();
    world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    let relay = *world.relays.open.first_key_value().expect("it is open").0;
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.permit(client(1), &[peer(2), peer_v6(1)]), 0);
    let send = world.unsigned(Class::Indication, Method::Send, |writer| {
        writer
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer(2))
            .attribute(AttributeType::DATA, &[1; 1_200]);
    });
    let now = world.now();

    let requests = counting::requests();
    for _ in 0..100 {
        let index = world.server.find(&client(1)).expect("it lives");
        assert!(world.server.channel(now, index, 0x4000).is_ok());
        assert!(world.server.channel(now, index, 0x4001).is_err());
        assert!(world.server.peer(now, relay, peer(1)).is_ok());
        assert!(world.server.peer(now, relay, peer(3)).is_err());
        assert!(world.server.admit(now, index, Direction::ToPeer, 10, 12_000));
        let mut out = [0; DATA_INDICATION_HEADER_LEN_MAX];
        assert_eq!(world.server.data_indication(peer(2), 1_200, &mut out), 36);
        assert!(world.server.icmp(now, relay, peer(1), 3, 3, 0).is_some());
        assert!(world.act(client(1), &send, |action| matches!(action, Action::Relay { .. })));
        assert!(world.act(client(1), &[0x40, 0, 0, 0], |action| matches!(action, Action::Relay { .. })));
        assert!(world.act(client(9), &send, |action| matches!(action, Action::Drop(_))));
    }
    assert_eq!(counting::requests(), requests);
}

#[test]
fn a_storm_of_strangers_leaves_memory_flat() {
    let mut world = crowd(10);
    let request = world.unsigned(Class::Request, Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let mut forged = request.clone();
    forged.extend([0, 8, 0, 20]);
    forged.extend([9; 20]);
    forged[3] = 32;
    let held = counting::held_bytes();
    for n in 0..20_000_u32 {
        let mut from = client(1);
        from.client.set_port((n % 60_000) as u16 + 1);
        for message in [&request, &forged] {
            world.act(from, message, |action| assert!(!matches!(action, Action::Relay { .. })));
        }
        world.act(from, &message_of(n), |_| {});
    }
    assert_eq!(counting::held_bytes(), held);
    assert_eq!(world.server.sessions_len(), 10);
}

/// Bytes that mean nothing.
fn message_of(n: u32) -> [u8; 40] {
    let mut bytes = [0; 40];
    for (at, byte) in (0_u32..).zip(&mut bytes) {
        *byte = (n.wrapping_mul(2_654_435_761).rotate_left(at) ^ at) as u8;
    }
    bytes
}
