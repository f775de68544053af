use super::world::{Client, TIME_US, World, key, places, uid};
use identity::{Domain, Uid};
use relay::mailbox::{Close, Envelope, Frame, Kind, MailboxLimits, NoRelay, Status, sign};
use relay::policy::{Policy, RelayPolicy, UidAccess};
use relay::stun::rest_password;
use std::sync::Arc;
use std::time::Duration;

const NONE: [u8; 4] = [0; 4];

fn world(shards: usize) -> World {
    World::new(shards, MailboxLimits::default())
}

fn statuses(frames: &[Frame]) -> Vec<Status> {
    let status = |frame: &Frame| match frame {
        Frame::Status { status, .. } => Some(*status),
        _ => None,
    };
    frames.iter().filter_map(status).collect()
}

fn bodies(frames: &[Frame]) -> Vec<Vec<u8>> {
    let body = |frame: &Frame| match frame {
        Frame::Deliver(bytes) => Some(Envelope::parse(bytes).unwrap().body().to_vec()),
        _ => None,
    };
    frames.iter().filter_map(body).collect()
}

#[test]
fn friends_reach_each_other_in_order_on_any_shards() {
    for shards in [1, 2, 5] {
        let mut world = world(shards);
        let one = world.peer(1, 0, &[2]);
        let two = world.peer(2, shards - 1, &[1]);
        world.settle();
        assert_eq!(world.take(one), [Frame::Welcome { time_us: TIME_US, allowed_max: 1_024 }]);
        for n in 0..40u8 {
            world.send(one, Kind::Message, 2, NONE, &[n]);
        }
        world.settle();
        let got = world.take(two);
        assert_eq!(bodies(&got), (0..40).map(|n| vec![n]).collect::<Vec<_>>());
        let Some(Frame::Deliver(bytes)) = got.last() else { panic!("{got:?}") };
        let envelope = Envelope::parse(bytes).unwrap();
        assert_eq!((envelope.verify(), envelope.sender()), (Ok(()), uid(1)));
        world.send(two, Kind::Receipt, 1, NONE, &envelope.receipt().to_bytes());
        world.settle();
        assert_eq!(bodies(&world.take(one)), [envelope.receipt().to_bytes()]);
    }
}

#[test]
fn strangers_reach_nobody_and_are_told() {
    let mut world = world(2);
    let one = world.peer(1, 0, &[2]);
    let two = world.peer(2, 1, &[]);
    let at = world.send(one, Kind::Message, 2, NONE, b"hello");
    world.send(one, Kind::Receipt, 2, NONE, &[0; 40]);
    world.send(one, Kind::Message, 3, NONE, b"hello");
    world.settle();
    let got = world.take(one);
    // Different receivers are at home on different shards, so there is no order between them.
    let mut sorted = statuses(&got);
    sorted.sort_unstable();
    assert_eq!(sorted, [Status::Offline, Status::Refused, Status::Refused]);
    assert!(got.contains(&Frame::Status { receiver: uid(2), time_us: at, status: Status::Refused }));
    assert_eq!(bodies(&world.take(two)), Vec::<Vec<u8>>::new());
    // Allowed, and forbidden again.
    world.say(two, &Frame::Allow(vec![uid(1)]));
    world.send(one, Kind::Message, 2, NONE, b"now");
    world.settle();
    world.say(two, &Frame::Forbid(vec![uid(1), uid(9)]));
    world.send(one, Kind::Message, 2, NONE, b"then");
    world.settle();
    assert_eq!(bodies(&world.take(two)), [b"now".to_vec()]);
    assert_eq!(statuses(&world.take(one)), [Status::Refused]);
}

#[test]
fn a_request_passes_with_the_nospam_of_now_and_within_its_rate() {
    let mut world = world(2);
    let one = world.peer(1, 0, &[]);
    let two = world.peer(2, 1, &[]);
    world.send(one, Kind::Request, 2, [2; 4], b"let us be friends");
    world.send(one, Kind::Request, 2, [3; 4], b"guessed");
    world.settle();
    assert_eq!(bodies(&world.take(two)), [b"let us be friends".to_vec()]);
    assert_eq!(statuses(&world.take(one)), [Status::NospamWrong]);
    world.say(two, &Frame::Nospam([9; 4]));
    world.send(one, Kind::Request, 2, [2; 4], b"with the old address");
    world.settle();
    assert_eq!(statuses(&world.take(one)), [Status::NospamWrong]);
    // Ten at once, six a minute: three are spent.
    for _ in 0..9 {
        world.send(one, Kind::Request, 2, [9; 4], b"again");
    }
    world.settle();
    assert_eq!(bodies(&world.take(two)).len(), 7);
    assert_eq!(statuses(&world.take(one)), [Status::Busy, Status::Busy]);
    world.pass(Duration::from_secs(10));
    world.send(one, Kind::Request, 2, [9; 4], b"later");
    world.send(one, Kind::Request, 2, [9; 4], b"too early");
    world.settle();
    assert_eq!((bodies(&world.take(two)).len(), statuses(&world.take(one))), (1, vec![Status::Busy]));
}

/// Many strangers with the right nospam: the receiver gets as many requests as one would have sent.
#[test]
fn a_flood_of_requests_from_many_is_bounded_for_who_gets_them() {
    let mut world = world(3);
    let victim = world.peer(1, 0, &[2]);
    let friend = world.peer(2, 1, &[1]);
    world.settle();
    world.take(friend);
    for n in 10..110 {
        let stranger = world.peer(n, usize::from(n) % 3, &[]);
        world.send(stranger, Kind::Request, 1, [1; 4], b"me");
    }
    world.send(friend, Kind::Message, 1, NONE, b"still here");
    world.settle();
    let got = bodies(&world.take(victim));
    assert_eq!(got.len(), 10 + 1);
    assert!(got.contains(&b"still here".to_vec()));
    assert_eq!(world.shards.iter().map(|shard| shard.counters().busy).sum::<u64>(), 90);
}

#[test]
fn the_newer_login_wins_and_the_older_session_is_told() {
    let mut world = world(3);
    let one = world.peer(1, 0, &[2]);
    let old = world.peer(2, 1, &[1]);
    world.settle();
    let new = world.peer(2, 2, &[1]);
    world.settle();
    assert_eq!((world.clients[old].closed, world.clients[new].closed), (Some(Close::Displaced), None));
    world.send(one, Kind::Message, 2, NONE, b"to the newer");
    world.settle();
    assert_eq!(bodies(&world.take(new)), [b"to the newer".to_vec()]);
    // That the older one ends takes nothing from the newer.
    world.hang_up(old);
    world.settle();
    world.send(one, Kind::Message, 2, NONE, b"again");
    world.settle();
    assert_eq!(bodies(&world.take(new)), [b"again".to_vec()]);
    assert_eq!(world.shards.iter().map(|shard| shard.listed()).sum::<usize>(), 2);
}

#[test]
fn a_login_proves_the_key_and_the_connection() {
    let mut world = world(1);
    let right = world.connect(1, 0);
    world.login(right);
    // Somebody else's key; a signature over what another connection exports; the wrong domain.
    let Client { id, .. } = world.clients[right];
    let exported = *blake3::hash(&id.serial.to_le_bytes()).as_bytes();
    let stolen = key(1).sign(Domain::MailboxLogin, &exported);
    for (uid, signature) in [
        (uid(1), key(2).sign(Domain::MailboxLogin, &exported)),
        (uid(1), stolen),
        (uid(1), key(1).sign(Domain::Envelope, &exported)),
        (Uid::from_bytes([0; 32]), stolen),
    ] {
        let client = world.connect(1, 0);
        world.say(client, &Frame::Login { uid, nospam: NONE, signature });
        world.settle();
        assert_eq!(world.clients[client].closed, Some(Close::LoginRefused));
    }
    assert_eq!((world.shards[0].counters().logins, world.shards[0].counters().logins_refused), (1, 4));
    assert!(world.shards[0].is_logged_in(id));
}

#[test]
fn under_a_policy_that_has_expired_sessions_go_on_and_none_begins() {
    let mut world = world(2);
    let (one, two) = (world.peer(1, 0, &[2]), world.peer(2, 1, &[1]));
    world.settle();
    let ends = |valid_until_s| Arc::new(Policy { valid_until_s, ..Policy::default() });
    world.shards.iter_mut().for_each(|shard| shard.set_policy(ends(TIME_US / 1_000_000)));
    let late = world.connect(3, 0);
    world.login(late);
    world.settle();
    assert_eq!(world.clients[late].closed, Some(Close::PolicyExpired));
    let counters = world.shards[0].counters();
    assert_eq!((counters.logins, counters.logins_refused, counters.logins_policy_expired), (1, 0, 1));
    world.send(one, Kind::Message, 2, NONE, b"still here");
    world.settle();
    assert_eq!(bodies(&world.take(two)), [b"still here".to_vec()]);
    world.shards.iter_mut().for_each(|shard| shard.set_policy(ends(TIME_US / 1_000_000 + 1)));
    let client = world.connect(3, 0);
    world.login(client);
    world.settle();
    assert_eq!(world.clients[client].closed, None);
}

#[test]
fn who_is_not_served_is_sent_away_and_does_not_come_back() {
    let mut world = world(2);
    let (one, two, three) = (world.peer(1, 0, &[2, 3]), world.peer(2, 1, &[1]), world.peer(3, 1, &[1]));
    world.settle();
    let serve = |world: &mut World, allow: &[u8], deny: &[u8]| {
        let sorted = |numbers: &[u8]| {
            let mut uids: Vec<_> = numbers.iter().map(|n| *uid(*n).as_bytes()).collect();
            uids.sort_unstable();
            uids
        };
        let uids = UidAccess { allow: sorted(allow), deny: sorted(deny) };
        let policy = Arc::new(Policy { uids, ..Policy::default() });
        world.shards.iter_mut().for_each(|shard| shard.set_policy(Arc::clone(&policy)));
        world.settle();
    };
    serve(&mut world, &[], &[2]);
    let closed = |world: &World, client: usize| world.clients[client].closed;
    assert_eq!((closed(&world, one), closed(&world, two)), (None, Some(Close::Denied)));
    assert_eq!(world.shards[1].counters().denied, 1);
    let again = world.peer(2, 1, &[1]);
    world.settle();
    assert_eq!(closed(&world, again), Some(Close::Denied));
    assert_eq!(world.shards[1].counters().logins_denied, 1);
    // Somebody who only says that he is the one who is denied does not learn that he is.
    let liar = world.connect(5, 1);
    world.say(
        liar,
        &Frame::Login { uid: uid(2), nospam: NONE, signature: key(5).sign(Domain::MailboxLogin, b"no") },
    );
    world.settle();
    assert_eq!(closed(&world, liar), Some(Close::LoginRefused));

    serve(&mut world, &[1, 2], &[2]);
    assert_eq!((closed(&world, one), closed(&world, three)), (None, Some(Close::Denied)));
    let other = world.peer(4, 0, &[]);
    world.settle();
    assert_eq!(closed(&world, other), Some(Close::Denied));
    assert_eq!(world.shards[0].counters().logins_not_allowed, 1);
    serve(&mut world, &[], &[]);
    let back = world.peer(2, 1, &[1]);
    world.settle();
    world.send(one, Kind::Message, 2, NONE, b"back");
    world.settle();
    assert_eq!(bodies(&world.take(back)), [b"back".to_vec()]);
}

#[test]
fn a_peer_is_issued_credentials_for_the_relay_and_nobody_else_is() {
    let mut world = world(1);
    let one = world.peer(1, 0, &[]);
    world.settle();
    world.take(one);
    let set = |world: &mut World, relay: RelayPolicy, valid_until_s: u64| {
        world.shards[0].set_policy(Arc::new(Policy { relay, valid_until_s, ..Policy::default() }));
    };
    let ask = |world: &mut World| {
        world.say(one, &Frame::AskRelay);
        world.settle();
        let got = world.take(one);
        assert_eq!(got.len(), 1, "{got:?}");
        got[0].clone()
    };
    assert_eq!(ask(&mut world), Frame::NoRelay(NoRelay::NotIssued), "there is no secret");
    let now_s = TIME_US / 1_000_000;
    let secrets = vec![b"in use".to_vec(), b"on its way out".to_vec()];
    let relay = RelayPolicy { rest_secrets: secrets, ..RelayPolicy::default() };
    set(&mut world, relay.clone(), u64::MAX);
    let Frame::Relay(grant) = ask(&mut world) else { panic!("a grant") };
    assert_eq!((grant.expires_s, grant.places), (now_s + 3_600, places()));
    let name = format!("{}:{}", now_s + 3_600, uid(1));
    assert_eq!(grant.user_name(&uid(1)), name);
    assert_eq!(*grant.password(), *rest_password(b"in use", &name));
    assert_eq!(
        grant.places.uris("203.0.113.5".parse().unwrap()),
        ["turn:203.0.113.5:3478?transport=udp", "turn:198.51.100.7:3479?transport=tcp"]
    );
    assert!(!format!("{grant:?}").contains(&*grant.password()), "no password in a log");
    // They end with the policy.
    set(&mut world, relay.clone(), now_s + 60);
    let Frame::Relay(grant) = ask(&mut world) else { panic!("a grant") };
    assert_eq!(grant.expires_s, now_s + 60);
    set(&mut world, RelayPolicy { draining: true, ..relay.clone() }, u64::MAX);
    assert_eq!(ask(&mut world), Frame::NoRelay(NoRelay::Draining));
    set(&mut world, relay.clone(), now_s);
    assert_eq!(ask(&mut world), Frame::NoRelay(NoRelay::PolicyExpired));
    set(&mut world, relay, u64::MAX);
    // Ten at once, of which five are left, and six a minute.
    (0..5).for_each(|_| assert!(matches!(ask(&mut world), Frame::Relay(_))));
    assert_eq!(ask(&mut world), Frame::NoRelay(NoRelay::Busy));
    world.now += Duration::from_secs(10);
    assert!(matches!(ask(&mut world), Frame::Relay(_)));
    let counters = world.shards[0].counters();
    assert_eq!((counters.relay_granted, counters.relay_not_granted), (8, 4));
    // Without a login there are none, and a peer does not issue them.
    let stranger = world.connect(2, 0);
    world.say(stranger, &Frame::AskRelay);
    world.say(one, &Frame::Relay(grant));
    world.settle();
    assert_eq!(world.clients[stranger].closed, Some(Close::Malformed));
    assert_eq!(world.clients[one].closed, Some(Close::Malformed));
}

#[test]
fn what_no_peer_may_say_closes_the_session() {
    let envelope = |from: u8, to: u8| sign(&key(from), Kind::Message, &uid(to), NONE, TIME_US, b"x").unwrap();
    let mut cut = Vec::new();
    Frame::Send(envelope(1, 2)[..100].into()).write(&mut cut);
    let mut frames = Vec::new();
    for frame in [
        Frame::Send(envelope(3, 2)),
        Frame::Send(envelope(1, 1)),
        Frame::Welcome { time_us: 0, allowed_max: 0 },
        Frame::Deliver(envelope(2, 1)),
        Frame::Status { receiver: uid(2), time_us: 0, status: Status::Busy },
        Frame::Listen,
    ] {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        frames.push(bytes);
    }
    for bytes in frames.into_iter().chain([cut, vec![0, 0, 2], vec![0xff, 0xff, 4], vec![1, 0, 0x77, 0]]) {
        let mut world = world(1);
        let one = world.peer(1, 0, &[2]);
        let two = world.peer(2, 0, &[1]);
        world.settle();
        world.say_bytes(one, &bytes);
        world.settle();
        assert_eq!(world.clients[one].closed, Some(Close::Malformed), "{bytes:?}");
        assert_eq!(bodies(&world.take(two)), Vec::<Vec<u8>>::new());
        assert_eq!((world.shards[0].sessions(), world.shards[0].listed()), (1, 1));
    }
    // Before a login only a login is taken.
    for frame in [Frame::Listen, Frame::Allow(vec![uid(2)]), Frame::Send(envelope(1, 2))] {
        let mut world = world(1);
        let client = world.connect(1, 0);
        world.say(client, &frame);
        world.settle();
        assert_eq!(world.clients[client].closed, Some(Close::Malformed));
    }
}

#[test]
fn who_does_not_read_makes_senders_wait_and_who_floods_is_held_back() {
    let limits = MailboxLimits { unsent_bytes_max: 4_096, ..MailboxLimits::default() };
    let mut world = World::new(1, limits);
    let one = world.peer(1, 0, &[2]);
    let two = world.peer(2, 0, &[1]);
    world.settle();
    world.take(one);
    // Nothing is taken off the sessions' hands meanwhile.
    for _ in 0..210 {
        world.send(one, Kind::Message, 2, NONE, &[7; 1_000]);
    }
    let waiting = world.shards[0].unsent(world.clients[two].id).len();
    assert!(waiting <= 4_096, "{waiting}");
    // Three fit; of 207 refusals of 44 bytes about 122 fit, and then the sender has asked too much unread.
    world.settle();
    assert_eq!(bodies(&world.take(two)).len(), 3);
    assert_eq!(world.clients[one].closed, Some(Close::Slow));
    assert_eq!(world.shards[0].counters().slow, 1);
}

#[test]
fn more_than_may_be_allowed_is_refused() {
    let limits = MailboxLimits { allowed_max: 3, ..MailboxLimits::default() };
    let mut world = World::new(1, limits);
    let one = world.peer(1, 0, &[2, 3, 4, 3, 2]);
    world.settle();
    assert_eq!(world.clients[one].closed, None);
    world.say(one, &Frame::Forbid(vec![uid(2)]));
    world.say(one, &Frame::Allow(vec![uid(5)]));
    world.say(one, &Frame::Allow(vec![uid(6)]));
    world.settle();
    assert_eq!(world.clients[one].closed, Some(Close::AllowedMax));
}
