//! The Range field (RFC 9110 section 14): one byte range, resolved against a length.

use std::ops::Range;

/// One byte range as a client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-`: from `first` to the end.
    From(u64),
    /// `bytes=first-last`: both inclusive, `first <= last`.
    Between(u64, u64),
    /// `bytes=-len`: the last `len` bytes.
    Suffix(u64),
}

/// What a range comes to for a certain length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranged {
    /// Answer with the whole: 200.
    Whole,
    /// Answer with these bytes, which are at least one: 206.
    Part(Range<u64>),
    /// No byte of the target is asked for: 416.
    Unsatisfiable,
}

impl ByteRange {
    /// Reads a Range field. None where it is to be ignored and the whole is sent with 200: another unit, a malformed
    /// specifier ("A server MAY ignore the Range header field", RFC 9110 section 14.2), or more than one range, which
    /// this service does not assemble: clients fetch segments side by side instead.
    pub fn parse(field: &[u8]) -> Option<ByteRange> {
        let equals = field.iter().position(|byte| *byte == b'=')?;
        let (unit, set) = (&field[..equals], &field[equals + 1..]);
        // RFC 9110 section 14.1: "Range units [...] are case-insensitive."
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        // RFC 9110 section 5.6.1.2: a recipient accepts empty list elements.
        let mut specs = set.split(|byte| *byte == b',').map(trim_whitespace).filter(|spec| !spec.is_empty());
        let spec = specs.next()?;
        if specs.next().is_some() {
            return None;
        }
        let dash = spec.iter().position(|byte| *byte == b'-')?;
        match (&spec[..dash], &spec[dash + 1..]) {
            (b"", suffix) => Some(ByteRange::Suffix(position(suffix)?)),
            (first, b"") => Some(ByteRange::From(position(first)?)),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                // "An int-range is invalid if the last-pos value is present and less than first-pos."
                (first <= last).then_some(ByteRange::Between(first, last))
            }
        }
    }

    /// Resolves the range against a target of `len` bytes (RFC 9110 section 14.1.2).
    pub fn resolve(self, len: u64) -> Ranged {
        match self {
            ByteRange::From(first) | ByteRange::Between(first, _) if first >= len => Ranged::Unsatisfiable,
            ByteRange::From(first) => Ranged::Part(first..len),
            // "If the last-pos value is [...] greater than or equal to the current length [...], the byte range is
            // interpreted as the remainder of the representation."
            ByteRange::Between(first, last) => Ranged::Part(first..last.saturating_add(1).min(len)),
            ByteRange::Suffix(0) => Ranged::Unsatisfiable,
            // A suffix of nothing is satisfiable, yet content-range cannot say so: the whole, which is empty.
            ByteRange::Suffix(_) if len == 0 => Ranged::Whole,
            ByteRange::Suffix(suffix) => Ranged::Part(len.saturating_sub(suffix)..len),
        }
    }
}

/// Reads `1*DIGIT`. A number past u64 is held to its largest value: it is past every length all the same.
fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        digit.is_ascii_digit().then(|| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

/// Strips OWS (RFC 9110 section 5.6.3): spaces and tabs.
fn trim_whitespace(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
