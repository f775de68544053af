//! Difficulty and median time.

use chain_lite::pow::{Network, median_time_s};

const START_S: u32 = 1_552_291_200;

#[test]
fn retargets_are_those_of_python_integers() {
    for (network, bits, span_s, expected) in [
        // Blocks on time: 719 intervals of 120 s, counted as if they were 720.
        (Network::MAIN, 0x1e00_f8ff, 86_280, 0x1e00_f8a6),
        (Network::MAIN, 0x1e00_f8ff, 86_400, 0x1e00_f8ff),
        (Network::MAIN, 0x1e00_f8ff, 0, 0x1d3e_3fc0),
        (Network::MAIN, 0x1e00_f8ff, 21_599, 0x1d3e_3fc0),
        (Network::MAIN, 0x1e00_f8ff, 21_600, 0x1d3e_3fc0),
        (Network::MAIN, 0x1e00_f8ff, 345_600, 0x1e03_e3fc),
        (Network::MAIN, 0x1e00_f8ff, 1_000_000, 0x1e03_e3fc),
        (Network::MAIN, 0x207f_ffff, 345_600, 0x207f_ffff),
        (Network::MAIN, 0x1d56_01dd, 86_393, 0x1d56_0014),
        (Network::MAIN, 0x0300_0004, 21_600, 0x0101_0000),
        (Network::MAIN, 0x0101_0000, 21_600, 0),
        (Network::MAIN, 0x0200_8000, 86_400, 0x0200_8000),
        (Network::TEST, 0x1e1d_a5ff, 90, 0x1e1a_aeff),
        (Network::TEST, 0x1e1d_a5ff, 24, 0x1e07_697f),
        (Network::TEST, 0x1e1d_a5ff, 401, 0x1e76_97fc),
    ] {
        let found = network.retarget(bits, START_S, START_S + span_s);
        assert_eq!(found, expected, "{} {bits:#x} {span_s}: {found:#x}", network.name);
    }
}

/// Bitcoin Core's `pow_tests.cpp`: its rule is the same, with 2015 intervals counted as 2016.
#[test]
fn retargets_are_those_of_bitcoin() {
    let bitcoin = Network { retarget_blocks: 2016, retarget_timespan_s: 14 * 24 * 60 * 60, ..Network::MAIN };
    for (first_s, last_s, bits, expected) in [
        (1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
        (1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
        (1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
    ] {
        assert_eq!(bitcoin.retarget(bits, first_s, last_s), expected);
    }
}

#[test]
fn a_last_block_older_than_the_first_counts_as_the_longest_span() {
    let back = Network::MAIN.retarget(0x1e00_f8ff, START_S, START_S - 1);
    assert_eq!(back, Network::MAIN.retarget(0x1e00_f8ff, START_S, START_S + 345_600));
}

#[test]
fn the_target_changes_every_720_blocks() {
    let heights: Vec<_> = (0..2200).filter(|&height| Network::MAIN.retargets_at(height)).collect();
    assert_eq!(heights, [720, 1440, 2160]);
    let heights: Vec<_> = (0..31).filter(|&height| Network::TEST.retargets_at(height)).collect();
    assert_eq!(heights, [10, 20, 30]);
    assert!((0..100).all(|height| !Network::REG.retargets_at(height)));
}

#[test]
fn the_median_of_an_even_number_is_the_upper_one() {
    assert_eq!(median_time_s(&mut []), None);
    assert_eq!(median_time_s(&mut [5]), Some(5));
    assert_eq!(median_time_s(&mut [9, 5]), Some(9));
    assert_eq!(median_time_s(&mut [9, 5, 7]), Some(7));
    assert_eq!(median_time_s(&mut [4, 3, 2, 1]), Some(3));
    assert_eq!(median_time_s(&mut [1, 11, 2, 10, 3, 9, 4, 8, 5, 7, 6]), Some(6));
}
