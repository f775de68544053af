//! The content address list: what is signed is what is read, and nothing else is read at all.

use identity::{SecretKey, Uid};
use proptest::prelude::*;
use store::list::{DataSegment, Entry, LIST_LEN_MAX, ListBuilder, ListError, ListView};
use store::{Hash, SEGMENT_LEN_MAX};

/// The list of `tests/vectors/list-v2.hex`.
fn example() -> ListBuilder {
    ListBuilder {
        name: "firmware-a7.img".into(),
        version: (1, 20, 3),
        counter: 7,
        expires_s: 1_893_456_000,
        target: "router-a7".into(),
        file_hash: Some(Hash::of(b"the whole file")),
        ..ListBuilder::plain([
            (Hash::of(b"first"), 1 << 20),
            (Hash::of(b"second"), 1 << 20),
            (Hash::of(b"third"), 1000),
        ])
    }
}

fn in_builder(entry: Entry) -> DataSegment {
    DataSegment { hash: entry.hash, stored_len: entry.stored_len, plain_len: entry.plain_len }
}

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

#[test]
fn a_list_says_what_was_put_into_it() {
    let document = example().sign(&key()).unwrap();
    let list = ListView::open(&document).unwrap();
    assert_eq!(list.hash(), Hash::of(&document));
    assert_eq!(list.publisher(), key().uid());
    assert_eq!((list.name(), list.target()), ("firmware-a7.img", "router-a7"));
    assert_eq!((list.version(), list.counter(), list.expires_s()), ((1, 20, 3), 7, 1_893_456_000));
    assert_eq!(list.file_hash(), Some(Hash::of(b"the whole file")));
    assert_eq!((list.file_len(), list.data_count(), list.segment_len()), ((2 << 20) + 1000, 3, 1 << 20));
    assert_eq!(list.entries().map(in_builder).collect::<Vec<_>>(), example().segments);
    let third = Entry { hash: Hash::of(b"third"), file_offset: 2 << 20, stored_len: 1000, plain_len: 1000 };
    assert_eq!((list.entry(2), list.entry(3)), (Some(third), None));
    assert_eq!((list.shard(2), list.shard(3)), (Some((third.hash, 1000)), None));
    assert!(list.is_plain() && list.coding().is_none() && list.group_count() == 0 && list.group(0).is_none());
    assert_eq!((list.group_of(0), list.plain_hashes(), list.outboards().len()), (None, None, 0));
    assert!(list.file_key(None).unwrap().is_none());
    let places = [0, (1 << 20) - 1, 1 << 20, 2 << 20, (2 << 20) + 999, (2 << 20) + 1000];
    let found = places.map(|offset| list.locate(offset));
    let expected = [Some((0, 0)), Some((0, (1 << 20) - 1)), Some((1, 0)), Some((2, 0)), Some((2, 999)), None];
    assert_eq!(found, expected);
}

#[test]
fn the_committed_vector_is_what_is_written_and_read() {
    let vector = crate::support::vector(include_str!("../vectors/list-v2.hex"));
    assert!(example().sign(&key()).unwrap() == vector, "the bytes of a signed list have changed");
    assert_eq!(ListView::open(&vector).unwrap().name(), "firmware-a7.img");
}

#[test]
fn every_flipped_bit_is_refused() {
    let document = example().sign(&key()).unwrap();
    for byte in 0..document.len() {
        for bit in 0..8 {
            let mut flipped = document.clone();
            flipped[byte] ^= 1 << bit;
            assert!(ListView::open(&flipped).is_err(), "bit {bit} of byte {byte}");
        }
    }
    for len in 0..document.len() {
        assert!(ListView::open(&document[..len]).is_err(), "{len} bytes");
    }
    assert!(ListView::open(&[document, vec![0]].concat()).is_err());
}

#[test]
fn another_publishers_signature_is_refused() {
    let mut document = example().sign(&key()).unwrap();
    let thief = SecretKey::from_seed([8; 32]).uid();
    document[24..56].copy_from_slice(thief.as_bytes());
    assert!(matches!(ListView::open(&document), Err(ListError::Signature(_))));
}

#[test]
fn what_a_newer_version_may_use_is_named() {
    let document = example().sign(&key()).unwrap();
    let patched = |at: usize, value: u8| {
        let mut document = document.clone();
        document[at] = value;
        ListView::open(&document).map(|list| list.counter())
    };
    assert_eq!(patched(8, 1), Err(ListError::Version { found: 1 }));
    let unsupported = |field, value| Err(ListError::Unsupported { field, value });
    assert_eq!(patched(10, 8), unsupported("flags", 8));
    assert_eq!(patched(136, 2), unsupported("compression", 2));
    assert_eq!(patched(138, 2), unsupported("encryption", 2));
    assert_eq!(patched(140, 3), unsupported("code", 3));
    assert_eq!(patched(150, 3), unsupported("key_kind", 3));
    assert_eq!(patched(232, 2), unsupported("chunking", 2));
    assert_eq!(patched(255, 1), unsupported("reserved", 1));
    assert_eq!(patched(0, b'X'), Err(ListError::Magic));
}

#[test]
fn fields_out_of_range_cannot_be_signed() {
    let refused = |change: &dyn Fn(&mut ListBuilder)| {
        let mut list = example();
        change(&mut list);
        list.sign(&key()).expect_err("it must not be signed")
    };
    assert!(matches!(refused(&|list| list.name.clear()), ListError::Text { field: "name", .. }));
    assert!(matches!(refused(&|list| list.name = "a\nb".into()), ListError::Text { field: "name", .. }));
    assert!(matches!(
        refused(&|list| list.target = "x".repeat(256)),
        ListError::Text { field: "target", .. }
    ));
    assert!(matches!(refused(&|list| list.segments[1].stored_len = 0), ListError::Segment { index: 1, .. }));
    let too_long = SEGMENT_LEN_MAX + 1;
    assert!(matches!(
        refused(&|list| list.segments[0].stored_len = too_long),
        ListError::Segment { index: 0, .. }
    ));
    let many = vec![example().segments[2]; LIST_LEN_MAX / 48];
    assert!(matches!(refused(&|list| list.segments.clone_from(&many)), ListError::Length { .. }));
}

#[test]
fn an_empty_file_and_uneven_segments_are_lists_too() {
    let empty = ListBuilder { segments: vec![], ..example() }.sign(&key()).unwrap();
    let list = ListView::open(&empty).unwrap();
    assert_eq!((list.file_len(), list.data_count(), list.locate(0)), (0, 0, None));
    let uneven = ListBuilder::plain([(Hash([1; 32]), 5), (Hash([2; 32]), 900), (Hash([3; 32]), 7)]).segments;
    let document = ListBuilder { segments: uneven, ..example() }.sign(&key()).unwrap();
    let list = ListView::open(&document).unwrap();
    assert_eq!([0, 4, 5, 904, 905, 911].map(|at| list.locate(at).unwrap().0), [0, 0, 1, 1, 2, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_list_comes_back(
        name in "[a-z0-9 ./\u{e4}\u{4e2d}-]{1,40}",
        target in "[a-z]{0,20}",
        version: (u32, u32, u32),
        counter: u64,
        expires_s: u64,
        lens in prop::collection::vec(1..=SEGMENT_LEN_MAX, 0..40),
        seed: [u8; 32],
    ) {
        let plain = ListBuilder::plain(lens.iter().map(|len| (Hash::of(&len.to_le_bytes()), *len)));
        let builder = ListBuilder { name, version, counter, expires_s, target, ..plain };
        let key = SecretKey::from_seed(seed);
        let document = builder.sign(&key).unwrap();
        let list = ListView::open(&document).unwrap();
        prop_assert_eq!(list.name(), builder.name.as_str());
        prop_assert_eq!(list.target(), builder.target.as_str());
        prop_assert_eq!((list.version(), list.counter(), list.expires_s()), (version, counter, expires_s));
        prop_assert_eq!(list.entries().map(in_builder).collect::<Vec<_>>(), builder.segments);
        prop_assert_eq!(list.publisher(), Uid::from_bytes(*key.uid().as_bytes()));
        let mut offset = 0u64;
        for (i, len) in lens.iter().enumerate() {
            prop_assert_eq!(list.entry(i as u32).unwrap().file_offset, offset);
            prop_assert_eq!(list.locate(offset), Some((i as u32, 0)));
            offset += u64::from(*len);
            prop_assert_eq!(list.locate(offset - 1), Some((i as u32, len - 1)));
        }
        prop_assert_eq!(list.file_len(), offset);
    }

    #[test]
    fn no_bytes_make_it_panic(start in 0usize..400, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut document = example().sign(&key()).unwrap();
        let end = document.len().min(start + bytes.len());
        if start < end {
            document[start..end].copy_from_slice(&bytes[..end - start]);
        }
        let _ = ListView::open(&document);
        let _ = ListView::open(&bytes);
    }
}
