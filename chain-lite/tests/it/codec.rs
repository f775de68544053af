//! Reading and writing headers: round trips and hostile bytes.

use chain_lite::Hash;
use chain_lite::pow::{BlockHeader, Coinbase, DecodeError, Header, Mode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::mining::{Proof, coinbase};

proptest! {
    #[test]
    fn headers_survive_a_round_trip(block in block(), proof in proof(), end_marker: u8) {
        let mut encoded = proof.header_of(&block);
        *encoded.last_mut().expect("not empty") = end_marker;
        let header = Header::decode(&encoded).expect("well-formed");
        prop_assert_eq!(header.block, block);
        prop_assert_eq!(BlockHeader::from_bytes(&block.to_bytes()), block);
        prop_assert_eq!(header.proof.coinbase.bytes(), &proof.coinbase[..]);
        prop_assert_eq!(header.proof.parent_hash, &proof.parent_hash);
        prop_assert_eq!(header.proof.coinbase_branch, &proof.coinbase_branch[..]);
        prop_assert_eq!(header.proof.coinbase_index, proof.coinbase_index);
        prop_assert_eq!(header.proof.aux_branch, &proof.aux_branch[..]);
        prop_assert_eq!(header.proof.aux_index, proof.aux_index);
        prop_assert_eq!(header.proof.parent.0, &proof.parent);
        prop_assert_eq!(header.end_marker, end_marker);
        let mut out = Vec::new();
        header.encode(&mut out);
        prop_assert_eq!(&out, &encoded);
        let longer = [&encoded[..], &[0, 1, 2]].concat();
        let (again, len) = Header::decode_front(&longer).expect("well-formed");
        prop_assert_eq!((again, len), (header, out.len()));
    }

    /// Bytes that decode are written back as they were, whatever they are; and nothing panics.
    #[test]
    fn hostile_bytes_are_refused_or_written_back(
        block in block(),
        proof in proof(),
        place: prop::sample::Index,
        bytes in vec(any::<u8>(), 1..40),
        cut: prop::sample::Index,
    ) {
        let mut encoded = proof.header_of(&block);
        let start = place.index(encoded.len());
        let end = (start + bytes.len()).min(encoded.len());
        encoded.splice(start..end, bytes);
        let keep = encoded.len() - cut.index(encoded.len()) / 4;
        for hostile in [&encoded[..], &encoded[..keep]] {
            if let Ok(header) = Header::decode(hostile) {
                let mut out = Vec::new();
                header.encode(&mut out);
                prop_assert_eq!(&out[..], hostile);
                let _ = header.check_proof(1224, Mode::Strict);
                let _ = header.check_proof(1224, Mode::Deployed);
            }
        }
    }
}

#[test]
fn lengths_that_nothing_backs_are_refused() {
    let good = coinbase(b"script");
    let inputs = |claim: &[u8]| [&good[..4], claim, &good[5..]].concat();
    let claimed = Coinbase::decode(&inputs(&[0xff; 9])).map(|_| ());
    assert!(
        matches!(claimed, Err(DecodeError::Truncated { .. } | DecodeError::TooLong { .. })),
        "{claimed:?}"
    );

    let script = |claim: &[u8]| [&good[..41], claim, &good[42..]].concat();
    assert_eq!(
        Coinbase::decode(&script(&[0xfd, 0x11, 0x27])),
        Err(DecodeError::TooLong { field: "coinbase input's script", at: 41, len: 10_001, max: 10_000 })
    );
    assert!(matches!(
        Coinbase::decode(&script(&[0xfd, 0x10, 0x27])),
        Err(DecodeError::Truncated { field: "coinbase input's script", needed: 10_000, .. })
    ));

    let proof = Proof { aux_branch: vec![], ..Proof::naming(Hash::ZERO) };
    let mut encoded = proof.header_of(&BlockHeader::from_bytes(&[0; 84]));
    let count_at = encoded.len() - 1 - 80 - 4 - 1;
    encoded.splice(count_at..=count_at, [0xff; 9]);
    assert_eq!(
        Header::decode(&encoded),
        Err(DecodeError::Truncated {
            field: "auxiliary branch",
            at: count_at + 9,
            needed: u64::MAX,
            left: 85,
        })
    );
}

#[test]
fn lengths_are_read_in_their_shortest_form_only() {
    let good = coinbase(b"script");
    for (long, value) in [
        (&[0xfd, 6, 0][..], 6),
        (&[0xfd, 0xfc, 0], 0xfc),
        (&[0xfe, 0xff, 0xff, 0, 0], 0xffff),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 0xffff_ffff),
    ] {
        let bytes = [&good[..41], long, &good[42..]].concat();
        let error = DecodeError::LongForm { field: "coinbase input's script", at: 41, value };
        assert_eq!(Coinbase::decode(&bytes), Err(error));
    }
}

#[test]
fn the_longest_script_and_the_first_input_count() {
    let script = vec![0xab; 10_000];
    let bytes = coinbase(&script);
    let read = Coinbase::decode(&bytes).expect("as long as allowed");
    assert_eq!(read.script(), Some(&script[..]));
    let mut two = coinbase(b"first");
    two[4] = 2;
    let second = [&[7; 36][..], &[2, 1, 2], &[0; 4]].concat();
    two.splice(5 + 36 + 1 + 5 + 4..5 + 36 + 1 + 5 + 4, second);
    assert_eq!(Coinbase::decode(&two).expect("well-formed").script(), Some(&b"first"[..]));
}

fn block() -> impl Strategy<Value = BlockHeader> {
    vec(any::<u8>(), 84).prop_map(|bytes| BlockHeader::from_bytes(&bytes.try_into().expect("84 bytes")))
}

fn proof() -> impl Strategy<Value = Proof> {
    let branch = |longest| (vec(any::<[u8; 32]>(), 0..longest), any::<u32>());
    let parent = vec(any::<u8>(), 80).prop_map(|bytes| bytes.try_into().expect("80 bytes"));
    (vec(any::<u8>(), 0..400), any::<[u8; 32]>(), branch(300), branch(12), parent).prop_map(
        |(script, parent_hash, (coinbase_branch, coinbase_index), (aux_branch, aux_index), parent)| Proof {
            coinbase: coinbase(&script),
            parent_hash,
            coinbase_branch,
            coinbase_index,
            aux_branch,
            aux_index,
            parent,
        },
    )
}
