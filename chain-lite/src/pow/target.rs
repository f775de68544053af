//! Targets, their compact form, and the work that meeting them takes.

use ruint::aliases::U256;
use thiserror::Error;

use crate::Hash;

/// What a hash, as a little-endian number, must not exceed: 1 to 2^255 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(U256);

/// How many hashes are expected to be tried until targets are met; the work of a branch is the sum of its
/// blocks'.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work(U256);

/// Why bits are no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The sign bit is set, and the mantissa is not zero.
    #[error("bits {bits:#010x} are a negative target")]
    Negative {
        /// The compact form.
        bits: u32,
    },
    /// The number is zero.
    #[error("bits {bits:#010x} are a target of zero, which no hash meets")]
    Zero {
        /// The compact form.
        bits: u32,
    },
    /// The number is above 2^255 - 1.
    #[error("bits {bits:#010x} are a target above 2^255 - 1")]
    AboveLimit {
        /// The compact form.
        bits: u32,
    },
}

impl Target {
    /// 2^255 - 1, the easiest target of every network.
    pub const LIMIT: Target = Target(U256::from_limbs([u64::MAX, u64::MAX, u64::MAX, u64::MAX >> 1]));

    /// Reads the compact form: a mantissa of 23 bits with a sign, times 256 to the power of the first byte
    /// less three. Forms that could be shorter are read as well, as the deployed nodes do.
    pub fn from_bits(bits: u32) -> Result<Target, TargetError> {
        let exponent = bits >> 24;
        let mantissa = bits & 0x007f_ffff;
        let small = if exponent < 3 { mantissa >> (8 * (3 - exponent)) } else { mantissa };
        if small == 0 {
            return Err(TargetError::Zero { bits });
        }
        if bits & 0x0080_0000 != 0 {
            return Err(TargetError::Negative { bits });
        }
        let shift = 8 * exponent.saturating_sub(3) as usize;
        let number = U256::from(small).checked_shl(shift).ok_or(TargetError::AboveLimit { bits })?;
        if number > Target::LIMIT.0 {
            return Err(TargetError::AboveLimit { bits });
        }
        Ok(Target(number))
    }

    /// The compact form, rounded down to what its mantissa holds.
    pub fn to_bits(self) -> u32 {
        compact(self.0)
    }

    /// Whether a hash is low enough.
    pub fn is_met_by(self, hash: &Hash) -> bool {
        U256::from_le_bytes(hash.0) <= self.0
    }

    /// The expected number of hashes until one meets this target: 2^256 / (target + 1), rounded down.
    pub fn work(self) -> Work {
        // 2^256 does not fit, but 2^256 / (t + 1) = (2^256 - 1 - t) / (t + 1) + 1, and the bits of t inverted
        // are the numerator.
        Work(!self.0 / (self.0 + U256::ONE) + U256::ONE)
    }

    /// The target as 32 bytes, the lowest first: the highest hash that meets it.
    pub fn to_le_bytes(self) -> [u8; 32] {
        self.0.to_le_bytes()
    }

    /// `self * span_s / timespan_s` in compact form, at most [`Self::LIMIT`]. Zero if nothing is left.
    pub(super) fn scaled_bits(self, span_s: u32, timespan_s: u32) -> u32 {
        // 255 bits times 32 bits: five words hold the product.
        let product: ruint::Uint<320, 5> = self.0.widening_mul(ruint::Uint::<64, 1>::from(span_s));
        let scaled = product / ruint::Uint::<320, 5>::from(timespan_s);
        let limit = ruint::Uint::<320, 5>::from(Target::LIMIT.0);
        compact(U256::from(scaled.min(limit)))
    }
}

impl Work {
    /// No work: where a sum begins.
    pub const ZERO: Work = Work(U256::ZERO);

    /// The sum, which ends at 2^256 - 1: more hashes than will ever be tried.
    pub fn plus(self, more: Work) -> Work {
        Work(self.0.saturating_add(more.0))
    }

    /// The number as 32 bytes, the lowest first.
    pub fn to_le_bytes(self) -> [u8; 32] {
        self.0.to_le_bytes()
    }

    /// The number that 32 bytes are, the lowest first.
    pub fn from_le_bytes(bytes: [u8; 32]) -> Work {
        Work(U256::from_le_bytes(bytes))
    }

    /// One more than this: the least work that is more.
    pub(super) fn next(self) -> Work {
        self.plus(Work(U256::ONE))
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#066x}", self.0)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:064x}", self.0)
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn compact(number: U256) -> u32 {
    let bytes = number.byte_len();
    let mut exponent = bytes as u32;
    let mut mantissa = if bytes <= 3 {
        (number << (8 * (3 - bytes))).to::<u32>()
    } else {
        (number >> (8 * (bytes - 3))).to::<u32>()
    };
    if number.is_zero() {
        return 0;
    }
    // The highest bit of the mantissa is its sign.
    if mantissa & 0x0080_0000 != 0 {
        mantissa >>= 8;
        exponent += 1;
    }
    exponent << 24 | mantissa
}
