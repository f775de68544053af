//! The tree of headers against a naive model that walks every branch from the genesis block each time, on random
//! trees.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use chain_lite::dpos::{Accepted, SignedHeader, TWINS_MAX};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::dpos::signing::{Draft, NETWORK, NOW_S, addresses, arbitrators, begin};

const ARBITRATORS: usize = 5;

/// Every header that was accepted.
struct Model {
    blocks: BTreeMap<B256, SignedHeader>,
}

impl Model {
    /// From the block after the genesis block up to a block.
    fn path(&self, tip: B256) -> Vec<&SignedHeader> {
        let mut path = vec![];
        let mut hash = tip;
        while let Some(block) = self.blocks.get(&hash).filter(|block| block.number > 0) {
            path.push(block);
            hash = block.parent_hash;
        }
        path.reverse();
        path
    }

    /// The best tip: EIP-3436's list, one line each.
    fn tip(&self, place_of: impl Fn(&SignedHeader) -> u64) -> B256 {
        let count = ARBITRATORS as i64;
        let mut tips: Vec<_> = self.blocks.values().collect();
        tips.sort_by_key(|tip| tip.hash);
        tips.sort_by_key(|tip| -((tip.number as i64 - place_of(tip) as i64).rem_euclid(count)));
        tips.sort_by_key(|tip| tip.number);
        tips.sort_by_key(|tip| {
            let difficulty: u64 = self.path(tip.hash).iter().map(|block| block.difficulty).sum();
            u64::MAX - difficulty
        });
        tips[0].hash
    }

    /// Whether this arbitrator may sign on top of a block: not one of the last two blocks, as the limit is 3 of 5.
    fn may_sign(&self, parent: B256, header: &SignedHeader) -> bool {
        self.path(parent).iter().rev().take(2).all(|block| block.signer != header.signer)
    }

    fn twins(&self, header: &SignedHeader) -> usize {
        let is_twin = |block: &&SignedHeader| block.number == header.number && block.signer == header.signer;
        self.blocks.values().filter(is_twin).count()
    }
}

/// One block of a random tree.
#[derive(Clone, Debug)]
struct Step {
    /// On top of which block so far.
    parent: prop::sample::Index,
    /// Or on the tip, so that trees grow tall.
    on_tip: bool,
    /// How many places after the one in turn its signer has.
    off_turn: usize,
    /// With the wrong difficulty.
    wrong: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (any::<prop::sample::Index>(), prop::bool::weighted(0.5), 0..ARBITRATORS, prop::bool::weighted(0.05))
        .prop_map(|(parent, on_tip, off_turn, wrong)| Step { parent, on_tip, off_turn, wrong })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_best_branch_is_the_models(steps in vec(step(), 1..120)) {
        let arbitrators = arbitrators(ARBITRATORS);
        let mut chain = begin(NETWORK, &addresses(&arbitrators));
        let place_of = |header: &SignedHeader| {
            arbitrators.iter().position(|one| one.address == header.signer).unwrap_or(0) as u64
        };
        let mut model = Model { blocks: BTreeMap::from([(chain.tip().hash, chain.tip().clone())]) };
        let mut all = vec![chain.tip().clone()];
        for (salt, step) in steps.into_iter().enumerate() {
            let parent = if step.on_tip { chain.tip() } else { &all[step.parent.index(all.len())] };
            let in_turn = step.off_turn == 0;
            let mut draft = Draft::on(&NETWORK, parent, if in_turn != step.wrong { 2 } else { 1 });
            draft.header.state_root = B256::with_last_byte(salt as u8);
            let place = (draft.header.number as usize + step.off_turn) % ARBITRATORS;
            let header = SignedHeader::read(&NETWORK, &draft.sign(&arbitrators[place])).expect("it holds by itself");
            if model.twins(&header) == TWINS_MAX {
                continue;
            }
            let holds = !step.wrong && model.may_sign(header.parent_hash, &header);
            let before = chain.tip().hash;
            let accepted = chain.accept(header.clone(), NOW_S, &mut vec![]);
            prop_assert_eq!(accepted.is_ok(), holds, "{:?}", accepted);
            if holds {
                model.blocks.insert(header.hash, header.clone());
                all.push(header.clone());
            }
            prop_assert_eq!(chain.tip().hash, model.tip(place_of));
            match accepted {
                Ok(Accepted::Extended) => prop_assert_eq!(header.parent_hash, before),
                Ok(Accepted::Reorganised(change)) => {
                    let hashes = |tip| model.path(tip).iter().map(|block| block.hash).collect::<Vec<_>>();
                    let (old, new) = (hashes(before), hashes(header.hash));
                    let shared = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
                    prop_assert_eq!(change.fork_number as usize, shared);
                    prop_assert_eq!(change.detached, old[shared..].iter().rev().copied().collect::<Vec<_>>());
                    prop_assert_eq!(&change.attached, &new[shared..]);
                }
                Ok(Accepted::Aside) | Err(_) => prop_assert_eq!(chain.tip().hash, before),
                Ok(Accepted::Known) => prop_assert!(false, "each block has a state root of its own"),
            }
        }
        let path: Vec<_> = model.path(chain.tip().hash).into_iter().cloned().collect();
        for (number, block) in (1..).zip(&path) {
            prop_assert_eq!(chain.at_number(number), Some(block));
        }
        prop_assert_eq!(chain.len(), model.blocks.len());
    }
}
