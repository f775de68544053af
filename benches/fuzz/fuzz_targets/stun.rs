//! A STUN message of somebody unknown: reading, authentication, and the answer to a stranger. Among the seeds are requests
//! that authenticate, so that what follows the MAC is reached.
#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use relay::stun::{
    AttributeType, Authenticator, Class, Credentials, Expiry, Message, Nonces, StaticUser, Writer,
    stranger_reply_bytes_max,
};

/// A time at which the nonces of the seeds are valid, and their user names have not expired.
const NOW_S: u64 = 1_800_000_000;

/// Where the seeds come from.
const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 7], 4000);

static STATIC: LazyLock<Credentials> =
    LazyLock::new(|| Credentials::new("example.org", [alice()], []).expect("a good realm"));
static BOTH: LazyLock<Credentials> = LazyLock::new(|| {
    Credentials::new("example.org", [alice()], [b"north".to_vec(), b"south".to_vec()]).expect("a good realm")
});

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::decode(data) else { return };
    ask(&message);
    written_again_it_is_the_same(&message);
    for credentials in [&*STATIC, &*BOTH] {
        authenticate(&message, credentials);
    }
});

fn ask(message: &Message<'_>) {
    // Asking for each attribute of a message takes time quadratic in their number, which no server does.
    for (kind, value) in message.attributes().take(100) {
        assert!(
            message.find(kind).is_some_and(|first| first.len() + value.len() <= 2 * message.bytes().len())
        );
        let _ = (message.text(kind), message.xor_address(kind));
    }
    let _ =
        (message.lifetime_s(), message.channel_number(), message.requested_transport(), message.even_port());
    let _ = (message.requested_family(), message.additional_family(), message.reservation_token());
    let _ = (message.dont_fragment(), message.data(), message.mobility_ticket());
    let _ = message.peer_addresses().count();
    assert!(message.unknown_attributes().as_slice().iter().all(|kind| *kind < 0x8000));
}

fn written_again_it_is_the_same(message: &Message<'_>) {
    let mut out = vec![0; message.bytes().len()];
    let mut writer = Writer::new(&mut out, message.class(), message.method(), message.transaction());
    for (kind, value) in message.attributes() {
        writer.attribute(kind, value);
    }
    let written = writer.finish().expect("what was read fits where it was read from");
    let written = Message::decode(written).expect("it was just written");
    assert!(written.attributes().eq(message.attributes()));
    assert_eq!((written.class(), written.method()), (message.class(), message.method()));
}

fn authenticate(message: &Message<'_>, credentials: &Credentials) {
    let client = SocketAddr::from(CLIENT);
    let mut authenticator = Authenticator::new(Nonces::new([3; 32], 3600));
    let mut out = [0; 1500];
    match authenticator.authenticate(message, credentials, NOW_S, client, Expiry::Enforced) {
        Ok(authenticated) => {
            assert!(authenticated.expires_s.is_none_or(|expires_s| expires_s > NOW_S));
            let mut writer = Writer::success(&mut out, message);
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client);
            let answer = writer.seal(message, Some(&authenticated.reply_key)).expect("it is short");
            let answer = Message::decode(answer).expect("it was just written");
            assert!(answer.verify_integrity(authenticated.reply_key.key.as_bytes(), 32));
        }
        Err(error) => {
            let len_max = stranger_reply_bytes_max(message.bytes().len()).min(out.len());
            let answer =
                authenticator.refuse(message, error, credentials, NOW_S, client, &mut out[..len_max]);
            let answer = Message::decode(answer.expect("a 400 always fits")).expect("it was just written");
            assert_eq!((answer.class(), answer.transaction()), (Class::Error, message.transaction()));
            assert_eq!(answer.has_fingerprint(), message.has_fingerprint());
        }
    }
}

fn alice() -> StaticUser {
    StaticUser::derive("alice", "example.org", "open sesame").expect("ASCII")
}
