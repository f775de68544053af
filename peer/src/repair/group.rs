//! A group that lacks shards: any k of it are read, the others are made of them and put back.

use std::sync::Arc;

use bytes::Bytes;
use store::pipeline::Restorer;
use tokio::task::JoinSet;

use super::bench::Bench;
use super::plan::{GroupJob, Shard};
use super::report::{LostGroup, Outcome};
use crate::placement::Placement;

pub(super) async fn mend(bench: &Arc<Bench>, mut job: GroupJob) -> Outcome {
    let read = gather(bench, &mut job).await;
    // Found missing beforehand, or found wrong while it was read.
    let wanted: Vec<usize> =
        (0..job.shards.len()).filter(|shard| job.shards[*shard].holders.is_empty()).collect();
    let mut outcome = Outcome::default();
    if read.iter().flatten().count() < job.needed() {
        outcome.lost_groups.push(LostGroup {
            group: job.of.number,
            missing: wanted.len() as u32,
            shards: job.shards.len() as u32,
            needed: job.needed() as u32,
            first_segment: job.of.group.data.start,
            segments: job.of.group.data.len() as u32,
        });
        return outcome;
    }
    let job = Arc::new(job);
    match restore(&job, read, &wanted).await {
        Ok(restored) => place(bench, &job, &wanted, restored, &mut outcome).await,
        Err(reason) => {
            outcome.failures.push(reason);
            outcome.unplaced += wanted.len() as u64;
        }
    }
    outcome
}

/// Makes shards, by their place in the group, of those that were read.
pub(super) async fn restore(
    job: &Arc<GroupJob>,
    read: Vec<Option<Bytes>>,
    wanted: &[usize],
) -> Result<Vec<Bytes>, String> {
    let group = job.clone();
    let wanted: Vec<u32> = wanted.iter().map(|shard| job.shards[*shard].number).collect();
    let restoring = tokio::task::spawn_blocking(move || {
        let mut restorer = Restorer::of_code(group.code, group.of.group.shape)?;
        restorer.restore(&group.of, &read, &wanted)
    });
    match restoring.await {
        Ok(restored) => restored.map_err(|error| error.to_string()),
        Err(error) => Err(format!("group {}: {error}", job.of.number)),
    }
}

/// Reads shards until there are enough: all at once as many as are needed, and another for each that fails.
pub(super) async fn gather(bench: &Arc<Bench>, job: &mut GroupJob) -> Vec<Option<Bytes>> {
    let mut read = vec![None; job.shards.len()];
    let mut candidates: Vec<usize> =
        (0..job.shards.len()).rev().filter(|shard| !job.shards[*shard].holders.is_empty()).collect();
    let mut reading = JoinSet::new();
    let mut present = 0;
    loop {
        while present + reading.len() < job.needed()
            && let Some(index) = candidates.pop()
        {
            let (bench, mut shard) = (bench.clone(), job.shards[index].clone());
            reading.spawn(async move {
                let bytes = bench.read(&shard.hash, shard.len, &mut shard.holders, &mut shard.bad_at).await;
                (index, shard, bytes)
            });
        }
        let Some(Ok((index, shard, bytes))) = reading.join_next().await else { return read };
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
    let placement = Placement::new(bench.len(), job.of.group.shape);
    let mut held = vec![0usize; bench.len()];
    for shard in &job.shards {
        shard.holders.iter().for_each(|node| held[*node] += 1);
    }
    for (&index, bytes) in wanted.iter().zip(restored) {
        let shard: &Shard = &job.shards[index];
        loop {
            let group = u64::from(job.of.number);
            let is_target = |node: usize| bench.is_target(node) && !shard.bad_at.contains(&node);
            let Some(node) = placement.choose(group, index, &held, is_target) else {
                outcome.unplaced += 1;
                break;
            };
            if bench.put(node, &shard.hash, &bytes).await.is_ok() {
                held[node] += 1;
                outcome.restored += 1;
                outcome.placed.push((shard.number, node));
                outcome.crowded += u64::from(placement.is_crowded(held[node]));
                break;
            }
        }
    }
}
