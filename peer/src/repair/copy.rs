//! A piece that belongs on several nodes: read from one that has it, put to those that lack it.

use bytes::Bytes;

use super::bench::Bench;
use super::plan::CopyJob;
use super::report::{LossCause, LostPiece, Outcome, Piece};

pub(super) async fn spread(bench: &Bench, mut job: CopyJob) -> Outcome {
    let mut outcome = Outcome::default();
    let mut bad_at = Vec::new();
    let bytes = match job.bytes.take() {
        Some(bytes) => Some(bytes),
        None => bench.read(&job.hash, job.len, &mut job.holders, &mut bad_at).await,
    };
    match (bytes, job.piece) {
        (Some(bytes), _) => outcome.copied += put(bench, &job, &bytes, &mut outcome.unplaced).await,
        (None, Piece::Segment(_) | Piece::List) => {
            let CopyJob { hash, len, piece, .. } = job;
            outcome.lost_pieces.push(LostPiece { hash, len, piece, cause: LossCause::NoCopy });
        }
        // Who claimed to hold it does not: it is made anew.
        (None, Piece::Outboards { .. } | Piece::PlainHashes) => outcome.to_make.push(job),
    }
    outcome
}

/// Puts a piece to all nodes that lack it; gives how many took it, and counts those that did not.
pub(super) async fn put(bench: &Bench, job: &CopyJob, bytes: &Bytes, unplaced: &mut u64) -> u64 {
    let mut copied = 0;
    for node in &job.targets {
        match bench.put(*node, &job.hash, bytes).await {
            Ok(()) => copied += 1,
            Err(_) => *unplaced += 1,
        }
    }
    copied
}
