//! Trees against npm `@openzeppelin/merkle-tree`.

use chain_lite::contracts::B256;
use chain_lite::contracts::contributions::{Claim, DayError, DayTree, Leaf};
use chain_lite::contracts::merkle::{self, ProofError, Tree, TreeError};
use serde_json::{Value, json};

use crate::{day_tree, node, sorted_uids, uid, work};

const DAY: u32 = 20_000;

#[test]
fn roots_and_proofs_are_openzeppelins() {
    let sizes: Vec<u32> = (1..=34).chain([127, 128, 129, 1_000]).collect();
    let days: Vec<_> = sizes.iter().map(|&accounts| sorted_uids(accounts)).collect();
    let leaf_of = |&(uid, number): &(B256, u32)| {
        let (workload_bytes, points) = work(number);
        Leaf { day: DAY, uid, workload_bytes, points }
    };
    let row = |entry: &(B256, u32)| {
        let Leaf { day, uid, workload_bytes, points } = leaf_of(entry);
        json!([day, uid.to_string(), workload_bytes.to_string(), points.to_string()])
    };
    let input: Vec<Vec<Value>> = days.iter().map(|day| day.iter().map(row).collect()).collect();
    let theirs = node::run("tests/contracts/openzeppelin.mjs", &json!(input));

    for (uids, theirs) in days.iter().zip(theirs.as_array().expect("days")) {
        let tree = day_tree(DAY, uids);
        assert_eq!(tree.root().to_string(), theirs["root"], "{} accounts", uids.len());
        for (entry, proof) in uids.iter().zip(theirs["proofs"].as_array().expect("proofs")) {
            let leaf = leaf_of(entry);
            let claim = tree.claim(leaf.uid, leaf.workload_bytes, leaf.points).expect("a claim");
            let ours: Vec<_> = claim.proof.iter().map(B256::to_string).collect();
            assert_eq!(json!(ours), *proof);
            assert_eq!(claim.verify(tree.root()), Ok(()));
        }
    }
}

#[test]
fn any_bit_flipped_in_a_claim_fails() {
    let tree = day_tree(DAY, &sorted_uids(9));
    let (workload_bytes, points) = work(4);
    let claim = tree.claim(uid(4), workload_bytes, points).expect("a claim");
    let wrong = |claim: &Claim, root| {
        assert!(matches!(claim.verify(root), Err(ProofError::Root { .. })), "{claim:?} passed");
    };
    let flipped = |mut hash: B256, bit: usize| {
        hash[bit / 8] ^= 1 << (bit % 8);
        hash
    };
    for bit in 0..256 {
        wrong(
            &Claim { leaf: Leaf { uid: flipped(uid(4), bit), ..claim.leaf }, ..claim.clone() },
            tree.root(),
        );
        wrong(&claim, flipped(tree.root(), bit));
        for index in 0..claim.proof.len() {
            let mut other = claim.clone();
            other.proof[index] = flipped(other.proof[index], bit);
            wrong(&other, tree.root());
        }
    }
    for bit in 0..128 {
        let flip = |value: u128| value ^ 1 << bit;
        let Leaf { workload_bytes, points, .. } = claim.leaf;
        wrong(&Claim { leaf: Leaf { points: flip(points), ..claim.leaf }, ..claim.clone() }, tree.root());
        let leaf = Leaf { workload_bytes: flip(workload_bytes), ..claim.leaf };
        wrong(&Claim { leaf, ..claim.clone() }, tree.root());
    }
    for bit in 0..32 {
        wrong(&Claim { leaf: Leaf { day: DAY ^ 1 << bit, ..claim.leaf }, ..claim.clone() }, tree.root());
    }
    let mut shorter = claim.clone();
    shorter.proof.pop();
    wrong(&shorter, tree.root());
    let longer = Claim { proof: vec![B256::ZERO; 33], ..claim };
    assert_eq!(longer.verify(tree.root()), Err(ProofError::TooLong { found: 33 }));
}

#[test]
fn an_inner_node_is_no_leaf() {
    // The second preimage that a tree with leaves hashed once would have: an inner node's two children, 64 bytes, as
    // a leaf. Hashed twice, they are something else.
    let leaves = [3_u8, 1, 2].map(|byte| merkle::leaf_hash(&[byte]));
    let tree = Tree::new(leaves).expect("a tree");
    let proof = tree.proof(leaves[0]).expect("a proof");
    let inner = proof.last().expect("a sibling");
    assert_eq!(tree.leaf_count(), 3);
    let children = leaves.iter().filter(|leaf| tree.proof(**leaf).expect("a proof").len() == 2);
    let pair: Vec<u8> = children.flat_map(|hash| hash.0).collect();
    assert_eq!(pair.len(), 64);
    assert_ne!(merkle::leaf_hash(&pair), *inner);
    assert!(merkle::verify(tree.root(), merkle::leaf_hash(&pair), &[]).is_err());
}

#[test]
fn what_is_no_day_is_refused() {
    let day =
        |entries: &[(B256, u128, u128)]| DayTree::new(DAY, entries.iter().copied()).map(|tree| tree.root());
    let (low, high) = (B256::with_last_byte(1), B256::with_last_byte(2));
    assert_eq!(day(&[]), Err(DayError::Tree(TreeError::Empty)));
    assert_eq!(day(&[(low, 1, 1), (low, 2, 2)]), Err(DayError::Order { previous: low, uid: low }));
    assert_eq!(day(&[(high, 1, 1), (low, 2, 2)]), Err(DayError::Order { previous: high, uid: low }));
    assert_eq!(day(&[(low, 0, u128::MAX), (high, 0, 1)]), Err(DayError::Overflow { what: "points" }));
    assert_eq!(day(&[(low, u128::MAX, 0), (high, 1, 0)]), Err(DayError::Overflow { what: "workload" }));
    let tree = day_tree(DAY, &sorted_uids(3));
    let unknown = Leaf { day: DAY, uid: uid(1), workload_bytes: 0, points: 1 };
    assert_eq!(tree.claim(uid(1), 0, 1), Err(TreeError::NoSuchLeaf { hash: unknown.hash() }));
    let leaf = unknown.hash();
    assert_eq!(Tree::new([leaf, leaf]).err(), Some(TreeError::Repeated { hash: leaf }));
}
