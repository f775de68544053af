//! The tree of headers above the last settled one, and the branch in it that the fork choice takes.

use std::collections::VecDeque;

use alloy_primitives::{Address, B256};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::dpos::certificate::{Certificate, CertificateError};
use crate::dpos::checkpoint::{Checkpoint, CheckpointError};
use crate::dpos::fork_choice::Rank;
use crate::dpos::network::Network;
use crate::dpos::rule::{HeaderError, Rule};
use crate::dpos::signed::SignedHeader;
use crate::dpos::snapshot::Snapshot;

/// How many blocks below the tip can still be reorganised, by default: 8.5 hours at 30 s a block.
pub const WINDOW_BLOCKS: u64 = 1_024;

/// How many blocks of one height and signer are kept. An honest signer makes a second one only after a
/// reorganisation; of who makes more, the oldest that is not on the best branch goes, with all that stands on it.
pub const TWINS_MAX: usize = 3;

/// Every so many blocks a node keeps the vote's state, so that a branch need not be counted from the bottom.
const SNAPSHOT_BLOCKS: u64 = 64;

/// What became of a header that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was there already.
    Known,
    /// It is the new tip, on top of the old one.
    Extended,
    /// It is on a branch that the fork choice does not take.
    Aside,
    /// The tip is on another branch than before.
    Reorganised(Reorganisation),
}

/// What left the best branch and what came to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reorganisation {
    /// Height of the last block on both branches.
    pub fork_number: u64,
    /// Its hash.
    pub fork_hash: B256,
    /// Disconnected blocks, the highest first: the order in which to undo them.
    pub detached: Vec<B256>,
    /// Connected blocks, the lowest first: the order in which to apply them.
    pub attached: Vec<B256>,
}

/// A header that no branch can displace any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The header.
    pub header: SignedHeader,
    /// Whose turn the block was.
    pub in_turn: Address,
}

/// A tree of headers that hold, on top of a settled one.
///
/// It is bounded: at most `window` blocks of the best branch and [`TWINS_MAX`] blocks a signer and height, about
/// 800 bytes each. What the best branch outgrows is settled and handed to the caller to be kept.
#[derive(Clone, Debug)]
pub struct HeaderChain {
    network: Network,
    window: u64,
    /// Boxed, so that the map grows and shrinks without moving headers about.
    nodes: HashMap<B256, Box<Node>, FixedState>,
    /// Hashes of the blocks of each height, from the settled one on, in the order in which they came.
    heights: VecDeque<Vec<B256>>,
    /// The best branch, from the settled block on.
    best: VecDeque<B256>,
    /// Height of the settled block.
    settled_number: u64,
    /// Who may sign on top of the settled block.
    settled_snapshot: Snapshot,
    /// Who may sign on top of the block that came last: mostly the next one's parent.
    latest: (B256, Snapshot),
}

#[derive(Clone, Debug)]
struct Node {
    header: SignedHeader,
    rank: Rank,
    in_turn: Address,
    snapshot: Option<Box<Snapshot>>,
}

impl HeaderChain {
    /// A chain that begins at a checkpoint. `header` is the checkpoint's header as sent, from anybody. At most
    /// `window` blocks can be reorganised (at least 1). `hash_seed` is drawn at random, so that nobody can make up
    /// blocks that collide in the hash map.
    pub fn from_checkpoint(
        network: Network,
        checkpoint: &Checkpoint,
        header: &[u8],
        window: u64,
        hash_seed: u64,
    ) -> Result<HeaderChain, CheckpointError> {
        let header = checkpoint.read(&network, header)?;
        let snapshot = Snapshot::new(header.signers.clone());
        Ok(HeaderChain::on(network, header, snapshot, window, hash_seed))
    }

    /// A chain of one settled block.
    pub(super) fn on(
        network: Network,
        header: SignedHeader,
        snapshot: Snapshot,
        window: u64,
        hash_seed: u64,
    ) -> HeaderChain {
        let (hash, number) = (header.hash, header.number);
        let rank = Rank { total_difficulty: 0, number, blocks_since_turn: 0, hash };
        let in_turn = header.signer;
        let mut nodes = HashMap::with_hasher(FixedState::with_seed(hash_seed));
        nodes.insert(hash, Box::new(Node { header, rank, in_turn, snapshot: None }));
        HeaderChain {
            network,
            window: window.max(1),
            nodes,
            heights: VecDeque::from([vec![hash]]),
            best: VecDeque::from([hash]),
            settled_number: number,
            settled_snapshot: snapshot.clone(),
            latest: (hash, snapshot),
        }
    }

    /// Takes in one header, if it holds. `now_s` is the time in seconds since 1970. Headers that are settled by it
    /// are appended to `settled`, the lowest first.
    pub fn accept(
        &mut self,
        header: SignedHeader,
        now_s: u64,
        settled: &mut Vec<Settled>,
    ) -> Result<Accepted, HeaderError> {
        let SignedHeader { hash, number, .. } = header;
        if self.nodes.contains_key(&hash) {
            return Ok(Accepted::Known);
        }
        self.check_place(&header, now_s).map_err(|rule| HeaderError { number, hash, rule })?;
        let elsewhere = (header.parent_hash != self.latest.0).then(|| self.snapshot_at(&header.parent_hash));
        self.check_signer(&header, elsewhere.as_ref().unwrap_or(&self.latest.1))
            .map_err(|rule| HeaderError { number, hash, rule })?;
        // On top of the block that came last, its state is led on and not copied.
        let mut snapshot = elsewhere.unwrap_or_else(|| std::mem::take(&mut self.latest.1));

        let rank = Rank {
            total_difficulty: self.node(&header.parent_hash).rank.total_difficulty + header.difficulty,
            number,
            blocks_since_turn: snapshot.blocks_since_turn(number, &header.signer).unwrap_or(0),
            hash,
        };
        let in_turn = snapshot.in_turn(number).unwrap_or(header.signer);
        snapshot.apply(&header, self.network.is_epoch(number));
        let kept = number.is_multiple_of(SNAPSHOT_BLOCKS).then(|| Box::new(snapshot.clone()));
        self.latest = (hash, snapshot);
        self.make_room(number, &header.signer);
        self.insert(Node { header, rank, in_turn, snapshot: kept });

        if rank <= self.node(&self.tip_hash()).rank {
            return Ok(Accepted::Aside);
        }
        let accepted = self.make_best(hash);
        self.settle_to(number.saturating_sub(self.window), settled);
        Ok(accepted)
    }

    /// Makes the block of a certificate final, and settles all up to it. The best branch may become another one.
    pub fn finalise(
        &mut self,
        certificate: &Certificate,
        settled: &mut Vec<Settled>,
    ) -> Result<Accepted, CertificateError> {
        let Some(node) = self.nodes.get(&certificate.hash) else {
            return Err(CertificateError::UnknownBlock);
        };
        if node.header.number != certificate.number {
            return Err(CertificateError::UnknownBlock);
        }
        if certificate.number == self.settled_number {
            return Ok(Accepted::Known);
        }
        let parent = node.header.parent_hash;
        certificate.verify(self.network.chain_id, self.snapshot_at(&parent).signers())?;
        let mut accepted = Accepted::Known;
        if !self.is_best(&certificate.hash) {
            let tip = self.best_above(&certificate.hash);
            accepted = self.make_best(tip);
        }
        self.settle_to(certificate.number, settled);
        Ok(accepted)
    }

    /// The settings that headers are held to.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The last block of the best branch.
    pub fn tip(&self) -> &SignedHeader {
        &self.node(&self.tip_hash()).header
    }

    /// The last block that no branch can displace.
    pub fn settled(&self) -> &SignedHeader {
        &self.node(&self.best[0]).header
    }

    /// A block of any branch from the settled one on.
    pub fn get(&self, hash: &B256) -> Option<&SignedHeader> {
        self.nodes.get(hash).map(|node| &node.header)
    }

    /// The block at a height of the best branch, from the settled one on.
    pub fn at_number(&self, number: u64) -> Option<&SignedHeader> {
        let place = usize::try_from(number.checked_sub(self.settled_number)?).ok()?;
        self.best.get(place).map(|hash| &self.node(hash).header)
    }

    /// Whether a block is on the best branch.
    pub fn is_best(&self, hash: &B256) -> bool {
        self.get(hash).and_then(|header| self.at_number(header.number)).is_some_and(|best| best.hash == *hash)
    }

    /// Whose turn a block was.
    pub fn in_turn(&self, hash: &B256) -> Option<Address> {
        self.nodes.get(hash).map(|node| node.in_turn)
    }

    /// The vote's state after a block: who may sign on top of it.
    pub fn snapshot(&self, hash: &B256) -> Option<Snapshot> {
        self.nodes.contains_key(hash).then(|| self.snapshot_at(hash))
    }

    /// What decides about a block as a tip.
    pub fn rank(&self, hash: &B256) -> Option<Rank> {
        self.nodes.get(hash).map(|node| node.rank)
    }

    /// How many blocks there are, of all branches, the settled one included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the settled block is always there.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn settled_snapshot(&self) -> &Snapshot {
        &self.settled_snapshot
    }

    /// The rules between a header and its parent.
    fn check_place(&self, header: &SignedHeader, now_s: u64) -> Result<(), Rule> {
        let Some(parent) = self.get(&header.parent_hash) else {
            return Err(if header.number <= self.settled_number {
                Rule::Settled { settled: self.settled_number }
            } else {
                Rule::UnknownParent { parent: header.parent_hash }
            });
        };
        let expected = parent.number.saturating_add(1);
        if header.number != expected {
            return Err(Rule::Number { expected });
        }
        let least_s = parent.time_s.saturating_add(self.network.period_s);
        if header.time_s < least_s {
            return Err(Rule::TooSoon { least_s, found_s: header.time_s });
        }
        let limit_s = now_s.saturating_add(self.network.future_s_max);
        if header.time_s > limit_s {
            return Err(Rule::InFuture { limit_s, found_s: header.time_s });
        }
        self.network.check_gas(&parent.gas(), &header.gas(), header.number)
    }

    /// The rules about who signs.
    fn check_signer(&self, header: &SignedHeader, snapshot: &Snapshot) -> Result<(), Rule> {
        if self.network.is_epoch(header.number) && header.signers != snapshot.signers {
            let (expected, found) = (snapshot.signers.len(), header.signers.len());
            return Err(Rule::EpochSigners { expected, found });
        }
        snapshot.check(header)
    }

    /// The vote's state after a block that is in the tree.
    fn snapshot_at(&self, hash: &B256) -> Snapshot {
        let mut path = vec![];
        let mut at = hash;
        let mut snapshot = loop {
            if *at == self.latest.0 {
                break self.latest.1.clone();
            }
            if *at == self.best[0] {
                break self.settled_snapshot.clone();
            }
            let node = self.node(at);
            if let Some(snapshot) = &node.snapshot {
                break Snapshot::clone(snapshot);
            }
            path.push(&node.header);
            at = &node.header.parent_hash;
        };
        for header in path.into_iter().rev() {
            snapshot.apply(header, self.network.is_epoch(header.number));
        }
        snapshot
    }

    /// Sees to it that one more block of this height and signer may come.
    fn make_room(&mut self, number: u64, signer: &Address) {
        let Some(hashes) = self.heights.get((number - self.settled_number) as usize) else { return };
        let is_twin = |hash: &&B256| self.node(hash).header.signer == *signer;
        if hashes.iter().filter(is_twin).count() < TWINS_MAX {
            return;
        }
        let oldest = hashes.iter().filter(is_twin).find(|hash| !self.is_best(hash)).copied();
        if let Some(oldest) = oldest {
            self.remove_branch(number, vec![oldest]);
        }
    }

    /// Removes blocks of one height, and everything that stands on them.
    fn remove_branch(&mut self, number: u64, mut gone: Vec<B256>) {
        let mut place = (number - self.settled_number) as usize;
        while !gone.is_empty() {
            for hash in &gone {
                self.nodes.remove(hash);
            }
            if gone.contains(&self.latest.0) {
                self.latest = (self.best[0], self.settled_snapshot.clone());
            }
            self.heights[place].retain(|hash| !gone.contains(hash));
            place += 1;
            let Some(above) = self.heights.get(place) else { break };
            gone = above
                .iter()
                .filter(|hash| gone.contains(&self.node(hash).header.parent_hash))
                .copied()
                .collect();
        }
        while self.heights.back().is_some_and(Vec::is_empty) {
            self.heights.pop_back();
        }
    }

    fn insert(&mut self, node: Node) {
        let place = (node.header.number - self.settled_number) as usize;
        if place == self.heights.len() {
            self.heights.push_back(vec![]);
        }
        self.heights[place].push(node.header.hash);
        self.nodes.insert(node.header.hash, Box::new(node));
    }

    /// Makes the branch up to a block the best one.
    fn make_best(&mut self, hash: B256) -> Accepted {
        let mut attached = vec![hash];
        let mut fork = self.node(&hash).header.parent_hash;
        while !self.is_best(&fork) {
            attached.push(fork);
            fork = self.node(&fork).header.parent_hash;
        }
        attached.reverse();
        let fork_number = self.node(&fork).header.number;
        let kept = (fork_number - self.settled_number) as usize + 1;
        let detached: Vec<_> = self.best.drain(kept..).rev().collect();
        self.best.extend(&attached);
        if detached.is_empty() && attached.len() == 1 {
            return Accepted::Extended;
        }
        Accepted::Reorganised(Reorganisation { fork_number, fork_hash: fork, detached, attached })
    }

    /// The best tip among what stands on a block, itself included.
    fn best_above(&self, hash: &B256) -> B256 {
        let mut best = self.node(hash).rank;
        let mut layer = vec![*hash];
        let first = (best.number - self.settled_number) as usize + 1;
        for hashes in self.heights.range(first..) {
            layer = hashes
                .iter()
                .filter(|hash| layer.contains(&self.node(hash).header.parent_hash))
                .copied()
                .collect();
            best = layer.iter().map(|hash| self.node(hash).rank).fold(best, Rank::max);
        }
        best.hash
    }

    /// Settles the best branch up to a height, and drops the branches that part below it.
    fn settle_to(&mut self, number: u64, settled: &mut Vec<Settled>) {
        while self.settled_number < number {
            let next = self.best[1];
            let others = self.heights[1].iter().copied().filter(|hash| *hash != next).collect();
            self.remove_branch(self.settled_number + 1, others);
            self.nodes.remove(&self.best[0]);
            self.best.pop_front();
            self.heights.pop_front();
            self.settled_number += 1;
            let Node { header, in_turn, .. } = self.node(&next);
            let (header, in_turn) = (header.clone(), *in_turn);
            self.settled_snapshot.apply(&header, self.network.is_epoch(header.number));
            settled.push(Settled { header, in_turn });
        }
    }

    fn tip_hash(&self) -> B256 {
        *self.best.back().expect("the settled block is always on the best branch")
    }

    fn node(&self, hash: &B256) -> &Node {
        self.nodes.get(hash).expect("a hash in the tree is that of a node")
    }
}
