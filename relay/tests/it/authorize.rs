use identity::token::{self, Action, Claims, Scope};
use identity::{SecretKey, Uid};
use relay::content::{Problem, Rules, Tokens, permit};
use relay::policy::{CutOff, Policy, UidAccess};
use std::sync::Arc;

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
        lease_expires_s: None,
    }
}

fn policy() -> Arc<Policy> {
    Arc::new(Policy { publishers: vec![*publisher().uid().as_bytes()], ..Policy::default() })
}

fn rules(policy: &Arc<Policy>) -> Rules<'_> {
    Rules { now_s: NOW_S, node: &NODE, policy, is_owner: &|_| false }
}

/// The answer to a PUT of `len` bytes at HASH with these claims, by a node that holds one list, [9; 32], which names HASH.
fn put(claims: &Claims, len: u64) -> Result<Claims, Problem> {
    let text = token::to_text(&claims.sign(&publisher()));
    let (policy, mut tokens) = (policy(), Tokens::default());
    let claims = tokens.admit(text.as_bytes(), &rules(&policy))?;
    permit(claims, Action::Put, &HASH, len, |list| *list == [9; 32])?;
    Ok(claims.clone())
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
    let policy = policy();
    for text in ["", "AAAA", "not base64!", &"A".repeat(684)] {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.admit(text.as_bytes(), &rules(&policy)).expect_err(text).status, 401);
    }
}

#[test]
fn accepted_tokens_that_do_not_allow_this_are_403() {
    let other = Claims { scope: Scope::Hash([1; 32]), ..claims() };
    let small = Claims { bytes_max: Some(10), ..claims() };
    let unlisted = Claims { scope: Scope::List([10; 32]), ..claims() };
    let deletion = Claims { action: Action::Delete, scope: Scope::Hash(HASH), ..claims() };
    for claims in [other, small, unlisted, deletion] {
        let problem = put(&claims, 11).expect_err("not allowed");
        assert_eq!((problem.status, problem.kind), (403, "forbidden"), "{problem:?}");
    }
    let listed = Claims { scope: Scope::List([9; 32]), ..claims() };
    assert_eq!(put(&listed, 11), Ok(listed));
}

#[test]
fn an_owner_deletes_although_nobody_trusts_him_any_more() {
    let deletion = Claims { action: Action::Delete, scope: Scope::Hash(HASH), ..claims() };
    let text = token::to_text(&deletion.sign(&publisher()));
    let nobody = Arc::new(Policy::default());
    let stranger = Rules { is_owner: &|_| false, ..rules(&nobody) };
    assert_eq!(Tokens::default().admit(text.as_bytes(), &stranger).expect_err("no owner").status, 401);
    let owner = publisher().uid();
    let is_owner = |uid: &Uid| *uid == owner;
    let mut tokens = Tokens::default();
    let admitted = tokens.admit(text.as_bytes(), &Rules { is_owner: &is_owner, ..rules(&nobody) });
    assert_eq!(admitted, Ok(&deletion));
    // Ownership gives no right to store more.
    let text = token::to_text(&claims().sign(&publisher()));
    let put = tokens.admit(text.as_bytes(), &Rules { is_owner: &is_owner, ..rules(&nobody) });
    assert_eq!(put.expect_err("no publisher").status, 401);
}

#[test]
fn revoked_tokens_and_cut_off_issuers_are_401_at_once() {
    let text = token::to_text(&claims().sign(&publisher()));
    let mut tokens = Tokens::default();
    let before = policy();
    assert!(tokens.admit(text.as_bytes(), &rules(&before)).is_ok());
    let revocations = [
        Policy { revoked_tokens: vec![claims().token_id], ..Policy::clone(&before) },
        Policy {
            cut_offs: vec![CutOff { issuer: *publisher().uid().as_bytes(), before_s: NOW_S + 1 }],
            ..Policy::clone(&before)
        },
    ];
    for policy in revocations {
        // The connection has the token from before the revocation.
        let problem = tokens.admit(text.as_bytes(), &rules(&Arc::new(policy))).expect_err("revoked");
        assert_eq!(problem.status, 401);
        assert!(problem.detail.contains("revoked"), "{}", problem.detail);
    }
    let others = Policy {
        revoked_tokens: vec![[7; 16]],
        cut_offs: vec![
            CutOff { issuer: *publisher().uid().as_bytes(), before_s: NOW_S },
            CutOff { issuer: [7; 32], before_s: u64::MAX },
        ],
        ..Policy::clone(&before)
    };
    assert!(tokens.admit(text.as_bytes(), &rules(&Arc::new(others))).is_ok());
}

#[test]
fn a_kept_token_ends_with_its_time_and_more_tokens_than_are_kept_are_verified_again() {
    let policy = policy();
    let mut tokens = Tokens::default();
    let texts: Vec<String> = (0..20u8)
        .map(|id| token::to_text(&Claims { token_id: [id; 16], ..claims() }.sign(&publisher())))
        .collect();
    for _ in 0..2 {
        for (id, text) in (0u8..).zip(&texts) {
            let admitted = tokens.admit(text.as_bytes(), &rules(&policy)).expect("valid");
            assert_eq!(admitted.token_id, [id; 16]);
        }
    }
    let late = Rules { now_s: claims().expires_s + token::CLOCK_LEEWAY_S, ..rules(&policy) };
    for text in &texts {
        assert_eq!(tokens.admit(text.as_bytes(), &late).expect_err("over").status, 401);
    }
}

#[test]
fn under_a_policy_that_has_expired_no_token_counts() {
    let text = token::to_text(&claims().sign(&publisher()));
    let mut tokens = Tokens::default();
    let lasts = Arc::new(Policy { valid_until_s: NOW_S + 1, ..Policy::clone(&policy()) });
    assert!(tokens.admit(text.as_bytes(), &rules(&lasts)).is_ok());
    // What was accepted before is refused too, and accepted once there is a policy that counts.
    let late = Rules { now_s: NOW_S + 1, ..rules(&lasts) };
    let problem = tokens.admit(text.as_bytes(), &late).expect_err("it has expired");
    assert_eq!(
        (problem.status, problem.kind, problem.field()),
        (503, "policy-expired", Some(("retry-after", "60")))
    );
    let renewed = Arc::new(Policy { valid_until_s: NOW_S + 2, ..Policy::clone(&policy()) });
    assert!(tokens.admit(text.as_bytes(), &Rules { policy: &renewed, ..late }).is_ok());
}

#[test]
fn who_is_not_served_may_not_write_and_is_told_so() {
    let text = token::to_text(&claims().sign(&publisher()));
    let issuer = *publisher().uid().as_bytes();
    let admit = |uids: UidAccess| {
        let policy = Arc::new(Policy { uids, ..Policy::clone(&policy()) });
        Tokens::default().admit(text.as_bytes(), &rules(&policy)).map(drop)
    };
    assert_eq!(admit(UidAccess { allow: vec![issuer], deny: Vec::new() }), Ok(()));
    assert_eq!(admit(UidAccess { allow: Vec::new(), deny: vec![[3; 32]] }), Ok(()));
    let denied = admit(UidAccess { allow: vec![issuer], deny: vec![issuer] }).expect_err("denied");
    assert_eq!((denied.status, denied.kind), (403, "uid-denied"));
    let others = admit(UidAccess { allow: vec![[3; 32]], deny: Vec::new() }).expect_err("not allowed");
    assert_eq!((others.status, others.kind), (403, "uid-not-allowed"));
}
