//! What all connections of a shard share: the store, the storage executors, opened lists, the policy, and who waits for what.

use super::Waiter;
use super::lists::{List, Lists};
use super::upload::{Complete, Reserved};
use crate::metrics::ShardCounters;
use crate::storage::{Lease, Reply, Request, RequestId, StorageClient};
use crate::wall_clock::unix_time_s;
use bytes::Bytes;
use identity::Uid;
use identity::token::Claims;
use relay::content::Problem;
use relay::policy::{Limits, Policy};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use store::leases::{Leases, NEVER, NoRoom, Outcome as Ended, Reservation as Room};
use store::{Hash, Lookup, Reader};

/// What a shard's content service is made of.
#[derive(Debug)]
pub struct ContentOptions {
    /// This shard's reader of the store.
    pub reader: Reader,
    /// This shard's way to the storage executors.
    pub storage: StorageClient,
    /// The node, for which capability tokens must be made out.
    pub node: Uid,
    /// Who may write, and the bounds.
    pub policy: Arc<Policy>,
    /// Who wants kept what.
    pub leases: Arc<Leases>,
    /// Shards among which the node's bounds are divided.
    pub shard_count: usize,
    /// Where everything is counted.
    pub counters: Arc<ShardCounters>,
}

/// The content service of a shard.
#[derive(Debug)]
pub struct Content {
    reader: Reader,
    storage: StorageClient,
    pub(super) node: Uid,
    pub(super) policy: Arc<Policy>,
    pub(super) leases: Arc<Leases>,
    shard_count: usize,
    pub(super) counters: Arc<ShardCounters>,
    lists: Lists,
    /// Segments that are being loaded, each once however many wait.
    loads: HashMap<Hash, Vec<Waiter>>,
    requests: HashMap<RequestId, Asked>,
    next_request: RequestId,
    /// Requests that found the executors' queue full.
    stalled: VecDeque<Waiter>,
    upload_bytes: Rc<Cell<u64>>,
    /// Where bodies are read that are only compared.
    pub(super) scratch: Box<[u8]>,
}

#[derive(Debug)]
enum Asked {
    Load(Hash),
    Append { waiter: Waiter, _reserved: Reserved },
    End { waiter: Waiter },
}

/// Bytes of the upload budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    len: u64,
    total: Rc<Cell<u64>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.len);
    }
}

/// Whether a segment can be had now.
#[derive(Debug)]
pub(super) enum Fetch {
    /// In memory and verified.
    Ready(Bytes),
    /// Being loaded; [`Outcome::Segment`] follows.
    Waiting,
    /// The executors' queue is full; the request is tried again when there is room.
    Stalled,
    /// Not in the store.
    Absent,
}

/// Why a segment cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// The store does not hold it.
    Absent,
    /// It could not be read or is not what it should be; logged where that was found.
    Damaged,
}

/// Whether a list can be had now.
#[derive(Debug)]
pub(super) enum OpenList {
    /// Open and verified.
    Ready(Rc<List>),
    /// Its document is being loaded.
    Waiting,
    /// The executors' queue is full.
    Stalled,
    /// The store does not hold the document, or it is no list that can be trusted.
    Absent,
}

/// What storage says to a request that waited.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A segment was loaded, or not.
    Segment(SegmentOutcome),
    /// A segment was appended, or not.
    Append(AppendOutcome),
}

/// A segment that was waited for.
#[derive(Clone, Debug)]
pub struct SegmentOutcome {
    pub(super) hash: Hash,
    pub(super) bytes: Result<Bytes, Unavailable>,
}

/// What became of a segment that was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It is durable.
    Stored {
        /// It was held before.
        existed: bool,
    },
    /// The store is full.
    Full,
    /// A lease was to be ended: this came of it.
    Ended(Ended),
    /// The segment that was to be leased was deleted a moment before.
    Gone,
    /// The disk failed.
    Failed,
}

/// Room in which bodies that are only compared are read: sixteen kilobytes times the lanes of BLAKE3's widest SIMD.
const SCRATCH_LEN: usize = 64 << 10;

/// Segments that are looked up before a list's file is promised: 4 GiB of full ones, and well below a millisecond in which
/// the shard does nothing else. What is missing behind them resets the stream when its turn comes.
const HELD_CHECK_SEGMENTS_MAX: usize = 4_096;

impl Content {
    /// A content service that has asked nothing yet.
    pub fn new(options: ContentOptions) -> Self {
        Self {
            reader: options.reader,
            storage: options.storage,
            node: options.node,
            policy: options.policy,
            leases: options.leases,
            shard_count: options.shard_count,
            counters: options.counters,
            lists: Lists::default(),
            loads: HashMap::new(),
            requests: HashMap::new(),
            next_request: 0,
            stalled: VecDeque::new(),
            upload_bytes: Rc::default(),
            scratch: vec![0; SCRATCH_LEN].into(),
        }
    }

    /// Puts another policy in force for requests from now on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The same, to keep.
    pub fn current_policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// Counts an upload that the policy does not let in, if that is what is wrong.
    pub fn count_refused(&self, problem: &Problem) {
        match problem.kind {
            "policy-expired" => self.counters.uploads_refused_policy_expired.increment(),
            "uid-denied" => self.counters.uploads_refused_denied.increment(),
            "uid-not-allowed" => self.counters.uploads_refused_not_allowed.increment(),
            _ => {}
        }
    }

    /// This node.
    pub fn node(&self) -> &Uid {
        &self.node
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.policy.limits
    }

    /// Open connections in percent of those that this shard may have, at most 100. Kernels spread clients evenly over shards,
    /// so it is about the node's.
    pub fn load_percent(&self) -> u8 {
        let open = self.counters.connections_open.get();
        let percent = open.saturating_mul(100) / u64::from(self.limits().connections_max).max(1);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    /// The next reply of the storage executors, to be given to [`Content::settle`].
    pub fn poll_storage(&mut self) -> Option<(RequestId, Reply)> {
        self.storage.try_recv()
    }

    /// Who waited for a reply, and what it means to each of them.
    pub fn settle(&mut self, id: RequestId, reply: Reply) -> Vec<(Waiter, Outcome)> {
        match self.requests.remove(&id) {
            None => Vec::new(),
            Some(Asked::Append { waiter, .. } | Asked::End { waiter }) => {
                let outcome = match reply {
                    Reply::Appended { existed } => AppendOutcome::Stored { existed },
                    Reply::Full => AppendOutcome::Full,
                    Reply::Ended(outcome) => AppendOutcome::Ended(outcome),
                    Reply::NotFound => AppendOutcome::Gone,
                    Reply::Loaded(_) | Reply::Failed(_) => AppendOutcome::Failed,
                };
                vec![(waiter, Outcome::Append(outcome))]
            }
            Some(Asked::Load(hash)) => {
                let bytes = match reply {
                    Reply::Loaded(bytes) => Ok(bytes),
                    Reply::NotFound => Err(Unavailable::Absent),
                    Reply::Appended { .. } | Reply::Ended(_) | Reply::Full | Reply::Failed(_) => {
                        Err(Unavailable::Damaged)
                    }
                };
                let outcome = Outcome::Segment(SegmentOutcome { hash, bytes });
                let waiters = self.loads.remove(&hash).unwrap_or_default();
                waiters.into_iter().map(|waiter| (waiter, outcome.clone())).collect()
            }
        }
    }

    /// The next request that found the executors' queue full, as long as there is room again.
    pub fn next_stalled(&mut self) -> Option<Waiter> {
        if self.storage.in_flight() >= crate::limits::STORAGE_REQUESTS_PER_CLIENT {
            return None;
        }
        self.stalled.pop_front()
    }

    /// Requests that found the executors' queue full.
    pub fn stalled(&self) -> usize {
        self.stalled.len()
    }

    /// Whether the queue is full of others' requests, so that no reply will come that makes room.
    pub fn is_kept_out_of_storage(&self) -> bool {
        !self.stalled.is_empty() && self.storage.in_flight() == 0
    }

    /// A mapping failed: lists that were read from it are read again.
    pub fn forget_mappings(&mut self) {
        self.lists = Lists::default();
    }

    /// Length of a segment in bytes, if the store holds it.
    pub(super) fn len_of(&mut self, hash: &Hash) -> Option<u32> {
        self.reader.len_of(hash)
    }

    /// Whether these bytes of a list's file are held, as far as that is looked up before they are promised.
    pub(super) fn holds(&mut self, list: &List, range: &Range<u64>) -> bool {
        let first = list.index_at(range.start);
        (first..)
            .map_while(|i| list.segment(i))
            .take_while(|(_, span)| span.start < range.end)
            .take(HELD_CHECK_SEGMENTS_MAX)
            .all(|(hash, _)| self.reader.len_of(&hash).is_some())
    }

    /// A segment's bytes, or a promise of them to `waiter`.
    pub(super) fn fetch(&mut self, hash: &Hash, waiter: Waiter) -> Fetch {
        match self.reader.lookup(hash) {
            Lookup::Ready(segment) => Fetch::Ready(segment.bytes()),
            Lookup::Absent => Fetch::Absent,
            Lookup::Cold(_) => self.load(hash, waiter),
        }
    }

    fn load(&mut self, hash: &Hash, waiter: Waiter) -> Fetch {
        if let Some(waiters) = self.loads.get_mut(hash) {
            waiters.push(waiter);
            return Fetch::Waiting;
        }
        let id = self.next_request;
        if self.storage.submit(id, Request::Load { hash: *hash }).is_err() {
            self.counters.storage_stalled.increment();
            self.stalled.push_back(waiter);
            return Fetch::Stalled;
        }
        self.next_request += 1;
        self.counters.segments_cold.increment();
        self.requests.insert(id, Asked::Load(*hash));
        self.loads.insert(*hash, vec![waiter]);
        Fetch::Waiting
    }

    /// A list, verified, or a promise of its document to `waiter`.
    pub(super) fn open_list(&mut self, hash: &Hash, waiter: Waiter) -> OpenList {
        if let Some(list) = self.lists.get(hash) {
            return OpenList::Ready(list);
        }
        match self.fetch(hash, waiter) {
            Fetch::Ready(document) => self.open_document(hash, &document),
            Fetch::Waiting => OpenList::Waiting,
            Fetch::Stalled => OpenList::Stalled,
            Fetch::Absent => OpenList::Absent,
        }
    }

    /// Opens a list whose document has been loaded.
    pub(super) fn open_document(&mut self, hash: &Hash, document: &[u8]) -> OpenList {
        match self.lists.open(*hash, document) {
            Ok(list) => OpenList::Ready(list),
            Err(error) => {
                tracing::debug!(%hash, %error, "asked for as a list, but is none");
                OpenList::Absent
            }
        }
    }

    /// Whether a list that this shard can open without waiting names a segment.
    pub(super) fn list_names(&mut self, list: &Hash, hash: &Hash) -> bool {
        if let Some(list) = self.lists.get(list) {
            return list.names(hash);
        }
        let Lookup::Ready(document) = self.reader.lookup(list) else { return false };
        self.lists.open(*list, &document.bytes()).is_ok_and(|list| list.names(hash))
    }

    /// Room for an upload of `len` bytes: this shard's part of the node's bound, divided evenly. So a node refuses at
    /// the earliest when one shard's part is full, and holds at most the bound.
    pub(super) fn reserve_upload(&mut self, len: u64) -> Option<Reservation> {
        let bound = self.policy.limits.upload_bytes_in_flight_max / self.shard_count as u64;
        let held = self.upload_bytes.get();
        // One upload is always let in, or a bound below the largest segment times the shards would refuse it for ever.
        if held > 0 && held + len > bound {
            return None;
        }
        self.upload_bytes.set(held + len);
        Some(Reservation { len, total: Rc::clone(&self.upload_bytes) })
    }

    /// Room in the store and in the owner's quota for an upload, before its first byte.
    pub(super) fn reserve_room(&self, lease: &Lease, hash: &Hash, len: u64) -> Result<Room, Problem> {
        let quota = self.policy.limits.publisher_bytes_max;
        self.leases.reserve(lease.owner, hash, len, quota).map_err(|no| match no {
            NoRoom::Store => {
                self.counters.uploads_refused_space.increment();
                Problem::insufficient_storage()
            }
            NoRoom::Quota => {
                self.counters.uploads_refused_quota.increment();
                Problem::quota_exceeded(quota)
            }
        })
    }

    /// The lease that a token for PUT gives its issuer.
    pub(super) fn lease(&self, claims: &Claims) -> Lease {
        let usual = || {
            let now_s = unix_time_s().max(self.leases.observed_s());
            now_s.saturating_add(self.policy.limits.lease_default_s.into())
        };
        let ends_s = claims.lease_expires_s.unwrap_or_else(usual);
        // A publisher cannot have what only the node itself has: a lease without an end.
        Lease { owner: *claims.issuer.as_bytes(), ends_s: ends_s.min(NEVER - 1) }
    }

    /// Asks for a verified segment and its lease to be made durable; [`Outcome::Append`] follows. False if the executors'
    /// queue is full.
    pub(super) fn store(&mut self, complete: Complete, waiter: Waiter) -> bool {
        let Complete { hash, bytes, lease, reserved } = complete;
        let request = match bytes {
            Some(bytes) => Request::Append { hash, bytes, lease },
            None => Request::Grant { hash, lease },
        };
        self.ask(request, Asked::Append { waiter, _reserved: reserved })
    }

    /// Asks for a lease of a token's issuer on a held segment of `len` bytes; [`Outcome::Append`] follows. False if the
    /// executors' queue is full.
    ///
    /// # Errors
    /// 507 beyond the owner's quota.
    pub(super) fn extend(
        &mut self,
        hash: Hash,
        len: u32,
        claims: &Claims,
        waiter: Waiter,
    ) -> Result<bool, Problem> {
        let lease = self.lease(claims);
        let room = self.reserve_room(&lease, &hash, len.into())?;
        let asked = Asked::Append { waiter, _reserved: Reserved::of_lease(room) };
        Ok(self.ask(Request::Grant { hash, lease }, asked))
    }

    /// Asks for the end of the lease that a token's issuer has on a segment; [`Outcome::Append`] follows. False if the
    /// executors' queue is full.
    pub(super) fn end(&mut self, hash: Hash, claims: &Claims, waiter: Waiter) -> bool {
        let request = Request::End {
            hash,
            owner: *claims.issuer.as_bytes(),
            token_id: claims.token_id,
            token_expires_s: claims.expires_s,
        };
        self.ask(request, Asked::End { waiter })
    }

    fn ask(&mut self, request: Request, asked: Asked) -> bool {
        let id = self.next_request;
        if self.storage.submit(id, request).is_err() {
            self.counters.storage_stalled.increment();
            return false;
        }
        self.next_request += 1;
        self.requests.insert(id, asked);
        true
    }
}
