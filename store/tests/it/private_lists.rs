//! Lists of files that were chunked by content, compressed, encrypted and coded: what they say, to whom, and what is refused.

use identity::SecretKey;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use store::aead::{FileId, FileKey};
use store::erasure::{Code, Shape};
use store::list::{
    Chunking, Compression, DataSegment, Encryption, GROUP_LEN_MAX, KeyError, KeyMaterial, ListBuilder,
    ListError, ListView, Parity, Readers, WrapError, WrappedKey,
};
use store::{Hash, outboard};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn vector() -> Vec<u8> {
    crate::support::vector(include_str!("../vectors/list-v2-private.hex"))
}

/// What the vector was made of, but for the keys' ephemeral halves, which are the vector's.
fn example() -> ListBuilder {
    let vector = vector();
    let KeyMaterial::Wrapped(keys) = ListView::open(&vector).unwrap().key_material() else {
        panic!("the key is wrapped")
    };
    let data = [(100_016, 100_000), (70_001, 90_000), (65_552, 65_536), (200_000, 250_000), (33, 40)];
    let parity = [100_016, 100_016, 200_000, 200_000, 34, 34];
    let named = |kind: &str, i: usize| Hash::of(format!("{kind} {i}").as_bytes());
    let outboards_len =
        data.iter().map(|(len, _)| len).chain(&parity).map(|len| outboard::len_of(*len)).sum::<u32>();
    ListBuilder {
        name: "private.img".into(),
        version: (2, 0, 0),
        counter: 8,
        expires_s: 0,
        target: String::new(),
        file_hash: Some(Hash::of(b"the whole file")),
        segments: (0..)
            .zip(data)
            .map(|(i, (stored_len, plain_len))| DataSegment { hash: named("data", i), stored_len, plain_len })
            .collect(),
        chunking: Chunking::FastCdc { average: 65_536 },
        compression: Compression::Zstd,
        encryption: Some(Encryption {
            key: FileKey::from_bytes(&[0x42; 32]),
            id: FileId(*b"the file's own i"),
            // In the other order: what is written is sorted.
            readers: Readers::Wrapped([9, 8].map(|seed| keys.of(&key(seed).uid()).unwrap()).to_vec()),
        }),
        parity: Some(Parity {
            code: Code::Leopard65536,
            shape: Shape { data: 2, parity: 2 },
            segments: (0..).zip(parity).map(|(i, len)| (named("parity", i), len)).collect(),
        }),
        outboards: vec![(Hash::of(b"outboards"), outboards_len)],
        plain_hashes: ListView::open(&vector).unwrap().plain_hashes(),
    }
}

#[test]
fn the_committed_vector_is_what_is_written_and_read() {
    let vector = vector();
    assert!(example().sign(&key(7)).unwrap() == vector, "the bytes of a signed list have changed");
    let list = ListView::open(&vector).unwrap();
    assert!(!list.is_plain() && list.is_encrypted());
    assert_eq!(
        (list.compression(), list.chunking()),
        (Compression::Zstd, Chunking::FastCdc { average: 65_536 })
    );
    assert_eq!(list.coding(), Some((Code::Leopard65536, Shape { data: 2, parity: 2 })));
    assert_eq!((list.data_count(), list.parity_count(), list.group_count()), (5, 6, 3));
    let last = list.group(2).unwrap();
    assert_eq!((last.data.clone(), last.parity.clone(), last.shard_len), (4..5, 9..11, 34));
    assert_eq!(last.shards().collect::<Vec<_>>(), [4, 9, 10]);
    assert_eq!([4, 5, 9, 10].map(|shard| last.position(shard)), [Some(0), None, Some(2), Some(3)]);
    assert_eq!((last.needed(), list.group(3)), (1, None));
    assert_eq!([0, 3, 4, 5, 8, 10].map(|i| list.group_of(i).unwrap()), [0, 1, 2, 0, 1, 2]);
    assert_eq!((list.group_of(11), list.shard(11)), (None, None));
    assert_eq!(list.shard(9), Some((Hash::of(b"parity 4"), 34)));
    assert_eq!(
        list.outboards().collect::<Vec<_>>(),
        [(0, Hash::of(b"outboards"), 64 * (1 + 1 + 1 + 3 + 1 + 1 + 3 + 3))]
    );
    assert_eq!(list.names().count(), 5 + 6 + 1 + 1);
    assert_eq!(list.locate(100_000 + 90_000), Some((2, 0)));
}

#[test]
fn only_receivers_learn_the_key_and_the_hash() {
    let vector = vector();
    let list = ListView::open(&vector).unwrap();
    assert_eq!(list.file_hash(), None);
    for seed in [8, 9] {
        let file_key = list.file_key(Some(&key(seed))).unwrap().unwrap();
        assert_eq!(file_key.as_bytes(), &[0x42; 32]);
        assert_eq!(list.file_hash_by(&file_key).unwrap(), Some(Hash::of(b"the whole file")));
    }
    let uid = key(10).uid();
    assert_eq!(list.file_key(Some(&key(10))), Err(KeyError::NotAReceiver { uid, receivers: 2 }));
    assert_eq!(list.file_key(None), Err(KeyError::NoSecret { receivers: 2 }));
    assert!(list.file_hash_by(&FileKey::from_bytes(&[0x43; 32])).is_err());
    let KeyMaterial::Wrapped(keys) = list.key_material() else { panic!("the key is wrapped") };
    assert_eq!(keys.receivers().len(), 2);
}

#[test]
fn a_wrapped_key_opens_for_its_receiver_its_file_and_its_publisher_alone() {
    let mut random = StdRng::seed_from_u64(1);
    let (file_key, id) = (FileKey::from_bytes(&[1; 32]), FileId([2; 16]));
    let (publisher, receiver) = (key(3), key(4));
    let wrapped = WrappedKey::seal(&file_key, id, &publisher.uid(), &receiver.uid(), &mut random).unwrap();
    assert_eq!(wrapped.open(id, &publisher.uid(), &receiver), Ok(file_key.clone()));
    let uid = receiver.uid();
    assert_eq!(wrapped.open(FileId([3; 16]), &publisher.uid(), &receiver), Err(KeyError::Unwrap { uid }));
    assert_eq!(wrapped.open(id, &key(5).uid(), &receiver), Err(KeyError::Unwrap { uid }));
    let mut other = wrapped;
    other.receiver = key(5).uid();
    let uid = key(5).uid();
    assert_eq!(other.open(id, &publisher.uid(), &key(5)), Err(KeyError::Unwrap { uid }));
    // y = 1: the neutral element, of order 1.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let receiver = identity::Uid::from_bytes(neutral);
    let refused = WrappedKey::seal(&file_key, id, &publisher.uid(), &receiver, &mut random);
    assert_eq!(refused, Err(WrapError { receiver }));
}

#[test]
fn an_open_key_is_everyones_who_has_the_list() {
    let mut list = example();
    list.encryption.as_mut().unwrap().readers = Readers::Open;
    let document = list.sign(&key(7)).unwrap();
    let list = ListView::open(&document).unwrap();
    assert_eq!(list.file_key(None).unwrap().unwrap().as_bytes(), &[0x42; 32]);
    assert_eq!(list.file_hash(), Some(Hash::of(b"the whole file")));
}

#[test]
fn every_flipped_bit_is_refused() {
    let vector = vector();
    for byte in 0..vector.len() {
        let mut flipped = vector.clone();
        flipped[byte] ^= 1 << (byte % 8);
        assert!(ListView::open(&flipped).is_err(), "byte {byte}");
    }
    for len in (0..vector.len()).step_by(7) {
        assert!(ListView::open(&vector[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn counts_beyond_all_bounds_are_refused_by_arithmetic() {
    for at in [128, 132, 152, 156, 224] {
        let mut document = vector();
        document[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(ListView::open(&document), Err(ListError::Field { .. })), "field at {at}");
    }
    // 2^63 bytes of file or document.
    for at in [16, 88] {
        let mut document = vector();
        document[at..at + 8].copy_from_slice(&(1u64 << 63).to_le_bytes());
        assert!(matches!(ListView::open(&document), Err(ListError::Field { .. })), "field at {at}");
    }
    // All counts at once: their sum is beyond 32 bits, and the document ends long before.
    let mut document = vector();
    for at in [128, 132, 156] {
        document[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    assert!(ListView::open(&document).is_err());
    // Code shapes that no code has: 65,535 + 65,535, and k = 0.
    for (data, parity) in [(u16::MAX, u16::MAX), (0, 2), (2, 0)] {
        let mut document = vector();
        document[144..146].copy_from_slice(&data.to_le_bytes());
        document[146..148].copy_from_slice(&parity.to_le_bytes());
        let refused = ListView::open(&document);
        assert!(matches!(refused, Err(ListError::Field { field: "code_data + code_parity", .. })));
    }
}

#[test]
fn what_does_not_agree_cannot_be_signed() {
    let refused = |change: &dyn Fn(&mut ListBuilder)| {
        let mut list = example();
        change(&mut list);
        list.sign(&key(7)).expect_err("it must not be signed")
    };
    let field = |error: ListError| match error {
        ListError::Field { field, .. } | ListError::Unsupported { field, .. } => field,
        ListError::Segment { table, .. } => table,
        other => panic!("{other}"),
    };
    assert_eq!(field(refused(&|list| list.parity.as_mut().unwrap().segments[1].1 += 2)), "parity segment");
    assert_eq!(field(refused(&|list| list.parity.as_mut().unwrap().segments.truncate(5))), "parity_count");
    assert_eq!(field(refused(&|list| list.parity = None)), "outboard document");
    assert_eq!(field(refused(&|list| list.outboards[0].1 -= 64)), "outboard document");
    assert_eq!(field(refused(&|list| list.outboards.push((Hash([1; 32]), 64)))), "outboard_count");
    assert_eq!(field(refused(&|list| list.plain_hashes = Some((Hash([1; 32]), 32 * 5)))), "plain_hashes_len");
    assert_eq!(field(refused(&|list| list.encryption = None)), "plain_hashes_len");
    assert_eq!(
        field(refused(&|list| list.chunking = Chunking::FastCdc { average: 100 })),
        "chunk_len_average"
    );
    assert_eq!(field(refused(&|list| list.chunking = Chunking::FastCdc { average: 1 << 19 })), "segment");
    assert_eq!(field(refused(&|list| list.compression = Compression::None)), "segment");
    // A tag alone, and a segment that grew by being compressed.
    assert_eq!(field(refused(&|list| list.segments[4].stored_len = 16)), "segment");
    assert_eq!(field(refused(&|list| list.segments[4].plain_len = 16)), "segment");
    let no_readers = |list: &mut ListBuilder| {
        list.encryption.as_mut().unwrap().readers = Readers::Wrapped(vec![]);
    };
    assert_eq!(field(refused(&no_readers)), "key_material_len");
    let twice = |list: &mut ListBuilder| {
        let Readers::Wrapped(keys) = &mut list.encryption.as_mut().unwrap().readers else { return };
        keys.push(keys[0]);
    };
    assert_eq!(field(refused(&twice)), "wrapped key");
}

#[test]
fn a_group_that_a_receiver_could_not_hold_cannot_be_signed() {
    let segment_len = 8 << 20;
    let k = (GROUP_LEN_MAX / segment_len) as usize + 1;
    let list = |k: usize| ListBuilder {
        name: "large".into(),
        parity: Some(Parity {
            code: Code::ReedSolomon256,
            shape: Shape { data: k, parity: 1 },
            segments: vec![(Hash([2; 32]), segment_len as u32)],
        }),
        ..ListBuilder::plain(vec![(Hash([1; 32]), segment_len as u32); k])
    };
    assert!(list(k - 1).sign(&key(1)).is_ok());
    assert!(matches!(list(k).sign(&key(1)), Err(ListError::Segment { table: "parity segment", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_coded_list_comes_back(
        lens in prop::collection::vec((1u32..300_000, 0u32..1000), 1..60),
        (k, m) in (1usize..8, 1usize..5),
        leopard: bool,
        encrypted: bool,
        seed: u64,
    ) {
        let code = if leopard { Code::Leopard65536 } else { Code::ReedSolomon256 };
        let tag = if encrypted { 16 } else { 0 };
        let segments: Vec<_> = lens
            .iter()
            .enumerate()
            .map(|(i, (len, saved))| DataSegment {
                hash: Hash::of(&i.to_le_bytes()),
                stored_len: len + tag,
                plain_len: len + saved,
            })
            .collect();
        let mut parity = Vec::new();
        for group in segments.chunks(k) {
            let longest = group.iter().map(|segment| segment.stored_len).max().unwrap();
            let len = longest.next_multiple_of(code.shard_align() as u32);
            parity.resize(parity.len() + m, (Hash::of(&len.to_le_bytes()), len));
        }
        let shards: Vec<u32> =
            segments.iter().map(|segment| segment.stored_len).chain(parity.iter().map(|(_, len)| *len)).collect();
        let outboards = shards
            .chunks(1024)
            .map(|shards| shards.iter().map(|len| outboard::len_of(*len)).sum())
            .map(|len: u32| (if len == 0 { Hash([0; 32]) } else { Hash([3; 32]) }, len))
            .collect();
        let (file_key, id) = (FileKey::from_bytes(&[1; 32]), FileId([2; 16]));
        let mut random = StdRng::seed_from_u64(seed);
        let wrapped = [3, 4, 5].map(|reader| {
            WrappedKey::seal(&file_key, id, &key(7).uid(), &key(reader).uid(), &mut random).unwrap()
        });
        let builder = ListBuilder {
            name: "any".into(),
            file_hash: Some(Hash([9; 32])),
            segments: segments.clone(),
            compression: Compression::Zstd,
            encryption: encrypted.then(|| Encryption {
                key: file_key.clone(),
                id,
                readers: Readers::Wrapped(wrapped.to_vec()),
            }),
            parity: Some(Parity { code, shape: Shape { data: k, parity: m }, segments: parity.clone() }),
            outboards,
            plain_hashes: Some((Hash([4; 32]), 32 * segments.len() as u32 + tag)),
            ..ListBuilder::default()
        };
        let document = builder.sign(&key(7)).unwrap();
        let list = ListView::open(&document).unwrap();
        prop_assert_eq!(list.shards().map(|(_, len)| len).collect::<Vec<_>>(), shards);
        let mut seen = vec![false; list.shard_count() as usize];
        for g in 0..list.group_count() {
            let group = list.group(g).unwrap();
            for shard in group.shards() {
                prop_assert!(!std::mem::replace(&mut seen[shard as usize], true));
                prop_assert_eq!(list.group_of(shard), Some(g));
                prop_assert!(group.position(shard).is_some());
                prop_assert!(list.shard(shard).unwrap().1 <= group.shard_len);
            }
        }
        prop_assert!(seen.into_iter().all(|seen| seen), "every shard is in a group");
        if encrypted {
            prop_assert_eq!(list.file_key(Some(&key(4))).unwrap(), Some(file_key.clone()));
            prop_assert_eq!(list.file_hash_by(&file_key).unwrap(), Some(Hash([9; 32])));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(start in 0usize..1600, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut document = vector();
        let end = document.len().min(start + bytes.len());
        if start < end {
            document[start..end].copy_from_slice(&bytes[..end - start]);
        }
        let _ = ListView::open(&document);
    }
}
