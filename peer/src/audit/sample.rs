//! Which shards and places are challenged: drawn from a seed, without repetition. Pure.

use std::collections::BTreeMap;

use store::Hash;

/// How many shards are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// So many, or all if there are fewer.
    Count(u32),
    /// So many of a hundred, at least one: above 0, up to 100.
    Percent(f64),
}

impl Sample {
    /// Of `shards` shards.
    pub fn of(self, shards: u32) -> u32 {
        match self {
            Sample::Count(count) => count.min(shards),
            Sample::Percent(percent) => {
                let count = (f64::from(shards) * percent.clamp(0.0, 100.0) / 100.0).ceil();
                (count as u32).clamp(shards.min(1), shards)
            }
        }
    }
}

/// Shards out of `shards`, each once, and for each a random number from which its block is chosen.
pub(super) fn places(seed: u64, list: &Hash, shards: u32, sample: Sample) -> Vec<(u32, u64)> {
    let mut hasher = blake3::Hasher::new_derive_key("ioex 2026 audit challenges v1");
    hasher.update(&seed.to_le_bytes()).update(list.as_bytes());
    let mut stream = hasher.finalize_xof();
    let mut random = || {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    // Fisher and Yates, of which only the places that were swapped are kept.
    let mut swapped: BTreeMap<u32, u32> = BTreeMap::new();
    let mut chosen = Vec::new();
    for i in 0..sample.of(shards) {
        let j = i + below(random(), shards - i);
        let at_i = swapped.get(&i).copied().unwrap_or(i);
        let at_j = swapped.insert(j, at_i).unwrap_or(j);
        // Where j is i itself, what was just put there is what was there.
        chosen.push((if i == j { at_i } else { at_j }, random()));
    }
    chosen
}

/// A number below `bound`, which is not 0; uneven by less than one in 2^32.
pub(super) fn below(random: u64, bound: u32) -> u32 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn each_shard_at_most_once(seed: u64, shards in 0u32..2000, count in 0u32..2500) {
            let places = places(seed, &Hash([3; 32]), shards, Sample::Count(count));
            prop_assert_eq!(places.len() as u32, count.min(shards));
            let distinct: BTreeSet<u32> = places.iter().map(|(shard, _)| *shard).collect();
            prop_assert_eq!(distinct.len(), places.len());
            prop_assert!(distinct.iter().all(|shard| *shard < shards));
        }
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| places(seed, &Hash([3; 32]), 1_000_000, Sample::Count(50));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        // Fifty of a million lie in both halves.
        let low = draw(7).iter().filter(|(shard, _)| *shard < 500_000).count();
        assert!((10..=40).contains(&low), "{low}");
    }

    #[test]
    fn percent_is_rounded_up() {
        assert_eq!(Sample::Percent(1.0).of(250), 3);
        assert_eq!(Sample::Percent(0.000_1).of(10), 1);
        assert_eq!(Sample::Percent(100.0).of(10), 10);
        assert_eq!(Sample::Percent(50.0).of(0), 0);
    }
}
