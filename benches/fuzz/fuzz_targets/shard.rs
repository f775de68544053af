//! A shard, its outboard and its frame from a stranger. Of the bytes and outboards only the right ones verify; whatever a frame claims, as many
//! bytes come out as the list says, or none.
#![no_main]

use std::sync::LazyLock;

use identity::SecretKey;
use libfuzzer_sys::fuzz_target;
use store::list::{Compression, DataSegment, ListBuilder, ListView};
use store::outboard::{self, Outboard, Verifier};
use store::pipeline::{Scratch, SegmentOpener};
use store::Hash;

/// Four blocks and a bit.
const LEN: usize = 4 * outboard::BLOCK_LEN as usize + 333;

static SHARD: LazyLock<(Vec<u8>, Hash, Vec<u8>)> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..LEN).map(|i| (i * 31 + i / 251) as u8).collect();
    let (hash, outboard) = outboard::create(&bytes);
    (bytes, hash, outboard)
});

fuzz_target!(|data: &[u8]| {
    verify(data);
    open(data);
});

/// Three bytes of the input change a byte of the outboard or of the shard, over and over; pieces are as long as they say.
fn verify(data: &[u8]) {
    let (right, hash, right_outboard) = &*SHARD;
    let (mut bytes, mut outboard) = (right.clone(), right_outboard.clone());
    for change in data.chunks_exact(3).take(8) {
        let at = usize::from(change[0]) << 8 | usize::from(change[1]);
        match change[2] {
            0 => outboard.truncate(at),
            // Outboards are tried seldom enough that shards with a right one are.
            flip @ 1..8 if !outboard.is_empty() => {
                let at = at % outboard.len();
                outboard[at] ^= flip;
            }
            flip => bytes[at * 5 % LEN] ^= flip,
        }
    }
    let opened = Outboard::open(*hash, LEN as u32, &outboard);
    assert_eq!(opened.is_ok(), outboard == *right_outboard);
    let Ok(opened) = opened else { return };
    let mut verifier = opened.verifier(0).expect("a shard begins at 0");
    let mut lens = data.iter().cycle().map(|byte| usize::from(*byte) * 300 + 1);
    let mut rest = &bytes[..];
    let mut failed = None;
    while !rest.is_empty() && failed.is_none() {
        let (piece, behind) = rest.split_at(lens.next().unwrap_or(LEN).min(rest.len()));
        failed = verifier.push(piece).err();
        rest = behind;
    }
    assert_eq!(failed.is_none(), bytes == *right);
    assert!(bytes[..verifier.verified() as usize] == right[..verifier.verified() as usize]);
    assert_eq!(Verifier::whole(*hash, LEN as u32).push(&bytes).is_ok(), bytes == *right);
}

/// The input as a compressed segment of 5,000 bytes.
fn open(data: &[u8]) {
    static SECRET: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_seed([1; 32]));
    if data.is_empty() || data.len() >= 5000 {
        return;
    }
    let segment = DataSegment { hash: Hash::of(data), stored_len: data.len() as u32, plain_len: 5000 };
    let list = ListBuilder {
        name: "frame".to_owned(),
        compression: Compression::Zstd,
        segments: vec![segment],
        ..ListBuilder::default()
    };
    let document = list.sign(&SECRET).expect("a list of one segment");
    let list = ListView::open(&document).expect("it was just signed");
    let opener = SegmentOpener::new(&list, None).expect("nothing is encrypted");
    let (mut stored, mut scratch) = (data.to_vec(), Scratch::default());
    let entry = list.entry(0).expect("one segment");
    if let Ok(plain) = opener.open(0, &entry, &mut stored, &mut scratch) {
        assert_eq!(plain.len(), 5000);
    }
}
