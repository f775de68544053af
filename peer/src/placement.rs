//! Which shard of which group goes to which node. Pure: the same question has the same answer, so that a publication
//! that was cut off, and a repair years later, look first where a shard lies.
//!
//! Goals: no node holds more than m shards of a group of k + m, so that any one node may be lost, as long as there are
//! [`nodes_needed`] nodes; every node gets its equal part of the bytes, and of data and parity, because healthy
//! receivers read data alone. Nodes go by their position in a list that the caller orders ([`order`]).

use identity::Uid;
use store::erasure::Shape;

use crate::node_url::NodeUrl;

/// How many nodes it takes so that none holds more than m shards of a group.
pub fn nodes_needed(shape: Shape) -> usize {
    shape.shards().div_ceil(shape.parity.max(1))
}

/// Sorts nodes so that the order in which they are named makes no difference: by UID, those without one last.
pub(crate) fn order(nodes: &[(Option<Uid>, &NodeUrl)]) -> Vec<usize> {
    let key = |&index: &usize| {
        let (uid, url) = &nodes[index];
        (uid.is_none(), uid.map(|uid| *uid.as_bytes()), url.authority())
    };
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(key);
    order
}

/// The rule for groups of one shape on so many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    nodes: usize,
    shards: usize,
    /// Most shards of a group on one node: m.
    shards_max: usize,
    /// After so many groups every node has the same number of shards.
    cycle_groups: usize,
}

impl Placement {
    /// For groups of `shape` on `nodes` nodes, at least one.
    pub fn new(nodes: usize, shape: Shape) -> Placement {
        let (nodes, shards) = (nodes.max(1), shape.shards().max(1));
        Placement { nodes, shards, shards_max: shape.parity.max(1), cycle_groups: nodes / gcd(nodes, shards) }
    }

    /// Where shard `ordinal` of a group belongs while all nodes are well. `ordinal` counts the shards that the group
    /// has, data first; the last group of a file may lack some.
    ///
    /// Shards go round the nodes without a break, so that no two nodes ever differ by more than one. Where a whole
    /// number of rounds makes up a cycle of groups, the next cycle begins one node further; otherwise parity would
    /// always lie on the same nodes.
    pub fn home(&self, group: u64, ordinal: usize) -> usize {
        let cycle = group / self.cycle_groups as u64;
        let in_cycle = group % self.cycle_groups as u64;
        let nodes = self.nodes as u64;
        ((in_cycle * self.shards as u64 + ordinal as u64 + cycle % nodes) % nodes) as usize
    }

    /// Where to put a shard now: of the nodes that may be used, one that holds fewest of the group, nearest behind the
    /// shard's home. `held` counts the group's shards by node, those on their way included. More than m on a node are
    /// chosen only if every usable node has m. `None` if no node may be used.
    pub fn choose(
        &self,
        group: u64,
        ordinal: usize,
        held: &[usize],
        is_usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let home = self.home(group, ordinal);
        let behind = |node: usize| (node + self.nodes - home) % self.nodes;
        let count = |node: usize| held.get(node).copied().unwrap_or(0);
        (0..self.nodes).filter(|node| is_usable(*node)).min_by_key(|node| (count(*node), behind(*node)))
    }

    /// Whether a node that holds so many shards of a group holds more than it should.
    pub fn is_crowded(&self, held: usize) -> bool {
        held > self.shards_max
    }

    /// Most shards of a group that one node should hold.
    pub fn shards_per_node_max(&self) -> usize {
        self.shards_max
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = Shape> {
        (1usize..40, 1usize..20).prop_map(|(data, parity)| Shape { data, parity })
    }

    #[test]
    fn ten_and_four_on_five_nodes() {
        let shape = Shape { data: 10, parity: 4 };
        assert_eq!(nodes_needed(shape), 4);
        let placement = Placement::new(5, shape);
        let homes: Vec<usize> = (0..14).map(|shard| placement.home(0, shard)).collect();
        assert_eq!(homes, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3]);
        assert_eq!(placement.home(1, 0), 4, "the next group goes on where this one ended");
        // On seven nodes every group is two whole rounds, so each begins one node further.
        let placement = Placement::new(7, shape);
        assert_eq!([0, 1, 2, 7].map(|group| placement.home(group, 0)), [0, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn load_is_even_at_every_moment(shape in shapes(), nodes in 1usize..30, groups in 1u64..80) {
            let placement = Placement::new(nodes, shape);
            let mut load = vec![0usize; nodes];
            for group in 0..groups {
                let mut held = vec![0; nodes];
                for shard in 0..shape.shards() {
                    let node = placement.choose(group, shard, &held, |_| true).unwrap();
                    prop_assert_eq!(node, placement.home(group, shard));
                    held[node] += 1;
                    load[node] += 1;
                    prop_assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= 1);
                }
                if nodes >= nodes_needed(shape) {
                    prop_assert!(held.iter().all(|held| !placement.is_crowded(*held)), "{:?}", held);
                }
            }
        }

        #[test]
        fn parity_goes_round_too(shape in shapes(), nodes in 1usize..12) {
            let placement = Placement::new(nodes, shape);
            let mut parity = vec![0usize; nodes];
            let groups = nodes * nodes;
            for group in 0..groups {
                for shard in shape.data..shape.shards() {
                    parity[placement.home(group as u64, shard)] += 1;
                }
            }
            prop_assert!(parity.iter().all(|count| *count == nodes * shape.parity), "{:?}", parity);
        }

        /// A model of a publication: nodes fail for good at random moments, before or after they took a shard.
        #[test]
        fn the_bound_holds_while_it_can(
            shape in shapes(),
            nodes in 1usize..30,
            group in 0u64..1000,
            faults in prop::collection::vec((0usize..60, 0usize..30), 0..12),
        ) {
            let placement = Placement::new(nodes, shape);
            let mut is_well = vec![true; nodes];
            let mut held = vec![0usize; nodes];
            let mut queue: Vec<usize> = (0..shape.shards()).rev().collect();
            let mut step = 0;
            while let Some(shard) = queue.pop() {
                for (_, node) in faults.iter().filter(|(when, node)| *when == step && *node < nodes) {
                    is_well[*node] = false;
                }
                step += 1;
                let Some(node) = placement.choose(group, shard, &held, |node| is_well[node]) else {
                    prop_assert!(is_well.iter().all(|well| !well));
                    break;
                };
                prop_assert!(is_well[node]);
                let least = (0..nodes).filter(|n| is_well[*n]).map(|n| held[n]).min().unwrap();
                prop_assert_eq!(held[node], least);
                // Every second shard is lost with its node, at once, and is placed anew.
                let fails = faults.iter().any(|(when, n)| *when == step + 30 && *n == node);
                if fails {
                    is_well[node] = false;
                    queue.push(shard);
                } else {
                    held[node] += 1;
                }
                let can_take: usize = (0..nodes)
                    .filter(|n| is_well[*n])
                    .map(|n| shape.parity.saturating_sub(held[n]))
                    .sum();
                if can_take > 0 || queue.is_empty() {
                    let was_possible = least < shape.parity;
                    prop_assert!(!was_possible || !placement.is_crowded(held[node]), "{:?}", held);
                }
            }
        }
    }
}
