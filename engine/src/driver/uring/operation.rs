//! What a completion belongs to, as the 64 bits that travel through the ring.

/// An operation in flight, or a message from another ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The multishot receive of a socket.
    Receive {
        /// Which socket.
        socket: u16,
    },
    /// Sending a buffer.
    Send {
        /// Which buffer.
        buffer: u16,
    },
    /// Waiting for room in a socket's send buffer.
    Room {
        /// Which socket.
        socket: u16,
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
    /// Cancelling everything.
    Cancel,
}

impl Operation {
    /// The operation as `user_data`: what it is in the third byte, which one in the two low bytes.
    #[must_use]
    pub fn user_data(self) -> u64 {
        let (what, which) = match self {
            Self::Receive { socket } => (1, socket),
            Self::Send { buffer } => (2, buffer),
            Self::Room { socket } => (3, socket),
            Self::Doorbell => (4, 0),
            Self::Wake { slot } => (5, slot),
            Self::Woken => (6, 0),
            Self::Cancel => (7, 0),
        };
        what << 16 | u64::from(which)
    }

    /// The operation that `user_data` names; `None` for what this program never sends.
    #[must_use]
    pub fn from_user_data(user_data: u64) -> Option<Self> {
        let which = user_data as u16;
        match user_data >> 16 {
            1 => Some(Self::Receive { socket: which }),
            2 => Some(Self::Send { buffer: which }),
            3 => Some(Self::Room { socket: which }),
            4 => Some(Self::Doorbell),
            5 => Some(Self::Wake { slot: which }),
            6 => Some(Self::Woken),
            7 => Some(Self::Cancel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_the_ring() {
        for operation in [
            Operation::Receive { socket: 0 },
            Operation::Send { buffer: u16::MAX },
            Operation::Room { socket: 3 },
            Operation::Doorbell,
            Operation::Wake { slot: 63 },
            Operation::Woken,
            Operation::Cancel,
        ] {
            assert_eq!(Operation::from_user_data(operation.user_data()), Some(operation));
        }
        assert_eq!(Operation::from_user_data(0), None);
        assert_eq!(Operation::from_user_data(u64::MAX), None);
    }
}
