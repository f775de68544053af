//! Groups of 10 + 4 shards of 64 KiB, which all fit into a second-level cache, for the benchmarks of erasure codes.

use store::erasure::{Code, Codec, Shape};

/// Length of a shard, bytes.
pub const SHARD_LEN: usize = 64 << 10;

const SHAPE: Shape = Shape { data: 10, parity: 4 };

/// A codec and a group that it has encoded.
#[derive(Debug)]
pub struct Group {
    codec: Codec,
    shards: Vec<Vec<u8>>,
    restored: Vec<Vec<u8>>,
}

/// A group of `code`, encoded.
pub fn group(code: Code) -> Group {
    let shards =
        (0..SHAPE.shards()).map(|i| (0..SHARD_LEN).map(|j| (i * 31 + j * 7 + j / 253) as u8).collect());
    let codec = Codec::new(code, SHAPE).expect("both codes have 10 + 4");
    let mut group =
        Group { codec, shards: shards.collect(), restored: vec![vec![0; SHARD_LEN]; SHAPE.parity] };
    encode_work(&mut group);
    group
}

/// Makes the parity; returns a byte of it.
pub fn encode_work(group: &mut Group) -> u8 {
    let (data, parity) = group.shards.split_at_mut(SHAPE.data);
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    group.codec.encode(&data, &mut parity).expect("a whole group");
    parity[0][0]
}

/// Brings back the first four data shards; returns a byte of them.
pub fn reconstruct_work(group: &mut Group) -> u8 {
    let lost = SHAPE.parity;
    let present: Vec<Option<&[u8]>> = group
        .shards
        .iter()
        .enumerate()
        .map(|(index, shard)| (index >= lost).then_some(shard.as_slice()))
        .collect();
    let mut wanted: Vec<(usize, &mut [u8])> =
        group.restored.iter_mut().enumerate().map(|(index, shard)| (index, shard.as_mut_slice())).collect();
    group.codec.reconstruct(&present, &mut wanted).expect("ten shards are there");
    group.restored[0][0]
}
