//! Whether nodes still hold what they took: each is asked for blocks of 64 KiB at random places of random shards, and
//! every answer is verified against the list. Costs a few packets a challenge, whatever the file's length.
//!
//! Goals: busy, offline, missing and corrupt are told apart, and a node that is merely busy is never called anything
//! worse; the same seed asks the same. Not a goal: a proof that a node stores what it shows; it may fetch it elsewhere.

mod challenge;
mod error;
mod report;
mod sample;

use std::sync::Arc;

use store::Hash;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::error::AuditError;
pub use self::report::{Audited, Finding, NodeAudit, Verdict};
pub use self::sample::Sample;

use self::challenge::{Challenge, Outboards};
use crate::backoff::Backoff;
use crate::client::Node;
use crate::holders::{Catalog, Depth, Found, Survey, survey};
use crate::placement::Placement;
use crate::progress::{NodeProgress, Phase, Progress};

/// How an audit is done.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// How many shards are chosen. Every node that holds one is challenged for it.
    pub sample: Sample,
    /// What the choice is made of. The same seed and list give the same shards and places.
    pub seed: u64,
    /// Challenges under way to one node at once.
    pub requests_per_node: usize,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl AuditOptions {
    /// A hundred shards, 8 at once a node, four tries.
    pub fn new(seed: u64) -> AuditOptions {
        AuditOptions {
            sample: Sample::Count(100),
            seed,
            requests_per_node: 8,
            backoff: Backoff { failures_max: 4, ..Backoff::default() },
        }
    }
}

/// Challenges the nodes for shards of `list`.
///
/// # Errors
/// [`AuditError`] if the list, or an outboard document that is needed, cannot be had from any of them.
pub async fn audit(
    list: &Hash,
    nodes: &[Node],
    options: &AuditOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Audited, AuditError> {
    if nodes.is_empty() {
        return Err(AuditError::NoNodes);
    }
    progress.send_replace(Progress {
        nodes: nodes.iter().map(|node| NodeProgress::new(node.url().clone())).collect(),
        ..Progress::default()
    });
    let catalog = Catalog::get(list, nodes, &options.backoff).await?;
    let view = catalog.list()?;
    let mut places = sample::places(options.seed, list, view.shard_count(), options.sample);
    // By shard, so that each outboard document is fetched once.
    let places: Vec<_> = {
        places.sort_unstable();
        let place = |shard: u32, random: u64| Some((shard, view.shard(shard)?, random));
        places.into_iter().filter_map(|(shard, random)| place(shard, random)).collect()
    };
    let pieces: Arc<[_]> = places.iter().map(|(_, piece, _)| *piece).collect();
    let survey = survey(nodes, pieces, Depth::Claim, options.backoff, Arc::new(|_| ())).await;

    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let mut outboards = Outboards::new(&view, nodes, options.backoff);
    let mut audited = Audited::new(*list, &view, options, places.len(), &survey);
    let mut asking: Vec<JoinSet<Finding>> = survey.nodes.iter().map(|_| JoinSet::new()).collect();
    for (piece, (shard, (hash, len), random)) in places.into_iter().enumerate() {
        let outboard = outboards.of(shard).await?;
        let challenge = Challenge::new(shard, hash, len, random, outboard, options.backoff);
        let holders: Vec<usize> = survey.holders(piece).collect();
        for (index, node) in survey.nodes.iter().enumerate() {
            let is_expected =
                view.coding().is_none() || holders.is_empty() && is_home(&view, &survey, shard, index);
            match node.found[piece] {
                Found::Held => {
                    while asking[index].len() >= options.requests_per_node.max(1) {
                        note(asking[index].join_next().await, progress, &mut audited)?;
                    }
                    let (node, position, challenge) = (node.node.clone(), node.position, challenge.clone());
                    asking[index].spawn(async move { challenge.put_to(&node, position).await });
                }
                // It answers with another length for this address: no range of it can be right.
                Found::Damaged => audited.note(Finding::claimed_wrongly(node.position, shard)),
                Found::Missing if is_expected => audited.note(Finding::missing(node.position, shard)),
                Found::Unknown if is_expected => {
                    audited.note(Finding::of_standing(node.position, shard, &node.standing));
                }
                Found::Missing | Found::Unknown => {}
            }
        }
    }
    for asking in &mut asking {
        while !asking.is_empty() {
            note(asking.join_next().await, progress, &mut audited)?;
        }
    }
    progress.send_modify(|progress| progress.phase = Phase::Done);
    Ok(audited)
}

fn note(
    ended: Option<Result<Finding, tokio::task::JoinError>>,
    progress: &watch::Sender<Progress>,
    audited: &mut Audited,
) -> Result<(), AuditError> {
    let Some(ended) = ended else { return Ok(()) };
    let finding = ended.map_err(|e| AuditError::Interrupted(e.to_string()))?;
    progress.send_modify(|progress| progress.bytes_verified += u64::from(finding.bytes));
    audited.note(finding);
    Ok(())
}

/// Whether a shard that no node was found to hold is this node's to answer for. If some nodes gave no answer, it is
/// theirs, for one of them may hold it; otherwise it is that of the node where it was placed, if these are the nodes that
/// it was placed on.
fn is_home(view: &store::list::ListView<'_>, survey: &Survey, shard: u32, node: usize) -> bool {
    let silent = |node: usize| !survey.nodes[node].standing.is_well();
    if (0..survey.nodes.len()).any(silent) {
        return silent(node);
    }
    let home = || {
        let (_, shape) = view.coding()?;
        let group = view.group_of(shard)?;
        let ordinal = view.group(group)?.shards().position(|number| number == shard)?;
        Some(Placement::new(survey.nodes.len(), shape).home(u64::from(group), ordinal))
    };
    home() == Some(node)
}
