//! Lists that are longer than a segment: stored as a file of plain segments, which a small outer list by the same publisher describes.

use std::ops::Range;

use identity::SecretKey;

use super::{ListBuilder, ListError, ListView};
use crate::{Hash, SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MAX, split};

/// A list that is too long for a segment, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enclosed {
    /// The outer list, signed. Its address is the one to hand out.
    pub outer: Vec<u8>,
    /// The segments of the inner list: address, and where in its document they are.
    pub segments: Vec<(Hash, Range<usize>)>,
}

/// What to store for a signed list beside its document: nothing (`None`) if that fits a segment, else the outer list and the segments.
///
/// # Errors
/// [`ListError`] if `document` is not a list that `key` signed.
pub fn enclose(document: &[u8], key: &SecretKey) -> Result<Option<Enclosed>, ListError> {
    let inner = ListView::open(document)?;
    if inner.publisher() != key.uid() {
        return Err(ListError::Nesting { rule: "both lists are signed by the same publisher" });
    }
    if document.len() <= SEGMENT_LEN_MAX as usize {
        return Ok(None);
    }
    let mut segments = Vec::new();
    let mut start = 0;
    for (hash, bytes) in split::segments(document, SEGMENT_LEN_DEFAULT) {
        segments.push((hash, start..start + bytes.len()));
        start += bytes.len();
    }
    let outer = ListBuilder {
        name: inner.name().to_owned(),
        version: inner.version(),
        counter: inner.counter(),
        expires_s: inner.expires_s(),
        target: inner.target().to_owned(),
        file_hash: Some(inner.hash()),
        ..ListBuilder::plain(segments.iter().map(|(hash, range)| (*hash, range.len() as u32)))
    };
    Ok(Some(Enclosed { outer: outer.sign_outer(key)?, segments }))
}

impl ListView<'_> {
    /// The list that this outer one describes. It must be the one named, by the same publisher, and say of itself what the outer one says of it, so
    /// that what was judged by the outer list holds for both.
    ///
    /// # Errors
    /// [`ListError`]; [`ListError::Nesting`] if the two do not belong together, or the inner is an outer one again.
    pub fn open_inner<'b>(&self, document: &'b [u8]) -> Result<ListView<'b>, ListError> {
        let wrong = |rule| Err(ListError::Nesting { rule });
        if !self.is_outer() {
            return wrong("this list's file is not a content list");
        }
        if document.len() as u64 != self.file_len() || self.file_hash() != Some(Hash::of(document)) {
            return wrong("the inner list is not the one that the outer list names");
        }
        let inner = ListView::open(document)?;
        if inner.is_outer() {
            return wrong("a list in a list holds a file, not another list");
        }
        if inner.publisher() != self.publisher() {
            return wrong("both lists are signed by the same publisher");
        }
        let said = |list: &ListView<'_>| (list.version(), list.counter(), list.expires_s());
        if said(&inner) != said(self) || inner.name() != self.name() || inner.target() != self.target() {
            return wrong("both lists say the same name, target, version, counter and expiry");
        }
        Ok(inner)
    }
}
