//! Refresh (RFC 8656 section 8.2).

use super::world::{OTHER_USER, World, client, peer, peer_v6};
use relay::stun::{AttributeType, Method};
use relay::turn::EndReason;

#[test]
fn a_refresh_sets_the_lifetime_anew() {
    for (asked, given) in [(1, 600), (600, 600), (700, 700), (u32::MAX, 3_600)] {
        let mut world = World::new();
        world.allocated(client(1));
        world.pass(500);
        let response = world.refresh(client(1), asked);
        assert_eq!((response.code(), response.lifetime_s()), (0, Some(given)));
        world.pass(u64::from(given) - 1);
        assert_eq!(world.relays.open.len(), 1);
        world.pass(1);
        assert_eq!(world.relays.open.len(), 0);
    }
    let mut world = World::new();
    world.allocated(client(1));
    assert_eq!(world.refresh(client(1), 3_600).lifetime_s(), Some(3_600));
    let response = world.ask(client(1), Method::Refresh, |_| {});
    assert_eq!(
        (response.code(), response.lifetime_s()),
        (0, Some(600)),
        "without LIFETIME, and shorter than before"
    );
    world.pass(600);
    assert_eq!(world.relays.open.len(), 0);
}

#[test]
fn a_lifetime_of_zero_deletes() {
    let mut world = World::new();
    world.allocated(client(1));
    let response = world.refresh(client(1), 0);
    assert_eq!((response.code(), response.lifetime_s()), (0, Some(0)));
    assert_eq!((world.relays.open.len(), world.ledger.allocations()), (0, 0));
    assert_eq!(world.endings(), [EndReason::Deleted]);
    assert_eq!(world.refresh(client(1), 0).code(), 437);
    world.allocated(client(1));
}

#[test]
fn an_expired_allocation_is_not_refreshed() {
    let mut world = World::new();
    world.allocated(client(1));
    world.pass_unnoticed(600);
    assert_eq!(world.refresh(client(1), 600).code(), 437);
    assert_eq!(world.permit(client(1), &[peer(1)]), 437);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 437);
    world.pass(0);
    assert_eq!(world.endings(), [EndReason::Expired]);
}

#[test]
fn another_user_has_wrong_credentials() {
    let mut world = World::new();
    world.allocated(client(1));
    for method in [Method::Refresh, Method::CreatePermission, Method::ChannelBind] {
        let response = world.ask_as(client(1), OTHER_USER, method, |writer| {
            writer
                .lifetime_s(0)
                .attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0, 0])
                .xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1));
        });
        assert_eq!(response.code(), 441, "{method:?}");
    }
    assert_eq!(world.relays.open.len(), 1);
}

#[test]
fn the_two_families_have_lives_of_their_own() {
    let mut world = World::new();
    let response = world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    let [v4, v6] = response.relayed()[..] else { panic!("two addresses") };
    let [v4, v6] = [v4, v6].map(|address| world.relay_at(address));
    let refresh = |world: &mut World, family: u8, lifetime_s: u32| {
        let response = world.ask(client(1), Method::Refresh, |writer| {
            writer
                .lifetime_s(lifetime_s)
                .attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        });
        response.code()
    };
    assert_eq!(refresh(&mut world, 1, 3_600), 0);
    assert_eq!(refresh(&mut world, 3, 600), 443);
    assert_eq!(world.permit(client(1), &[peer(1), peer_v6(1)]), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.bind(client(1), 0x4001, peer_v6(1)), 0);
    assert_eq!(world.receive(v4, peer(1)), Some((0x4000, client(1))));
    assert_eq!(world.receive(v6, peer_v6(1)), Some((0x4001, client(1))));

    world.pass(600);
    assert!(!world.relays.open.contains_key(&v6), "only IPv4 was refreshed");
    assert_eq!(refresh(&mut world, 2, 600), 443);
    assert_eq!(world.permit(client(1), &[peer_v6(1)]), 443);
    assert_eq!(world.channel_data(client(1), 0x4001), None);
    assert_eq!(world.permit(client(1), &[peer(1)]), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert!(world.relays.open.contains_key(&v4));
    assert_eq!(refresh(&mut world, 1, 0), 0);
    assert_eq!((world.relays.open.len(), world.ledger.allocations()), (0, 0));
    assert_eq!(world.endings(), [EndReason::Deleted]);
}

#[test]
fn deleting_one_family_leaves_the_other_alone() {
    let mut world = World::new();
    let response = world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    let v6 = world.relay_at(response.relayed()[1]);
    assert_eq!(world.permit(client(1), &[peer(1), peer_v6(1)]), 0);
    assert_eq!(world.bind(client(1), 0x4000, peer(1)), 0);
    assert_eq!(world.bind(client(1), 0x4001, peer_v6(1)), 0);
    let response = world.ask(client(1), Method::Refresh, |writer| {
        writer.lifetime_s(0).attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    });
    assert_eq!(response.code(), 0);
    assert_eq!(world.relays.open.len(), 1);
    assert_eq!(world.channel_data(client(1), 0x4000), None);
    assert_eq!(world.channel_data(client(1), 0x4001), Some((v6, peer_v6(1))));
    assert_eq!(world.receive(v6, peer_v6(1)), Some((0x4001, client(1))));
}

#[test]
fn malformed_refreshes() {
    let mut world = World::new();
    world.allocated(client(1));
    for kind in [AttributeType::LIFETIME, AttributeType::REQUESTED_ADDRESS_FAMILY] {
        let response = world.ask(client(1), Method::Refresh, |writer| {
            writer.attribute(kind, &[1]);
        });
        assert_eq!(response.code(), 400);
    }
}
