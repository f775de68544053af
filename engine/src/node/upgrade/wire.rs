//! Messages between the engine that has the sockets and the one that is to have them: a JSON object each, with descriptors.
//!
//! ```text
//! length of the object (u32 LE), number of descriptors (u32 LE), the object; then a byte for every 64 descriptors, with them
//! ```

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde_json::Value;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Descriptors beside one byte; the kernel takes up to 253.
const AT_ONCE: usize = 64;

/// Longest object: the first ids of a million clients.
const LEN_MAX: u32 = 64 << 20;

/// Most descriptors: those of 256 shards with 30 addresses each.
const DESCRIPTORS_MAX: u32 = 8_192;

/// How long the other side may take to take a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// One end of the connection.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> io::Result<Wire> {
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Wire(stream))
    }

    pub(super) fn send(&mut self, message: &Value, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = message.to_string();
        let mut frame = Vec::with_capacity(8 + text.len());
        frame.extend((text.len() as u32).to_le_bytes());
        frame.extend((descriptors.len() as u32).to_le_bytes());
        frame.extend(text.as_bytes());
        self.0.write_all(&frame)?;
        for some in descriptors.chunks(AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(some));
            sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Waits for the next message, at most `patience` between its parts (`None`: for ever).
    pub(super) fn receive(&mut self, patience: Option<Duration>) -> io::Result<(Value, Vec<OwnedFd>)> {
        self.0.set_read_timeout(patience)?;
        let mut head = [0; 8];
        self.0.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h] = head;
        let (len, count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if len > LEN_MAX || count > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
        }
        let mut text = vec![0; len as usize];
        self.0.read_exact(&mut text)?;
        let message = serde_json::from_slice(&text)?;
        let mut descriptors = Vec::with_capacity(count as usize);
        while descriptors.len() < count as usize {
            let before = descriptors.len();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(files) = message {
                    descriptors.extend(files);
                }
            }
            if descriptors.len() == before {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors did not arrive"));
            }
        }
        Ok((message, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Seek;
    use std::os::fd::AsFd;

    #[test]
    fn messages_arrive_with_all_their_descriptors() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Wire::new(near).unwrap(), Wire::new(far).unwrap());
        let mut file = tempfile::tempfile().unwrap();
        for count in [0, 1, AT_ONCE, 2 * AT_ONCE + 1] {
            let descriptors = vec![file.as_fd(); count];
            near.send(&json!({ "count": count }), &descriptors).unwrap();
            let (message, got) = far.receive(Some(SEND_TIMEOUT)).unwrap();
            assert_eq!((message["count"].as_u64(), got.len()), (Some(count as u64), count));
            if let Some(last) = got.into_iter().next_back() {
                std::fs::File::from(last).write_all(b"x").unwrap();
            }
        }
        assert_eq!(file.stream_position().unwrap(), 3, "they are the same open file");
        drop(near);
        assert_eq!(far.receive(None).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
