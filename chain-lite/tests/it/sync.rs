//! Header sync with sources that are honest, poor in work, or lying.

use chain_lite::Hash;
use chain_lite::pow::{
    Accepted, BATCH_HEADERS_MAX, BlockHeader, BlockId, Changes, Checkpoint, Header, HeaderChain, HeaderError,
    HeaderSync, Mode, Network, Phase, ProofError, Rule, Step, SyncError, SyncSettings, Target, Work,
};

use crate::mining::{Proof, genesis, mine, next};

const NOW_S: u64 = 1_800_000_000;
const EASY: u32 = 0x207f_ffff;
const BATCH: usize = 50;

/// Every fifth header leaves a bit, and eight bits stand on a header before it is stored.
const SETTINGS: SyncSettings =
    SyncSettings { minimum_work: Work::ZERO, commitment_period: 5, buffer_headers: 40, near_tip_blocks: 10 };

/// Somebody with a branch, who answers as asked.
struct Source {
    headers: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

impl Source {
    /// A branch on the genesis block, the lowest first.
    fn new(blocks: &[BlockHeader]) -> Source {
        let genesis = genesis(&Network::REG);
        Source {
            headers: blocks.iter().map(mine).collect(),
            hashes: std::iter::once(&genesis).chain(blocks).map(BlockHeader::hash).collect(),
        }
    }

    /// The headers behind the first block that it knows, and whether there may be more.
    fn answer(&self, locator: &[BlockId]) -> (&[Vec<u8>], bool) {
        let place = |id: &BlockId| self.hashes.get(id.height as usize).is_some_and(|hash| *hash == id.hash);
        let known = locator.iter().find(|id| place(id)).expect("the genesis block at least");
        let from = known.height as usize;
        let to = self.headers.len().min(from + BATCH);
        (&self.headers[from..to], to - from == BATCH)
    }
}

/// Asks until there is nothing more to ask; `each` sees the sync and the chain after every answer.
fn run(
    sync: &mut HeaderSync,
    chain: &mut HeaderChain,
    source: impl Fn(Phase) -> Source,
    mut each: impl FnMut(&HeaderSync, &HeaderChain),
) -> Result<Step, SyncError> {
    let sources = [Phase::Following, Phase::Presync, Phase::Redownload].map(source);
    let mut locator = sync.locator(chain);
    loop {
        let (answer, more) = sources[sync.phase() as usize].answer(&locator);
        let step = take(sync, chain, answer, more);
        each(sync, chain);
        match step? {
            Step::Ask(next) => locator = next,
            end => return Ok(end),
        }
    }
}

fn take(
    sync: &mut HeaderSync,
    chain: &mut HeaderChain,
    answer: &[Vec<u8>],
    more: bool,
) -> Result<Step, SyncError> {
    let batch: Vec<_> = answer.iter().map(|bytes| Header::decode(bytes).expect("well-formed")).collect();
    sync.take(chain, &batch, more, NOW_S)
}

#[test]
fn a_branch_with_enough_work_comes_twice_and_is_stored_the_second_time() {
    let blocks = branch(&start(), 330, 1);
    let settings = SyncSettings { minimum_work: work(250), ..SETTINGS };
    let (mut sync, mut chain) = (HeaderSync::new(settings, [1; 32]), chain());
    let mut phases = vec![];
    let end = run(
        &mut sync,
        &mut chain,
        |_| Source::new(&blocks),
        |sync, chain| {
            phases.push(sync.phase());
            phases.dedup();
            match sync.phase() {
                Phase::Presync => assert_eq!(chain.len(), 1, "nothing is kept the first time"),
                Phase::Redownload => assert_eq!(chain.len() % BATCH, if chain.len() == 1 { 1 } else { 11 }),
                Phase::Following => assert!(chain.len() > 250),
            }
            assert!(sync.bytes() <= settings.bytes_max(NOW_S - u64::from(start().time_s)));
        },
    );
    assert_eq!(end, Ok(Step::CaughtUp));
    assert_eq!(phases, [Phase::Presync, Phase::Redownload, Phase::Following]);
    assert_eq!((chain.tip(), chain.len(), sync.bytes()), (&blocks[329], 331, 0));
    let kept = BlockId { height: 0, hash: start().hash() };
    assert_eq!(chain.take_changes(), Some(Changes { kept, disconnected: 0, connected: 330 }));
    assert_eq!(chain.take_changes(), None);
}

#[test]
fn a_flood_of_headers_with_little_work_leaves_nothing() {
    // On nothing, where a minimum is known; and as another branch beside a better one.
    let flood = branch(&start(), 2_500, 2);
    let required = work(3_000);
    let settings = SyncSettings { minimum_work: required, ..SETTINGS };
    let mut lone = chain();
    let bytes_max = settings.bytes_max(NOW_S - u64::from(start().time_s));
    let mut answers = 0;
    let end = run(
        &mut HeaderSync::new(settings, [2; 32]),
        &mut lone,
        |_| Source::new(&flood),
        |sync, chain| {
            answers += 1;
            assert_eq!(chain.len(), 1);
            assert!(
                sync.bytes() <= 128 && sync.bytes() <= bytes_max,
                "a bit for each five: {}",
                sync.bytes()
            );
        },
    );
    assert_eq!(end, Ok(Step::TooLittleWork { found: work(2_500), required }));
    assert_eq!(answers, 51, "the last answer is empty");

    let mut busy = chain();
    let best = grow(&mut busy, &start(), 200, 1);
    let end = run(
        &mut sync(),
        &mut busy,
        |_| Source::new(&flood[..200]),
        |_, chain| {
            assert_eq!(chain.len(), 201);
        },
    );
    assert_eq!(end, Ok(Step::TooLittleWork { found: work(200), required: work(200).plus(unit()) }));
    assert_eq!(busy.tip(), best.last().expect("200 blocks"));
}

#[test]
fn another_branch_the_second_time_is_found_out_before_it_is_stored() {
    let shown = branch(&start(), 300, 1);
    for lie_begins in [0, 60, 149, 200] {
        let mut sent = shown[..lie_begins].to_vec();
        sent.extend(branch(sent.last().unwrap_or(&start()), 300 - lie_begins, 2));
        let (mut sync, mut chain) =
            (HeaderSync::new(SyncSettings { minimum_work: work(290), ..SETTINGS }, [3; 32]), chain());
        let end = run(
            &mut sync,
            &mut chain,
            |phase| Source::new(if phase == Phase::Redownload { &sent } else { &shown }),
            |_, chain| assert!(chain.len() - 1 <= lie_begins, "nothing of the lie is stored"),
        );
        let Err(SyncError::NotAsBefore { height, hash }) = end else { panic!("{lie_begins}: {end:?}") };
        assert!(height as usize > lie_begins && height as usize <= lie_begins + SETTINGS.buffer_headers);
        assert_eq!(hash, sent[height as usize - 1].hash());
        assert_eq!((sync.phase(), sync.bytes()), (Phase::Following, 0));
        // What was stored was shown the first time. The honest branch still gets in.
        assert!(chain.len() - 1 <= lie_begins);
        let end = run(&mut sync, &mut chain, |_| Source::new(&shown), |_, _| {});
        assert_eq!((end, chain.tip()), (Ok(Step::CaughtUp), &shown[299]));
    }
}

#[test]
fn a_branch_that_ends_early_the_second_time_is_refused() {
    let blocks = branch(&start(), 300, 1);
    let settings = SyncSettings { minimum_work: work(290), ..SETTINGS };
    let (mut sync, mut chain) = (HeaderSync::new(settings, [4; 32]), chain());
    let end = run(
        &mut sync,
        &mut chain,
        |phase| Source::new(if phase == Phase::Redownload { &blocks[..170] } else { &blocks }),
        |_, _| {},
    );
    let withheld = SyncError::Withheld { height: 170, found: work(170), promised: work(290) };
    assert_eq!(end, Err(withheld));
    assert_eq!(chain.len(), 1 + 150 - 40, "those that 40 headers stood on");
    assert_eq!(sync.bytes(), 0);
}

#[test]
fn headers_that_do_not_follow_each_other_are_refused_in_every_phase() {
    let blocks = branch(&start(), 300, 1);
    let source = Source::new(&blocks);
    let settings = SyncSettings { minimum_work: work(290), ..SETTINGS };
    // How many answers come before the gap: none, some of the first time, some of the second.
    for answers in [0, 2, 8] {
        let (mut sync, mut chain) = (HeaderSync::new(settings, [5; 32]), chain());
        let mut locator = sync.locator(&chain);
        for _ in 0..answers {
            let (answer, more) = source.answer(&locator);
            let Ok(Step::Ask(next)) = take(&mut sync, &mut chain, answer, more) else { panic!("honest") };
            locator = next;
        }
        let phase = [Phase::Following, Phase::Presync, Phase::Redownload][answers.min(4) / 2];
        assert_eq!(sync.phase(), phase);
        let len = chain.len();
        let (answer, more) = source.answer(&locator);
        let mut gap = answer.to_vec();
        gap.remove(20);
        let last = locator[0].height as usize + 20;
        let error = SyncError::NotContinuous {
            hash: blocks[last + 1].hash(),
            expected: blocks[last - 1].hash(),
            found: blocks[last].hash(),
        };
        assert_eq!(take(&mut sync, &mut chain, &gap, more), Err(error));
        assert_eq!((chain.len(), sync.phase(), sync.bytes()), (len, Phase::Following, 0));
    }
    let error = SyncError::Unconnected { previous: blocks[99].hash() };
    assert_eq!(take(&mut sync(), &mut chain(), &source.headers[100..120], true), Err(error));
}

#[test]
fn every_rule_holds_the_first_time_too() {
    let blocks = branch(&start(), 300, 1);
    let source = Source::new(&blocks);
    let settings = SyncSettings { minimum_work: work(290), ..SETTINGS };
    let good = next(&blocks[69], 150, EASY, 1);
    let before: Vec<_> = blocks[59..70].iter().map(|block| block.time_s).collect();
    let limit_s = NOW_S + 7200;
    let too_late_s = limit_s as u32 + 1;
    for (block, rule) in [
        (BlockHeader { bits: 0x1f00_ffff, ..good }, Rule::Bits { expected: EASY, found: 0x1f00_ffff }),
        (BlockHeader { bits: 0x207f_fffe, ..good }, Rule::Bits { expected: EASY, found: 0x207f_fffe }),
        (BlockHeader { height: 72, ..good }, Rule::Height { expected: 71 }),
        (
            BlockHeader { time_s: before[5], ..good },
            Rule::NotAboveMedian { median_s: before[5], found_s: before[5] },
        ),
        (BlockHeader { time_s: too_late_s, ..good }, Rule::InFuture { limit_s, found_s: too_late_s }),
    ] {
        let (mut sync, mut chain) = (HeaderSync::new(settings, [6; 32]), chain());
        take(&mut sync, &mut chain, &source.headers[..70], true).expect("honest");
        let error = HeaderError { height: block.height, hash: block.hash(), rule };
        let proof = Proof::naming(block.hash()).header_of(&block);
        assert_eq!(take(&mut sync, &mut chain, &[proof], true), Err(SyncError::Header(error)));
        assert_eq!((chain.len(), sync.phase(), sync.bytes()), (1, Phase::Following, 0));
    }
    let (mut sync, mut chain) = (HeaderSync::new(settings, [6; 32]), chain());
    take(&mut sync, &mut chain, &source.headers[..70], true).expect("honest");
    let borrowed = Proof::naming(blocks[0].hash()).header_of(&good);
    let rule = Rule::Proof(ProofError::RootMissing { expected: good.hash() });
    let error = HeaderError { height: 71, hash: good.hash(), rule };
    assert_eq!(take(&mut sync, &mut chain, &[borrowed], true), Err(SyncError::Header(error)));
}

#[test]
fn the_retarget_is_followed_where_nothing_is_kept() {
    // With four times the difficulty after each ten blocks, up to where a test still finds the work.
    const QUICK: Network = Network { retargets: true, retarget_timespan_s: 1000, ..Network::REG };
    let genesis = genesis(&QUICK);
    let mut whole = HeaderChain::new(QUICK, Mode::Strict, genesis, vec![], 1).expect("a genesis block");
    let mut blocks = vec![];
    let mut bits = EASY;
    let mut before = genesis;
    for height in 1..=44_u32 {
        if height.is_multiple_of(10) {
            let first = if height == 10 { genesis } else { blocks[height as usize - 11] };
            bits = QUICK.retarget(before.bits, first.time_s, before.time_s);
        }
        before = next(&before, if height % 20 < 10 { 20 } else { 190 }, bits, 1);
        blocks.push(before);
        let header = mine(&before);
        let accepted = whole.accept(&Header::decode(&header).expect("well-formed"), NOW_S);
        assert_eq!(accepted, Ok(Accepted::Extended), "height {height}");
    }
    assert!(blocks.iter().any(|block| block.bits != EASY));
    let settings = SyncSettings { minimum_work: whole.work(), ..SETTINGS };
    for wrong in [None, Some(20), Some(30), Some(40)] {
        let mut headers: Vec<_> = blocks.iter().map(mine).collect();
        let mut chain = HeaderChain::new(QUICK, Mode::Strict, genesis, vec![], 1).expect("a genesis block");
        let mut sync = HeaderSync::new(settings, [7; 32]);
        let Some(height) = wrong else {
            for part in [&headers[..17], &headers[17..], &headers[..23], &headers[23..]] {
                take(&mut sync, &mut chain, part, true).expect("honest");
            }
            assert_eq!((sync.phase(), chain.tip()), (Phase::Following, whole.tip()));
            continue;
        };
        let right = blocks[height - 1];
        let block = BlockHeader { bits: blocks[height - 2].bits, ..right };
        headers[height - 1] = Proof::naming(block.hash()).header_of(&block);
        take(&mut sync, &mut chain, &headers[..17], true).expect("honest");
        let rule = Rule::Bits { expected: right.bits, found: block.bits };
        let error = HeaderError { height: height as u32, hash: block.hash(), rule };
        assert_eq!(take(&mut sync, &mut chain, &headers[17..], true), Err(SyncError::Header(error)));
    }
}

#[test]
fn time_lets_a_branch_have_six_blocks_a_second() {
    let mut chain = chain();
    let mut before = start();
    for _ in 0..600 {
        let earliest = (before.time_s.saturating_sub(9)..).find_map(|time_s| {
            let block = BlockHeader { time_s, ..next(&before, 0, EASY, 1) };
            let header = mine(&block);
            chain.accept(&Header::decode(&header).expect("well-formed"), NOW_S).ok().map(|_| block)
        });
        before = earliest.expect("some time is late enough");
    }
    let took_s = before.time_s - start().time_s;
    assert!(took_s.abs_diff(100) <= 3, "600 blocks in {took_s} s");
}

#[test]
fn a_reorganisation_deeper_than_the_side_branches_have_room_goes_through() {
    let mut chain = chain().with_side_headers_max(20);
    let ours = grow(&mut chain, &start(), 300, 1);
    chain.take_changes();
    let mut theirs = ours[..50].to_vec();
    theirs.extend(branch(&ours[49], 275, 2));
    let mut phases = vec![];
    let end = run(
        &mut sync(),
        &mut chain,
        |_| Source::new(&theirs),
        |sync, chain| {
            phases.push(sync.phase());
            phases.dedup();
            assert!(chain.side_headers() <= 20);
        },
    );
    assert_eq!(end, Ok(Step::CaughtUp));
    assert_eq!(phases, [Phase::Presync, Phase::Redownload, Phase::Following]);
    assert_eq!(chain.tip(), &theirs[324]);
    assert_eq!((chain.side_headers(), chain.len()), (20, 326 + 20));
    let kept = BlockId { height: 50, hash: ours[49].hash() };
    assert_eq!(chain.take_changes(), Some(Changes { kept, disconnected: 250, connected: 275 }));
    let stored: Vec<_> = chain.best_above(50).copied().collect();
    assert_eq!(stored, theirs[50..]);
}

#[test]
fn what_branches_off_near_the_tip_is_not_downloaded_twice() {
    let mut chain = chain();
    let ours = grow(&mut chain, &start(), 100, 1);
    let mut theirs = ours[..93].to_vec();
    theirs.extend(branch(&ours[92], 5, 2));
    let mut sync = sync();
    let end = run(
        &mut sync,
        &mut chain,
        |_| Source::new(&theirs),
        |sync, _| {
            assert_eq!(sync.phase(), Phase::Following);
        },
    );
    assert_eq!((end, chain.tip(), chain.side_headers()), (Ok(Step::CaughtUp), &ours[99], 5));
    // From then on the source is asked from its own tip.
    let locator = sync.locator(&chain);
    assert_eq!(locator[0], BlockId { height: 98, hash: theirs[97].hash() });
    assert_eq!(locator[1], BlockId { height: 93, hash: ours[92].hash() });
    let more: Vec<_> = branch(&theirs[97], 4, 2).iter().map(mine).collect();
    assert_eq!(take(&mut sync, &mut chain, &more, false), Ok(Step::CaughtUp));
    assert_eq!(chain.tip().height, 102);
}

#[test]
fn headers_in_front_of_a_bad_one_are_stored() {
    let blocks = branch(&start(), 20, 1);
    let mut headers: Vec<_> = blocks.iter().map(mine).collect();
    headers[12] = Proof::naming(Hash::ZERO).header_of(&blocks[12]);
    let (mut sync, mut chain) = (sync(), chain());
    let error = take(&mut sync, &mut chain, &headers, false);
    assert!(matches!(error, Err(SyncError::Header(HeaderError { height: 13, .. }))), "{error:?}");
    assert_eq!(chain.tip(), &blocks[11]);
}

#[test]
fn an_answer_that_is_too_long_is_not_read() {
    let header = mine(&next(&start(), 150, EASY, 1));
    let header = Header::decode(&header).expect("well-formed");
    let batch = vec![header; BATCH_HEADERS_MAX + 1];
    let error = sync().take(&mut chain(), &batch, false, NOW_S);
    assert_eq!(error, Err(SyncError::TooManyHeaders { found: BATCH_HEADERS_MAX + 1 }));
}

#[test]
fn checkpoints_hold_the_first_time_too() {
    let blocks = branch(&start(), 300, 1);
    let other = branch(&start(), 300, 2);
    let checkpoint = Checkpoint { height: 60, hash: other[59].hash() };
    let mut chain =
        HeaderChain::new(Network::REG, Mode::Strict, start(), vec![checkpoint], 1).expect("a genesis block");
    let settings = SyncSettings { minimum_work: work(290), ..SETTINGS };
    let mut sync = HeaderSync::new(settings, [9; 32]);
    let error = run(&mut sync, &mut chain, |_| Source::new(&blocks), |_, _| {});
    let rule = Rule::Checkpoint { expected: checkpoint.hash };
    let error_at_60 = HeaderError { height: 60, hash: blocks[59].hash(), rule };
    assert_eq!((error, chain.len()), (Err(SyncError::Header(error_at_60)), 1));
    let end = run(&mut sync, &mut chain, |_| Source::new(&other), |_, _| {});
    assert_eq!((end, chain.tip()), (Ok(Step::CaughtUp), &other[299]));
}

#[test]
fn memory_is_what_the_documents_say() {
    let ten_years_s = 10 * 31_557_600;
    let settings = SyncSettings::default();
    let buffer = (14_400 + 2_000) * 84;
    let bits = settings.bytes_max(ten_years_s) - buffer;
    assert_eq!(buffer, 1_377_600);
    assert!((780_000..800_000).contains(&bits), "{bits}");
}

fn sync() -> HeaderSync {
    HeaderSync::new(SETTINGS, [8; 32])
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

fn unit() -> Work {
    let mut one = [0; 32];
    one[0] = 1;
    Work::from_le_bytes(one)
}

fn grow(chain: &mut HeaderChain, from: &BlockHeader, count: usize, salt: u32) -> Vec<BlockHeader> {
    let blocks = branch(from, count, salt);
    for block in &blocks {
        let header = mine(block);
        let accepted = chain.accept(&Header::decode(&header).expect("well-formed"), NOW_S);
        assert_eq!(accepted, Ok(Accepted::Extended));
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
