//! Bringing back what nodes have lost of a file, without its key: shards are restored from the others of their group as
//! they are stored, encrypted or not.
//!
//! The nodes that are given are asked what they hold. What is on none of them is restored from any k shards of its group
//! and put where the placement's bound allows; lists and outboards, and all of a file without code, are copied to every
//! node that lacks them. Outboards that no node has are made anew of the shards, and so is the table of plain hashes if
//! the file can be read by whoever repairs it. Memory is bounded by the options.

mod bench;
mod copy;
mod error;
mod group;
mod make;
mod plan;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

use identity::SecretKey;
use store::Hash;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

pub use self::error::RepairError;
pub use self::report::{LossCause, LostGroup, LostPiece, NodeRepair, NodeState, Piece, Repaired};

use self::bench::Bench;
use self::make::Whereabouts;
use self::plan::{CopyJob, Job, Plan};
use self::report::Outcome;
use crate::backoff::Backoff;
use crate::client::Node;
use crate::holders::{Catalog, Depth, survey};
use crate::progress::{NodeProgress, Phase, Progress};

/// How a repair is done.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Read and verify every byte of every copy instead of asking whether it is there.
    pub is_deep: bool,
    /// Bound on shards in memory, in bytes. One group is held whatever it says.
    pub memory_bytes_max: u64,
    /// Uploads under way to one node at once.
    pub requests_per_node: usize,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl Default for RepairOptions {
    /// Nodes are believed, 256 MiB of memory, 8 uploads at once a node, four tries.
    fn default() -> RepairOptions {
        RepairOptions {
            is_deep: false,
            memory_bytes_max: 256 << 20,
            requests_per_node: 8,
            backoff: Backoff { failures_max: 4, ..Backoff::default() },
        }
    }
}

/// Permits of the memory's bound, one a KiB.
const MEMORY_UNIT_BYTES: u64 = 1024;

/// Restores what the nodes `at` and `to` lack of the file of `list`: `at` may hold shards, `to` may receive them as well.
///
/// Whatever can be brought back is; the report names the rest. Dropping the future leaves what was put; a second repair
/// goes on from there.
///
/// # Errors
/// [`RepairError`] if the list cannot be had.
pub async fn repair(
    list: &Hash,
    at: &[Node],
    to: &[Node],
    key: &SecretKey,
    options: &RepairOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Repaired, RepairError> {
    let mut nodes = at.to_vec();
    for node in to {
        if nodes.iter().all(|known| known.url() != node.url()) {
            nodes.push(node.clone());
        }
    }
    if nodes.is_empty() {
        return Err(RepairError::NoNodes);
    }
    progress.send_replace(Progress {
        nodes: nodes.iter().map(|node| NodeProgress::new(node.url().clone())).collect(),
        ..Progress::default()
    });
    let catalog = Arc::new(Catalog::get(list, &nodes, &options.backoff).await?);
    let view = catalog.list()?;
    let documents = catalog.documents()?;
    let pieces: Arc<[_]> =
        documents.iter().map(|document| (document.hash, document.len)).chain(view.shards()).collect();
    let bytes: u64 = pieces.iter().map(|(_, len)| u64::from(*len)).sum();
    progress.send_modify(|progress| {
        progress.phase = Phase::Resuming;
        progress.bytes_total = Some(bytes * nodes.len() as u64);
    });
    let shown = progress.clone();
    let depth = if options.is_deep { Depth::Bytes } else { Depth::Claim };
    let answered = move |len: u64| shown.send_modify(|progress| progress.bytes_verified += len);
    let survey = Arc::new(survey(&nodes, pieces, depth, options.backoff, Arc::new(answered)).await);
    let plan = Plan::new(&view, &documents, &survey);

    progress.send_modify(|progress| {
        progress.phase = Phase::Transferring;
        progress.bytes_total = Some(plan.bytes());
        progress.bytes_verified = 0;
    });
    let mut repaired = Repaired::new(*list, &view, &survey, &plan);
    let bench = Arc::new(Bench::new(&survey, key, options)?);
    let mut worker = Worker {
        bench: bench.clone(),
        options,
        progress,
        repaired: &mut repaired,
        placed: HashMap::new(),
        to_make: Vec::new(),
    };
    // Documents are made when the shards they are made of are there.
    let (later, now) = plan.jobs.into_iter().partition(|job| matches!(job, Job::Make(_)));
    worker.work(now, None).await?;
    let later = worker.to_make.drain(..).map(Job::Make).chain::<Vec<Job>>(later).collect();
    let whereabouts = Whereabouts {
        catalog: catalog.clone(),
        survey: survey.clone(),
        documents: documents.len(),
        placed: std::mem::take(&mut worker.placed),
        key: key.clone(),
        restoring: Mutex::new(()),
    };
    worker.work(later, Some(Arc::new(whereabouts))).await?;
    bench.report(&mut repaired);
    progress.send_modify(|progress| progress.phase = Phase::Done);
    Ok(repaired)
}

/// Does jobs, and keeps the account of them.
struct Worker<'a> {
    bench: Arc<Bench>,
    options: &'a RepairOptions,
    progress: &'a watch::Sender<Progress>,
    repaired: &'a mut Repaired,
    /// Where restored shards are now.
    placed: HashMap<u32, usize>,
    /// Documents of which no node has a good copy.
    to_make: Vec<CopyJob>,
}

impl Worker<'_> {
    /// Does all jobs, as many at once as memory allows. Documents are made only where it is known `whereabouts` shards are.
    async fn work(
        &mut self,
        jobs: Vec<Job>,
        whereabouts: Option<Arc<Whereabouts>>,
    ) -> Result<(), RepairError> {
        let units = (self.options.memory_bytes_max / MEMORY_UNIT_BYTES).clamp(1, 1 << 28) as usize;
        let memory = Arc::new(Semaphore::new(units));
        let mut jobs = jobs.into_iter();
        let mut running = JoinSet::new();
        let mut next = jobs.next();
        loop {
            if let Some(job) = next.take() {
                let needed = job.memory_bytes().div_ceil(MEMORY_UNIT_BYTES).clamp(1, units as u64) as u32;
                let room = memory.clone().acquire_many_owned(needed);
                let room = tokio::select! {
                    // A closed semaphore is impossible here: this function holds it.
                    room = room => room.ok(),
                    Some(ended) = running.join_next() => {
                        self.note(ended)?;
                        next = Some(job);
                        continue;
                    }
                };
                let (bench, whereabouts) = (self.bench.clone(), whereabouts.clone());
                running.spawn(async move {
                    let bytes = job.bytes();
                    let outcome = match (job, &whereabouts) {
                        (Job::Group(job), _) => group::mend(&bench, job).await,
                        (Job::Make(job), Some(known)) => make::make(&bench, known, job).await,
                        (Job::Copy(job) | Job::Make(job), _) => copy::spread(&bench, job).await,
                    };
                    drop(room);
                    (bytes, outcome)
                });
                next = jobs.next();
                continue;
            }
            match running.join_next().await {
                Some(ended) => self.note(ended)?,
                None => return Ok(()),
            }
        }
    }

    fn note(&mut self, ended: Result<(u64, Outcome), JoinError>) -> Result<(), RepairError> {
        let (bytes, mut outcome) = ended.map_err(|e| RepairError::Interrupted(e.to_string()))?;
        if outcome.to_make.is_empty() {
            self.progress.send_modify(|progress| progress.bytes_verified += bytes);
        }
        self.placed.extend(outcome.placed.drain(..));
        self.to_make.append(&mut outcome.to_make);
        self.repaired.note(outcome);
        Ok(())
    }
}
