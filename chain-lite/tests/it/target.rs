//! Targets and work, held against numbers that Python's integers gave.

use chain_lite::Hash;
use chain_lite::pow::{Target, TargetError, Work};
use proptest::prelude::*;

#[test]
fn work_is_the_expected_number_of_hashes() {
    for (bits, work) in [
        (0x1d00_ffff, "4295032833"),
        (0x1e00_f8ff, "17249135"),
        (0x207f_ffff, "2"),
        (0x1e1d_a5ff, "565872"),
        (0x1d56_01dd, "49937253"),
        (0x0300_0001, "57896044618658097711785492504343953926634992332820282019728792003956564819968"),
    ] {
        assert_eq!(target(bits).work().to_string(), work, "{bits:#x}");
    }
}

#[test]
fn bits_that_are_no_target_are_told_apart() {
    for bits in [0, 0x0012_3456, 0x0100_ffff, 0x2000_0000, 0x0080_0000, 0x0180_ffff, 0xff00_0000] {
        assert_eq!(Target::from_bits(bits), Err(TargetError::Zero { bits }), "{bits:#x}");
    }
    for bits in [0x0180_0000 | 0x7f_0000, 0x1d80_ffff, 0xff80_0001] {
        assert_eq!(Target::from_bits(bits), Err(TargetError::Negative { bits }), "{bits:#x}");
    }
    for bits in [0x2100_8000, 0x2101_0000, 0x2200_0080, 0x2200_0100, 0xff12_3456, 0x2300_0001] {
        assert_eq!(Target::from_bits(bits), Err(TargetError::AboveLimit { bits }), "{bits:#x}");
    }
}

#[test]
fn compact_forms_that_could_be_shorter_are_read() {
    assert_eq!(target(0x0500_0001), target(0x0301_0000));
    assert_eq!(target(0x0500_0001).to_bits(), 0x0301_0000);
    assert_eq!(target(0x2100_7fff), target(0x207f_ff00));
    assert_eq!(target(0x0112_3456).to_bits(), 0x0112_0000);
    assert_eq!(Target::LIMIT.to_bits(), 0x207f_ffff);
    // The highest bit of a mantissa is the sign, so this target takes a byte more.
    assert_eq!(target(0x0400_8000).to_bits(), 0x0400_8000);
}

#[test]
fn the_highest_hash_that_meets_a_target_is_the_target() {
    let target = target(0x1e00_f8ff);
    let mut hash = target.to_le_bytes();
    assert!(target.is_met_by(&Hash(hash)));
    hash[0] += 1;
    assert!(!target.is_met_by(&Hash(hash)));
    assert!(!Target::LIMIT.is_met_by(&Hash([0xff; 32])));
    assert!(target.is_met_by(&Hash::ZERO));
}

proptest! {
    #[test]
    fn the_compact_form_of_a_target_is_read_back(bits: u32) {
        if let Ok(target) = Target::from_bits(bits) {
            prop_assert_eq!(Target::from_bits(target.to_bits()), Ok(target));
            prop_assert!(target <= Target::LIMIT);
        }
    }

    /// A lower target is never less work; and a sum is no less than its parts.
    #[test]
    fn work_falls_as_targets_rise(one: u32, other: u32) {
        if let (Ok(one), Ok(other)) = (Target::from_bits(one), Target::from_bits(other)) {
            prop_assert!(one <= other || one.work() <= other.work());
            prop_assert!(one.work() > Work::ZERO);
            prop_assert!(one.work().plus(other.work()) >= one.work().max(other.work()));
        }
    }
}

fn target(bits: u32) -> Target {
    Target::from_bits(bits).expect("a target")
}
