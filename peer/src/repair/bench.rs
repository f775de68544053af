//! The nodes of a repair: reading from those that hold something, putting to those that lack it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use identity::{SecretKey, Uid};
use store::Hash;
use tokio::sync::Semaphore;

use super::report::Repaired;
use super::{RepairError, RepairOptions};
use crate::backoff::{Backoff, Retries, random_u32};
use crate::client::Node;
use crate::exchange::{ExchangeError, Length};
use crate::holders::Survey;
use crate::publish::put::{PiecePut, Put};
use crate::publish::tokens::NodeToken;
use crate::publish::{PublishError, PutError};

/// All nodes, in the survey's order.
pub(super) struct Bench {
    stations: Vec<Station>,
    key: SecretKey,
    backoff: Backoff,
}

struct Station {
    node: Node,
    /// Its number in the caller's order.
    position: usize,
    /// None if nothing can be put there: it does not answer, or nobody knows who it is.
    token: Option<Mutex<NodeToken>>,
    requests: Arc<Semaphore>,
    is_given_up: Arc<AtomicBool>,
    work: Mutex<Work>,
}

/// What came of a node.
#[derive(Default)]
struct Work {
    shards_put: u64,
    bytes_put: u64,
    /// Copies that turned out wrong when they were read.
    damaged: u64,
    failure: Option<PutError>,
}

impl Bench {
    pub(super) fn new(
        survey: &Survey,
        key: &SecretKey,
        options: &RepairOptions,
    ) -> Result<Bench, RepairError> {
        let station = |node: &crate::holders::Surveyed| {
            let is_open = node.standing.is_well();
            let token = node.uid.filter(|_| is_open).map(|uid| NodeToken::new(key, uid, None)).transpose();
            Ok(Station {
                node: node.node.clone(),
                position: node.position,
                token: token.map_err(|e: PublishError| RepairError::Random(e.to_string()))?.map(Mutex::new),
                requests: Arc::new(Semaphore::new(options.requests_per_node.max(1))),
                is_given_up: Arc::new(AtomicBool::new(false)),
                work: Mutex::default(),
            })
        };
        let stations = survey.nodes.iter().map(station).collect::<Result<_, RepairError>>()?;
        Ok(Bench { stations, key: key.clone(), backoff: options.backoff })
    }

    pub(super) fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether something may be put to this node.
    pub(super) fn is_target(&self, node: usize) -> bool {
        let station = &self.stations[node];
        station.token.is_some() && !station.is_given_up.load(Ordering::Relaxed)
    }

    /// Reads a piece from the first of `holders` that has it right; those that do not are taken out, and those of them that
    /// gave something else are put into `bad_at`.
    pub(super) async fn read(
        &self,
        hash: &Hash,
        len: u32,
        holders: &mut Vec<usize>,
        bad_at: &mut Vec<usize>,
    ) -> Option<Bytes> {
        while let Some(&holder) = holders.first() {
            match self.read_from(holder, hash, len).await {
                Ok(bytes) => return Some(bytes),
                Err(error) => {
                    let station = &self.stations[holder];
                    tracing::warn!(node = %station.node.url(), %hash, %error, "a copy cannot be read");
                    if error.is_misconduct() || matches!(error, ExchangeError::Status { .. }) {
                        bad_at.push(holder);
                    }
                    if !error.is_transient() || matches!(error, ExchangeError::Status { .. }) {
                        lock(&station.work).damaged += 1;
                    }
                    holders.remove(0);
                }
            }
        }
        None
    }

    async fn read_from(&self, node: usize, hash: &Hash, len: u32) -> Result<Bytes, ExchangeError> {
        let received = AtomicU64::new(0);
        let mut retries = Retries::new(self.backoff);
        loop {
            let length = Length::Exactly(u64::from(len));
            let error = match self.stations[node].node.get(hash, length, &received).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            match retries.wait(&error, Instant::now(), random_u32()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            }
        }
    }

    /// Puts a piece to a node; a node that does not take it is given up.
    pub(super) async fn put(&self, node: usize, hash: &Hash, bytes: &Bytes) -> Result<(), PutError> {
        let station = &self.stations[node];
        let publisher: Uid = self.key.uid();
        let Some(token) = &station.token else {
            return Err(PutError::Exchange(ExchangeError::Lost {
                reason: "nobody answers there".to_owned(),
            }));
        };
        let token = lock(token).current(&self.key);
        let token = token.map_err(|e| PutError::Exchange(ExchangeError::Lost { reason: e.to_string() }))?;
        let put = PiecePut {
            node: station.node.clone(),
            token,
            requests: station.requests.clone(),
            is_given_up: station.is_given_up.clone(),
            publisher,
            hash: *hash,
            bytes: bytes.clone(),
            skip_held: false,
            backoff: self.backoff,
        };
        match put.run().await {
            Ok(Put::Stored | Put::Held) => {
                let mut work = lock(&station.work);
                work.shards_put += 1;
                work.bytes_put += bytes.len() as u64;
                Ok(())
            }
            Ok(Put::Skipped) => {
                let failure = lock(&station.work).failure.clone();
                let lost = || ExchangeError::Lost { reason: "it was given up".to_owned() };
                Err(failure.unwrap_or_else(|| PutError::Exchange(lost())))
            }
            Err(error) => {
                tracing::warn!(node = %station.node.url(), %error, "the node is given up");
                station.is_given_up.store(true, Ordering::Relaxed);
                lock(&station.work).failure.get_or_insert(error.clone());
                Err(error)
            }
        }
    }

    /// Adds what the nodes did to the report.
    pub(super) fn report(&self, repaired: &mut Repaired) {
        for station in &self.stations {
            let work = lock(&station.work);
            let Some(node) = repaired.nodes.get_mut(station.position) else { continue };
            node.pieces_put = work.shards_put;
            node.bytes_put = work.bytes_put;
            node.pieces_damaged += work.damaged;
            node.failure = work.failure.clone();
        }
    }
}

/// What a panicking holder leaves behind is whole all the same: counters and a token.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
