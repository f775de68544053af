//! What lies where: the shards of each group on their nodes, while they are put and when all is done. Pure.

use std::collections::HashMap;

use store::erasure::{Code, Shape};

use crate::placement::Placement;

/// A shard among those of its group: data first, then parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ShardPlace {
    pub(crate) group: u32,
    pub(crate) ordinal: u16,
    pub(crate) is_parity: bool,
}

/// The shards of a publication and the nodes that have or will have them. Nodes go by their position in the order of
/// their UIDs.
#[derive(Debug)]
pub(super) struct Ledger {
    placement: Placement,
    nodes: usize,
    /// Groups of which shards are on their way: how many each node has been given, and how many are not settled.
    open: HashMap<u32, OpenGroup>,
    newest: u32,
    settled: Vec<(ShardPlace, u16)>,
}

#[derive(Debug)]
struct OpenGroup {
    held: Vec<usize>,
    unsettled: usize,
}

impl Ledger {
    pub(super) fn new(nodes: usize, shape: Shape) -> Ledger {
        let placement = Placement::new(nodes, shape);
        Ledger { placement, nodes, open: HashMap::new(), newest: 0, settled: Vec::new() }
    }

    /// Chooses a node for a shard that none has been given yet.
    pub(super) fn choose(&mut self, shard: ShardPlace, is_usable: impl Fn(usize) -> bool) -> Option<usize> {
        let nodes = self.nodes;
        let group =
            self.open.entry(shard.group).or_insert_with(|| OpenGroup { held: vec![0; nodes], unsettled: 0 });
        let node = self.placement.choose(
            u64::from(shard.group),
            usize::from(shard.ordinal),
            &group.held,
            is_usable,
        )?;
        group.held[node] += 1;
        group.unsettled += 1;
        self.newest = self.newest.max(shard.group);
        Some(node)
    }

    /// The node has the shard.
    pub(super) fn settle(&mut self, shard: ShardPlace, node: usize) {
        self.settled.push((shard, node as u16));
        let Some(group) = self.open.get_mut(&shard.group) else { return };
        group.unsettled = group.unsettled.saturating_sub(1);
        // Shards come in the order of their groups, so an older group without open shards is complete.
        if group.unsettled == 0 && shard.group < self.newest {
            self.open.remove(&shard.group);
        }
    }

    /// The node does not take the shard.
    pub(super) fn take_back(&mut self, shard: ShardPlace, node: usize) {
        let Some(group) = self.open.get_mut(&shard.group) else { return };
        group.held[node] = group.held[node].saturating_sub(1);
        group.unsettled = group.unsettled.saturating_sub(1);
    }

    /// What came of it. `position[node]` is the caller's number of a node, `is_lost` says of which nodes (by the
    /// ledger's numbers) the shards count as lost.
    pub(super) fn finish(
        mut self,
        code: Code,
        shape: Shape,
        position: &[usize],
        is_lost: impl Fn(usize) -> bool,
    ) -> Spread {
        self.settled.sort_unstable_by_key(|(shard, _)| (shard.group, shard.ordinal));
        let mut spread = Spread {
            code,
            shape,
            nodes_needed: crate::placement::nodes_needed(shape),
            shards_per_node_most: 0,
            crowded_groups: 0,
            nodes_losable: self.nodes,
            places: Vec::new(),
        };
        for group in self.settled.chunk_by(|(a, _), (b, _)| a.group == b.group) {
            let mut held = vec![0usize; self.nodes];
            for (_, node) in group {
                held[usize::from(*node)] += 1;
            }
            let most = held.iter().copied().max().unwrap_or(0);
            spread.shards_per_node_most = spread.shards_per_node_most.max(most);
            spread.crowded_groups += u32::from(self.placement.is_crowded(most));
            spread.nodes_losable = spread.nodes_losable.min(losable(&held, shape.parity, &is_lost));
            let nodes = group.iter().map(|(_, node)| position[usize::from(*node)] as u16);
            spread.places.push(nodes.collect());
        }
        if spread.places.is_empty() {
            spread.nodes_losable = self.nodes.saturating_sub(1);
        }
        spread
    }
}

/// How many of the nodes that are well may be lost, whichever they are, so that a group stays whole.
fn losable(held: &[usize], parity: usize, is_lost: &impl Fn(usize) -> bool) -> usize {
    let lost: usize = (0..held.len()).filter(|node| is_lost(*node)).map(|node| held[node]).sum();
    let mut well: Vec<usize> =
        (0..held.len()).filter(|node| !is_lost(*node)).map(|node| held[node]).collect();
    well.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = match parity.checked_sub(lost) {
        Some(left) => left,
        None => return 0,
    };
    let mut count = 0;
    for held in well {
        match left.checked_sub(held) {
            Some(rest) => left = rest,
            None => break,
        }
        count += 1;
    }
    count
}

/// Where the shards of a coded file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// Which code.
    pub code: Code,
    /// k and m.
    pub shape: Shape,
    /// How many nodes it takes so that none holds more than m shards of a group.
    pub nodes_needed: usize,
    /// Most shards of one group on one node.
    pub shards_per_node_most: usize,
    /// Groups of which a node holds more than m shards.
    pub crowded_groups: u32,
    /// How many of the nodes that were not given up may be lost, whichever they are, without loss of the file.
    pub nodes_losable: usize,
    /// For each group the node of each of its shards, data first: its number in the caller's order.
    pub places: Vec<Vec<u16>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(group: u32, ordinal: u16) -> ShardPlace {
        ShardPlace { group, ordinal, is_parity: ordinal >= 10 }
    }

    #[test]
    fn says_what_may_be_lost() {
        let shape = Shape { data: 10, parity: 4 };
        let mut ledger = Ledger::new(7, shape);
        for group in 0..3 {
            for ordinal in 0..14 {
                let shard = shard(group, ordinal);
                let node = ledger.choose(shard, |_| true).unwrap();
                ledger.settle(shard, node);
            }
        }
        let spread = ledger.finish(Code::ReedSolomon256, shape, &[6, 5, 4, 3, 2, 1, 0], |_| false);
        assert_eq!((spread.shards_per_node_most, spread.crowded_groups, spread.nodes_losable), (2, 0, 2));
        assert_eq!(spread.places.len(), 3);
        assert_eq!(spread.places[0][..8], [6, 5, 4, 3, 2, 1, 0, 6]);
        assert_eq!(spread.places[1][0], 5);
    }

    #[test]
    fn a_node_that_takes_nothing_is_replaced_within_the_bound() {
        let shape = Shape { data: 10, parity: 4 };
        let mut ledger = Ledger::new(5, shape);
        for ordinal in 0..14 {
            let shard = shard(0, ordinal);
            let mut node = ledger.choose(shard, |_| true).unwrap();
            if node == 2 {
                ledger.take_back(shard, node);
                node = ledger.choose(shard, |node| node != 2).unwrap();
            }
            ledger.settle(shard, node);
        }
        let spread = ledger.finish(Code::ReedSolomon256, shape, &[0, 1, 2, 3, 4], |node| node == 2);
        assert_eq!((spread.shards_per_node_most, spread.crowded_groups, spread.nodes_losable), (4, 0, 1));
        assert!(!spread.places[0].contains(&2));
    }

    #[test]
    fn too_few_nodes_show() {
        let shape = Shape { data: 10, parity: 4 };
        let mut ledger = Ledger::new(2, shape);
        for ordinal in 0..14 {
            let shard = shard(0, ordinal);
            let node = ledger.choose(shard, |_| true).unwrap();
            ledger.settle(shard, node);
        }
        let spread = ledger.finish(Code::ReedSolomon256, shape, &[0, 1], |_| false);
        assert_eq!((spread.shards_per_node_most, spread.crowded_groups, spread.nodes_losable), (7, 1, 0));
        assert_eq!(spread.nodes_needed, 4);
    }
}
