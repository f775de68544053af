//! Bitcoin's own chain through the code that both chains share: hashes, links, targets, work and retargets.

use chain_lite::pow::{Network, PARENT_HEADER_LEN, ParentHeader, Target, Work};
use chain_lite::{Hash, sha256d};

/// Bitcoin's rule is that of this chain, with 2,015 intervals counted as 2,016.
const BITCOIN: Network =
    Network { retarget_blocks: 2016, retarget_timespan_s: 14 * 24 * 60 * 60, ..Network::MAIN };

/// The easiest target of Bitcoin.
const FIRST_BITS: u32 = 0x1d00_ffff;

#[test]
fn the_first_headers_of_bitcoin_link_and_have_the_work() {
    let bytes = include_bytes!("../vectors/bitcoin_headers_1_to_1111.bin");
    let (headers, rest) = bytes.as_chunks::<PARENT_HEADER_LEN>();
    assert_eq!((headers.len(), rest.len()), (1111, 0));
    let retargets = retargets();
    let mut previous = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f".to_owned();
    let mut work = Target::from_bits(FIRST_BITS).expect("a target").work();
    for (height, header) in (1..).zip(headers) {
        let parent = ParentHeader(header);
        let mut before = Hash([0; 32]);
        before.0.copy_from_slice(&header[4..36]);
        assert_eq!(before.to_string(), previous, "height {height}");
        assert_eq!(parent.hash(), sha256d(header));
        let bits = u32::from_le_bytes(header[72..76].try_into().expect("4 bytes"));
        let target = Target::from_bits(bits).expect("a target");
        assert_eq!((bits, target.to_bits()), (FIRST_BITS, FIRST_BITS), "height {height}");
        assert!(target.is_met_by(&parent.hash()), "height {height}");
        assert_eq!(parent.merkle_root().0, header[36..68]);
        work = work.plus(target.work());
        previous = parent.hash().to_string();
    }
    assert_eq!(previous, "00000000ca59764b4ff11d88ea67e641dba94a17520ebd10f1631b21a18d5805");
    assert_eq!(work, work_up_to(&retargets, 1111));
}

#[test]
fn any_bit_of_a_header_of_bitcoin_counts() {
    let bytes = include_bytes!("../vectors/bitcoin_headers_1_to_1111.bin");
    let target = Target::from_bits(FIRST_BITS).expect("a target");
    for header in bytes.as_chunks::<PARENT_HEADER_LEN>().0.iter().step_by(100) {
        for bit in 0..8 * PARENT_HEADER_LEN {
            let mut flipped = *header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!target.is_met_by(&ParentHeader(&flipped).hash()), "bit {bit}");
        }
    }
}

#[test]
fn targets_of_bitcoin_are_read_back_from_their_compact_form() {
    let retargets = retargets();
    assert_eq!(retargets.len(), 372);
    for &bits in &retargets {
        assert_eq!(Target::from_bits(bits).expect("a target").to_bits(), bits);
    }
    assert_eq!(retargets[16], 0x1d00_d86a, "of block 32,256, the first that differs");
}

/// What `chainparams.cpp` of Bitcoin Core 0.19 to 23 says under `nMinimumChainWork`, and of which block it is.
#[test]
fn work_adds_up_to_what_bitcoin_core_says() {
    let retargets = retargets();
    for (height, expected) in [
        (597_379, "08ea3cf107ae0dec57f03fe8"),
        (623_950, "0e1ab5ec9348e9f4b8eb8154"),
        (654_683, "1533efd8d716a517fe2c5008"),
        (691_719, "1fa4663bbbe19f82de910280"),
        (724_466, "2927cdceccbd5209e81e80db"),
    ] {
        let mut bytes = work_up_to(&retargets, height).to_le_bytes();
        bytes.reverse();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, format!("{expected:0>64}"), "height {height}");
    }
}

/// Each of Bitcoin's targets follows from the one before it by some time in whole seconds, and no two times
/// that are a promille apart give the same.
#[test]
fn every_retarget_of_bitcoin_follows_from_the_one_before_it() {
    let shortest_s = BITCOIN.retarget_timespan_s / 4;
    let longest_s = BITCOIN.retarget_timespan_s * 4;
    for (period, pair) in retargets().windows(2).enumerate() {
        let &[before, after] = pair else { panic!("two") };
        let wanted = Target::from_bits(after).expect("a target");
        let target_after = |span_s| {
            let bits = BITCOIN.retarget(before, 1_231_006_505, 1_231_006_505 + span_s);
            Target::from_bits(bits).expect("a target")
        };
        // The target grows with the time.
        let (mut low_s, mut high_s) = (shortest_s, longest_s);
        while low_s < high_s {
            let middle_s = low_s + (high_s - low_s) / 2;
            if target_after(middle_s) < wanted {
                low_s = middle_s + 1;
            } else {
                high_s = middle_s;
            }
        }
        assert_eq!(target_after(low_s), wanted, "period {period}: {before:#x} to {after:#x}");
        if low_s + low_s / 1000 < longest_s {
            assert!(target_after(low_s + low_s / 1000) > wanted, "period {period}");
        }
    }
}

/// The bits of each period of 2,016 blocks from the first on.
fn retargets() -> Vec<u32> {
    let lines = include_str!("../vectors/bitcoin_retargets.txt").lines();
    let above = lines.map(|line| {
        let (hash, target) = line.split_once(' ').expect("two fields");
        assert_eq!((hash.len(), target.len()), (64, 64));
        compact(target)
    });
    std::iter::once(FIRST_BITS).chain(above).collect()
}

/// The compact form of a target that is written in hexadecimal, as text: no code under test has a part in it.
fn compact(target: &str) -> u32 {
    let start = target.find(|digit| digit != '0').expect("not zero") / 2 * 2;
    let bytes = (64 - start) / 2;
    let first = u32::from_str_radix(&target[start..start + 2], 16).expect("digits");
    let (exponent, end) = if first < 0x80 { (bytes, start + 6) } else { (bytes + 1, start + 4) };
    let mantissa = u32::from_str_radix(&target[start..end], 16).expect("digits");
    assert!(target[end..].chars().all(|digit| digit == '0'), "{target} has a compact form");
    (exponent as u32) << 24 | mantissa
}

/// Work of the blocks from the genesis block, which Bitcoin counts, up to a height.
fn work_up_to(retargets: &[u32], height: usize) -> Work {
    let mut sum = Work::ZERO;
    for (period, &bits) in retargets.iter().take(height / 2016 + 1).enumerate() {
        let work = Target::from_bits(bits).expect("a target").work();
        let blocks = (height + 1 - 2016 * period).min(2016);
        sum = (0..blocks).fold(sum, |sum, _| sum.plus(work));
    }
    sum
}
