//! The kernels for x86-64. One loop, written once for vectors of any kind, is compiled for each set of instructions.

use std::arch::x86_64::*;

use super::super::gf256::{AFFINE, NIBBLES};
use super::{Instructions, OUTPUTS};

/// Vectors of each output that one turn of the loop makes: with 2, each coefficient is loaded for two multiplications.
const UNROLL: usize = 2;

/// A vector of bytes and a coefficient in the form that multiplies it.
///
/// # Safety
/// Every function asks of its caller that the CPU has the instructions of the kernel that the vector is for, and of `load` and `store`
/// that `LEN` bytes at the pointer may be read or written.
trait Vector: Copy {
    const LEN: usize;
    type Factor: Copy;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn factor(coefficient: u8) -> Self::Factor;
    unsafe fn add_product(self, other: Self, factor: Self::Factor) -> Self;
}

/// Makes the whole vectors of bytes `from..to` of every output; returns where it ended.
///
/// # Panics
/// If a source or an output is shorter than `to`, or a row has not an element a source.
pub(super) fn pass(
    instructions: Instructions,
    rows: &[&[u8]],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    from: usize,
    to: usize,
) -> usize {
    assert!(rows.len() == outputs.len() && rows.iter().all(|row| row.len() == sources.len()));
    assert!(sources.iter().all(|s| s.len() >= to) && outputs.iter().all(|o| o.len() >= to) && from <= to);
    // SAFETY: a `Kernel` is made by `Kernel::available` alone, and only of instructions that the CPU has; lengths were compared above.
    unsafe {
        match instructions {
            Instructions::Gfni512 => gfni512(rows, sources, outputs, from, to),
            Instructions::Avx2 => avx2(rows, sources, outputs, from, to),
            Instructions::Portable => from,
        }
    }
}

/// # Safety
/// AVX-512F and GFNI; lengths as in [`pass`].
#[target_feature(enable = "avx512f,gfni")]
unsafe fn gfni512(
    rows: &[&[u8]],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    from: usize,
    to: usize,
) -> usize {
    // SAFETY: passed on.
    unsafe { by_outputs::<__m512i>(rows, sources, outputs, from, to) }
}

/// # Safety
/// AVX2; lengths as in [`pass`].
#[target_feature(enable = "avx2")]
unsafe fn avx2(
    rows: &[&[u8]],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    from: usize,
    to: usize,
) -> usize {
    // SAFETY: passed on.
    unsafe { by_outputs::<Tables256>(rows, sources, outputs, from, to) }
}

/// # Safety
/// As [`Vector`]; lengths as in [`pass`].
#[inline(always)]
unsafe fn by_outputs<V: Vector>(
    rows: &[&[u8]],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    from: usize,
    to: usize,
) -> usize {
    // SAFETY: passed on; the numbers of outputs are what is matched.
    unsafe {
        match outputs.len() {
            1 => multiply_add::<V, 1>(rows, sources, outputs, from, to),
            2 => multiply_add::<V, 2>(rows, sources, outputs, from, to),
            3 => multiply_add::<V, 3>(rows, sources, outputs, from, to),
            OUTPUTS => multiply_add::<V, OUTPUTS>(rows, sources, outputs, from, to),
            _ => from,
        }
    }
}

/// # Safety
/// As [`Vector`]; lengths as in [`pass`]; `N` outputs.
#[inline(always)]
unsafe fn multiply_add<V: Vector, const N: usize>(
    rows: &[&[u8]],
    sources: &[&[u8]],
    outputs: &mut [&mut [u8]],
    from: usize,
    to: usize,
) -> usize {
    let mut at = from;
    // SAFETY: every access is to `UNROLL * V::LEN` bytes at `at`, which end at or before `to`, and `pass` compared `to` with every
    // length; rows have an element a source, and there are `N` of rows and outputs.
    unsafe {
        while to - at >= UNROLL * V::LEN {
            let mut sums = [[V::zero(); UNROLL]; N];
            for (i, source) in sources.iter().enumerate() {
                let mut bytes = [V::zero(); UNROLL];
                for (u, bytes) in bytes.iter_mut().enumerate() {
                    *bytes = V::load(source.as_ptr().add(at + u * V::LEN));
                }
                for (j, sums) in sums.iter_mut().enumerate() {
                    let factor = V::factor(*rows.get_unchecked(j).get_unchecked(i));
                    for (sum, bytes) in sums.iter_mut().zip(bytes) {
                        *sum = sum.add_product(bytes, factor);
                    }
                }
            }
            for (sums, output) in sums.into_iter().zip(outputs.iter_mut()) {
                for (u, sum) in sums.into_iter().enumerate() {
                    sum.store(output.as_mut_ptr().add(at + u * V::LEN));
                }
            }
            at += UNROLL * V::LEN;
        }
    }
    at
}

impl Vector for __m512i {
    const LEN: usize = 64;
    type Factor = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's CPU has AVX-512F, and 64 bytes may be read.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's CPU has AVX-512F, and 64 bytes may be written.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn factor(coefficient: u8) -> __m512i {
        // SAFETY: the caller's CPU has AVX-512F.
        unsafe { _mm512_set1_epi64(AFFINE[usize::from(coefficient)] as i64) }
    }

    #[inline(always)]
    unsafe fn add_product(self, other: Self, factor: __m512i) -> Self {
        // SAFETY: the caller's CPU has AVX-512F and GFNI.
        unsafe { _mm512_xor_si512(self, _mm512_gf2p8affine_epi64_epi8::<0>(other, factor)) }
    }
}

/// 32 bytes that are multiplied by look-ups of their half-bytes.
#[derive(Clone, Copy)]
struct Tables256(__m256i);

impl Vector for Tables256 {
    const LEN: usize = 32;
    type Factor = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's CPU has AVX2.
        unsafe { Tables256(_mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's CPU has AVX2, and 32 bytes may be read.
        unsafe { Tables256(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's CPU has AVX2, and 32 bytes may be written.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn factor(coefficient: u8) -> (__m256i, __m256i) {
        let nibbles = NIBBLES[usize::from(coefficient)].as_ptr();
        // SAFETY: the caller's CPU has AVX2; a row of the table has 32 bytes, 16 for each half.
        unsafe {
            (
                _mm256_broadcastsi128_si256(_mm_loadu_si128(nibbles.cast())),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(nibbles.add(16).cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, other: Self, (low, high): (__m256i, __m256i)) -> Self {
        // SAFETY: the caller's CPU has AVX2.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            let low = _mm256_shuffle_epi8(low, _mm256_and_si256(other.0, mask));
            let high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64::<4>(other.0), mask));
            Tables256(_mm256_xor_si256(self.0, _mm256_xor_si256(low, high)))
        }
    }
}
