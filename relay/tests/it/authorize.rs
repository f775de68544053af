use identity::token::{self, Action, Claims, Scope};
use identity::{SecretKey, Uid};
use relay::content::{Problem, authorize};

use crate::HASH;

const NOW_S: u64 = 1_800_000_000;
const NODE: Uid = Uid::from_bytes([8; 32]);

fn publisher() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn claims() -> Claims {
    Claims {
        issuer: publisher().uid(),
        subject: publisher().uid(),
        audience: NODE,
        not_before_s: NOW_S,
        expires_s: NOW_S + 600,
        token_id: [0; 16],
        action: Action::Put,
        scope: Scope::Any,
        bytes_max: None,
    }
}

/// The answer to a PUT of `len` bytes at HASH with these claims, by a node that holds one list, [9; 32], which names HASH.
fn put(claims: &Claims, len: u64) -> Result<Claims, Problem> {
    let text = token::to_text(&claims.sign(&publisher()));
    let list_names = |list: &[u8; 32], hash: &[u8; 32]| *list == [9; 32] && *hash == HASH;
    authorize(text.as_bytes(), &HASH, len, NOW_S, &NODE, |uid| *uid == publisher().uid(), list_names)
}

#[test]
fn a_publisher_may_put() {
    assert_eq!(put(&claims(), 1 << 20), Ok(claims()));
}

#[test]
fn tokens_that_are_not_accepted_are_401_and_say_why() {
    let cases = [
        (Claims { audience: publisher().uid(), ..claims() }, "for node"),
        (Claims { expires_s: NOW_S - 60, not_before_s: NOW_S - 600, ..claims() }, "ask for a new one"),
        (Claims { issuer: NODE, ..claims() }, "does not trust"),
    ];
    for (claims, why) in cases {
        let problem = put(&claims, 1).expect_err(why);
        assert_eq!((problem.status, problem.kind), (401, "invalid-token"));
        assert!(problem.detail.contains(why), "{}", problem.detail);
    }
    for text in ["", "AAAA", "not base64!", &"A".repeat(684)] {
        let result = authorize(text.as_bytes(), &HASH, 1, NOW_S, &NODE, |_| true, |_, _| true);
        assert_eq!(result.expect_err(text).status, 401);
    }
}

#[test]
fn accepted_tokens_that_do_not_allow_this_are_403() {
    let other = Claims { scope: Scope::Hash([1; 32]), ..claims() };
    let small = Claims { bytes_max: Some(10), ..claims() };
    let unlisted = Claims { scope: Scope::List([10; 32]), ..claims() };
    for claims in [other, small, unlisted] {
        let problem = put(&claims, 11).expect_err("not allowed");
        assert_eq!((problem.status, problem.kind), (403, "forbidden"), "{problem:?}");
    }
    let listed = Claims { scope: Scope::List([9; 32]), ..claims() };
    assert_eq!(put(&listed, 11), Ok(listed));
}
