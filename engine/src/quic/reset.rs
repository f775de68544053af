//! Stateless resets (RFC 9000 section 10.3): what tells a client at once that the server has lost its connection.

/// The shortest datagram that can be a stateless reset.
const LEN_MIN: usize = 21;
/// What provokes a reset is longer than the reset, so that two endpoints cannot keep each other busy (section 10.3.3);
/// 43 bytes look like any other short header packet.
const LEN_PREFERRED: usize = 43;

/// Writes a stateless reset into `out` in answer to a datagram of `provoked_by` bytes, and returns its length; `None`
/// if that datagram was too short to be answered. `random` fills the unpredictable bits.
pub fn write(
    provoked_by: usize,
    token: &[u8; 16],
    random: &[u8; LEN_PREFERRED],
    out: &mut [u8],
) -> Option<usize> {
    let len = provoked_by.checked_sub(1)?.min(LEN_PREFERRED);
    if len < LEN_MIN || out.len() < len {
        return None;
    }
    out[..len - 16].copy_from_slice(&random[..len - 16]);
    // The two high bits of a short header: 0 and the fixed bit.
    out[0] = out[0] & 0x3f | 0x40;
    out[len - 16..len].copy_from_slice(token);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_smaller_than_what_provoked_it() {
        let mut out = [0; 100];
        for provoked_by in 0..1500 {
            match write(provoked_by, &[9; 16], &[0xff; LEN_PREFERRED], &mut out) {
                None => assert!(provoked_by <= LEN_MIN),
                Some(len) => {
                    assert!(len < provoked_by && (LEN_MIN..=LEN_PREFERRED).contains(&len));
                    assert_eq!(out[0] & 0xc0, 0x40);
                    assert_eq!(out[len - 16..len], [9; 16]);
                }
            }
        }
    }
}
