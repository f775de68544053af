//! Where the compiler puts the values of mappings: the slot of a key is the Keccak-256 of the key, filled to
//! 32 bytes, and the slot of the mapping.

use alloy_primitives::{B256, U256, keccak256};

/// The slot of `key` in the mapping at `mapping`. Numbers and addresses are filled with zeros on the left,
/// `bytes32` is as it is.
pub(super) fn mapping_slot(key: B256, mapping: B256) -> B256 {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(key.as_slice());
    bytes[32..].copy_from_slice(mapping.as_slice());
    keccak256(bytes)
}

/// The slot `n` behind `slot`: the further fields of a struct.
pub(super) fn following(slot: B256, n: u64) -> B256 {
    U256::from_be_bytes(slot.0).wrapping_add(U256::from(n)).into()
}

/// A slot that is a plain number: a variable of the contract.
pub(super) fn variable(slot: u64) -> B256 {
    U256::from(slot).into()
}

/// `BITS` bits of a word, counted from its low end.
pub(super) fn field<const BITS: usize>(word: U256, at: usize) -> U256 {
    (word >> at) & (U256::MAX >> (256 - BITS))
}
