//! Putting outboards together into documents of 1,024 shards.

use std::io::{self, BufReader, Read, Seek, Write};

use bytes::Bytes;
use tempfile::{SpooledTempFile, spooled_tempfile};

use super::Stored;
use crate::Hash;
use crate::list::OUTBOARD_SHARDS;

/// So many bytes of outboards wait in memory; more of them in a temporary file without a name.
pub(super) const WAITING_LEN_MAX: usize = 32 << 20;

/// Outboards in the order of shards: those of data segments become documents as they come, those of parity segments wait for the last data
/// segment, for their shards are numbered behind it.
#[derive(Debug)]
pub(super) struct OutboardDocuments {
    /// Of shards that do not fill a document yet.
    pending: Vec<u8>,
    pending_shards: u32,
    waiting: Waiting,
    addresses: Vec<(Hash, u32)>,
}

/// Outboards of parity segments: while they come, and when they are taken.
#[derive(Debug)]
enum Waiting {
    Coming { lens: Vec<u32>, bytes: SpooledTempFile },
    Taken { lens: std::vec::IntoIter<u32>, bytes: BufReader<SpooledTempFile> },
}

impl OutboardDocuments {
    /// Of parity outboards `waiting_len_max` bytes wait in memory.
    pub(super) fn new(waiting_len_max: usize) -> OutboardDocuments {
        let waiting = Waiting::Coming { lens: Vec::new(), bytes: spooled_tempfile(waiting_len_max) };
        OutboardDocuments { pending: Vec::new(), pending_shards: 0, waiting, addresses: Vec::new() }
    }

    /// The next data segment's; a document if it fills one that is not empty.
    pub(super) fn push_data(&mut self, outboard: &[u8]) -> Option<Stored> {
        self.pending.extend_from_slice(outboard);
        self.pending_shards += 1;
        if self.pending_shards == OUTBOARD_SHARDS { self.close() } else { None }
    }

    /// The next parity segment's.
    ///
    /// # Errors
    /// The temporary file cannot be made or written.
    pub(super) fn push_parity(&mut self, outboard: &[u8]) -> io::Result<()> {
        let Waiting::Coming { lens, bytes } = &mut self.waiting else {
            return Err(io::Error::other("outboards come after the last"));
        };
        lens.push(outboard.len() as u32);
        bytes.write_all(outboard)
    }

    /// When all outboards have come: the next document that was not given yet.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Stored>> {
        if let Waiting::Coming { lens, bytes } = &mut self.waiting {
            let (lens, mut bytes) = (std::mem::take(lens), std::mem::replace(bytes, spooled_tempfile(0)));
            bytes.rewind()?;
            self.waiting = Waiting::Taken { lens: lens.into_iter(), bytes: BufReader::new(bytes) };
        }
        let mut outboard = Vec::new();
        while let Waiting::Taken { lens, bytes } = &mut self.waiting
            && let Some(len) = lens.next()
        {
            outboard.resize(len as usize, 0);
            bytes.read_exact(&mut outboard)?;
            if let Some(document) = self.push_data(&outboard) {
                return Ok(Some(document));
            }
        }
        Ok(if self.pending_shards > 0 { self.close() } else { None })
    }

    /// Address and length of all documents, after the last was given.
    pub(super) fn into_addresses(self) -> Vec<(Hash, u32)> {
        self.addresses
    }

    fn close(&mut self) -> Option<Stored> {
        self.pending_shards = 0;
        if self.pending.is_empty() {
            self.addresses.push((Hash([0; 32]), 0));
            return None;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        let hash = Hash::of(&bytes);
        self.addresses.push((hash, bytes.len() as u32));
        Some(Stored { hash, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_a_file_is_what_waits_in_memory() {
        let outboard = |shard: u32| vec![shard as u8; (shard % 5) as usize * 64];
        let documents = |waiting_len_max: usize| {
            let mut documents = OutboardDocuments::new(waiting_len_max);
            let mut made = Vec::new();
            for shard in 0..1500 {
                made.extend(documents.push_data(&outboard(shard)));
                documents.push_parity(&outboard(shard + 1500)).unwrap();
            }
            while let Some(document) = documents.next().unwrap() {
                made.push(document);
            }
            (made, documents.into_addresses())
        };
        let (in_memory, addresses) = documents(usize::MAX);
        let all: Vec<u8> = (0..3000).flat_map(outboard).collect();
        assert!(in_memory.iter().flat_map(|document| document.bytes.to_vec()).eq(all));
        assert_eq!(addresses.len(), 3);
        for waiting_len_max in [0, 1000, 100_000] {
            assert_eq!(documents(waiting_len_max), (in_memory.clone(), addresses.clone()));
        }
    }
}
