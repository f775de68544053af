//! ChannelData as it lies in a received batch (RFC 8656 section 12.4): four bytes of header, then the payload.
//!
//! ```text
//!  0                   1                   2                   3
//! +-------------------------------+-------------------------------+
//! |  channel number, 0x4000-7FFF  |  length of the payload, bytes |
//! +-------------------------------+-------------------------------+
//! ```

/// Bytes of the header.
pub const HEADER_LEN: usize = 4;

/// Channel numbers: those of RFC 5766, which clients still choose from; RFC 8656 section 12 leaves of them 0x4000
/// to 0x4FFF.
const NUMBERS: std::ops::RangeInclusive<u16> = 0x4000..=0x7FFF;

/// Bytes by which a datagram may be longer than its message: a client may pad over UDP too (RFC 8656 section 12.5).
const PADDING_MAX: usize = 3;

/// ChannelData messages of one channel that lie one after the other in a batch, each in a datagram of its own, all
/// with payloads of one length; the last may be shorter, but not empty after others that are not. That is what one GSO batch
/// can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The channel.
    pub number: u16,
    /// Messages, at least one.
    pub count: usize,
    /// Payload bytes of every message but the last.
    pub payload_len: usize,
    /// Payload bytes of the last one.
    pub last_payload_len: usize,
}

impl Run {
    /// The longest run at the front of a batch whose datagrams lie `segment_len` apart. `None`: the first is no
    /// ChannelData, or cut short.
    #[must_use]
    pub fn first_of(batch: &[u8], segment_len: usize) -> Option<Run> {
        let mut datagrams = batch.chunks(segment_len.max(1));
        let (number, payload_len) = parse(datagrams.next()?)?;
        let mut run = Run { number, count: 1, payload_len, last_payload_len: payload_len };
        for datagram in datagrams {
            match parse(datagram) {
                Some((same, len)) if same == number && (payload_len.min(1)..=payload_len).contains(&len) => {
                    run.count += 1;
                    run.last_payload_len = len;
                    if len < payload_len {
                        break;
                    }
                }
                _ => break,
            }
        }
        Some(run)
    }

    /// Payload bytes of all messages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.count - 1) * self.payload_len + self.last_payload_len
    }

    /// Where the payload of the `i`-th message lies, counted from the start of the run.
    #[must_use]
    pub fn payload(&self, i: usize, segment_len: usize) -> std::ops::Range<usize> {
        let len = if i + 1 == self.count { self.last_payload_len } else { self.payload_len };
        let start = i * segment_len + HEADER_LEN;
        start..start + len
    }
}

/// The header of a message with a payload of `payload_len` bytes, at most 65,535.
#[inline]
#[must_use]
pub fn header(number: u16, payload_len: usize) -> [u8; HEADER_LEN] {
    let ([a, b], [c, d]) = (number.to_be_bytes(), (payload_len as u16).to_be_bytes());
    [a, b, c, d]
}

/// Channel number and payload length of a datagram that is one ChannelData message.
#[inline]
fn parse(datagram: &[u8]) -> Option<(u16, usize)> {
    let &[a, b, c, d, ref rest @ ..] = datagram else { return None };
    let (number, len) = (u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d])));
    let is_whole = len <= rest.len() && rest.len() - len <= PADDING_MAX;
    (NUMBERS.contains(&number) && is_whole).then_some((number, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u16, payload_len: usize, padding: usize) -> Vec<u8> {
        let mut bytes = header(number, payload_len).to_vec();
        bytes.resize(HEADER_LEN + payload_len + padding, 7);
        bytes
    }

    #[test]
    fn a_run_ends_where_the_channel_or_the_length_changes() {
        let mut batch: Vec<u8> = (0..3).flat_map(|_| message(0x4001, 100, 0)).collect();
        batch.extend(message(0x4002, 100, 0));
        batch.extend(message(0x4002, 40, 0));
        let run = Run::first_of(&batch, 104).expect("a run");
        assert_eq!(run, Run { number: 0x4001, count: 3, payload_len: 100, last_payload_len: 100 });
        let run = Run::first_of(&batch[3 * 104..], 104).expect("a run");
        assert_eq!(run, Run { number: 0x4002, count: 2, payload_len: 100, last_payload_len: 40 });
        assert_eq!((run.bytes(), run.payload(1, 104)), (140, 108..148));
    }

    #[test]
    fn padding_is_tolerated_and_a_shorter_message_ends_the_run() {
        // Padded to the same length, so the kernel merged them.
        let batch = [message(0x4000, 8, 0), message(0x4000, 7, 1), message(0x4000, 8, 0)].concat();
        let run = Run::first_of(&batch, 12).expect("a run");
        assert_eq!(run, Run { number: 0x4000, count: 2, payload_len: 8, last_payload_len: 7 });
        assert_eq!(Run::first_of(&batch[12..], 12).expect("a run").count, 1, "what follows is longer");
    }

    #[test]
    fn what_is_cut_short_or_no_channel_is_no_run() {
        for (bytes, why) in [
            (vec![], "empty"),
            (vec![0x40, 0, 0], "half a header"),
            (vec![0x40, 0, 0, 1], "a byte missing"),
            (message(0x4000, 8, 4), "more than padding behind it"),
            (message(0x3FFF, 8, 0), "below the channels"),
            (message(0x8000, 8, 0), "above them"),
            (message(0x0001, 20, 0), "a STUN method"),
        ] {
            assert_eq!(Run::first_of(&bytes, bytes.len().max(1)), None, "{why}");
        }
        let batch = [message(0x4000, 8, 0), vec![0x40, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
        assert_eq!(Run::first_of(&batch, 12).expect("a run").count, 1, "the second lies about its length");
    }

    #[test]
    fn an_empty_message_is_one() {
        let run = Run::first_of(&message(0x4000, 0, 0), 4).expect("a run");
        assert_eq!((run.count, run.bytes()), (1, 0));
        let run = Run::first_of(&[message(0x4000, 0, 0), message(0x4000, 0, 0)].concat(), 4).expect("a run");
        assert_eq!((run.count, run.bytes()), (2, 0));
        let batch = [message(0x4000, 8, 0), message(0x4000, 8, 0), message(0x4000, 0, 0)].concat();
        let run = Run::first_of(&batch, 12).expect("a run");
        assert_eq!(run.count, 2, "the kernel would cut no empty datagram off the end of a batch");
    }
}
