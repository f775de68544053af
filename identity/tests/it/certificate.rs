use identity::certificate::{
    BindingError, EXTENSION_LEN, EXTENSION_OID, SPKI_LEN_MAX, extension_value, verify_extension,
};
use identity::{Domain, SecretKey, SignatureError};
use proptest::prelude::*;

use crate::{array, bytes, text, vectors};

const VECTORS: &str = include_str!("../vectors/certificate.json");

#[test]
fn the_extension_is_that_of_the_vector() {
    let vector = vectors(VECTORS);
    let key = SecretKey::from_seed(array(&vector["seed"]));
    let spki = bytes(&vector["spki_der"]);
    let value = extension_value(&key, &spki);
    assert_eq!(value, bytes(&vector["extension_value"]));
    assert_eq!(verify_extension(&value, &spki), Ok(key.uid()));
    let oid: Vec<String> = EXTENSION_OID.iter().map(u64::to_string).collect();
    assert_eq!(oid.join("."), text(&vector["oid"]));
}

#[test]
fn an_extension_copied_to_another_certificate_is_refused() {
    let key = SecretKey::from_seed([5; 32]);
    let value = extension_value(&key, b"one public key");
    let mismatch = BindingError::Signature(SignatureError::Mismatch { uid: key.uid() });
    assert_eq!(verify_extension(&value, b"another public key"), Err(mismatch));
    // A signature over the same bytes for another purpose is no binding.
    let mut receipt = vec![0x04, 96];
    receipt.extend_from_slice(key.uid().as_bytes());
    receipt.extend_from_slice(&key.sign(Domain::Receipt, b"one public key").0);
    assert_eq!(verify_extension(&receipt, b"one public key"), Err(mismatch));
}

#[test]
fn lengths_are_checked_first() {
    let key = SecretKey::from_seed([5; 32]);
    let value = extension_value(&key, b"spki");
    for len in [0, EXTENSION_LEN - 1, EXTENSION_LEN + 1] {
        let mut changed = value.clone();
        changed.resize(len, 0);
        assert_eq!(verify_extension(&changed, b"spki"), Err(BindingError::ValueLength { len }));
    }
    let mut other_tag = value.clone();
    other_tag[0] = 0x03;
    assert_eq!(verify_extension(&other_tag, b"spki"), Err(BindingError::NotOctetString));
    assert_eq!(verify_extension(&value, b""), Err(BindingError::SpkiLength { len: 0 }));
    let long = vec![0; SPKI_LEN_MAX + 1];
    assert_eq!(verify_extension(&value, &long), Err(BindingError::SpkiLength { len: SPKI_LEN_MAX + 1 }));
}

proptest! {
    #[test]
    fn every_flipped_bit_is_found(seed: [u8; 32], spki in prop::collection::vec(any::<u8>(), 1..200), bit in 0usize..EXTENSION_LEN * 8) {
        let key = SecretKey::from_seed(seed);
        let mut value = extension_value(&key, &spki);
        prop_assert_eq!(verify_extension(&value, &spki), Ok(key.uid()));
        value[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_extension(&value, &spki).is_err());
    }

    #[test]
    fn no_bytes_panic(value: Vec<u8>, spki: Vec<u8>) {
        prop_assert!(verify_extension(&value, &spki).is_err());
    }
}
