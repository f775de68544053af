//! Control messages (`cmsg(3)`): what travels beside a datagram's payload, written and read without `unsafe`.
//!
//! The layout is the kernel's own: a header of length (`size_t`, header included), level and type (`int` each), then the
//! data, each message padded to the size of a `size_t`.
//!
//! ```text
//!  0               8       12      16              16 + n   next multiple of 8
//!  | length = 16+n | level | type  | n data bytes  | pad    | next message ...
//! ```

const LEN_LEN: usize = size_of::<usize>();
const HEADER_LEN: usize = LEN_LEN + 8;

/// Room for all control messages of one datagram batch, in either direction: received are packet information (36 with
/// its header, for IPv6), segment length, traffic class, drop count; sent are packet information and segment length.
pub const CONTROL_LEN: usize = 128;

/// Memory for control messages, aligned as the kernel wants it, and how much of it is filled.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; CONTROL_LEN],
    len: usize,
}

impl Control {
    /// No messages.
    pub const EMPTY: Self = Self { bytes: [0; CONTROL_LEN], len: 0 };

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a message.
    ///
    /// # Panics
    /// When the messages do not fit, which none that this program writes can cause (see [`CONTROL_LEN`]).
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let message_len = HEADER_LEN + data.len();
        let end = self.len + padded(message_len);
        let message = &mut self.bytes[self.len..end];
        message[..LEN_LEN].copy_from_slice(&message_len.to_ne_bytes());
        message[LEN_LEN..LEN_LEN + 4].copy_from_slice(&level.to_ne_bytes());
        message[LEN_LEN + 4..HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_LEN..message_len].copy_from_slice(data);
        message[message_len..].fill(0);
        self.len = end;
    }

    /// The messages' bytes.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// All of the memory, for the kernel to write into.
    pub fn memory(&mut self) -> &mut [u8; CONTROL_LEN] {
        &mut self.bytes
    }
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `cmsg_level`.
    pub level: i32,
    /// `cmsg_type`.
    pub kind: i32,
    /// What follows the header.
    pub data: &'a [u8],
}

impl Message<'_> {
    /// The data as an `int`, if it is at least that long.
    #[must_use]
    pub fn int(&self) -> Option<i32> {
        Some(i32::from_ne_bytes(self.data.get(..4)?.try_into().ok()?))
    }
}

/// The messages in `control`. Ends at the first one that does not fit.
#[must_use]
pub fn messages(control: &[u8]) -> Messages<'_> {
    Messages { rest: control }
}

/// See [`messages`].
#[derive(Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let rest = self.rest;
        let message_len = usize::from_ne_bytes(rest.get(..LEN_LEN)?.try_into().ok()?);
        let level = i32::from_ne_bytes(rest.get(LEN_LEN..LEN_LEN + 4)?.try_into().ok()?);
        let kind = i32::from_ne_bytes(rest.get(LEN_LEN + 4..HEADER_LEN)?.try_into().ok()?);
        let data = rest.get(HEADER_LEN..message_len)?;
        // The last message need not be padded.
        self.rest = rest.get(padded(message_len)..).unwrap_or(&[]);
        Some(Message { level, kind, data })
    }
}

/// `len` rounded up to the alignment of control messages (`CMSG_ALIGN`). Callers have checked that it is small.
fn padded(len: usize) -> usize {
    (len + LEN_LEN - 1) & !(LEN_LEN - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_libcs() {
        assert_eq!(HEADER_LEN, size_of::<libc::cmsghdr>());
        let mut control = Control::EMPTY;
        control.push(17, 103, &1452u16.to_ne_bytes());
        // SAFETY: both are pure arithmetic on their argument.
        let (space, len) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
        assert_eq!(control.filled().len(), space as usize);
        assert_eq!(control.filled()[..8], (len as usize).to_ne_bytes());
    }

    #[test]
    fn a_length_that_lies_ends_the_iteration() {
        let mut control = Control::EMPTY;
        control.push(1, 2, &[3; 4]);
        for lie in [0usize, 1, HEADER_LEN - 1, HEADER_LEN + 9, usize::MAX, usize::MAX - 6] {
            let mut bytes = control.filled().to_vec();
            bytes[..LEN_LEN].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{lie}");
        }
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read_back(
            pushed in prop::collection::vec((any::<i32>(), any::<i32>(), prop::collection::vec(any::<u8>(), 0..12)), 0..4)
        ) {
            let mut control = Control::EMPTY;
            for (level, kind, data) in &pushed {
                control.push(*level, *kind, data);
            }
            let read: Vec<_> = messages(control.filled()).map(|m| (m.level, m.kind, m.data.to_vec())).collect();
            prop_assert_eq!(read, pushed);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER_LEN);
        }
    }
}
