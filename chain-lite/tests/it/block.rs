//! The real block: whole, its transactions, its reward, and with every single bit flipped.

use chain_lite::Hash;
use chain_lite::pow::{Amount, Block, CoinbaseError, CoinbaseRules, OutPoint, Payload, Usage, merkle};
use chain_lite::wallet::verify_program;

use crate::{bytes, vectors};

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
