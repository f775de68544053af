//! Proofs that lead from a root to a value, or to the place where it would be: Merkle-Patricia tries.

use alloy_primitives::{B256, keccak256};
use alloy_trie::proof::ProofRetainer;
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles};
use thiserror::Error;

use crate::dpos::rlp::{self, DecodeError, Item, Reader};

/// Follows a proof from a root to the value of a key. `proof` is the nodes from the root on, as `eth_getProof` gives
/// them; `key` is the path, which is the hash of an address or slot, or an encoded index.
///
/// Returns the value, or `None` if the proof shows that there is none. Nothing is allocated.
pub fn verify<'a, N: AsRef<[u8]>>(
    root: &B256,
    key: &[u8],
    proof: &'a [N],
) -> Result<Option<&'a [u8]>, ProofError> {
    // An empty trie has no nodes; some servers send its root, an empty string, all the same.
    if *root == EMPTY_ROOT_HASH {
        return match proof {
            [] => Ok(None),
            [node] if node.as_ref() == [0x80] => Ok(None),
            _ => Err(ProofError::Unused { used: 0, given: proof.len() }),
        };
    }
    let mut path = Path { key, at: 0 };
    let mut link = Link::Hash(*root);
    let mut used = 0;
    let value = loop {
        let encoded = match link {
            Link::Hash(expected) => {
                let Some(node) = proof.get(used).map(AsRef::as_ref) else {
                    return Err(ProofError::Missing { node: used, expected });
                };
                used += 1;
                let found = keccak256(node);
                if found != expected {
                    return Err(ProofError::Hash { node: used - 1, expected, found });
                }
                node
            }
            Link::Inline(node) => {
                // Some servers list it all the same.
                used += usize::from(proof.get(used).is_some_and(|listed| listed.as_ref() == node));
                node
            }
            Link::Value(value) => break Some(value),
            Link::Nothing => break None,
        };
        link = step(encoded, &mut path).map_err(|why| ProofError::Node { node: used - 1, why })?;
    };
    if used != proof.len() {
        return Err(ProofError::Unused { used, given: proof.len() });
    }
    Ok(value)
}

/// The root over items by their index, as of the receipts or transactions of a block. Items are encoded already,
/// with their type in front if they have one (EIP-2718).
pub fn ordered_root<T: AsRef<[u8]>>(items: &[T]) -> B256 {
    alloy_trie::root::ordered_trie_root_encoded(items)
}

/// The proof of the item at `index` under [`ordered_root`]; `None` if there is none.
pub fn ordered_proof<T: AsRef<[u8]>>(items: &[T], index: usize) -> Option<Vec<Vec<u8>>> {
    items.get(index)?;
    let key = |index: usize| Nibbles::unpack(index_key(index as u64));
    let mut leaves: Vec<_> = (0..items.len()).map(|index| (key(index), items[index].as_ref())).collect();
    leaves.sort_unstable_by_key(|(key, _)| *key);
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![key(index)]));
    leaves.iter().for_each(|(key, item)| builder.add_leaf(*key, item));
    builder.root();
    let nodes = builder.take_proof_nodes().into_nodes_sorted().into_iter().map(|(_, node)| node.to_vec());
    // A node below 32 bytes stands in its parent, and the root has none.
    Some(
        nodes
            .enumerate()
            .filter(|(place, node)| *place == 0 || node.len() >= 32)
            .map(|(_, node)| node)
            .collect(),
    )
}

/// The key of the item at an index.
pub(super) fn index_key(index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    rlp::write_u64(&mut key, index);
    key
}

/// What a node leads to.
enum Link<'a> {
    /// A node that the proof holds next.
    Hash(B256),
    /// A node so short that it stands in its parent.
    Inline(&'a [u8]),
    /// The end.
    Value(&'a [u8]),
    /// The key is not in the trie.
    Nothing,
}

/// A key in nibbles, and how many have been followed.
struct Path<'k> {
    key: &'k [u8],
    at: usize,
}

impl Path<'_> {
    fn left(&self) -> usize {
        self.key.len() * 2 - self.at
    }

    fn nibble(&self, ahead: usize) -> u8 {
        let at = self.at + ahead;
        nibble(self.key, at)
    }
}

/// Which way a node sends the key.
fn step<'a>(encoded: &'a [u8], path: &mut Path<'_>) -> Result<Link<'a>, NodeError> {
    let mut outer = Reader::new(encoded);
    let mut items = outer.list("node")?;
    outer.finish()?;
    let first = items.item("node")?;
    let second = items.item("node")?;
    if items.is_empty() {
        return short_node(first, second, path);
    }
    let wanted = if path.left() == 0 { 16 } else { usize::from(path.nibble(0)) };
    let mut chosen = if wanted == 1 { second } else { first };
    for place in 2..17 {
        let item = items.item("branch")?;
        if place == wanted {
            chosen = item;
        }
    }
    if !items.is_empty() {
        return Err(NodeError::Items);
    }
    if wanted == 16 {
        return match chosen {
            Item { list: true, .. } => Err(NodeError::Value),
            Item { payload: [], .. } => Ok(Link::Nothing),
            Item { payload, .. } => Ok(Link::Value(payload)),
        };
    }
    path.at += 1;
    if !chosen.list && chosen.payload.is_empty() {
        return Ok(Link::Nothing);
    }
    child(chosen)
}

/// A leaf or an extension: a part of the path, and a value or a child.
fn short_node<'a>(part: Item<'a>, target: Item<'a>, path: &mut Path<'_>) -> Result<Link<'a>, NodeError> {
    // Hex-prefix encoding: the first nibble says whether it is a leaf (2) and whether the count is odd (1).
    let part = match part {
        Item { list: false, payload, .. } if !payload.is_empty() => payload,
        _ => return Err(NodeError::Path),
    };
    let flag = part[0] >> 4;
    let (leaf, start) = (flag & 2 != 0, if flag & 1 != 0 { 1 } else { 2 });
    if flag > 3 || start == 2 && part[0] & 0x0f != 0 {
        return Err(NodeError::Path);
    }
    let count = part.len() * 2 - start;
    if !leaf && count == 0 {
        return Err(NodeError::Path);
    }
    let agrees =
        count <= path.left() && (0..count).all(|ahead| nibble(part, start + ahead) == path.nibble(ahead));
    if leaf {
        if target.list || target.payload.is_empty() {
            return Err(NodeError::Value);
        }
        return Ok(if agrees && count == path.left() { Link::Value(target.payload) } else { Link::Nothing });
    }
    let child = child(target)?;
    if !agrees {
        return Ok(Link::Nothing);
    }
    path.at += count;
    Ok(child)
}

fn child(item: Item<'_>) -> Result<Link<'_>, NodeError> {
    match (item.list, <&[u8; 32]>::try_from(item.payload)) {
        (false, Ok(hash)) => Ok(Link::Hash(B256::new(*hash))),
        // A node of 32 bytes or more is named by its hash.
        (true, _) if item.raw.len() < 32 => Ok(Link::Inline(item.raw)),
        _ => Err(NodeError::Child { len: item.raw.len() }),
    }
}

fn nibble(bytes: &[u8], at: usize) -> u8 {
    let byte = bytes[at / 2];
    if at.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f }
}

/// Why a proof proves nothing. Nodes count from 0, the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The proof ends before the path does.
    #[error("the proof ends before node {node}, which must be {expected}")]
    Missing {
        /// Which node is missing.
        node: usize,
        /// Its hash.
        expected: B256,
    },
    /// A node is not the one that its parent, or the header, names.
    #[error("node {node} of the proof is {found}, it must be {expected}")]
    Hash {
        /// Which node.
        node: usize,
        /// What its parent names.
        expected: B256,
        /// Its hash.
        found: B256,
    },
    /// A node, or what stands in it, is none.
    #[error("node {node} of the proof: {why}")]
    Node {
        /// Which node.
        node: usize,
        /// What is wrong.
        why: NodeError,
    },
    /// There are nodes behind the end.
    #[error("the proof has {given} nodes, its path ends after {used}")]
    Unused {
        /// How many nodes the path takes.
        used: usize,
        /// How many were given.
        given: usize,
    },
    /// The value at the end is not what it must be.
    #[error("the value at the end of the proof: {0}")]
    Value(DecodeError),
}

/// Why bytes are no node of a trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// They are not well encoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It has neither 2 items nor 17.
    #[error("a node has 2 or 17 items")]
    Items,
    /// Its part of the path is not well encoded.
    #[error("its part of the path is not well encoded")]
    Path,
    /// What it says is its child is neither a hash nor a short node.
    #[error("its child of {len} bytes is neither a hash nor a node below 32 bytes")]
    Child {
        /// Length of the child as it stands there.
        len: usize,
    },
    /// Its value is empty or a list.
    #[error("its value is empty or a list")]
    Value,
}
