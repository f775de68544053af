//! Asking nodes what they hold of a list of pieces.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use identity::Uid;
use store::Hash;
use tokio::task::JoinSet;

use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::{ExchangeError, Length};
use crate::holders::Silence;
use crate::placement;

/// Questions under way to one node at once.
const QUESTIONS_PER_NODE: usize = 32;

/// Whole pieces under way from one node at once, when each is read and verified.
const PIECES_PER_NODE: usize = 4;

/// How long one question may find a node busy before the rest is left for another time.
const BUSY_MAX: Duration = Duration::from_secs(20);

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The node is asked (HEAD).
    Claim,
    /// Every byte is read and verified.
    Bytes,
}

/// What a node has of one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It holds it, or says so.
    Held,
    /// It does not.
    Missing,
    /// It has something else in its place.
    Damaged,
    /// It gave no answer.
    Unknown,
}

/// Whether a node answers.
#[derive(Debug, Clone, Default)]
pub(crate) enum Standing {
    /// Yes.
    #[default]
    Well,
    /// It asks to be left alone, and may hold what it was not asked for.
    Busy(ExchangeError),
    /// It could not be reached, or stopped answering.
    Offline(ExchangeError),
}

impl Standing {
    pub(crate) fn is_well(&self) -> bool {
        matches!(self, Standing::Well)
    }

    pub(crate) fn reason(&self) -> Option<&ExchangeError> {
        match self {
            Standing::Well => None,
            Standing::Busy(error) | Standing::Offline(error) => Some(error),
        }
    }
}

/// The answers of all nodes. Nodes are in the order of their UIDs, whatever order they were given in.
pub(crate) struct Survey {
    pub(crate) nodes: Vec<Surveyed>,
}

/// One node's answers.
pub(crate) struct Surveyed {
    pub(crate) node: Node,
    pub(crate) uid: Option<Uid>,
    /// Its number in the caller's order.
    pub(crate) position: usize,
    pub(crate) standing: Standing,
    /// By piece.
    pub(crate) found: Vec<Found>,
}

impl Survey {
    /// Nodes that hold piece `i`.
    pub(crate) fn holders(&self, i: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(move |node| self.nodes[*node].found[i] == Found::Held)
    }
}

/// Asks every node for every piece: address and length in bytes. `progress` is told of each answer.
pub(crate) async fn survey(
    nodes: &[Node],
    pieces: Arc<[(Hash, u32)]>,
    depth: Depth,
    backoff: Backoff,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
) -> Survey {
    let mut asking = JoinSet::new();
    for (position, node) in nodes.iter().cloned().enumerate() {
        let (pieces, progress) = (pieces.clone(), progress.clone());
        asking.spawn(async move { ask(node, position, &pieces, depth, backoff, &progress).await });
    }
    let mut surveyed = asking.join_all().await;
    surveyed.sort_unstable_by_key(|node| node.position);
    let named: Vec<_> = surveyed.iter().map(|node| (node.uid, node.node.url())).collect();
    let order = placement::order(&named);
    let mut surveyed: Vec<Option<Surveyed>> = surveyed.into_iter().map(Some).collect();
    Survey { nodes: order.into_iter().filter_map(|index| surveyed[index].take()).collect() }
}

async fn ask(
    node: Node,
    position: usize,
    pieces: &Arc<[(Hash, u32)]>,
    depth: Depth,
    backoff: Backoff,
    progress: &Arc<dyn Fn(u64) + Send + Sync>,
) -> Surveyed {
    let backoff = Backoff { busy_max: backoff.busy_max.min(BUSY_MAX), ..backoff };
    let mut found = vec![Found::Unknown; pieces.len()];
    let mut standing = Standing::Well;
    let mut waiting: VecDeque<usize> = (0..pieces.len()).collect();
    let mut questions = JoinSet::new();
    let silence = Arc::new(Silence::new(&backoff));
    let at_once = if depth == Depth::Bytes { PIECES_PER_NODE } else { QUESTIONS_PER_NODE };
    loop {
        while standing.is_well()
            && questions.len() < at_once
            && let Some(index) = waiting.pop_front()
        {
            let (node, pieces, silence) = (node.clone(), pieces.clone(), silence.clone());
            questions.spawn(async move {
                (index, question(&node, pieces[index], depth, backoff, &silence).await)
            });
        }
        let Some(Ok((index, answer))) = questions.join_next().await else { break };
        progress(u64::from(pieces[index].1));
        match answer {
            Ok(state) => found[index] = state,
            Err(error @ ExchangeError::Busy { .. }) => {
                if standing.is_well() {
                    standing = Standing::Busy(error);
                }
            }
            Err(error) => {
                standing = Standing::Offline(error);
                break;
            }
        }
    }
    // A node that is offline may have a UID all the same, in its URL.
    let uid = match node.url().uid() {
        Some(uid) => Some(*uid),
        None if matches!(standing, Standing::Offline(_)) => None,
        None => node.uid().await.ok().flatten(),
    };
    Surveyed { node, uid, position, standing, found }
}

/// What the node has of one piece; an error if that cannot be told.
async fn question(
    node: &Node,
    (hash, len): (Hash, u32),
    depth: Depth,
    backoff: Backoff,
    silence: &Silence,
) -> Result<Found, ExchangeError> {
    let mut retries = Retries::new(backoff);
    loop {
        if let Some(error) = silence.reason() {
            return Err(error);
        }
        let answer = match depth {
            Depth::Claim => node.offers(&hash, u64::from(len)).await,
            Depth::Bytes => {
                let received = AtomicU64::new(0);
                node.get(&hash, Length::Exactly(u64::from(len)), &received).await.map(|_| true)
            }
        };
        let error = match answer {
            Ok(is_held) => {
                silence.is_broken();
                return Ok(if is_held { Found::Held } else { Found::Missing });
            }
            Err(error) => error,
        };
        silence.note(&error);
        match &error {
            ExchangeError::NotFound { .. } => return Ok(Found::Missing),
            ExchangeError::WrongBytes { .. } | ExchangeError::WrongLength { .. } => {
                return Ok(Found::Damaged);
            }
            _ => {}
        }
        if silence.reason().is_some() {
            return Err(error);
        }
        match retries.wait(&error, Instant::now(), random_u32()) {
            Some(wait) => tokio::time::sleep(wait).await,
            // It answers, yet cannot give this piece: as good as damaged.
            None if matches!(error, ExchangeError::Status { .. }) => return Ok(Found::Damaged),
            None => return Err(error),
        }
    }
}
