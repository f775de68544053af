use identity::{ADDRESS_LEN, Address, AddressError, Uid};
use proptest::prelude::*;

use crate::{array, items, text, vectors};

const VECTORS: &str = include_str!("../vectors/address.json");

#[test]
fn addresses_are_those_of_the_vectors() {
    for vector in items(&vectors(VECTORS)) {
        let address =
            Address { uid: Uid::from_bytes(array(&vector["uid"])), nospam: array(&vector["nospam"]) };
        assert_eq!(address.to_bytes(), array::<ADDRESS_LEN>(&vector["bytes"]));
        assert_eq!(address.to_string(), text(&vector["text"]));
        assert_eq!(text(&vector["text"]).parse(), Ok(address));
    }
}

#[test]
fn wrong_texts_say_what_is_wrong() {
    let uid = Uid::from_bytes([3; 32]);
    assert_eq!("".parse::<Address>(), Err(AddressError::Length { len: 0 }));
    assert_eq!(uid.to_string().parse::<Address>(), Err(AddressError::Length { len: 32 }));
    assert_eq!("l".parse::<Address>(), Err(AddressError::Character));
    assert_eq!("1".repeat(53).parse::<Address>(), Err(AddressError::TextTooLong { len: 53 }));
    assert_eq!("1".repeat(38).parse::<Address>(), Err(AddressError::Checksum));
}

proptest! {
    #[test]
    fn addresses_round_trip(uid: [u8; 32], nospam: [u8; 4]) {
        let address = Address { uid: Uid::from_bytes(uid), nospam };
        prop_assert_eq!(address.to_string().parse(), Ok(address));
        prop_assert_eq!(Address::from_bytes(&address.to_bytes()), Ok(address));
    }

    /// Two bytes of checksum miss one change in 65,536, so no property holds for every change; what is read is never
    /// another address under the same text, though.
    #[test]
    fn what_is_read_has_the_text_it_was_read_from(text in "[1-9A-HJ-NP-Za-km-z]{48,52}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string(), text);
        }
    }
}

/// Every wrong character at every position, in the addresses of 64 UIDs.
#[test]
fn nearly_every_mistyped_character_is_caught() {
    const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let (mut tried, mut missed) = (0, 0);
    for seed in 0..64 {
        let uid = identity::SecretKey::from_seed([seed; 32]).uid();
        let text = Address { uid, nospam: [seed, 2, 3, 4] }.to_string();
        for index in 0..text.len() {
            for letter in ALPHABET.iter().filter(|letter| **letter != text.as_bytes()[index]) {
                let mut changed = text.clone().into_bytes();
                changed[index] = *letter;
                tried += 1;
                missed += usize::from(String::from_utf8(changed).unwrap().parse::<Address>().is_ok());
            }
        }
    }
    // About 187,000 changes, each missed with chance 2^-16: 2.9 expected, more than 13 have a chance below 1 in 300,000.
    assert!((180_000..=64 * 52 * 57).contains(&tried), "{tried}");
    assert!(missed <= 13, "{missed} of {tried} changes passed the checksum");
}
