//! Transactions of the public chain, and proofs that one is in a block.

use std::hint::black_box;

use chain_lite::pow::{Amount, OutPoint, PartialTree, Transaction, encode_partial_tree, merkle};
use chain_lite::wallet::{Draft, ProgramHash, Script, SecretKey, verify_program};
use chain_lite::{Hash, sha256d};

const RECIPIENT: ProgramHash = ProgramHash([0x21; 21]);

/// A signed payment from two outputs to two accounts, as a wallet sends it.
pub fn payment() -> Vec<u8> {
    let key = SecretKey::from_bytes(&[5; 32]).expect("the number is below the order");
    let mut draft = Draft::payment();
    for output in 0..2 {
        draft.spend(OutPoint { transaction: Hash([7; 32]), output });
    }
    draft.pay(RECIPIENT, Amount::coins(3));
    draft.pay(key.public_key().account(), Amount::coins(1));
    draft.sign(&[(Script::Standard(key.public_key()), &[&key])]).expect("the key is the account's")
}

/// From bytes to the hash and what an account gets.
pub fn payment_work(bytes: &[u8]) -> (Hash, i64) {
    let transaction = Transaction::decode(bytes).expect("it is well-formed");
    let paid = transaction.payments_to(black_box(RECIPIENT)).map(|payment| payment.value.0).sum();
    (transaction.hash(), paid)
}

/// From bytes to who signed.
pub fn signature_work(bytes: &[u8]) -> ProgramHash {
    let transaction = Transaction::decode(bytes).expect("it is well-formed");
    let program = transaction.programs().iter().next().expect("it has a program");
    verify_program(&program, transaction.unsigned()).expect("it is signed")
}

/// What proves eight transactions of a block.
#[derive(Debug)]
pub struct Proof {
    root: Hash,
    tree: Vec<u8>,
}

/// A partial tree of a block of `transactions` transactions.
pub fn proof(transactions: u32) -> Proof {
    let leaves: Vec<_> = (0..transactions).map(|place| sha256d(&place.to_le_bytes())).collect();
    let (root, _) = merkle::tree_root(&leaves).expect("there is a leaf");
    let mut tree = Vec::new();
    encode_partial_tree(&leaves, |place| place % (transactions / 8) == 0, &mut tree);
    Proof { root, tree }
}

/// From bytes to the transactions that they prove.
pub fn proof_work(proof: &Proof) -> usize {
    let tree = PartialTree::decode(&proof.tree).expect("it is well-formed");
    tree.verify(proof.root).expect("it proves").hashes().len()
}
