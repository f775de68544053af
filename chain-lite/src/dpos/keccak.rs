//! Keccak-256 of many messages side by side, a message in each lane of the CPU's vectors.
//!
//! A header's hash and what its signer signed are five blocks each, which one after the other take a tenth of the
//! time that recovering the signer takes. With AVX-512 eight of them cost little more than one does.

use alloy_primitives::{B256, keccak256};
use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};

/// Messages that are hashed at once.
const LANES: usize = 8;

/// Lanes of a vector below which scalar code, which rotates in one instruction, is faster.
const VECTOR_LANES_MIN: usize = 4;

/// Bytes that are taken in between two permutations: 1,600 bits less twice the length of the hash.
const RATE_LEN: usize = 136;

/// The 25 words of each lane: word by word, so that a vector holds one word of several lanes.
type State = [[u64; LANES]; 25];

/// Keccak-256 of each message, in their order.
pub(super) fn keccak256_all<M: AsRef<[u8]>>(messages: &[M]) -> Vec<B256> {
    hash_all(Level::new(), messages)
}

fn hash_all<M: AsRef<[u8]>>(level: Level, messages: &[M]) -> Vec<B256> {
    dispatch!(level, simd => hash_in_lanes(simd, messages))
}

/// What is left of a message.
#[derive(Clone, Copy)]
struct Lane<'a> {
    place: usize,
    rest: &'a [u8],
    /// Whether its last block was taken in.
    is_whole: bool,
}

#[inline(always)]
fn hash_in_lanes<S: Simd, M: AsRef<[u8]>>(simd: S, messages: &[M]) -> Vec<B256> {
    if S::u64s::LEN < VECTOR_LANES_MIN {
        return messages.iter().map(keccak256).collect();
    }
    let mut hashes = vec![B256::ZERO; messages.len()];
    let mut waiting = messages.iter().enumerate().map(|(place, message)| Lane {
        place,
        rest: message.as_ref(),
        is_whole: false,
    });
    let mut lanes: [Option<Lane<'_>>; LANES] = [None; LANES];
    let mut state: State = [[0; LANES]; 25];
    loop {
        // Lanes behind the last one in use are not permuted.
        let mut used = 0;
        for (number, lane) in lanes.iter_mut().enumerate() {
            if lane.is_none()
                && let Some(next) = waiting.next()
            {
                *lane = Some(next);
                state.iter_mut().for_each(|words| words[number] = 0);
            }
            if let Some(lane) = lane {
                absorb(&mut state, number, lane);
                used = number + 1;
            }
        }
        if used == 0 {
            return hashes;
        }
        for first in (0..used).step_by(S::u64s::LEN) {
            permute(simd, &mut state, first);
        }
        for (number, lane) in lanes.iter_mut().enumerate() {
            if let Some(Lane { place, .. }) = lane.take_if(|lane| lane.is_whole) {
                for (bytes, words) in hashes[place].0.as_chunks_mut().0.iter_mut().zip(&state) {
                    *bytes = words[number].to_le_bytes();
                }
            }
        }
    }
}

/// Takes in the next block of a message. Behind its end stand a bit that is set and, at the end of the block, another
/// one: Keccak's own padding, which SHA-3 changed.
#[inline(always)]
fn absorb(state: &mut State, number: usize, lane: &mut Lane<'_>) {
    let mut last = [0; RATE_LEN];
    let block = match lane.rest.split_first_chunk() {
        Some((block, rest)) => {
            lane.rest = rest;
            block
        }
        None => {
            last[..lane.rest.len()].copy_from_slice(lane.rest);
            last[lane.rest.len()] = 0x01;
            last[RATE_LEN - 1] |= 0x80;
            lane.is_whole = true;
            &last
        }
    };
    for (words, bytes) in state.iter_mut().zip(block.as_chunks().0) {
        words[number] ^= u64::from_le_bytes(*bytes);
    }
}

/// Keccak-f[1600] (FIPS 202, section 3.3) of as many lanes from `first` on as a vector has.
#[inline(always)]
fn permute<S: Simd>(simd: S, state: &mut State, first: usize) {
    let lanes = first..first + S::u64s::LEN;
    let mut a = [S::u64s::splat(simd, 0); 25];
    for (vector, words) in a.iter_mut().zip(&*state) {
        *vector = S::u64s::from_slice(simd, &words[lanes.clone()]);
    }
    for constant in ROUND_CONSTANTS {
        let mut columns = [a[0]; 5];
        for x in 0..5 {
            columns[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
        }
        for x in 0..5 {
            let change = columns[(x + 4) % 5] ^ rotate::<S>(columns[(x + 1) % 5], 1);
            for y in 0..5 {
                a[x + 5 * y] ^= change;
            }
        }
        // Each word goes to the place of the next, rotated. Places and amounts are written out because vectors stay
        // in registers only if they are constants.
        let mut moved = a[1];
        macro_rules! rotate_and_move {
            ($($place:literal by $bits:literal),*) => {
                $((a[$place], moved) = (rotate::<S>(moved, $bits), a[$place]);)*
            };
        }
        rotate_and_move!(
            10 by 1, 7 by 3, 11 by 6, 17 by 10, 18 by 15, 3 by 21, 5 by 28, 16 by 36, 8 by 45, 21 by 55, 24 by 2,
            4 by 14, 15 by 27, 23 by 41, 19 by 56, 13 by 8, 12 by 25, 2 by 43, 20 by 62, 14 by 18, 22 by 39,
            9 by 61, 6 by 20
        );
        a[1] = rotate::<S>(moved, 44);
        for y in 0..5 {
            let row = [a[5 * y], a[5 * y + 1], a[5 * y + 2], a[5 * y + 3], a[5 * y + 4]];
            for x in 0..5 {
                a[x + 5 * y] = row[x] ^ (!row[(x + 1) % 5] & row[(x + 2) % 5]);
            }
        }
        a[0] ^= S::u64s::splat(simd, constant);
    }
    for (words, vector) in state.iter_mut().zip(&a) {
        vector.store_slice(&mut words[lanes.clone()]);
    }
}

#[inline(always)]
fn rotate<S: Simd>(words: S::u64s, bits: u32) -> S::u64s {
    words << bits | words >> (64 - bits)
}

/// FIPS 202, section 3.2.5.
const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Every level that this machine has: what it chooses by itself, and those below.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        let below = [
            #[cfg(target_arch = "x86_64")]
            best.as_avx2().map(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            best.as_sse2().map(Level::Sse2),
        ];
        [best].into_iter().chain(below.into_iter().flatten()).collect()
    }

    fn assert_same(messages: &[Vec<u8>]) -> Result<(), TestCaseError> {
        let expected: Vec<_> = messages.iter().map(keccak256).collect();
        for level in levels() {
            prop_assert_eq!(&hash_all(level, messages), &expected, "{:?}", level);
        }
        Ok(())
    }

    /// Lengths from nothing to three blocks, most of them at the borders where padding takes one block or two.
    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![
            0..=3 * RATE_LEN,
            (0..=4_usize, 0..=2_usize)
                .prop_map(|(blocks, more)| (blocks * RATE_LEN + more).saturating_sub(1)),
        ]
    }

    proptest! {
        #[test]
        fn lanes_give_what_scalar_code_gives(messages in vec(length().prop_flat_map(|len| vec(any::<u8>(), len)), 0..40)) {
            assert_same(&messages)?;
        }
    }

    #[test]
    fn every_length_and_every_number_of_messages_is_hashed() {
        let message = |len: usize| (0..len).map(|place| (place * 7 + len) as u8).collect::<Vec<_>>();
        let all: Vec<_> = (0..=5 * RATE_LEN).map(message).collect();
        assert_same(&all).expect("every length");
        for count in 0..=2 * LANES + 1 {
            assert_same(&all[RATE_LEN - 4..][..count]).expect("every number");
        }
    }

    #[test]
    fn a_long_message_beside_short_ones_is_hashed() {
        let messages: Vec<_> =
            (0..30).map(|number| vec![number; if number == 3 { 65_536 } else { 64 }]).collect();
        assert_same(&messages).expect("the same hashes");
    }
}
