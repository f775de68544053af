//! Inputs of the benchmarks of pure code, shared by the two ways of measuring: wall time (criterion, `benches/time.rs`)
//! and instructions under callgrind (gungraun, `benches/instructions.rs`).
//!
//! Instruction counts are the same on every run and machine, so they tell a regression of a percent; wall time tells
//! what they mean. Code with SIMD differs under valgrind, which hides AVX-512: hashing and ciphers by themselves are not measured here.
//! Each `*_work` function is the work that is measured; everything else is set-up.

pub mod aead;
pub mod dpos;
pub mod erasure;
pub mod pipeline;
pub mod pow;
pub mod stun;
pub mod transactions;
pub mod turn;

use std::hint::black_box;
use std::time::{Duration, Instant};

use engine::cid::{self, ConnectionId, Keys, Origin};
use engine::timers::Timers;
use identity::token::{self, Action, Claims, Scope};
use identity::{Address, SecretKey, Uid};
use relay::content::{self, Read, Request};
use relay::content::{Rules, Tokens};
use relay::policy::{Decoder, FromEngine, Policy, ToEngine, encode_to_engine};
use std::cell::RefCell;
use std::sync::Arc;
use store::Hash;
use store::list::{ListBuilder, ListView};
use store::pack::{Commit, PackKey, Record};

/// Header fields of a segment request with a range, as a browser sends them.
#[derive(Clone, Debug)]
pub struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

/// A ranged GET of a segment among twelve fields.
pub fn get_fields() -> Fields {
    let path = format!("/b3/{}", "3f".repeat(32));
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "node.example:4433"),
        (":path", &path),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "*/*"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("range", "bytes=65536-1048575"),
        ("if-none-match", "\"0000000000000000000000000000000000000000000000000000000000000000\""),
        ("priority", "u=3"),
        ("te", "trailers"),
    ];
    Fields(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

/// From fields to the answer's status and headers.
pub fn request_work(fields: &Fields) -> usize {
    let pairs = fields.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let request = Request::from_fields(pairs).expect("the fields are well-formed");
    match content::route(&request, true) {
        Ok(content::Action::Read(read)) => respond(&read),
        other => unreachable!("the fields ask for a segment: {other:?}"),
    }
}

fn respond(read: &Read) -> usize {
    let response = read.respond(black_box(1 << 20), "application/octet-stream");
    response.headers.len() + usize::from(response.status)
}

/// A capability token, and what a node needs to verify it.
#[derive(Debug)]
pub struct Token {
    text: String,
    audience: Uid,
    issuer: Uid,
}

/// Time at which the token is verified, in seconds since 1970.
const NOW_S: u64 = 1_800_000_000;

/// A token for any content, valid now.
pub fn token() -> Token {
    let issuer = SecretKey::from_seed([1; 32]);
    let audience = SecretKey::from_seed([2; 32]).uid();
    let claims = Claims {
        issuer: issuer.uid(),
        subject: issuer.uid(),
        audience,
        not_before_s: NOW_S - 60,
        expires_s: NOW_S + 3600,
        token_id: [3; 16],
        action: Action::Put,
        scope: Scope::Any,
        bytes_max: Some(16 << 20),
        lease_expires_s: None,
    };
    Token { text: token::to_text(&claims.sign(&issuer)), audience, issuer: issuer.uid() }
}

/// From the text of the `authorization` field to a decision, signature included.
pub fn token_work(token: &Token) -> bool {
    let bytes = token::from_text(token.text.as_bytes()).expect("the text is a token's");
    let claims = token::verify(&bytes, NOW_S, &token.audience, |claims| claims.issuer == token.issuer)
        .expect("it is valid");
    claims.permits(Action::Put, &[9; 32], 1 << 20).is_ok()
}

/// A connection that has brought a token before, and the policy that it was judged by.
pub struct KnownToken {
    token: Token,
    policy: Arc<Policy>,
    tokens: RefCell<Tokens>,
}

/// A token that a connection has brought once.
pub fn known_token() -> KnownToken {
    let token = token();
    let policy = Policy { publishers: vec![*token.issuer.as_bytes()], ..Policy::default() };
    let known = KnownToken { token, policy: Arc::new(policy), tokens: RefCell::default() };
    assert!(known_token_work(&known), "it is valid");
    known
}

/// From the text of the `authorization` field to a decision, for a token that is known.
pub fn known_token_work(known: &KnownToken) -> bool {
    let KnownToken { token, policy, tokens } = known;
    let rules = Rules { now_s: NOW_S, node: &token.audience, policy, is_owner: &|_| false };
    let mut tokens = tokens.borrow_mut();
    let claims = tokens.admit(token.text.as_bytes(), &rules).expect("it is valid");
    relay::content::permit(claims, Action::Put, &[9; 32], 1 << 20, |_| false).is_ok()
}

/// A signed list of `segments` segments of 1 MiB.
pub fn list(segments: u32) -> Vec<u8> {
    let builder = ListBuilder {
        name: "firmware".to_owned(),
        version: (1, 2, 3),
        counter: 7,
        expires_s: NOW_S,
        target: "device/eu".to_owned(),
        file_hash: Some(Hash([5; 32])),
        ..ListBuilder::plain((0..segments).map(|i| (Hash([(i % 251) as u8; 32]), 1 << 20)))
    };
    builder.sign(&SecretKey::from_seed([1; 32])).expect("the list is within its bounds")
}

/// Bounds, hash and signature of a list.
pub fn list_open_work(document: &[u8]) -> u64 {
    ListView::open(document).expect("the list is valid").file_len()
}

/// Where a byte of the file lies, for 64 bytes spread over it.
pub fn list_locate_work(view: &ListView<'_>) -> u64 {
    let step = view.file_len() / 64;
    (0..64)
        .filter_map(|i| view.locate(i * step))
        .map(|(segment, within)| u64::from(segment) + u64::from(within))
        .sum()
}

/// Keys of connection ids.
pub fn connection_id_keys() -> Keys {
    Keys::new(&[4; 32], 1)
}

/// Issues an id, then does with it what a packet's arrival does: its shard, its owner.
pub fn connection_id_work(keys: &Keys) -> usize {
    let issued = keys.issue(5, 8, black_box([6; 10]));
    let id = ConnectionId::from_slice(issued.as_bytes()).expect("the id has its length");
    assert_eq!(keys.origin(&id), Origin::Ours);
    cid::shard_of(id.as_bytes(), 8)
}

/// Timers of `count` connections, a millisecond apart.
pub fn timers(count: u32) -> (Timers, Instant) {
    let start = Instant::now();
    let mut timers = Timers::new();
    for key in 0..count {
        timers.set(key, Some(start + Duration::from_millis(u64::from(key))));
    }
    (timers, start)
}

/// What 1,000 packets do: each moves its connection's timer back, and every tenth time one runs out.
pub fn timers_work((timers, start): &mut (Timers, Instant)) -> usize {
    let count = timers.len().max(1) as u32;
    let mut expired = 0;
    for i in 0..1000_u32 {
        let key = i.wrapping_mul(2_654_435_761) % count;
        timers.set(key, Some(*start + Duration::from_millis(u64::from(count + i))));
        if i % 10 == 0 {
            let now = *start + Duration::from_millis(u64::from(i));
            expired += usize::from(timers.pop_due(now).is_some());
        }
    }
    expired
}

/// A commit of one record in a pack.
pub fn pack_headers() -> (PackKey, Commit, Record) {
    let commit = Commit { sequence: 9, extent_len: (1 << 20) + 4096, record_count: 1 };
    let record =
        Record { hash: Hash([5; 32]), payload_offset: 8192, payload_len: 1 << 20, is_tombstone: false };
    (PackKey::new([1; 16], 3), commit, record)
}

/// Writes and reads a commit header and a record header, checksums included.
pub fn pack_headers_work((key, commit, record): &(PackKey, Commit, Record)) -> u32 {
    let commit_header = key.commit_header(4096, commit);
    let read = key.read_commit_header(4096, black_box(&commit_header)).expect("it was just written");
    let record_header = key.record_header(4096 + 64, commit.sequence, record);
    let record =
        key.read_record_header(4096 + 64, black_box(&record_header), 4096, &read).expect("so was this");
    record.payload_len
}

/// A policy with `publishers` publishers, as a frame of the policy socket.
pub fn policy_frame(publishers: u32) -> Vec<u8> {
    let uid = |i: u32| {
        let mut uid = [7; 32];
        uid[..4].copy_from_slice(&i.to_le_bytes());
        uid
    };
    let policy =
        Policy { generation: 1, publishers: (0..publishers).map(uid).collect(), ..Policy::default() };
    encode_to_engine(&ToEngine::SetPolicy(policy)).expect("the policy is within its bounds")
}

/// From the frame's bytes to the validated policy.
pub fn policy_work(frame: &[u8]) -> usize {
    let mut decoder = Decoder::<ToEngine>::new();
    decoder.push(frame);
    match decoder.next_message() {
        Ok(Some(ToEngine::SetPolicy(policy))) => policy.publishers.len(),
        other => unreachable!("the frame holds a policy: {other:?}"),
    }
}

/// An empty answer of the engine, for the cost of a frame alone.
pub fn drain_frame() -> Vec<u8> {
    relay::policy::encode_from_engine(&FromEngine::Draining).expect("it has no payload")
}

/// From the frame's bytes to the answer.
pub fn drain_work(frame: &[u8]) -> bool {
    let mut decoder = Decoder::<FromEngine>::new();
    decoder.push(frame);
    matches!(decoder.next_message(), Ok(Some(FromEngine::Draining)))
}

/// An address as people pass it on.
pub fn address_text() -> String {
    Address { uid: SecretKey::from_seed([1; 32]).uid(), nospam: [1, 2, 3, 4] }.to_string()
}

/// From text to address, checksum included.
pub fn address_work(text: &str) -> [u8; 4] {
    text.parse::<Address>().expect("the text is an address").nospam
}
