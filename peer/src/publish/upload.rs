//! Uploads to all nodes at once. Every piece is in memory until it is where it belongs: on each node that is left, or,
//! as a shard of a code, on one of them. A node that fails for good is left behind, and its shards go elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use identity::SecretKey;
use store::Hash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::error::{PublishError, PutError};
use super::put::{PiecePut, Put};
use super::spread::{Ledger, ShardPlace, Spread};
use super::tokens::NodeToken;
use super::{PublishOptions, PublishReport};
use crate::backoff::Backoff;
use crate::client::{ConnectError, Node};
use crate::exchange::ExchangeError;
use crate::placement;
use crate::progress::{Progress, RateMeter};

/// With a code there are other nodes for a shard, so less patience is due: after so many failures in a row it goes
/// elsewhere.
const FAILURES_BEFORE_ELSEWHERE: u32 = 4;

/// And when failures have gone on for so long: attempts at a node that is gone last until their time-out.
const FAILING_BEFORE_ELSEWHERE: Duration = Duration::from_secs(15);

/// And after so long on a busy node, which is not given up for it.
const BUSY_BEFORE_ELSEWHERE: Duration = Duration::from_secs(20);

/// What is put, hashed.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) hash: Hash,
    pub(super) bytes: Bytes,
    pub(super) place: Place,
    /// How many bytes of the file it stands for; shown as progress.
    pub(super) plain_len: u64,
}

/// Where a piece belongs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// On every node.
    Everywhere,
    /// On one node, as the placement says.
    Shard(ShardPlace),
}

/// Uploads under way. Dropping it cancels them.
pub(super) struct Publication<'a> {
    key: &'a SecretKey,
    options: &'a PublishOptions,
    nodes_min: usize,
    /// In the order of their UIDs.
    uploads: Vec<NodeUpload>,
    /// The nodes' numbers in the caller's order.
    position: Vec<usize>,
    ledger: Option<Ledger>,
    puts: JoinSet<PutOutcome>,
    /// Pieces that are not yet where they belong, by their number.
    open: HashMap<u64, OpenPiece>,
    next_number: u64,
    /// What was put everywhere.
    everywhere: HashSet<Hash>,
    /// Shards that a node has, and those on their way to it with the pieces that wait for the outcome: equal segments
    /// are one.
    acknowledged: HashSet<(Hash, usize)>,
    under_way: HashMap<(Hash, usize), Vec<u64>>,
    progress: &'a watch::Sender<Progress>,
}

/// One node's side of the publication.
struct NodeUpload {
    node: Node,
    /// None as long as the node's identity is unknown; it is given up then.
    token: Option<NodeToken>,
    requests: Arc<Semaphore>,
    is_given_up: Arc<AtomicBool>,
    meter: RateMeter,
    report: PublishReport,
    /// Bytes of the file that it held already; the report counts bytes as they are stored, and parity.
    plain_held: u64,
}

struct OpenPiece {
    piece: Piece,
    /// Puts that must still end.
    outstanding: usize,
    /// Nodes that were too busy for this shard.
    avoided: Vec<usize>,
    _memory: Option<OwnedSemaphorePermit>,
}

struct PutOutcome {
    node: usize,
    number: u64,
    result: Result<Put, PutError>,
}

impl<'a> Publication<'a> {
    pub(super) async fn start(
        nodes: &[Node],
        key: &'a SecretKey,
        options: &'a PublishOptions,
        progress: &'a watch::Sender<Progress>,
    ) -> Result<Publication<'a>, PublishError> {
        let nodes_min = options.nodes_min.unwrap_or(if options.code.is_some() { 1 } else { nodes.len() });
        let mut asking = JoinSet::new();
        for (index, node) in nodes.iter().cloned().enumerate() {
            asking.spawn(async move { (index, node.uid().await) });
        }
        let mut uids = vec![None; nodes.len()];
        let mut unknown: Vec<Option<ConnectError>> = vec![None; nodes.len()];
        while let Some(answer) = asking.join_next().await {
            match answer.map_err(|e| PublishError::Interrupted(e.to_string()))? {
                (index, Ok(Some(uid))) => uids[index] = Some(uid),
                (index, Ok(None)) => {
                    return Err(PublishError::NodeUid { node: nodes[index].url().clone() });
                }
                (index, Err(error)) => unknown[index] = Some(error),
            }
        }
        let named: Vec<_> = nodes.iter().zip(&uids).map(|(node, uid)| (*uid, node.url())).collect();
        let position = placement::order(&named);
        let mut uploads = Vec::with_capacity(nodes.len());
        for &index in &position {
            uploads.push(NodeUpload {
                node: nodes[index].clone(),
                token: uids[index]
                    .map(|uid| NodeToken::new(key, uid, options.lease_expires_s))
                    .transpose()?,
                requests: Arc::new(Semaphore::new(options.requests_per_node.max(1))),
                is_given_up: Arc::new(AtomicBool::new(false)),
                meter: RateMeter::new(),
                report: PublishReport::new(nodes[index].url().clone()),
                plain_held: 0,
            });
        }
        let mut publication = Publication {
            key,
            options,
            nodes_min: nodes_min.max(1),
            uploads,
            position,
            ledger: options.code.map(|(_, shape)| Ledger::new(nodes.len(), shape)),
            puts: JoinSet::new(),
            open: HashMap::new(),
            next_number: 0,
            everywhere: HashSet::new(),
            acknowledged: HashSet::new(),
            under_way: HashMap::new(),
            progress,
        };
        for node in 0..publication.uploads.len() {
            let Some(error) = unknown[publication.position[node]].take() else { continue };
            publication.give_up_unconnected(node, error)?;
        }
        Ok(publication)
    }

    /// Starts to put a piece where it belongs. What it holds of the memory's bound is given back when it is there.
    pub(super) fn put(
        &mut self,
        piece: Piece,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<(), PublishError> {
        let number = self.next_number;
        self.next_number += 1;
        let place = piece.place;
        if matches!(place, Place::Everywhere) && !self.everywhere.insert(piece.hash) {
            // The same bytes are on their way, or there; what they need is already being done.
            self.count(piece.plain_len);
            return Ok(());
        }
        self.open.insert(number, OpenPiece { piece, outstanding: 0, avoided: Vec::new(), _memory: memory });
        match place {
            Place::Everywhere => {
                let left: Vec<usize> =
                    (0..self.uploads.len()).filter(|node| self.uploads[*node].is_left()).collect();
                left.into_iter().try_for_each(|node| self.send(number, node))
            }
            Place::Shard(shard) => self.place(number, shard),
        }
    }

    /// Waits until one put has ended; `false` if none is under way.
    pub(super) async fn advance(&mut self) -> Result<bool, PublishError> {
        let Some(ended) = self.puts.join_next().await else { return Ok(false) };
        self.ended(ended.map_err(|e| PublishError::Interrupted(e.to_string()))?)?;
        Ok(true)
    }

    /// Whether a put is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.puts.is_empty()
    }

    /// Waits until every piece is where it belongs.
    pub(super) async fn settle(&mut self) -> Result<(), PublishError> {
        while self.advance().await? {}
        Ok(())
    }

    /// How each node fared, in the caller's order, and what lies where.
    pub(super) fn finish(self) -> (Vec<PublishReport>, Option<Spread>) {
        let uploads = &self.uploads;
        let spread = self.ledger.zip(self.options.code).map(|(ledger, (code, shape))| {
            ledger.finish(code, shape, &self.position, |node| !uploads[node].is_left())
        });
        let mut reports: Vec<_> =
            self.position.into_iter().zip(self.uploads.into_iter().map(|upload| upload.report)).collect();
        reports.sort_by_key(|(position, _)| *position);
        (reports.into_iter().map(|(_, report)| report).collect(), spread)
    }

    /// Chooses a node for a shard, and sends it there.
    fn place(&mut self, number: u64, shard: ShardPlace) -> Result<(), PublishError> {
        let (Some(ledger), Some(open)) = (&mut self.ledger, self.open.get(&number)) else { return Ok(()) };
        let uploads = &self.uploads;
        let is_patient = |node: usize| uploads[node].is_left() && !open.avoided.contains(&node);
        let Some(node) = ledger.choose(shard, is_patient) else {
            return Err(PublishError::NoNodesLeft { nodes: uploads.len(), failures: self.failures() });
        };
        let hash = open.piece.hash;
        if self.acknowledged.contains(&(hash, node)) {
            self.arrived(number, node, Put::Held);
        } else if let Some(waiting) = self.under_way.get_mut(&(hash, node)) {
            waiting.push(number);
        } else {
            self.under_way.insert((hash, node), Vec::new());
            self.send(number, node)?;
        }
        Ok(())
    }

    fn send(&mut self, number: u64, node: usize) -> Result<(), PublishError> {
        let upload = &mut self.uploads[node];
        let (Some(open), Some(token)) = (self.open.get_mut(&number), &mut upload.token) else {
            return Ok(());
        };
        open.outstanding += 1;
        let put = PiecePut {
            node: upload.node.clone(),
            token: token.current(self.key)?,
            requests: upload.requests.clone(),
            is_given_up: upload.is_given_up.clone(),
            publisher: self.key.uid(),
            hash: open.piece.hash,
            bytes: open.piece.bytes.clone(),
            skip_held: self.options.skip_held,
            backoff: match open.piece.place {
                Place::Everywhere => self.options.backoff,
                Place::Shard(_) => patience_of_shards(self.options.backoff),
            },
        };
        self.puts.spawn(async move {
            let result = put.run().await;
            PutOutcome { node, number, result }
        });
        Ok(())
    }

    fn ended(&mut self, outcome: PutOutcome) -> Result<(), PublishError> {
        let PutOutcome { node, number, result } = outcome;
        let Some(open) = self.open.get_mut(&number) else { return Ok(()) };
        open.outstanding -= 1;
        let Place::Shard(_) = open.piece.place else {
            match result {
                Ok(put) => self.arrived(number, node, put),
                Err(error) => {
                    self.give_up(node, error)?;
                    self.arrived(number, node, Put::Skipped);
                }
            }
            return Ok(());
        };
        let hash = open.piece.hash;
        let mut numbers = self.under_way.remove(&(hash, node)).unwrap_or_default();
        numbers.insert(0, number);
        match result {
            Ok(put @ (Put::Stored | Put::Held)) => {
                self.acknowledged.insert((hash, node));
                for (nth, number) in numbers.into_iter().enumerate() {
                    self.arrived(number, node, if nth == 0 { put } else { Put::Held });
                }
                return Ok(());
            }
            Ok(Put::Skipped) => {}
            Err(PutError::Exchange(ExchangeError::Busy { .. })) => {
                for number in &numbers {
                    self.open.entry(*number).and_modify(|open| open.avoided.push(node));
                }
            }
            Err(error) => self.give_up(node, error)?,
        }
        for number in numbers {
            let Some(Place::Shard(shard)) = self.open.get(&number).map(|open| open.piece.place) else {
                continue;
            };
            if let Some(ledger) = &mut self.ledger {
                ledger.take_back(shard, node);
            }
            self.place(number, shard)?;
        }
        Ok(())
    }

    /// A put is over: counts it, and lets go of the piece if that was the last.
    fn arrived(&mut self, number: u64, node: usize, put: Put) {
        let Some(open) = self.open.get(&number) else { return };
        let upload = &mut self.uploads[node];
        let report = &mut upload.report;
        let len = open.piece.bytes.len() as u64;
        match put {
            Put::Stored => report.bytes_put += len,
            Put::Held => {
                report.bytes_held += len;
                upload.plain_held += open.piece.plain_len;
            }
            Put::Skipped => {}
        }
        if let (Place::Shard(shard), Some(ledger)) = (open.piece.place, &mut self.ledger) {
            ledger.settle(shard, node);
            report.data_shards += u64::from(!shard.is_parity);
            report.parity_shards += u64::from(shard.is_parity);
        }
        if open.outstanding == 0 {
            let plain_len = open.piece.plain_len;
            self.open.remove(&number);
            self.count(plain_len);
        }
        self.show(node);
    }

    /// The node is used no more. Fails if too few are left then.
    fn give_up(&mut self, node: usize, error: PutError) -> Result<(), PublishError> {
        let upload = &mut self.uploads[node];
        if !upload.is_left() {
            return Ok(());
        }
        upload.is_given_up.store(true, Ordering::Relaxed);
        let url = upload.node.url().clone();
        tracing::warn!(node = %url, %error, "the node is given up");
        upload.report.failure = Some(error.clone());
        self.show(node);
        let nodes_left = self.uploads.iter().filter(|upload| upload.is_left()).count();
        if nodes_left < self.nodes_min {
            let nodes_min = self.nodes_min;
            return Err(PublishError::Node { node: url, error: Box::new(error), nodes_left, nodes_min });
        }
        Ok(())
    }

    /// A node whose UID must be read from its certificate cannot be connected to.
    fn give_up_unconnected(&mut self, node: usize, error: ConnectError) -> Result<(), PublishError> {
        let url = self.uploads[node].node.url().clone();
        let failure = PutError::Exchange(ExchangeError::Connect(error.clone()));
        match self.give_up(node, failure) {
            Err(_) => Err(PublishError::Connect { node: url, source: Box::new(error) }),
            Ok(()) => Ok(()),
        }
    }

    fn failures(&self) -> String {
        let failures = self
            .uploads
            .iter()
            .filter_map(|upload| Some(format!("{}: {}", upload.node.url(), upload.report.failure.as_ref()?)));
        failures.collect::<Vec<_>>().join("; ")
    }

    /// So many bytes more of the file are where they belong.
    fn count(&self, plain_len: u64) {
        let left = self.uploads.iter().filter(|upload| upload.is_left() || self.ledger.is_some());
        let held = left.map(|upload| upload.plain_held);
        let held = if self.ledger.is_some() { held.sum() } else { held.min().unwrap_or(0) };
        self.progress.send_modify(|progress| {
            progress.bytes_verified += plain_len;
            progress.bytes_resumed = held;
        });
    }

    fn show(&mut self, node: usize) {
        let upload = &mut self.uploads[node];
        let bytes = upload.report.bytes_put + upload.report.bytes_held;
        let rate = upload.meter.update(Instant::now(), upload.report.bytes_put);
        let given_up = upload.report.failure.as_ref().map(ToString::to_string);
        let position = self.position[node];
        self.progress.send_modify(|progress| {
            if let Some(shown) = progress.nodes.get_mut(position) {
                shown.bytes = bytes;
                shown.rate_bytes_per_s = rate;
                shown.given_up = given_up;
            }
        });
    }
}

impl NodeUpload {
    fn is_left(&self) -> bool {
        self.report.failure.is_none()
    }
}

fn patience_of_shards(backoff: Backoff) -> Backoff {
    Backoff {
        failures_max: backoff.failures_max.min(FAILURES_BEFORE_ELSEWHERE),
        failing_max: backoff.failing_max.min(FAILING_BEFORE_ELSEWHERE),
        busy_max: backoff.busy_max.min(BUSY_BEFORE_ELSEWHERE),
        ..backoff
    }
}
