//! What is remembered of a branch that was seen and not kept: a bit of every so many blocks.

use crate::Hash;
use crate::hash::sha256d_pair;

/// One bit of a keyed hash of every block whose height leaves a secret remainder. Whoever sends another
/// branch the second time hits each bit with a chance of one half, and cannot tell which blocks count.
#[derive(Clone, Debug)]
pub struct Commitments {
    secret: [u8; 32],
    period: u32,
    /// Heights with this remainder modulo `period` count.
    remainder: u32,
    words: Vec<u64>,
    /// How many bits were put in.
    len: usize,
    /// How many bits were compared.
    taken: usize,
}

impl Commitments {
    pub fn new(secret: [u8; 32], period: u32) -> Commitments {
        let period = period.max(1);
        let [a, b, c, d, ..] = salted(&secret, Hash::ZERO).0;
        let remainder = u32::from_le_bytes([a, b, c, d]) % period;
        Commitments { secret, period, remainder, words: vec![], len: 0, taken: 0 }
    }

    /// Whether the block at a height has a bit.
    pub fn counts(&self, height: u32) -> bool {
        height % self.period == self.remainder
    }

    /// Memory of the bits in bytes.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    pub fn push(&mut self, hash: Hash) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(self.bit(hash)) << (self.len % 64);
        self.len += 1;
    }

    /// Whether a block's bit is the next one that was put in. Not if all were compared.
    pub fn take(&mut self, hash: Hash) -> bool {
        if self.taken == self.len {
            return false;
        }
        let expected = self.words[self.taken / 64] >> (self.taken % 64) & 1 == 1;
        self.taken += 1;
        self.bit(hash) == expected
    }

    fn bit(&self, hash: Hash) -> bool {
        salted(&self.secret, hash).0[0] & 1 == 1
    }
}

fn salted(secret: &[u8; 32], hash: Hash) -> Hash {
    sha256d_pair(secret, &hash.0)
}
