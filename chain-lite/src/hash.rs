//! Double SHA-256, and how its results are written.
//!
//! Verifying a header is next to nothing but short hashes, of which the compressions take nearly all the time if
//! what is hashed goes right into their blocks. A hasher that takes bytes piece by piece would add a quarter.

use std::fmt;

use sha2::block_api::compress256;

/// A double SHA-256: 32 bytes in the order in which they are hashed and sent. As a number it is
/// little-endian, so people read it from the last byte to the first, and so it is displayed.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Thirty-two zero bytes: what a genesis block names as its predecessor.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The same bytes from the last to the first.
    pub fn reversed(mut self) -> Hash {
        self.0.reverse();
        self
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of SHA-256 of `bytes`.
pub fn sha256d(bytes: &[u8]) -> Hash {
    let (blocks, rest) = bytes.as_chunks();
    let mut state = INITIAL;
    compress256(&mut state, blocks);
    // A bit that is set and the length follow the message, and fill the last block or two.
    let mut last = [[0; BLOCK_LEN]; 2];
    let last_bytes = last.as_flattened_mut();
    last_bytes[..rest.len()].copy_from_slice(rest);
    last_bytes[rest.len()] = 0x80;
    let padded = if rest.len() < BLOCK_LEN - LENGTH_LEN { 1 } else { 2 };
    let bits = 8 * bytes.len() as u64;
    last_bytes[padded * BLOCK_LEN - LENGTH_LEN..padded * BLOCK_LEN].copy_from_slice(&bits.to_be_bytes());
    compress256(&mut state, &last[..padded]);
    again(&state)
}

/// Double SHA-256 of two hashes, one behind the other: a step up a Merkle tree.
pub(crate) fn sha256d_pair(left: &[u8; 32], right: &[u8; 32]) -> Hash {
    const PADDING: [u8; BLOCK_LEN] = padding_behind::<0>(BLOCK_LEN);
    let mut blocks = [PADDING; 2];
    blocks[0][..32].copy_from_slice(left);
    blocks[0][32..].copy_from_slice(right);
    let mut state = INITIAL;
    compress256(&mut state, &blocks);
    again(&state)
}

/// Bytes that are compressed at a time.
const BLOCK_LEN: usize = 64;

/// Bytes that the length takes at the end of the last block.
const LENGTH_LEN: usize = 8;

/// FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 of a hash that is still a state.
fn again(state: &[u32; 8]) -> Hash {
    let mut block = const { padding_behind::<32>(32) };
    block[..32].copy_from_slice(&to_bytes(state));
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    Hash(to_bytes(&state))
}

/// The last block of a message of `len` bytes, `AT` of which are in it.
const fn padding_behind<const AT: usize>(len: usize) -> [u8; BLOCK_LEN] {
    let mut block = [0; BLOCK_LEN];
    block[AT] = 0x80;
    let bits = (8 * len as u64).to_be_bytes();
    let mut place = 0;
    while place < LENGTH_LEN {
        block[BLOCK_LEN - LENGTH_LEN + place] = bits[place];
        place += 1;
    }
    block
}

fn to_bytes(state: &[u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    bytes
}
