//! What a completion belongs to, as the 64 bits that travel through the ring.

use crate::driver::streams::operation::StreamOperation;
use crate::driver::table::{GENERATION_BITS, INDEX_BITS, Key};

/// An operation in flight, or a message from another ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Watching a socket for something to receive.
    Watch {
        /// Which socket.
        socket: Key,
    },
    /// Sending a buffer.
    Send {
        /// Which buffer.
        buffer: u16,
    },
    /// Waiting for room in a socket's send buffer.
    Room {
        /// Which socket.
        socket: Key,
    },
    /// Watching the waker's eventfd.
    Doorbell,
    /// Waking another shard.
    Wake {
        /// Which of the wakes in flight.
        slot: u16,
    },
    /// Another shard's wake has arrived.
    Woken,
    /// Ending an operation of a socket that is removed.
    Cancel {
        /// Which socket.
        socket: Key,
    },
    /// Ending everything.
    CancelAll,
    /// Something for streams.
    Stream(StreamOperation),
}

/// The uppermost byte says what it is, the rest which one.
const WHAT_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;

impl Operation {
    /// The operation as `user_data`. Streams have keys of their own, with the highest bit set.
    #[must_use]
    pub fn user_data(self) -> u64 {
        let (what, which) = match self {
            Self::Watch { socket } => (1u64, socket.to_bits()),
            Self::Send { buffer } => (2, u64::from(buffer)),
            Self::Room { socket } => (3, socket.to_bits()),
            Self::Doorbell => (4, 0),
            Self::Wake { slot } => (5, u64::from(slot)),
            Self::Woken => (6, 0),
            Self::Cancel { socket } => (7, socket.to_bits()),
            Self::CancelAll => (8, 0),
            Self::Stream(operation) => return operation.key(),
        };
        what << WHAT_SHIFT | which
    }

    /// The operation that `user_data` names; `None` for what this program never sends.
    #[must_use]
    pub fn from_user_data(user_data: u64) -> Option<Self> {
        if StreamOperation::is_key(user_data) {
            return StreamOperation::from_key(user_data).map(Self::Stream);
        }
        let socket = Key::from_bits(user_data);
        let which = user_data as u16;
        match user_data >> WHAT_SHIFT {
            1 => Some(Self::Watch { socket }),
            2 => Some(Self::Send { buffer: which }),
            3 => Some(Self::Room { socket }),
            4 => Some(Self::Doorbell),
            5 => Some(Self::Wake { slot: which }),
            6 => Some(Self::Woken),
            7 => Some(Self::Cancel { socket }),
            8 => Some(Self::CancelAll),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_the_ring() {
        let socket = Key::from_bits(0x00AB_CDEF_0012_3456);
        for operation in [
            Operation::Watch { socket: Key::from_bits(0) },
            Operation::Watch { socket },
            Operation::Send { buffer: u16::MAX },
            Operation::Room { socket },
            Operation::Doorbell,
            Operation::Wake { slot: 63 },
            Operation::Woken,
            Operation::Cancel { socket },
            Operation::CancelAll,
            Operation::Stream(StreamOperation::Accept(5)),
        ] {
            assert_eq!(Operation::from_user_data(operation.user_data()), Some(operation));
        }
        assert_eq!(Operation::from_user_data(0), None);
        assert_eq!(Operation::from_user_data(u64::MAX), None);
    }
}
