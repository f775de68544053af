//! What a repair found and did.

use store::Hash;
use store::erasure::Shape;
use store::list::ListView;

use super::plan::{CopyJob, Plan};
use crate::holders::{Found, Standing, Survey};
use crate::node_url::NodeUrl;
use crate::publish::PutError;

/// A finished repair. The file is whole where [`Repaired::is_whole`] says so.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// The list.
    pub list: Hash,
    /// The publisher's name for the file.
    pub name: String,
    /// k and m; `None` if every node holds all of the file.
    pub shape: Option<Shape>,
    /// Groups of the file.
    pub groups: u32,
    /// Data and parity segments of the file.
    pub shards: u64,
    /// Of these, found on some node.
    pub shards_found: u64,
    /// Of these, on none that answered, while a busy node may hold them: nothing was done about them.
    pub shards_unclear: u64,
    /// Shards that were made anew and put.
    pub restored: u64,
    /// Of these, put to nodes that hold more than m shards of a group now, for want of nodes.
    pub crowded: u64,
    /// Documents on none that answered, while a busy node may hold them.
    pub documents_unclear: u64,
    /// Documents that no node had and that were made anew.
    pub documents_made: u64,
    /// Copies of lists, outboards and segments that were put to nodes that lacked them.
    pub copied: u64,
    /// Shards and copies that no node took.
    pub unplaced: u64,
    /// Groups of which too much is lost.
    pub lost_groups: Vec<LostGroup>,
    /// Pieces without parity that cannot be brought back.
    pub lost_pieces: Vec<LostPiece>,
    /// What else went wrong, for a person.
    pub failures: Vec<String>,
    /// In the caller's order: first those that were looked at, then those that may receive.
    pub nodes: Vec<NodeRepair>,
}

/// A group that cannot be brought back: more shards are missing than there is parity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostGroup {
    /// Which, from 0.
    pub group: u32,
    /// Shards that no node has.
    pub missing: u32,
    /// Shards of the group.
    pub shards: u32,
    /// How many must be there.
    pub needed: u32,
    /// The first of the group's data segments.
    pub first_segment: u32,
    /// How many data segments it has.
    pub segments: u32,
}

/// A piece that no node has, and that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPiece {
    /// Its address.
    pub hash: Hash,
    /// Its length in bytes.
    pub len: u32,
    /// What it is.
    pub piece: Piece,
    /// Why it is lost.
    pub cause: LossCause,
}

/// What belongs on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A data segment of a file without a code.
    Segment(u32),
    /// The list, or a part of it.
    List,
    /// The outboards of the shards from `first` to before `end`.
    Outboards {
        /// The first shard.
        first: u32,
        /// One past the last.
        end: u32,
    },
    /// The table of plain hashes, by which a receiver finds in older files what it has.
    PlainHashes,
}

/// Why a piece cannot be brought back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossCause {
    /// Nothing else leads to it.
    #[error("no node has a good copy")]
    NoCopy,
    /// A shard that it is made of is lost.
    #[error("no node has it, nor shard {shard}, which it takes to make it")]
    Incomplete {
        /// The first that was found lost.
        shard: u32,
    },
    /// It can be made by who can read the file.
    #[error("no node has it, and it takes the file's key to make it: {reason}")]
    NeedsKey {
        /// Why the key is not to be had.
        reason: String,
    },
    /// The publisher's list names something else.
    #[error("no node has it, and what the shards give is something else: the publisher made it wrongly")]
    Differs,
}

/// What became of a node.
#[derive(Debug, Clone)]
pub struct NodeRepair {
    /// Which.
    pub node: NodeUrl,
    /// Whether it answered.
    pub state: NodeState,
    /// Pieces that it held, as it says, or verified if the repair was deep: documents and shards.
    pub pieces_held: u64,
    /// Pieces of which it has a wrong copy, or claimed one that it could not give.
    pub pieces_damaged: u64,
    /// Pieces that it received.
    pub pieces_put: u64,
    /// Their bytes.
    pub bytes_put: u64,
    /// Why it takes no more, if so.
    pub failure: Option<PutError>,
}

/// Whether a node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// It did.
    Well,
    /// It asked to be left alone, and says why.
    Busy(String),
    /// It could not be reached.
    Offline(String),
}

/// What came of one job.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) restored: u64,
    pub(super) crowded: u64,
    /// Which shards, and the node that has each now.
    pub(super) placed: Vec<(u32, usize)>,
    pub(super) made: u64,
    pub(super) copied: u64,
    /// Documents of which it turned out that no node has a good copy.
    pub(super) to_make: Vec<CopyJob>,
    pub(super) unplaced: u64,
    pub(super) lost_groups: Vec<LostGroup>,
    pub(super) lost_pieces: Vec<LostPiece>,
    pub(super) failures: Vec<String>,
}

impl Repaired {
    pub(super) fn new(list: Hash, view: &ListView<'_>, survey: &Survey, plan: &Plan) -> Repaired {
        let mut nodes: Vec<(usize, NodeRepair)> = survey
            .nodes
            .iter()
            .map(|node| {
                let count = |state: Found| node.found.iter().filter(|found| **found == state).count() as u64;
                let state = match &node.standing {
                    Standing::Well => NodeState::Well,
                    Standing::Busy(error) => NodeState::Busy(error.to_string()),
                    Standing::Offline(error) => NodeState::Offline(error.to_string()),
                };
                let repair = NodeRepair {
                    node: node.node.url().clone(),
                    state,
                    pieces_held: count(Found::Held),
                    pieces_damaged: count(Found::Damaged),
                    pieces_put: 0,
                    bytes_put: 0,
                    failure: None,
                };
                (node.position, repair)
            })
            .collect();
        nodes.sort_unstable_by_key(|(position, _)| *position);
        Repaired {
            list,
            name: view.name().to_owned(),
            shape: view.coding().map(|(_, shape)| shape),
            groups: view.group_count(),
            shards: u64::from(view.shard_count()),
            shards_found: plan.shards_found,
            shards_unclear: plan.shards_unclear,
            documents_unclear: plan.documents_unclear,
            documents_made: 0,
            restored: 0,
            crowded: 0,
            copied: 0,
            unplaced: 0,
            lost_groups: Vec::new(),
            lost_pieces: Vec::new(),
            failures: Vec::new(),
            nodes: nodes.into_iter().map(|(_, node)| node).collect(),
        }
    }

    pub(super) fn note(&mut self, outcome: Outcome) {
        self.restored += outcome.restored;
        self.crowded += outcome.crowded;
        self.documents_made += outcome.made;
        self.copied += outcome.copied;
        self.unplaced += outcome.unplaced;
        self.lost_groups.extend(outcome.lost_groups);
        self.lost_groups.sort_unstable_by_key(|group| group.group);
        self.lost_pieces.extend(outcome.lost_pieces);
        self.failures.extend(outcome.failures);
    }

    /// Whether every shard and every document is on the nodes now.
    pub fn is_whole(&self) -> bool {
        !self.is_lost() && self.unplaced == 0 && self.shards_unclear + self.documents_unclear == 0
    }

    /// Whether all that cannot be brought back could be by somebody who can read the file.
    pub fn lacks_only_the_key(&self) -> bool {
        let needs_key = |piece: &LostPiece| matches!(piece.cause, LossCause::NeedsKey { .. });
        self.is_lost() && self.lost_groups.is_empty() && self.lost_pieces.iter().all(needs_key)
    }

    /// Whether something cannot be brought back from the nodes that answered.
    pub fn is_lost(&self) -> bool {
        !self.lost_groups.is_empty() || !self.lost_pieces.is_empty()
    }
}
