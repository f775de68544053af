//! The tree of headers against a naive model that walks every branch from the genesis block each time, on
//! random trees, with as much room for side branches as there may be and with next to none.

use std::collections::BTreeMap;

use chain_lite::Hash;
use chain_lite::pow::{Accepted, BlockHeader, Header, HeaderChain, Mode, Network, Target, Work};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::mining::{genesis, mine, next};

/// Retargets after every four blocks, from where every second hash is work enough.
const QUICK: Network = Network {
    name: "quick",
    retarget_blocks: 4,
    retarget_timespan_s: 400,
    first_bits: 0x207f_ffff,
    ..Network::MAIN
};

const NOW_S: u64 = 1_800_000_000;

/// Every header that is kept in the order in which they came, and the tip.
struct Model {
    blocks: BTreeMap<Hash, BlockHeader>,
    order: Vec<Hash>,
    tip: Hash,
    side_headers_max: usize,
}

impl Model {
    fn new(genesis: BlockHeader, side_headers_max: usize) -> Model {
        let tip = genesis.hash();
        Model { blocks: BTreeMap::from([(tip, genesis)]), order: vec![tip], tip, side_headers_max }
    }

    /// From the genesis block up to a block.
    fn path(&self, tip: Hash) -> Vec<BlockHeader> {
        let mut path = vec![];
        let mut hash = tip;
        while let Some(block) = self.blocks.get(&hash) {
            path.push(*block);
            hash = block.previous;
        }
        path.reverse();
        path
    }

    fn work(&self, tip: Hash) -> Work {
        let works = self
            .path(tip)
            .into_iter()
            .skip(1)
            .map(|block| Target::from_bits(block.bits).expect("checked").work());
        works.fold(Work::ZERO, Work::plus)
    }

    /// What the next block on a path must have: its bits, and the time that it must be above.
    fn demands(path: &[BlockHeader]) -> (u32, u32) {
        let height = path.len();
        let last = path[height - 1];
        let bits = match height {
            1 => QUICK.first_bits,
            _ if height.is_multiple_of(4) => QUICK.retarget(last.bits, path[height - 4].time_s, last.time_s),
            _ => last.bits,
        };
        let mut times: Vec<_> = path.iter().rev().take(11).map(|block| block.time_s).collect();
        times.sort_unstable();
        (bits, times[times.len() / 2])
    }

    /// Drops what is too much on side branches: of the blocks that nothing stands on the one with the least
    /// work, and of equals the one that came last.
    fn trim(&mut self) {
        let best: Vec<_> = self.path(self.tip).iter().map(BlockHeader::hash).collect();
        while self.blocks.len() - best.len() > self.side_headers_max {
            let is_end = |hash: &Hash| self.blocks.values().all(|block| block.previous != *hash);
            let ends = self.order.iter().filter(|hash| !best.contains(hash) && is_end(hash));
            let least = *ends.rev().min_by_key(|hash| self.work(**hash)).expect("some are on side branches");
            self.blocks.remove(&least);
            self.order.retain(|hash| *hash != least);
        }
    }

    /// Whether the block holds, and there is room; it is taken in if so.
    fn accept(&mut self, block: BlockHeader) -> bool {
        let path = self.path(block.previous);
        if path.is_empty() {
            return false;
        }
        let (bits, median_s) = Model::demands(&path);
        let holds = block.bits == bits && block.time_s > median_s && block.height as usize == path.len();
        if holds {
            let hash = block.hash();
            self.blocks.insert(hash, block);
            self.order.push(hash);
            if self.work(hash) > self.work(self.tip) {
                self.tip = hash;
            }
            self.trim();
            return self.blocks.contains_key(&hash);
        }
        false
    }
}

/// One block of a random tree.
#[derive(Clone, Debug)]
struct Step {
    /// On top of which block so far.
    parent: prop::sample::Index,
    /// Or on the tip, so that trees grow tall.
    on_tip: bool,
    /// Seconds after its parent; less than nothing is allowed, above the median.
    after_s: i32,
    /// With the bits of its parent, whatever it should have.
    wrong_bits: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_the_models(steps in vec(step(), 1..120), side_headers_max in prop_oneof![0..12_usize, Just(1000)]) {
        let genesis = genesis(&QUICK);
        let mut model = Model::new(genesis, side_headers_max);
        let chain = HeaderChain::new(QUICK, Mode::Strict, genesis, vec![], 3).expect("a genesis block");
        let mut chain = chain.with_side_headers_max(side_headers_max);
        let hardest = Target::from_bits(0x1f0f_ffff).expect("a target");
        let mut all = vec![genesis];
        for (salt, step) in steps.into_iter().enumerate() {
            let parent = if step.on_tip { *chain.tip() } else { all[step.parent.index(all.len())] };
            let (bits, _) = Model::demands(&model.path(parent.hash()));
            let bits = if step.wrong_bits { parent.bits } else { bits };
            // Below this, finding the work would take too long for a test.
            if Target::from_bits(bits).expect("a target") < hardest {
                continue;
            }
            let block = next(&parent, 0, bits, salt as u32);
            let block = BlockHeader { time_s: parent.time_s.saturating_add_signed(step.after_s), ..block };
            let encoded = mine(&block);
            let tip = chain.tip_hash();
            let old = model.path(tip);
            let accepted = chain.accept(&Header::decode(&encoded).expect("well-formed"), NOW_S);
            prop_assert_eq!(accepted.is_ok(), model.accept(block), "{:?}", accepted);
            prop_assert_eq!(chain.tip_hash(), model.tip);
            prop_assert_eq!(chain.work(), model.work(model.tip));
            match accepted {
                Ok(Accepted::Extended) => prop_assert_eq!(block.previous, tip),
                Ok(Accepted::Reorganised(point)) => {
                    let new = model.path(block.hash());
                    let shared = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
                    prop_assert_eq!(point.height as usize, shared - 1);
                    prop_assert_eq!(point.detached as usize, old.len() - shared);
                    prop_assert_eq!(point.attached as usize, new.len() - shared);
                }
                Ok(Accepted::Aside) | Err(_) => prop_assert_eq!(chain.tip_hash(), tip),
                Ok(Accepted::Known) => prop_assert!(false, "each block has a nonce of its own"),
            }
            if accepted.is_ok() {
                all.push(block);
            }
            all.retain(|block| model.blocks.contains_key(&block.hash()));
            prop_assert!(all.iter().all(|block| chain.get(&block.hash()) == Some(block)));
            prop_assert_eq!(chain.len(), all.len());
        }
        let path = model.path(model.tip);
        for (height, block) in (0..).zip(&path) {
            prop_assert_eq!(chain.at_height(height), Some(block));
        }
        prop_assert_eq!(chain.at_height(path.len() as u32), None);
        prop_assert_eq!(chain.len(), model.blocks.len());
    }
}

fn step() -> impl Strategy<Value = Step> {
    (any::<prop::sample::Index>(), prop::bool::weighted(0.5), -200..400_i32, prop::bool::weighted(0.05))
        .prop_map(|(parent, on_tip, after_s, wrong_bits)| Step { parent, on_tip, after_s, wrong_bits })
}
