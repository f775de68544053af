//! Outboards: what a receiver notices, and when; and that they are those of other programs.

use std::io::Read;

use bao_tree::BlockSize;
use bao_tree::io::outboard::PreOrderMemOutboard;
use proptest::prelude::*;
use store::Hash;
use store::outboard::{self, BLOCK_LEN, Corrupt, Outboard, OutboardError, Verifier};

use crate::support::noise;

const BLOCK: usize = BLOCK_LEN as usize;

#[test]
fn every_length_has_its_outboard_and_verifies() {
    for len in [
        1,
        1023,
        1024,
        1025,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        2 * BLOCK,
        3 * BLOCK + 7,
        16 * BLOCK,
        37 * BLOCK - 1,
    ] {
        let bytes = noise(len as u64, len);
        let (hash, outboard) = outboard::create(&bytes);
        assert_eq!((hash, outboard.len()), (Hash::of(&bytes), outboard::len_of(len as u32) as usize));
        let mut appended = b"before".to_vec();
        assert_eq!(outboard::append(&bytes, &mut appended), hash);
        assert_eq!(&appended[6..], outboard);
        let opened = Outboard::open(hash, len as u32, &outboard).unwrap();
        for piece_len in [1000, 4096, BLOCK, 3 * BLOCK + 1] {
            let mut verifier = opened.verifier(0).unwrap();
            let mut pushed = 0;
            for piece in bytes.chunks(piece_len) {
                pushed += piece.len();
                let whole = if pushed == len { len } else { pushed - pushed % BLOCK };
                assert_eq!(verifier.push(piece), Ok(whole as u32));
            }
            assert!(verifier.is_complete());
            assert_eq!(verifier.push(b"more"), Err(Corrupt { hash, offset: len as u32 }));
        }
        for start in (0..len).step_by(BLOCK) {
            for end in [start + BLOCK, start + 2 * BLOCK, len].map(|end| end.min(len)) {
                opened.verify_range(start as u32, &bytes[start..end]).unwrap();
            }
        }
    }
}

#[test]
fn every_wrong_byte_is_noticed_in_its_block() {
    let len = 5 * BLOCK + 300;
    let bytes = noise(1, len).to_vec();
    let (hash, outboard) = outboard::create(&bytes);
    let opened = Outboard::open(hash, len as u32, &outboard).unwrap();
    for at in (0..len).step_by(997).chain([len - 1]) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x10;
        let block = at - at % BLOCK;
        let mut verifier = opened.verifier(0).unwrap();
        let mut refused = None;
        for (i, piece) in wrong.chunks(1000).enumerate() {
            if let Err(corrupt) = verifier.push(piece) {
                refused = Some((corrupt, (i + 1) * 1000));
                break;
            }
        }
        let (corrupt, pushed) = refused.expect("a wrong byte is noticed");
        assert_eq!(corrupt, Corrupt { hash, offset: block as u32 });
        assert!(pushed < block + BLOCK + 1000, "noticed when its block was complete, not later");
        assert_eq!(verifier.push(&bytes), Err(corrupt), "and for good");
        let end = len.min(block + BLOCK);
        assert!(opened.verify_range(block as u32, &wrong[block..end]).is_err());
        assert!(Verifier::whole(hash, len as u32).push(&wrong).is_err());
    }
}

#[test]
fn an_outboard_that_is_not_the_shards_is_refused() {
    let len = 6 * BLOCK + 1;
    let bytes = noise(2, len);
    let (hash, outboard) = outboard::create(&bytes);
    for at in 0..outboard.len() {
        let mut wrong = outboard.clone();
        wrong[at] ^= 1;
        let node = (at / 64) as u32;
        assert_eq!(
            Outboard::open(hash, len as u32, &wrong).unwrap_err(),
            OutboardError::Node { hash, node },
            "byte {at}"
        );
    }
    let shorter = &outboard[..outboard.len() - 64];
    assert!(matches!(Outboard::open(hash, len as u32, shorter), Err(OutboardError::Length { .. })));
    // Of another length with as many blocks: the nodes fit, the last block does not.
    let other = Outboard::open(hash, len as u32 + 1, &outboard).unwrap();
    assert!(other.verify_range(6 * BLOCK_LEN, &[bytes[len - 1], 0]).is_err());
    assert!(Outboard::open(hash, 6 * BLOCK_LEN, &outboard).is_err());
}

#[test]
fn a_verification_goes_on_where_a_block_begins() {
    let len = 4 * BLOCK + 5;
    let bytes = noise(3, len);
    let (hash, outboard) = outboard::create(&bytes);
    let opened = Outboard::open(hash, len as u32, &outboard).unwrap();
    let mut verifier = opened.verifier(2 * BLOCK_LEN).unwrap();
    assert_eq!(verifier.verified(), 2 * BLOCK_LEN);
    assert_eq!(verifier.push(&bytes[2 * BLOCK..]), Ok(len as u32));
    for offset in [1, BLOCK_LEN + 1, 5 * BLOCK_LEN] {
        assert_eq!(opened.verifier(offset).unwrap_err(), Corrupt { hash, offset });
    }
    // Half a block proves nothing.
    let half = &bytes[..BLOCK + BLOCK / 2];
    assert_eq!(opened.verify_range(0, half), Err(Corrupt { hash, offset: BLOCK_LEN }));
}

#[test]
fn at_block_size_0_the_bao_crate_decodes_it() {
    for len in [1, 1024, 1025, 3000, 100_000] {
        let bytes = noise(4, len);
        // The bytes of crate `bao` have the length in front, 8 bytes.
        let tree = PreOrderMemOutboard::create(&bytes, BlockSize::from_chunk_log(0));
        let mut with_len = (len as u64).to_le_bytes().to_vec();
        with_len.extend_from_slice(&tree.data);
        let (theirs, hash) = bao::encode::outboard(&bytes);
        assert_eq!((&with_len, hash.as_bytes()), (&theirs, Hash::of(&bytes).as_bytes()));
        let mut decoded = Vec::new();
        bao::decode::Decoder::new_outboard(&bytes[..], &with_len[..], &hash)
            .read_to_end(&mut decoded)
            .unwrap();
        assert!(decoded == bytes);
        // And ours at 64 KiB are the upper nodes of theirs.
        let (_, ours) = outboard::create(&bytes);
        let nodes: Vec<_> = with_len[8..].chunks(64).collect();
        assert!(ours.chunks(64).all(|node| nodes.contains(&node)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pieces_verify(len in 1usize..400_000, cuts in prop::collection::vec(1usize..90_000, 1..20), seed: u64) {
        let bytes = noise(seed, len);
        let (hash, outboard) = outboard::create(&bytes);
        let mut verifier = Outboard::open(hash, len as u32, &outboard).unwrap().verifier(0).unwrap();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            prop_assert!(verifier.push(piece).is_ok());
            rest = behind;
        }
        prop_assert!(verifier.is_complete());
    }

    #[test]
    fn no_bytes_make_it_panic(len: u32, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Outboard::open(Hash([1; 32]), len, &bytes);
        let short = len % (8 * BLOCK_LEN);
        let _ = Outboard::open(Hash([1; 32]), short, &bytes);
    }
}
