//! Appending: a plan of file operations, then a commit that makes the segments visible.

use crate::backend::WriteOp;

/// Operations that make a batch of segments durable, to be run in order; then [`Store::commit`](crate::Store::commit).
/// A plan that is dropped is abandoned.
#[derive(Debug)]
pub struct AppendPlan {
    /// What to run, one after the other. The last is a sync.
    pub ops: Vec<WriteOp>,
    pub(crate) appended: Committed,
}

impl AppendPlan {
    /// What a commit of this plan will return.
    pub fn summary(&self) -> Committed {
        self.appended
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Segments that are new in the store, and durable.
    pub segments: u64,
    /// Their bytes, without framing.
    pub bytes: u64,
    /// Segments that were skipped since the store (or the batch) held them already.
    pub duplicates: u64,
}
