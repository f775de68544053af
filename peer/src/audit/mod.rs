//! Whether nodes still hold what they took: each is asked for blocks of 64 KiB at random places of random shards, and
//! every answer is verified against the list. Costs a few packets a challenge, whatever the file's length.
//!
//! Goals: busy, offline, missing and corrupt are told apart, and a node that is merely busy is never called anything
//! worse; the same seed asks the same. Not a goal: a proof that a node stores what it shows; it may fetch it elsewhere.

mod challenge;
mod error;
mod outboards;
mod report;
mod sample;

use std::sync::Arc;

use store::Hash;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

pub use self::error::AuditError;
pub use self::report::{Audited, Finding, NodeAudit, Verdict};
pub use self::sample::Sample;

use self::challenge::Challenge;
use self::outboards::{Outboards, Place};
use crate::backoff::Backoff;
use crate::client::Node;
use crate::holders::{Catalog, Depth, Found, Silence, Survey, survey};
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
    let mut chosen = sample::places(options.seed, list, view.shard_count(), options.sample);
    // By shard, so that each outboard document is fetched once.
    chosen.sort_unstable();
    let places = outboards::places(&view, &chosen);
    let pieces: Arc<[_]> = places.iter().map(|place| (place.hash, place.len)).collect();
    let survey = survey(nodes, pieces, Depth::Claim, options.backoff, Arc::new(|_| ())).await;

    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let mut audited = Audited::new(*list, &view, options, places.len(), &survey);
    let mut held: Vec<Vec<Place>> = survey.nodes.iter().map(|_| Vec::new()).collect();
    for (piece, place) in places.into_iter().enumerate() {
        let shard = place.shard;
        let is_held = survey.holders(piece).next().is_some();
        for (index, node) in survey.nodes.iter().enumerate() {
            let is_expected = view.coding().is_none() || !is_held && is_home(&view, &survey, shard, index);
            match node.found[piece] {
                Found::Held => held[index].push(place.clone()),
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
    let well = survey.nodes.iter().filter(|node| node.standing.is_well());
    let outboards = Outboards::new(&view, well.map(|node| node.node.clone()).collect(), options.backoff);
    let outboards = Arc::new(outboards);
    let (findings, mut found) = mpsc::unbounded_channel();
    let mut asking = JoinSet::new();
    for (node, places) in survey.nodes.iter().zip(held) {
        let (asked, position, options) = (node.node.clone(), node.position, options.clone());
        let (outboards, findings) = (outboards.clone(), findings.clone());
        asking.spawn(async move { challenge(asked, position, places, outboards, options, findings).await });
    }
    drop(findings);
    while let Some(finding) = found.recv().await {
        let finding = finding?;
        progress.send_modify(|progress| progress.bytes_verified += u64::from(finding.bytes));
        audited.note(finding);
    }
    while let Some(ended) = asking.join_next().await {
        ended.map_err(|e| AuditError::Interrupted(e.to_string()))?;
    }
    progress.send_modify(|progress| progress.phase = Phase::Done);
    Ok(audited)
}

/// Puts its challenges to one node, some at once; every node has a task of its own, so that none waits for another.
async fn challenge(
    node: Node,
    position: usize,
    places: Vec<Place>,
    outboards: Arc<Outboards>,
    options: AuditOptions,
    findings: mpsc::UnboundedSender<Result<Finding, AuditError>>,
) {
    let silence = Arc::new(Silence::new(&options.backoff));
    let mut asking = JoinSet::new();
    for place in places {
        while asking.len() >= options.requests_per_node.max(1) {
            ended(asking.join_next().await, &findings);
        }
        let (node, outboards, silence) = (node.clone(), outboards.clone(), silence.clone());
        let (backoff, findings) = (options.backoff, findings.clone());
        asking.spawn(async move {
            let finding = match outboards.of(&place).await {
                Ok(outboard) => {
                    Ok(Challenge::new(&place, outboard, backoff).put_to(&node, position, &silence).await)
                }
                Err(error) => Err(error),
            };
            // Nobody listens any more after an error; the audit is over then.
            let _ = findings.send(finding);
        });
    }
    while !asking.is_empty() {
        ended(asking.join_next().await, &findings);
    }
}

/// Passes on that a challenge's task did not live to send its finding.
fn ended(
    ended: Option<Result<(), JoinError>>,
    findings: &mpsc::UnboundedSender<Result<Finding, AuditError>>,
) {
    if let Some(Err(error)) = ended {
        let _ = findings.send(Err(AuditError::Interrupted(error.to_string())));
    }
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
