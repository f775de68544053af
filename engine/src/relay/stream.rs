//! STUN messages and ChannelData on a stream: where one ends and the next begins.
//!
//! A STUN message tells its length and is a multiple of four bytes long (RFC 8489 section 5). ChannelData tells its length
//! without the padding that it must have on a stream (RFC 8656 section 12.5). The first two bits tell them apart:
//!
//! ```text
//!        0                   1                   2                   3
//! STUN   |0 0|  type           | length after the header of 20 bytes   | magic cookie ...
//! data   |0 1|  channel number | length of the data                    | data, padded to four bytes
//! ```
//!
//! Nothing on a stream says where to look for the next message once one is malformed, so the stream is then closed.
//! Pure: bytes are pushed, messages come out, and are copied only where one arrived in several pieces.

use crate::driver::streams::Chunk;

/// Bytes of the longest message that is read or written: ChannelData with 65,535 bytes of data, its header and its padding.
pub const MESSAGE_LEN_MAX: usize = 4 + 65_535 + 1;

const STUN_HEADER_LEN: usize = 20;
const CHANNEL_HEADER_LEN: usize = 4;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither STUN nor a channel number of RFC 5766 (0x4000 to 0x7FFF, of which RFC 8656 leaves the first 4,096).
    #[error("a message begins with {first:#04x}, which is neither STUN nor ChannelData")]
    Kind {
        /// The first byte.
        first: u8,
    },
    /// A STUN message whose length is not a multiple of four.
    #[error("a STUN message says that it is {len} bytes long, which is no multiple of four")]
    Unaligned {
        /// What its length field says.
        len: u16,
    },
    /// A STUN message without the magic cookie: RFC 3489's, which knew no streams.
    #[error("a STUN message without the magic cookie 0x2112a442")]
    Cookie,
    /// Longer than the stream may send at this point.
    #[error("a message of {len} bytes where {len_max} are allowed")]
    TooLong {
        /// What it takes, with header and padding.
        len: usize,
        /// What is allowed.
        len_max: usize,
    },
}

/// The length of a message, in bytes with its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Length {
    /// Without padding.
    message: usize,
    /// With it.
    on_stream: usize,
}

/// How long the message is that `bytes` begin with; `None`: too few to tell. Complains as early as it can.
fn measure(bytes: &[u8]) -> Result<Option<Length>, Malformed> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let is_stun = match first {
        0x00..=0x3F => true,
        0x40..=0x7F => false,
        _ => return Err(Malformed::Kind { first }),
    };
    let &[_, _, high, low, ref rest @ ..] = bytes else { return Ok(None) };
    let len = u16::from_be_bytes([high, low]);
    let length = if is_stun {
        if len % 4 != 0 {
            return Err(Malformed::Unaligned { len });
        }
        if rest.iter().zip(MAGIC_COOKIE).any(|(&byte, expected)| byte != expected) {
            return Err(Malformed::Cookie);
        }
        let message = STUN_HEADER_LEN + usize::from(len);
        Length { message, on_stream: message }
    } else {
        let message = CHANNEL_HEADER_LEN + usize::from(len);
        Length { message, on_stream: message.next_multiple_of(4) }
    };
    Ok(Some(length))
}

/// Whole messages, one behind the other, in the memory that they arrived in.
#[derive(Debug)]
pub struct Messages {
    memory: Memory,
    start: usize,
    end: usize,
}

/// Where bytes lie.
#[derive(Debug)]
pub enum Memory {
    /// As the driver received them.
    Chunk(Chunk),
    /// Put together or decrypted here.
    Vec(Vec<u8>),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Chunk(chunk) => chunk,
            Self::Vec(bytes) => bytes,
        }
    }
}

impl Messages {
    /// The messages in their order, each without padding.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.memory.bytes().get(self.start..self.end).unwrap_or_default();
        std::iter::from_fn(move || {
            let length = measure(rest).ok().flatten()?;
            let message = rest.get(..length.message)?;
            rest = rest.get(length.on_stream..).unwrap_or_default();
            Some(message)
        })
    }
}

/// What [`Framer::push`] found.
#[derive(Debug, Default)]
pub struct Arrived {
    /// The message that began in an earlier piece and ends in this one.
    pub completed: Option<Messages>,
    /// Messages that lie within this piece.
    pub within: Option<Messages>,
    /// What ends the stream, after the messages above.
    pub error: Option<Malformed>,
}

/// Finds messages in what arrives on a stream. Holds at most one message that has not arrived completely, and memory only
/// for what there is of it.
#[derive(Debug, Default)]
pub struct Framer {
    /// The beginning of a message.
    partial: Vec<u8>,
}

impl Framer {
    /// Nothing has arrived.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of a message that has not arrived completely.
    #[must_use]
    pub fn partial_len(&self) -> usize {
        self.partial.len()
    }

    /// Takes in the next piece. `len_max` is asked about every message when its length with padding is known, and says how
    /// long one may be now, in bytes; more than [`MESSAGE_LEN_MAX`] is never allowed.
    pub fn push(&mut self, memory: Memory, len_max: impl Fn(usize) -> usize) -> Arrived {
        let mut arrived = Arrived::default();
        let bytes = memory.bytes();
        let start = match self.complete(bytes, &len_max) {
            Ok((taken, completed)) => {
                arrived.completed = completed;
                taken
            }
            Err(error) => return Arrived { error: Some(error), ..arrived },
        };
        let mut end = start;
        while let Some(rest) = bytes.get(end..).filter(|rest| !rest.is_empty()) {
            match measure_within(rest, &len_max) {
                Ok(Some(length)) if length.on_stream <= rest.len() => end += length.on_stream,
                Ok(_) => {
                    self.partial.extend_from_slice(rest);
                    break;
                }
                Err(error) => {
                    arrived.error = Some(error);
                    break;
                }
            }
        }
        if end > start {
            arrived.within = Some(Messages { memory, start, end });
        }
        arrived
    }

    /// Adds to the message that has begun what `bytes` have of it, and says how many those are.
    fn complete(
        &mut self,
        bytes: &[u8],
        len_max: impl Fn(usize) -> usize,
    ) -> Result<(usize, Option<Messages>), Malformed> {
        if self.partial.is_empty() {
            return Ok((0, None));
        }
        let mut taken = 0;
        loop {
            // The length is known after four bytes; a STUN message is looked at once more when its cookie is there.
            let target = match measure_within(&self.partial, &len_max)? {
                Some(length) if self.partial.len() >= length.on_stream => {
                    let end = length.on_stream;
                    let memory = Memory::Vec(std::mem::take(&mut self.partial));
                    return Ok((taken, Some(Messages { memory, start: 0, end })));
                }
                Some(_) if self.partial.len() < CHANNEL_HEADER_LEN + MAGIC_COOKIE.len() => {
                    self.partial.len() + 1
                }
                Some(length) => length.on_stream,
                None => CHANNEL_HEADER_LEN,
            };
            let rest = &bytes[taken..];
            if rest.is_empty() {
                return Ok((taken, None));
            }
            let more = rest.len().min(target - self.partial.len());
            self.partial.extend_from_slice(&rest[..more]);
            taken += more;
        }
    }
}

fn measure_within(bytes: &[u8], len_max: impl Fn(usize) -> usize) -> Result<Option<Length>, Malformed> {
    let length = measure(bytes)?;
    if let Some(Length { on_stream: len, .. }) = length {
        let len_max = len_max(len).min(MESSAGE_LEN_MAX);
        if len > len_max {
            return Err(Malformed::TooLong { len, len_max });
        }
    }
    Ok(length)
}

/// Appends a message that lies in `parts`, padded as a stream wants it.
pub fn write(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(len.next_multiple_of(4));
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(out.len() + len.next_multiple_of(4) - len, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::streams::ChunkPool;
    use proptest::prelude::*;

    fn stun(attributes_len: u16) -> Vec<u8> {
        let mut message = vec![0x00, 0x01];
        message.extend(attributes_len.to_be_bytes());
        message.extend(MAGIC_COOKIE);
        message.extend((0..12 + usize::from(attributes_len)).map(|place| place as u8));
        message
    }

    fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
        let mut message = number.to_be_bytes().to_vec();
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        message
    }

    /// Pushes `bytes` in pieces cut at `cuts`; what came out, and how it ended.
    fn push_all(bytes: &[u8], cuts: &[usize], len_max: usize) -> (Vec<Vec<u8>>, Option<Malformed>, Framer) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut framer = Framer::new();
        let mut messages = Vec::new();
        for piece in cuts.windows(2) {
            let piece = bytes[piece[0]..piece[1]].to_vec();
            let len = piece.len();
            let memory = if len.is_multiple_of(2) {
                Memory::Vec(piece)
            } else {
                Memory::Chunk(ChunkPool::new(0).fill(piece.into_boxed_slice(), len))
            };
            let arrived = framer.push(memory, |_| len_max);
            for found in arrived.completed.iter().chain(&arrived.within) {
                messages.extend(found.iter().map(<[u8]>::to_vec));
            }
            if arrived.error.is_some() {
                return (messages, arrived.error, framer);
            }
        }
        (messages, None, framer)
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0..300u16).prop_map(|words| stun(4 * words)),
            (0x4000..=0x7FFFu16, prop::collection::vec(any::<u8>(), 0..1500))
                .prop_map(|(number, data)| channel_data(number, &data)),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_wherever_the_stream_is_cut(
            messages in prop::collection::vec(any_message(), 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| write(&mut bytes, &[message]));
            let (found, error, framer) = push_all(&bytes, &cuts, MESSAGE_LEN_MAX);
            prop_assert_eq!(found, messages);
            prop_assert_eq!((error, framer.partial_len()), (None, 0));
        }

        #[test]
        fn any_bytes_end_the_same_wherever_they_are_cut(
            head in prop::collection::vec(any_message(), 0..3),
            noise in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
            len_max in 4..2_000usize,
        ) {
            let mut bytes = Vec::new();
            head.iter().for_each(|message| write(&mut bytes, &[message]));
            bytes.extend(noise);
            let (whole, whole_error, _) = push_all(&bytes, &[], len_max);
            let (cut, cut_error, framer) = push_all(&bytes, &cuts, len_max);
            prop_assert_eq!(whole, cut);
            prop_assert_eq!(whole_error.is_some(), cut_error.is_some());
            prop_assert!(framer.partial_len() <= len_max.max(4));
        }
    }

    #[test]
    fn every_byte_alone() {
        let messages = [stun(0), channel_data(0x4001, b"12345"), channel_data(0x4FFF, b""), stun(8)];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| write(&mut bytes, &[message]));
        let cuts: Vec<usize> = (0..bytes.len()).collect();
        let (found, error, _) = push_all(&bytes, &cuts, MESSAGE_LEN_MAX);
        assert_eq!((found, error), (messages.to_vec(), None));
    }

    #[test]
    fn the_longest_channel_data_fits_and_a_longer_stun_message_does_not() {
        let longest = channel_data(0x4000, &vec![7; 65_535]);
        let mut bytes = Vec::new();
        write(&mut bytes, &[&longest]);
        assert_eq!(bytes.len(), MESSAGE_LEN_MAX);
        let (found, error, _) = push_all(&bytes, &[1, 40_000], MESSAGE_LEN_MAX);
        assert_eq!((found, error), (vec![longest], None));
        let (found, error, framer) = push_all(&stun(65_532)[..8], &[], MESSAGE_LEN_MAX);
        assert!(found.is_empty() && framer.partial_len() == 0);
        assert_eq!(error, Some(Malformed::TooLong { len: 65_552, len_max: MESSAGE_LEN_MAX }));
    }

    #[test]
    fn what_is_malformed_is_told_as_soon_as_it_can_be_and_after_what_was_whole() {
        for (bytes, expected) in [
            (&b"\x80"[..], Malformed::Kind { first: 0x80 }),
            (b"\xc0\x00", Malformed::Kind { first: 0xc0 }),
            (b"POST / HTTP/1.1\r\n", Malformed::TooLong { len: 21_336, len_max: 4_096 }),
            (b"\x00\x01\x00\x05", Malformed::Unaligned { len: 5 }),
            (b"\x00\x01\x00\x00\x21\x13", Malformed::Cookie),
            (b"\x40\x00\x10\x00", Malformed::TooLong { len: 4_100, len_max: 4_096 }),
        ] {
            let mut stream = stun(4);
            stream.extend(bytes);
            for cuts in [vec![], vec![24], (0..stream.len()).collect()] {
                let (found, error, _) = push_all(&stream, &cuts, 4_096);
                assert_eq!((found, error), (vec![stun(4)], Some(expected)), "{bytes:x?} cut at {cuts:?}");
            }
        }
    }
}
