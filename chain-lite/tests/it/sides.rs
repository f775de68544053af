//! What is kept beside the best branch, and what is stored and restored of it.

use chain_lite::Hash;
use chain_lite::pow::{
    Accepted, BlockHeader, BlockId, BranchPoint, Changes, Checkpoint, Header, HeaderChain, HeaderError, Mode,
    Network, Rule, Target, Work,
};

use crate::mining::{Proof, genesis, mine, next};

const NOW_S: u64 = 1_800_000_000;
const EASY: u32 = 0x207f_ffff;

#[test]
fn a_flood_of_cheap_headers_drives_out_itself_and_nothing_else() {
    let mut chain = chain().with_side_headers_max(12);
    let best = grow(&mut chain, &start(), 50, 1);
    // Somebody's block that came too late, and the two on top of it.
    let late = branch(&best[46], 3, 2);
    late.iter().for_each(|block| assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside)));
    let refused = |chain: &mut HeaderChain, block: &BlockHeader, height: u32| {
        let rule = Rule::NoRoom { side_headers: 12, work: work(height) };
        let error = HeaderError { height, hash: block.hash(), rule };
        assert_eq!(accept(chain, block), Err(error));
    };
    // One long branch, and many short ones.
    let long = branch(&start(), 40, 3);
    for block in &long[..9] {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside));
    }
    refused(&mut chain, &long[9], 10);
    for salt in 100..130 {
        refused(&mut chain, &branch(&start(), 1, salt)[0], 1);
        let side = branch(&best[20], 1, salt)[0];
        // Nine take the places of the flood, from its end down; then all that is there has as much work.
        match salt {
            100..109 => assert_eq!(accept(&mut chain, &side), Ok(Accepted::Aside), "{salt}"),
            _ => refused(&mut chain, &side, 22),
        }
        assert_eq!((chain.side_headers(), chain.len()), (12, 51 + 12));
    }
    assert_eq!(chain.get(&long[0].hash()), None);
    for block in best.iter().chain(&late) {
        assert!(chain.get(&block.hash()).is_some(), "height {}", block.height);
    }
    // The late branch is still there to win.
    let more = branch(&late[2], 1, 2);
    let point = BranchPoint { height: 47, hash: best[46].hash(), detached: 3, attached: 4 };
    assert_eq!(accept(&mut chain, &more[0]), Ok(Accepted::Reorganised(point)));
    assert!(chain.side_headers() <= 12);
}

#[test]
fn a_header_without_room_is_not_proven() {
    let mut chain = chain().with_side_headers_max(0);
    grow(&mut chain, &start(), 5, 1);
    let block = branch(&start(), 1, 2)[0];
    let forged = Proof::naming(Hash::ZERO).header_of(&block);
    let error = chain.accept(&Header::decode(&forged).expect("well-formed"), NOW_S);
    let rule = Rule::NoRoom { side_headers: 0, work: work(1) };
    assert_eq!(error, Err(HeaderError { height: 1, hash: block.hash(), rule }));
}

#[test]
fn the_bound_holds_when_the_best_branch_becomes_a_side_branch() {
    let mut chain = chain().with_side_headers_max(8);
    let ours = grow(&mut chain, &start(), 8, 1);
    let theirs = branch(&start(), 30, 2);
    for block in &theirs[..8] {
        assert_eq!(accept(&mut chain, block), Ok(Accepted::Aside));
    }
    for block in &theirs[8..] {
        accept(&mut chain, block).expect("it has the most work");
    }
    assert_eq!((chain.tip(), chain.side_headers()), (&theirs[29], 8));
    let chain = chain.with_side_headers_max(3);
    assert!(chain.get(&ours[2].hash()).is_some() && chain.get(&ours[3].hash()).is_none());
    assert_eq!((chain.tip(), chain.side_headers()), (&theirs[29], 3));
}

#[test]
fn a_stored_branch_is_restored_without_proofs() {
    let blocks = branch(&start(), 60, 1);
    let mut restored = chain();
    assert_eq!(restored.restore(blocks.iter().copied()), Ok(()));
    assert_eq!((restored.tip(), restored.work()), (&blocks[59], work(60)));
    assert_eq!(restored.take_changes(), None, "it is stored already");
    assert!(restored.best_above(0).eq(&blocks));
    let more = grow(&mut restored, &blocks[59], 2, 1);
    let kept = BlockId { height: 60, hash: blocks[59].hash() };
    assert_eq!(restored.take_changes(), Some(Changes { kept, disconnected: 0, connected: 2 }));
    assert!(restored.best_above(kept.height).eq(&more));
}

#[test]
fn a_damaged_store_is_restored_up_to_the_damage() {
    let blocks = branch(&start(), 40, 1);
    // Any bit of a stored header: the field says which rule it breaks, its hash tells the header above.
    for bit in 0..8 * 84 {
        let mut bytes = blocks[19].to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped = BlockHeader::from_bytes(&bytes);
        let mut stored = blocks.clone();
        stored[19] = flipped;
        let mut restored = chain();
        let error = restored.restore(stored).expect_err("no bit is free");
        let previous = flipped.previous;
        let at_20 = |rule| HeaderError { height: flipped.height, hash: flipped.hash(), rule };
        let above = HeaderError {
            height: 21,
            hash: blocks[20].hash(),
            rule: Rule::UnknownParent { previous: blocks[19].hash() },
        };
        match bit / 8 {
            4..36 => assert_eq!(error, at_20(Rule::UnknownParent { previous })),
            72..76 => assert_eq!(error, at_20(Rule::Bits { expected: EASY, found: flipped.bits })),
            80..84 => assert_eq!(error, at_20(Rule::Height { expected: 20 })),
            68..72 => assert!(error == above || matches!(error.rule, Rule::NotAboveMedian { .. }), "{error}"),
            _ => assert_eq!(error, above),
        }
        let kept = if error == above { 20 } else { 19 };
        assert_eq!(restored.tip().height, kept);
        assert_eq!(restored.take_changes(), None);
    }
    let mut restored = chain();
    let error = restored.restore(blocks.iter().rev().copied()).expect_err("the wrong way round");
    assert_eq!(error.rule, Rule::UnknownParent { previous: blocks[38].hash() });
    let error = restored.restore([blocks[0], branch(&start(), 1, 2)[0]]).expect_err("two branches");
    assert_eq!(error.rule, Rule::UnknownParent { previous: start().hash() });
}

#[test]
fn a_restored_branch_is_held_to_checkpoints() {
    let blocks = branch(&start(), 10, 1);
    let checkpoint = Checkpoint { height: 7, hash: Hash([7; 32]) };
    let mut restored =
        HeaderChain::new(Network::REG, Mode::Strict, start(), vec![checkpoint], 1).expect("a genesis block");
    let error = restored.restore(blocks.iter().copied()).expect_err("another block is there");
    assert_eq!(error.rule, Rule::Checkpoint { expected: checkpoint.hash });
    assert_eq!(restored.tip(), &blocks[5]);
}

#[test]
fn changes_add_up_however_often_they_are_asked_for() {
    let mut chain = chain();
    let ours = grow(&mut chain, &start(), 10, 1);
    chain.take_changes();
    let theirs = branch(&ours[3], 8, 2);
    let mut stored: Vec<_> = ours.clone();
    let third = branch(&theirs[2], 9, 3);
    for (index, block) in theirs.iter().chain(&third).enumerate() {
        accept(&mut chain, block).expect("it holds");
        if index % 5 == 0 {
            follow(&mut chain, &mut stored);
        }
    }
    follow(&mut chain, &mut stored);
    assert_eq!(stored.last(), Some(&third[8]));
    assert!(chain.best_above(0).eq(&stored));
}

/// What a driver does with changes.
fn follow(chain: &mut HeaderChain, stored: &mut Vec<BlockHeader>) {
    let before = stored.len();
    if let Some(Changes { kept, disconnected, connected }) = chain.take_changes() {
        stored.truncate(kept.height as usize);
        assert_eq!(before - stored.len(), disconnected as usize);
        assert_eq!(stored.last().map(BlockHeader::hash), Some(kept.hash));
        assert_eq!(chain.best_above(kept.height).len(), connected as usize);
        stored.extend(chain.best_above(kept.height));
    }
}

#[test]
fn a_locator_goes_down_in_doubling_steps() {
    let mut chain = chain();
    assert_eq!(heights(&chain.locator()), [0]);
    let blocks = grow(&mut chain, &start(), 100, 1);
    let found = chain.locator();
    assert_eq!(heights(&found), [100, 99, 98, 97, 96, 95, 94, 93, 92, 91, 89, 85, 77, 61, 29, 0]);
    assert!(found.iter().all(|id| chain.id_at(id.height) == Some(*id)));
    let side = branch(&blocks[69], 2, 2);
    for block in &side {
        accept(&mut chain, block).expect("it holds");
    }
    let found = chain.locator_from(&side[1].hash());
    assert_eq!(heights(&found), [72, 70, 69, 68, 67, 66, 65, 64, 63, 62, 61, 59, 55, 47, 31, 0]);
    assert_eq!(chain.locator_from(&Hash([1; 32])), chain.locator());
}

fn heights(locator: &[BlockId]) -> Vec<u32> {
    locator.iter().map(|id| id.height).collect()
}

fn chain() -> HeaderChain {
    HeaderChain::new(Network::REG, Mode::Strict, start(), vec![], 1).expect("a genesis block")
}

fn start() -> BlockHeader {
    genesis(&Network::REG)
}

/// Work of so many of the easiest blocks.
fn work(blocks: u32) -> Work {
    let easy = Target::from_bits(EASY).expect("a target").work();
    (0..blocks).fold(Work::ZERO, |sum, _| sum.plus(easy))
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
    std::iter::successors(Some(*from), |before| Some(next(before, 150, EASY, salt)))
        .skip(1)
        .take(count)
        .collect()
}

fn accept(chain: &mut HeaderChain, block: &BlockHeader) -> Result<Accepted, HeaderError> {
    let encoded = mine(block);
    chain.accept(&Header::decode(&encoded).expect("well-formed"), NOW_S)
}
