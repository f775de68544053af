//! The ports of one relay address that belong to one shard.
//!
//! Shard `s` of `n` owns the pairs of ports (even and the odd one above it) whose number, port divided by two, is
//! `s` modulo
//! `n`: no two shards ever want the same port, and nothing needs to be agreed on. Ports are chosen at random, so that
//! nobody can guess what the next allocation gets (RFC 8656 section 7.2, RFC 6056), and one that was in use rests
//! before it is given again, so that no client receives what peers send to its predecessor.

use rand::{Rng, RngExt};
use relay::turn::PortKind;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long a port rests: the lifetime of a permission (RFC 8656 section 9), the longest that somebody who had
/// permission to send there may go on without being told to stop.
pub const PORT_REST: Duration = Duration::from_secs(300);

/// Ports that relayed transport addresses are made of, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    min: u16,
    max: u16,
}

impl PortRange {
    /// From `min` to `max`. `None` unless 1024 <= `min` < `max`.
    #[must_use]
    pub fn new(min: u16, max: u16) -> Option<PortRange> {
        (1_024 <= min && min < max).then_some(PortRange { min, max })
    }

    /// How many ports it has.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.max - self.min) + 1
    }
}

impl Default for PortRange {
    /// The dynamic ports, 49152 to 65535, as RFC 8656 section 7.2 recommends.
    fn default() -> Self {
        PortRange { min: 49_152, max: 65_535 }
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    /// `MIN-MAX`.
    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let ends = text.split_once('-').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
        let range = ends.and_then(|(min, max)| PortRange::new(min, max));
        range.ok_or_else(|| PortRangeError { text: text.to_owned() })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// Not a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no range of ports: write MIN-MAX with 1024 <= MIN < MAX <= 65535, such as 49152-65535")]
pub struct PortRangeError {
    text: String,
}

/// Not free: in use, kept, resting, or outside the range.
const EVEN: u8 = 1;
const ODD: u8 = 2;

/// See the [module](self).
#[derive(Debug)]
pub struct Ports {
    /// Number of the first pair.
    first_pair: u32,
    /// From one pair of this shard to the next.
    stride: u32,
    /// A byte a pair: which of its two ports are not free.
    pairs: Box<[u8]>,
    /// Ports free, so that a full pool is not searched.
    free: u32,
    /// Ports that were in use, in the order of the time from which they are free again.
    resting: VecDeque<(Instant, u16)>,
}

impl Ports {
    /// The ports of `range` that shard `shard` of `shard_count` owns.
    #[must_use]
    pub fn new(range: PortRange, shard: usize, shard_count: usize) -> Ports {
        let stride = shard_count.max(1) as u32;
        let (lowest, highest) = (u32::from(range.min) / 2, u32::from(range.max) / 2);
        let shard = shard as u32 % stride;
        let first_pair = lowest + (shard + stride - lowest % stride) % stride;
        let count = if first_pair > highest { 0 } else { (highest - first_pair) / stride + 1 };
        let mut ports = Ports {
            first_pair,
            stride,
            pairs: vec![0; count as usize].into(),
            free: count * 2,
            resting: VecDeque::new(),
        };
        // The range may begin with an odd port and end with an even one: the other half of the pair is outside.
        if !range.min.is_multiple_of(2) {
            ports.occupy(range.min - 1);
        }
        if range.max.is_multiple_of(2) {
            ports.occupy(range.max + 1);
        }
        ports
    }

    /// Takes a free port at random; with [`PortKind::EvenAndReserveNext`] the one above it is taken, too. `None`: no
    /// fitting port is free.
    pub fn take(&mut self, now: Instant, kind: PortKind, random: &mut impl Rng) -> Option<u16> {
        self.wake(now);
        if self.free == 0 {
            return None;
        }
        let fits = |pair: u8| match kind {
            PortKind::Any => pair != EVEN | ODD,
            PortKind::Even => pair & EVEN == 0,
            PortKind::EvenAndReserveNext => pair == 0,
        };
        let start = random.random_range(0..self.pairs.len());
        let (before, from) = self.pairs.split_at(start);
        let found = from.iter().position(|pair| fits(*pair)).map(|offset| start + offset);
        let index = found.or_else(|| before.iter().position(|pair| fits(*pair)))?;
        let is_odd = kind == PortKind::Any
            && match self.pairs[index] {
                EVEN => true,
                ODD => false,
                _ => random.random(),
            };
        let port = ((self.first_pair + index as u32 * self.stride) * 2) as u16 + u16::from(is_odd);
        self.occupy(port);
        if kind == PortKind::EvenAndReserveNext {
            self.occupy(port + 1);
        }
        Some(port)
    }

    /// Gives back a port that was in use. It rests until it is given again.
    pub fn rest(&mut self, now: Instant, port: u16) {
        self.resting.push_back((now + PORT_REST, port));
    }

    /// Gives back a port that was kept and never used.
    pub fn give_back(&mut self, port: u16) {
        let Some((index, half)) = self.place(port) else { return };
        if self.pairs[index] & half != 0 {
            self.pairs[index] &= !half;
            self.free += 1;
        }
    }

    /// Ports that may be taken now.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Makes ports free that have rested long enough.
    fn wake(&mut self, now: Instant) {
        while let Some((at, port)) = self.resting.front().copied()
            && at <= now
        {
            self.resting.pop_front();
            self.give_back(port);
        }
    }

    fn occupy(&mut self, port: u16) {
        let Some((index, half)) = self.place(port) else { return };
        if self.pairs[index] & half == 0 {
            self.pairs[index] |= half;
            self.free -= 1;
        }
    }

    /// A port's pair and which half of it the port is. `None`: the port is another shard's.
    fn place(&self, port: u16) -> Option<(usize, u8)> {
        let above = (u32::from(port) / 2).checked_sub(self.first_pair)?;
        let index = (above / self.stride) as usize;
        let is_own = above.is_multiple_of(self.stride) && index < self.pairs.len();
        is_own.then_some((index, if port.is_multiple_of(2) { EVEN } else { ODD }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::BTreeSet;

    fn drained(ports: &mut Ports, now: Instant, kind: PortKind) -> BTreeSet<u16> {
        let mut random = StdRng::seed_from_u64(1);
        let mut taken = BTreeSet::new();
        while let Some(port) = ports.take(now, kind, &mut random) {
            assert!(taken.insert(port), "{port} was given twice");
        }
        taken
    }

    proptest! {
        #[test]
        fn the_shards_own_every_port_of_the_range_once(min in 1_024u16..60_000, len in 1u16..400, shards in 1usize..9) {
            let range = PortRange::new(min, min + len).expect("a range");
            let now = Instant::now();
            let mut all = BTreeSet::new();
            for shard in 0..shards {
                for port in drained(&mut Ports::new(range, shard, shards), now, PortKind::Any) {
                    prop_assert_eq!(usize::from(port) / 2 % shards, shard);
                    prop_assert!(all.insert(port));
                }
            }
            prop_assert_eq!(all, (min..=min + len).collect());
        }
    }

    #[test]
    fn even_ports_are_even_and_a_reserved_pair_is_whole() {
        let now = Instant::now();
        let range = PortRange::new(50_001, 50_010).expect("a range");
        let even = drained(&mut Ports::new(range, 0, 1), now, PortKind::Even);
        assert_eq!(even, BTreeSet::from([50_002, 50_004, 50_006, 50_008, 50_010]));
        let mut ports = Ports::new(range, 0, 1);
        let pairs = drained(&mut ports, now, PortKind::EvenAndReserveNext);
        assert_eq!(pairs, BTreeSet::from([50_002, 50_004, 50_006, 50_008]));
        assert_eq!(drained(&mut ports, now, PortKind::Any), BTreeSet::from([50_001, 50_010]));
        ports.give_back(50_003);
        assert_eq!(ports.free(), 1, "a port that was only kept is free at once");
    }

    #[test]
    fn a_port_rests_before_it_is_given_again() {
        let start = Instant::now();
        let mut ports = Ports::new(PortRange::new(50_000, 50_001).expect("a range"), 0, 1);
        assert_eq!(drained(&mut ports, start, PortKind::Any).len(), 2);
        ports.rest(start, 50_000);
        let almost = start + PORT_REST - Duration::from_millis(1);
        assert!(drained(&mut ports, almost, PortKind::Any).is_empty());
        assert_eq!(drained(&mut ports, start + PORT_REST, PortKind::Any), BTreeSet::from([50_000]));
    }

    #[test]
    fn ports_come_in_no_order_that_can_be_guessed() {
        let mut random = StdRng::seed_from_u64(7);
        let mut ports = Ports::new(PortRange::default(), 0, 1);
        let now = Instant::now();
        let given: Vec<u16> = (0..64).filter_map(|_| ports.take(now, PortKind::Any, &mut random)).collect();
        let neighbours = given.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 64).count();
        assert!(neighbours < 8, "{given:?}");
        let spread = given.iter().max().expect("64 ports") - given.iter().min().expect("64 ports");
        assert!(spread > 8_192, "{given:?}");
    }

    #[test]
    fn ranges_are_parsed_or_refused() {
        assert_eq!("49152-65535".parse::<PortRange>().expect("a range"), PortRange::default());
        for text in ["", "5000", "80-90", "6000-5000", "5000-70000", "5000-5000"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
