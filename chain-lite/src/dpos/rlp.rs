//! Reading and writing RLP, Ethereum's encoding, in its one canonical form and without copying.

use thiserror::Error;

/// Why bytes are not what they should be. Offsets count from the first byte of what was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end inside an item.
    #[error("{field} at byte {at} needs {needed} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// How many bytes it says it has.
        needed: u64,
        /// How many there are.
        left: usize,
    },
    /// A length or a single byte has a shorter form. One value has one encoding.
    #[error("{field} at byte {at} is not in its shortest form")]
    LongForm {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A list stands where a string must be.
    #[error("{field} at byte {at} is a list, it must be a string")]
    List {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A string stands where a list must be.
    #[error("{field} at byte {at} is a string, it must be a list")]
    String {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A field of fixed width has another.
    #[error("{field} at byte {at} has {len} bytes, it must have {expected}")]
    Width {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// Its length.
        len: usize,
        /// What its length must be.
        expected: usize,
    },
    /// A number begins with a zero byte.
    #[error("{field} at byte {at} begins with a zero byte")]
    LeadingZero {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A number does not fit.
    #[error("{field} at byte {at} is a number of {len} bytes, at most {max} fit")]
    TooLarge {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// Its length.
        len: usize,
        /// How many bytes fit.
        max: usize,
    },
    /// There are more items than may be.
    #[error("{field} at byte {at} has more than {max} items")]
    TooMany {
        /// What was being read.
        field: &'static str,
        /// Where the first that is too many starts.
        at: usize,
        /// How many there may be.
        max: usize,
    },
    /// Bytes follow the end.
    #[error("{left} bytes follow the end at byte {at}")]
    Trailing {
        /// Where the end is.
        at: usize,
        /// How many bytes follow.
        left: usize,
    },
    /// There are more bytes than are read of anybody.
    #[error("{field} has {len} bytes, at most {max} are read")]
    TooLong {
        /// What was to be read.
        field: &'static str,
        /// How many bytes there are.
        len: usize,
        /// How many there may be.
        max: usize,
    },
    /// A kind that is not known here.
    #[error("{field} at byte {at} is of kind {kind:#04x}, which is not known")]
    Kind {
        /// What was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// Its kind.
        kind: u8,
    },
}

/// One item: a string or a list, with what it holds.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    /// Whether it is a list.
    pub list: bool,
    /// Offset of its first byte.
    pub at: usize,
    /// What it holds, without its own prefix.
    pub payload: &'a [u8],
    /// The whole of it, prefix included.
    pub raw: &'a [u8],
}

/// Reads items one after the other.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Offset of `bytes` in what was decoded.
    base: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, base: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn at(&self) -> usize {
        self.base + self.at
    }

    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { at: self.at(), left }),
        }
    }

    /// The next item, whatever it is.
    #[inline]
    pub fn item(&mut self, field: &'static str) -> Result<Item<'a>, DecodeError> {
        let at = self.at();
        let rest = &self.bytes[self.at..];
        let Some(&first) = rest.first() else {
            return Err(DecodeError::Truncated { field, at, needed: 1, left: 0 });
        };
        let (list, start, len) = match first {
            0..0x80 => (false, 0, 1),
            0x80..=0xb7 => (false, 1, u64::from(first - 0x80)),
            0xb8..=0xbf => (false, 1 + usize::from(first - 0xb7), self.long_len(field, first - 0xb7)?),
            0xc0..=0xf7 => (true, 1, u64::from(first - 0xc0)),
            0xf8..=0xff => (true, 1 + usize::from(first - 0xf7), self.long_len(field, first - 0xf7)?),
        };
        let left = rest.len() - start;
        let end = match usize::try_from(len) {
            Ok(len) if len <= left => start + len,
            _ => return Err(DecodeError::Truncated { field, at, needed: len, left }),
        };
        let (payload, raw) = (&rest[start..end], &rest[..end]);
        if first == 0x81 && payload[0] < 0x80 {
            return Err(DecodeError::LongForm { field, at });
        }
        self.at += end;
        Ok(Item { list, at, payload, raw })
    }

    /// The length behind a prefix that says in how many bytes the length is written.
    fn long_len(&self, field: &'static str, len_of_len: u8) -> Result<u64, DecodeError> {
        let at = self.at();
        let rest = &self.bytes[self.at + 1..];
        let Some(digits) = rest.get(..usize::from(len_of_len)) else {
            return Err(DecodeError::Truncated {
                field,
                at,
                needed: u64::from(len_of_len),
                left: rest.len(),
            });
        };
        let len = digits.iter().fold(0, |len, &digit| len << 8 | u64::from(digit));
        if digits[0] == 0 || len < 56 {
            return Err(DecodeError::LongForm { field, at });
        }
        Ok(len)
    }

    /// A list, as a reader of what it holds.
    pub fn list(&mut self, field: &'static str) -> Result<Reader<'a>, DecodeError> {
        let item = self.item(field)?;
        if !item.list {
            return Err(DecodeError::String { field, at: item.at });
        }
        let base = item.at + item.raw.len() - item.payload.len();
        Ok(Reader { bytes: item.payload, at: 0, base })
    }

    /// A string of any length.
    #[inline]
    pub fn string(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let item = self.item(field)?;
        if item.list {
            return Err(DecodeError::List { field, at: item.at });
        }
        Ok(item.payload)
    }

    /// A string of exactly `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<&'a [u8; N], DecodeError> {
        let at = self.at();
        let payload = self.string(field)?;
        payload.try_into().map_err(|_| DecodeError::Width { field, at, len: payload.len(), expected: N })
    }

    /// The big-endian bytes of a number of at most `N` bytes, without leading zeros.
    #[inline]
    fn digits<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let at = self.at();
        let digits = self.string(field)?;
        if digits.first() == Some(&0) {
            return Err(DecodeError::LeadingZero { field, at });
        }
        let mut wide = [0; N];
        let Some(start) = N.checked_sub(digits.len()) else {
            return Err(DecodeError::TooLarge { field, at, len: digits.len(), max: N });
        };
        wide[start..].copy_from_slice(digits);
        Ok(wide)
    }

    #[inline]
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.digits(field)?))
    }

    #[inline]
    pub fn u256(&mut self, field: &'static str) -> Result<alloy_primitives::U256, DecodeError> {
        Ok(alloy_primitives::U256::from_be_bytes(self.digits::<32>(field)?))
    }
}

/// Appends a string.
pub(super) fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes {
        [single @ 0..0x80] => out.push(*single),
        _ => {
            write_prefix(out, 0x80, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

/// Appends a number, without leading zeros.
pub(super) fn write_u64(out: &mut Vec<u8>, number: u64) {
    let zeros = number.leading_zeros() as usize / 8;
    write_string(out, &number.to_be_bytes()[zeros..]);
}

/// Appends a number, without leading zeros.
pub(super) fn write_u256(out: &mut Vec<u8>, number: &alloy_primitives::U256) {
    let zeros = number.leading_zeros() / 8;
    write_string(out, &number.to_be_bytes::<32>()[zeros..]);
}

/// Appends a list of what `payload` holds, which is encoded already.
pub(super) fn write_list(out: &mut Vec<u8>, payload: &[u8]) {
    write_list_prefix(out, payload.len());
    out.extend_from_slice(payload);
}

/// Appends what stands before the `len` bytes that a list holds.
pub(super) fn write_list_prefix(out: &mut Vec<u8>, len: usize) {
    write_prefix(out, 0xc0, len);
}

/// How many bytes a string takes, its prefix included.
pub(super) fn string_len(bytes: &[u8]) -> usize {
    match bytes {
        [0..0x80] => 1,
        _ if bytes.len() < 56 => 1 + bytes.len(),
        _ => 1 + digits_of_len(bytes.len()) + bytes.len(),
    }
}

fn write_prefix(out: &mut Vec<u8>, short: u8, len: usize) {
    if len < 56 {
        out.push(short + len as u8);
    } else {
        let digits = digits_of_len(len);
        out.push(short + 55 + digits as u8);
        out.extend_from_slice(&(len as u64).to_be_bytes()[8 - digits..]);
    }
}

/// In how many bytes a length is written.
fn digits_of_len(len: usize) -> usize {
    8 - (len as u64).leading_zeros() as usize / 8
}
