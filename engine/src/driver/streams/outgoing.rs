//! What a stream has still to send.

/// Bytes in their order. The kernel may be reading the first part while more is appended.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What is being sent; stays where it is until all of it has been.
    current: Vec<u8>,
    /// Bytes of it that the kernel has taken.
    sent: usize,
    /// What comes after it.
    next: Vec<u8>,
}

impl Outgoing {
    /// Appends bytes, without a copy as long as the kernel keeps up.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if self.current.is_empty() {
            self.current = bytes;
        } else if self.next.is_empty() {
            self.next = bytes;
        } else {
            self.next.extend_from_slice(&bytes);
        }
    }

    /// What to send next.
    pub fn front(&self) -> &[u8] {
        &self.current[self.sent..]
    }

    /// The kernel has taken `len` bytes of [`front`](Self::front).
    pub fn advance(&mut self, len: usize) {
        self.sent = self.current.len().min(self.sent + len);
        if self.sent == self.current.len() {
            self.current = std::mem::take(&mut self.next);
            self.sent = 0;
        }
    }

    /// Bytes that the kernel has not taken.
    pub fn len(&self) -> usize {
        self.current.len() - self.sent + self.next.len()
    }

    /// Whether it has taken all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_their_order_and_what_is_being_sent_stays_in_place() {
        let mut outgoing = Outgoing::default();
        outgoing.push(b"abc".to_vec());
        let place = outgoing.front().as_ptr();
        for more in ["de", "f", "gh"] {
            outgoing.push(more.as_bytes().to_vec());
        }
        assert_eq!((outgoing.front().as_ptr(), outgoing.len()), (place, 8));
        let mut sent = Vec::new();
        while !outgoing.is_empty() {
            let len = outgoing.front().len().min(2);
            sent.extend_from_slice(&outgoing.front()[..len]);
            outgoing.advance(len);
        }
        assert_eq!(sent, b"abcdefgh");
        outgoing.push(b"i".to_vec());
        assert_eq!(outgoing.front(), b"i");
    }
}
