use identity::{Domain, SecretKey, SeedError, Signature, SignatureError, Uid, UidError};
use proptest::prelude::*;

use crate::{array, bytes, items, text, vectors};

const VECTORS: &str = include_str!("../vectors/signing.json");

#[test]
fn seeds_give_the_uids_of_the_vectors() {
    for vector in items(&vectors(VECTORS)["keys"]) {
        let key = SecretKey::from_seed(array(&vector["seed"]));
        assert_eq!(key.uid().as_bytes(), &array(&vector["uid"]));
        assert_eq!(key.uid().to_string(), text(&vector["uid_text"]));
        assert_eq!(text(&vector["uid_text"]).parse(), Ok(key.uid()));
    }
}

#[test]
fn rfc_8032_test_1_has_its_public_key() {
    // RFC 8032 section 7.1, TEST 1.
    let key = SecretKey::from_seed_text("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n")
        .unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(key.uid().as_bytes().to_vec(), bytes(&public.into()));
}

#[test]
fn uids_with_leading_zeros_keep_their_length() {
    for vector in items(&vectors(VECTORS)["uid_texts"]) {
        let uid = Uid::from_bytes(array(&vector["bytes"]));
        assert_eq!(uid.to_string(), text(&vector["text"]));
        assert_eq!(text(&vector["text"]).parse(), Ok(uid));
    }
}

#[test]
fn signatures_are_those_of_the_vectors_in_every_domain() {
    let vectors = vectors(VECTORS);
    let signatures = items(&vectors["signatures"]);
    for domain in Domain::ALL {
        let name = format!("{domain:?}");
        let mut seen = 0;
        for vector in signatures.iter().filter(|vector| text(&vector["domain"]) == name) {
            let key = SecretKey::from_seed(array(&vector["seed"]));
            let message = bytes(&vector["message"]);
            assert_eq!(domain.as_str(), text(&vector["domain_string"]));
            assert_eq!(key.sign(domain, &message), Signature(array(&vector["signature"])));
            assert_eq!(key.uid().verify(domain, &message, &Signature(array(&vector["signature"]))), Ok(()));
            seen += 1;
        }
        assert_eq!(seen, 3, "{name} has its vectors");
    }
}

#[test]
fn a_signature_passes_in_its_own_domain_only() {
    let key = SecretKey::from_seed([7; 32]);
    for signed in Domain::ALL {
        let signature = key.sign(signed, b"message");
        for checked in Domain::ALL {
            let result = key.uid().verify(checked, b"message", &signature);
            assert_eq!(result.is_ok(), signed == checked, "signed for {signed:?}, checked for {checked:?}");
        }
    }
}

#[test]
fn domain_strings_are_distinct_printable_and_hold_no_zero() {
    for (index, domain) in Domain::ALL.iter().enumerate() {
        assert!(domain.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{domain:?}");
        // The signed bytes of a token begin with 0x84, so that they never begin like another domain's.
        assert!(domain.as_str().starts_with("ioex "), "{domain:?}");
        assert!(Domain::ALL[index + 1..].iter().all(|other| other.as_str() != domain.as_str()), "{domain:?}");
    }
}

#[test]
fn keys_that_fit_any_message_or_have_a_second_spelling_are_refused() {
    // Points of small order: identity (y = 1), order 2 (y = -1), order 4 (y = 0); then y = 3 spelt y = p + 3, on
    // the curve and of large order, which would be a second UID of one key.
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut order_two = [0xff; 32];
    (order_two[0], order_two[31]) = (0xec, 0x7f);
    let mut unreduced = [0xff; 32];
    (unreduced[0], unreduced[31]) = (0xf0, 0x7f);
    // R = identity, S = 0 satisfies the cofactored equation for a key of small order whatever the message.
    let mut signature = [0; 64];
    signature[0] = 1;
    for point in [identity, order_two, [0; 32], unreduced] {
        let uid = Uid::from_bytes(point);
        let result = uid.verify(Domain::Receipt, b"anything", &Signature(signature));
        assert_eq!(result, Err(SignatureError::KeyInvalid { uid }));
    }
}

#[test]
fn a_second_spelling_of_s_is_refused() {
    // L, the order of the base point, little-endian; S + L satisfies the equation, and RFC 8032 section 5.1.7 forbids it.
    let order: [u8; 32] = array(&"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010".into());
    let key = SecretKey::from_seed([9; 32]);
    let mut signature = key.sign(Domain::Envelope, b"message");
    let mut carry = 0;
    for (byte, add) in signature.0[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "S + L fits 32 bytes");
    let result = key.uid().verify(Domain::Envelope, b"message", &signature);
    assert_eq!(result, Err(SignatureError::Mismatch { uid: key.uid() }));
}

#[test]
fn wrong_uid_texts_say_what_is_wrong() {
    let uid = SecretKey::from_seed([1; 32]).uid().to_string();
    assert_eq!("".parse::<Uid>(), Err(UidError::Length { len: 0 }));
    assert_eq!(uid[..20].parse::<Uid>(), Err(UidError::Length { len: uid_len(&uid[..20]) }));
    assert_eq!("0".parse::<Uid>(), Err(UidError::Character { index: 0 }));
    assert_eq!(format!(" {}", &uid[1..]).parse::<Uid>(), Err(UidError::Character { index: 0 }));
    assert_eq!("12é".parse::<Uid>(), Err(UidError::Character { index: 2 }));
    assert_eq!("1".repeat(45).parse::<Uid>(), Err(UidError::TextTooLong { len: 45 }));
    assert_eq!("1".repeat(33).parse::<Uid>(), Err(UidError::Length { len: 33 }));
    assert_eq!("z".repeat(44).parse::<Uid>(), Err(UidError::Length { len: 33 }));
}

/// How many bytes a cut text decodes to, by arithmetic: 58^20 takes 15 bytes.
fn uid_len(text: &str) -> usize {
    assert_eq!(text.len(), 20);
    15
}

#[test]
fn debug_of_a_key_shows_the_uid_and_not_the_seed() {
    let key = SecretKey::from_seed([0x5a; 32]);
    let shown = format!("{key:?} {key:#?}");
    assert!(shown.contains(&key.uid().to_string()));
    assert!(!shown.contains("90, 90") && !shown.contains("5a5a"), "{shown}");
}

#[test]
fn key_files_are_read_to_the_letter() {
    let key = SecretKey::from_seed([0xab; 32]);
    let text = key.to_seed_text();
    assert_eq!(text.as_str(), format!("{}\n", "ab".repeat(32)));
    assert_eq!(SecretKey::from_seed_text(&text).unwrap().uid(), key.uid());
    assert_eq!(SecretKey::from_seed_text(&"AB".repeat(32)).unwrap().uid(), key.uid());
    assert_eq!(SecretKey::from_seed_text("").unwrap_err(), SeedError::Length { len: 0 });
    assert_eq!(SecretKey::from_seed_text(&"ab".repeat(33)).unwrap_err(), SeedError::Length { len: 66 });
    assert_eq!(
        SecretKey::from_seed_text(&format!("{}\n\n", "ab".repeat(32))).unwrap_err(),
        SeedError::Length { len: 65 }
    );
    assert_eq!(
        SecretKey::from_seed_text(&format!("{}g", "a".repeat(63))).unwrap_err(),
        SeedError::Digit { index: 63 }
    );
}

proptest! {
    #[test]
    fn uid_texts_round_trip(bytes: [u8; 32]) {
        let uid = Uid::from_bytes(bytes);
        prop_assert_eq!(uid.to_string().parse(), Ok(uid));
    }

    #[test]
    fn any_text_that_is_a_uid_is_its_only_text(text in "[1-9A-HJ-NP-Za-km-z]{30,46}") {
        if let Ok(uid) = text.parse::<Uid>() {
            prop_assert_eq!(uid.to_string(), text);
        }
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = text.parse::<Uid>();
        let _ = text.parse::<identity::Address>();
        let _ = SecretKey::from_seed_text(&text);
    }

    #[test]
    fn signatures_verify_and_fail_on_any_flipped_bit(seed: [u8; 32], message: Vec<u8>, bit in 0usize..512) {
        let key = SecretKey::from_seed(seed);
        let mut signature = key.sign(Domain::DhtRecord, &message);
        prop_assert_eq!(key.uid().verify(Domain::DhtRecord, &message, &signature), Ok(()));
        signature.0[bit / 8] ^= 1 << (bit % 8);
        let refused = Err(SignatureError::Mismatch { uid: key.uid() });
        prop_assert_eq!(key.uid().verify(Domain::DhtRecord, &message, &signature), refused);
    }

    #[test]
    fn any_key_and_signature_are_checked_without_a_panic(
        key: [u8; 32], low: [u8; 32], high: [u8; 32], message: Vec<u8>,
    ) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&low);
        signature[32..].copy_from_slice(&high);
        prop_assert!(Uid::from_bytes(key).verify(Domain::Receipt, &message, &Signature(signature)).is_err());
    }
}
