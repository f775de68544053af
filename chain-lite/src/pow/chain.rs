//! The tree of headers, and the branch in it that has the most work.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thiserror::Error;

use crate::Hash;
use crate::pow::binding::{Mode, ProofError};
use crate::pow::header::{BlockHeader, Header};
use crate::pow::network::{GenesisError, Network};
use crate::pow::retarget::{FUTURE_S_MAX, MEDIAN_BLOCKS, median_time_s};
use crate::pow::target::Work;

/// A block that the caller knows to be on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its height.
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

/// A header that does not hold: which one, and which rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("block {hash} at height {height}: {rule}")]
pub struct HeaderError {
    /// The height that the header says it has.
    pub height: u32,
    /// Its hash.
    pub hash: Hash,
    /// The rule, what it expects and what it found.
    pub rule: Rule,
}

/// A rule that a header breaks, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rule {
    /// The block before it is not in the tree. Ask for the headers in between.
    #[error("the block before it, {previous}, is not known")]
    UnknownParent {
        /// The block before it.
        previous: Hash,
    },
    /// Its height is not one more than that of the block before it.
    #[error("its height must be {expected}")]
    Height {
        /// One more than the height of the block before it.
        expected: u32,
    },
    /// It would be a new block at or below a checkpoint that has been reached.
    #[error("nothing new may branch off at or below the checkpoint at height {checkpoint}")]
    BelowCheckpoint {
        /// Height of the checkpoint.
        checkpoint: u32,
    },
    /// It stands in a checkpoint's place.
    #[error("the checkpoint at this height is {expected}")]
    Checkpoint {
        /// The checkpoint's hash.
        expected: Hash,
    },
    /// Its bits are not those that follow from the blocks before it.
    #[error("its bits must be {expected:#010x}, they are {found:#010x}")]
    Bits {
        /// The bits that it must have.
        expected: u32,
        /// The bits that it has.
        found: u32,
    },
    /// It is too old.
    #[error("its time is second {found_s}, it must be above {median_s}, the median of the blocks before it")]
    NotAboveMedian {
        /// The median of up to 11 blocks before it, in seconds since 1970.
        median_s: u32,
        /// Its time.
        found_s: u32,
    },
    /// It is too far in the future. It may hold later, or this machine's clock is slow.
    #[error("its time is second {found_s}, it may be at most {limit_s}; is this machine's clock right?")]
    InFuture {
        /// Two hours from now, in seconds since 1970.
        limit_s: u64,
        /// Its time.
        found_s: u32,
    },
    /// Its proof of work proves nothing.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A tree of headers that hold, grown from a genesis block. About 200 bytes a header.
///
/// The best branch is the one with the most work that holds the highest checkpoint reached; of equals the one
/// that was there first, as deployed.
#[derive(Clone, Debug)]
pub struct HeaderChain {
    network: Network,
    mode: Mode,
    /// Every header, each behind the one before it; the genesis block is first.
    nodes: Vec<Node>,
    by_hash: HashMap<Hash, NodeIndex, FixedState>,
    /// The best branch: the node of every height.
    best: Vec<NodeIndex>,
    /// By height, the lowest first.
    checkpoints: Vec<Checkpoint>,
    /// Height of the highest checkpoint in the tree.
    reached: Option<u32>,
}

type NodeIndex = u32;

const GENESIS: NodeIndex = 0;

#[derive(Clone, Debug)]
struct Node {
    block: BlockHeader,
    hash: Hash,
    /// The genesis block is its own.
    parent: NodeIndex,
    /// Work of the branch up to and with this block.
    work: Work,
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
        let hash = genesis.hash();
        let mut by_hash = HashMap::with_hasher(FixedState::with_seed(hash_seed));
        by_hash.insert(hash, GENESIS);
        let nodes = vec![Node { block: genesis, hash, parent: GENESIS, work: Work::ZERO }];
        Ok(HeaderChain { network, mode, nodes, by_hash, best: vec![GENESIS], checkpoints, reached: None })
    }

    /// Takes in one header, if it holds. `now_s` is the time in seconds since 1970.
    pub fn accept(&mut self, header: &Header<'_>, now_s: u64) -> Result<Accepted, HeaderError> {
        let hash = header.block.hash();
        if self.by_hash.contains_key(&hash) {
            return Ok(Accepted::Known);
        }
        let (parent, work) = self.check(header, hash, now_s).map_err(|rule| HeaderError {
            height: header.block.height,
            hash,
            rule,
        })?;
        let node = self.nodes.len() as NodeIndex;
        let work = self.node(parent).work.plus(work);
        self.nodes.push(Node { block: header.block, hash, parent, work });
        self.by_hash.insert(hash, node);

        let is_checkpoint = self.checkpoint_at(header.block.height).is_some();
        if is_checkpoint {
            self.reached = Some(header.block.height);
        }
        if !is_checkpoint && work <= self.node(self.tip_index()).work {
            return Ok(Accepted::Aside);
        }
        Ok(self.make_best(node))
    }

    /// The last block of the best branch.
    pub fn tip(&self) -> &BlockHeader {
        &self.node(self.tip_index()).block
    }

    /// Hash of the last block of the best branch.
    pub fn tip_hash(&self) -> Hash {
        self.node(self.tip_index()).hash
    }

    /// Work of the best branch, without the genesis block's.
    pub fn work(&self) -> Work {
        self.node(self.tip_index()).work
    }

    /// The block at a height of the best branch.
    pub fn at_height(&self, height: u32) -> Option<&BlockHeader> {
        self.best.get(height as usize).map(|&node| &self.node(node).block)
    }

    /// A block of any branch.
    pub fn get(&self, hash: &Hash) -> Option<&BlockHeader> {
        self.by_hash.get(hash).map(|&node| &self.node(node).block)
    }

    /// Whether a block is on the best branch.
    pub fn is_best(&self, hash: &Hash) -> bool {
        self.by_hash.get(hash).is_some_and(|&node| self.is_on_best(node))
    }

    /// How many blocks there are, of all branches.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the genesis block is always there.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The rules from the cheapest to the dearest, so that a header that fits nowhere costs little.
    fn check(&self, header: &Header<'_>, hash: Hash, now_s: u64) -> Result<(NodeIndex, Work), Rule> {
        let block = &header.block;
        let parent =
            *self.by_hash.get(&block.previous).ok_or(Rule::UnknownParent { previous: block.previous })?;
        match self.node(parent).block.height.checked_add(1) {
            Some(expected) if expected == block.height => {}
            expected => return Err(Rule::Height { expected: expected.unwrap_or(u32::MAX) }),
        }
        if let Some(checkpoint) = self.reached.filter(|&reached| block.height <= reached) {
            return Err(Rule::BelowCheckpoint { checkpoint });
        }
        if let Some(checkpoint) =
            self.checkpoint_at(block.height).filter(|checkpoint| checkpoint.hash != hash)
        {
            return Err(Rule::Checkpoint { expected: checkpoint.hash });
        }
        let expected = self.next_bits(parent);
        if block.bits != expected {
            return Err(Rule::Bits { expected, found: block.bits });
        }
        let median_s = self.median_time_s(parent);
        if block.time_s <= median_s {
            return Err(Rule::NotAboveMedian { median_s, found_s: block.time_s });
        }
        let limit_s = now_s.saturating_add(FUTURE_S_MAX);
        if u64::from(block.time_s) > limit_s {
            return Err(Rule::InFuture { limit_s, found_s: block.time_s });
        }
        let target = header.check_proof_of(hash, self.network.chain_id, self.mode)?;
        Ok((parent, target.work()))
    }

    /// The bits that a block on top of `parent` must have.
    fn next_bits(&self, parent: NodeIndex) -> u32 {
        let last = &self.node(parent).block;
        if last.height == 0 || !self.network.retargets {
            return self.network.first_bits;
        }
        let height = last.height + 1;
        if !self.network.retargets_at(height) {
            return last.bits;
        }
        let first = self.ancestor(parent, height - self.network.retarget_blocks);
        self.network.retarget(last.bits, self.node(first).block.time_s, last.time_s)
    }

    fn median_time_s(&self, parent: NodeIndex) -> u32 {
        let mut times_s = [0; MEDIAN_BLOCKS];
        let mut count = 0;
        let mut node = parent;
        for time_s in &mut times_s {
            *time_s = self.node(node).block.time_s;
            count += 1;
            if node == GENESIS {
                break;
            }
            node = self.node(node).parent;
        }
        median_time_s(&mut times_s[..count]).expect("the parent's time at least is there")
    }

    /// The block at `height` on the branch of `node`, which is not below it.
    fn ancestor(&self, mut node: NodeIndex, height: u32) -> NodeIndex {
        while self.node(node).block.height > height {
            if self.is_on_best(node) {
                return self.best[height as usize];
            }
            node = self.node(node).parent;
        }
        node
    }

    /// Makes the branch up to `node` the best one.
    fn make_best(&mut self, node: NodeIndex) -> Accepted {
        let mut attached = vec![node];
        let mut fork = self.node(node).parent;
        while !self.is_on_best(fork) {
            attached.push(fork);
            fork = self.node(fork).parent;
        }
        let Node { block: BlockHeader { height, .. }, hash, .. } = *self.node(fork);
        let kept = height as usize + 1;
        let detached = (self.best.len() - kept) as u32;
        self.best.truncate(kept);
        self.best.extend(attached.iter().rev());
        if detached == 0 && attached.len() == 1 {
            return Accepted::Extended;
        }
        Accepted::Reorganised(BranchPoint { height, hash, detached, attached: attached.len() as u32 })
    }

    fn checkpoint_at(&self, height: u32) -> Option<Checkpoint> {
        let place = self.checkpoints.binary_search_by_key(&height, |checkpoint| checkpoint.height).ok()?;
        Some(self.checkpoints[place])
    }

    fn is_on_best(&self, node: NodeIndex) -> bool {
        self.best.get(self.node(node).block.height as usize) == Some(&node)
    }

    fn tip_index(&self) -> NodeIndex {
        *self.best.last().expect("the genesis block is always on the best branch")
    }

    fn node(&self, node: NodeIndex) -> &Node {
        &self.nodes[node as usize]
    }
}
