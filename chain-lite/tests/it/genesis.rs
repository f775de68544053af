//! Genesis blocks put together from their transactions.

use chain_lite::pow::{BlockHeader, Network, Transaction, merkle};
use chain_lite::{Hash, sha256d};

use crate::{bytes, vectors};

/// The ancestor's block is public, so it shows that genesis blocks are put together right. Of the public
/// chain's the asset id is public, which is the hash of the block's second transaction.
#[test]
fn genesis_blocks_follow_from_their_transactions() {
    let vectors = vectors(include_str!("../vectors/genesis.json"));
    for chain in ["ancestor", "public_chain"] {
        let vector = &vectors[chain];
        let encoded: Vec<_> =
            vector["transactions_hex"].as_array().expect("a list").iter().map(bytes).collect();
        let leaves: Vec<_> = encoded.iter().map(|transaction| sha256d(transaction)).collect();
        for (unsigned, leaf) in encoded.iter().zip(&leaves) {
            // No programs sign it.
            let encoded = [&unsigned[..], &[0]].concat();
            let transaction = Transaction::decode(&encoded).expect("a transaction");
            assert_eq!(transaction.hash(), *leaf);
        }
        assert_eq!(leaves[1].to_string(), vector["asset_id"]);
        let number = |name: &str| u32::try_from(vector[name].as_u64().expect("a number")).expect("32 bits");
        let (merkle_root, _) = merkle::tree_root(&leaves).expect("two leaves");
        let genesis = BlockHeader {
            version: 0,
            previous: Hash::ZERO,
            merkle_root,
            time_s: number("time_s"),
            bits: number("bits"),
            nonce: 2_083_236_893,
            height: 0,
        };
        assert_eq!(genesis.hash().0.to_vec(), bytes(&vector["hash_bytes_hex"]), "{chain}");
        assert_eq!(Network::MAIN.check_genesis(&genesis).is_ok(), chain == "public_chain");
    }
}
