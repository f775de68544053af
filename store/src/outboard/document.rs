//! Outboard documents: the outboards of 1,024 consecutive shards of a list, one behind the other.

use std::ops::Range;

use super::{Outboard, OutboardError, len_of};
use crate::list::{ListView, OUTBOARD_SHARDS};

/// Why a document gives no outboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The list has no such shard.
    #[error("the list has no shard {shard}")]
    NoShard {
        /// Which.
        shard: u32,
    },
    /// The document is not as long as the list says.
    #[error("the outboard document has {found} bytes where the outboards up to shard {shard} have {needed}")]
    Length {
        /// Which.
        shard: u32,
        /// Bytes up to the end of this outboard.
        needed: usize,
        /// Bytes of the document.
        found: usize,
    },
    /// The outboard does not fit its shard: the publisher made it wrongly.
    #[error(transparent)]
    Outboard(#[from] OutboardError),
}

/// The outboard of shard `shard` of `list` out of the document that holds it (number `shard / 1024` of [`ListView::outboards`]), verified.
///
/// # Errors
/// [`DocumentError`].
pub fn find(list: &ListView<'_>, shard: u32, document: &[u8]) -> Result<Outboard, DocumentError> {
    let (hash, len) = list.shard(shard).ok_or(DocumentError::NoShard { shard })?;
    let range = range(list, shard);
    let needed = range.end;
    let outboard =
        document.get(range).ok_or(DocumentError::Length { shard, needed, found: document.len() })?;
    Ok(Outboard::open(hash, len, outboard)?)
}

/// Where the outboard of `shard` lies in its document.
fn range(list: &ListView<'_>, shard: u32) -> Range<usize> {
    let first = shard - shard % OUTBOARD_SHARDS;
    let len_at = |i| list.shard(i).map_or(0, |(_, len)| len_of(len) as usize);
    let start = (first..shard).map(len_at).sum();
    start..start + len_at(shard)
}
