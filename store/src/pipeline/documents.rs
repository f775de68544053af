//! Putting outboards together into documents of 1,024 shards.

use bytes::Bytes;

use super::Stored;
use crate::Hash;
use crate::list::OUTBOARD_SHARDS;

/// Outboards in the order of shards: those of data segments become documents as they come, those of parity segments wait for the last data
/// segment, for their shards are numbered behind it.
#[derive(Debug, Default)]
pub(super) struct OutboardDocuments {
    /// Of shards that do not fill a document yet.
    pending: Vec<u8>,
    pending_shards: u32,
    parity: Vec<Vec<u8>>,
    addresses: Vec<(Hash, u32)>,
}

impl OutboardDocuments {
    /// The next data segment's; a document if it fills one that is not empty.
    pub(super) fn push_data(&mut self, outboard: &[u8]) -> Option<Stored> {
        self.pending.extend_from_slice(outboard);
        self.pending_shards += 1;
        if self.pending_shards == OUTBOARD_SHARDS { self.close() } else { None }
    }

    /// The next parity segment's.
    pub(super) fn push_parity(&mut self, outboard: Vec<u8>) {
        self.parity.push(outboard);
    }

    /// Address and length of all documents, and those that were not given yet.
    pub(super) fn finish(mut self) -> (Vec<(Hash, u32)>, Vec<Stored>) {
        let mut documents = Vec::new();
        for outboard in std::mem::take(&mut self.parity) {
            documents.extend(self.push_data(&outboard));
        }
        if self.pending_shards > 0 {
            documents.extend(self.close());
        }
        (self.addresses, documents)
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
