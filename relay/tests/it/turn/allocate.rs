//! Allocate (RFC 8656 section 7.2).

use super::world::{OTHER_USER, RELAY_V4, RELAY_V6, UNIX_S, USER, World, client, key, peer, policy};
use relay::policy::RelayLimits;
use relay::stun::{AttributeType, Class, Integrity, Method, Writer};
use relay::turn::ledger::QuotaExceeded;
use relay::turn::{Action, Family, FiveTuple, SessionEvent, Transport};
use std::time::Duration;

const V4: [u8; 4] = [1, 0, 0, 0];
const V6: [u8; 4] = [2, 0, 0, 0];

#[test]
fn an_allocation_has_a_relayed_address_for_ten_minutes() {
    let mut world = World::new();
    let response = world.allocate(client(1), |_| {});
    assert_eq!(response.code(), 0);
    assert_eq!(response.lifetime_s(), Some(600));
    assert_eq!(response.mapped(), client(1).client);
    let [relayed] = response.relayed()[..] else { panic!("one address") };
    assert_eq!(relayed.ip().to_string(), RELAY_V4);
    assert_eq!(response.attribute(AttributeType::RESERVATION_TOKEN), None);
    assert_eq!(response.attribute(AttributeType::MOBILITY_TICKET), None);
    assert_eq!(response.attribute(AttributeType::SOFTWARE), None);

    let [SessionEvent::Started(record)] = &world.events()[..] else { panic!("one session began") };
    assert_eq!((&*record.user, record.client, &record.relayed[..]), (USER, client(1), &[relayed][..]));

    world.pass(599);
    assert_eq!(world.relays.open.len(), 1);
    world.pass(1);
    assert_eq!((world.relays.open.len(), world.relays.closed), (0, 1));
    assert_eq!(world.refresh(client(1), 600).code(), 437);
}

#[test]
fn there_is_no_state_before_credentials_are_proved() {
    let mut world = World::new();
    world.policy.limits.strangers_per_s = 1_000;
    world.apply_policy();
    for n in 0..100 {
        let request = world.unsigned(Class::Request, Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        let response = world.raw(client(n), &request).expect("a challenge");
        assert_eq!(response.code(), 401);
        assert!(response.attribute(AttributeType::NONCE).is_some());
        assert_eq!(response.message().integrity(), None);
    }
    // A wrong password is no better.
    let transaction = world.transaction();
    let nonce = world.challenged(client(7));
    let mut out = [0; 512];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Allocate, transaction);
    writer
        .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(AttributeType::USERNAME, USER.as_bytes())
        .attribute(AttributeType::REALM, super::world::REALM.as_bytes())
        .attribute(AttributeType::NONCE, &nonce)
        .integrity_with(Integrity::Sha1, key(OTHER_USER).as_bytes());
    let request = writer.finish().expect("fits").to_vec();
    assert_eq!(world.raw(client(7), &request).expect("an answer").code(), 401);

    assert_eq!(world.relays.opened, 0);
    assert_eq!(world.server.sessions_len(), 0);
    assert_eq!(world.server.next_timeout(), None);
    assert_eq!(world.events(), []);
}

#[test]
fn a_lifetime_is_held_between_default_and_maximum() {
    for (asked, given) in [(1, 600), (600, 600), (700, 700), (3_600, 3_600), (u32::MAX, 3_600), (0, 600)] {
        let mut world = World::new();
        let response = world.allocate(client(1), |writer| {
            writer.lifetime_s(asked);
        });
        assert_eq!((response.code(), response.lifetime_s()), (0, Some(given)), "asked {asked}");
        world.pass(u64::from(given) - 1);
        assert_eq!(world.relays.open.len(), 1);
        world.pass(1);
        assert_eq!(world.relays.open.len(), 0);
    }
}

#[test]
fn only_udp_is_relayed() {
    let mut world = World::new();
    assert_eq!(world.ask(client(1), Method::Allocate, |_| {}).code(), 400);
    for (value, code) in
        [(&[6, 0, 0, 0][..], 442), (&[0, 0, 0, 0], 442), (&[17], 400), (&[17, 0, 0, 0, 0], 400)]
    {
        let response = world.ask(client(1), Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, value);
        });
        assert_eq!(response.code(), code, "{value:?}");
    }
    assert_eq!(world.relays.opened, 0);
}

#[test]
fn dont_fragment_is_understood_and_what_is_not_is_named() {
    let mut world = World::new();
    let unknown = world.allocate(client(1), |writer| {
        writer.attribute(AttributeType(0x7777), &[1]).attribute(AttributeType(0x9999), &[]);
    });
    assert_eq!(unknown.code(), 420);
    assert_eq!(unknown.attribute(AttributeType::UNKNOWN_ATTRIBUTES), Some(vec![0x77, 0x77]));
    let response = world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
    });
    assert_eq!(response.code(), 0);
}

#[test]
fn a_five_tuple_has_one_allocation() {
    let mut world = World::new();
    world.allocated(client(1));
    assert_eq!(world.allocate(client(1), |_| {}).code(), 437);
    let tcp = FiveTuple { transport: Transport::Tcp, ..client(1) };
    assert_eq!(world.allocate(tcp, |_| {}).code(), 0, "the transport is part of it");
    world.pass_unnoticed(600);
    assert_eq!(world.allocate(client(1), |_| {}).code(), 0, "what has expired is in nobody's way");
    assert_eq!(world.relays.open.len(), 1);
}

#[test]
fn every_one_of_many_clients_is_found() {
    let mut policy = policy();
    policy.limits.allocations_per_user_max = 0;
    policy.limits.allocations_per_min_per_user = 0;
    policy.limits.strangers_per_s = 10_000;
    let mut world = World::with(policy);
    for n in 1..=500 {
        world.allocated(client(n));
    }
    for n in 1..=500 {
        assert_eq!(world.permit(client(n), &[peer(1)]), 0, "client {n}");
    }
}

#[test]
fn a_retransmission_gets_the_same_answer() {
    let mut world = World::new();
    let request = world.signed(client(1), USER, Method::Allocate, |writer| {
        writer
            .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(AttributeType::EVEN_PORT, &[0x80])
            .attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    let first = world.raw(client(1), &request).expect("an answer");
    assert_eq!(first.code(), 0);
    assert!(first.attribute(AttributeType::RESERVATION_TOKEN).is_some());
    let again = world.raw(client(1), &request).expect("an answer");
    assert_eq!(first.bytes, again.bytes);
    world.pass(2);
    let later = world.raw(client(1), &request).expect("an answer");
    assert_eq!((later.code(), later.lifetime_s()), (0, Some(598)));
    assert_eq!(later.relayed(), first.relayed());
    assert_eq!(world.relays.opened, 1);
    assert_eq!(world.ledger.allocations(), 1);
}

#[test]
fn the_family_is_ipv4_unless_asked_otherwise() {
    let family = |value: [u8; 4]| {
        move |writer: &mut Writer<'_>| {
            writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &value);
        }
    };
    let mut world = World::new();
    assert_eq!(world.allocate(client(1), family(V4)).relayed()[0].ip().to_string(), RELAY_V4);
    assert_eq!(world.allocate(client(2), family(V6)).relayed()[0].ip().to_string(), RELAY_V6);
    assert_eq!(world.allocate(client(3), family([3, 0, 0, 0])).code(), 440);

    world.relays.families = vec![Family::V6];
    assert_eq!(world.allocate(client(3), |_| {}).code(), 440);
    assert_eq!(world.allocate(client(3), family(V4)).code(), 440);
    assert_eq!(world.ledger.allocations(), 2, "a refused one is not counted");
}

#[test]
fn two_families_in_one_allocation() {
    let both = |writer: &mut Writer<'_>| {
        writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &V6);
    };
    let mut world = World::new();
    let response = world.allocate(client(1), both);
    let ips: Vec<String> = response.relayed().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(ips, [RELAY_V4, RELAY_V6]);
    assert_eq!(response.attribute(AttributeType::ADDRESS_ERROR_CODE), None);

    // RFC 8656 section 18.12: family, then the code as in ERROR-CODE.
    world.relays.families = vec![Family::V4];
    let response = world.allocate(client(2), both);
    assert_eq!(response.relayed()[0].ip().to_string(), RELAY_V4);
    assert_eq!(response.attribute(AttributeType::ADDRESS_ERROR_CODE), Some(vec![2, 0, 4, 40]));

    world.relays.families = vec![Family::V6];
    let response = world.allocate(client(3), both);
    assert_eq!(response.relayed()[0].ip().to_string(), RELAY_V6);
    assert_eq!(response.attribute(AttributeType::ADDRESS_ERROR_CODE), Some(vec![1, 0, 4, 40]));

    world.relays.families = vec![Family::V4, Family::V6];
    world.relays.capacity = 1;
    let response = world.allocate(client(4), both);
    assert_eq!(response.attribute(AttributeType::ADDRESS_ERROR_CODE), Some(vec![2, 0, 5, 8]));

    assert_eq!(world.allocate(client(5), both).code(), 508);
    world.relays.families.clear();
    assert_eq!(world.allocate(client(5), both).code(), 440);
    assert_eq!(world.ledger.allocations(), 4);
}

#[test]
fn attributes_that_exclude_each_other() {
    let requested = (AttributeType::REQUESTED_ADDRESS_FAMILY, &V4[..]);
    let additional = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &V6[..]);
    let additional_v4 = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &V4[..]);
    let even = (AttributeType::EVEN_PORT, &[0][..]);
    let even_and_next = (AttributeType::EVEN_PORT, &[0x80][..]);
    let token = (AttributeType::RESERVATION_TOKEN, &[0, 2, 1, 1, 1, 1, 1, 1][..]);
    let mut world = World::new();
    let bad: [&[(AttributeType, &[u8])]; 8] = [
        &[requested, additional],
        &[additional_v4],
        &[additional, even_and_next],
        &[token, even],
        &[token, requested],
        &[token, additional],
        &[(AttributeType::EVEN_PORT, &[])],
        &[(AttributeType::LIFETIME, &[1])],
    ];
    for attributes in bad {
        let response = world.allocate(client(1), |writer| {
            for (kind, value) in attributes {
                writer.attribute(*kind, value);
            }
        });
        assert_eq!(response.code(), 400, "{attributes:?}");
    }
    let response = world.allocate(client(1), |writer| {
        writer.attribute(additional.0, additional.1).attribute(even.0, even.1);
    });
    assert_eq!(response.code(), 0);
    assert!(response.relayed().iter().all(|address| address.port().is_multiple_of(2)));
}

#[test]
fn an_even_port_and_the_next_one_for_a_token() {
    let mut world = World::new();
    world.allocated(client(9));
    let response = world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::EVEN_PORT, &[0x80]);
    });
    let token = response.attribute(AttributeType::RESERVATION_TOKEN).expect("a token");
    let port = response.relayed()[0].port();
    assert!(port.is_multiple_of(2));

    let show = |world: &mut World, n: u16, token: &[u8]| {
        world.allocate(client(n), |writer| {
            writer.attribute(AttributeType::RESERVATION_TOKEN, token);
        })
    };
    let mut other = token.clone();
    other[7] ^= 1;
    assert_eq!(show(&mut world, 2, &other).code(), 508);
    world.pass(59);
    let response = show(&mut world, 2, &token);
    assert_eq!(response.relayed()[0].port(), port + 1);
    assert_eq!(show(&mut world, 3, &token).code(), 508, "a token is good once");
    world.pass(600);
    assert!(world.relays.reserved.is_empty());
}

#[test]
fn a_reservation_ends_unused() {
    let mut world = World::new();
    let response = world.allocate(client(1), |writer| {
        writer.attribute(AttributeType::EVEN_PORT, &[0x80]);
    });
    let token = response.attribute(AttributeType::RESERVATION_TOKEN).expect("a token");
    assert_eq!(world.relays.reserved.len(), 1);
    world.pass_unnoticed(60);
    let late = world.allocate(client(2), |writer| {
        writer.attribute(AttributeType::RESERVATION_TOKEN, &token);
    });
    assert_eq!(late.code(), 508);
    world.pass(0);
    assert!(world.relays.reserved.is_empty());
}

#[test]
fn a_token_of_another_shard_is_passed_on() {
    let mut world = World::new();
    for (shard, passes_on) in [(0, true), (1, true), (2, false), (3, true), (4, false), (u16::MAX, false)] {
        let [high, low] = u16::to_be_bytes(shard);
        let request = world.signed(client(1), USER, Method::Allocate, |writer| {
            writer
                .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                .attribute(AttributeType::RESERVATION_TOKEN, &[high, low, 1, 2, 3, 4, 5, 6]);
        });
        let to = world.act(client(1), &request, |action| match action {
            Action::HandOver { shard } => Some(shard),
            _ => None,
        });
        assert_eq!(to, passes_on.then_some(usize::from(shard)));
    }
    // Nobody without credentials moves anything.
    let request = world.unsigned(Class::Request, Method::Allocate, |writer| {
        writer
            .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(AttributeType::RESERVATION_TOKEN, &[0, 1, 1, 2, 3, 4, 5, 6]);
    });
    assert_eq!(world.raw(client(1), &request).expect("a challenge").code(), 401);
}

#[test]
fn quotas_of_a_user_an_address_and_the_node() {
    let limits = RelayLimits { allocations_per_user_max: 2, ..RelayLimits::default() };
    let mut world = World::with(relay::policy::RelayPolicy { limits, ..policy() });
    world.allocated(client(1));
    world.allocated(client(2));
    assert_eq!(world.allocate(client(3), |_| {}).code(), 486);
    assert_eq!(
        world
            .ask_as(client(3), OTHER_USER, Method::Allocate, |writer| {
                writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            })
            .code(),
        0
    );
    assert_eq!(world.refresh(client(1), 0).code(), 0);
    world.allocated(client(4));

    world.policy.limits.allocations_per_user_max = 0;
    world.policy.limits.allocations_per_ip_max = 4;
    world.apply_policy();
    world.allocated(client(5));
    assert_eq!(world.allocate(client(6), |_| {}).code(), 486, "clients 2 to 5 have one address");
    world.allocated(client(0x100));

    world.policy.limits.allocations_per_ip_max = 0;
    world.policy.limits.allocations_max = 5;
    world.apply_policy();
    assert_eq!(world.allocate(client(7), |_| {}).code(), 508);
    assert_eq!(world.relays.open.len(), 5);
}

#[test]
fn who_begins_and_ends_allocations_all_the_time_leaves_ports_to_others() {
    let limits =
        RelayLimits { allocations_per_min_per_user: 6, strangers_per_s: 1_000, ..RelayLimits::default() };
    let mut world = World::with(relay::policy::RelayPolicy { limits, ..policy() });
    for n in 1..=6 {
        world.allocated(client(n));
        assert_eq!(world.refresh(client(n), 0).code(), 0);
    }
    assert_eq!(world.allocate(client(7), |_| {}).code(), 486);
    let refused = QuotaExceeded::ALL.iter().position(|quota| *quota == QuotaExceeded::UserRate);
    assert_eq!(world.server.counters().quotas[refused.expect("it is one of them")], 1);
    let other = world.ask_as(client(8), OTHER_USER, Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    assert_eq!(other.code(), 0, "another user is not concerned");
    world.pass(10);
    world.allocated(client(9));
    assert_eq!(world.allocate(client(10), |_| {}).code(), 486, "ten seconds have brought one");

    world.policy.limits.allocations_per_min_per_user = 0;
    world.apply_policy();
    world.allocated(client(11));
}

#[test]
fn no_port_is_left() {
    let mut world = World::new();
    world.relays.capacity = 1;
    world.allocated(client(1));
    assert_eq!(world.allocate(client(2), |_| {}).code(), 508);
    assert_eq!(world.ledger.allocations(), 1);
    assert_eq!(world.refresh(client(1), 0).code(), 0);
    world.allocated(client(2));
}

#[test]
fn a_draining_server_keeps_what_it_has() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    world.policy.draining = true;
    world.apply_policy();
    assert_eq!(world.allocate(client(2), |_| {}).code(), 508);
    assert_eq!(world.refresh(client(1), 600).code(), 0);
    assert_eq!(world.permit(client(1), &[super::world::peer(1)]), 0);
    assert_eq!(world.receive(relay, super::world::peer(1)), Some((0, client(1))));
}

#[test]
fn a_server_whose_policy_has_expired_keeps_what_it_has() {
    let mut world = World::new();
    world.valid_until_s = UNIX_S + 5;
    world.apply_policy();
    let (relay, _) = world.allocated(client(1));
    world.at = Duration::from_secs(5);
    assert_eq!(world.allocate(client(2), |_| {}).code(), 508);
    assert_eq!(world.server.counters().policy_expired, 1);
    assert_eq!(world.refresh(client(1), 600).code(), 0);
    assert_eq!(world.permit(client(1), &[super::world::peer(1)]), 0);
    assert_eq!(world.receive(relay, super::world::peer(1)), Some((0, client(1))));
    world.valid_until_s = UNIX_S + 6;
    world.apply_policy();
    world.allocated(client(2));
}

#[test]
fn a_denied_client_gets_no_answer() {
    let mut world = World::new();
    world.policy.client_deny = vec!["203.0.113.0/24".parse().expect("a prefix")];
    world.apply_policy();
    let request = world.unsigned(Class::Request, Method::Binding, |_| {});
    assert!(world.raw(client(1), &request).is_none());
    assert_eq!(world.server.counters().drops[relay::turn::Cause::ClientDenied as usize], 1);
}
