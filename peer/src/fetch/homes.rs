//! Where the shards of a coded file are to be expected: a publication places them by a rule, and the same nodes give the
//! same places. A guess that saves questions, nothing more.

use store::erasure::Shape;

use crate::node_url::NodeUrl;
use crate::placement::{self, Placement};

/// The rule for the nodes of one fetch.
#[derive(Debug, Clone)]
pub(crate) struct Homes {
    placement: Placement,
    /// By place in the rule's order: the node's place in the caller's.
    order: Vec<usize>,
}

impl Homes {
    /// For these nodes; by the rule, those that name no UID come last.
    pub(crate) fn new(shape: Shape, nodes: &[&NodeUrl]) -> Option<Homes> {
        let named: Vec<_> = nodes.iter().map(|url| (url.uid().copied(), *url)).collect();
        let order = placement::order(&named);
        (!order.is_empty()).then(|| Homes { placement: Placement::new(order.len(), shape), order })
    }

    /// The node, by its place in the caller's order.
    pub(crate) fn node_of(&self, group: u32, ordinal: usize) -> usize {
        self.order[self.placement.home(u64::from(group), ordinal)]
    }
}
