//! A list with everything it names, fetched from nodes.

use bytes::{Bytes, BytesMut};
use store::Hash;
use store::list::{ListError, ListView};

use crate::backoff::Backoff;
use crate::client::Node;
use crate::fetch::{FetchError, document};

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

    /// What belongs on every node beside the shards: the list, and what it needs to be read and verified. Address and
    /// length in bytes of each, once.
    pub(crate) fn documents(&self) -> Result<Vec<(Hash, u32)>, ListError> {
        let mut documents = vec![(Hash::of(&self.outer), self.outer.len() as u32)];
        if self.inner.is_some() {
            documents.extend(ListView::open(&self.outer)?.shards());
        }
        let list = self.list()?;
        documents.extend(list.outboards().map(|(_, hash, len)| (hash, len)).filter(|(_, len)| *len > 0));
        documents.extend(list.plain_hashes());
        documents.sort_unstable();
        documents.dedup();
        Ok(documents)
    }
}
