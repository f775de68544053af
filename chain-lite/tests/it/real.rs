//! Real blocks pass; with any single bit flipped they fail, for the reason that the bit's field gives.

use std::ops::Range;

use chain_lite::Hash;
use chain_lite::pow::{AuxPow, DecodeError, Header, Mode, ProofError};

use crate::{bytes, for_every_flip, vectors};

/// The chain id of the blocks that the vectors were recorded from.
const RECORDED_CHAIN_ID: u32 = 6;

const BOTH: [Mode; 2] = [Mode::Strict, Mode::Deployed];

/// What a flipped bit leads to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Passes,
    Decode(DecodeError),
    Proof(ProofError),
}

/// Where the fields of an encoded proof are. All lengths of the vectors are a single byte.
struct Fields {
    coinbase: Range<usize>,
    /// Places in the coinbase that say how long something is.
    coinbase_lengths: Vec<usize>,
    parent_hash: Range<usize>,
    coinbase_count: usize,
    coinbase_branch: Range<usize>,
    coinbase_index: Range<usize>,
    aux_count: usize,
    aux_branch: Range<usize>,
    aux_index: Range<usize>,
    parent: Range<usize>,
}

impl Fields {
    fn of(proof: &AuxPow<'_>) -> Fields {
        let coinbase = 0..proof.coinbase.bytes().len();
        let parent_hash = behind(&coinbase, 32);
        let coinbase_branch = behind(&(0..parent_hash.end + 1), 32 * proof.coinbase_branch.len());
        let coinbase_index = behind(&coinbase_branch, 4);
        let aux_branch = behind(&(0..coinbase_index.end + 1), 32 * proof.aux_branch.len());
        let aux_index = behind(&aux_branch, 4);
        Fields {
            coinbase_lengths: lengths(proof.coinbase.bytes()),
            coinbase_count: parent_hash.end,
            aux_count: coinbase_index.end,
            parent: behind(&aux_index, 80),
            coinbase,
            parent_hash,
            coinbase_branch,
            coinbase_index,
            aux_branch,
            aux_index,
        }
    }

    /// Whether an outcome is right for a flip of `bit` of `byte` of the proof. `binding_alone` says that
    /// nothing was asked of the work.
    fn expect(&self, byte: usize, bit: u32, mode: Mode, binding_alone: bool, outcome: &Outcome) -> bool {
        use Outcome::{Decode, Passes, Proof};
        let within = |index: &Range<usize>, branch: &Range<usize>| {
            8 * (byte - index.start) + (bit as usize) < (branch.len() / 32)
        };
        if self.coinbase_lengths.contains(&byte) {
            *outcome != Passes
        } else if self.coinbase.contains(&byte) || self.coinbase_branch.contains(&byte) {
            matches!(outcome, Proof(ProofError::CoinbaseBranch { .. }))
        } else if self.parent_hash.contains(&byte) {
            *outcome == Passes
        } else if byte == self.coinbase_count || byte == self.aux_count {
            matches!(outcome, Decode(DecodeError::Truncated { .. } | DecodeError::Trailing { .. }))
                || (matches!(outcome, Decode(DecodeError::LongForm { .. })))
        } else if self.coinbase_index.contains(&byte) {
            match mode {
                Mode::Strict => matches!(outcome, Proof(ProofError::CoinbaseIndex { .. })),
                Mode::Deployed if within(&self.coinbase_index, &self.coinbase_branch) => {
                    matches!(outcome, Proof(ProofError::CoinbaseBranch { .. }))
                }
                Mode::Deployed => *outcome == Passes,
            }
        } else if self.aux_branch.contains(&byte) {
            matches!(outcome, Proof(ProofError::RootMissing { .. }))
        } else if self.aux_index.contains(&byte) {
            match within(&self.aux_index, &self.aux_branch) {
                true => matches!(outcome, Proof(ProofError::RootMissing { .. })),
                false => matches!(outcome, Proof(ProofError::Slot { .. })),
            }
        } else if (self.parent.start + 36..self.parent.start + 68).contains(&byte) {
            matches!(outcome, Proof(ProofError::CoinbaseBranch { .. }))
        } else if binding_alone {
            *outcome == Passes
        } else {
            matches!(outcome, Proof(ProofError::Work { .. }))
        }
    }
}

#[test]
fn the_recorded_proofs_bind_their_blocks_and_no_bit_may_change() {
    for vector in vectors(include_str!("../vectors/auxpow.json"))["vectors"].as_array().expect("a list") {
        assert_eq!(vector["chain_id"], RECORDED_CHAIN_ID);
        let block = Hash(bytes(&vector["aux_block_hash"]).try_into().expect("32 bytes"));
        let encoded = bytes(&vector["auxpow_hex"]);
        let proof = AuxPow::decode(&encoded).expect("a real proof");
        for mode in BOTH {
            assert_eq!(proof.check_binding(block, RECORDED_CHAIN_ID, mode), Ok(()));
            flip_every_bit_of_the_hash(&proof, block, mode);
            let fields = Fields::of(&proof);
            for_every_flip(&encoded, |byte, bit, flipped| {
                let outcome = match AuxPow::decode(flipped) {
                    Err(error) => Outcome::Decode(error),
                    Ok(proof) => judge(proof.check_binding(block, RECORDED_CHAIN_ID, mode)),
                };
                assert!(
                    fields.expect(byte, bit, mode, true, &outcome),
                    "byte {byte} bit {bit} {mode:?}: {outcome:?}"
                );
            });
        }
    }
}

#[test]
fn the_recorded_block_is_proven_and_no_bit_of_its_header_may_change() {
    let block = bytes(&vectors(include_str!("../vectors/pow_block_10000.json"))["block_hex"]);
    let (header, len) = Header::decode_front(&block).expect("a real block");
    assert_eq!(header.block.height, 10_000);
    assert_eq!(header.block.bits, 0x1d56_01dd);
    let encoded = &block[..len];
    let fields = Fields::of(&header.proof);
    let first = 84;
    let last = len - 1;
    for mode in BOTH {
        header.check_proof(RECORDED_CHAIN_ID, mode).expect("a real block");
        for_every_flip(encoded, |byte, bit, flipped| {
            let outcome = match Header::decode(flipped) {
                Err(error) => Outcome::Decode(error),
                Ok(header) => judge(header.check_proof(RECORDED_CHAIN_ID, mode).map(drop)),
            };
            let right = if byte < first {
                matches!(outcome, Outcome::Proof(ProofError::RootMissing { .. }))
            } else if byte == last {
                match mode {
                    Mode::Strict => matches!(outcome, Outcome::Proof(ProofError::EndMarker { .. })),
                    Mode::Deployed => outcome == Outcome::Passes,
                }
            } else {
                fields.expect(byte - first, bit, mode, false, &outcome)
            };
            assert!(right, "byte {byte} bit {bit} {mode:?}: {outcome:?}");
        });
    }
}

#[test]
fn what_was_read_is_written_back_to_the_byte() {
    let block = bytes(&vectors(include_str!("../vectors/pow_block_10000.json"))["block_hex"]);
    let (header, len) = Header::decode_front(&block).expect("a real block");
    let mut out = Vec::new();
    header.encode(&mut out);
    assert_eq!(out, block[..len]);
    for cut in 0..len {
        let cut_off = Header::decode(&block[..cut]);
        assert!(matches!(cut_off, Err(DecodeError::Truncated { .. })), "{cut}: {cut_off:?}");
    }
    let left = block.len() - len;
    assert_eq!(Header::decode(&block), Err(DecodeError::Trailing { at: len, left }));
}

fn flip_every_bit_of_the_hash(proof: &AuxPow<'_>, block: Hash, mode: Mode) {
    for_every_flip(&block.0, |byte, bit, flipped| {
        let other = Hash(flipped.try_into().expect("32 bytes"));
        let error = proof.check_binding(other, RECORDED_CHAIN_ID, mode);
        assert!(matches!(error, Err(ProofError::RootMissing { .. })), "byte {byte} bit {bit}: {error:?}");
    });
}

fn judge(checked: Result<(), ProofError>) -> Outcome {
    checked.map_or_else(Outcome::Proof, |()| Outcome::Passes)
}

fn behind(range: &Range<usize>, len: usize) -> Range<usize> {
    range.end..range.end + len
}

/// Where a transaction with lengths below 253 says how long something is.
fn lengths(transaction: &[u8]) -> Vec<usize> {
    let mut places = vec![4];
    let mut at = 5;
    for _ in 0..transaction[4] {
        places.push(at + 36);
        at += 36 + 1 + usize::from(transaction[at + 36]) + 4;
    }
    places.push(at);
    let outputs = transaction[at];
    at += 1;
    for _ in 0..outputs {
        places.push(at + 8);
        at += 8 + 1 + usize::from(transaction[at + 8]);
    }
    assert_eq!(at + 4, transaction.len());
    places
}
