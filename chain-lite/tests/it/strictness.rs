//! Where the two modes part, and that strict mode only ever takes away.

use chain_lite::pow::{AUX_BRANCH_LEN_MAX, AuxPow, Mode, ProofError};
use chain_lite::{Hash, sha256d};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::mining::{Proof, climb, script};

const CHAIN_ID: u32 = 1224;

#[test]
fn a_chain_has_one_slot_of_the_tree() {
    for height in 0..=AUX_BRANCH_LEN_MAX as u32 {
        let slot = slot(77, CHAIN_ID, height);
        assert_eq!(check(&in_slot(slot, 77, height as usize), Mode::Strict), Ok(()));
        if height > 0 {
            let other = slot ^ 1;
            assert_eq!(
                check(&in_slot(other, 77, height as usize), Mode::Deployed),
                Err(ProofError::Slot { expected: slot, found: other, chain_id: CHAIN_ID })
            );
        }
    }
}

#[test]
fn branches_above_thirty_are_refused_and_above_thirty_one_by_the_deployed_nodes_too() {
    let long = in_slot(slot(5, CHAIN_ID, 31), 5, 31);
    assert_eq!(check(&long, Mode::Deployed), Ok(()));
    assert_eq!(check(&long, Mode::Strict), Err(ProofError::AuxBranchLen { found: 31, max: 30 }));
    let mut longer = in_slot(0, 5, 32);
    assert_eq!(check(&longer, Mode::Deployed), Err(ProofError::Size { expected: 0, found: 1 << 31 }));
    let root = Hash(climb(BLOCK.reversed().0, &longer.aux_branch, 0)).reversed();
    longer.coinbase = Proof::with_script(&script(root, 0, 5)).coinbase;
    longer.seal();
    assert_eq!(check(&longer, Mode::Deployed), Err(ProofError::AuxBranchLen { found: 32, max: 31 }));
}

#[test]
fn the_size_must_be_that_of_the_branch() {
    let proof = Proof::with_script(&script(BLOCK, 2, 0));
    assert_eq!(check(&proof, Mode::Strict), Err(ProofError::Size { expected: 1, found: 2 }));
}

#[test]
fn the_magic_stands_once_right_in_front_of_the_root() {
    let good = script(BLOCK, 1, 0);
    let magic_at = 2 * 7;
    let twice = [good.as_slice(), b"\xfa\xbemm"].concat();
    let expected = ProofError::MagicRepeated { first: magic_at, second: 2 * good.len() };
    assert_eq!(both(&twice), [Err(expected); 2]);

    let mut apart = good.clone();
    apart.insert(11, 0);
    let expected = ProofError::RootPlace { expected: magic_at + 8, found: magic_at + 10 };
    assert_eq!(both(&apart), [Err(expected); 2]);

    let missing = vec![0xfa; 60];
    assert_eq!(both(&missing), [Err(ProofError::MagicMissing { script_len: 60 }); 2]);

    for found in 0..8 {
        let cut = &good[..11 + 32 + found];
        assert_eq!(both(cut), [Err(ProofError::ScriptEnds { found }); 2]);
    }
    assert_eq!(both(&good[..11 + 32 + 8]), [Ok(()); 2]);
}

#[test]
fn the_magic_within_the_root_is_a_second_one() {
    let mut block = BLOCK;
    block.0[10..14].copy_from_slice(b"\xfa\xbemm");
    let encoded = Proof::with_script(&script(block, 1, 0)).encode();
    let proof = AuxPow::decode(&encoded).expect("well-formed");
    let magic_at = 2 * 7;
    let expected = ProofError::MagicRepeated { first: magic_at, second: magic_at + 8 + 20 };
    for mode in [Mode::Strict, Mode::Deployed] {
        assert_eq!(proof.check_binding(block, CHAIN_ID, mode), Err(expected));
    }
}

#[test]
fn a_match_half_way_into_a_byte_counts_where_scripts_are_searched_as_text() {
    // Everything behind the first half-byte: f|fabe6d6d|root|size. The deployed nodes drop the half-byte
    // before the size.
    let mut digits = vec![0xf];
    for byte in b"\xfa\xbemm".iter().chain(&BLOCK.0) {
        digits.extend([byte >> 4, byte & 15]);
    }
    digits.push(0);
    let mut shifted: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    *shifted.last_mut().expect("not empty") &= 0xf0;
    let size_at = (digits.len() - 1) / 2;
    shifted.truncate(size_at);
    // The byte that holds the root's last half-byte is the size's first.
    let last_digit = BLOCK.0[31] & 15;
    let size = 1_u32.to_le_bytes();
    assert_eq!(last_digit << 4, size[0] & 0xf0, "the vector's hash ends with a zero digit");
    shifted.extend_from_slice(&size);
    shifted.extend_from_slice(&[0; 4]);
    assert_eq!(both(&shifted), [Err(ProofError::MagicUnaligned { at: 1 }), Ok(())]);
}

#[test]
fn a_parent_of_the_same_chain_is_refused() {
    let mut proof = Proof::naming(BLOCK);
    proof.parent[2..4].copy_from_slice(&(CHAIN_ID as u16).to_le_bytes());
    assert_eq!(check(&proof, Mode::Strict), Err(ProofError::OwnParent { chain_id: CHAIN_ID }));
    assert_eq!(check(&proof, Mode::Deployed), Ok(()));
}

proptest! {
    /// What strict mode takes, the deployed nodes take, however the proof was bent.
    #[test]
    fn strict_mode_takes_nothing_that_the_deployed_nodes_refuse(
        height in 0..34_usize,
        nonce: u32,
        shift in any::<Option<u32>>(),
        coinbase_branch in vec(any::<[u8; 32]>(), 0..3),
        coinbase_index in prop_oneof![Just(0), any::<u32>()],
        tail in vec(prop_oneof![Just(0xfa_u8), Just(0xbe), Just(0x6d), any::<u8>()], 0..12),
        version: [u8; 4],
    ) {
        let index = shift.unwrap_or_else(|| slot(nonce, CHAIN_ID, height as u32));
        let mut proof = in_slot(index, nonce, height);
        let root = Hash(climb(BLOCK.reversed().0, &proof.aux_branch, index)).reversed();
        let mut script = script(root, 1_u32.checked_shl(height as u32).unwrap_or(0), nonce);
        script.extend(tail);
        proof.coinbase = Proof::with_script(&script).coinbase;
        proof.coinbase_branch = coinbase_branch;
        proof.coinbase_index = coinbase_index;
        proof.parent[..4].copy_from_slice(&version);
        proof.seal();
        let strict = check(&proof, Mode::Strict);
        let deployed = check(&proof, Mode::Deployed);
        prop_assert!(strict.is_err() || deployed.is_ok(), "{strict:?} {deployed:?}");
        if coinbase_index == 0 && height <= 30 {
            prop_assert_eq!(strict, deployed);
        }
    }
}

/// A block's hash whose last digit is 0, so that it can end half-way into a byte.
const BLOCK: Hash = {
    let mut bytes = [0x5b; 32];
    bytes[31] = 0x70;
    Hash(bytes)
};

fn both(script: &[u8]) -> [Result<(), ProofError>; 2] {
    let proof = Proof::with_script(script);
    [check(&proof, Mode::Strict), check(&proof, Mode::Deployed)]
}

fn check(proof: &Proof, mode: Mode) -> Result<(), ProofError> {
    let encoded = proof.encode();
    AuxPow::decode(&encoded).expect("well-formed").check_binding(BLOCK, CHAIN_ID, mode)
}

/// A proof that names the block in a slot of a tree of `2^height` chains.
fn in_slot(index: u32, nonce: u32, height: usize) -> Proof {
    let branch: Vec<_> = (0..height).map(|step| sha256d(&[step as u8]).0).collect();
    let root = Hash(climb(BLOCK.reversed().0, &branch, index)).reversed();
    let size = if height == 32 { 1 << 31 } else { 1_u32.checked_shl(height as u32).unwrap_or(0) };
    let mut proof = Proof::with_script(&script(root, size, nonce));
    proof.aux_branch = branch;
    proof.aux_index = index;
    proof
}

/// Namecoin's rule, in 64 bits.
fn slot(nonce: u32, chain_id: u32, height: u32) -> u32 {
    let step = |seed: u64| (seed * 1_103_515_245 + 12_345) % (1 << 32);
    let spread = step((step(u64::from(nonce)) + u64::from(chain_id)) % (1 << 32));
    (spread % (1 << height)) as u32
}
