//! A group that lacks shards: any k of it are read, the others are made of them and put back.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::bench::Bench;
use super::plan::{GroupJob, Shard};
use super::report::{LostGroup, Outcome};
use super::restore::restore;
use crate::placement::Placement;

pub(super) async fn mend(bench: &Arc<Bench>, mut job: GroupJob) -> Outcome {
    let mut read = vec![None; job.shards.len()];
    gather(bench, &mut job, &mut read).await;
    let present = read.iter().flatten().count();
    // Found missing beforehand, or found wrong while it was read.
    let wanted: Vec<usize> =
        (0..job.shards.len()).filter(|shard| job.shards[*shard].holders.is_empty()).collect();
    let mut outcome = Outcome::default();
    if present < job.data_count {
        outcome.lost_groups.push(LostGroup {
            group: job.group,
            missing: wanted.len() as u32,
            shards: job.shards.len() as u32,
            needed: job.data_count as u32,
            first_segment: job.shards.first().map_or(0, |shard| shard.number),
            segments: job.data_count as u32,
        });
        return outcome;
    }
    let job = Arc::new(job);
    let restoring = job.clone();
    let for_restore = wanted.clone();
    let restored = tokio::task::spawn_blocking(move || restore(&restoring, &read, &for_restore)).await;
    let restored = match restored {
        Ok(Ok(restored)) => restored,
        Ok(Err(reason)) => {
            outcome.failures.push(format!("group {}: {reason}", job.group));
            outcome.unplaced += wanted.len() as u64;
            return outcome;
        }
        Err(error) => {
            outcome.failures.push(format!("group {}: {error}", job.group));
            outcome.unplaced += wanted.len() as u64;
            return outcome;
        }
    };
    place(bench, &job, &wanted, restored, &mut outcome).await;
    outcome
}

/// Reads shards until there are enough: all at once as many as are needed, and another for each that fails.
async fn gather(bench: &Arc<Bench>, job: &mut GroupJob, read: &mut [Option<Bytes>]) {
    let mut candidates: Vec<usize> =
        (0..job.shards.len()).rev().filter(|shard| !job.shards[*shard].holders.is_empty()).collect();
    let mut reading = JoinSet::new();
    let mut present = 0;
    loop {
        while present + reading.len() < job.data_count
            && let Some(index) = candidates.pop()
        {
            let (bench, mut shard) = (bench.clone(), job.shards[index].clone());
            reading.spawn(async move {
                let bytes = bench.read(&shard.hash, shard.len, &mut shard.holders, &mut shard.bad_at).await;
                (index, shard, bytes)
            });
        }
        let Some(Ok((index, shard, bytes))) = reading.join_next().await else { return };
        job.shards[index] = shard;
        present += usize::from(bytes.is_some());
        read[index] = bytes;
    }
}

/// Puts restored shards where the group has fewest.
async fn place(
    bench: &Arc<Bench>,
    job: &GroupJob,
    wanted: &[usize],
    restored: Vec<Bytes>,
    outcome: &mut Outcome,
) {
    let placement = Placement::new(bench.len(), job.shape);
    let mut held = vec![0usize; bench.len()];
    for shard in &job.shards {
        shard.holders.iter().for_each(|node| held[*node] += 1);
    }
    for (&index, bytes) in wanted.iter().zip(restored) {
        let shard: &Shard = &job.shards[index];
        loop {
            let group = u64::from(job.group);
            let is_target = |node: usize| bench.is_target(node) && !shard.bad_at.contains(&node);
            let Some(node) = placement.choose(group, index, &held, is_target) else {
                outcome.unplaced += 1;
                break;
            };
            if bench.put(node, &shard.hash, &bytes).await.is_ok() {
                held[node] += 1;
                outcome.restored += 1;
                outcome.crowded += u64::from(placement.is_crowded(held[node]));
                break;
            }
        }
    }
}
