use identity::{
    Address, AddressError, BACKUP_LEN_MAX, Backup, BackupError, Cost, KeyFile, KeyFileError, SealedKey,
    SecretKey,
};
use proptest::prelude::*;

const NOSPAM: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

fn key() -> SecretKey {
    SecretKey::from_seed(std::array::from_fn(|index| index as u8))
}

#[test]
fn a_plain_backup_is_three_lines() {
    let text = Backup { key: KeyFile::Plain(key()), nospam: NOSPAM }.to_text();
    assert_eq!(
        text.as_str(),
        "ioex identity backup 1\nY8uyr1g6HxmeCnNj9XYBvTVm2UwYMsmE668kxGpMWLSoLMqwvmk\n\
         000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
    );
}

#[test]
fn what_is_no_backup_says_which_line_is_wrong() {
    let text = Backup { key: KeyFile::Plain(key()), nospam: NOSPAM }.to_text();
    let lines: Vec<&str> = text.lines().collect();
    let read = |lines: &[&str]| Backup::from_text(&lines.join("\n")).unwrap_err();
    assert_eq!(read(&[]), BackupError::Title);
    assert_eq!(read(&["ioex identity backup 2", lines[1], lines[2]]), BackupError::Title);
    assert_eq!(read(&lines[..1]), BackupError::Address(AddressError::Length { len: 0 }));
    assert!(matches!(read(&lines[..2]), BackupError::Key(KeyFileError::Seed(_))));
    let other = SecretKey::from_seed([9; 32]);
    let strange = Address { uid: other.uid(), nospam: NOSPAM }.to_string();
    let mismatch = BackupError::Mismatch { address: other.uid(), key: key().uid() };
    assert_eq!(read(&[lines[0], &strange, lines[2]]), mismatch);
    assert!(matches!(read(&[lines[0], lines[1], lines[2], "more"]), BackupError::Key(_)));
}

proptest! {
    #[test]
    fn a_backup_brings_back_key_and_address(seed: [u8; 32], nospam: [u8; 4], is_sealed: bool, is_windows: bool) {
        let key = SecretKey::from_seed(seed);
        let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
        let file = match is_sealed {
            true => KeyFile::Sealed(SealedKey::seal(&key, "p", [1; 16], cost).unwrap()),
            false => KeyFile::Plain(key.clone()),
        };
        let mut text = Backup { key: file, nospam }.to_text().to_string();
        if is_windows {
            text = text.replace('\n', "\r\n");
        }
        prop_assert!(text.len() <= BACKUP_LEN_MAX);
        let read = Backup::from_text(&text).unwrap();
        prop_assert_eq!(read.nospam, nospam);
        let opened = match read.key {
            KeyFile::Plain(key) => key,
            KeyFile::Sealed(sealed) => sealed.open("p").unwrap(),
        };
        prop_assert_eq!(opened.seed(), key.seed());
    }
}
