//! What there is to do, from what nodes said. Pure.

use std::sync::Arc;

use store::Hash;
use store::erasure::{Code, Shape};
use store::list::ListView;

use crate::holders::{Found, Standing, Survey};

/// Jobs, and what was found.
pub(super) struct Plan {
    pub(super) jobs: Vec<Job>,
    /// Shards that at least one node holds.
    pub(super) shards_found: u64,
    /// Shards on no node that answered, while another was busy and may hold them.
    pub(super) shards_unclear: u64,
}

/// One thing to do.
pub(super) enum Job {
    Group(GroupJob),
    Copy(CopyJob),
}

/// A group that lacks shards.
pub(super) struct GroupJob {
    pub(super) group: u32,
    pub(super) code: Code,
    pub(super) shape: Shape,
    /// What each shard counts as when it is coded, in bytes.
    pub(super) shard_len: u32,
    /// The shards that the group has, data first.
    pub(super) shards: Vec<Shard>,
    /// Data segments among them.
    pub(super) data_count: usize,
}

/// A shard of a group.
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
pub(super) struct CopyJob {
    pub(super) hash: Hash,
    pub(super) len: u32,
    /// The number of its shard; `None` for lists and outboards.
    pub(super) shard: Option<u32>,
    pub(super) holders: Vec<usize>,
    pub(super) targets: Vec<usize>,
}

impl Job {
    /// What it holds in memory at most.
    pub(super) fn memory_bytes(&self) -> u64 {
        match self {
            Job::Group(job) => (job.shape.shards() as u64) * u64::from(job.shard_len),
            Job::Copy(job) => u64::from(job.len),
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
            Job::Copy(job) => u64::from(job.len) * job.targets.len() as u64,
        }
    }
}

impl Plan {
    /// `pieces` are `documents` documents and then all shards, in the survey's order.
    pub(super) fn new(
        list: &ListView<'_>,
        documents: usize,
        pieces: &Arc<[(Hash, u32)]>,
        survey: &Survey,
    ) -> Plan {
        let mut plan = Plan { jobs: Vec::new(), shards_found: 0, shards_unclear: 0 };
        for piece in 0..documents {
            plan.copy(piece, None, pieces, survey);
        }
        let shard_count = pieces.len() - documents;
        plan.shards_found = (0..shard_count)
            .filter(|shard| survey.holders(documents + shard).next().is_some())
            .count() as u64;
        let Some((code, shape)) = list.coding() else {
            for shard in 0..shard_count {
                plan.copy(documents + shard, Some(shard as u32), pieces, survey);
            }
            return plan;
        };
        let may_be_on_busy = survey.nodes.iter().any(|node| matches!(node.standing, Standing::Busy(_)));
        for (number, group) in (0..list.group_count()).filter_map(|g| Some((g, list.group(g)?))) {
            let shards: Vec<Shard> = group
                .shards()
                .map(|number| {
                    let piece = documents + number as usize;
                    let (hash, len) = pieces[piece];
                    let is_bad = |node: &usize| survey.nodes[*node].found[piece] == Found::Damaged;
                    let bad_at = (0..survey.nodes.len()).filter(is_bad).collect();
                    Shard { hash, len, number, holders: survey.holders(piece).collect(), bad_at }
                })
                .collect();
            let missing = shards.iter().filter(|shard| shard.holders.is_empty()).count();
            // Copies that are damaged somewhere do not matter as long as a good one is found.
            if missing == 0 {
                continue;
            }
            if may_be_on_busy {
                plan.shards_unclear += missing as u64;
                continue;
            }
            let (data_count, shard_len) = (group.data.len(), group.shard_len);
            plan.jobs.push(Job::Group(GroupJob {
                group: number,
                code,
                shape,
                shard_len,
                shards,
                data_count,
            }));
        }
        plan
    }

    /// Bytes to bring back.
    pub(super) fn bytes(&self) -> u64 {
        self.jobs.iter().map(Job::bytes).sum()
    }

    fn copy(&mut self, piece: usize, shard: Option<u32>, pieces: &Arc<[(Hash, u32)]>, survey: &Survey) {
        let lacks = |node: &usize| {
            let node = &survey.nodes[*node];
            node.standing.is_well() && matches!(node.found[piece], Found::Missing | Found::Damaged)
        };
        let targets: Vec<usize> = (0..survey.nodes.len()).filter(lacks).collect();
        if targets.is_empty() {
            return;
        }
        let (hash, len) = pieces[piece];
        let holders = survey.holders(piece).collect();
        self.jobs.push(Job::Copy(CopyJob { hash, len, shard, holders, targets }));
    }
}
