//! Loading one cold segment, in two halves: what never blocks, and what may.

use super::client::Job;
use super::{Reply, Request};
use crate::metrics::NodeCounters;
use store::{ColdSegment, Hash, LoadError, Lookup, Reader, Segment};

/// What a load has to do.
#[expect(clippy::large_enum_variant, reason = "looked at where it is made, and never kept")]
pub(super) enum Load {
    /// It was answered at once: absent, or resident by now.
    Answered,
    /// The segment has to be read.
    Cold(Job, Hash, ColdSegment),
}

/// Looks the segment up and answers if that is all.
pub(super) fn begin(job: Job, reader: &mut Reader, counters: &NodeCounters) -> Load {
    let Request::Load { hash } = job.request else { unreachable!("appends travel in a lane of their own") };
    match reader.lookup(&hash) {
        Lookup::Cold(cold) => return Load::Cold(job, hash, cold),
        Lookup::Ready(segment) => {
            counters.storage_loads.increment();
            job.answer(Reply::Loaded(segment.bytes()));
        }
        Lookup::Absent => {
            counters.storage_loads_absent.increment();
            job.answer(Reply::NotFound);
        }
    }
    Load::Answered
}

/// Answers with what [`ColdSegment::load`] returned.
pub(super) fn finish(job: Job, hash: &Hash, result: Result<Segment, LoadError>, counters: &NodeCounters) {
    match result {
        Ok(segment) => {
            counters.storage_loads.increment();
            job.answer(Reply::Loaded(segment.bytes()));
        }
        Err(LoadError::Deleted { .. }) => {
            counters.storage_loads_absent.increment();
            job.answer(Reply::NotFound);
        }
        Err(error) => {
            tracing::error!(%error, %hash, "a segment did not load");
            counters.storage_loads_failed.increment();
            job.answer(Reply::Failed(error.to_string()));
        }
    }
}
