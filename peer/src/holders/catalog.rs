//! A list with everything it names, fetched from nodes.

use std::collections::HashSet;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use store::Hash;
use store::list::{ListError, ListView};

use crate::backoff::Backoff;
use crate::client::Node;
use crate::fetch::{FetchError, document};

/// What belongs on every node beside the shards.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) hash: Hash,
    pub(crate) len: u32,
    pub(crate) kind: DocumentKind,
    /// Its bytes, as far as they are known.
    pub(crate) bytes: Option<Bytes>,
}

/// What a document is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    /// The list, or a part of one that is too long for a segment.
    List,
    /// The outboards of these shards.
    Outboards(Range<u32>),
    /// The table of plain hashes.
    PlainHashes,
}

/// The documents of a list. A list that is too long for a segment is the file of an outer one.
pub(crate) struct Catalog {
    outer: Bytes,
    inner: Option<Bytes>,
}

impl Catalog {
    /// Gets the list at `hash` from whichever node has it, verified against that address.
    pub(crate) async fn get(hash: &Hash, nodes: &[Node], backoff: &Backoff) -> Result<Catalog, FetchError> {
        let outer = document::get_document(hash, nodes, backoff).await?.bytes;
        let list = ListView::open(&outer).map_err(|reason| FetchError::List { hash: *hash, reason })?;
        if !list.is_outer() {
            return Ok(Catalog { outer, inner: None });
        }
        // Not allocated at once: the outer list says how long the inner one is, and its publisher may be anybody.
        let mut inner = BytesMut::new();
        for entry in list.entries() {
            inner.extend_from_slice(&document::get_document(&entry.hash, nodes, backoff).await?.bytes);
        }
        let inner = inner.freeze();
        list.open_inner(&inner).map_err(|reason| FetchError::List { hash: *hash, reason })?;
        Ok(Catalog { outer, inner: Some(inner) })
    }

    /// The list of the file itself.
    pub(crate) fn list(&self) -> Result<ListView<'_>, ListError> {
        match &self.inner {
            None => ListView::open(&self.outer),
            Some(inner) => ListView::open(inner),
        }
    }

    /// What belongs on every node beside the shards: the list, and what it needs to be read and verified; each once.
    pub(crate) fn documents(&self) -> Result<Vec<Document>, ListError> {
        let list = |bytes: Bytes| Document {
            hash: Hash::of(&bytes),
            len: bytes.len() as u32,
            kind: DocumentKind::List,
            bytes: Some(bytes),
        };
        let mut documents = vec![list(self.outer.clone())];
        if let Some(inner) = &self.inner {
            for entry in ListView::open(&self.outer)?.entries() {
                let start = entry.file_offset as usize;
                documents.push(list(inner.slice(start..start + entry.plain_len as usize)));
            }
        }
        let view = self.list()?;
        let firsts: Vec<u32> = view.outboards().map(|(first, ..)| first).collect();
        for (at, (first, hash, len)) in view.outboards().enumerate().filter(|(_, (.., len))| *len > 0) {
            let end = firsts.get(at + 1).copied().unwrap_or(view.shard_count());
            documents.push(Document { hash, len, kind: DocumentKind::Outboards(first..end), bytes: None });
        }
        let plain_hashes = |(hash, len)| Document { hash, len, kind: DocumentKind::PlainHashes, bytes: None };
        documents.extend(view.plain_hashes().map(plain_hashes));
        let mut known = HashSet::new();
        documents.retain(|document| known.insert(document.hash));
        Ok(documents)
    }
}
