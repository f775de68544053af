//! What a server says of the contracts: calls, logs, words of storage, claims, and a quota split.
#![no_main]

use chain_lite::contracts::contributions::{self, Claim, Leaf, PostedDay};
use chain_lite::contracts::merkle::Tree;
use chain_lite::contracts::{B256, U256, authorisations, merkle};
use chain_lite::rewards::{Coins, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => calls(data),
        1 => logs(data),
        2 => tree(data),
        _ => quota(data),
    }
});

/// What is read is written back as it was.
fn calls(data: &[u8]) {
    if let Ok(call) = contributions::Call::decode(data) {
        assert_eq!(call.encode(), data);
    }
    if let Ok(call) = authorisations::Call::decode(data) {
        assert_eq!(call.encode(), data);
    }
}

/// Topics, of which there are at most four, and data.
fn logs(data: &[u8]) {
    let Some((count, data)) = data.split_first() else { return };
    let topics: Vec<B256> = words(data).take(usize::from(count % 6)).collect();
    let data = &data[topics.len() * 32..];
    let ours = contributions::Event::decode(&topics, data);
    let theirs = authorisations::Event::decode(&topics, data);
    assert!(ours.is_err() || theirs.is_err());
    let words: Vec<U256> = words(data).map(|word| U256::from_be_bytes(word.0)).collect();
    if let [a, b, c, ..] = words[..] {
        assert_eq!(PostedDay::from_words([a, b, c]).is_none(), a == U256::ZERO);
        let grant = authorisations::Grant::from_word(a);
        assert!(grant.until_s == 0 || grant.stands(grant.until_s - 1));
    }
}

/// Every leaf of a tree has a proof, and no other leaf passes with it.
fn tree(data: &[u8]) {
    let leaves: Vec<B256> = words(data).take(64).collect();
    let Ok(tree) = Tree::new(leaves.iter().copied()) else { return };
    for &leaf in &leaves {
        let proof = tree.proof(leaf).expect("a leaf of the tree");
        merkle::verify(tree.root(), leaf, &proof).expect("it is proved");
        let forged = Leaf { day: 1, uid: leaf, workload_bytes: 2, points: 3 };
        Claim { leaf: forged, proof }.verify(tree.root()).expect_err("no such leaf");
    }
}

/// Nothing is lost.
fn quota(data: &[u8]) {
    let contributions: Vec<u128> =
        data.chunks_exact(16).map(|chunk| u128::from_le_bytes(chunk.try_into().expect("16 bytes"))).collect();
    let quota = Coins::whole(14_400);
    if let Ok(parts) = split(quota, &contributions) {
        assert_eq!(Coins::checked_sum(parts), Some(quota));
    }
}

fn words(data: &[u8]) -> impl Iterator<Item = B256> {
    data.chunks_exact(32).map(B256::from_slice)
}
