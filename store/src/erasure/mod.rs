//! Erasure codes: of k data shards and m parity shards any k bring back the rest.
//!
//! A [`Codec`] is systematic: the data shards are what the publisher has, unchanged. All shards of a group have one length. Byte ranges at
//! multiples of [`STRIPE_ALIGN`] can be coded by themselves, so that a group larger than memory is coded in stripes.
//!
//! Two codes, which a list names by their number ([`Code`]). The page `docs/erasure.md` tells their definitions, their limits, how
//! segments of unequal length are padded, and what they cost.

mod gf256;
#[expect(unsafe_code, reason = "vector instructions; nothing else of the crate needs them")]
mod kernel;
mod leopard;
mod matrix;
mod reed_solomon;

pub use kernel::Kernel;

use self::leopard::Leopard;
use self::reed_solomon::ReedSolomon;

/// Stripes of shards begin at multiples of this many bytes.
pub const STRIPE_ALIGN: usize = 64;

/// Most shards of a group, data and parity together, whatever the code. A list's segment table, not a code, sets it.
pub const SHARDS_MAX: usize = 4096;

/// Which code, and its number in lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Code {
    /// Reed-Solomon over GF(2^8), generator as in the codes of Backblaze and klauspost. At most 256 shards.
    ReedSolomon256 = 1,
    /// Reed-Solomon over GF(2^16) by fast Fourier transformation (Leopard), as in crate `reed-solomon-simd` 3. At most
    /// [`SHARDS_MAX`] shards of an even length.
    Leopard65536 = 2,
}

impl Code {
    /// The one that is faster for groups of this shape: ReedSolomon256 where it can be used and parity is not long, for its work grows with
    /// k times m.
    pub fn fastest_for(shape: Shape) -> Code {
        if shape.shards() <= Code::ReedSolomon256.shards_max() && shape.parity <= PARITY_OF_SHORT_CODES {
            Code::ReedSolomon256
        } else {
            Code::Leopard65536
        }
    }

    /// By its number in a list; `None` if there is no such code.
    pub fn from_number(number: u16) -> Option<Code> {
        [Code::ReedSolomon256, Code::Leopard65536].into_iter().find(|code| *code as u16 == number)
    }

    /// Most shards of a group, data and parity together.
    pub fn shards_max(self) -> usize {
        match self {
            Code::ReedSolomon256 => 256,
            Code::Leopard65536 => SHARDS_MAX,
        }
    }

    /// Shards have a multiple of this many bytes.
    pub fn shard_align(self) -> usize {
        match self {
            Code::ReedSolomon256 => 1,
            Code::Leopard65536 => 2,
        }
    }
}

/// Above this many parity shards the transformation of [`Code::Leopard65536`] is the faster way (measured; `docs/erasure.md`).
const PARITY_OF_SHORT_CODES: usize = 32;

/// How many shards of which kind a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// k, the data shards, at least 1.
    pub data: usize,
    /// m, the parity shards, at least 1: as many as may be lost.
    pub parity: usize,
}

impl Shape {
    /// k + m.
    pub fn shards(self) -> usize {
        self.data.saturating_add(self.parity)
    }
}

/// Why a group cannot be coded or brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// The code has no such shape.
    #[error(
        "{data}+{parity} shards: a group of this code has at least one of each and at most {shards_max} together"
    )]
    Shape {
        /// k.
        data: usize,
        /// m.
        parity: usize,
        /// Most shards of the code.
        shards_max: usize,
    },
    /// The caller gave another number of shards than the shape has.
    #[error("{found} shards where the group has {expected}")]
    ShardCount {
        /// What the shape has.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Shards of different lengths, or of a length that the code has not.
    #[error(
        "a shard of {found} bytes where the others have {expected}, or the length is no multiple of {align}"
    )]
    ShardLen {
        /// Length of the group's first shard, bytes.
        expected: usize,
        /// Length of this one.
        found: usize,
        /// What the code's lengths are multiples of.
        align: usize,
    },
    /// More shards are lost than the code can bring back.
    #[error("{present} of {needed} needed shards are there: {} more must be found", needed - present)]
    TooFew {
        /// Shards that are there.
        present: usize,
        /// k.
        needed: usize,
    },
    /// A shard that is to be brought back is there already, is asked for twice, or is none of the group's.
    #[error(
        "shard {index} cannot be brought back: it is there, is asked for twice, or is none of the group's"
    )]
    Wanted {
        /// Which.
        index: usize,
    },
}

/// A code for groups of one shape.
#[derive(Debug)]
pub struct Codec {
    shape: Shape,
    code: Code,
    method: Method,
}

#[derive(Debug)]
enum Method {
    ReedSolomon(ReedSolomon),
    Leopard(Leopard),
}

impl Codec {
    /// A codec with the fastest instructions that this CPU has.
    ///
    /// # Errors
    /// [`ErasureError::Shape`].
    pub fn new(code: Code, shape: Shape) -> Result<Codec, ErasureError> {
        Codec::with_kernel(code, shape, Kernel::fastest())
    }

    /// A codec with the given instructions. [`Code::Leopard65536`] chooses its own.
    ///
    /// # Errors
    /// [`ErasureError::Shape`].
    pub fn with_kernel(code: Code, shape: Shape, kernel: Kernel) -> Result<Codec, ErasureError> {
        let Shape { data, parity } = shape;
        let shards_max = code.shards_max();
        if data == 0 || parity == 0 || shape.shards() > shards_max {
            return Err(ErasureError::Shape { data, parity, shards_max });
        }
        let method = match code {
            Code::ReedSolomon256 => Method::ReedSolomon(ReedSolomon::new(shape, kernel)),
            Code::Leopard65536 => Method::Leopard(Leopard::new(shape)),
        };
        Ok(Codec { shape, code, method })
    }

    /// k and m.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Which code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Makes the parity shards of `data`. Whatever `parity` held is overwritten.
    ///
    /// # Errors
    /// [`ErasureError::ShardCount`], [`ErasureError::ShardLen`].
    pub fn encode(&mut self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
        self.check_count(self.shape.data, data.len())?;
        self.check_count(self.shape.parity, parity.len())?;
        let lengths = data.iter().map(|shard| shard.len()).chain(parity.iter().map(|shard| shard.len()));
        if self.check_lengths(lengths)? == 0 {
            return Ok(());
        }
        match &mut self.method {
            Method::ReedSolomon(code) => code.encode(data, parity),
            Method::Leopard(code) => code.encode(data, parity),
        }
        Ok(())
    }

    /// Brings back the shards that `wanted` names by their index (data from 0, parity from k) into its buffers, out of those that are
    /// there: `shards` has an element for each of the group's, `None` where one is lost. Shards that are lost and not wanted cost nothing.
    ///
    /// # Errors
    /// Any of [`ErasureError`] but its first.
    pub fn reconstruct(
        &mut self,
        shards: &[Option<&[u8]>],
        wanted: &mut [(usize, &mut [u8])],
    ) -> Result<(), ErasureError> {
        self.check_count(self.shape.shards(), shards.len())?;
        let mut taken = vec![false; shards.len()];
        for (index, _) in wanted.iter() {
            match taken.get_mut(*index) {
                Some(taken) if !*taken && shards[*index].is_none() => *taken = true,
                _ => return Err(ErasureError::Wanted { index: *index }),
            }
        }
        let present = shards.iter().flatten().count();
        if present < self.shape.data {
            return Err(ErasureError::TooFew { present, needed: self.shape.data });
        }
        let lengths = shards
            .iter()
            .flatten()
            .map(|shard| shard.len())
            .chain(wanted.iter().map(|(_, shard)| shard.len()));
        if self.check_lengths(lengths)? == 0 || wanted.is_empty() {
            return Ok(());
        }
        match &mut self.method {
            Method::ReedSolomon(code) => code.reconstruct(shards, wanted),
            Method::Leopard(code) => code.reconstruct(shards, wanted),
        }
        Ok(())
    }

    fn check_count(&self, expected: usize, found: usize) -> Result<(), ErasureError> {
        if found == expected { Ok(()) } else { Err(ErasureError::ShardCount { expected, found }) }
    }

    /// The length that all have.
    fn check_lengths(&self, mut lengths: impl Iterator<Item = usize>) -> Result<usize, ErasureError> {
        let align = self.code.shard_align();
        let expected = lengths.next().unwrap_or(0);
        if !expected.is_multiple_of(align) {
            return Err(ErasureError::ShardLen { expected, found: expected, align });
        }
        match lengths.find(|len| *len != expected) {
            Some(found) => Err(ErasureError::ShardLen { expected, found, align }),
            None => Ok(expected),
        }
    }
}
