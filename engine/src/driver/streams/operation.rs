//! What a completion or an event of a stream belongs to, as 64 bits.
//!
//! ```text
//!  bit 63      62 - 56   55 - 32        31 - 0
//!  1 (stream)  what      generation     index of the stream or listener
//! ```

use super::{ListenerIndex, StreamId};
use crate::driver::table::{GENERATION_BITS, INDEX_BITS, Key};

/// Set in every key of this kind, and in no other key of a driver but its waker's, which is all ones.
const STREAM_BIT: u64 = 1 << 63;

/// Where a key says what it is: above which it is.
const WHAT_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;

/// Something under way for a stream or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOperation {
    /// Accepting.
    Accept(ListenerIndex),
    /// Receiving; with epoll, everything about a stream.
    Receive(StreamId),
    /// Sending.
    Send(StreamId),
    /// Waiting for room in the socket's send buffer.
    Room(StreamId),
    /// Cancelling one of these.
    Cancel,
}

impl StreamOperation {
    /// Whether a key is of this kind.
    pub fn is_key(key: u64) -> bool {
        key & STREAM_BIT != 0
    }

    /// The operation as a key.
    pub fn key(self) -> u64 {
        let (what, which) = match self {
            Self::Accept(listener) => (1, listener as u64 & 0xFFFF_FFFF),
            Self::Receive(stream) => (2, stream.0.to_bits()),
            Self::Send(stream) => (3, stream.0.to_bits()),
            Self::Room(stream) => (4, stream.0.to_bits()),
            Self::Cancel => (5, 0),
        };
        STREAM_BIT | what << WHAT_SHIFT | which
    }

    /// The operation that a key names; `None` for what this program never makes.
    pub fn from_key(key: u64) -> Option<Self> {
        let stream = StreamId(Key::from_bits(key));
        match (key & !STREAM_BIT) >> WHAT_SHIFT {
            1 => Some(Self::Accept(stream.index())),
            2 => Some(Self::Receive(stream)),
            3 => Some(Self::Send(stream)),
            4 => Some(Self::Room(stream)),
            5 => Some(Self::Cancel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_the_kernel() {
        let stream = StreamId(Key::from_bits(0xFF_FFFF_0001_FFFF));
        for operation in [
            StreamOperation::Accept(3),
            StreamOperation::Receive(stream),
            StreamOperation::Send(StreamId(Key::from_bits(1 << INDEX_BITS))),
            StreamOperation::Room(stream),
            StreamOperation::Cancel,
        ] {
            assert!(StreamOperation::is_key(operation.key()));
            assert_eq!(StreamOperation::from_key(operation.key()), Some(operation));
        }
        assert_eq!(StreamOperation::from_key(u64::MAX), None);
        assert!(!StreamOperation::is_key(7 << 16 | 3));
    }
}
