//! The tree of headers, and the branch in it that has the most work.

mod rule;
mod tree;

pub use rule::{HeaderError, Rule};
pub(super) use rule::{check_bits, check_clock, check_height, check_median};

use self::tree::{GENESIS, NodeIndex, Tree};
use crate::Hash;
use crate::pow::binding::{Mode, ProofError};
use crate::pow::header::{BlockHeader, Header};
use crate::pow::network::{GenesisError, Network};
use crate::pow::retarget::MEDIAN_BLOCKS;
use crate::pow::sync::Tail;
use crate::pow::target::{Target, Work};

/// How many headers on side branches are kept, if nothing else is said: four weeks of the main network. Each
/// takes at most [`HEADER_BYTES_MAX`], so all of them 8.3 MB.
pub const SIDE_HEADERS_MAX: usize = 20_160;

/// Memory that a header in the tree takes at most, in bytes: its node has 160, and the vector of nodes may
/// have twice its length; its place in the hash map has 5, at a load of 7/16 or more; its place among the ends
/// of side branches has 40, in a B-tree that is half full or more, and that in the best branch less.
pub const HEADER_BYTES_MAX: usize = 2 * 160 + 12 + 80;

/// A block that the caller knows to be on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
}

/// A block by height and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// Blocks before it.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
}

/// What became of a header that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was there already.
    Known,
    /// It is the new tip, on top of the old one.
    Extended,
    /// It is on a branch that has no more work than the best one: the first of equals stays.
    Aside,
    /// It is the new tip of another branch than before.
    Reorganised(BranchPoint),
}

/// Where two branches part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchPoint {
    /// Height of the last block on both.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
    /// How many blocks above it are no longer on the best branch.
    pub detached: u32,
    /// How many blocks above it are now.
    pub attached: u32,
}

/// A tree of headers that hold, grown from a genesis block.
///
/// The best branch is the one with the most work that holds the highest checkpoint reached; of equals the one
/// that was there first, as deployed. It is kept whole. Of the side branches at most
/// [`SIDE_HEADERS_MAX`] headers are kept: the ends of those with the least work, counted from the genesis
/// block, go first, and a new header that would be the first to go is refused. So headers that cost little
/// drive out each other and nothing else.
#[derive(Clone, Debug)]
pub struct HeaderChain {
    network: Network,
    mode: Mode,
    tree: Tree,
    side_headers_max: usize,
    /// By height, the lowest first.
    checkpoints: Vec<Checkpoint>,
    /// Height of the highest checkpoint in the tree.
    reached: Option<u32>,
    /// Height of the tip when changes were last asked for.
    reported_height: u32,
    /// Height of the highest block that was on the best branch then and ever since.
    kept_height: u32,
}

impl HeaderChain {
    /// A chain of the genesis block alone, whose own work is not counted: it is in every branch.
    /// `checkpoints` are in any order; `hash_seed` is drawn at random, so that nobody can make up blocks that
    /// collide in the hash map.
    pub fn new(
        network: Network,
        mode: Mode,
        genesis: BlockHeader,
        mut checkpoints: Vec<Checkpoint>,
        hash_seed: u64,
    ) -> Result<HeaderChain, GenesisError> {
        network.check_genesis(&genesis)?;
        checkpoints.sort_unstable_by_key(|checkpoint| checkpoint.height);
        Ok(HeaderChain {
            network,
            mode,
            tree: Tree::new(genesis, hash_seed),
            side_headers_max: SIDE_HEADERS_MAX,
            checkpoints,
            reached: None,
            reported_height: 0,
            kept_height: 0,
        })
    }

    /// The same chain with another bound on how many headers on side branches are kept. A reorganisation that
    /// detaches more than this goes through [`HeaderSync`](crate::pow::HeaderSync) only.
    pub fn with_side_headers_max(mut self, side_headers_max: usize) -> HeaderChain {
        self.side_headers_max = side_headers_max;
        self.tree.trim(side_headers_max);
        self
    }

    /// Puts headers that this program verified and stored before on top of the tip, the lowest first and
    /// without the genesis block. Their proofs are not there to be checked and times are not compared with a
    /// clock; every other rule is asked again, so that a file that was damaged is found out.
    ///
    /// On an error the headers before the one that it names are in the chain, and nothing behind it. What
    /// was restored is not among [`Self::take_changes`].
    pub fn restore(&mut self, stored: impl IntoIterator<Item = BlockHeader>) -> Result<(), HeaderError> {
        let restored = stored.into_iter().try_for_each(|block| self.restore_next(block));
        self.mark_reported();
        restored
    }

    /// Takes in one header, if it holds. `now_s` is the time in seconds since 1970.
    pub fn accept(&mut self, header: &Header<'_>, now_s: u64) -> Result<Accepted, HeaderError> {
        let block = &header.block;
        let hash = block.hash();
        if self.tree.find(&hash).is_some() {
            return Ok(Accepted::Known);
        }
        let checked = self.place(block, hash, now_s).and_then(|(parent, work)| {
            self.check_room(block, parent, work)?;
            header.check_proof_of(hash, self.network.chain_id, self.mode)?;
            Ok((parent, work))
        });
        let (parent, work) = checked.map_err(|rule| HeaderError::new(block, hash, rule))?;
        let accepted = self.insert(*block, hash, parent, work, Room::Counted);
        Ok(accepted)
    }

    /// Takes in a header whose proof was checked. With [`Room::Growing`] its branch is known to get more work
    /// than the best one has, and the header is kept although the side branches may be full.
    pub(super) fn accept_proven(
        &mut self,
        block: &BlockHeader,
        hash: Hash,
        now_s: u64,
        room: Room,
    ) -> Result<Accepted, HeaderError> {
        if self.tree.find(&hash).is_some() {
            return Ok(Accepted::Known);
        }
        let checked = self.place(block, hash, now_s).and_then(|(parent, work)| match room {
            Room::Counted => self.check_room(block, parent, work).map(|()| (parent, work)),
            Room::Growing => Ok((parent, work)),
        });
        let (parent, work) = checked.map_err(|rule| HeaderError::new(block, hash, rule))?;
        Ok(self.insert(*block, hash, parent, work, room))
    }

    /// What changed on the best branch since the last call; `None` if nothing did. Whoever stores the best
    /// branch drops what it has above [`Changes::kept`] and appends [`Self::best_above`] of that height.
    pub fn take_changes(&mut self) -> Option<Changes> {
        let height = self.tip().height;
        if self.kept_height == self.reported_height && self.kept_height == height {
            return None;
        }
        let kept = self.id_at(self.kept_height).expect("it is on the best branch");
        let changes = Changes {
            kept,
            disconnected: self.reported_height - kept.height,
            connected: height - kept.height,
        };
        self.mark_reported();
        Some(changes)
    }

    /// The blocks of the best branch above a height, the lowest first.
    pub fn best_above(&self, height: u32) -> impl ExactSizeIterator<Item = &BlockHeader> {
        let above = self.tree.best().get(height as usize + 1..).unwrap_or_default();
        above.iter().map(|&node| &self.tree.node(node).block)
    }

    /// Blocks of the best branch that tell a peer where this chain ends, or where the two part: the last ten,
    /// then each twice as far down as the one before, and the genesis block. 10 + log2(height) of them.
    pub fn locator(&self) -> Vec<BlockId> {
        self.locator_down_from(self.tip().height)
    }

    /// As [`Self::locator`], from a block of any branch down to where it leaves the best one, and on from
    /// there. From the tip if the block is not in the tree.
    pub fn locator_from(&self, hash: &Hash) -> Vec<BlockId> {
        let Some(node) = self.tree.find(hash).filter(|&node| !self.tree.is_best(node)) else {
            return self.locator_down_from(self.get(hash).unwrap_or(self.tip()).height);
        };
        let mut locator = vec![BlockId { height: self.tree.node(node).block.height, hash: *hash }];
        locator.extend(self.locator_down_from(self.tree.node(self.tree.fork_of(node)).block.height));
        locator
    }

    fn locator_down_from(&self, top: u32) -> Vec<BlockId> {
        let mut heights = vec![top];
        let mut height = top;
        let mut step = 1;
        while height > 0 {
            height = height.saturating_sub(step);
            heights.push(height);
            if heights.len() >= 10 {
                step *= 2;
            }
        }
        heights.into_iter().filter_map(|height| self.id_at(height)).collect()
    }

    /// The last block of the best branch.
    pub fn tip(&self) -> &BlockHeader {
        &self.tree.node(self.tree.tip()).block
    }

    /// Hash of the last block of the best branch.
    pub fn tip_hash(&self) -> Hash {
        self.tree.node(self.tree.tip()).hash
    }

    /// Work of the best branch, without the genesis block's.
    pub fn work(&self) -> Work {
        self.tree.node(self.tree.tip()).work
    }

    /// Work of the best branch up to and with the block at a height.
    pub fn work_at(&self, height: u32) -> Option<Work> {
        self.tree.best().get(height as usize).map(|&node| self.tree.node(node).work)
    }

    /// The work of a block by itself.
    pub(super) fn work_of(&self, hash: &Hash) -> Option<Work> {
        let block = self.get(hash)?;
        Target::from_bits(block.bits).ok().map(Target::work)
    }

    /// The block at a height of the best branch.
    pub fn at_height(&self, height: u32) -> Option<&BlockHeader> {
        self.tree.best().get(height as usize).map(|&node| &self.tree.node(node).block)
    }

    /// Height and hash of the block at a height of the best branch.
    pub fn id_at(&self, height: u32) -> Option<BlockId> {
        let node = *self.tree.best().get(height as usize)?;
        Some(BlockId { height, hash: self.tree.node(node).hash })
    }

    /// A block of any branch.
    pub fn get(&self, hash: &Hash) -> Option<&BlockHeader> {
        self.tree.find(hash).map(|node| &self.tree.node(node).block)
    }

    /// Whether a block is on the best branch.
    pub fn is_best(&self, hash: &Hash) -> bool {
        self.tree.find(hash).is_some_and(|node| self.tree.is_best(node))
    }

    /// How many blocks there are, of all branches.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Never: the genesis block is always there.
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// How many blocks are on side branches, without a branch that [`HeaderSync`](crate::pow::HeaderSync)
    /// is putting in because it gets more work than the best one.
    pub fn side_headers(&self) -> usize {
        self.tree.side_headers()
    }

    /// What the headers are held to.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// How closely the headers are looked at.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What a header on top of the block with this hash is held to, without the tree.
    pub(super) fn tail_at(&self, hash: &Hash) -> Option<Tail> {
        let node = self.tree.find(hash)?;
        let last = self.tree.node(node);
        let (mut times_s, count) = self.times_s(node);
        times_s[..count].reverse();
        let height = last.block.height;
        let period_time_s = self.time_at(node, height - height % self.network.retarget_blocks.max(1));
        Some(Tail::new(last.block, last.hash, last.work, &times_s[..count], period_time_s))
    }

    /// The rules but the proof, from the cheapest to the dearest, so that a header that fits nowhere costs
    /// little. Gives the node before it and the work of the branch with it.
    fn place(&self, block: &BlockHeader, hash: Hash, now_s: u64) -> Result<(NodeIndex, Work), Rule> {
        let placed = self.place_at_any_time(block, hash)?;
        check_clock(block, now_s)?;
        Ok(placed)
    }

    fn place_at_any_time(&self, block: &BlockHeader, hash: Hash) -> Result<(NodeIndex, Work), Rule> {
        let previous = block.previous;
        let parent = self.tree.find(&previous).ok_or(Rule::UnknownParent { previous })?;
        let before = self.tree.node(parent);
        check_height(&before.block, block)?;
        self.check_checkpoints(block.height, hash)?;
        check_bits(&self.network, &before.block, block, |height| self.time_at(parent, height))?;
        let (times_s, count) = self.times_s(parent);
        check_median(&mut { times_s }[..count], block)?;
        let target = Target::from_bits(block.bits).map_err(ProofError::from)?;
        Ok((parent, before.work.plus(target.work())))
    }

    /// Where checkpoints stand, no other block may.
    pub(super) fn check_checkpoints(&self, height: u32, hash: Hash) -> Result<(), Rule> {
        if let Some(checkpoint) = self.reached.filter(|&reached| height <= reached) {
            return Err(Rule::BelowCheckpoint { checkpoint });
        }
        match self.checkpoint_at(height) {
            Some(checkpoint) if checkpoint.hash != hash => {
                Err(Rule::Checkpoint { expected: checkpoint.hash })
            }
            _ => Ok(()),
        }
    }

    /// A header that would be dropped at once need not be proven.
    fn check_room(&self, block: &BlockHeader, parent: NodeIndex, work: Work) -> Result<(), Rule> {
        let side_headers = self.tree.side_headers();
        if side_headers < self.side_headers_max
            || self.is_better(block, work)
            || !self.tree.would_be_least(parent, work)
        {
            return Ok(());
        }
        Err(Rule::NoRoom { side_headers, work })
    }

    /// Whether a block becomes the tip.
    fn is_better(&self, block: &BlockHeader, work: Work) -> bool {
        work > self.work() || self.checkpoint_at(block.height).is_some()
    }

    fn insert(
        &mut self,
        block: BlockHeader,
        hash: Hash,
        parent: NodeIndex,
        work: Work,
        room: Room,
    ) -> Accepted {
        let is_better = self.is_better(&block, work);
        let node = self.tree.insert(block, hash, parent, work);
        let accepted = if is_better {
            if self.checkpoint_at(block.height).is_some() {
                self.reached = Some(block.height);
            }
            self.make_best(node)
        } else {
            if matches!(room, Room::Growing) {
                self.tree.grow(node);
            }
            Accepted::Aside
        };
        self.tree.trim(self.side_headers_max);
        accepted
    }

    /// Makes the branch up to `node` the best one.
    fn make_best(&mut self, node: NodeIndex) -> Accepted {
        let (fork, detached, attached) = self.tree.make_best(node);
        let (height, hash) = (self.tree.node(fork).block.height, self.tree.node(fork).hash);
        self.kept_height = self.kept_height.min(height);
        if detached == 0 && attached == 1 {
            return Accepted::Extended;
        }
        Accepted::Reorganised(BranchPoint { height, hash, detached, attached })
    }

    fn restore_next(&mut self, block: BlockHeader) -> Result<(), HeaderError> {
        let hash = block.hash();
        let placed = self.place_at_any_time(&block, hash).and_then(|(parent, work)| {
            let is_on_tip = parent == self.tree.tip();
            is_on_tip.then_some((parent, work)).ok_or(Rule::UnknownParent { previous: block.previous })
        });
        let (parent, work) = placed.map_err(|rule| HeaderError::new(&block, hash, rule))?;
        self.insert(block, hash, parent, work, Room::Counted);
        Ok(())
    }

    fn mark_reported(&mut self) {
        self.reported_height = self.tip().height;
        self.kept_height = self.reported_height;
    }

    /// The times of up to 11 blocks from `node` down, and how many they are.
    fn times_s(&self, mut node: NodeIndex) -> ([u32; MEDIAN_BLOCKS], usize) {
        let mut times_s = [0; MEDIAN_BLOCKS];
        for (count, time_s) in times_s.iter_mut().enumerate() {
            *time_s = self.tree.node(node).block.time_s;
            if node == GENESIS {
                return (times_s, count + 1);
            }
            node = self.tree.node(node).parent;
        }
        (times_s, MEDIAN_BLOCKS)
    }

    fn time_at(&self, node: NodeIndex, height: u32) -> u32 {
        self.tree.node(self.tree.ancestor(node, height)).block.time_s
    }

    fn checkpoint_at(&self, height: u32) -> Option<Checkpoint> {
        let place = self.checkpoints.binary_search_by_key(&height, |checkpoint| checkpoint.height).ok()?;
        Some(self.checkpoints[place])
    }
}

/// How the best branch changed: from a block on, other blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The highest block that is on the best branch as it was.
    pub kept: BlockId,
    /// How many blocks above it are no longer on the best branch.
    pub disconnected: u32,
    /// How many blocks above it are new there.
    pub connected: u32,
}

/// Whether a header is counted among those on side branches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    /// It is, and may be refused or dropped.
    Counted,
    /// It is not.
    Growing,
}
