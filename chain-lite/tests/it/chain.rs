//! The tree of headers: every rule, reorganisations and checkpoints.

use chain_lite::Hash;
use chain_lite::pow::{
    Accepted, BlockHeader, BranchPoint, Checkpoint, GenesisError, Header, HeaderChain, HeaderError, Mode,
    Network, ProofError, Rule,
};

use crate::mining::{Proof, genesis, mine, next};

/// Retargets soon, from where every second hash is work enough.
const QUICK: Network = Network {
    name: "quick",
    retarget_blocks: 10,
    retarget_timespan_s: 1000,
    first_bits: 0x207f_ffff,
    ..Network::MAIN
};

const NOW_S: u64 = 1_800_000_000;

#[test]
fn every_rule_names_the_header_and_what_it_expects() {
    let mut chain = chain(&Network::REG, vec![]);
    let genesis = *chain.tip();
    let good = next(&genesis, 10, 0x207f_ffff, 0);
    let refused = |block: BlockHeader, rule: Rule, chain: &mut HeaderChain| {
        let error = HeaderError { height: block.height, hash: block.hash(), rule };
        assert_eq!(accept(chain, &block), Err(error));
        assert_eq!(chain.len(), 1, "what is refused is not kept");
    };
    let previous = Hash([1; 32]);
    refused(BlockHeader { previous, ..good }, Rule::UnknownParent { previous }, &mut chain);
    for height in [0, 2, u32::MAX] {
        refused(BlockHeader { height, ..good }, Rule::Height { expected: 1 }, &mut chain);
    }
    let found = 0x207f_fffe;
    refused(BlockHeader { bits: found, ..good }, Rule::Bits { expected: 0x207f_ffff, found }, &mut chain);
    let found_s = genesis.time_s;
    refused(
        BlockHeader { time_s: found_s, ..good },
        Rule::NotAboveMedian { median_s: found_s, found_s },
        &mut chain,
    );
    let limit_s = NOW_S + 7200;
    let found_s = limit_s as u32 + 1;
    refused(BlockHeader { time_s: found_s, ..good }, Rule::InFuture { limit_s, found_s }, &mut chain);
    assert_eq!(accept(&mut chain, &BlockHeader { time_s: limit_s as u32, ..good }), Ok(Accepted::Extended));
}

#[test]
fn a_header_whose_proof_is_for_another_is_refused() {
    let mut chain = chain(&Network::REG, vec![]);
    let block = next(chain.tip(), 10, 0x207f_ffff, 0);
    let other = BlockHeader { nonce: 1, ..block };
    let encoded = Proof::naming(other.hash()).header_of(&block);
    let error = chain.accept(&Header::decode(&encoded).expect("well-formed"), NOW_S);
    let rule = Rule::Proof(ProofError::RootMissing { expected: block.hash() });
    assert_eq!(error, Err(HeaderError { height: 1, hash: block.hash(), rule }));
    let text = error.expect_err("refused").to_string();
    assert!(text.starts_with(&format!("block {} at height 1: ", block.hash())), "{text}");
}

#[test]
fn bits_follow_the_blocks_before() {
    let mut chain = chain(&QUICK, vec![]);
    let first = next(chain.tip(), 1000, 0x207f_ffff, 0);
    assert_eq!(accept(&mut chain, &first), Ok(Accepted::Extended));
    for _ in 2..10 {
        let block = next(chain.tip(), 50, 0x207f_ffff, 0);
        assert_eq!(accept(&mut chain, &block), Ok(Accepted::Extended));
    }
    // From the genesis block to block 9: 1,400 s, which is longer than 1,000 s, but nothing is above the
    // limit.
    let block = next(chain.tip(), 50, 0x207f_ffff, 0);
    assert_eq!(accept(&mut chain, &block), Ok(Accepted::Extended));
    for _ in 11..20 {
        let block = next(chain.tip(), 50, 0x207f_ffff, 0);
        assert_eq!(accept(&mut chain, &block), Ok(Accepted::Extended));
    }
    // From block 10 to block 19: nine intervals of 50 s are 45 % of ten of 100 s.
    let expected = QUICK.retarget(0x207f_ffff, 0, 450);
    assert_eq!(expected, 0x2039_9999);
    let stale = next(chain.tip(), 50, 0x207f_ffff, 0);
    let rule = Rule::Bits { expected, found: 0x207f_ffff };
    assert_eq!(accept(&mut chain, &stale).map_err(|error| error.rule), Err(rule));
    let block = next(chain.tip(), 50, expected, 0);
    assert_eq!(accept(&mut chain, &block), Ok(Accepted::Extended));
}

#[test]
fn the_first_of_equals_stays_and_more_work_wins_from_any_depth() {
    let mut chain = chain(&Network::REG, vec![]);
    let genesis = *chain.tip();
    let one = grow(&mut chain, &genesis, 60, 1);
    assert_eq!(chain.tip_hash(), one[59].hash());
    let two = branch(&genesis, 61, 2);
    for block in &two[..60] {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside));
    }
    assert!(chain.is_best(&one[59].hash()) && !chain.is_best(&two[59].hash()));
    let point = BranchPoint { height: 0, hash: genesis.hash(), detached: 60, attached: 61 };
    assert_eq!(accept(&mut chain, &two[60]), Ok(Accepted::Reorganised(point)));
    for (height, block) in (1..).zip(&two) {
        assert_eq!(chain.at_height(height), Some(block));
    }
    assert_eq!(chain.at_height(62), None);
    assert_eq!(chain.get(&one[59].hash()), Some(&one[59]), "the other branch is kept");
    assert_eq!(accept(&mut chain, &one[30]), Ok(Accepted::Known));
}

#[test]
fn a_long_branch_of_little_work_does_not_displace_a_short_one_of_much() {
    let mut chain = chain(&QUICK, vec![]);
    let genesis = *chain.tip();
    // Blocks in haste, with four times the difficulty after each ten.
    let mut before = genesis;
    let mut bits = 0x207f_ffff;
    let mut hasty = vec![];
    for height in 1..=32_u32 {
        if height.is_multiple_of(10) {
            bits = QUICK.retarget(bits, 0, 9);
        }
        before = next(&before, 1, bits, 1);
        hasty.push(before);
        assert_eq!(accept(&mut chain, &before), Ok(Accepted::Extended));
    }
    let work = chain.work();
    for block in &branch(&genesis, 90, 2) {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside), "height {}", block.height);
    }
    assert_eq!((chain.tip(), chain.work()), (&hasty[31], work));
}

#[test]
fn nothing_new_branches_off_at_or_below_a_checkpoint() {
    let genesis = genesis(&Network::REG);
    let main = branch(&genesis, 8, 1);
    let side = branch(&genesis, 9, 2);
    let checkpoint = Checkpoint { height: 5, hash: main[4].hash() };
    let mut chain = chain(&Network::REG, vec![checkpoint]);
    // The side branch comes first and is longer, up to the checkpoint's height.
    for block in &side[..4] {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Extended));
    }
    let rule = Rule::Checkpoint { expected: checkpoint.hash };
    assert_eq!(accept(&mut chain, &side[4]).map_err(|error| error.rule), Err(rule));
    for block in &main[..4] {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside));
    }
    let point = BranchPoint { height: 0, hash: genesis.hash(), detached: 4, attached: 5 };
    assert_eq!(accept(&mut chain, &main[4]), Ok(Accepted::Reorganised(point)));
    let late = next(&main[2], 77, 0x207f_ffff, 3);
    let rule = Rule::BelowCheckpoint { checkpoint: 5 };
    assert_eq!(accept(&mut chain, &late).map_err(|error| error.rule), Err(rule));
    assert_eq!(accept(&mut chain, &side[4]).map_err(|error| error.rule), Err(rule));
    assert_eq!(accept(&mut chain, &main[5]), Ok(Accepted::Extended));
    // Above it, everything may.
    for block in &branch(&main[4], 1, 4) {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside));
    }
}

#[test]
fn a_genesis_block_of_another_network_is_refused() {
    let good = genesis(&Network::MAIN);
    let new = |genesis| HeaderChain::new(Network::MAIN, Mode::Strict, genesis, vec![], 0).map(drop);
    assert_eq!(new(good), Ok(()));
    assert_eq!(new(BlockHeader { height: 1, ..good }), Err(GenesisError::Height { found: 1 }));
    let found = Hash([1; 32]);
    assert_eq!(new(BlockHeader { previous: found, ..good }), Err(GenesisError::Previous { found }));
    let expected_s = 1_552_291_200;
    let found_s = 1_513_936_800;
    assert_eq!(new(BlockHeader { time_s: found_s, ..good }), Err(GenesisError::Time { expected_s, found_s }));
    let found = 0x1d03_ffff;
    assert_eq!(
        new(BlockHeader { bits: found, ..good }),
        Err(GenesisError::Bits { expected: 0x1e00_f8ff, found })
    );
}

fn chain(network: &Network, checkpoints: Vec<Checkpoint>) -> HeaderChain {
    HeaderChain::new(*network, Mode::Strict, genesis(network), checkpoints, 1).expect("a genesis block")
}

fn grow(chain: &mut HeaderChain, from: &BlockHeader, count: usize, salt: u32) -> Vec<BlockHeader> {
    let blocks = branch(from, count, salt);
    for block in &blocks {
        assert_eq!(accept(chain, block), Ok(Accepted::Extended));
    }
    blocks
}

/// Blocks on top of another, 150 s apart, of the easiest work.
fn branch(from: &BlockHeader, count: usize, salt: u32) -> Vec<BlockHeader> {
    std::iter::successors(Some(*from), |before| Some(next(before, 150, 0x207f_ffff, salt)))
        .skip(1)
        .take(count)
        .collect()
}

fn accept(chain: &mut HeaderChain, block: &BlockHeader) -> Result<Accepted, HeaderError> {
    let encoded = match chain_lite::pow::Target::from_bits(block.bits) {
        Ok(_) => mine(block),
        Err(_) => Proof::naming(block.hash()).header_of(block),
    };
    chain.accept(&Header::decode(&encoded).expect("well-formed"), NOW_S)
}
