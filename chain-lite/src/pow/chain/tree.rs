//! Headers by hash and by place: each stands on the one before it, one branch is the best, and of the others
//! the ends are known, so that the one with the least work can be dropped.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::Hash;
use crate::pow::header::BlockHeader;
use crate::pow::target::Work;

/// Place of a header in the tree. It stays the same for as long as the header is there.
pub type NodeIndex = u32;

/// The genesis block, which is never dropped.
pub const GENESIS: NodeIndex = 0;

/// One header in the tree.
#[derive(Clone, Debug)]
pub struct Node {
    pub block: BlockHeader,
    pub hash: Hash,
    /// The genesis block is its own.
    pub parent: NodeIndex,
    /// How many headers stand on this one.
    children: u32,
    /// Which one it was to come, modulo 2^32.
    arrival: u32,
    /// Work of the branch up to and with this block.
    pub work: Work,
}

// Documentation and bounds count with this.
const _: () = assert!(size_of::<Node>() == 160);

#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Places of headers that were dropped.
    vacant: Vec<NodeIndex>,
    by_hash: HashTable<NodeIndex>,
    hasher: FixedState,
    /// The best branch: the node of every height.
    best: Vec<NodeIndex>,
    /// The ends of all other branches but [`Self::growing`], in the order in which they would be dropped.
    side_ends: BTreeSet<SideEnd>,
    growing: Option<Growing>,
    /// How many headers ever came, modulo 2^32.
    arrivals: u32,
}

/// The end of a side branch. The least work is dropped first, and of equals the newest.
type SideEnd = (Work, Reverse<u32>, NodeIndex);

/// A side branch whose headers do not count, because it is known to get more work than the best branch has.
#[derive(Clone, Copy, Debug)]
struct Growing {
    end: NodeIndex,
    /// How many of its headers are not on the best branch.
    headers: usize,
}

impl Tree {
    pub fn new(genesis: BlockHeader, hash_seed: u64) -> Tree {
        let hash = genesis.hash();
        let mut tree = Tree {
            nodes: vec![Node {
                block: genesis,
                hash,
                parent: GENESIS,
                children: 0,
                arrival: 0,
                work: Work::ZERO,
            }],
            vacant: vec![],
            by_hash: HashTable::new(),
            hasher: FixedState::with_seed(hash_seed),
            best: vec![GENESIS],
            side_ends: BTreeSet::new(),
            growing: None,
            arrivals: 0,
        };
        tree.index(GENESIS);
        tree
    }

    pub fn node(&self, node: NodeIndex) -> &Node {
        &self.nodes[node as usize]
    }

    pub fn find(&self, hash: &Hash) -> Option<NodeIndex> {
        self.by_hash.find(self.hasher.hash_one(hash), |&node| self.node(node).hash == *hash).copied()
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.vacant.len()
    }

    /// How many headers are on side branches and count.
    pub fn side_headers(&self) -> usize {
        self.len() - self.best.len() - self.growing.map_or(0, |growing| growing.headers)
    }

    /// The best branch: the node of every height.
    pub fn best(&self) -> &[NodeIndex] {
        &self.best
    }

    pub fn tip(&self) -> NodeIndex {
        *self.best.last().expect("the genesis block is always on the best branch")
    }

    pub fn is_best(&self, node: NodeIndex) -> bool {
        self.best.get(self.node(node).block.height as usize) == Some(&node)
    }

    /// The block at `height` on the branch of `node`, which is not below it.
    pub fn ancestor(&self, mut node: NodeIndex, height: u32) -> NodeIndex {
        while self.node(node).block.height > height {
            if self.is_best(node) {
                return self.best[height as usize];
            }
            node = self.node(node).parent;
        }
        node
    }

    /// The highest block of the best branch that the branch of `node` is on.
    pub fn fork_of(&self, node: NodeIndex) -> NodeIndex {
        self.side_path(node).last().map_or(node, |lowest| self.node(lowest).parent)
    }

    /// Whether a header with so much work on top of `parent` would be the first to be dropped.
    pub fn would_be_least(&self, parent: NodeIndex, work: Work) -> bool {
        let mut others = self.side_ends.iter().filter(|&&(.., end)| end != parent);
        others.next().is_none_or(|&(least, ..)| work <= least)
    }

    /// Puts a header on top of `parent`, on a side branch until [`Self::make_best`].
    pub fn insert(&mut self, block: BlockHeader, hash: Hash, parent: NodeIndex, work: Work) -> NodeIndex {
        self.arrivals = self.arrivals.wrapping_add(1);
        let new = Node { block, hash, parent, children: 0, arrival: self.arrivals, work };
        let node = match self.vacant.pop() {
            Some(node) => {
                self.nodes[node as usize] = new;
                node
            }
            None => {
                self.nodes.push(new);
                (self.nodes.len() - 1) as NodeIndex
            }
        };
        self.index(node);
        self.nodes[parent as usize].children += 1;
        self.side_ends.remove(&self.side_end(parent));
        self.side_ends.insert(self.side_end(node));
        node
    }

    /// Takes the branch that ends with `node`, which is on a side branch and has nothing on top of it, out of
    /// the count; the branch that was out of it before counts again.
    pub fn grow(&mut self, node: NodeIndex) {
        let parent = self.node(node).parent;
        let headers = match self.growing.take() {
            Some(growing) if growing.end == parent => growing.headers + 1,
            before => {
                if let Some(before) = before.filter(|before| self.node(before.end).children == 0) {
                    self.side_ends.insert(self.side_end(before.end));
                }
                self.side_path(node).count()
            }
        };
        self.side_ends.remove(&self.side_end(node));
        self.growing = Some(Growing { end: node, headers });
    }

    /// Makes the branch up to `node`, which nothing stands on, the best one. Gives the last node on both
    /// branches, and how many left and joined the best one.
    pub fn make_best(&mut self, node: NodeIndex) -> (NodeIndex, u32, u32) {
        let attached: Vec<_> = self.side_path(node).collect();
        let fork = attached.last().map_or(node, |&lowest| self.node(lowest).parent);
        let old_tip = self.tip();
        if old_tip != fork {
            self.side_ends.insert(self.side_end(old_tip));
        }
        self.side_ends.remove(&self.side_end(node));
        let kept = self.node(fork).block.height as usize + 1;
        let detached = (self.best.len() - kept) as u32;
        self.best.truncate(kept);
        self.best.extend(attached.iter().rev());
        if detached > 0 || attached.len() > 1 {
            self.recount_growing();
        }
        (fork, detached, attached.len() as u32)
    }

    /// Drops side branches from their ends, those with the least work first, until at most so many headers
    /// are on them.
    pub fn trim(&mut self, side_headers_max: usize) {
        while self.side_headers() > side_headers_max {
            let Some((.., end)) = self.side_ends.pop_first() else { return };
            self.remove(end);
        }
    }

    fn side_end(&self, node: NodeIndex) -> SideEnd {
        let Node { work, arrival, .. } = *self.node(node);
        (work, Reverse(arrival), node)
    }

    /// The headers from `node` down that are not on the best branch.
    fn side_path(&self, node: NodeIndex) -> impl Iterator<Item = NodeIndex> {
        std::iter::successors(Some(node), |&node| Some(self.node(node).parent))
            .take_while(|&node| !self.is_best(node))
    }

    /// Removes a header that nothing stands on and that is in no list of ends.
    fn remove(&mut self, end: NodeIndex) {
        let Node { hash, parent, .. } = *self.node(end);
        if let Ok(entry) = self.by_hash.find_entry(self.hasher.hash_one(hash), |&node| node == end) {
            entry.remove();
        }
        self.vacant.push(end);
        let below = &mut self.nodes[parent as usize];
        below.children -= 1;
        let is_growing = self.growing.is_some_and(|growing| growing.end == parent);
        if below.children == 0 && !is_growing && !self.is_best(parent) {
            self.side_ends.insert(self.side_end(parent));
        }
    }

    /// What the growing branch has that the best one has not may have changed.
    fn recount_growing(&mut self) {
        let Some(growing) = self.growing else { return };
        let headers = self.side_path(growing.end).count();
        self.growing = (headers > 0).then_some(Growing { headers, ..growing });
    }

    fn index(&mut self, node: NodeIndex) {
        let Tree { nodes, by_hash, hasher, .. } = self;
        let hash_of = |node: &NodeIndex| hasher.hash_one(nodes[*node as usize].hash);
        by_hash.insert_unique(hash_of(&node), node, hash_of);
    }
}
