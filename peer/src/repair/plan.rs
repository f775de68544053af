//! What there is to do, from what nodes said. Pure.

use std::ops::Range;

use bytes::Bytes;
use store::Hash;
use store::erasure::Code;
use store::list::ListView;
use store::pipeline::GroupShards;

use super::report::Piece;
use crate::holders::{Document, DocumentKind, Found, Standing, Survey};

/// Jobs, and what was found.
pub(super) struct Plan {
    pub(super) jobs: Vec<Job>,
    /// Shards that at least one node holds.
    pub(super) shards_found: u64,
    /// Shards on no node that answered, while another was busy and may hold them.
    pub(super) shards_unclear: u64,
    /// And documents.
    pub(super) documents_unclear: u64,
}

/// One thing to do.
pub(super) enum Job {
    Group(GroupJob),
    Copy(CopyJob),
    /// A document that no node has: made anew of shards.
    Make(CopyJob),
}

/// A group that lacks shards.
#[derive(Clone)]
pub(super) struct GroupJob {
    pub(super) code: Code,
    pub(super) of: GroupShards,
    /// In the order of the group's shards.
    pub(super) shards: Vec<Shard>,
}

/// Where a shard of a group is.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) hash: Hash,
    pub(super) len: u32,
    /// Its number among all shards of the list.
    pub(super) number: u32,
    /// Nodes that say they hold it.
    pub(super) holders: Vec<usize>,
    /// Nodes that have something else in its place, or cannot give it. It is not put there: a node that keeps to what it
    /// has would answer that it has it.
    pub(super) bad_at: Vec<usize>,
}

/// A piece that belongs on several nodes, and which of them lack it.
#[derive(Clone)]
pub(super) struct CopyJob {
    pub(super) hash: Hash,
    pub(super) len: u32,
    pub(super) piece: Piece,
    /// Its bytes, if they need not be read.
    pub(super) bytes: Option<Bytes>,
    pub(super) holders: Vec<usize>,
    pub(super) targets: Vec<usize>,
}

impl GroupJob {
    /// Of a group of `list`; `shard` says where a shard of this number, address and length is.
    pub(super) fn new(
        list: &ListView<'_>,
        group: u32,
        shard: impl Fn(u32, Hash, u32) -> Shard,
    ) -> Option<GroupJob> {
        let (code, _) = list.coding()?;
        let of = GroupShards::of(list, group).ok()?;
        let numbered = of.group.shards().zip(&of.addresses);
        let shards = numbered.map(|(number, (hash, len))| shard(number, *hash, *len)).collect();
        Some(GroupJob { code, of, shards })
    }

    /// Shards that must be there.
    pub(super) fn needed(&self) -> usize {
        self.of.group.needed()
    }

    /// What it holds in memory at most.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.of.group.shape.shards() as u64 * u64::from(self.of.group.shard_len)
    }
}

impl Job {
    /// What it holds in memory at most; what documents are made of is not counted.
    pub(super) fn memory_bytes(&self) -> u64 {
        match self {
            Job::Group(job) => job.memory_bytes(),
            Job::Copy(job) | Job::Make(job) => u64::from(job.len),
        }
    }

    /// What it brings back, as far as is known.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Job::Group(job) => job
                .shards
                .iter()
                .filter(|shard| shard.holders.is_empty())
                .map(|shard| u64::from(shard.len))
                .sum(),
            Job::Copy(job) | Job::Make(job) => u64::from(job.len) * job.targets.len() as u64,
        }
    }
}

impl Plan {
    /// The survey asked for `documents` first, and then for all shards.
    pub(super) fn new(list: &ListView<'_>, documents: &[Document], survey: &Survey) -> Plan {
        let mut plan = Plan { jobs: Vec::new(), shards_found: 0, shards_unclear: 0, documents_unclear: 0 };
        let may_be_on_busy = survey.nodes.iter().any(|node| matches!(node.standing, Standing::Busy(_)));
        for (asked, document) in documents.iter().enumerate() {
            let Document { hash, len, kind, bytes } = document.clone();
            let piece = match kind {
                DocumentKind::List => Piece::List,
                DocumentKind::Outboards(Range { start, end }) => Piece::Outboards { first: start, end },
                DocumentKind::PlainHashes => Piece::PlainHashes,
            };
            let Some(job) = copy_job(asked, (hash, len), piece, bytes, survey) else { continue };
            if job.bytes.is_some() || !job.holders.is_empty() {
                plan.jobs.push(Job::Copy(job));
            } else if may_be_on_busy {
                plan.documents_unclear += 1;
            } else {
                plan.jobs.push(Job::Make(job));
            }
        }
        let at = |shard: u32| documents.len() + shard as usize;
        let found = |shard: &u32| survey.holders(at(*shard)).next().is_some();
        plan.shards_found = (0..list.shard_count()).filter(found).count() as u64;
        if list.coding().is_none() {
            for (shard, address) in (0..list.shard_count()).zip(list.shards()) {
                let Some(job) = copy_job(at(shard), address, Piece::Segment(shard), None, survey) else {
                    continue;
                };
                if job.holders.is_empty() && may_be_on_busy {
                    plan.shards_unclear += 1;
                } else {
                    plan.jobs.push(Job::Copy(job));
                }
            }
            return plan;
        }
        let shard = |number: u32, hash: Hash, len: u32| {
            let is_bad = |node: &usize| survey.nodes[*node].found[at(number)] == Found::Damaged;
            let bad_at = (0..survey.nodes.len()).filter(is_bad).collect();
            Shard { hash, len, number, holders: survey.holders(at(number)).collect(), bad_at }
        };
        for job in (0..list.group_count()).filter_map(|group| GroupJob::new(list, group, shard)) {
            let missing = job.shards.iter().filter(|shard| shard.holders.is_empty()).count();
            // Copies that are damaged somewhere do not matter as long as a good one is found.
            if missing == 0 {
                continue;
            }
            if may_be_on_busy {
                plan.shards_unclear += missing as u64;
            } else {
                plan.jobs.push(Job::Group(job));
            }
        }
        plan
    }

    /// Bytes to bring back.
    pub(super) fn bytes(&self) -> u64 {
        self.jobs.iter().map(Job::bytes).sum()
    }
}

/// What it takes to have a piece, number `asked` of the survey, on every node; `None` if it is.
fn copy_job(
    asked: usize,
    (hash, len): (Hash, u32),
    piece: Piece,
    bytes: Option<Bytes>,
    survey: &Survey,
) -> Option<CopyJob> {
    let lacks = |node: &usize| {
        let node = &survey.nodes[*node];
        node.standing.is_well() && matches!(node.found[asked], Found::Missing | Found::Damaged)
    };
    let targets: Vec<usize> = (0..survey.nodes.len()).filter(lacks).collect();
    let holders = survey.holders(asked).collect();
    (!targets.is_empty()).then_some(CopyJob { hash, len, piece, bytes, holders, targets })
}
