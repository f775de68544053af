//! Reading Bitcoin's encoding without copying: every length is compared with what is left before anything
//! follows it.

use thiserror::Error;

/// Why bytes are no header, no block and no transaction. Offsets count from the first byte of what was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("{field} at byte {at} needs {needed} bytes, {left} are left; ask for all of it")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// How many bytes it has.
        needed: u64,
        /// How many there are.
        left: usize,
    },
    /// A length that is written longer than it must be. What follows would have two encodings and
    /// one hash.
    #[error("{field} at byte {at}: {value} is not written in the shortest form")]
    LongForm {
        /// What was being read.
        field: &'static str,
        /// Where its length begins.
        at: usize,
        /// The length.
        value: u64,
    },
    /// Bytes above the bound of the deployed nodes: a script, a payload, a program.
    #[error("{field} at byte {at} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Where its length begins.
        at: usize,
        /// Its length in bytes.
        len: u64,
        /// The bound in bytes.
        max: u64,
    },
    /// More of something than the deployed nodes allow.
    #[error("{field} at byte {at} is {count}, at most {max} are allowed")]
    TooMany {
        /// What is counted.
        field: &'static str,
        /// Where the number begins.
        at: usize,
        /// The number.
        count: u64,
        /// The bound.
        max: u64,
    },
    /// A type byte that names nothing.
    #[error("{field} at byte {at} is {found:#04x}, which the deployed nodes do not know")]
    UnknownType {
        /// What was being read.
        field: &'static str,
        /// Where it is.
        at: usize,
        /// The byte.
        found: u8,
    },
    /// Bytes follow the end.
    #[error("it ends at byte {at}, but {left} more bytes follow")]
    Trailing {
        /// Where what was decoded ends.
        at: usize,
        /// How many bytes follow.
        left: usize,
    },
}

/// A place in bytes that somebody else wrote.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What was read since byte `start`, which must not be above [`Self::at`].
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { at: self.at, left }),
        }
    }

    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<&'a [u8; N], DecodeError> {
        let Some((array, _)) = self.bytes[self.at..].split_first_chunk() else {
            return Err(self.truncated(field, N as u64));
        };
        self.at += N;
        Ok(array)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let [byte] = *self.array(field)?;
        Ok(byte)
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(*self.array(field)?))
    }

    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(*self.array(field)?))
    }

    /// Bitcoin's variable-length integer, in its shortest form.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let at = self.at;
        let first = self.u8(field)?;
        let (value, shortest) = match first {
            0xff => (u64::from_le_bytes(*self.array(field)?), 1 << 32),
            0xfe => (u64::from(self.u32(field)?), 1 << 16),
            0xfd => (u64::from(u16::from_le_bytes(*self.array(field)?)), 0xfd),
            small => (u64::from(small), 0),
        };
        if value < shortest {
            return Err(DecodeError::LongForm { field, at, value });
        }
        Ok(value)
    }

    /// Bytes with their length in front.
    pub fn bytes(&mut self, field: &'static str, max: u64) -> Result<&'a [u8], DecodeError> {
        let at = self.at;
        let len = self.varint(field)?;
        if len > max {
            return Err(DecodeError::TooLong { field, at, len, max });
        }
        self.take(field, len)
    }

    /// Hashes with their number in front.
    pub fn hashes(&mut self, field: &'static str) -> Result<&'a [[u8; 32]], DecodeError> {
        let count = self.varint(field)?;
        self.records(field, count)
    }

    /// `count` records of `N` bytes each.
    pub fn records<const N: usize>(
        &mut self,
        field: &'static str,
        count: u64,
    ) -> Result<&'a [[u8; N]], DecodeError> {
        let bytes = self.take(field, count.saturating_mul(N as u64))?;
        let (records, rest) = bytes.as_chunks();
        debug_assert!(rest.is_empty(), "a multiple of the record's length was taken");
        Ok(records)
    }

    fn take(&mut self, field: &'static str, len: u64) -> Result<&'a [u8], DecodeError> {
        match usize::try_from(len) {
            Ok(len) if len <= self.left() => {
                let taken = &self.bytes[self.at..self.at + len];
                self.at += len;
                Ok(taken)
            }
            _ => Err(self.truncated(field, len)),
        }
    }

    /// How many bytes follow.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn truncated(&self, field: &'static str, needed: u64) -> DecodeError {
        DecodeError::Truncated { field, at: self.at, needed, left: self.left() }
    }
}

/// Appends Bitcoin's variable-length integer in its shortest form.
pub fn write_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0xfd => out.push(value as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Appends bytes with their length in front.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
