//! Fixtures for the benchmarks of lists with parity, of outboards and of the pipeline.

use identity::SecretKey;
use store::aead::{FileId, FileKey};
use store::erasure::{Code, Shape};
use store::list::{DataSegment, Encryption, ListBuilder, ListView, Parity, Readers};
use store::outboard::{self, Outboard};
use store::pipeline::{CompressionChoice, Encoder, Input, SealingKey, Settings};
use store::{Hash, SEGMENT_LEN_DEFAULT};

const SHAPE: Shape = Shape { data: 10, parity: 4 };

/// A signed list of `segments` encrypted segments of 1 MiB with parity and outboards.
///
/// # Panics
/// If such a list cannot be signed.
pub fn coded_list(segments: u32) -> Vec<u8> {
    let stored_len = SEGMENT_LEN_DEFAULT + 16;
    let segment = |i| DataSegment { hash: Hash([i as u8; 32]), stored_len, plain_len: SEGMENT_LEN_DEFAULT };
    let parity = segments.div_ceil(SHAPE.data as u32) * SHAPE.parity as u32;
    let outboard_len = outboard::len_of(stored_len);
    let shards: Vec<u32> = (0..segments + parity).collect();
    let builder = ListBuilder {
        name: "firmware".to_owned(),
        segments: (0..segments).map(segment).collect(),
        encryption: Some(Encryption {
            key: FileKey::from_bytes(&[1; 32]),
            id: FileId([2; 16]),
            readers: Readers::Open,
        }),
        parity: Some(Parity {
            code: Code::ReedSolomon256,
            shape: SHAPE,
            segments: vec![(Hash([3; 32]), stored_len); parity as usize],
        }),
        outboards: shards
            .chunks(1024)
            .map(|shards| (Hash([4; 32]), outboard_len * shards.len() as u32))
            .collect(),
        ..ListBuilder::default()
    };
    builder.sign(&SecretKey::from_seed([1; 32])).expect("the list is within its bounds")
}

/// Every group of a list; returns the sum of their shard lengths.
pub fn groups_work(list: &ListView<'_>) -> u64 {
    (0..list.group_count()).filter_map(|g| list.group(g)).map(|group| u64::from(group.shard_len)).sum()
}

/// A shard of 1 MiB: its bytes, address and outboard.
pub fn shard() -> (Vec<u8>, Hash, Vec<u8>) {
    let bytes: Vec<u8> = (0..SEGMENT_LEN_DEFAULT).map(|i| (i * 31 + i / 251) as u8).collect();
    let (hash, outboard) = outboard::create(&bytes);
    (bytes, hash, outboard)
}

/// Verifies the nodes of an outboard.
///
/// # Panics
/// If it is not the shard's.
pub fn outboard_open_work(shard: &(Vec<u8>, Hash, Vec<u8>)) -> u32 {
    let (bytes, hash, outboard) = shard;
    Outboard::open(*hash, bytes.len() as u32, outboard).expect("it is the shard's").shard_len()
}

/// Makes an outboard, and hashes the shard by it.
pub fn outboard_create_work(shard: &(Vec<u8>, Hash, Vec<u8>)) -> usize {
    outboard::create(&shard.0).1.len()
}

/// Verifies a shard in pieces of 16 KiB.
///
/// # Panics
/// If it does not verify.
pub fn verify_work(shard: &(Vec<u8>, Hash, Vec<u8>)) -> u32 {
    let (bytes, hash, outboard) = shard;
    let outboard = Outboard::open(*hash, bytes.len() as u32, outboard).expect("it is the shard's");
    let mut verifier = outboard.verifier(0).expect("a shard begins at 0");
    bytes.chunks(16 << 10).for_each(|piece| {
        verifier.push(piece).expect("these are the shard's bytes");
    });
    verifier.verified()
}

/// Bytes that [`encode_work`] publishes.
pub const FILE_LEN: usize = 40 << 20;

/// A file in memory.
pub fn file() -> bytes::Bytes {
    (0..FILE_LEN).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Encrypts, codes and addresses a file on one thread; returns the number of its shards.
///
/// # Panics
/// If it cannot be encoded.
pub fn encode_work(file: &bytes::Bytes) -> usize {
    let settings = Settings {
        compression: CompressionChoice::Off,
        coding: Some((Code::ReedSolomon256, SHAPE)),
        threads: 1,
        ..Settings::default()
    };
    let key = SealingKey { key: FileKey::from_bytes(&[1; 32]), id: FileId([2; 16]) };
    let mut encoder =
        Encoder::new(settings, Some(key), Input::Bytes(file.clone())).expect("settings that go together");
    let mut shards = 0;
    while let Some(group) = encoder.next_group().expect("memory does not fail") {
        shards += group.data.len() + group.parity.len();
    }
    shards
}
