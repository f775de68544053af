//! Reed-Solomon over GF(2^16) by fast Fourier transformation, on `reed-solomon-simd`.
//!
//! That library copies all shards into a buffer of its own and goes over them several times. So it is fed stripes that stay in the cache;
//! its unit is 64 bytes, and stripes at multiples of it give the same shards as the whole.

use std::fmt;

use reed_solomon_simd::{Error, ReedSolomonDecoder, ReedSolomonEncoder};

use super::{STRIPE_ALIGN, Shape};

/// Bytes that the shards of one stripe have together.
const STRIPE_BYTES: usize = 512 << 10;

/// Why the library's errors are not handled: each is about something that `Codec` has checked.
const CHECKED: &str = "counts, indices and lengths were checked";

pub(super) struct Leopard {
    shape: Shape,
    encoder: Option<ReedSolomonEncoder>,
    decoder: Option<ReedSolomonDecoder>,
}

impl fmt::Debug for Leopard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leopard").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Leopard {
    pub(super) fn new(shape: Shape) -> Leopard {
        Leopard { shape, encoder: None, decoder: None }
    }

    /// All of one length, which is not 0.
    pub(super) fn encode(&mut self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        let len = data[0].len();
        for (from, to) in stripes(self.shape, len) {
            self.encode_stripe(data.iter().map(|shard| &shard[from..to]), to - from, |index, bytes| {
                parity[index][from..to].copy_from_slice(bytes);
            })
            .expect(CHECKED);
        }
    }

    /// At least k of `shards` are there, and none of `wanted`; all of one length, which is not 0.
    pub(super) fn reconstruct(&mut self, shards: &[Option<&[u8]>], wanted: &mut [(usize, &mut [u8])]) {
        let len = wanted[0].1.len();
        for (from, to) in stripes(self.shape, len) {
            self.reconstruct_stripe(shards, wanted, from, to).expect(CHECKED);
        }
    }

    fn reconstruct_stripe(
        &mut self,
        shards: &[Option<&[u8]>],
        wanted: &mut [(usize, &mut [u8])],
        from: usize,
        to: usize,
    ) -> Result<(), Error> {
        let Shape { data, parity } = self.shape;
        let lost = self.restore_data_stripe(&shards[..data], &shards[data..], from, to)?;
        let mut restored = lost.iter();
        let whole: Vec<&[u8]> = shards[..data]
            .iter()
            .map(|shard| match shard {
                Some(shard) => &shard[from..to],
                None => restored.next().map_or(&[][..], Vec::as_slice),
            })
            .collect();
        let mut parity_wanted = vec![None; parity];
        for (slot, (index, output)) in wanted.iter_mut().enumerate() {
            match whole.get(*index) {
                Some(bytes) => output[from..to].copy_from_slice(bytes),
                None => parity_wanted[*index - data] = Some(slot),
            }
        }
        if parity_wanted.iter().all(Option::is_none) {
            return Ok(());
        }
        self.encode_stripe(whole.into_iter(), to - from, |index, bytes| {
            if let Some(slot) = parity_wanted[index] {
                wanted[slot].1[from..to].copy_from_slice(bytes);
            }
        })
    }

    /// The lost data shards' bytes `from..to`, in order.
    fn restore_data_stripe(
        &mut self,
        data: &[Option<&[u8]>],
        parity: &[Option<&[u8]>],
        from: usize,
        to: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let Shape { data: k, parity: m } = self.shape;
        let lost: Vec<usize> = (0..k).filter(|index| data[*index].is_none()).collect();
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => {
                decoder.reset(k, m, to - from)?;
                decoder
            }
            none => none.insert(ReedSolomonDecoder::new(k, m, to - from)?),
        };
        for (index, shard) in data.iter().enumerate() {
            if let Some(shard) = shard {
                decoder.add_original_shard(index, &shard[from..to])?;
            }
        }
        let present = parity.iter().enumerate().filter_map(|(index, shard)| Some((index, (*shard)?)));
        for (index, shard) in present.take(lost.len()) {
            decoder.add_recovery_shard(index, &shard[from..to])?;
        }
        let restored = decoder.decode()?;
        Ok(lost.iter().map(|index| restored.restored_original(*index).expect(CHECKED).to_vec()).collect())
    }

    /// Makes the parity of one stripe, and gives each shard's index and bytes away.
    fn encode_stripe<'a>(
        &mut self,
        data: impl Iterator<Item = &'a [u8]>,
        len: usize,
        mut made: impl FnMut(usize, &[u8]),
    ) -> Result<(), Error> {
        let Shape { data: k, parity: m } = self.shape;
        let encoder = match &mut self.encoder {
            Some(encoder) => {
                encoder.reset(k, m, len)?;
                encoder
            }
            none => none.insert(ReedSolomonEncoder::new(k, m, len)?),
        };
        for shard in data {
            encoder.add_original_shard(shard)?;
        }
        encoder.encode()?.recovery_iter().enumerate().for_each(|(index, bytes)| made(index, bytes));
        Ok(())
    }
}

/// Where the stripes of shards of `len` bytes begin and end.
fn stripes(shape: Shape, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let stripe_len = (STRIPE_BYTES / shape.shards()).next_multiple_of(STRIPE_ALIGN);
    (0..len).step_by(stripe_len).map(move |from| (from, len.min(from + stripe_len)))
}
