//! Whether compressing a file is worth it.

use std::io;

use zstd::bulk::Compressor;

/// What is looked at: the file's first bytes, whatever the settings, so that a publication that goes on decides the same.
pub(super) const SAMPLED_LEN: usize = 16 << 20;

const SAMPLE_LEN: usize = 64 << 10;
const SAMPLE_EVERY: usize = 1 << 20;

/// Compression that saves less than one part in this many is left out.
const SAVING_MIN: usize = 32;

/// Compresses 64 KiB of every MiB of `beginning`, and says whether that saves enough.
pub(super) fn helps(beginning: &[u8], level: i32) -> io::Result<bool> {
    let mut compressor = Compressor::new(level)?;
    let (mut plain, mut compressed) = (0, 0);
    for part in beginning.chunks(SAMPLE_EVERY) {
        // From the middle: headers are seldom like what follows them.
        let middle = part.len().saturating_sub(SAMPLE_LEN) / 2;
        let sample = &part[middle..part.len().min(middle + SAMPLE_LEN)];
        plain += sample.len();
        compressed += compressor.compress(sample)?.len();
    }
    Ok(compressed + plain / SAVING_MIN < plain)
}
