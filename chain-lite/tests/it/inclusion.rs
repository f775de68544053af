//! Proofs that a transaction is in a block: branches and partial trees, beside rust-bitcoin's, and with every
//! single bit flipped.

use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use bitcoin::merkle_tree::{MerkleBlockError, PartialMerkleTree};
use chain_lite::pow::merkle::{self, BRANCH_LEN_MAX, BranchError};
use chain_lite::pow::{
    Block, DecodeError, Header, InnerNode, MerkleBlock, MerkleProof, PartialTree, PartialTreeError, Payload,
    Transaction, encode_partial_tree,
};
use chain_lite::wallet::Draft;
use chain_lite::{Hash, sha256d};
use proptest::prelude::*;

use crate::block::{hash, real_block};
use crate::{bytes, for_every_flip};

/// What `gettxoutproof` of Bitcoin Core answered for a block of two transactions (documentation of the crate
/// `bitcoin`, `merkle_tree/block.rs`): its header, then the tree.
const BITCOIN_MERKLE_BLOCK: &str = "01000000ba8b9cda965dd8e536670f9ddec10e53aab14b20bacad27b913719\
    0000000000190760b278fe7b8565fda3b968b918d5fd997f993b23674c0af3b6fde300b38f33a5914ce6ed5b\
    1b01e32f570200000002252bf9d75c4f481ebb6278d708257d1f12beb6dd30301d26c623f789b2ba6fc0e2d3\
    2adb5f8ca820731dff234a84e78ec30bce4ec69dbd562d0b2b8266bf4e5a0105";

#[test]
fn branches_of_the_real_block_lead_to_its_root() {
    let encoded = real_block();
    let block = Block::decode(&encoded).expect("well-formed");
    let root = block.header.block.merkle_root;
    for (index, transaction) in (0..).zip(block.transactions()) {
        let leaf = transaction.leaf().expect("it is long enough");
        let branch = block.branch(index).expect("it is in the block");
        assert_eq!(merkle::verify(leaf, &branch, index, root), Ok(()));
        for_every_flip(branch.as_flattened(), |byte, bit, flipped| {
            let outcome = merkle::verify(leaf, flipped.as_chunks().0, index, root);
            assert!(matches!(outcome, Err(BranchError::Root { .. })), "byte {byte} bit {bit}: {outcome:?}");
        });
        for_every_flip(&root.0, |_, _, flipped| {
            let other = Hash(flipped.try_into().expect("32 bytes"));
            let error = BranchError::Root { expected: other, found: root };
            assert_eq!(merkle::verify(leaf, &branch, index, other), Err(error));
        });
        for bit in 0..32 {
            let other = index ^ 1 << bit;
            let outcome = merkle::verify(leaf, &branch, other, root);
            match bit {
                0 => assert!(matches!(outcome, Err(BranchError::Root { .. })), "{outcome:?}"),
                _ => assert_eq!(outcome, Err(BranchError::Index { index: other, len: 1 })),
            }
        }
    }
    assert_eq!(block.branch(2), None);
}

#[test]
fn branches_are_bounded_and_places_beyond_the_last_transaction_refused() {
    let encoded = real_block();
    let block = Block::decode(&encoded).expect("well-formed");
    let leaf = block.transactions()[1].leaf().expect("it is long enough");
    let long = [[7; 32]; BRANCH_LEN_MAX + 1];
    assert_eq!(merkle::verify(leaf, &long, 0, Hash::ZERO), Err(BranchError::TooLong { len: 15 }));
    let error = BranchError::Index { index: 10_000, len: 14 };
    assert_eq!(merkle::verify(leaf, &long[1..], 10_000, Hash::ZERO), Err(error));
    assert!(matches!(merkle::verify(leaf, &long[1..], 9_999, Hash::ZERO), Err(BranchError::Root { .. })));

    // A third leaf stands alone and is joined with itself: as place 2 it is right, as place 3 a copy.
    let leaves = [Hash([1; 32]), Hash([2; 32]), leaf.hash()];
    let (root, copied) = merkle::tree_root(&leaves).expect("leaves");
    assert!(!copied);
    let branch = merkle::branch(&leaves, 2).expect("a leaf");
    assert_eq!(merkle::verify(leaf, &branch, 2, root), Ok(()));
    let error = BranchError::Copy { step: 0, hash: leaf.hash(), index: 3 };
    assert_eq!(merkle::verify(leaf, &branch, 3, root), Err(error));
    let with_copy = [leaves[0], leaves[1], leaves[2], leaves[2]];
    assert_eq!(merkle::tree_root(&with_copy), Some((root, true)));
    assert_eq!(merkle::tree_root(&[]), None);
}

/// CVE-2017-12842: 64 bytes that are a transaction and two hashes of a tree as well.
#[test]
fn a_transaction_that_could_be_two_hashes_is_no_leaf() {
    for len in 0..40 {
        let data = vec![0xab; len];
        let draft = Draft { payload: Payload::Coinbase { data: &data }, ..Draft::payment() };
        let raw = draft.sign(&[]).expect("nobody has to sign");
        assert_eq!(raw.len(), 11 + len);
        let transaction = Transaction::decode(&raw).expect("well-formed");
        assert!(transaction.leaf().is_ok());
    }
    let data = [0xab; 54];
    let draft = Draft { payload: Payload::Coinbase { data: &data }, ..Draft::payment() };
    let raw = draft.sign(&[]).expect("nobody has to sign");
    let transaction = Transaction::decode(&raw).expect("well-formed");
    assert_eq!(transaction.unsigned().len(), 64);
    let hash = sha256d(transaction.unsigned());
    assert_eq!(transaction.leaf(), Err(InnerNode { hash }));
}

#[test]
fn a_merkleblock_of_the_real_block_proves_its_payment() {
    let encoded = real_block();
    let block = Block::decode(&encoded).expect("well-formed");
    let leaf = block.transactions()[1].leaf().expect("it is long enough");
    let (_, header_len) = Header::decode_front(&encoded).expect("well-formed");
    let mut sent = encoded[..header_len].to_vec();
    encode_partial_tree(&block.hashes(), |place| place == 1, &mut sent);
    let merkle_block = MerkleBlock::decode(&sent).expect("well-formed");
    let matches = merkle_block.verify().expect("it proves");
    assert_eq!(matches.hashes(), [(1, leaf.hash())]);
    assert_eq!(matches.place(leaf), Some(1));
    assert_eq!(matches.place(block.transactions()[0].leaf().expect("it is long enough")), None);
    let mut out = Vec::new();
    merkle_block.encode(&mut out);
    assert_eq!(out, sent);

    let proof = [&block.header.block.hash().0[..], &10_000_u32.to_le_bytes(), &sent[header_len..]].concat();
    let read = MerkleProof::decode(&proof).expect("well-formed");
    assert_eq!((read.block, read.height), (block.header.block.hash(), 10_000));
    assert_eq!(read.tree, merkle_block.tree);
    let mut out = Vec::new();
    read.encode(&mut out);
    assert_eq!(out, proof);

    flip_every_bit(&sent[header_len..], block.header.block.merkle_root);
}

#[test]
fn a_real_proof_of_bitcoin_core_holds_and_no_bit_may_change() {
    let sent = bytes(&BITCOIN_MERKLE_BLOCK.into());
    let root = Hash(sent[36..68].try_into().expect("32 bytes"));
    let theirs: bitcoin::MerkleBlock = bitcoin::consensus::deserialize(&sent).expect("well-formed");
    let tree = ours(&theirs.txn);
    let matches = PartialTree::decode(&tree).expect("well-formed").verify(root).expect("it proves");
    let expected = hash("5a4ebf66822b0b2d56bd9dc64ece0bc38ee7844a23ff1d7320a88c5fdb2ad3e2");
    assert_eq!(matches.hashes(), [(1, expected)]);
    flip_every_bit(&tree, root);
}

/// Every flipped bit is refused, by the error of the field that it is in.
fn flip_every_bit(tree: &[u8], root: Hash) {
    PartialTree::decode(tree).expect("well-formed").verify(root).expect("it proves");
    let hashes_end = tree.len() - 2;
    for_every_flip(tree, |byte, bit, flipped| {
        let read = PartialTree::decode(flipped);
        let outcome = read.as_ref().map_err(|error| *error).map(|read| read.verify(root));
        let right = if byte < 4 {
            matches!(
                outcome,
                Ok(Err(PartialTreeError::Transactions { .. }
                    | PartialTreeError::HashesAboveTransactions { .. }
                    | PartialTreeError::Root { .. }
                    | PartialTreeError::FlagsEnd { .. }
                    | PartialTreeError::HashesEnd { .. }
                    | PartialTreeError::HashesLeft { .. }))
            )
        } else if byte < 8 {
            outcome.is_err()
        } else if byte < hashes_end {
            matches!(outcome, Ok(Err(PartialTreeError::Root { .. })))
        } else if byte == hashes_end {
            matches!(outcome, Err(DecodeError::Truncated { .. } | DecodeError::Trailing { .. }))
                || matches!(outcome, Err(DecodeError::TooLong { .. } | DecodeError::LongForm { .. }))
        } else {
            match bit {
                0 => matches!(outcome, Ok(Err(PartialTreeError::HashesLeft { used: 1, hashes: 2 }))),
                // These two say which of the leaves match, and that is all that they say.
                1 | 2 => matches!(outcome, Ok(Ok(_))),
                _ => outcome == Ok(Err(PartialTreeError::Filling { used: 3 })),
            }
        };
        assert!(right, "byte {byte} bit {bit}: {outcome:?}");
    });
}

#[test]
fn trees_that_no_block_has_are_refused() {
    let root = Hash([9; 32]);
    let verify = |transactions, hashes: &[[u8; 32]], flags: &[u8]| {
        PartialTree { transactions, hashes, flags }.verify(root)
    };
    let one = [[9; 32]];
    assert_eq!(verify(1, &one, &[0]).map(|matches| matches.hashes().len()), Ok(0));
    assert_eq!(verify(1, &one, &[1]).map(|matches| matches.hashes().to_vec()), Ok(vec![(0, root)]));
    assert_eq!(verify(0, &[], &[]), Err(PartialTreeError::Transactions { count: 0 }));
    assert_eq!(verify(10_001, &one, &[0]), Err(PartialTreeError::Transactions { count: 10_001 }));
    assert_eq!(verify(10_000, &one, &[0]).map(|matches| matches.hashes().len()), Ok(0));
    let two = [[9; 32], [8; 32]];
    let error = PartialTreeError::HashesAboveTransactions { hashes: 2, count: 1 };
    assert_eq!(verify(1, &two, &[1]), Err(error));
    let error = PartialTreeError::HashesAboveFlags { hashes: 1, flags: 0 };
    assert_eq!(verify(1, &one, &[]), Err(error));
    assert_eq!(verify(1, &[], &[]), Err(PartialTreeError::FlagsEnd { flags: 0 }));
    assert_eq!(verify(1, &[], &[0]), Err(PartialTreeError::HashesEnd { hashes: 0 }));
    assert_eq!(verify(2, &two, &[0]), Err(PartialTreeError::HashesLeft { used: 1, hashes: 2 }));
    assert_eq!(verify(1, &one, &[0, 0]), Err(PartialTreeError::FlagsLeft { used: 1, flags: 16 }));
    assert_eq!(verify(1, &one, &[2]), Err(PartialTreeError::Filling { used: 1 }));
    let same = [[9; 32]; 2];
    let error = PartialTreeError::Copy { height: 0, place: 0, hash: root };
    assert_eq!(verify(2, &same, &[0b111]), Err(error));

    let claimed = [&1_u32.to_le_bytes()[..], &u32::MAX.to_le_bytes()].concat();
    let error =
        DecodeError::TooMany { field: "number of hashes", at: 4, count: u32::MAX.into(), max: 10_000 };
    assert_eq!(PartialTree::decode(&claimed), Err(error));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Roots, branches and partial trees of any number of leaves, beside rust-bitcoin's.
    #[test]
    fn trees_are_those_of_rust_bitcoin(
        count in prop_oneof![1..20_usize, 1..300_usize],
        seed: u64,
        chosen in 0..4_u64,
        place: prop::sample::Index,
    ) {
        let leaves = leaves(count, seed);
        let txids: Vec<_> = leaves.iter().map(|leaf| Txid::from_byte_array(leaf.0)).collect();
        let their_root =
            bitcoin::merkle_tree::calculate_root(txids.iter().copied()).expect("leaves").to_byte_array();
        let root = Hash(their_root);
        prop_assert_eq!(merkle::tree_root(&leaves), Some((root, false)));

        let index = place.index(count) as u32;
        let branch = merkle::branch(&leaves, index).expect("a leaf");
        prop_assert_eq!(merkle::root(leaves[index as usize], &branch, index), root);

        let matches: Vec<_> = (0..count as u64).map(|place| (place ^ seed) % 8 < chosen).collect();
        let theirs = PartialMerkleTree::from_txids(&txids, &matches);
        let mut mine = Vec::new();
        encode_partial_tree(&leaves, |place| matches[place as usize], &mut mine);
        prop_assert_eq!(&mine, &ours(&theirs));
        let found = PartialTree::decode(&mine).expect("well-formed").verify(root).expect("it proves");
        let chosen = (0..).zip(&leaves).zip(&matches).filter(|(_, chosen)| **chosen);
        let expected: Vec<_> = chosen.map(|((place, leaf), _)| (place, *leaf)).collect();
        prop_assert_eq!(found.hashes(), expected);
    }

    /// Damaged trees: what is taken here is taken by rust-bitcoin with the same matches; what rust-bitcoin
    /// takes is taken here, but for flags that are not filled up with zeros.
    #[test]
    fn damaged_trees_are_judged_as_by_rust_bitcoin(
        count in 1..40_usize,
        seed: u64,
        chosen in 0..4_u64,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..3),
    ) {
        let leaves = leaves(count, seed);
        let (root, _) = merkle::tree_root(&leaves).expect("leaves");
        let mut sent = Vec::new();
        encode_partial_tree(&leaves, |place| (u64::from(place) ^ seed) % 8 < chosen, &mut sent);
        for (place, bit) in damage {
            // Hashes are most of a tree; what is damaged is mostly what is not.
            let numbers = 8.min(sent.len());
            let place = place.index(2 * numbers);
            let place = if place < numbers { place } else { sent.len() - 1 - (place - numbers) };
            sent[place] ^= 1 << bit;
        }
        let Ok(tree) = PartialTree::decode(&sent) else { return Ok(()) };
        let mine = tree.verify(root);
        let mut encoded = tree.transactions.to_le_bytes().to_vec();
        encoded.extend(bitcoin::consensus::serialize(&bitcoin::VarInt(tree.hashes.len() as u64)));
        encoded.extend(tree.hashes.as_flattened());
        encoded.extend(bitcoin::consensus::serialize(&tree.flags.to_vec()));
        let theirs: PartialMerkleTree = bitcoin::consensus::deserialize(&encoded).expect("well-formed");
        let (mut txids, mut places) = (Vec::new(), Vec::new());
        let verdict: Result<_, MerkleBlockError> = theirs.extract_matches(&mut txids, &mut places);
        let taken = verdict.is_ok_and(|found| found.to_byte_array() == root.0);
        match mine {
            Ok(found) => {
                prop_assert!(taken);
                let expected = places.into_iter().zip(txids.iter().map(|txid| Hash(txid.to_byte_array())));
                prop_assert_eq!(found.hashes(), expected.collect::<Vec<_>>());
            }
            Err(PartialTreeError::Filling { .. } | PartialTreeError::Transactions { .. }) => {}
            Err(error) => prop_assert!(!taken, "{error}"),
        }
    }
}

fn leaves(count: usize, seed: u64) -> Vec<Hash> {
    (0..count as u64).map(|place| sha256d(&[seed.to_le_bytes(), place.to_le_bytes()].concat())).collect()
}

/// A partial tree of rust-bitcoin as this chain sends it: the number of hashes has four bytes.
fn ours(theirs: &PartialMerkleTree) -> Vec<u8> {
    let hashes: Vec<_> = theirs.hashes().iter().map(|hash| hash.to_byte_array()).collect();
    let byte =
        |bits: &[bool]| (0..).zip(bits).fold(0_u8, |byte, (place, bit)| byte | u8::from(*bit) << place);
    let flags: Vec<_> = theirs.bits().chunks(8).map(byte).collect();
    let mut out = Vec::new();
    PartialTree { transactions: theirs.num_transactions(), hashes: &hashes, flags: &flags }.encode(&mut out);
    out
}
