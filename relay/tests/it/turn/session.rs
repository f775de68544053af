//! Streams, kicks, records.

use super::world::{OTHER_USER, REALM, UNIX_S, USER, World, client, password, peer, policy};
use relay::policy::{RelayLimits, RelayPolicy, RelayUser, UidAccess};
use relay::stun::{AttributeType, Method, StaticUser};
use relay::turn::{EndReason, FiveTuple, Selector, SessionEvent, Transport};

fn stream(n: u16) -> FiveTuple {
    FiveTuple { transport: Transport::Tcp, ..client(n) }
}

#[test]
fn the_allocation_of_a_stream_ends_with_it() {
    let mut world = World::new();
    let (relay, _) = world.allocated(stream(1));
    world.allocated(client(1));
    assert_eq!(world.bind(stream(1), 0x4000, peer(1)), 0);
    assert_eq!(world.receive(relay, peer(1)), Some((0x4000, stream(1))));
    let now = world.now();
    world.server.stream_closed(now, &stream(1), &mut world.relays);
    assert_eq!(world.relays.open.len(), 1, "that over UDP lives on");
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(world.endings(), [EndReason::StreamClosed]);
    world.server.stream_closed(now, &stream(1), &mut world.relays);
    world.server.stream_closed(now, &stream(2), &mut world.relays);
    assert_eq!(world.endings(), []);
}

#[test]
fn sessions_are_kicked_by_id_user_and_address() {
    let mut world = World::new();
    for n in [1, 2, 0x101, 0x102] {
        world.allocated(client(n));
    }
    world.ask_as(client(3), OTHER_USER, Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let now = world.now();
    let id = world.server.sessions(now).find(|record| record.client == client(2)).expect("it is there").id;
    let ids: std::collections::BTreeSet<u64> = world.server.sessions(now).map(|record| record.id).collect();
    assert_eq!(ids.len(), 5, "ids differ");
    assert!(ids.iter().all(|id| id >> 48 == 2), "ids name the shard");
    let kick = |world: &mut World, selector: Selector| {
        let now = world.now();
        world.server.kick(now, &selector, &mut world.relays)
    };
    assert_eq!(kick(&mut world, Selector::Session(id)), 1);
    assert_eq!(kick(&mut world, Selector::Session(id)), 0);
    assert_eq!(world.refresh(client(2), 600).code(), 437);
    assert_eq!(kick(&mut world, Selector::Client(client(0x101).client.ip())), 2);
    assert_eq!(kick(&mut world, Selector::User(OTHER_USER.into())), 1);
    assert_eq!(kick(&mut world, Selector::User("nobody".into())), 0);
    assert_eq!((world.relays.open.len(), world.ledger.allocations()), (1, 1));
    assert_eq!(world.endings(), [EndReason::Kicked; 4]);
    let now = world.now();
    assert_eq!(world.server.shut_down(now, &mut world.relays), 1);
    assert_eq!(world.endings(), [EndReason::Shutdown]);
    assert_eq!(world.server.sessions_len(), 0);
}

#[test]
fn a_record_says_who_since_when_and_how_long() {
    let mut world = World::new();
    world.pass(40);
    let (_, relayed) = world.allocated(client(1));
    world.permit(client(1), &[peer(2), peer(1)]);
    world.pass(100);
    let now = world.now();
    let record = world.server.sessions(now).next().expect("a session");
    assert_eq!((&*record.user, record.client, record.since_unix_s), (USER, client(1), UNIX_S + 40));
    assert_eq!((record.remaining_s, &record.relayed[..]), (500, &[relayed][..]));
    assert_eq!(record.peers, [peer(1).ip(), peer(2).ip()]);
    world.pass(500);
    let [SessionEvent::Started(started), SessionEvent::Ended(ended, EndReason::Expired)] =
        &world.events()[..]
    else {
        panic!("it began and ended")
    };
    assert_eq!((started.id, &ended.relayed[..]), (ended.id, &[relayed][..]));
}

#[test]
fn slots_are_used_again_and_late_indices_find_nothing() {
    let mut world = World::new();
    let (relay, _) = world.allocated(client(1));
    world.bind(client(1), 0x4000, peer(1));
    let old = world.server.find(&client(1)).expect("it lives");
    assert_eq!(world.refresh(client(1), 0).code(), 0);
    let (new_relay, _) = world.allocated(client(2));
    assert_eq!(relay, new_relay, "the id of the socket is given again");
    world.bind(client(2), 0x4000, peer(2));
    let now = world.now();
    assert!(world.server.channel(now, old, 0x4000).is_err());
    assert!(!world.server.admit(now, old, relay::turn::Direction::ToPeer, 1, 1));
    assert_eq!(world.receive(relay, peer(1)), None);
    assert_eq!(world.receive(relay, peer(2)), Some((0x4000, client(2))));
}

#[test]
fn every_one_of_many_is_found_and_none_that_is_gone() {
    let mut world = World::with(RelayPolicy {
        limits: RelayLimits {
            allocations_per_user_max: 0,
            allocations_per_min_per_user: 0,
            strangers_per_s: 1_000_000,
            ..RelayLimits::default()
        },
        ..policy()
    });
    world.relays.capacity = 5_000;
    let relays: Vec<_> = (0..3_000).map(|n| world.allocated(client(n)).0).collect();
    for n in 0..3_000 {
        assert_eq!(world.permit(client(n), &[peer(1)]), 0);
        assert_eq!(world.send(client(n), peer(1), b"x"), Some((relays[usize::from(n)], peer(1))));
    }
    for n in (0..3_000).step_by(3) {
        assert_eq!(world.refresh(client(n), 0).code(), 0);
    }
    for n in 0..3_000 {
        assert_eq!(world.server.find(&client(n)).is_some(), n % 3 != 0);
        assert_eq!(world.receive(relays[usize::from(n)], peer(1)), (n % 3 != 0).then(|| (0, client(n))));
    }
    world.pass(600);
    assert_eq!((world.relays.open.len(), world.server.sessions_len()), (0, 0));
    assert_eq!(world.server.next_timeout(), None);
}

#[test]
fn users_whose_uid_is_not_served_are_kicked_and_stay_out() {
    let uid = identity::SecretKey::from_seed([1; 32]).uid();
    let name = uid.to_string();
    let StaticUser { keys, .. } = StaticUser::derive(&name, REALM, &password(&name)).expect("plain text");
    let user = RelayUser { name: name.clone(), key_md5: keys.md5, key_sha256: keys.sha256 };
    let mut world = World::with(RelayPolicy { users: [policy().users, vec![user]].concat(), ..policy() });
    let allocate = |world: &mut World, n: u16| {
        let request = world.signed(client(n), &name, Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        world.raw(client(n), &request).expect("an answer").code()
    };
    // George's name is no UID, so he is an operator's own.
    world.allocated(client(1));
    assert_eq!(allocate(&mut world, 2), 0);
    world.uids = UidAccess { allow: Vec::new(), deny: vec![*uid.as_bytes()] };
    world.apply_policy();
    let now = world.now();
    assert_eq!(world.server.kick_refused(now, &mut world.relays), 1);
    assert_eq!(
        world.server.sessions(now).map(|session| session.user.to_string()).collect::<Vec<_>>(),
        [USER]
    );
    assert_eq!((allocate(&mut world, 2), allocate(&mut world, 3)), (403, 403));
    assert_eq!(world.server.counters().users_refused, [2, 0]);
    world.uids = UidAccess { allow: vec![[3; 32]], deny: Vec::new() };
    world.apply_policy();
    assert_eq!(allocate(&mut world, 3), 403);
    assert_eq!(world.server.counters().users_refused, [2, 1]);
    assert_eq!(world.refresh(client(1), 600).code(), 0);
}
