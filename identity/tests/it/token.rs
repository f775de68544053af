use identity::token::{
    self, Action, CLOCK_LEEWAY_S, Claims, Denied, LIFETIME_S_MAX, Scope, TOKEN_LEN_MAX, TOKEN_TEXT_LEN_MAX,
    TokenError,
};
use identity::{Domain, SecretKey, Signature, Uid};
use proptest::prelude::*;
use serde_json::Value;

use crate::{array, bytes, items, text, vectors};

const VECTORS: &str = include_str!("../vectors/token.json");

#[test]
fn tokens_are_those_of_the_vectors() {
    let vectors = vectors(VECTORS);
    let key = SecretKey::from_seed(array(&vectors["issuer_seed"]));
    let now_s = vectors["now_s"].as_u64().unwrap();
    for vector in items(&vectors["accepted"]) {
        let claims = claims_of(&vectors, vector);
        let token = bytes(&vector["token"]);
        assert_eq!(claims.sign(&key), token, "{}", vector["name"]);
        assert_eq!(token::to_text(&token), text(&vector["text"]));
        assert_eq!(token::from_text(text(&vector["text"]).as_bytes()), Ok(token.clone()));
        let verified = token::verify(&token, now_s, &claims.audience, |claims| claims.issuer == key.uid());
        assert_eq!(verified, Ok(claims), "{}", vector["name"]);
    }
}

#[test]
fn every_wrong_token_of_the_vectors_is_refused_for_its_own_reason() {
    let vectors = vectors(VECTORS);
    let issuer: Uid = text(&vectors["issuer"]).parse().unwrap();
    let audience: Uid = text(&vectors["audience"]).parse().unwrap();
    let now_s = vectors["now_s"].as_u64().unwrap();
    for vector in items(&vectors["refused"]) {
        let result =
            token::verify(&bytes(&vector["token"]), now_s, &audience, |claims| claims.issuer == issuer);
        let error = result.expect_err(text(&vector["name"]));
        let variant = format!("{error:?}");
        let variant = variant.split([' ', '(', '{']).next().unwrap();
        assert_eq!(variant, text(&vector["error"]), "{}: {error}", vector["name"]);
    }
}

fn claims_of(vectors: &Value, vector: &Value) -> Claims {
    let scope = match text(&vector["scope"]) {
        "any" => Scope::Any,
        "hash" => Scope::Hash(array(&vector["address"])),
        "list" => Scope::List(array(&vector["address"])),
        other => panic!("no scope is called {other}"),
    };
    Claims {
        issuer: text(&vectors["issuer"]).parse().unwrap(),
        subject: text(&vectors["subject"]).parse().unwrap(),
        audience: text(&vectors["audience"]).parse().unwrap(),
        not_before_s: vectors["not_before_s"].as_u64().unwrap(),
        expires_s: vectors["expires_s"].as_u64().unwrap(),
        token_id: array(&vectors["token_id"]),
        action: if vector["action"] == "delete" { Action::Delete } else { Action::Put },
        scope,
        bytes_max: vector["bytes_max"].as_u64(),
        lease_expires_s: vector["lease_expires_s"].as_u64(),
    }
}

fn key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn claims() -> Claims {
    Claims {
        issuer: key().uid(),
        subject: key().uid(),
        audience: Uid::from_bytes([2; 32]),
        not_before_s: 1_000_000,
        expires_s: 1_003_600,
        token_id: [3; 16],
        action: Action::Put,
        scope: Scope::Any,
        bytes_max: None,
        lease_expires_s: None,
    }
}

#[test]
fn times_count_to_the_second_with_the_leeway() {
    let claims = claims();
    let token = claims.sign(&key());
    let at = |now_s| token::verify(&token, now_s, &claims.audience, |_| true).err();
    let (not_before_s, expires_s) = (claims.not_before_s, claims.expires_s);
    let too_early = not_before_s - CLOCK_LEEWAY_S - 1;
    assert_eq!(at(too_early), Some(TokenError::NotYet { not_before_s, now_s: too_early }));
    assert_eq!(at(too_early + 1), None);
    let too_late = expires_s + CLOCK_LEEWAY_S;
    assert_eq!(at(too_late - 1), None);
    assert_eq!(at(too_late), Some(TokenError::Expired { expires_s, now_s: too_late }));
    assert_eq!(at(0), Some(TokenError::NotYet { not_before_s, now_s: 0 }));
    assert_eq!(at(u64::MAX), Some(TokenError::Expired { expires_s, now_s: u64::MAX }));
}

#[test]
fn the_longest_life_is_accepted_and_a_second_more_is_not() {
    let longest = Claims { expires_s: claims().not_before_s + LIFETIME_S_MAX, ..claims() };
    let accepted = token::verify(&longest.sign(&key()), 1_000_000, &longest.audience, |_| true);
    assert_eq!(accepted, Ok(longest.clone()));
    let longer = Claims { expires_s: longest.expires_s + 1, ..longest };
    let refused = token::verify(&longer.sign(&key()), 1_000_000, &longer.audience, |_| true);
    let (not_before_s, expires_s) = (longer.not_before_s, longer.expires_s);
    assert_eq!(refused, Err(TokenError::Lifetime { not_before_s, expires_s }));
}

#[test]
fn times_that_no_clock_shows_are_refused_and_do_not_overflow() {
    let far = Claims { not_before_s: u64::MAX - 10, expires_s: u64::MAX, ..claims() };
    assert!(token::verify(&far.sign(&key()), u64::MAX, &far.audience, |_| true).is_err());
}

#[test]
fn the_longest_token_fits_with_room() {
    let longest = Claims {
        issuer: Uid::from_bytes([0xff; 32]),
        subject: Uid::from_bytes([0xff; 32]),
        audience: Uid::from_bytes([0xff; 32]),
        not_before_s: u64::MAX,
        expires_s: u64::MAX,
        scope: Scope::List([0xff; 32]),
        bytes_max: Some(u64::MAX),
        lease_expires_s: Some(u64::MAX),
        ..claims()
    };
    let token = longest.sign(&key());
    assert_eq!(token.len(), 330);
    assert!(token.len() < TOKEN_LEN_MAX);
}

#[test]
fn trust_is_asked_of_the_issuer_and_before_the_signature_is_computed() {
    let mut token = claims().sign(&key());
    *token.last_mut().unwrap() ^= 1;
    let asked = std::cell::Cell::new(None);
    let untrusting = |claims: &Claims| {
        asked.set(Some(claims.issuer));
        false
    };
    let result = token::verify(&token, 1_000_000, &claims().audience, untrusting);
    assert_eq!(result, Err(TokenError::UntrustedIssuer { issuer: key().uid() }));
    assert_eq!(asked.get(), Some(key().uid()));
}

#[test]
fn an_issuer_cannot_be_named_without_its_key() {
    // The claims name a trusted issuer, the signature is of the one who wrote them.
    let stolen = Claims { issuer: Uid::from_bytes([7; 32]), ..claims() }.sign(&key());
    let result = token::verify(&stolen, 1_000_000, &claims().audience, |_| true);
    assert!(matches!(result, Err(TokenError::Signature(_))), "{result:?}");
}

#[test]
fn a_token_signature_is_none_of_any_domain_over_its_payload() {
    let token = claims().sign(&key());
    let signature = Signature(token[token.len() - 64..].try_into().unwrap());
    for domain in Domain::ALL {
        for start in 0..token.len() - 66 {
            assert!(key().uid().verify(domain, &token[start..token.len() - 66], &signature).is_err());
        }
    }
}

#[test]
fn permits_goes_by_scope_and_length() {
    let (hash, other, list) = ([4; 32], [5; 32], [6; 32]);
    let any = claims();
    assert_eq!(any.permits(Action::Put, &hash, u64::MAX), Ok(()));
    let bounded = Claims { bytes_max: Some(100), ..claims() };
    assert_eq!(bounded.permits(Action::Put, &hash, 100), Ok(()));
    assert_eq!(bounded.permits(Action::Put, &hash, 101), Err(Denied::TooLong { len: 101, bytes_max: 100 }));
    let one = Claims { scope: Scope::Hash(hash), ..claims() };
    assert_eq!(one.permits(Action::Put, &hash, 1), Ok(()));
    assert_eq!(one.permits(Action::Put, &other, 1), Err(Denied::OtherHash));
    let listed = Claims { scope: Scope::List(list), bytes_max: Some(10), ..claims() };
    assert_eq!(listed.permits(Action::Put, &list, 1), Ok(()));
    assert_eq!(listed.permits(Action::Put, &hash, 1), Err(Denied::NotListed));
    let names = |asked: &[u8; 32]| *asked == list;
    assert_eq!(listed.permits_listed(Action::Put, &hash, 1, names), Ok(()));
    assert_eq!(
        listed.permits_listed(Action::Put, &hash, 11, names),
        Err(Denied::TooLong { len: 11, bytes_max: 10 })
    );
}

#[test]
fn an_action_permits_itself_alone() {
    let hash = [4; 32];
    let delete = Claims { action: Action::Delete, scope: Scope::Hash(hash), ..claims() };
    assert_eq!(delete.permits(Action::Delete, &hash, 0), Ok(()));
    assert_eq!(delete.permits(Action::Put, &hash, 0), Err(Denied::Action));
    assert_eq!(claims().permits(Action::Delete, &hash, 0), Err(Denied::Action));
}

#[test]
fn texts_are_base64url_without_padding_and_bounded() {
    assert_eq!(token::from_text(b""), Err(TokenError::TextLength { len: 0 }));
    let long = vec![b'A'; TOKEN_TEXT_LEN_MAX + 1];
    assert_eq!(token::from_text(&long), Err(TokenError::TextLength { len: TOKEN_TEXT_LEN_MAX + 1 }));
    for text in ["YQ==", "YR", "Y", "Y Q", "YQ\n", "+/8", "\u{e9}"] {
        assert_eq!(token::from_text(text.as_bytes()), Err(TokenError::NotBase64), "{text:?}");
    }
    assert_eq!(token::from_text(b"-_8"), Ok(vec![0xfb, 0xff]));
    assert_eq!(token::to_text(&[0xfb, 0xff]), "-_8");
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let scope = prop_oneof![
        Just(Scope::Any),
        any::<[u8; 32]>().prop_map(Scope::Hash),
        any::<[u8; 32]>().prop_map(Scope::List)
    ];
    let times = (0u64..1 << 40, 1..=LIFETIME_S_MAX);
    let ids = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 16]>());
    let bounds = (any::<Option<u64>>(), any::<Option<u64>>());
    (ids, times, scope, bounds, any::<bool>()).prop_map(
        |((subject, audience, token_id), (not_before_s, lifetime_s), scope, bounds, delete)| {
            let action = if delete && scope != Scope::Any { Action::Delete } else { Action::Put };
            Claims {
                issuer: key().uid(),
                subject: Uid::from_bytes(subject),
                audience: Uid::from_bytes(audience),
                not_before_s,
                expires_s: not_before_s + lifetime_s,
                token_id,
                action,
                scope,
                bytes_max: bounds.0,
                lease_expires_s: bounds.1.filter(|_| action == Action::Put),
            }
        },
    )
}

proptest! {
    #[test]
    fn tokens_round_trip(claims in any_claims()) {
        let token = claims.sign(&key());
        prop_assert_eq!(token::from_text(token::to_text(&token).as_bytes()), Ok(token.clone()));
        let verified = token::verify(&token, claims.not_before_s, &claims.audience, |asked| asked.issuer == claims.issuer);
        prop_assert_eq!(verified, Ok(claims));
    }

    #[test]
    fn every_flipped_bit_is_found(claims in any_claims(), at: prop::sample::Index) {
        let mut token = claims.sign(&key());
        let bit = at.index(token.len() * 8);
        token[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(token::verify(&token, claims.not_before_s, &claims.audience, |_| true).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, now_s: u64) {
        prop_assert!(token::verify(&bytes, now_s, &Uid::from_bytes([2; 32]), |_| true).is_err());
        let _ = token::from_text(&bytes);
    }

    #[test]
    fn no_changed_token_panics(claims in any_claims(), at: prop::sample::Index, with: Vec<u8>, cut in 0usize..20, now_s: u64) {
        let mut token = claims.sign(&key());
        let start = at.index(token.len());
        let end = (start + cut).min(token.len());
        token.splice(start..end, with);
        let _ = token::verify(&token, now_s, &claims.audience, |_| true);
    }
}
