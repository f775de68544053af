//! Having nodes keep what they hold: each is asked for a lease on everything that a list names, by address. No byte of the
//! file is sent, and neither the file nor its key is needed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use identity::SecretKey;
use store::Hash;
use store::list::ListError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::ExchangeError;
use crate::fetch::FetchError;
use crate::holders::Catalog;
use crate::node_url::NodeUrl;
use crate::progress::{NodeProgress, Phase, Progress};
use crate::publish::tokens::NodeToken;
use crate::publish::{PublishError, PutError};

/// What is asked for, and how.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// When the leases end, seconds since 1970-01-01 UTC; `None`: as each node does it, usually after 90 days. A lease that
    /// ends later already stays as it is.
    pub expires_s: Option<u64>,
    /// Requests under way to one node at once.
    pub requests_per_node: usize,
    /// When a node is tried again, and when it is given up.
    pub backoff: Backoff,
}

impl Default for LeaseOptions {
    /// As each node does it; 32 at once, four tries.
    fn default() -> LeaseOptions {
        let backoff = Backoff { failures_max: 4, ..Backoff::default() };
        LeaseOptions { expires_s: None, requests_per_node: 32, backoff }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The list.
    pub list: Hash,
    /// The file's name in it.
    pub name: String,
    /// Segments and documents that it names, itself included, equal ones once.
    pub pieces: u64,
    /// Of those, how many no node gave a lease on.
    pub missing: u64,
    /// By node, in the caller's order.
    pub nodes: Vec<NodeLeases>,
}

/// What one node gave.
#[derive(Debug, Clone)]
pub struct NodeLeases {
    /// The node.
    pub node: NodeUrl,
    /// Pieces that it holds and keeps from now on.
    pub leased: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why it was given up, if so: pieces behind that were not asked for.
    pub failure: Option<PutError>,
}

/// Why nothing was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// No node was given.
    #[error("no node to ask; name at least one, as https://[UID@]HOST:PORT")]
    NoNodes,
    /// The list cannot be had from any of them.
    #[error(transparent)]
    List(#[from] FetchError),
    /// The list does not hold together.
    #[error("the list cannot be read: {0}")]
    Document(#[from] ListError),
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] PublishError),
    /// A task ended abnormally; its runtime is shutting down.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

/// Asks every node for the publisher's lease on all that `list` names.
///
/// # Errors
/// [`LeaseError`] if the list cannot be had. A node that fails is in the report.
pub async fn lease(
    list: &Hash,
    nodes: &[Node],
    key: &SecretKey,
    options: &LeaseOptions,
    progress: &watch::Sender<Progress>,
) -> Result<Leased, LeaseError> {
    if nodes.is_empty() {
        return Err(LeaseError::NoNodes);
    }
    progress.send_replace(Progress {
        nodes: nodes.iter().map(|node| NodeProgress::new(node.url().clone())).collect(),
        ..Progress::default()
    });
    let catalog = Catalog::get(list, nodes, &options.backoff).await?;
    let view = catalog.list()?;
    let documents = catalog.documents()?.into_iter().map(|document| (document.hash, document.len));
    let mut pieces: Vec<(Hash, u32)> = documents.collect();
    pieces.extend(view.shards());
    pieces.sort_unstable();
    pieces.dedup();
    let pieces: Arc<[(Hash, u32)]> = pieces.into();
    progress.send_modify(|progress| progress.phase = Phase::Transferring);
    let mut asking = JoinSet::new();
    for (index, node) in nodes.iter().cloned().enumerate() {
        let (pieces, key, options) = (pieces.clone(), key.clone(), options.clone());
        asking.spawn(async move { (index, ask(node, &pieces, &key, &options).await) });
    }
    let mut reports: Vec<Option<NodeLeases>> = vec![None; nodes.len()];
    let mut is_leased = vec![false; pieces.len()];
    while let Some(ended) = asking.join_next().await {
        let (index, asked) = ended.map_err(|error| LeaseError::Interrupted(error.to_string()))?;
        let (report, leased) = asked?;
        leased.into_iter().for_each(|piece| is_leased[piece] = true);
        reports[index] = Some(report);
    }
    progress.send_modify(|progress| progress.phase = Phase::Done);
    Ok(Leased {
        list: *list,
        name: view.name().to_owned(),
        pieces: pieces.len() as u64,
        missing: is_leased.iter().filter(|is_leased| !**is_leased).count() as u64,
        nodes: reports.into_iter().flatten().collect(),
    })
}

/// Asks one node for everything; gives the pieces that it holds, too.
async fn ask(
    node: Node,
    pieces: &Arc<[(Hash, u32)]>,
    key: &SecretKey,
    options: &LeaseOptions,
) -> Result<(NodeLeases, Vec<usize>), LeaseError> {
    let mut report = NodeLeases { node: node.url().clone(), leased: 0, bytes: 0, failure: None };
    let uid = match node.uid().await {
        Ok(Some(uid)) => uid,
        Ok(None) => return Err(PublishError::NodeUid { node: report.node }.into()),
        Err(error) => {
            report.failure = Some(PutError::Exchange(ExchangeError::Connect(error)));
            return Ok((report, Vec::new()));
        }
    };
    let mut token = NodeToken::new(key, uid, options.expires_s)?;
    let mut leased = Vec::new();
    let mut waiting: VecDeque<usize> = (0..pieces.len()).collect();
    let mut requests = JoinSet::new();
    loop {
        while report.failure.is_none()
            && requests.len() < options.requests_per_node.max(1)
            && let Some(piece) = waiting.pop_front()
        {
            let (node, token, hash, backoff) =
                (node.clone(), token.current(key)?, pieces[piece].0, options.backoff);
            requests.spawn(async move { (piece, request(&node, &hash, &token, backoff).await) });
        }
        let Some(ended) = requests.join_next().await else { break };
        let (piece, answer) = ended.map_err(|error| LeaseError::Interrupted(error.to_string()))?;
        let (hash, len) = pieces[piece];
        match answer {
            Ok(()) => {
                report.leased += 1;
                report.bytes += u64::from(len);
                leased.push(piece);
            }
            // Another node's.
            Err(ExchangeError::NotFound { .. }) => {}
            Err(error) => report.failure = Some(PutError::new(error, key.uid(), &hash, len.into())),
        }
    }
    Ok((report, leased))
}

async fn request(node: &Node, hash: &Hash, token: &str, backoff: Backoff) -> Result<(), ExchangeError> {
    let mut retries = Retries::new(backoff);
    loop {
        let Err(error) = node.lease(hash, token).await else { return Ok(()) };
        match retries.wait(&error, Instant::now(), random_u32()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}
