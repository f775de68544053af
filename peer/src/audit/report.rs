//! What an audit found.

use store::Hash;
use store::list::ListView;

use super::AuditOptions;
use crate::exchange::ExchangeError;
use crate::holders::{Standing, Survey};
use crate::node_url::NodeUrl;

/// What a challenge showed, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The bytes verify.
    Ok,
    /// The node asked to be left alone, again and again. Says nothing about what it holds.
    Busy,
    /// The node could not be reached, fell silent or failed. Says nothing about what it holds.
    Offline,
    /// The node answers that it does not hold the shard.
    Missing,
    /// The node shows other bytes, or another length.
    Corrupt,
}

impl Verdict {
    /// In order of [`Verdict`].
    pub const ALL: [Verdict; 5] =
        [Verdict::Ok, Verdict::Busy, Verdict::Offline, Verdict::Missing, Verdict::Corrupt];

    /// One word for tables and programs.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Busy => "busy",
            Verdict::Offline => "offline",
            Verdict::Missing => "missing",
            Verdict::Corrupt => "corrupt",
        }
    }

    pub(super) fn of(error: &ExchangeError) -> Verdict {
        match error {
            ExchangeError::Busy { .. } => Verdict::Busy,
            ExchangeError::NotFound { .. } => Verdict::Missing,
            ExchangeError::WrongBytes { .. }
            | ExchangeError::WrongLength { .. }
            | ExchangeError::WrongRange { .. } => Verdict::Corrupt,
            _ => Verdict::Offline,
        }
    }
}

/// A finished audit.
#[derive(Debug, Clone)]
pub struct Audited {
    /// The list.
    pub list: Hash,
    /// The publisher's name for the file.
    pub name: String,
    /// What the choice was made of.
    pub seed: u64,
    /// Data and parity segments of the file.
    pub shards: u32,
    /// How many of them were chosen.
    pub chosen: u32,
    /// In the caller's order.
    pub nodes: Vec<NodeAudit>,
    /// Every challenge that did not end well, in the order of shards.
    pub findings: Vec<Finding>,
}

/// What came of one node's challenges.
#[derive(Debug, Clone)]
pub struct NodeAudit {
    /// Which.
    pub node: NodeUrl,
    /// Challenges by verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [u32; 5],
    /// Bytes that verified.
    pub bytes: u64,
    /// Why it was busy or offline when it was asked what it holds, if it was.
    pub standing: Option<String>,
}

/// What came of one challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The node's number in the caller's order.
    pub node: usize,
    /// Which shard of the list.
    pub shard: u32,
    /// Where in the shard the block begins; `None` if the node did not claim to hold it.
    pub offset: Option<u32>,
    /// What it showed.
    pub verdict: Verdict,
    /// In the words of the failure.
    pub reason: Option<String>,
    /// Bytes that verified.
    pub(crate) bytes: u32,
}

impl Finding {
    fn without_challenge(node: usize, shard: u32, verdict: Verdict, reason: String) -> Finding {
        Finding { node, shard, offset: None, verdict, reason: Some(reason), bytes: 0 }
    }

    pub(super) fn missing(node: usize, shard: u32) -> Finding {
        Finding::without_challenge(node, shard, Verdict::Missing, "it does not hold the shard".to_owned())
    }

    pub(super) fn claimed_wrongly(node: usize, shard: u32) -> Finding {
        let reason = "it has something else at the shard's address".to_owned();
        Finding::without_challenge(node, shard, Verdict::Corrupt, reason)
    }

    pub(super) fn of_standing(node: usize, shard: u32, standing: &Standing) -> Finding {
        let verdict = match standing {
            Standing::Busy(_) => Verdict::Busy,
            Standing::Well | Standing::Offline(_) => Verdict::Offline,
        };
        let reason = standing.reason().map_or_else(|| "it gave no answer".to_owned(), ToString::to_string);
        Finding::without_challenge(node, shard, verdict, reason)
    }
}

impl Audited {
    pub(super) fn new(
        list: Hash,
        view: &ListView<'_>,
        options: &AuditOptions,
        chosen: usize,
        survey: &Survey,
    ) -> Audited {
        let mut nodes: Vec<(usize, NodeAudit)> = survey
            .nodes
            .iter()
            .map(|node| {
                let standing = node.standing.reason().map(ToString::to_string);
                let audit = NodeAudit { node: node.node.url().clone(), verdicts: [0; 5], bytes: 0, standing };
                (node.position, audit)
            })
            .collect();
        nodes.sort_unstable_by_key(|(position, _)| *position);
        Audited {
            list,
            name: view.name().to_owned(),
            seed: options.seed,
            shards: view.shard_count(),
            chosen: chosen as u32,
            nodes: nodes.into_iter().map(|(_, node)| node).collect(),
            findings: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, finding: Finding) {
        let Some(node) = self.nodes.get_mut(finding.node) else { return };
        node.verdicts[finding.verdict as usize] += 1;
        node.bytes += u64::from(finding.bytes);
        if finding.verdict != Verdict::Ok {
            let at = self
                .findings
                .partition_point(|known| (known.shard, known.node) <= (finding.shard, finding.node));
            self.findings.insert(at, finding);
        }
    }

    /// How many challenges ended with this verdict.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.nodes.iter().map(|node| u64::from(node.verdicts[verdict as usize])).sum()
    }

    /// The worst verdict of all; `None` if no node was challenged.
    pub fn worst(&self) -> Option<Verdict> {
        Verdict::ALL.into_iter().rev().find(|verdict| self.count(*verdict) > 0)
    }
}
