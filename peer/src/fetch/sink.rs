//! Where verified segments go: a partial file on a blocking thread, or a writer that takes them in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use store::split::FileHasher;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::error::FetchError;
use super::partial::PartialFile;
use super::plan::Plan;
use super::schedule::SegmentIndex;
use super::transfer::SinkEnd;

/// Writes segments as they come until the transfer lets go of its end; gives the file back. Blocking.
///
/// Stops at the first error, of which the transfer hears.
pub(crate) fn write_segments(mut file: PartialFile, mut end: SinkEnd) -> PartialFile {
    while let Some(segment) = end.segments.blocking_recv() {
        let written = file.write(segment.index, &segment.bytes).map(|()| segment.index);
        let is_over = written.is_err();
        if end.stored.send(written).is_err() || is_over {
            break;
        }
    }
    file
}

/// Writes segments in order, holding back those that arrive early (the schedule bounds how many); checks the
/// whole file's hash at the end.
pub(crate) async fn stream_segments<W: AsyncWrite + Unpin>(
    plan: Arc<Plan>,
    writer: &mut W,
    mut end: SinkEnd,
) -> Result<(), FetchError> {
    let mut early: BTreeMap<SegmentIndex, Bytes> = BTreeMap::new();
    let mut next: SegmentIndex = 0;
    let mut hasher = FileHasher::new();
    while (next as usize) < plan.segments.len() {
        let Some(segment) = end.segments.recv().await else {
            // The transfer failed and says why.
            return Ok(());
        };
        early.insert(segment.index, segment.bytes);
        while let Some(bytes) = early.remove(&next) {
            writer.write_all(&bytes).await.map_err(FetchError::Output)?;
            if plan.file_hash.is_some() {
                hasher.push(&bytes);
            }
            // Fails only if the transfer is gone, which the next receive notices.
            let _ = end.stored.send(Ok(next));
            next += 1;
        }
    }
    writer.flush().await.map_err(FetchError::Output)?;
    match plan.file_hash {
        Some(expected) if hasher.finish() != expected => {
            Err(FetchError::FileHash { expected, found: hasher.finish() })
        }
        _ => Ok(()),
    }
}
