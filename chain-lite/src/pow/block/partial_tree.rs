//! Some transactions of a block and what proves that they are in it: the merkleblock of BIP 37.

use thiserror::Error;

use crate::Hash;
use crate::pow::block::TRANSACTIONS_MAX;
use crate::pow::header::Header;
use crate::pow::merkle::{self, Leaf};
use crate::pow::wire::{DecodeError, Reader, write_bytes};

/// Most flag bytes: a tree over 10,000 leaves has at most 20,005 nodes, and each at most one flag.
const FLAGS_LEN_MAX: u64 = 2_501;

/// A block's Merkle tree without the branches below which nothing matches. From the root down and from left
/// to right, one flag a node: 1 if a match is below or at it. A node with 0 and every leaf has a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialTree<'a> {
    /// Transactions of the block, as the sender says.
    pub transactions: u32,
    /// The hashes of nodes that are not taken apart.
    pub hashes: &'a [[u8; 32]],
    /// The flags, the first in the lowest bit of the first byte; the last byte is filled up with 0.
    pub flags: &'a [u8],
}

impl<'a> PartialTree<'a> {
    /// Reads a tree that ends where `bytes` end. Nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<PartialTree<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tree = PartialTree::read(&mut reader)?;
        reader.finish()?;
        Ok(tree)
    }

    /// Appends the tree as it is sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.transactions.to_le_bytes());
        out.extend_from_slice(&(self.hashes.len() as u32).to_le_bytes());
        out.extend_from_slice(self.hashes.as_flattened());
        write_bytes(out, self.flags);
    }

    /// The matching transactions of the block whose verified header has the Merkle root `expected`. The
    /// checks are those of Bitcoin Core (`CPartialMerkleTree::ExtractMatches`), and that the flags are filled
    /// up with zeros: one proof, one encoding.
    pub fn verify(&self, expected: Hash) -> Result<Matches, PartialTreeError> {
        let (count, hashes) = (self.transactions, self.hashes.len());
        if count == 0 || count > TRANSACTIONS_MAX {
            return Err(PartialTreeError::Transactions { count });
        }
        if hashes > count as usize {
            return Err(PartialTreeError::HashesAboveTransactions { hashes, count });
        }
        if self.flags.len() * 8 < hashes {
            return Err(PartialTreeError::HashesAboveFlags { hashes, flags: self.flags.len() * 8 });
        }
        let mut walk = Walk { tree: self, flags_used: 0, hashes_used: 0, matches: Vec::new() };
        let found = walk.node(height(count), 0)?;
        if walk.flags_used.div_ceil(8) != self.flags.len() {
            return Err(PartialTreeError::FlagsLeft { used: walk.flags_used, flags: self.flags.len() * 8 });
        }
        if walk.hashes_used != hashes {
            return Err(PartialTreeError::HashesLeft { used: walk.hashes_used, hashes });
        }
        if (walk.flags_used..self.flags.len() * 8).any(|flag| self.flag(flag) == Some(true)) {
            return Err(PartialTreeError::Filling { used: walk.flags_used });
        }
        if found != expected {
            return Err(PartialTreeError::Root { expected, found });
        }
        Ok(Matches { matches: walk.matches })
    }

    fn read(reader: &mut Reader<'a>) -> Result<PartialTree<'a>, DecodeError> {
        let transactions = reader.u32("number of transactions")?;
        let at = reader.at();
        let hashes = reader.u32("number of hashes")?;
        if hashes > TRANSACTIONS_MAX {
            return Err(DecodeError::TooMany {
                field: "number of hashes",
                at,
                count: hashes.into(),
                max: TRANSACTIONS_MAX.into(),
            });
        }
        Ok(PartialTree {
            transactions,
            hashes: reader.records("hashes", hashes.into())?,
            flags: reader.bytes("flags", FLAGS_LEN_MAX)?,
        })
    }

    fn flag(&self, index: usize) -> Option<bool> {
        self.flags.get(index / 8).map(|byte| byte >> (index % 8) & 1 == 1)
    }
}

/// Which transactions of a block a [`PartialTree`] proves, from the first to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    matches: Vec<(u32, Hash)>,
}

impl Matches {
    /// Place of the transaction in the block. A hash that a tree claims for a leaf may be an inner node of
    /// the real tree, which the sender made lower than it is; only a transaction shows that it is none.
    pub fn place(&self, leaf: Leaf) -> Option<u32> {
        self.matches.iter().find(|(_, hash)| *hash == leaf.hash()).map(|(place, _)| *place)
    }

    /// Places and hashes: what to ask for. See [`Self::place`] about what they do not prove.
    pub fn hashes(&self) -> &[(u32, Hash)] {
        &self.matches
    }
}

/// Appends the partial tree over `leaves`, the hashes of a block's transactions, that proves those for which
/// `matches` holds. The other side of [`PartialTree::decode`], for who answers. `leaves` must not be empty.
pub fn encode_partial_tree(leaves: &[Hash], matches: impl Fn(u32) -> bool, out: &mut Vec<u8>) {
    let mut levels = vec![leaves.iter().zip(0..).map(|(leaf, place)| (*leaf, matches(place))).collect()];
    while let Some(level) = levels.last().filter(|level: &&Vec<(Hash, bool)>| level.len() > 1) {
        let joined = level.chunks(2).map(|pair| {
            let right = pair.last().expect("chunks are not empty");
            (merkle::join(&pair[0].0.0, &right.0.0), pair[0].1 || right.1)
        });
        levels.push(joined.collect());
    }
    let (mut flags, mut hashes) = (Vec::new(), Vec::new());
    let mut ahead = vec![(levels.len() - 1, 0)];
    while let Some((height, place)) = ahead.pop() {
        let Some((hash, flag)) = levels[height].get(place) else { continue };
        flags.push(*flag);
        if *flag && height > 0 {
            ahead.extend([(height - 1, 2 * place + 1), (height - 1, 2 * place)]);
        } else {
            hashes.push(hash.0);
        }
    }
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    let flags: Vec<u8> = flags.chunks(8).map(byte).collect();
    PartialTree { transactions: leaves.len() as u32, hashes: &hashes, flags: &flags }.encode(out);
}

/// Why a partial tree proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PartialTreeError {
    /// No block has so many transactions.
    #[error("the tree is over {count} transactions, a block has 1 to {TRANSACTIONS_MAX}")]
    Transactions {
        /// The number claimed.
        count: u32,
    },
    /// There are more hashes than the whole tree has leaves.
    #[error("{hashes} hashes are more than the {count} transactions")]
    HashesAboveTransactions {
        /// The number of hashes.
        hashes: usize,
        /// The number of transactions claimed.
        count: u32,
    },
    /// There are more hashes than flags, of which every hash has one.
    #[error("{hashes} hashes are more than the {flags} flags")]
    HashesAboveFlags {
        /// The number of hashes.
        hashes: usize,
        /// The number of flags.
        flags: usize,
    },
    /// The flags end inside the tree.
    #[error("the tree needs more than the {flags} flags there are")]
    FlagsEnd {
        /// The number of flags.
        flags: usize,
    },
    /// The hashes end inside the tree.
    #[error("the tree needs more than the {hashes} hashes there are")]
    HashesEnd {
        /// The number of hashes.
        hashes: usize,
    },
    /// Two neighbours are the same: transactions that the block does not have (CVE-2012-2459).
    #[error("nodes {} and {} at height {height} are both {hash}", 2 * place, 2 * place + 1)]
    Copy {
        /// Height above the leaves.
        height: u32,
        /// Place of the node above the two.
        place: u32,
        /// What both are.
        hash: Hash,
    },
    /// Whole bytes of flags are not needed.
    #[error("the tree needs {used} flags, there are {flags}")]
    FlagsLeft {
        /// How many were needed.
        used: usize,
        /// The number of flags.
        flags: usize,
    },
    /// Hashes are not needed.
    #[error("the tree needs {used} hashes, there are {hashes}")]
    HashesLeft {
        /// How many were needed.
        used: usize,
        /// The number of hashes.
        hashes: usize,
    },
    /// The last byte of flags is not filled up with 0.
    #[error("behind the {used} flags there are others than 0")]
    Filling {
        /// How many flags were needed.
        used: usize,
    },
    /// The tree has another root.
    #[error("the tree's root is {found}, the header's is {expected}")]
    Root {
        /// The header's.
        expected: Hash,
        /// The tree's.
        found: Hash,
    },
}

/// A walk down a partial tree.
struct Walk<'a> {
    tree: &'a PartialTree<'a>,
    flags_used: usize,
    hashes_used: usize,
    matches: Vec<(u32, Hash)>,
}

impl Walk<'_> {
    /// The hash of a node. Recursion is as deep as the tree is high, at most 14.
    fn node(&mut self, height: u32, place: u32) -> Result<Hash, PartialTreeError> {
        let flags = self.tree.flags.len() * 8;
        let flag = self.tree.flag(self.flags_used).ok_or(PartialTreeError::FlagsEnd { flags })?;
        self.flags_used += 1;
        if height == 0 || !flag {
            let hashes = self.tree.hashes.len();
            let hash =
                self.tree.hashes.get(self.hashes_used).ok_or(PartialTreeError::HashesEnd { hashes })?;
            self.hashes_used += 1;
            if flag {
                self.matches.push((place, Hash(*hash)));
            }
            return Ok(Hash(*hash));
        }
        let left = self.node(height - 1, 2 * place)?;
        if 2 * place + 1 >= width(self.tree.transactions, height - 1) {
            return Ok(merkle::join(&left.0, &left.0));
        }
        let right = self.node(height - 1, 2 * place + 1)?;
        if left == right {
            return Err(PartialTreeError::Copy { height: height - 1, place, hash: left });
        }
        Ok(merkle::join(&left.0, &right.0))
    }
}

/// Nodes at a height above the leaves.
fn width(transactions: u32, height: u32) -> u32 {
    transactions.div_ceil(1 << height)
}

/// Height of the root, at most 14.
fn height(transactions: u32) -> u32 {
    transactions.next_power_of_two().trailing_zeros()
}

/// A header with a partial tree: the answer to a request for the matching part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MerkleBlock<'a> {
    /// The block's header, which has to be accepted by a [`HeaderChain`](crate::pow::HeaderChain) before the
    /// tree proves anything.
    pub header: Header<'a>,
    /// The matching part of its tree.
    pub tree: PartialTree<'a>,
}

impl<'a> MerkleBlock<'a> {
    /// Reads a merkleblock that ends where `bytes` end. Nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<MerkleBlock<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let block = MerkleBlock { header: Header::read(&mut reader)?, tree: PartialTree::read(&mut reader)? };
        reader.finish()?;
        Ok(block)
    }

    /// Appends the merkleblock as it is sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.header.encode(out);
        self.tree.encode(out);
    }

    /// The matching transactions, if the header is in the chain.
    pub fn verify(&self) -> Result<Matches, PartialTreeError> {
        self.tree.verify(self.header.block.merkle_root)
    }
}

/// A partial tree that names its block by hash and height: how side chains are shown a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MerkleProof<'a> {
    /// The block's hash.
    pub block: Hash,
    /// The block's height, as the sender says.
    pub height: u32,
    /// The matching part of its tree.
    pub tree: PartialTree<'a>,
}

impl<'a> MerkleProof<'a> {
    /// Reads a proof that ends where `bytes` end. Nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<MerkleProof<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let block = Hash(*reader.array("block")?);
        let height = reader.u32("height")?;
        let tree = PartialTree::read(&mut reader)?;
        reader.finish()?;
        Ok(MerkleProof { block, height, tree })
    }

    /// Appends the proof as it is sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.block.0);
        out.extend_from_slice(&self.height.to_le_bytes());
        self.tree.encode(out);
    }
}
