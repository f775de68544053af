//! The pack format: vectors, layout, bounds.

use proptest::prelude::*;
use store::Hash;
use store::pack::{
    ALIGNED_LEN_MIN, Commit, HeaderError, PACK_HEADER_PAGE_LEN, PAGE_LEN, PackKey, Record, claimed_identity,
    layout,
};

const STORE_ID: [u8; 16] = *b"a store's own id";

/// The pack of `tests/vectors/pack-v1.hex`: two short segments, in one commit.
fn example() -> Vec<u8> {
    let payloads: [&[u8]; 2] = [b"hello", b"a second segment"];
    let key = PackKey::new(STORE_ID, 3);
    let start = PACK_HEADER_PAGE_LEN;
    let (offsets, extent_len) = layout(start, &payloads.map(|payload| payload.len() as u32));
    let commit = Commit { sequence: 9, extent_len, record_count: 2 };
    let mut pack = key.pack_header_page();
    pack.extend(key.commit_header(start, &commit));
    for (i, payload) in payloads.iter().enumerate() {
        let record = Record {
            hash: Hash::of(payload),
            payload_offset: offsets[i],
            payload_len: payload.len() as u32,
            is_tombstone: false,
        };
        pack.extend(key.record_header(pack.len() as u64, commit.sequence, &record));
    }
    for (payload, offset) in payloads.iter().zip(&offsets) {
        pack.resize(*offset as usize, 0);
        pack.extend(*payload);
    }
    pack.resize((start + extent_len) as usize, 0);
    pack
}

#[test]
fn the_committed_vector_is_what_is_written_and_read() {
    let vector = crate::support::vector(include_str!("../vectors/pack-v1.hex"));
    assert!(example() == vector, "the bytes of a pack have changed");
    let key = PackKey::new(STORE_ID, 3);
    key.check_pack_header(&vector).unwrap();
    assert_eq!(claimed_identity(&vector), Some((STORE_ID, 3)));
    let commit = key.read_commit_header(4096, &vector[4096..]).unwrap();
    assert_eq!(commit, Commit { sequence: 9, extent_len: 4096, record_count: 2 });
    for (i, payload) in [&b"hello"[..], b"a second segment"].into_iter().enumerate() {
        let at = 4096 + 64 * (1 + i);
        let record = key.read_record_header(at as u64, &vector[at..], 4096, &commit).unwrap();
        assert_eq!(record.hash, Hash::of(payload));
        assert_eq!(&vector[record.payload_offset as usize..record.end() as usize], payload);
    }
}

#[test]
fn a_header_is_valid_only_as_it_is_where_it_is() {
    let pack = example();
    let key = PackKey::new(STORE_ID, 3);
    for byte in 0..64 {
        let mut flipped = pack.clone();
        flipped[byte] ^= 4;
        assert_eq!(key.check_pack_header(&flipped), Err(HeaderError::Invalid));
        flipped[4096 + byte] ^= 4;
        assert_eq!(key.read_commit_header(4096, &flipped[4096..]), Err(HeaderError::Invalid));
    }
    assert_eq!(key.read_commit_header(8192, &pack[4096..]), Err(HeaderError::Invalid));
    for other in [PackKey::new(STORE_ID, 4), PackKey::new([1; 16], 3)] {
        assert_eq!(other.check_pack_header(&pack), Err(HeaderError::Invalid));
        assert_eq!(other.read_commit_header(4096, &pack[4096..]), Err(HeaderError::Invalid));
    }
    for len in 0..64 {
        assert_eq!(key.check_pack_header(&pack[..len]), Err(HeaderError::Invalid));
    }
}

#[test]
fn a_million_short_segments_cost_no_page_each() {
    let (_, extent_len) = layout(PAGE_LEN, &vec![100; 1 << 20]);
    assert!(extent_len < (1 << 20) * 170, "{extent_len} bytes: a header of 64 and 104 of payload a segment");
}

proptest! {
    #[test]
    fn payloads_lie_apart_aligned_and_inside(
        page in 1u64..1000,
        lens in prop::collection::vec(prop_oneof![0u32..200, 60_000..70_000u32, 1u32..(2 << 20)], 1..60),
    ) {
        let start = page * PAGE_LEN;
        let (offsets, extent_len) = layout(start, &lens);
        prop_assert_eq!(extent_len % PAGE_LEN, 0);
        let mut ranges: Vec<_> =
            offsets.iter().zip(&lens).map(|(offset, len)| (*offset, offset + u64::from(*len))).collect();
        ranges.sort_unstable();
        prop_assert!(ranges[0].0 >= start + 64 * (1 + lens.len() as u64));
        prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        prop_assert!(ranges.iter().all(|range| range.1 <= start + extent_len));
        for (offset, len) in offsets.iter().zip(&lens) {
            prop_assert_eq!(offset % if *len >= ALIGNED_LEN_MIN { PAGE_LEN } else { 8 }, 0);
        }
    }
}
