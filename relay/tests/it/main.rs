//! The content service's answers held against RFC 9110, and the policy socket's frames against committed vectors.

mod access;
mod authorize;
mod conditions;
mod counting;
mod ledger;
mod limits;
mod mailbox;
mod policy;
mod policy_change;
mod problems;
mod ranges;
mod rate;
mod routes;
mod stun_authenticate;
mod stun_messages;
mod stun_vectors;
mod turn;

use relay::content::{Action, Read, Request, Response, route};

/// Sixty-four hexadecimal digits and the bytes they stand for.
const HASH_TEXT: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
const HASH: [u8; 32] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01,
    0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
];
const SEGMENT_PATH: &str = "/b3/00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
const ETAG: &str = "\"00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef\"";

/// A GET of the segment.
fn get() -> Request<'static> {
    Request { method: b"GET", path: SEGMENT_PATH.as_bytes(), ..Request::default() }
}

/// What a request that reads comes to.
fn read(request: &Request<'_>) -> Read {
    match route(request, true) {
        Ok(Action::Read(read)) => read,
        other => panic!("not a read: {other:?}"),
    }
}

/// The text of a field, which must be there.
fn field<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers.get(name).unwrap_or_else(|| panic!("no {name} in {response:?}"));
    std::str::from_utf8(value).expect("our fields are ASCII")
}
