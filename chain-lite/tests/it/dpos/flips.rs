//! Real and made headers with every single bit flipped: each fails, and says why.

use chain_lite::dpos::{
    Accepted, DecodeError, HeaderChain, HeaderError, HeaderField, Network, ReadError, Rule, SignedHeader,
};

use crate::dpos::real::{self, GOERLI, headers};
use crate::dpos::signing::{Draft, NETWORK, NOW_S, addresses, arbitrators, begin};

/// Offsets of the fields in a header of 15 fields whose list has two bytes of length.
const PARENT_HASH: usize = 4;
const UNCLES_HASH: usize = 37;
const COINBASE: usize = 70;
const STATE_ROOT: usize = 91;
const DIFFICULTY: usize = 448;

#[test]
fn every_flipped_bit_of_goerlis_first_block_is_found() {
    let goerli = headers("goerli");
    let chain = real::begin(GOERLI, &goerli[0].0);
    every_flip_fails(&GOERLI, &chain, &goerli[1].0);
}

#[test]
fn every_flipped_bit_of_a_block_with_base_fee_is_found() {
    let arbitrators = arbitrators(51);
    let chain = begin(NETWORK, &addresses(&arbitrators));
    let bytes = Draft::on(&NETWORK, chain.tip(), 2).sign(&arbitrators[1]);
    every_flip_fails(&NETWORK, &chain, &bytes);
}

#[test]
fn every_flipped_bit_of_an_epoch_block_is_found() {
    let network = Network { epoch_blocks: 1, ..NETWORK };
    let arbitrators = arbitrators(51);
    let chain = begin(network, &addresses(&arbitrators));
    let mut draft = Draft::on(&network, chain.tip(), 2);
    draft.signers = addresses(&arbitrators);
    every_flip_fails(&network, &chain, &draft.sign(&arbitrators[1]));
}

fn every_flip_fails(network: &Network, chain: &HeaderChain, bytes: &[u8]) {
    let right = SignedHeader::read(network, bytes).expect("a header that holds");
    assert_eq!(chain.clone().accept(right.clone(), NOW_S, &mut vec![]), Ok(Accepted::Extended));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = verdict(network, chain, &flipped).expect_err("a flipped bit");
        assert!(fits(&right, bytes.len(), bit / 8, &error), "bit {bit} of {}: {error}", bytes.len());
    }
}

fn verdict(network: &Network, chain: &HeaderChain, bytes: &[u8]) -> Result<Accepted, ReadError> {
    let header = SignedHeader::read(network, bytes)?;
    Ok(chain.clone().accept(header, NOW_S, &mut vec![])?)
}

/// Whether an error is one that a flip in this byte may cause.
fn fits(right: &SignedHeader, len: usize, at: usize, error: &ReadError) -> bool {
    let rule = match error {
        ReadError::Decode(error) => return !matches!(error, DecodeError::TooLong { .. }),
        ReadError::Header(HeaderError { rule, .. }) => rule,
    };
    // Who signed the header does not follow from changed bytes: almost always it is nobody who may sign.
    let stranger = matches!(rule, Rule::Unauthorised { signer } if *signer != right.signer)
        || matches!(rule, Rule::Signature);
    let base_fee_len = if right.base_fee_wei.is_some() { 5 } else { 0 };
    let tail = len - base_fee_len - 9 - 33;
    let signed = tail - 65..tail;
    match at {
        0..=3 => false,
        PARENT_HASH..36 => matches!(rule, Rule::UnknownParent { .. }),
        36 | 69 | 90 => false,
        UNCLES_HASH..COINBASE => matches!(rule, Rule::Fixed { field: HeaderField::UnclesHash }),
        COINBASE..STATE_ROOT if !right.signers.is_empty() => matches!(rule, Rule::EpochVote { .. }),
        COINBASE..DIFFICULTY => stranger,
        // Difficulty, number, gas and time: numbers of few bytes, whose prefixes are their own first bytes.
        DIFFICULTY.. if at < tail - 65 - right.signers.len() * 20 - 32 => {
            stranger
                || matches!(
                    rule,
                    Rule::Difficulty { .. }
                        | Rule::Number { .. }
                        | Rule::GasLimit { .. }
                        | Rule::GasUsed { .. }
                        | Rule::TooSoon { .. }
                        | Rule::InFuture { .. }
                        | Rule::ExtraSigners { .. }
                        | Rule::BaseFee { .. }
                )
        }
        _ if signed.contains(&at) => stranger,
        _ if at < tail => stranger || matches!(rule, Rule::EpochSigners { .. }),
        _ if at < tail + 33 => matches!(rule, Rule::Fixed { field: HeaderField::MixHash }),
        _ if at < tail + 42 => matches!(rule, Rule::Nonce { .. }),
        _ => stranger || matches!(rule, Rule::BaseFee { .. }),
    }
}
