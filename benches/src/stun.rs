//! What a relay does with STUN: a Send indication and a Data indication are a packet's work, the rest is a session's.

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;

use relay::stun::{
    AttributeType, AuthError, Authenticator, Class, Credentials, Expiry, Integrity, Message, Method, Nonces,
    StaticUser, TransactionId, Writer, data_indication_header, rest_password,
};

use super::NOW_S;

const REALM: &str = "example.org";
const PEER: &str = "192.0.2.1:49200";
const TRANSACTION: TransactionId = TransactionId([5; 12]);

/// A Send indication with 1,200 bytes for an IPv4 peer, as clients send them.
pub fn send_indication() -> Vec<u8> {
    let mut out = [0; 1500];
    let mut writer = Writer::new(&mut out, Class::Indication, Method::Send, TRANSACTION);
    writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer()).attribute(AttributeType::DATA, &[9; 1200]);
    writer.finish().expect("it fits").to_vec()
}

/// From the datagram to where its payload goes.
pub fn send_indication_work(datagram: &[u8]) -> (SocketAddr, usize, bool) {
    let message = Message::decode(datagram).expect("it is well-formed");
    assert!(message.unknown_attributes().is_empty());
    let peer =
        message.xor_address(AttributeType::XOR_PEER_ADDRESS).expect("an address").expect("it is there");
    (peer, message.data().map_or(0, <[u8]>::len), message.dont_fragment())
}

/// What stands before a peer's payload of 1,200 bytes.
pub fn data_indication_work(from: &SocketAddr) -> [u8; 48] {
    let mut out = [0; 48];
    data_indication_header(&mut out, TRANSACTION, *from, black_box(1200)).expect("it fits");
    out
}

/// The address that a Data indication names.
pub fn peer() -> SocketAddr {
    PEER.parse().expect("an address")
}

/// A server, and requests of clients to it.
pub struct Requests {
    authenticator: Authenticator,
    credentials: Credentials,
    /// The first request of every client, 28 bytes.
    first: Vec<u8>,
    /// A Refresh whose key is made with MD5, as of today's browsers.
    md5: Vec<u8>,
    /// The same with SHA-256.
    sha256: Vec<u8>,
    /// The same as the first, of a user name with an expiry and the second of two secrets.
    rest: Vec<u8>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// A server with a static user and two secrets, and requests that authenticate.
pub fn requests() -> Requests {
    let derive = |name, password| StaticUser::derive(name, REALM, password).expect("ASCII");
    let alice = derive("alice", "open sesame");
    let secrets = [b"north".to_vec(), b"south".to_vec()];
    let mut requests = Requests {
        authenticator: Authenticator::new(Nonces::new([3; 32], 3600)),
        credentials: Credentials::new(REALM, [alice.clone()], secrets).expect("a good realm"),
        first: first_request(),
        md5: Vec::new(),
        sha256: Vec::new(),
        rest: Vec::new(),
    };
    let challenge = challenge(&mut requests);
    let challenge = Message::decode(&challenge).expect("the server wrote it");
    let nonce = challenge.find(AttributeType::NONCE).expect("it is there");
    let name = format!("{}:bob", NOW_S + 60);
    let bob = derive(&name, &rest_password(b"south", &name));
    requests.md5 = refresh("alice", nonce, Integrity::Sha1, &alice.keys.md5);
    requests.sha256 = refresh("alice", nonce, Integrity::Sha256, &alice.keys.sha256);
    requests.rest = refresh(&name, nonce, Integrity::Sha1, &bob.keys.md5);
    requests
}

/// From a stranger's first request to the 401.
pub fn challenge_work(requests: &mut Requests) -> usize {
    challenge(requests).len()
}

/// From a Refresh to its sender, with MD5 and HMAC-SHA1.
pub fn authenticate_md5_work(requests: &mut Requests) -> bool {
    let Requests { authenticator, credentials, md5, .. } = requests;
    authenticate(authenticator, credentials, md5)
}

/// From a Refresh to its sender, with SHA-256 and HMAC-SHA256.
pub fn authenticate_sha256_work(requests: &mut Requests) -> bool {
    let Requests { authenticator, credentials, sha256, .. } = requests;
    authenticate(authenticator, credentials, sha256)
}

/// From a Refresh to its sender, whose password the second of two secrets makes.
pub fn authenticate_rest_work(requests: &mut Requests) -> bool {
    let Requests { authenticator, credentials, rest, .. } = requests;
    authenticate(authenticator, credentials, rest)
}

fn authenticate(authenticator: &mut Authenticator, credentials: &Credentials, request: &[u8]) -> bool {
    let message = Message::decode(request).expect("it is well-formed");
    let authenticated = authenticator.authenticate(&message, credentials, NOW_S, client(), Expiry::Enforced);
    assert!(authenticated.is_ok(), "{authenticated:?}");
    authenticated.is_ok()
}

fn challenge(requests: &mut Requests) -> Vec<u8> {
    let Requests { authenticator, credentials, first, .. } = requests;
    let message = Message::decode(first).expect("it is well-formed");
    let mut out = [0; 98];
    authenticator
        .refuse(&message, AuthError::NoIntegrity, credentials, NOW_S, client(), &mut out)
        .expect("98 bytes hold it")
        .to_vec()
}

fn first_request() -> Vec<u8> {
    let mut out = [0; 28];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Allocate, TRANSACTION);
    writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    writer.finish().expect("it fits").to_vec()
}

fn refresh(name: &str, nonce: &[u8], integrity: Integrity, key: &[u8]) -> Vec<u8> {
    let mut out = [0; 300];
    let mut writer = Writer::new(&mut out, Class::Request, Method::Refresh, TRANSACTION);
    writer
        .lifetime_s(600)
        .attribute(AttributeType::USERNAME, name.as_bytes())
        .attribute(AttributeType::REALM, REALM.as_bytes())
        .attribute(AttributeType::NONCE, nonce);
    if integrity == Integrity::Sha256 {
        writer
            .attribute(AttributeType::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0])
            .attribute(AttributeType::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
    }
    writer.integrity_with(integrity, key);
    writer.finish().expect("it fits").to_vec()
}

fn client() -> SocketAddr {
    "198.51.100.7:4000".parse().expect("an address")
}
