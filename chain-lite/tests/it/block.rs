//! The real block: whole, its transactions, its reward, and with every single bit flipped.

use chain_lite::Hash;
use chain_lite::pow::{
    Amount, Block, BlockError, CoinbaseError, CoinbaseRules, DecodeError, Header, OutPoint, Payload,
    TransactionError, Usage, merkle,
};
use chain_lite::wallet::verify_program;

use crate::{bytes, for_every_flip, vectors};

/// The recorded block is of the chain that this one was forked from: another coin, another subsidy.
pub const RECORDED_ASSET: &str = "a3d0eaa466df74983b5d7c543de6904f4c9418ead5ffd6d25814234a96db37b0";

/// What a block minted there: 4 % a year of 33,000,000 coins.
const RECORDED_SUBSIDY: Amount = Amount(502_283_105);

const HEIGHT: u32 = 10_000;

pub fn real_block() -> Vec<u8> {
    bytes(&vectors(include_str!("../vectors/pow_block_10000.json"))["block_hex"])
}

/// A hash as people write it.
pub fn hash(text: &str) -> Hash {
    let bytes = bytes(&text.into());
    Hash(bytes.try_into().expect("32 bytes")).reversed()
}

#[test]
fn the_real_block_reads_whole_and_is_written_back() {
    let encoded = real_block();
    let block = Block::decode(&encoded).expect("well-formed");
    assert_eq!(block.transactions().len(), 2);
    let mut out = Vec::new();
    block.encode(&mut out);
    assert_eq!(out, encoded);
    let (root, copied) = merkle::tree_root(&block.hashes()).expect("two leaves");
    assert_eq!((root, copied), (block.header.block.merkle_root, false));

    let [coinbase, payment] = block.transactions() else { panic!("two transactions") };
    assert_eq!(coinbase.payload(), Payload::Coinbase { data: b"ELA" });
    assert_eq!((coinbase.payload_version(), coinbase.lock_time()), (4, HEIGHT));
    let nonce = coinbase.attributes().iter().next().expect("a nonce");
    assert_eq!((coinbase.attributes().len(), nonce.usage, nonce.data.len()), (1, Usage::Nonce, 8));
    let spent: Vec<_> = coinbase.inputs().collect();
    assert_eq!((spent.len(), spent[0].previous, spent[0].sequence), (1, OutPoint::NULL, u32::MAX));
    assert_eq!(payment.payload(), Payload::Transfer);
    assert_eq!(payment.inputs().next().expect("an input").previous.output, 86);
    let values: Vec<_> = payment.outputs().map(|output| output.value.to_string()).collect();
    assert_eq!(values, ["12010.9999514", "3000"]);
    assert!(payment.outputs().all(|output| output.asset == hash(RECORDED_ASSET)));
}

#[test]
fn the_payment_of_the_real_block_is_signed() {
    let encoded = real_block();
    let block = Block::decode(&encoded).expect("well-formed");
    let payment = block.transactions()[1];
    let program = payment.programs().iter().next().expect("a program");
    let account = verify_program(&program, payment.unsigned()).expect("it is signed");
    assert_eq!(account.to_string(), "ELyqfxD8dkUyLzBRDWL6x9NWnkbRmu2wyD");
}

#[test]
fn the_reward_of_the_real_block_is_right_by_its_rules() {
    let encoded = real_block();
    let block = Block::decode(&encoded).expect("well-formed");
    let coinbase = block.transactions()[0];
    let foundation = coinbase.output(0).expect("two outputs").recipient;
    assert_eq!(foundation.to_string(), "8VYXVxKKSAxkmRrfmGpQR2Kc66XhG6m3ta");
    let rules = CoinbaseRules {
        subsidy: RECORDED_SUBSIDY,
        arbitrators: Some((foundation, Amount(RECORDED_SUBSIDY.0 * 3 / 10))),
        asset: hash(RECORDED_ASSET),
    };
    let reward = rules.check(&coinbase, HEIGHT, None).expect("it holds");
    // 15,011 coins were spent and 15,010.9999514 of them paid.
    assert_eq!(reward.fees.to_string(), "0.0000486");
    assert_eq!(rules.check(&coinbase, HEIGHT, Some(reward.fees)), Ok(reward));
    assert_eq!(
        rules.check(&coinbase, HEIGHT, Some(Amount(reward.fees.0 - 1))),
        Err(CoinbaseError::Total {
            subsidy: RECORDED_SUBSIDY,
            fees: Amount(reward.fees.0 - 1),
            found: reward.total
        })
    );
}

/// Where the transactions are hashed a flipped bit changes the Merkle root if nothing else; in the program it
/// spoils the signature.
#[test]
fn no_bit_of_the_real_transactions_may_change() {
    let encoded = real_block();
    let asset = hash(RECORDED_ASSET);
    assert_eq!(Block::decode(&encoded).expect("well-formed").check_paying(asset), Ok(()));
    let (_, header_len) = Header::decode_front(&encoded).expect("well-formed");
    let program_at = encoded.len() - 103;
    for_every_flip(&encoded, |byte, bit, flipped| {
        if byte < header_len {
            return;
        }
        let Ok(block) = Block::decode(flipped) else { return };
        let outcome = block.check_paying(asset);
        if byte < program_at {
            let found = match outcome {
                Err(BlockError::MerkleRoot { .. }) => true,
                Err(BlockError::NoCoinbase { found }) => byte == header_len + 4 && found == 1 << bit,
                Err(BlockError::Transaction { index: 1, error }) => match error {
                    TransactionError::Asset { found, .. } => found != asset,
                    TransactionError::Negative { found, .. } => found < Amount(0),
                    _ => false,
                },
                _ => false,
            };
            assert!(found, "byte {byte} bit {bit}: {outcome:?}");
        } else {
            assert_eq!(outcome, Ok(()), "byte {byte} bit {bit}");
            let payment = block.transactions()[1];
            let signed =
                payment.programs().iter().any(|program| verify_program(&program, payment.unsigned()).is_ok());
            assert!(!signed, "byte {byte} bit {bit}");
        }
    });
}

#[test]
fn blocks_are_bounded() {
    let encoded = real_block();
    let (_, at) = Header::decode_front(&encoded).expect("well-formed");
    let counted = |count: u32| [&encoded[..at], &count.to_le_bytes(), &encoded[at + 4..]].concat();
    assert_eq!(
        Block::decode(&counted(10_001)),
        Err(DecodeError::TooMany { field: "number of transactions", at, count: 10_001, max: 10_000 })
    );
    assert!(matches!(Block::decode(&counted(10_000)), Err(DecodeError::Truncated { .. })));
    assert!(matches!(Block::decode(&counted(1)), Err(DecodeError::Trailing { .. })));
    let none = [&encoded[..at], &[0; 4]].concat();
    assert_eq!(Block::decode(&none).expect("well-formed").check(), Err(BlockError::Empty));
    assert!(matches!(
        Block::decode(&encoded).expect("well-formed").check(),
        Err(BlockError::Transaction { index: 1, error: TransactionError::Asset { output: 0, .. } })
    ));
}

#[test]
fn transactions_that_hide_in_the_tree_are_found() {
    let encoded = real_block();
    let (_, at) = Header::decode_front(&encoded).expect("well-formed");
    let coinbase_len = {
        let block = Block::decode(&encoded).expect("well-formed");
        // No programs: their number is one byte.
        block.transactions()[0].unsigned().len() + 1
    };
    let second = &encoded[at + 4 + coinbase_len..];
    let with = |count: u32, more: &[u8]| {
        let counted = [&encoded[..at], &count.to_le_bytes(), &encoded[at + 4..], more].concat();
        Block::decode(&counted).expect("well-formed").check_paying(hash(RECORDED_ASSET))
    };
    // The same transaction again spends the same again.
    let previous = Block::decode(&encoded).expect("well-formed").transactions()[1]
        .inputs()
        .next()
        .expect("an input")
        .previous;
    assert_eq!(with(3, second), Err(BlockError::SpentTwice { previous }));
    let coinbase = &encoded[at + 4..at + 4 + coinbase_len];
    let error = TransactionError::Coinbase;
    assert_eq!(with(3, coinbase), Err(BlockError::Transaction { index: 2, error }));
}
