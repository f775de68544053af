//! Leases over HTTP/3: PUT gives one, DELETE ends the issuer's own and no other, room is taken before the first byte.

use super::harness::{Answer, Network, Node, NodeOptions, bytes};
use identity::SecretKey;
use identity::token::{self, Action, Claims, Scope};
use relay::policy::{Limits, Policy};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::{Hash, Options};

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token of `key`, for one address, with an id of its own.
fn token(node: &Node, key: &SecretKey, action: Action, hash: &Hash, id: u8) -> String {
    token_until(node, key, action, hash, id, now_s() + 1_000_000)
}

/// The same for a lease that ends then.
fn token_until(node: &Node, key: &SecretKey, action: Action, hash: &Hash, id: u8, ends_s: u64) -> String {
    let now_s = now_s();
    let claims = Claims {
        issuer: key.uid(),
        subject: key.uid(),
        audience: node.key.uid(),
        not_before_s: now_s - 10,
        expires_s: now_s + 600,
        token_id: [id; 16],
        action,
        scope: Scope::Hash(*hash.as_bytes()),
        bytes_max: None,
        lease_expires_s: (action == Action::Put).then_some(ends_s),
    };
    format!("Bearer {}", token::to_text(&claims.sign(key)))
}

fn put(network: &mut Network, client: usize, key: &SecretKey, body: &[u8]) -> Answer {
    let hash = Hash::of(body);
    let authorization = token(&network.node, key, Action::Put, &hash, 1);
    let (path, len) = (format!("/b3/{hash}"), body.len().to_string());
    let fields = [
        (":method", "PUT"),
        (":path", path.as_str()),
        ("authorization", authorization.as_str()),
        ("content-length", len.as_str()),
    ];
    network.ask(client, &fields, body)
}

fn delete(network: &mut Network, client: usize, hash: &Hash, authorization: &str) -> Answer {
    let path = format!("/b3/{hash}");
    let fields = [(":method", "DELETE"), (":path", path.as_str()), ("authorization", authorization)];
    network.ask(client, &fields, b"")
}

fn delete_by(network: &mut Network, client: usize, hash: &Hash, key: &SecretKey, id: u8) -> u16 {
    let authorization = token(&network.node, key, Action::Delete, hash, id);
    delete(network, client, hash, &authorization).status()
}

fn alice() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

fn bob() -> SecretKey {
    SecretKey::from_seed([44; 32])
}

/// Both may publish.
fn trust_both(network: &mut Network) {
    let publishers = vec![*alice().uid().as_bytes(), *bob().uid().as_bytes()];
    let policy = Policy { publishers, ..(*network.node.policy).clone() };
    network.node.shards[0].set_policy(Arc::new(policy)).expect("a policy");
}

#[test]
fn a_deletion_ends_ones_own_lease_once_and_that_survives_a_restart() {
    let mut network = Network::of_one();
    trust_both(&mut network);
    let client = network.join();
    let body = bytes(100_000, 1);
    let hash = Hash::of(&body);
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 1), 404, "nothing is there");
    assert_eq!(put(&mut network, client, &alice(), &body).status(), 201);
    assert_eq!(delete_by(&mut network, client, &hash, &bob(), 1), 404, "it is not Bob's");
    // Held already: compared, and leased to Bob too.
    assert_eq!(put(&mut network, client, &bob(), &body).status(), 200);
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 1), 204);
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 1), 204, "its answer may have been lost");
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 2), 404);
    assert!(network.get(client, &format!("/b3/{hash}")).body == body, "Bob wants it");
    assert_eq!(put(&mut network, client, &alice(), &body).status(), 200);
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 1), 409, "a replay");

    let node = network.node.restart(NodeOptions::default());
    let mut network = Network::new(node);
    trust_both(&mut network);
    let client = network.join();
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 1), 409, "a replay, after a restart");
    assert_eq!(delete_by(&mut network, client, &hash, &bob(), 1), 204);
    assert!(network.node.store.contains(&hash), "Alice wants it again");
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 3), 204);
    assert_eq!(network.get(client, &format!("/b3/{hash}")).status(), 404);
    assert!(!network.node.store.contains(&hash));
    assert_eq!(put(&mut network, client, &alice(), &body).status(), 201, "new again");
}

#[test]
fn who_is_struck_off_may_still_give_up_what_is_his() {
    let mut network = Network::of_one();
    trust_both(&mut network);
    let client = network.join();
    let bodies = [bytes(1000, 1), bytes(1000, 2)];
    for body in &bodies {
        assert_eq!(put(&mut network, client, &bob(), body).status(), 201);
    }
    let policy = Policy { publishers: Vec::new(), ..(*network.node.policy).clone() };
    network.node.shards[0].set_policy(Arc::new(policy)).expect("a policy");
    assert_eq!(put(&mut network, client, &bob(), &bytes(1000, 3)).status(), 401);
    assert_eq!(delete_by(&mut network, client, &Hash::of(&bodies[0]), &alice(), 1), 401, "owns nothing");
    assert_eq!(delete_by(&mut network, client, &Hash::of(&bodies[0]), &bob(), 1), 204);
    assert_eq!(delete_by(&mut network, client, &Hash::of(&bodies[1]), &bob(), 1), 204);
    assert_eq!(
        delete_by(&mut network, client, &Hash::of(&bodies[1]), &bob(), 2),
        401,
        "owns nothing any more"
    );
}

#[test]
fn a_deletion_needs_a_token_for_it() {
    let mut network = Network::of_one();
    let client = network.join();
    let body = bytes(1000, 1);
    let hash = Hash::of(&body);
    assert_eq!(put(&mut network, client, &alice(), &body).status(), 201);
    let for_put = token(&network.node, &alice(), Action::Put, &hash, 1);
    assert_eq!(delete(&mut network, client, &hash, &for_put).status(), 403);
    let for_other = token(&network.node, &alice(), Action::Delete, &Hash::of(b"other"), 1);
    assert_eq!(delete(&mut network, client, &hash, &for_other).status(), 403);
    assert_eq!(delete(&mut network, client, &hash, "Basic abc").status(), 401);
    let revoked = Policy { revoked_tokens: vec![[9; 16]], ..(*network.node.policy).clone() };
    network.node.shards[0].set_policy(Arc::new(revoked)).expect("a policy");
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 9), 401, "revoked");
    assert!(network.node.store.contains(&hash));
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 8), 204);
}

/// Asks for a lease without sending a byte of the segment.
fn post(network: &mut Network, client: usize, hash: &Hash, authorization: &str) -> Answer {
    let path = format!("/b3/{hash}");
    let fields = [(":method", "POST"), (":path", path.as_str()), ("authorization", authorization)];
    network.ask(client, &fields, b"")
}

#[test]
fn a_lease_is_extended_and_taken_without_a_byte() {
    let limits = Limits { publisher_bytes_max: 150_000, ..Limits::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, ..NodeOptions::default() }));
    trust_both(&mut network);
    let client = network.join();
    let body = bytes(100_000, 1);
    let hash = Hash::of(&body);
    let ask = |network: &mut Network, key: &SecretKey, ends_s: u64| {
        let authorization = token_until(&network.node, key, Action::Put, &hash, 1, ends_s);
        post(network, client, &hash, &authorization).status()
    };
    let far_s = now_s() + 9_000_000;
    assert_eq!(ask(&mut network, &alice(), far_s), 404, "nothing is there");
    assert_eq!(put(&mut network, client, &alice(), &body).status(), 201);
    let received = network.node.counter(|counters| counters.upload_bytes.get());
    let ends_s = |network: &Network| network.node.storage.leases().ends_s(&hash).expect("leases");
    assert_eq!(ask(&mut network, &alice(), far_s), 200);
    assert_eq!(ends_s(&network), Some(far_s));
    assert_eq!(ask(&mut network, &alice(), far_s - 5_000_000), 200);
    assert_eq!(ends_s(&network), Some(far_s), "never nearer");
    // Another publisher has no need to send what is held, and a lease of its own then.
    assert_eq!(ask(&mut network, &bob(), far_s + 1), 200);
    assert_eq!(delete_by(&mut network, client, &hash, &alice(), 1), 204);
    assert!(network.node.store.contains(&hash), "Bob wants it");
    // What it is allowed to have is bounded all the same.
    let other = network.node.put(&bytes(100_000, 2));
    let authorization = token(&network.node, &bob(), Action::Put, &other, 1);
    let answer = post(&mut network, client, &other, &authorization);
    assert_eq!(answer.status(), 507);
    assert!(String::from_utf8_lossy(&answer.body).contains("quota-exceeded"));
    // The token must allow it: this address, this action.
    let for_other = token(&network.node, &bob(), Action::Put, &other, 1);
    assert_eq!(post(&mut network, client, &hash, &for_other).status(), 403);
    let for_deletion = token(&network.node, &bob(), Action::Delete, &hash, 1);
    assert_eq!(post(&mut network, client, &hash, &for_deletion).status(), 403);
    assert_eq!(network.node.counter(|counters| counters.upload_bytes.get()), received, "no byte was sent");
    assert_eq!(delete_by(&mut network, client, &hash, &bob(), 1), 204);
    assert!(!network.node.store.contains(&hash));
}

#[test]
fn quota_and_room_are_taken_before_the_first_byte() {
    let limits = Limits { publisher_bytes_max: 2 << 20, ..Limits::default() };
    let store = Options { bytes_max: 16 << 20, ..Options::default() };
    let mut network = Network::new(Node::new(NodeOptions { limits, store, ..NodeOptions::default() }));
    trust_both(&mut network);
    let client = network.join();
    let (first, second) = (bytes(1_500_000, 1), bytes(1_500_000, 2));
    assert_eq!(put(&mut network, client, &alice(), &first).status(), 201);
    let answer = put(&mut network, client, &alice(), &second);
    assert_eq!(answer.status(), 507);
    assert!(String::from_utf8_lossy(&answer.body).contains("quota-exceeded"));
    assert_eq!(put(&mut network, client, &alice(), &first).status(), 200, "hers already");
    assert_eq!(put(&mut network, client, &bob(), &second).status(), 201);
    assert_eq!(delete_by(&mut network, client, &Hash::of(&first), &alice(), 1), 204);
    assert_eq!(put(&mut network, client, &alice(), &second).status(), 200);
    assert_eq!(network.node.counter(|counters| counters.uploads_refused_quota.get()), 1);
    assert_eq!(network.node.storage.leases().reserved_bytes(), 0, "all is given back");
}
