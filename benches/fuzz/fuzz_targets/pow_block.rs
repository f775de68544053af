//! Blocks, transactions, proofs that a transaction is in a block, scripts, addresses and keys of the public
//! chain, from somebody unknown: whatever can be read is written back to the byte, and nothing panics.
#![no_main]

use chain_lite::pow::{
    Amount, Block, COIN_ASSET, CoinbaseRules, MerkleBlock, MerkleProof, PartialTree, Transaction,
    encode_partial_tree,
};
use chain_lite::wallet::{Draft, ProgramHash, PublicKey, Script, SecretKey, verify_program};
use chain_lite::{Hash, sha256d};
use libfuzzer_sys::fuzz_target;

/// Keys of a script above which signatures are not verified here: it takes long and shows nothing new.
const KEYS_MAX: usize = 4;

fuzz_target!(|data: &[u8]| {
    if let Ok(transaction) = Transaction::decode(data) {
        written_back(data, |out| transaction.encode(out));
        read(&transaction);
    }
    if let Ok(block) = Block::decode(data) {
        written_back(data, |out| block.encode(out));
        block.transactions().iter().for_each(read);
        let _ = block.check();
        if block.check_paying(Hash::ZERO).is_ok() {
            assert_eq!(
                chain_lite::pow::merkle::tree_root(&block.hashes()),
                Some((block.header.block.merkle_root, false))
            );
        }
    }
    if let Ok(tree) = PartialTree::decode(data) {
        written_back(data, |out| tree.encode(out));
        prove(&tree);
    }
    if let Ok(proof) = MerkleProof::decode(data) {
        written_back(data, |out| proof.encode(out));
        prove(&proof.tree);
    }
    if let Ok(block) = MerkleBlock::decode(data) {
        written_back(data, |out| block.encode(out));
        let _ = block.verify();
    }
    if let Ok(script) = Script::decode(data) {
        assert_eq!(script.encode(), data);
        let _ = script.account();
    }
    if let Some(bytes) = data.first_chunk()
        && let Ok(key) = PublicKey::from_bytes(bytes)
    {
        assert_eq!(key.to_bytes(), *bytes);
    }
    if let Ok(text) = str::from_utf8(data) {
        parse(text);
    }
});

fn written_back(data: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    encode(&mut out);
    assert_eq!(out, data);
}

fn read(transaction: &Transaction<'_>) {
    assert_eq!(transaction.hash(), sha256d(transaction.unsigned()));
    assert_eq!(transaction.leaf().is_ok(), transaction.unsigned().len() != 64);
    let draft = Draft {
        payload: transaction.payload(),
        payload_version: transaction.payload_version(),
        attributes: transaction.attributes().iter().collect(),
        inputs: transaction.inputs().collect(),
        outputs: transaction.outputs().collect(),
        lock_time: transaction.lock_time(),
    };
    assert_eq!(draft.unsigned(), transaction.unsigned());
    if transaction.check(COIN_ASSET).is_ok() {
        assert!(transaction.unsigned().len() >= 112);
    }
    if let Some(output) = transaction.output(0) {
        let paid = transaction.payments_to(output.recipient);
        assert!(paid.take(8).all(|payment| payment.value > Amount::default()));
        let rules = CoinbaseRules::new(output.recipient);
        if let Ok(reward) = rules.check(transaction, transaction.lock_time(), None) {
            assert!(reward.arbitrators >= Amount::coins(20) && reward.total >= Amount::coins(24));
            assert_eq!(rules.check(transaction, transaction.lock_time(), Some(reward.fees)), Ok(reward));
        }
    }
    for program in transaction.programs().iter().take(4) {
        if Script::decode(program.code).is_ok_and(|script| script.keys().0.len() <= KEYS_MAX) {
            let _ = verify_program(&program, transaction.unsigned());
        }
    }
}

/// A tree that proves something is the only one that proves it.
fn prove(tree: &PartialTree<'_>) {
    let Err(error) = tree.verify(Hash::ZERO) else { return };
    assert!(!error.to_string().is_empty());
    let chain_lite::pow::PartialTreeError::Root { found, .. } = error else { return };
    let matches = tree.verify(found).expect("this is its root");
    assert!(matches.hashes().iter().all(|(place, _)| *place < tree.transactions));
    if tree.hashes.len() as u32 == tree.transactions && tree.transactions == matches.hashes().len() as u32 {
        let leaves: Vec<_> = matches.hashes().iter().map(|(_, hash)| *hash).collect();
        let mut again = Vec::new();
        encode_partial_tree(&leaves, |_| true, &mut again);
        let again = PartialTree::decode(&again).expect("it was just written");
        assert_eq!(again, *tree);
    }
}

fn parse(text: &str) {
    match text.parse::<ProgramHash>() {
        Ok(account) => assert_eq!(account.to_string(), text),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(amount) = text.parse::<Amount>() {
        assert_eq!(amount.to_string().parse(), Ok(amount));
    }
    if let Ok(key) = SecretKey::from_hex(text) {
        assert_eq!(key.to_hex().as_str(), text.to_lowercase());
    }
}
