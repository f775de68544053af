//! Whether a proof of work is one for this block: the parent's coinbase names it, the parent holds that
//! coinbase, and the parent's hash meets the block's target.

use thiserror::Error;

use crate::Hash;
use crate::pow::auxpow::AuxPow;
use crate::pow::header::Header;
use crate::pow::merkle;
use crate::pow::target::{Target, TargetError};

/// Longest auxiliary branch in strict mode. It is Namecoin's bound: the size of the tree fits 32 bits with a
/// sign.
pub const AUX_BRANCH_LEN_MAX: usize = 30;

/// What stands in front of the root in a coinbase script.
const MAGIC: [u8; 4] = *b"\xfa\xbemm";

/// How closely headers are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything that the deployed nodes check, and what they forget. Every header that passes here passes
    /// there.
    #[default]
    Strict,
    /// What the deployed full nodes accept, all of it and nothing else.
    Deployed,
}

/// Why a proof of work does not prove a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The coinbase is not in the parent block: with its branch it leads to another Merkle root.
    #[error("the parent's coinbase leads to Merkle root {computed}, the parent's is {expected}")]
    CoinbaseBranch {
        /// The parent's Merkle root.
        expected: Hash,
        /// Where the branch leads.
        computed: Hash,
    },
    /// The coinbase has no input, and so no script.
    #[error("the parent's coinbase has no input")]
    NoInput,
    /// The magic is not in the script, so the parent was mined for no other chain.
    #[error("no merged-mining magic in the coinbase script of {script_len} bytes")]
    MagicMissing {
        /// Length of the script in bytes.
        script_len: usize,
    },
    /// The script names more than one root.
    #[error("the merged-mining magic is in the coinbase script at {first} and {second} half-bytes")]
    MagicRepeated {
        /// Where it is first, in half-bytes.
        first: usize,
        /// Where it is again, in half-bytes.
        second: usize,
    },
    /// The script does not name this block: somebody else's proof of work.
    #[error("the coinbase script does not hold {expected}, the root that this block leads to")]
    RootMissing {
        /// The root as it should stand in the script: the auxiliary root with its bytes reversed. It displays
        /// as a hash.
        expected: Hash,
    },
    /// The root is in the script, but not right behind the magic.
    #[error("the root is in the coinbase script at {found} half-bytes, and should be at {expected}")]
    RootPlace {
        /// Right behind the magic, in half-bytes.
        expected: usize,
        /// Where it is first, in half-bytes.
        found: usize,
    },
    /// The script ends inside the size or the nonce.
    #[error("{found} bytes follow the root in the coinbase script, size and nonce have 8")]
    ScriptEnds {
        /// How many bytes follow the root.
        found: usize,
    },
    /// The tree of chains has another size than the branch says.
    #[error("the coinbase script says that {found} chains are mined, the auxiliary branch says {expected}")]
    Size {
        /// Two to the power of the branch's length, modulo 2^32.
        expected: u32,
        /// What the script says.
        found: u32,
    },
    /// The block is in another chain's slot.
    #[error("the block is in slot {found} of the auxiliary tree, chain {chain_id} has slot {expected}")]
    Slot {
        /// The slot that nonce, chain id and branch length determine.
        expected: u32,
        /// The auxiliary index.
        found: u32,
        /// Which chain's slot was computed.
        chain_id: u32,
    },
    /// An auxiliary branch longer than [`AUX_BRANCH_LEN_MAX`]; from 32 on in deployed mode, whose nodes
    /// divide by zero.
    #[error("the auxiliary branch has {found} hashes, at most {max} are allowed")]
    AuxBranchLen {
        /// Its length.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// Strict mode: the magic begins half-way into a byte, where the deployed nodes see it too.
    #[error("the merged-mining magic begins half-way into byte {} of the coinbase script", at / 2)]
    MagicUnaligned {
        /// Where it begins, in half-bytes: odd.
        at: usize,
    },
    /// Strict mode: the transaction is not the first of its block, so it is no coinbase.
    #[error("the parent's coinbase is said to be transaction {found}, it must be 0")]
    CoinbaseIndex {
        /// The coinbase index.
        found: u32,
    },
    /// Strict mode: the parent is a block of this chain, whose work would count twice.
    #[error("the parent is of chain {chain_id}, the block's own")]
    OwnParent {
        /// The chain id of both.
        chain_id: u32,
    },
    /// Strict mode: the header does not end with 1.
    #[error("the header ends with {found:#04x}, it must be 0x01")]
    EndMarker {
        /// Its last byte.
        found: u8,
    },
    /// The block's bits are no target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is not enough work in the parent.
    #[error("the parent's hash {parent} is above the target {target}")]
    Work {
        /// The parent's hash, which is the work.
        parent: Hash,
        /// The block's target.
        target: Target,
    },
}

impl Header<'_> {
    /// Whether the work of the proof is work for this block, and as much as its own bits say. Which bits it
    /// must have, the blocks before it decide: [`HeaderChain::accept`](crate::pow::HeaderChain::accept).
    pub fn check_proof(&self, chain_id: u32, mode: Mode) -> Result<Target, ProofError> {
        self.check_proof_of(self.block.hash(), chain_id, mode)
    }

    /// As [`Self::check_proof`], with the block's hash at hand.
    pub(super) fn check_proof_of(&self, hash: Hash, chain_id: u32, mode: Mode) -> Result<Target, ProofError> {
        self.proof.check_binding(hash, chain_id, mode)?;
        if mode == Mode::Strict && self.end_marker != 1 {
            return Err(ProofError::EndMarker { found: self.end_marker });
        }
        let target = Target::from_bits(self.block.bits)?;
        let parent = self.proof.parent.hash();
        if !target.is_met_by(&parent) {
            return Err(ProofError::Work { parent, target });
        }
        Ok(target)
    }
}

impl AuxPow<'_> {
    /// Whether the parent names the block with this hash, and no other. Says nothing of the work.
    pub fn check_binding(&self, block: Hash, chain_id: u32, mode: Mode) -> Result<(), ProofError> {
        if mode == Mode::Strict {
            self.check_what_deployed_nodes_forget(chain_id)?;
        }
        let computed = merkle::root(self.coinbase.hash(), self.coinbase_branch, self.coinbase_index);
        let expected = self.parent.merkle_root();
        if computed != expected {
            return Err(ProofError::CoinbaseBranch { expected, computed });
        }
        let root = merkle::root(block.reversed(), self.aux_branch, self.aux_index).reversed();
        let script = self.coinbase.script().ok_or(ProofError::NoInput)?;
        let named = Named::find(script, root, mode)?;
        self.check_slot(named, chain_id)
    }

    fn check_what_deployed_nodes_forget(&self, chain_id: u32) -> Result<(), ProofError> {
        if self.coinbase_index != 0 {
            return Err(ProofError::CoinbaseIndex { found: self.coinbase_index });
        }
        if self.aux_branch.len() > AUX_BRANCH_LEN_MAX {
            return Err(ProofError::AuxBranchLen { found: self.aux_branch.len(), max: AUX_BRANCH_LEN_MAX });
        }
        if self.parent.chain_id() == chain_id {
            return Err(ProofError::OwnParent { chain_id });
        }
        Ok(())
    }

    /// Namecoin's rule: a pool cannot mine two blocks of one chain with one parent, as each chain has one
    /// slot.
    fn check_slot(&self, named: Named, chain_id: u32) -> Result<(), ProofError> {
        let height = u32::try_from(self.aux_branch.len()).unwrap_or(u32::MAX);
        let expected = 1_u32.checked_shl(height).unwrap_or(0);
        if named.size != expected {
            return Err(ProofError::Size { expected, found: named.size });
        }
        let Some(last_slot) = expected.checked_sub(1) else {
            return Err(ProofError::AuxBranchLen { found: self.aux_branch.len(), max: 31 });
        };
        let expected = scatter(scatter(named.nonce).wrapping_add(chain_id)) & last_slot;
        if self.aux_index != expected {
            return Err(ProofError::Slot { expected, found: self.aux_index, chain_id });
        }
        Ok(())
    }
}

/// One step of the linear congruence by which Namecoin spreads chains over slots.
fn scatter(seed: u32) -> u32 {
    seed.wrapping_mul(1_103_515_245).wrapping_add(12_345)
}

/// What follows the root in a coinbase script.
#[derive(Clone, Copy)]
struct Named {
    /// Slots of the tree of chains.
    size: u32,
    /// What spreads the chains over the slots.
    nonce: u32,
}

impl Named {
    /// Finds magic and root as the deployed nodes do, who search the script written in hexadecimal: a match
    /// may begin half-way into a byte. In strict mode such a match is refused rather than overlooked, since
    /// those nodes see it.
    fn find(script: &[u8], root: Hash, mode: Mode) -> Result<Named, ProofError> {
        let magic_at =
            find(script, 0, &MAGIC).ok_or(ProofError::MagicMissing { script_len: script.len() })?;
        let root_at = find(script, 0, &root.0).ok_or(ProofError::RootMissing { expected: root })?;
        if let Some(second) = find(script, magic_at + 2, &MAGIC) {
            return Err(ProofError::MagicRepeated { first: magic_at, second });
        }
        let expected = magic_at + 2 * MAGIC.len();
        if root_at != expected {
            return Err(ProofError::RootPlace { expected, found: root_at });
        }
        if mode == Mode::Strict && !magic_at.is_multiple_of(2) {
            return Err(ProofError::MagicUnaligned { at: magic_at });
        }
        // Half a byte in front of the size is dropped, as deployed.
        let behind = &script[(root_at + 2 * root.0.len()) / 2..];
        // With four to seven bytes the deployed nodes read over the end, which Go's run-time stops.
        let Some((numbers, _)) = behind.split_first_chunk::<8>() else {
            return Err(ProofError::ScriptEnds { found: behind.len() });
        };
        let [a, b, c, d, e, f, g, h] = *numbers;
        Ok(Named { size: u32::from_le_bytes([a, b, c, d]), nonce: u32::from_le_bytes([e, f, g, h]) })
    }
}

/// Where `bytes`, four or more, stand in `script` first, in half-bytes, looking from half-byte `from` on.
fn find(script: &[u8], from: usize, bytes: &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first_chunk()?;
    let first = u32::from_be_bytes(*first);
    // The last eight bytes that were read: a match of the first four ends with the last half-byte, or one
    // before.
    let mut window = 0_u64;
    for (index, byte) in script.iter().enumerate() {
        window = window << 8 | u64::from(*byte);
        for (half, read) in [(1, window >> 4), (0, window)] {
            let end = 2 * (index + 1) - half;
            if read as u32 == first && end >= from + 8 && has(script, end, rest) {
                return Some(end - 8);
            }
        }
    }
    None
}

/// Whether `bytes` stand in `script` from half-byte `at` on.
fn has(script: &[u8], at: usize, bytes: &[u8]) -> bool {
    let here = &script[at / 2..];
    if at.is_multiple_of(2) {
        here.starts_with(bytes)
    } else {
        here.len() > bytes.len()
            && here.windows(2).zip(bytes).all(|(pair, byte)| pair[0] << 4 | pair[1] >> 4 == *byte)
    }
}
