//! Binding (RFC 8489 section 12), and what is never answered.

use super::world::{World, client};
use relay::stun::{AttributeType, Class, Method};
use relay::turn::{Action, Cause, FiveTuple, Transport};

#[test]
fn a_binding_tells_the_clients_address() {
    let mut world = World::new();
    let request = world.unsigned(Class::Request, Method::Binding, |_| {});
    let response = world.raw(client(1), &request).expect("an answer");
    assert!(response.is_success());
    assert_eq!(response.mapped(), client(1).client);
    assert_eq!(response.bytes.len(), 32, "nothing but header and address: no SOFTWARE, no FINGERPRINT");

    let v6 = FiveTuple {
        transport: Transport::Udp,
        client: "[2001:db8:1::7]:4000".parse().expect("an address"),
        server: "[2001:db8::1]:3478".parse().expect("an address"),
    };
    let response = world.raw(v6, &request).expect("an answer");
    assert_eq!(response.mapped(), v6.client);
}

#[test]
fn a_fingerprint_is_answered_with_one() {
    let mut world = World::new();
    let request = world.unsigned(Class::Request, Method::Binding, |writer| {
        writer.fingerprint();
    });
    let response = world.raw(client(1), &request).expect("an answer");
    assert!(response.message().has_fingerprint());
}

#[test]
fn an_attribute_that_must_be_understood_is_named() {
    let mut world = World::new();
    let request = world.unsigned(Class::Request, Method::Binding, |writer| {
        writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 6]);
    });
    let response = world.raw(client(1), &request).expect("an answer");
    assert_eq!(response.code(), 420);
    assert_eq!(response.attribute(AttributeType::UNKNOWN_ATTRIBUTES), Some(vec![0, 3]));
}

#[test]
fn only_requests_of_known_methods_are_answered() {
    let mut world = World::new();
    let methods = [
        Method::Binding,
        Method::Allocate,
        Method::Refresh,
        Method::Send,
        Method::Data,
        Method::CreatePermission,
        Method::ChannelBind,
        Method::Other(0x00a),
        Method::Other(0xfff),
    ];
    for method in methods {
        for class in [Class::Indication, Class::Success, Class::Error] {
            let message = world.unsigned(class, method, |writer| {
                writer.attribute(AttributeType::ERROR_CODE, &[0, 0, 4, 1]);
            });
            assert_eq!(world.raw(client(1), &message).map(|r| r.code()), None, "{class:?} {method:?}");
        }
    }
    for method in [Method::Send, Method::Data, Method::Other(0x00a), Method::Other(0xfff)] {
        let message = world.unsigned(Class::Request, method, |_| {});
        let is_dropped = world.act(client(1), &message, |action| action == Action::Drop(Cause::NotARequest));
        assert!(is_dropped, "{method:?}");
    }
    assert_eq!(world.server.counters().successes, 0);
    assert_eq!(world.server.counters().errors.iter().sum::<u64>(), 0);
}

#[test]
fn what_is_not_stun_is_dropped() {
    let mut world = World::new();
    let request = world.unsigned(Class::Request, Method::Binding, |_| {});
    let mut without_cookie = request.clone();
    without_cookie[4] ^= 1;
    let junk: [&[u8]; 8] =
        [&[], &[0], &[0x40], &[0x4f, 0, 0], &[0x80, 0, 0, 0], &[0x16; 100], &request[..19], &without_cookie];
    for (count, bytes) in (1..).zip(junk) {
        let is_dropped = world.act(client(1), bytes, |action| action == Action::Drop(Cause::Malformed));
        assert!(is_dropped, "{bytes:02x?}");
        assert_eq!(world.server.counters().drops[Cause::Malformed as usize], count);
    }
}
