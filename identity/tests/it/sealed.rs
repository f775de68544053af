use identity::{Cost, KeyFile, KeyFileError, PASSPHRASE_LEN_MAX, SealError, SealedKey, SecretKey, SeedError};
use proptest::prelude::*;

use crate::{array, items, text, vectors};

const VECTORS: &str = include_str!("../vectors/sealed.json");

/// As little work as Argon2 allows.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

fn sealed(key: &SecretKey) -> SealedKey {
    SealedKey::seal(key, "a passphrase", [7; 16], CHEAP).unwrap()
}

fn reread(text: &str) -> SealedKey {
    match KeyFile::from_text(text).unwrap() {
        KeyFile::Sealed(sealed) => sealed,
        KeyFile::Plain(_) => panic!("{text} is no seed"),
    }
}

#[test]
fn sealed_keys_are_those_of_the_vectors() {
    for vector in items(&vectors(VECTORS)) {
        let number = |name: &str| u32::try_from(vector[name].as_u64().unwrap()).unwrap();
        let cost =
            Cost { memory_kib: number("memory_kib"), passes: number("passes"), lanes: number("lanes") };
        let key = SecretKey::from_seed(array(&vector["seed"]));
        let made = SealedKey::seal(&key, text(&vector["passphrase"]), array(&vector["salt"]), cost).unwrap();
        assert_eq!(KeyFile::Sealed(made).to_text().as_str(), text(&vector["text"]));
        let read = reread(text(&vector["text"]));
        assert_eq!((read.uid(), read.cost()), (key.uid(), cost));
        assert_eq!(read.open(text(&vector["passphrase"])).unwrap().seed(), key.seed());
    }
}

#[test]
fn another_passphrase_opens_nothing() {
    let sealed = sealed(&SecretKey::from_seed([1; 32]));
    for wrong in ["a passphrasf", "a passphrase ", "A passphrase"] {
        assert_eq!(sealed.open(wrong).unwrap_err(), SealError::Mismatch);
    }
    assert_eq!(sealed.open("").unwrap_err(), SealError::Passphrase { len: 0 });
    let long = "x".repeat(PASSPHRASE_LEN_MAX + 1);
    assert_eq!(sealed.open(&long).unwrap_err(), SealError::Passphrase { len: long.len() });
}

/// Every character of the record counts. Those of the cost's fields can ask for more than is allowed, which is said.
#[test]
fn a_changed_character_is_noticed_wherever_it_is() {
    let text = KeyFile::Sealed(sealed(&SecretKey::from_seed([2; 32]))).to_text();
    for index in "ioex-sealed-key-1:".len()..text.len() - 1 {
        let mut changed = text.as_bytes().to_vec();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let error = reread(str::from_utf8(&changed).unwrap()).open("a passphrase").unwrap_err();
        assert!(matches!(error, SealError::Mismatch | SealError::Cost { .. }), "{index}: {error}");
    }
}

#[test]
fn a_file_cannot_ask_for_more_work_than_is_allowed() {
    let key = SecretKey::from_seed([3; 32]);
    for cost in [
        Cost { memory_kib: (1 << 20) + 1, ..CHEAP },
        Cost { memory_kib: 7, ..CHEAP },
        Cost { memory_kib: 15, lanes: 2, ..CHEAP },
        Cost { passes: 17, ..CHEAP },
        Cost { passes: 0, ..CHEAP },
        Cost { lanes: 0, ..CHEAP },
        Cost { lanes: 17, memory_kib: 1 << 10, ..CHEAP },
    ] {
        assert_eq!(SealedKey::seal(&key, "p", [0; 16], cost).unwrap_err(), SealError::Cost { cost });
    }
}

#[test]
fn key_files_are_seeds_or_sealed_and_nothing_else() {
    let key = SecretKey::from_seed([4; 32]);
    let plain = KeyFile::from_text(&key.to_seed_text()).unwrap();
    assert!(matches!(&plain, KeyFile::Plain(read) if read.seed() == key.seed()));
    let text = KeyFile::Sealed(sealed(&key)).to_text();
    for (end, is_right) in [("", true), ("\n", true), ("\r\n", true), ("\n\n", false), (" ", false)] {
        let changed = format!("{}{end}", text.trim_end());
        assert_eq!(KeyFile::from_text(&changed).is_ok(), is_right, "{end:?}");
    }
    let cut = &text[..text.len() - 2];
    assert_eq!(KeyFile::from_text(cut).unwrap_err(), KeyFileError::Sealed { len: 143 });
    assert_eq!(
        KeyFile::from_text("ioex-sealed-key-2:").unwrap_err(),
        KeyFileError::Seed(SeedError::Length { len: 18 })
    );
}

#[test]
fn debug_output_shows_no_secret() {
    let key = SecretKey::from_seed([5; 32]);
    let files = [KeyFile::Plain(key.clone()), KeyFile::Sealed(sealed(&key))];
    for file in files {
        let shown = format!("{file:?}");
        assert!(shown.contains(&key.uid().to_string()) && shown.len() < 100, "{shown}");
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens(seed: [u8; 32], salt: [u8; 16], passphrase in ".{1,64}") {
        let key = SecretKey::from_seed(seed);
        let sealed = SealedKey::seal(&key, &passphrase, salt, CHEAP).unwrap();
        let read = reread(&KeyFile::Sealed(sealed).to_text());
        let opened = read.open(&passphrase).unwrap();
        prop_assert_eq!(opened.seed(), key.seed());
    }

    #[test]
    fn no_text_makes_reading_panic(text in "(ioex-sealed-key-1:)?[A-Za-z0-9_-]{0,150}\n?") {
        let _ = KeyFile::from_text(&text);
    }
}
