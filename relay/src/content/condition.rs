//! Entity tags and the conditions on them (RFC 9110 sections 8.8.3 and 13.1).

/// Length of a target's entity tag in bytes: 64 hexadecimal digits in quotes.
pub(super) const ETAG_LEN: usize = 66;

/// The strong entity tag of a target: its address in quotes. The bytes behind an address never change.
pub(super) fn etag(hash: &[u8; 32]) -> [u8; ETAG_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut tag = [b'"'; ETAG_LEN];
    for (pair, byte) in tag[1..ETAG_LEN - 1].chunks_exact_mut(2).zip(hash) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    tag
}

/// What If-None-Match comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The client holds these bytes already: 304.
    Held,
    /// It does not, or did not say.
    NotHeld,
}

impl Condition {
    /// Reads If-None-Match: `*` or a list of entity tags, compared weakly (RFC 9110 section 13.1.2). Reading stops at
    /// the first malformed element; the answer is then the content, which is never wrong.
    pub(super) fn of_if_none_match(field: Option<&[u8]>, etag: &[u8; ETAG_LEN]) -> Condition {
        let Some(mut rest) = field.map(skip_separators) else { return Condition::NotHeld };
        // "If the field value is '*', the condition is false if the origin server has a current representation."
        if rest == b"*" {
            return Condition::Held;
        }
        while !rest.is_empty() {
            let weak_stripped = rest.strip_prefix(b"W/").unwrap_or(rest);
            let Some((tag, behind)) = entity_tag(weak_stripped) else { return Condition::NotHeld };
            if tag == etag {
                return Condition::Held;
            }
            let separated = skip_separators(behind);
            // Two tags stand apart by a comma.
            if !separated.is_empty() && !behind[..behind.len() - separated.len()].contains(&b',') {
                return Condition::NotHeld;
            }
            rest = separated;
        }
        Condition::NotHeld
    }
}

/// Whether a Range counts in view of If-Range (RFC 9110 section 13.1.5): absent, or the same strong entity tag. A date
/// never holds, because this service gives no Last-Modified; a weak tag never holds, because the comparison is strong.
pub(super) fn if_range_holds(field: Option<&[u8]>, etag: &[u8; ETAG_LEN]) -> bool {
    field.is_none_or(|field| field == etag)
}

/// Splits off an opaque tag with its quotes: `DQUOTE *etagc DQUOTE`, etagc = %x21 / %x23-7E / %x80-FF.
fn entity_tag(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = bytes.strip_prefix(b"\"")?;
    let len = inner.iter().position(|byte| !matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff))?;
    (inner[len] == b'"').then(|| bytes.split_at(len + 2))
}

/// Skips commas, spaces and tabs, which stand between list elements and may stand around them.
fn skip_separators(mut bytes: &[u8]) -> &[u8] {
    while let [b',' | b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}
