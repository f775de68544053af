//! Addresses, keys and signatures, beside those of the chain's own wallet tool.

use chain_lite::pow::{Program, Transaction};
use chain_lite::wallet::{
    AddressError, Draft, DraftError, KeyError, Prefix, ProgramError, ProgramHash, PublicKey, Script,
    ScriptError, SecretKey, verify_program,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::transaction::{entries, text, wallet_vectors};
use crate::{bytes, for_every_flip};

#[test]
fn recorded_keys_have_their_public_keys_and_addresses() {
    for entry in entries(&wallet_vectors()["public_keys"]) {
        let secret = entry.get("secret").map(|secret| key(secret).public_key());
        let public = entry.get("public").map(|public| {
            let public = PublicKey::from_bytes(&bytes(public).try_into().expect("33 bytes"));
            public.expect("a point")
        });
        if let (Some(secret), Some(public)) = (secret, public) {
            assert_eq!(secret, public);
        }
        let public = public.or(secret).expect("one of them");
        assert_eq!(PublicKey::from_bytes(&public.to_bytes()), Ok(public));
        if let Some(address) = entry.get("address") {
            assert_eq!(public.account().to_string(), text(address));
            assert_eq!(text(address).parse(), Ok(public.account()));
            assert_eq!(public.account().prefix(), Some(Prefix::Standard));
        }
    }
}

#[test]
fn a_recorded_account_of_several_keys_has_its_address_whatever_their_order() {
    let recorded = &wallet_vectors()["multisig"];
    let mut keys: Vec<_> = entries(&recorded["keys"]).iter().map(|secret| key(secret).public_key()).collect();
    for _ in 0..keys.len() {
        keys.rotate_left(1);
        let script = Script::multisig(3, keys.clone()).expect("four keys");
        assert_eq!(script.account().to_string(), text(&recorded["address"]));
        assert_eq!(script.account().prefix(), Some(Prefix::Multisig));
        assert_eq!(Script::decode(&script.encode()), Ok(script));
    }
}

#[test]
fn recorded_addresses_are_read_and_others_named() {
    let recorded = wallet_vectors();
    for address in entries(&recorded["addresses"]) {
        let account: ProgramHash = text(address).parse().expect("an address");
        assert_eq!(account.to_string(), text(address));
    }
    let refused: Vec<_> = entries(&recorded["not_addresses"])
        .iter()
        .map(|address| text(address).parse::<ProgramHash>().expect_err("no address"))
        .collect();
    assert_eq!(refused[0], AddressError::Length { found: 35 });
    // An address of Bitcoin: the same form with another prefix.
    assert_eq!(refused[1], AddressError::Prefix { found: 0 });
    assert_eq!(refused[2], AddressError::Character { at: 0, found: '0' });

    let good = "ENTogr92671PKrMmtWo3RLiYXfBTXUe13Z";
    assert_eq!("".parse::<ProgramHash>(), Err(AddressError::Length { found: 0 }));
    assert_eq!(good[1..].parse::<ProgramHash>(), Err(AddressError::Length { found: 33 }));
    assert!(matches!("z".repeat(34).parse::<ProgramHash>(), Err(AddressError::Checksum { .. })));
    assert_eq!("1".repeat(34).parse::<ProgramHash>(), Err(AddressError::Prefix { found: 0 }));
    for (at, found) in [(3, 'l'), (9, 'O'), (33, ' '), (20, 'ü')] {
        let mut characters: Vec<_> = good.chars().collect();
        characters[at] = found;
        let other: String = characters.into_iter().collect();
        assert_eq!(other.parse::<ProgramHash>(), Err(AddressError::Character { at, found }));
    }
    let swapped = good.replacen("og", "go", 1);
    assert!(matches!(swapped.parse::<ProgramHash>(), Err(AddressError::Checksum { .. })));
    let foreign = ProgramHash([0x22; 21]);
    let error = AddressError::Prefix { found: 0x22 };
    assert_eq!(foreign.to_string().parse::<ProgramHash>(), Err(error));
}

/// Any one character changed is found, and every prefix has its letter.
#[test]
fn no_character_of_an_address_may_change() {
    const ALPHABET: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    for (prefix, letter) in [(0x21, 'E'), (0x12, '8'), (0x4b, 'X'), (0x67, 'i'), (0x1c, 'C')] {
        for fill in [0, 0x5a, 0xff] {
            let mut hash = [fill; 21];
            hash[0] = prefix;
            let address = ProgramHash(hash).to_string();
            assert_eq!((address.len(), address.chars().next()), (34, Some(letter)));
            assert_eq!(address.parse(), Ok(ProgramHash(hash)));
            for at in 0..address.len() {
                for character in ALPHABET.chars().filter(|character| !address[at..].starts_with(*character)) {
                    let mut other = address.clone();
                    other.replace_range(at..=at, &character.to_string());
                    assert!(other.parse::<ProgramHash>().is_err(), "{other}");
                }
            }
        }
    }
}

/// The wallet tool signs without randomness too (RFC 6979): the same bytes come out.
#[test]
fn recorded_transactions_are_signed_to_the_byte() {
    for entry in entries(&wallet_vectors()["transactions"]) {
        let raw = bytes(&entry["raw"]);
        let transaction = Transaction::decode(&raw).expect("well-formed");
        let keys: Vec<_> = entries(&entry["keys"]).iter().map(key).collect();
        let required = entry["required"].as_u64().expect("a number") as usize;
        let script = match &keys[..] {
            [key] => Script::Standard(key.public_key()),
            keys => Script::multisig(required, keys.iter().map(SecretKey::public_key).collect())
                .expect("different keys"),
        };
        let program = transaction.programs().iter().next().expect("a program");
        assert_eq!(program.code, script.encode());
        assert_eq!(verify_program(&program, transaction.unsigned()), Ok(script.account()));
        let draft = Draft {
            payload: transaction.payload(),
            payload_version: transaction.payload_version(),
            attributes: transaction.attributes().iter().collect(),
            inputs: transaction.inputs().collect(),
            outputs: transaction.outputs().collect(),
            lock_time: transaction.lock_time(),
        };
        let signed_by: Vec<_> = keys
            .iter()
            .filter(|key| {
                let signature = key.sign(transaction.unsigned());
                program.parameter.windows(64).any(|field| field == signature.0)
            })
            .collect();
        assert_eq!(signed_by.len(), required, "{}", text(&entry["about"]));
        let signed = draft.sign(&[(script.clone(), &signed_by)]).expect("the keys are there");
        if required == 1 {
            assert_eq!(signed, raw);
        } else {
            // The tool's signatures are in the order in which it was given the keys.
            let again = Transaction::decode(&signed).expect("well-formed");
            assert_eq!(again.hash(), transaction.hash());
            assert_eq!(signed.len(), raw.len());
            let program = again.programs().iter().next().expect("a program");
            assert_eq!(verify_program(&program, again.unsigned()), Ok(script.account()));
        }
    }
}

#[test]
fn secret_keys_are_read_from_whole_numbers_below_the_order() {
    let digits = "5fa927e5664e563f019f50dcd4d7e2d9404f2d5d49e31f9482912e23d6d7b9eb";
    let key = SecretKey::from_hex(digits).expect("a key");
    assert_eq!(key.to_hex().as_str(), digits);
    assert_eq!(SecretKey::from_hex(&digits.to_uppercase()).expect("a key").public_key(), key.public_key());
    assert!(!format!("{key:?}").contains(&digits[2..]), "a secret key must not be shown");
    let refused = |text: &str| SecretKey::from_hex(text).expect_err("no key");
    assert_eq!(refused(&digits[2..]), KeyError::Digits { found: 62 });
    assert_eq!(refused(&digits.replacen('e', "g", 1)), KeyError::Digit { at: 6 });
    assert_eq!(refused(&"ü".repeat(64)), KeyError::Digit { at: 0 });
    assert_eq!(refused(&"0".repeat(64)), KeyError::Secret);
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    assert_eq!(refused(order), KeyError::Secret);
    assert!(SecretKey::from_hex(&order.replace("2551", "2550")).is_ok());
    let mut off_curve = key.public_key().to_bytes();
    for first in [0, 1, 4, 5, 6, 7, 0xff] {
        off_curve[0] = first;
        assert_eq!(PublicKey::from_bytes(&off_curve), Err(KeyError::Public));
    }
    off_curve = [0xff; 33];
    off_curve[0] = 2;
    assert_eq!(PublicKey::from_bytes(&off_curve), Err(KeyError::Public));
}

#[test]
fn signatures_are_of_one_message_and_one_key() {
    let [key, other] = [1, 2].map(|fill| SecretKey::from_bytes(&[fill; 32]).expect("a key"));
    let message = b"three coins to E";
    let signature = key.sign(message);
    assert!(key.public_key().verifies(message, &signature));
    assert!(!other.public_key().verifies(message, &signature));
    for_every_flip(message, |_, _, flipped| assert!(!key.public_key().verifies(flipped, &signature)));
    for_every_flip(&signature.0, |_, _, flipped| {
        let flipped = chain_lite::wallet::Signature(flipped.try_into().expect("64 bytes"));
        assert!(!key.public_key().verifies(message, &flipped));
    });
}

#[test]
fn programs_that_allow_nothing_are_named() {
    let keys = [1, 2, 3].map(|fill| SecretKey::from_bytes(&[fill; 32]).expect("a key"));
    let public = keys.each_ref().map(SecretKey::public_key);
    let script = Script::multisig(2, public.to_vec()).expect("different keys");
    let (unsigned, code) = (b"all but the programs", script.encode());
    let field = |key: &SecretKey| [&[64][..], &key.sign(unsigned).0].concat();
    let fields = keys.each_ref().map(field);
    let verify = |parameter: &[u8]| verify_program(&Program { parameter, code: &code }, unsigned);
    let [a, b, c] = &fields;
    for right in [[a, b].map(Vec::as_slice).concat(), [c, a].map(Vec::as_slice).concat()] {
        assert_eq!(verify(&right), Ok(script.account()));
    }
    assert_eq!(verify(&fields.concat()), Ok(script.account()));
    let account = |index: usize| public[index].account();
    assert_eq!(verify(&[&a[..], a].concat()), Err(ProgramError::SignedTwice { key: account(0) }));
    let spoiled = [&a[..], &[64], &[7; 64]].concat();
    assert_eq!(verify(&spoiled), Err(ProgramError::Signatures { found: 1, required: 2 }));
    // One that is of no key does no harm beside enough others.
    assert_eq!(verify(&[&spoiled[..], b].concat()), Ok(script.account()));
    let length = |len| Err(ProgramError::Length { len, required: 2, keys: 3 });
    assert_eq!(verify(a), length(65));
    assert_eq!(verify(&[&fields.concat()[..], a].concat()), length(260));
    assert_eq!(verify(&[a, &b[1..]].concat()), length(129));
    let mut long = [&a[..], b].concat();
    long[65] = 63;
    assert_eq!(verify(&long), Err(ProgramError::SignatureLength { index: 1, found: 63 }));

    let single = Script::Standard(public[0]).encode();
    let twice = Program { parameter: &[&a[..], a].concat(), code: &single };
    let error = ProgramError::Length { len: 130, required: 1, keys: 1 };
    assert_eq!(verify_program(&twice, unsigned), Err(error));
}

#[test]
fn scripts_that_guard_nothing_are_named() {
    let keys = [1, 2].map(|fill| SecretKey::from_bytes(&[fill; 32]).expect("a key").public_key());
    let code = Script::multisig(1, keys.to_vec()).expect("different keys").encode();
    let with = |place: usize, byte: u8| {
        let mut other = code.clone();
        other[place] = byte;
        Script::decode(&other)
    };
    let last = code.len() - 1;
    assert_eq!(code[last - 1], 0x52);
    assert_eq!(with(0, 0x50), Err(ScriptError::Required { required: 0, keys: 2 }));
    assert_eq!(with(0, 0), Err(ScriptError::Required { required: 0, keys: 2 }));
    assert_eq!(with(0, 0x53), Err(ScriptError::Required { required: 3, keys: 2 }));
    assert_eq!(with(1, 32), Err(ScriptError::KeyLength { index: 0, found: 32 }));
    assert_eq!(with(36, 9), Err(ScriptError::Key { index: 1, error: KeyError::Public }));
    assert_eq!(with(last - 1, 0x53), Err(ScriptError::Count { found: 0x53, keys: 2 }));
    assert_eq!(with(last, 0xaf), Err(ScriptError::CrossChain));
    assert_eq!(with(last, 0), Err(ScriptError::End { found: 0 }));
    assert_eq!(Script::decode(&[]), Err(ScriptError::Length { len: 0 }));
    assert!(matches!(Script::decode(&[0xac]), Err(ScriptError::Length { .. })));
    assert!(matches!(Script::decode(&[0xae]), Err(ScriptError::End { found: 0xae })));
    assert_eq!(Script::decode(&[0x51, 0x51, 0xae]), Err(ScriptError::Keys { keys: 0 }));

    assert_eq!(Script::multisig(1, keys[..1].to_vec()), Err(ScriptError::Keys { keys: 1 }));
    let twice = vec![keys[0], keys[1], keys[0]];
    assert_eq!(Script::multisig(1, twice), Err(ScriptError::SameKey { key: keys[0].account() }));
    assert_eq!(Script::multisig(1, vec![keys[0]; 176]), Err(ScriptError::Keys { keys: 176 }));
}

#[test]
fn drafts_are_signed_by_enough_keys_of_the_account() {
    let keys = [1, 2, 3].map(|fill| SecretKey::from_bytes(&[fill; 32]).expect("a key"));
    let [a, b, foreign] = &keys;
    let script = Script::multisig(2, vec![a.public_key(), b.public_key()]).expect("different keys");
    let account = script.account();
    let sign = |signers: &[&SecretKey]| Draft::payment().sign(&[(script.clone(), signers)]).map(drop);
    assert_eq!(sign(&[b, a]), Ok(()));
    assert_eq!(sign(&[a]), Err(DraftError::TooFewKeys { account, required: 2, found: 1 }));
    assert_eq!(sign(&[a, a]), Err(DraftError::TooFewKeys { account, required: 2, found: 1 }));
    let error = DraftError::ForeignKey { account, key: foreign.public_key().account() };
    assert_eq!(sign(&[a, b, foreign]), Err(error));
}

proptest! {
    #[test]
    fn addresses_survive_a_round_trip(
        prefix in prop::sample::select(vec![0x21, 0x12, 0x4b, 0x67, 0x1c]),
        hash: [u8; 20],
    ) {
        let mut bytes = [prefix; 21];
        bytes[1..].copy_from_slice(&hash);
        prop_assert_eq!(ProgramHash(bytes).to_string().parse(), Ok(ProgramHash(bytes)));
    }

    #[test]
    fn no_text_makes_the_address_parser_panic(text in ".{0,40}|[1-9A-HJ-NP-Za-km-z]{30,38}") {
        if let Ok(account) = text.parse::<ProgramHash>() {
            prop_assert_eq!(account.to_string(), text);
        }
    }
}

fn key(secret: &Value) -> SecretKey {
    SecretKey::from_hex(text(secret)).expect("a key")
}
