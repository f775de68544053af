//! Linear combinations of byte strings over GF(2^8), with what the CPU has for it. This is where the time of coding goes.
//!
//! One pass makes up to [`OUTPUTS`] combinations at once, so that every source byte is loaded once for all of them: sums stay in
//! registers, sources stream through the cache. `unsafe` is here because of vector loads and stores and because only the caller of a
//! vector function can know that the CPU has the instructions.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// How many combinations one pass makes: with 4, all sums, sources and coefficients of a pass fit into 16 registers.
const OUTPUTS: usize = 4;

/// Bytes that the sources of one stripe have together: about half of a small L2 cache. More combinations than [`OUTPUTS`] read the sources
/// again, out of the cache.
const STRIPE_BYTES: usize = 256 << 10;

/// Which instructions are used. There is none but what this CPU can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// AVX-512 with GFNI: 64 bytes by one affine transformation (Ice Lake, Zen 4).
    #[cfg(target_arch = "x86_64")]
    Gfni512,
    /// AVX2: 32 bytes by two look-ups of half-bytes (Haswell, Zen).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Look-ups of single bytes.
    Portable,
}

impl Kernel {
    /// The fastest that this CPU can run.
    pub fn fastest() -> Kernel {
        Kernel::available()[0]
    }

    /// All that this CPU can run, the fastest first; never empty.
    pub fn available() -> Vec<Kernel> {
        #[allow(unused_mut, reason = "other architectures have the portable one alone")]
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx512f") {
                available.push(Kernel(Instructions::Gfni512));
            }
            if is_x86_feature_detected!("avx2") {
                available.push(Kernel(Instructions::Avx2));
            }
        }
        available.push(Kernel(Instructions::Portable));
        available
    }

    /// What people call these instructions.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Gfni512 => "GFNI with AVX-512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "AVX2",
            Instructions::Portable => "portable",
        }
    }

    /// Makes `outputs[j]` the sum over i of `coefficients[j][i] * sources[i]`. What the outputs held is overwritten.
    ///
    /// # Panics
    /// If `coefficients` has not a row an output and an element a source, or the lengths of sources and outputs differ.
    pub(super) fn combine(self, coefficients: &[&[u8]], sources: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let Some(len) = outputs.first().map(|output| output.len()) else { return };
        assert!(
            sources.iter().all(|source| source.len() == len)
                && outputs.iter().all(|output| output.len() == len)
        );
        assert!(
            coefficients.len() == outputs.len() && coefficients.iter().all(|row| row.len() == sources.len())
        );
        let stripe_len = (STRIPE_BYTES / sources.len().max(1)).next_multiple_of(1024);
        let mut from = 0;
        while from < len {
            let to = len.min(from + stripe_len);
            for (rows, outputs) in coefficients.chunks(OUTPUTS).zip(outputs.chunks_mut(OUTPUTS)) {
                self.pass(rows, sources, outputs, from, to);
            }
            from = to;
        }
    }

    /// [`combine`](Self::combine) of bytes `from..to`, for at most [`OUTPUTS`] outputs.
    fn pass(self, rows: &[&[u8]], sources: &[&[u8]], outputs: &mut [&mut [u8]], from: usize, to: usize) {
        #[cfg(target_arch = "x86_64")]
        let from = x86::pass(self.0, rows, sources, outputs, from, to);
        portable::pass(rows, sources, outputs, from, to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::gf256::multiply;
    use super::*;

    proptest! {
        #[test]
        fn all_kernels_make_the_sum_as_it_is_defined(
            sources in 0..20_usize,
            outputs in 0..10_usize,
            len in prop_oneof![0..300_usize, 14_000..16_000_usize],
            seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            let sources: Vec<Vec<u8>> = (0..sources).map(|_| (0..len).map(|_| byte()).collect()).collect();
            let rows: Vec<Vec<u8>> = (0..outputs).map(|_| sources.iter().map(|_| byte()).collect()).collect();
            let expected: Vec<Vec<u8>> = rows
                .iter()
                .map(|row| {
                    (0..len).map(|at| row.iter().zip(&sources).fold(0, |sum, (c, s)| sum ^ multiply(*c, s[at]))).collect()
                })
                .collect();
            let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
            let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            for kernel in Kernel::available() {
                let mut made = vec![vec![0xA5; len]; outputs];
                let mut views: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
                kernel.combine(&rows, &sources, &mut views);
                prop_assert_eq!(&made, &expected, "{:?}", kernel);
            }
        }
    }
}
