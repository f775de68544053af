//! A piece that belongs on several nodes: read from one that has it, put to those that lack it.

use super::bench::Bench;
use super::plan::CopyJob;
use super::report::{LostPiece, Outcome};

pub(super) async fn spread(bench: &Bench, mut job: CopyJob) -> Outcome {
    let mut outcome = Outcome::default();
    let mut bad_at = Vec::new();
    let Some(bytes) = bench.read(&job.hash, job.len, &mut job.holders, &mut bad_at).await else {
        outcome.lost_pieces.push(LostPiece { hash: job.hash, len: job.len, shard: job.shard });
        return outcome;
    };
    for node in job.targets {
        match bench.put(node, &job.hash, &bytes).await {
            Ok(()) => outcome.copied += 1,
            Err(_) => outcome.unplaced += 1,
        }
    }
    outcome
}
