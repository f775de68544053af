//! What those get who have proved nothing: little, and not often.

use super::world::{UNIX_S, World, client, policy};
use relay::policy::RelayPolicy;
use relay::stun::{AttributeType, Class, Integrity, Method, TransactionId, Writer, rest_password};
use relay::turn::{Action, Cause, FiveTuple, Transport};

/// Bytes of the answer to a message, 0 if there is none.
fn answer_len(world: &mut World, from: FiveTuple, message: &[u8]) -> usize {
    world.act(from, message, |action| match action {
        Action::Reply(bytes) => bytes.len(),
        Action::Drop(_) => 0,
        other => panic!("a stranger moves nothing: {other:?}"),
    })
}

#[test]
fn no_answer_is_more_than_three_and_a_half_times_the_request() {
    let methods =
        [Method::Binding, Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];
    let v6 = FiveTuple {
        transport: Transport::Udp,
        client: "[2001:db8:1::7]:4000".parse().expect("an address"),
        server: "[2001:db8::1]:3478".parse().expect("an address"),
    };
    let mut answered = 0;
    for method in methods {
        for filler_len in [None, Some(0), Some(1), Some(5), Some(40), Some(400)] {
            for credentials in 0..4 {
                let mut world = World::new();
                world.policy.limits.strangers_per_s = 1_000;
                world.apply_policy();
                let message = world.unsigned(Class::Request, method, |writer| {
                    if let Some(len) = filler_len {
                        writer.attribute(AttributeType(0x7777), &vec![0; len]);
                    }
                    if credentials > 0 {
                        writer.attribute(AttributeType::USERNAME, b"x");
                    }
                    if credentials > 1 {
                        writer.attribute(AttributeType::REALM, b"example.org");
                        writer.attribute(AttributeType::NONCE, b"n");
                    }
                    if credentials > 2 {
                        writer.integrity_with(Integrity::Sha1, b"wrong");
                    }
                });
                for from in [client(1), v6] {
                    let len = answer_len(&mut world, from, &message);
                    assert!(len * 2 <= message.len() * 7, "{method:?}: {len} for {}", message.len());
                    answered += usize::from(len > 0);
                }
            }
        }
    }
    assert!(answered > 200, "most get an answer: {answered}");
}

#[test]
fn the_shortest_allocate_is_challenged() {
    let mut world = World::new();
    let message = world.unsigned(Class::Request, Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    assert_eq!(message.len(), 28);
    let response = world.raw(client(1), &message).expect("an answer");
    assert_eq!(response.code(), 401);
    assert!(response.bytes.len() <= 98);
    assert_eq!(response.attribute(AttributeType::SOFTWARE), None);
}

#[test]
fn answers_are_limited_a_prefix() {
    let mut world = World::new();
    // The world is one of four shards, and each of them gives its part.
    world.policy.limits.strangers_per_s = 40;
    world.apply_policy();
    let message = world.unsigned(Class::Request, Method::Binding, |_| {});
    let answers = |world: &mut World, network: u16, count: u16| {
        (0..count).filter(|n| answer_len(world, client(network << 8 | (n & 0xff)), &message) > 0).count()
    };
    // Clients of one network are in one /24.
    assert_eq!(answers(&mut world, 0, 200), 10);
    assert_eq!(world.server.counters().drops[Cause::StrangerLimit as usize], 190);
    world.pass(2);
    assert_eq!(answers(&mut world, 0, 200), 10);
    let other = FiveTuple { client: "203.1.114.1:9".parse().expect("an address"), ..client(1) };
    assert!(answer_len(&mut world, other, &message) > 0, "another /24 is another matter");
}

#[test]
fn the_limit_does_not_touch_those_with_an_allocation() {
    let mut world = World::new();
    world.policy.limits.strangers_per_s = 3;
    world.apply_policy();
    world.allocated(client(1));
    let message = world.unsigned(Class::Request, Method::Binding, |_| {});
    for n in 2..100 {
        answer_len(&mut world, client(n), &message);
    }
    assert_eq!(answer_len(&mut world, client(3), &message), 0);
    assert_eq!(answer_len(&mut world, client(1), &message), 32);
    assert_eq!(world.refresh(client(1), 600).code(), 0);
    // The nonce becomes stale within the hour; that answer is for a client we know, too.
    world.pass(500);
    assert_eq!(world.refresh(client(1), 3_600).code(), 0);
    world.pass(3_500);
    for n in 2..100 {
        answer_len(&mut world, client(n), &message);
    }
    assert_eq!(world.refresh(client(1), 600).code(), 0);
}

#[test]
fn an_expiring_user_name_begins_sessions_until_it_expires() {
    let secret = b"shared".to_vec();
    let mut world = World::with(RelayPolicy { rest_secrets: vec![secret.clone()], ..policy() });
    let user = format!("{}:george", UNIX_S + 100);
    let password = rest_password(&secret, &user);
    let ask = |world: &mut World, n: u16, method: Method| {
        let nonce = world.challenged(client(n));
        let keys = relay::stun::StaticUser::derive(&user, super::world::REALM, &password).expect("text").keys;
        let mut out = [0; 1_024];
        let TransactionId(id) = world.transaction();
        let mut writer = Writer::new(&mut out, Class::Request, method, TransactionId(id));
        writer
            .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(AttributeType::USERNAME, user.as_bytes())
            .attribute(AttributeType::REALM, super::world::REALM.as_bytes())
            .attribute(AttributeType::NONCE, &nonce)
            .integrity_with(Integrity::Sha1, &keys.md5);
        let request = writer.finish().expect("fits").to_vec();
        world.raw(client(n), &request).expect("an answer").code()
    };
    assert_eq!(ask(&mut world, 1, Method::Allocate), 0);
    let now = world.now();
    assert_eq!(&*world.server.sessions(now).next().expect("a session").user, "george");
    world.pass(101);
    assert_eq!(ask(&mut world, 2, Method::Allocate), 401);
    assert_eq!(ask(&mut world, 2, Method::Refresh), 401);
    assert_eq!(ask(&mut world, 1, Method::Refresh), 0, "a session that has begun goes on");
}
