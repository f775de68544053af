use proptest::prelude::*;

use super::*;

/// Key, nonce, associated data, plain bytes, ciphertext and tag, in hex: test cases 13 to 16 of McGrew and Viega, "The Galois/Counter Mode
/// of Operation (GCM)", appendix B, which NIST's validation suite took over. (17 and 18 have nonces of other lengths.)
const PUBLISHED: [[&str; 6]; 4] = [
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        "b094dac5d93471bdec1a502270e3cc6c",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ],
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn both_ciphers_give_the_published_vectors() {
    for [key, nonce, associated, plain, sealed, tag] in PUBLISHED.map(|case| case.map(hex)) {
        let (key, nonce) = (key.try_into().unwrap(), nonce.try_into().unwrap());
        let tag: [u8; TAG_LEN] = tag.try_into().unwrap();
        let (chosen, portable) = (Aes256Gcm::new(&key), portable::Aes256Gcm::new(&key));
        let mut bytes = plain.clone();
        assert_eq!(chosen.seal(&nonce, &associated, &mut bytes), tag);
        assert_eq!(bytes, sealed);
        assert!(portable.open(&nonce, &associated, &mut bytes, &tag));
        assert_eq!(bytes, plain);
        assert_eq!(portable.seal(&nonce, &associated, &mut bytes), tag);
        assert_eq!(bytes, sealed);
        assert!(chosen.open(&nonce, &associated, &mut bytes, &tag));
        assert_eq!(bytes, plain);
    }
}

/// Sealed segments lie on other people's disks for months: key, file id, index and plain bytes give these for ever.
#[test]
fn the_format_is_the_same_for_ever() {
    let cipher = SegmentCipher::new(&FileKey::from_bytes(&[7; 32]), FileId([9; 16]));
    let mut segment = *b"segment";
    let tag = cipher.seal(0x0102_0304_0506_0708, &mut segment);
    let portable = portable::Aes256Gcm::new(&[7; 32]);
    let mut expected = *b"segment";
    let nonce = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(portable.seal(&nonce, &[9; 16], &mut expected), tag);
    assert_eq!(segment, expected);
}

proptest! {
    #[test]
    fn what_is_sealed_opens_in_its_place_alone(
        plain in proptest::collection::vec(any::<u8>(), 0..5000),
        index in any::<u64>(),
        other_index in any::<u64>(),
        flip in any::<proptest::sample::Index>(),
    ) {
        let (key, id) = (FileKey::from_bytes(&[1; 32]), FileId([2; 16]));
        let cipher = SegmentCipher::new(&key, id);
        let mut sealed = plain.clone();
        let tag = cipher.seal(index, &mut sealed);
        sealed.extend_from_slice(&tag);
        prop_assert_eq!(sealed.len(), plain.len() + TAG_LEN);

        let opened = |cipher: &SegmentCipher, index: u64, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            cipher.open(index, &mut bytes).map(|plain| plain.to_vec())
        };
        prop_assert_eq!(opened(&cipher, index, &sealed), Ok(plain));
        let refused = Err(NotAuthentic { index });
        let mut changed = sealed.clone();
        changed[flip.index(sealed.len())] ^= 1 << (index % 8);
        prop_assert_eq!(opened(&cipher, index, &changed), refused.clone());
        prop_assert_eq!(opened(&cipher, index, &sealed[..sealed.len() - 1]), refused.clone());
        prop_assert_eq!(opened(&SegmentCipher::new(&FileKey::from_bytes(&[3; 32]), id), index, &sealed), refused.clone());
        prop_assert_eq!(opened(&SegmentCipher::new(&key, FileId([3; 16])), index, &sealed), refused);
        if other_index != index {
            prop_assert_eq!(opened(&cipher, other_index, &sealed), Err(NotAuthentic { index: other_index }));
        }
    }
}

#[test]
fn what_is_shorter_than_a_tag_does_not_open() {
    let cipher = SegmentCipher::new(&FileKey::from_bytes(&[1; 32]), FileId([2; 16]));
    for len in 0..TAG_LEN {
        assert_eq!(cipher.open(5, &mut vec![0; len]), Err(NotAuthentic { index: 5 }));
    }
}

#[test]
fn keys_differ_and_are_not_shown() {
    let key = FileKey::generate().unwrap();
    assert_ne!(key, FileKey::generate().unwrap());
    assert_eq!(format!("{key:?}"), "FileKey(..)");
}
