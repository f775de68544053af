//! A client that changes its address (RFC 8016).

use super::world::{OTHER_USER, Response, USER, World, client, peer, policy, start};
use relay::policy::{RelayLimits, RelayPolicy};
use relay::stun::{AttributeType, Class, Method};
use relay::turn::ledger::Ledger;
use relay::turn::{Action, FiveTuple, RelayId, Transport};

/// A mobile allocation, with a channel.
fn mobile(world: &mut World, from: FiveTuple) -> (RelayId, Vec<u8>) {
    let response = world.allocate(from, |writer| {
        writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    assert_eq!(response.code(), 0);
    let relay = world.relay_at(response.relayed()[0]);
    assert_eq!(world.bind(from, 0x4000, peer(1)), 0);
    (relay, ticket_of(&response))
}

fn ticket_of(response: &Response) -> Vec<u8> {
    response.attribute(AttributeType::MOBILITY_TICKET).expect("a ticket")
}

fn show(world: &mut World, from: FiveTuple, user: &str, ticket: &[u8], lifetime_s: u32) -> Response {
    world.ask_as(from, user, Method::Refresh, |writer| {
        writer.lifetime_s(lifetime_s).attribute(AttributeType::MOBILITY_TICKET, ticket);
    })
}

#[test]
fn a_ticket_takes_the_allocation_to_another_address() {
    let mut world = World::new();
    let (relay, ticket) = mobile(&mut world, client(1));
    let response = show(&mut world, client(0x105), USER, &ticket, 700);
    assert_eq!((response.code(), response.lifetime_s()), (0, Some(700)));
    let next = ticket_of(&response);
    assert_ne!(next, ticket);

    assert_eq!(world.channel_data(client(0x105), 0x4000), Some((relay, peer(1))));
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(0x105))));
    assert_eq!(world.channel_data(client(1), 0x4000), None);
    assert_eq!(world.refresh(client(1), 600).code(), 437);
    assert_eq!(world.refresh(client(0x105), 600).code(), 0);
    world.allocated(client(1));
    assert_eq!(world.ledger.allocations(), 2);

    let response = show(&mut world, client(0x203), USER, &next, 600);
    assert_eq!(response.code(), 0);
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(0x203))));
}

#[test]
fn a_ticket_is_good_once() {
    let mut world = World::new();
    let (relay, first) = mobile(&mut world, client(1));
    let second = ticket_of(&show(&mut world, client(2), USER, &first, 600));
    let third = ticket_of(&show(&mut world, client(3), USER, &second, 600));
    assert_eq!(show(&mut world, client(4), USER, &first, 600).code(), 437);
    // The third shows that the client has it.
    assert_eq!(show(&mut world, client(3), USER, &third, 600).code(), 0);
    assert_eq!(show(&mut world, client(4), USER, &second, 600).code(), 437);
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(3))));
}

#[test]
fn a_lost_answer_loses_nothing() {
    let mut world = World::new();
    let (relay, first) = mobile(&mut world, client(1));
    // The answer is lost; the request comes again, word for word and later with another transaction.
    let second = ticket_of(&show(&mut world, client(2), USER, &first, 600));
    assert_eq!(ticket_of(&show(&mut world, client(2), USER, &first, 600)), second);
    // It is lost again, and the client moves on with the only ticket that it has.
    let again = show(&mut world, client(3), USER, &first, 600);
    assert_eq!((again.code(), ticket_of(&again)), (0, second.clone()));
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(3))));
    // Now it speaks at the new address: it was told.
    assert_eq!(world.permit(client(3), &[peer(1)]), 0);
    assert_eq!(show(&mut world, client(4), USER, &first, 600).code(), 437);
    assert_eq!(show(&mut world, client(4), USER, &second, 600).code(), 0);
}

#[test]
fn a_ticket_alone_is_not_enough() {
    let mut world = World::new();
    let (relay, ticket) = mobile(&mut world, client(1));
    assert_eq!(show(&mut world, client(2), OTHER_USER, &ticket, 600).code(), 441);
    let request = world.unsigned(Class::Request, Method::Refresh, |writer| {
        writer.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    assert_eq!(world.raw(client(2), &request).expect("a challenge").code(), 401);
    for at in 0..ticket.len() {
        let mut forged = ticket.clone();
        forged[at] ^= 0x40;
        assert_eq!(show(&mut world, client(2), USER, &forged, 600).code(), 400, "byte {at}");
    }
    for len in [0, 1, 16, ticket.len() - 1] {
        assert_eq!(show(&mut world, client(2), USER, &ticket[..len], 600).code(), 400);
    }
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(1))));
}

#[test]
fn a_five_tuple_with_an_allocation_takes_no_other() {
    let mut world = World::new();
    let (_, ticket) = mobile(&mut world, client(1));
    world.allocated(client(2));
    assert_eq!(show(&mut world, client(2), USER, &ticket, 600).code(), 437);
    assert_eq!(show(&mut world, client(1), USER, &ticket, 600).code(), 0, "its own is welcome");
}

#[test]
fn a_ticket_ends_with_its_allocation() {
    let mut world = World::new();
    let (_, ticket) = mobile(&mut world, client(1));
    world.pass_unnoticed(600);
    assert_eq!(show(&mut world, client(2), USER, &ticket, 600).code(), 437);
    world.pass(0);
    let (_, ticket) = mobile(&mut world, client(1));
    assert_eq!(show(&mut world, client(2), USER, &ticket, 0).code(), 0);
    assert_eq!(world.relays.open.len(), 0, "a ticket also deletes");
    mobile(&mut world, client(1));
    assert_eq!(show(&mut world, client(2), USER, &ticket, 600).code(), 437, "the slot has another tenant");
}

#[test]
fn mobility_may_be_forbidden() {
    let mut world = World::new();
    let (_, ticket) = mobile(&mut world, client(1));
    world.policy.mobility = false;
    world.apply_policy();
    let response = world.allocate(client(2), |writer| {
        writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    assert_eq!(response.code(), 405);
    assert_eq!(show(&mut world, client(2), USER, &ticket, 600).code(), 405);
    assert_eq!(world.refresh(client(1), 600).code(), 0);
    assert_eq!(world.relays.opened, 1);
}

#[test]
fn a_mobile_client_survives_its_stream() {
    let mut world = World::new();
    let stream = FiveTuple { transport: Transport::Tls, ..client(1) };
    let (relay, ticket) = mobile(&mut world, stream);
    let now = world.now();
    world.server.stream_closed(now, &stream, &mut world.relays);
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(
        world.channel_data(stream, 0x4000),
        None,
        "another stream from the same port is another client"
    );
    assert_eq!(world.refresh(stream, 600).code(), 437);
    assert_eq!(show(&mut world, client(5), USER, &ticket, 600).code(), 0);
    assert_eq!(world.channel_data(client(5), 0x4000), Some((relay, peer(1))));
    world.pass(600);
    assert_eq!(world.relays.open.len(), 0);

    // If nobody comes back, it ends when its time is over.
    let (_, ticket) = mobile(&mut world, stream);
    world.server.stream_closed(world.now(), &stream, &mut world.relays);
    world.pass(599);
    assert_eq!(world.relays.open.len(), 1);
    world.pass(1);
    assert_eq!(world.relays.open.len(), 0);
    assert_eq!(show(&mut world, stream, USER, &ticket, 600).code(), 437);
}

#[test]
fn the_quota_of_an_address_moves_along() {
    let limits = RelayLimits { allocations_per_ip_max: 1, ..RelayLimits::default() };
    let mut world = World::with(RelayPolicy { limits, ..policy() });
    let (relay, ticket) = mobile(&mut world, client(1));
    world.allocated(client(0x101));
    assert_eq!(show(&mut world, client(0x102), USER, &ticket, 600).code(), 486);
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, client(1))), "it stays where it was");
    assert_eq!(show(&mut world, client(0x201), USER, &ticket, 600).code(), 0);
    world.allocated(client(2));
    assert_eq!(world.allocate(client(0x202), |_| {}).code(), 486);
}

#[test]
fn a_ticket_of_another_shard_is_passed_on() {
    let (start, policy) = (start(), policy());
    let ledger = Ledger::new(start, 4, 5);
    let mut home = World::shard(policy.clone(), start, &ledger, 1);
    let mut away = World::shard(policy, start, &ledger, 3);
    let (relay, ticket) = mobile(&mut home, client(1));
    let request = away.signed(client(2), USER, Method::Refresh, |writer| {
        writer.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    assert!(away.act(client(2), &request, |action| action == Action::HandOver { shard: 1 }));
    // Nonces are those of the node.
    let response = home.raw(client(2), &request).expect("an answer");
    assert_eq!(response.code(), 0);
    assert_eq!(home.receive(relay, peer(1)), Some((0x4000, client(2))));
    // Who has an allocation here is not passed on.
    away.allocated(client(7));
    assert_eq!(show(&mut away, client(7), USER, &ticket, 600).code(), 437);
}
