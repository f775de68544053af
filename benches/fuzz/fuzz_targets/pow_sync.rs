//! Header sync with three sources that send whatever the data says, into one tree: nothing panics, memory stays
//! within its bounds, the best branch never loses work, and what changes say adds up to the best branch.
#![no_main]

use chain_lite::pow::{
    BlockHeader, Changes, Header, HeaderChain, HeaderSync, Mode, Network, Step, SyncError, SyncSettings,
    Target, Work, merkle,
};
use chain_lite::{Hash, sha256d};
use libfuzzer_sys::fuzz_target;

const GENESIS: BlockHeader = BlockHeader {
    version: 0,
    previous: Hash::ZERO,
    merkle_root: Hash([7; 32]),
    time_s: Network::REG.genesis_time_s,
    bits: Network::REG.genesis_bits,
    nonce: 2_083_236_893,
    height: 0,
};

/// Forty days after the genesis block.
const AGE_S: u64 = 40 * 86_400;

/// A tenth of what sets bounds in earnest, and less.
const SIDE_HEADERS_MAX: usize = 12;
const BUFFER_HEADERS: usize = 9;

/// What a source sends: six bytes.
struct Order {
    source: usize,
    /// Which of the blocks so far the first header stands on.
    parent: usize,
    count: usize,
    after_s: u32,
    spoil: u8,
    more: bool,
}

impl Order {
    fn read(bytes: &[u8; 6]) -> Order {
        let &[source, parent, count, after_s, spoil, more] = bytes;
        Order {
            source: usize::from(source % 3),
            parent: usize::from(parent),
            count: usize::from(count % 40),
            after_s: u32::from(after_s) * 4,
            spoil,
            more: !more.is_multiple_of(4),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[minimum, secret], orders)) = data.split_first_chunk() else { return };
    let settings = SyncSettings {
        minimum_work: easy_work(usize::from(minimum % 64)),
        commitment_period: 3,
        buffer_headers: BUFFER_HEADERS,
        near_tip_blocks: 5,
    };
    let mut chain = HeaderChain::new(Network::REG, Mode::Strict, GENESIS, vec![], 0)
        .expect("a genesis block")
        .with_side_headers_max(SIDE_HEADERS_MAX);
    let mut syncs = [0, 1, 2].map(|source| HeaderSync::new(settings, [secret ^ source; 32]));
    let mut blocks = vec![GENESIS];
    let mut stored = vec![];
    for order in orders.as_chunks().0.iter().take(100).map(Order::read) {
        let sent = batch(&order, &mut blocks);
        let headers: Vec<_> = sent.iter().map(|bytes| Header::decode(bytes).expect("well-formed")).collect();
        let work = chain.work();
        let now_s = u64::from(GENESIS.time_s) + AGE_S;
        let sync = &mut syncs[order.source];
        let step = sync.take(&mut chain, &headers, order.more, now_s);
        match &step {
            Ok(Step::Ask(locator)) => {
                assert_eq!(locator, &sync.locator(&chain));
                assert_eq!(locator.last().map(|id| id.hash), Some(GENESIS.hash()));
            }
            Ok(Step::CaughtUp) => {}
            Ok(Step::TooLittleWork { found, required }) => assert!(found < required),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if matches!(step, Err(SyncError::NotAsBefore { .. } | SyncError::Withheld { .. })) {
            assert_eq!(sync.bytes(), 0);
        }
        assert!(sync.bytes() <= settings.bytes_max(AGE_S));
        assert!(chain.work() >= work, "the best branch never loses work");
        assert!(chain.side_headers() <= SIDE_HEADERS_MAX);
        follow(&mut chain, &mut stored);
    }
    let mut restored =
        HeaderChain::new(Network::REG, Mode::Strict, GENESIS, vec![], 1).expect("a genesis block");
    assert_eq!(restored.restore(stored), Ok(()));
    assert_eq!((restored.tip(), restored.work()), (chain.tip(), chain.work()));
});

/// What whoever stores the best branch does.
fn follow(chain: &mut HeaderChain, stored: &mut Vec<BlockHeader>) {
    if let Some(Changes { kept, .. }) = chain.take_changes() {
        stored.truncate(kept.height as usize);
        stored.extend(chain.best_above(kept.height));
    }
    assert_eq!(stored.len(), chain.tip().height as usize);
    assert_eq!(stored.last().unwrap_or(&GENESIS), chain.tip());
}

/// Headers on top of a block, the blocks of which others may stand on later.
fn batch(order: &Order, blocks: &mut Vec<BlockHeader>) -> Vec<Vec<u8>> {
    let mut before = blocks[blocks.len() - 1 - order.parent % blocks.len()];
    let mut sent = vec![];
    for index in 0..order.count {
        let spoilt = order.spoil >= 128 && index == usize::from(order.spoil % 32);
        let mut block = BlockHeader {
            version: 0,
            previous: before.hash(),
            merkle_root: Hash([9; 32]),
            time_s: before.time_s.wrapping_add(order.after_s),
            bits: Network::REG.first_bits,
            nonce: order.source as u32,
            height: before.height.wrapping_add(1),
        };
        match order.spoil >> 5 & 3 {
            0 if spoilt => block.bits ^= 1 << (order.spoil % 24),
            1 if spoilt => block.height ^= 1,
            2 if spoilt => block.time_s ^= 1 << 31,
            _ => {}
        }
        let named = if spoilt && order.spoil >> 5 & 3 == 3 { Hash::ZERO } else { block.hash() };
        sent.push(mine(&block, named));
        blocks.push(block);
        before = block;
    }
    sent
}

/// A header whose parent names a block, and meets the easiest target.
fn mine(block: &BlockHeader, named: Hash) -> Vec<u8> {
    let script = [&b"\xfa\xbemm"[..], &named.0, &[1, 0, 0, 0], &[0; 4]].concat();
    let inputs = [&[1, 0, 0, 0, 1], &[0; 32][..], &[0xff; 4], &[44], &script, &[0xff; 4]].concat();
    let coinbase = [&inputs[..], &[0], &[0; 4]].concat();
    let mut parent = [0; 80];
    parent[3] = 0x20;
    parent[36..68].copy_from_slice(&merkle::root(sha256d(&coinbase), &[], 0).0);
    while !Target::LIMIT.is_met_by(&sha256d(&parent)) {
        parent[76] += 1;
    }
    [&block.to_bytes()[..], &coinbase, &[0; 32], &[0; 5], &[0; 5], &parent, &[1]].concat()
}

fn easy_work(blocks: usize) -> Work {
    let easy = Target::from_bits(Network::REG.first_bits).expect("a target").work();
    (0..blocks).fold(Work::ZERO, |sum, _| sum.plus(easy))
}
