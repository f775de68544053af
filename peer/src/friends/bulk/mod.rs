//! Files to friends: up to 5 MiB in parts, each in an envelope of its own. Drawn in `peer/docs/friends.md`.
//!
//! The sender offers a file and is told how much of it the receiver keeps already; then parts go in order, and the receiver says from time to
//! time up to which of them all are on its disk. Whatever is lost on the way (an envelope, a session, a process) ends in another
//! offer, and what was said to be kept does not go again. [`Sending`] and [`Receiving`] decide: no clock, no disk.

mod receiving;
mod sending;
#[cfg(test)]
mod tests;
mod transfer;

pub(super) use receiving::{Receiving, Taken};
pub(super) use sending::Sending;
pub use transfer::{FileProgress, FileTransfer};

use identity::Uid;

/// Bytes of a file that is sent to a friend: 1 to 5 MiB.
pub const FILE_LEN_MAX: usize = 5 << 20;

/// Bytes of a file's name.
pub const FILE_NAME_LEN_MAX: usize = 255;

/// Files on their way to friends, one to each: 40 MiB of memory.
pub const FILES_SENDING_MAX: usize = 8;

/// Files on their way from friends, one of each: 40 MiB of disk.
pub const FILES_RECEIVING_MAX: usize = 8;

/// Bytes of files of one friend that are kept, and of all; the oldest is forgotten first.
pub const FRIEND_FILES_BYTES_MAX: u64 = 32 << 20;
/// See [`FRIEND_FILES_BYTES_MAX`].
pub const FILES_BYTES_MAX: u64 = 128 << 20;

/// Bytes of every part but the last: what an envelope has room for (1,152) without the head of a sealed body and its tag (33) and the
/// head of a part (13), in whole eights.
pub(super) const PART_LEN: usize = 1_104;

/// Parts that may be under way: 44 KB in envelopes, so that a receiver that does not read for a while still finds them in what its
/// node keeps for it (64 KiB).
const WINDOW: u32 = 32;

/// Parts that are written and acknowledged together.
const BATCH: usize = 8;

/// What is said of a file before its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its name among the sender's files and messages; ids rise.
    pub(super) id: u64,
    /// Its length, 1 to [`FILE_LEN_MAX`] bytes.
    pub(super) len: u32,
    /// BLAKE3 of all of it.
    pub(super) hash: [u8; 32],
    /// What the sender calls it.
    pub(super) name: String,
}

impl Offer {
    /// How many parts it has.
    pub(super) fn parts(&self) -> u32 {
        self.len.div_ceil(PART_LEN as u32)
    }

    /// Where part `index` stands in the file.
    fn place(&self, index: u32) -> std::ops::Range<usize> {
        let start = index as usize * PART_LEN;
        start..(start + PART_LEN).min(self.len as usize)
    }
}

/// What is wrong with a file's name; `None` if it is one that every system may have. The receiver gets to see it, and no more.
pub(super) fn name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        "." | ".." => Some("is that of a directory"),
        _ if name.len() > FILE_NAME_LEN_MAX => Some("has more than 255 bytes"),
        _ if name.chars().any(|c| c == '/' || c == '\\' || c.is_control()) => {
            Some("has a slash, a backslash or a control character in it")
        }
        _ => None,
    }
}

/// A file that came with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What its sender calls it: no path, but nothing to be trusted either.
    pub name: String,
    /// Its length, bytes.
    pub len: u32,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// A file of which parts are kept.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) from: Uid,
    pub(super) offer: Offer,
    /// So many parts, from the first.
    pub(super) kept: u32,
    /// What its parts are kept under.
    pub(super) content: u64,
}
