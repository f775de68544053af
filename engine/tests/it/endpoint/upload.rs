//! PUT of segments.

use super::harness::{Answer, Network, Node, NodeOptions, bytes};
use identity::SecretKey;
use identity::token::{self, Action, Claims, Scope};
use relay::policy::{Limits, Policy};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::list::ListBuilder;
use store::{Hash, Options};

pub fn token_of(node: &Node, key: &SecretKey, scope: Scope, bytes_max: Option<u64>) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = Claims {
        issuer: key.uid(),
        subject: key.uid(),
        audience: node.key.uid(),
        not_before_s: now_s - 10,
        expires_s: now_s + 600,
        token_id: [4; 16],
        action: Action::Put,
        scope,
        bytes_max,
        lease_expires_s: None,
    };
    format!("Bearer {}", token::to_text(&claims.sign(key)))
}

fn put(network: &mut Network, client: usize, hash: &Hash, authorization: &str, body: &[u8]) -> Answer {
    let (path, len) = (format!("/b3/{hash}"), body.len().to_string());
    let fields = [
        (":method", "PUT"),
        (":path", path.as_str()),
        ("authorization", authorization),
        ("content-length", len.as_str()),
    ];
    network.ask(client, &fields, body)
}

#[test]
fn a_verified_body_is_durable_and_then_served() {
    let mut network = Network::of_one();
    let client = network.join();
    let token = token_of(&network.node, &network.node.publisher, Scope::Any, None);
    for len in [1, 65_536, 3_000_001, 16 << 20] {
        let body = bytes(len, len as u64);
        let hash = Hash::of(&body);
        let answer = put(&mut network, client, &hash, &token, &body);
        assert_eq!((answer.status(), answer.body.len()), (201, 0), "{len}");
        assert_eq!(answer.field("etag"), Some(format!("\"{hash}\"").as_str()));
        assert!(network.node.store.contains(&hash));
        // Again: held already, read and compared all the same.
        assert_eq!(put(&mut network, client, &hash, &token, &body).status(), 200, "{len}");
        let answer = network.get(client, &format!("/b3/{hash}"));
        assert!(answer.status() == 200 && answer.body == body, "{len}");
    }
}

#[test]
fn a_publisher_that_is_struck_off_writes_no_more() {
    let mut network = Network::of_one();
    let client = network.join();
    let token = token_of(&network.node, &network.node.publisher, Scope::Any, None);
    let bodies = [bytes(1_000, 1), bytes(1_000, 2)];
    assert_eq!(put(&mut network, client, &Hash::of(&bodies[0]), &token, &bodies[0]).status(), 201);
    // Of the same generation, as a file that an operator edits and has read again may be.
    let policy = Policy { publishers: Vec::new(), ..(*network.node.policy).clone() };
    network.node.shards[0].set_policy(Arc::new(policy)).expect("a policy");
    assert_eq!(put(&mut network, client, &Hash::of(&bodies[1]), &token, &bodies[1]).status(), 401);
}

#[test]
fn what_is_refused_and_why() {
    let mut network = Network::of_one();
    let client = network.join();
    let body = bytes(200_000, 1);
    let hash = Hash::of(&body);
    let publisher = SecretKey::from_seed([2; 32]);
    let token = token_of(&network.node, &publisher, Scope::Any, None);

    let stranger = token_of(&network.node, &SecretKey::from_seed([77; 32]), Scope::Any, None);
    let answer = put(&mut network, client, &hash, &stranger, &body);
    assert_eq!(answer.status(), 401);
    assert!(answer.field("www-authenticate").is_some_and(|field| field.starts_with("Bearer")));
    assert_eq!(put(&mut network, client, &hash, "Basic abc", &body).status(), 401);
    assert_eq!(put(&mut network, client, &hash, "Bearer abc", &body).status(), 401);

    let other = token_of(&network.node, &publisher, Scope::Hash([8; 32]), None);
    assert_eq!(put(&mut network, client, &hash, &other, &body).status(), 403);
    let short = token_of(&network.node, &publisher, Scope::Any, Some(199_999));
    assert_eq!(put(&mut network, client, &hash, &short, &body).status(), 403);
    let exact = token_of(&network.node, &publisher, Scope::Hash(*hash.as_bytes()), Some(200_000));
    let wrong = Hash::of(b"something else");
    assert_eq!(put(&mut network, client, &wrong, &token, &body).status(), 422);
    assert_eq!(put(&mut network, client, &hash, &token, &[&body[..], b"x"].concat()).status(), 422);

    let path = format!("/b3/{hash}");
    let mut with_length = |length: Option<&str>| {
        let mut fields =
            vec![(":method", "PUT"), (":path", path.as_str()), ("authorization", token.as_str())];
        fields.extend(length.map(|length| ("content-length", length)));
        network.ask(client, &fields, &body).status()
    };
    assert_eq!(with_length(None), 411);
    assert_eq!(with_length(Some("16777217")), 413);
    assert_eq!(with_length(Some("199999")), 400, "longer than announced");
    assert_eq!(with_length(Some("200001")), 400, "shorter than announced");
    assert_eq!(with_length(Some("+200000")), 400);
    assert!(!network.node.store.contains(&hash), "nothing that was refused is visible");

    assert_eq!(put(&mut network, client, &hash, &exact, &body).status(), 201);
    // The body of a held hash is read and compared, not taken at its word.
    let forged = bytes(200_000, 2);
    assert_eq!(put(&mut network, client, &hash, &token, &forged).status(), 422);
    assert!(network.get(client, &path).body == body);
}

#[test]
fn a_token_for_a_list_allows_its_segments() {
    let mut network = Network::of_one();
    let client = network.join();
    let (listed, other) = (bytes(100_000, 1), bytes(100_000, 2));
    let list = ListBuilder {
        name: "file".into(),
        version: (1, 0, 0),
        counter: 1,
        expires_s: 0,
        target: String::new(),
        file_hash: None,
        ..ListBuilder::plain(vec![(Hash::of(&listed), 100_000)])
    };
    let document = list.sign(&SecretKey::from_seed([2; 32])).expect("a list");
    let list = Hash::of(&document);
    let token = token_of(&network.node, &network.node.publisher, Scope::List(*list.as_bytes()), None);
    assert_eq!(put(&mut network, client, &Hash::of(&listed), &token, &listed).status(), 403, "no list yet");
    assert_eq!(put(&mut network, client, &list, &token, &document).status(), 201);
    assert_eq!(put(&mut network, client, &Hash::of(&listed), &token, &listed).status(), 201);
    assert_eq!(put(&mut network, client, &Hash::of(&other), &token, &other).status(), 403);
    // Now that the segment is there, so is the file.
    assert!(network.get(client, &format!("/list/{list}")).body == listed);
}

#[test]
fn a_full_store_says_so_and_goes_on_serving() {
    let options =
        NodeOptions { store: Options { bytes_max: 1 << 20, ..Options::default() }, ..NodeOptions::default() };
    let mut network = Network::new(Node::new(options));
    let held = network.node.put(&bytes(300_000, 1));
    let client = network.join();
    let token = token_of(&network.node, &network.node.publisher, Scope::Any, None);
    let large = bytes(2 << 20, 2);
    let answer = put(&mut network, client, &Hash::of(&large), &token, &large);
    assert_eq!((answer.status(), answer.field("content-type")), (507, Some("application/problem+json")));
    assert_eq!(network.get(client, &format!("/b3/{held}")).status(), 200);
    let small = bytes(1_000, 3);
    assert_eq!(put(&mut network, client, &Hash::of(&small), &token, &small).status(), 201);
}

#[test]
fn uploads_hold_no_more_memory_than_they_may() {
    let limits = Limits { upload_bytes_in_flight_max: 16 << 20, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    let client = network.join();
    let token = token_of(&network.node, &network.node.publisher, Scope::Any, None);
    let body = bytes(12 << 20, 1);
    let (path, len) = (format!("/b3/{}", Hash::of(&body)), body.len().to_string());
    let fields = [
        (":method", "PUT"),
        (":path", path.as_str()),
        ("authorization", token.as_str()),
        ("content-length", len.as_str()),
    ];
    let first = network.clients[client].request(&fields, &body);
    let second = network.clients[client].request(&fields, &body);
    network.until("both answers", |network| {
        network.clients[client].is_answered(first) && network.clients[client].is_answered(second)
    });
    let mut statuses = [first, second].map(|stream| network.clients[client].answers[&stream].status());
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 503]);
    // What the first one held has been given back.
    let other = bytes(12 << 20, 2);
    assert_eq!(put(&mut network, client, &Hash::of(&other), &token, &other).status(), 201);
}

#[test]
fn an_upload_that_is_cut_short_leaves_nothing() {
    let limits = Limits { upload_bytes_in_flight_max: 16 << 20, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    let client = network.join();
    let token = token_of(&network.node, &network.node.publisher, Scope::Any, None);
    let body = bytes(12 << 20, 1);
    let (path, len) = (format!("/b3/{}", Hash::of(&body)), body.len().to_string());
    let fields = [
        (":method", "PUT"),
        (":path", path.as_str()),
        ("authorization", token.as_str()),
        ("content-length", len.as_str()),
    ];
    for _ in 0..3 {
        let stream = network.clients[client].request(&fields, &body);
        network.until("some of it", |network| {
            network.node.counter(|counters| counters.upload_bytes.get()) > 1 << 20
        });
        let quic = &mut network.clients[client].quic;
        quic.stream_shutdown(stream, quiche::Shutdown::Write, 0x10c).expect("a stream");
        let aborted = network.node.counter(|counters| counters.requests_aborted.get());
        network.until("the reset", |network| {
            network.node.counter(|counters| counters.requests_aborted.get()) > aborted
        });
    }
    assert!(!network.node.store.contains(&Hash::of(&body)));
    let other = bytes(12 << 20, 2);
    assert_eq!(put(&mut network, client, &Hash::of(&other), &token, &other).status(), 201);
}
