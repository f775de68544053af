//! Coding a group in stripes: in each the shards that are shorter are padded by themselves, so that stored bytes are never copied to be padded, and stripes are
//! worked on by several threads.

use std::ops::Range;

use crate::erasure::STRIPE_ALIGN;

/// Bytes of each shard that are coded together: a group of 14 fits the second-level cache.
pub(super) const STRIPE_LEN: usize = 64 << 10;

const _: () = assert!(STRIPE_LEN.is_multiple_of(STRIPE_ALIGN));

/// The stripes of shards of `shard_len` bytes.
pub(super) fn stripes(shard_len: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let count = shard_len.div_ceil(STRIPE_LEN);
    (0..count).map(move |i| i * STRIPE_LEN..shard_len.min((i + 1) * STRIPE_LEN))
}

/// A stripe of shards of which some may be shorter than the group's, or not be there at all: as if zeros were behind each.
pub(super) struct PaddedStripe {
    /// The zeros, and behind them the shards that end in this stripe.
    padded: Vec<u8>,
    len: usize,
    sources: Vec<Source>,
}

enum Source {
    /// The whole stripe is in the shard.
    Shard,
    /// All zeros.
    Zeros,
    /// Copied to this place of `padded`.
    Padded(usize),
}

impl PaddedStripe {
    pub(super) fn new<'a>(range: &Range<usize>, shards: impl Iterator<Item = &'a [u8]>) -> PaddedStripe {
        let len = range.len();
        let (mut padded, mut sources) = (Vec::new(), Vec::new());
        for shard in shards {
            if shard.len() >= range.end {
                sources.push(Source::Shard);
                continue;
            }
            padded.resize(padded.len().max(len), 0);
            match shard.get(range.start..) {
                None | Some([]) => sources.push(Source::Zeros),
                Some(bytes) => {
                    let at = padded.len();
                    sources.push(Source::Padded(at));
                    padded.extend_from_slice(bytes);
                    padded.resize(at + len, 0);
                }
            }
        }
        PaddedStripe { padded, len, sources }
    }

    /// The stripe of shard `i`, whose bytes are `shard`.
    pub(super) fn of<'a>(&'a self, i: usize, range: &Range<usize>, shard: &'a [u8]) -> &'a [u8] {
        match self.sources[i] {
            Source::Shard => &shard[range.clone()],
            Source::Zeros => &self.padded[..self.len],
            Source::Padded(at) => &self.padded[at..at + self.len],
        }
    }
}
