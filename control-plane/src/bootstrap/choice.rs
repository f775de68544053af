//! At which bootstrap node a peer is: what a node costs, which of several that cost about the same it takes, when a better one is
//! worth a move, and how long it waits when its node has died. Pure: time and randomness are arguments.
//!
//! Peers do not speak with each other, and what they know of nodes' loads is minutes old. So none takes *the* best node, which
//! all others would take in the same second: each draws among those that are about as good.

use identity::Uid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Nodes that cost at most so much more than the cheapest are as good: what people write to each other does not feel it.
const AS_GOOD_MS: f64 = 30.0;

/// The same as a share of the cheapest one's cost: far from all nodes, greater differences do not matter.
const AS_GOOD_SHARE: f64 = 0.5;

/// Another node is better only if it costs less than half, and so much less: moving costs a handshake, and messages that are on
/// their way.
const BETTER_MS: f64 = 50.0;

/// So many looks in a row must find that before a peer moves.
const BETTER_LOOKS: u32 = 3;

/// Nodes that are kept in mind beside the one that a peer is at.
pub const SPARES: usize = 2;

/// A node that was lost is left alone for so long, if there are others.
pub const COOLDOWN: Duration = Duration::from_secs(30);

/// The longest wait before another node is asked when one has died. It spreads 10,000 peers of a dead node over four others to 1,250 a
/// second each, and is well below the 10 s in which all are to be connected again.
pub const JITTER_MAX: Duration = Duration::from_secs(2);

/// A node that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub uid: Uid,
    /// What it costs, as [`cost_ms`] says.
    pub cost_ms: f64,
    /// Connections in percent of those that it may have, 0 to 100; 0 if it does not say.
    pub load_percent: u8,
}

/// What a node costs: its round trip in milliseconds, with what loss (0 to 1) and load (percent) are worth in such. A lost answer
/// costs a time-out; a node that is nearly full will soon refuse.
pub fn cost_ms(round_trip_ms: f64, loss: f64, load_percent: u8) -> f64 {
    const LOSS_MS: f64 = 400.0;
    const LOAD_MS: f64 = 0.5;
    const NEARLY_FULL_MS: f64 = 1_000.0;
    let nearly_full = if load_percent >= 90 { NEARLY_FULL_MS } else { 0.0 };
    round_trip_ms + LOSS_MS * loss + LOAD_MS * f64::from(load_percent) + nearly_full
}

/// How long to wait before another node is asked, 0 to [`JITTER_MAX`]. `random` is uniform.
pub fn jitter(random: u32) -> Duration {
    JITTER_MAX.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// What a peer remembers of its choices.
#[derive(Debug, Default)]
pub struct Choice {
    current: Option<Uid>,
    /// Looks in a row that have found a better one.
    better_looks: u32,
    /// Nodes that were lost, and until when they are left alone.
    lost_until: BTreeMap<Uid, Instant>,
}

impl Choice {
    /// The node that was chosen last.
    pub fn current(&self) -> Option<Uid> {
        self.current
    }

    /// The chosen node has ended the session, or let none begin. Tells which that was.
    pub fn lose(&mut self, now: Instant) -> Option<Uid> {
        let lost = self.current.take()?;
        self.better_looks = 0;
        self.lost_until.insert(lost, now + COOLDOWN);
        Some(lost)
    }

    /// Draws one of those that are about as good as the best, the emptier ones more often. What was lost lately is taken only if there
    /// is nothing else. `random` is uniform.
    pub fn choose(&mut self, candidates: &[Candidate], now: Instant, random: u32) -> Option<Uid> {
        let fit = self.fit(candidates, now);
        let chosen = draw(&fit, random)?;
        self.current = Some(chosen);
        self.better_looks = 0;
        Some(chosen)
    }

    /// A look at what is known now: whether the current node should be left for a better one. It says so once, and forgets the
    /// current node then, so that the next [`Choice::choose`] draws among all.
    pub fn should_move(&mut self, candidates: &[Candidate], now: Instant) -> bool {
        let Some(current) = self.current else { return false };
        let fit = self.fit(candidates, now);
        let cost_of = |uid| candidates.iter().find(|candidate| candidate.uid == uid).map(|c| c.cost_ms);
        // Of a node that nothing is known about any more the session itself tells whether it is good.
        let (Some(here), Some(best)) = (cost_of(current), cheapest(&fit)) else { return false };
        let is_better = best.uid != current && best.cost_ms + BETTER_MS < here && best.cost_ms * 2.0 < here;
        self.better_looks = if is_better { self.better_looks + 1 } else { 0 };
        if self.better_looks < BETTER_LOOKS {
            return false;
        }
        self.better_looks = 0;
        self.current = None;
        true
    }

    /// Where to go next, cheapest first: at most [`SPARES`].
    pub fn spares(&self, candidates: &[Candidate], now: Instant) -> Vec<Uid> {
        let mut others: Vec<_> = self
            .fit(candidates, now)
            .into_iter()
            .filter(|candidate| Some(candidate.uid) != self.current)
            .collect();
        others.sort_by(|a, b| a.cost_ms.total_cmp(&b.cost_ms));
        others.iter().take(SPARES).map(|candidate| candidate.uid).collect()
    }

    /// Those that were not lost lately; all if that leaves none.
    fn fit(&self, candidates: &[Candidate], now: Instant) -> Vec<Candidate> {
        let is_fit =
            |candidate: &&Candidate| self.lost_until.get(&candidate.uid).is_none_or(|until| *until <= now);
        let fit: Vec<_> = candidates.iter().filter(is_fit).copied().collect();
        if fit.is_empty() { candidates.to_vec() } else { fit }
    }
}

fn cheapest(candidates: &[Candidate]) -> Option<Candidate> {
    candidates.iter().copied().min_by(|a, b| a.cost_ms.total_cmp(&b.cost_ms))
}

fn draw(candidates: &[Candidate], random: u32) -> Option<Uid> {
    let best_ms = cheapest(candidates)?.cost_ms;
    let as_good_ms = best_ms + AS_GOOD_MS.max(best_ms * AS_GOOD_SHARE);
    let as_good: Vec<_> = candidates.iter().filter(|candidate| candidate.cost_ms <= as_good_ms).collect();
    let weight = |candidate: &Candidate| u64::from(100_u8.saturating_sub(candidate.load_percent)).max(1);
    let total: u64 = as_good.iter().map(|candidate| weight(candidate)).sum();
    // Uniform from 0 to total - 1.
    let mut at = (u64::from(random) * total) >> 32;
    for candidate in &as_good {
        match at.checked_sub(weight(candidate)) {
            Some(rest) => at = rest,
            None => return Some(candidate.uid),
        }
    }
    as_good.last().map(|candidate| candidate.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NODES: usize = 5;
    const PEERS: usize = 1_000;

    /// A generator with a seed (Steele, Lea and Flood 2014), so that a run can be had again.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed >> 32) as u32
        }
    }

    fn uid(n: usize) -> Uid {
        Uid::from_bytes([n as u8; 32])
    }

    fn index(uid: Uid) -> usize {
        usize::from(uid.as_bytes()[0])
    }

    /// Peers around five nodes, with what each has measured.
    struct Network {
        random: Random,
        round_trips_ms: Vec<[f64; NODES]>,
        choices: Vec<Choice>,
        now: Instant,
    }

    impl Network {
        fn new(seed: u64, round_trip_ms_max: f64) -> Network {
            let mut random = Random(seed);
            let mut round_trip =
                || 1.0 + f64::from(random.next()) / f64::from(u32::MAX) * (round_trip_ms_max - 1.0);
            let round_trips_ms = (0..PEERS).map(|_| std::array::from_fn(|_| round_trip())).collect();
            let choices = (0..PEERS).map(|_| Choice::default()).collect();
            Network { random, round_trips_ms, choices, now: Instant::now() }
        }

        /// What a peer knows, when nodes report these loads and those that are dead have been found so.
        fn candidates(&self, peer: usize, loads: [u8; NODES], dead: Option<usize>) -> Vec<Candidate> {
            let candidate = |n: usize| Candidate {
                uid: uid(n),
                cost_ms: cost_ms(self.round_trips_ms[peer][n], 0.0, loads[n]),
                load_percent: loads[n],
            };
            (0..NODES).filter(|n| Some(*n) != dead).map(candidate).collect()
        }

        fn join(&mut self, loads: [u8; NODES]) {
            for peer in 0..PEERS {
                let candidates = self.candidates(peer, loads, None);
                let random = self.random.next();
                self.choices[peer].choose(&candidates, self.now, random).unwrap();
            }
        }

        fn peers_at(&self) -> [usize; NODES] {
            let mut peers = [0; NODES];
            self.choices.iter().filter_map(Choice::current).for_each(|uid| peers[index(uid)] += 1);
            peers
        }
    }

    #[test]
    fn a_thousand_peers_share_five_nodes_and_four_when_one_dies() {
        for seed in 0..20 {
            let mut network = Network::new(seed, 25.0);
            // They join at once: nobody has heard of anybody's load.
            network.join([0; NODES]);
            let joined = network.peers_at();
            assert!(joined.iter().all(|peers| *peers <= 2 * PEERS / NODES), "{joined:?}");
            // One dies; what was reported is from before everybody came. Half of its peers have not even found it dead by a probe.
            let dead = (seed as usize) % NODES;
            let mut moved = 0;
            for peer in 0..PEERS {
                if network.choices[peer].current() != Some(uid(dead)) {
                    continue;
                }
                moved += 1;
                let known_dead = (peer % 2 == 0).then_some(dead);
                let candidates = network.candidates(peer, [0; NODES], known_dead);
                let (now, random) = (network.now, network.random.next());
                assert_eq!(network.choices[peer].lose(now), Some(uid(dead)));
                let chosen = network.choices[peer].choose(&candidates, now, random);
                assert!(chosen.is_some_and(|chosen| chosen != uid(dead)));
            }
            assert_eq!(moved, joined[dead]);
            let after = network.peers_at();
            assert_eq!((after[dead], after.iter().sum::<usize>()), (0, PEERS));
            assert!(after.iter().all(|peers| *peers <= 2 * PEERS / (NODES - 1)), "{after:?}");
            // The dead one comes back, empty: nobody moves for that, nor to and fro between the others.
            let loads = after.map(|peers| u8::try_from(peers * 100 / 1_000).unwrap());
            for look in 0..10 {
                for peer in 0..PEERS {
                    let candidates = network.candidates(peer, loads, None);
                    let now = network.now + COOLDOWN * look;
                    assert!(!network.choices[peer].should_move(&candidates, now));
                }
            }
        }
    }

    #[test]
    fn an_overloaded_node_is_left_and_the_move_ends() {
        let mut network = Network::new(7, 25.0);
        // Everybody is at the first one, which is nearly full; the others are empty.
        for peer in 0..PEERS {
            let only: Vec<_> = network.candidates(peer, [0; NODES], None).into_iter().take(1).collect();
            network.choices[peer].choose(&only, network.now, 0).unwrap();
        }
        let load = |peers: usize| u8::try_from((peers * 100 / PEERS).min(100)).unwrap();
        let mut moves = 0;
        for _ in 0..20 {
            for peer in 0..PEERS {
                // Looks are not at the same time: each hears of the loads as they are then.
                let loads = network.peers_at().map(load);
                let candidates = network.candidates(peer, loads, None);
                let (now, random) = (network.now, network.random.next());
                if network.choices[peer].should_move(&candidates, now) {
                    network.choices[peer].choose(&candidates, now, random).unwrap();
                    moves += 1;
                }
            }
        }
        let peers = network.peers_at();
        assert!(peers[0] < 900 && moves < PEERS, "{peers:?} after {moves} moves");
        let before = peers;
        for peer in 0..PEERS {
            let candidates = network.candidates(peer, before.map(load), None);
            assert!(!network.choices[peer].should_move(&candidates, network.now));
        }
    }

    #[test]
    fn peers_of_a_dead_node_do_not_come_in_the_same_moment() {
        let mut random = Random(3);
        let mut bins = [0_usize; 20];
        for _ in 0..PEERS {
            let wait = jitter(random.next());
            assert!(wait <= JITTER_MAX);
            bins[(wait.as_millis() as usize * bins.len() / 2_001).min(bins.len() - 1)] += 1;
        }
        assert!(bins.iter().all(|peers| *peers <= 2 * PEERS / bins.len()), "{bins:?}");
    }

    #[test]
    fn what_was_lost_is_taken_again_when_there_is_nothing_else_or_time_has_passed() {
        let candidates = [1, 2].map(|n| Candidate { uid: uid(n), cost_ms: 10.0, load_percent: 0 });
        let now = Instant::now();
        let mut choice = Choice::default();
        assert_eq!(choice.choose(&[], now, 0), None);
        assert_eq!(choice.choose(&candidates, now, 0), Some(uid(1)));
        assert_eq!(choice.spares(&candidates, now), [uid(2)]);
        assert_eq!(choice.lose(now), Some(uid(1)));
        assert_eq!(choice.lose(now), None, "once");
        for random in [0, 1 << 31, u32::MAX] {
            assert_eq!(choice.choose(&candidates, now, random), Some(uid(2)));
        }
        choice.lose(now);
        assert!(choice.choose(&candidates, now, 0).is_some(), "both were lost");
        choice.lose(now);
        assert_eq!(choice.choose(&candidates[..1], now, 0), Some(uid(1)));
        choice.lose(now);
        assert_eq!(choice.choose(&candidates, now + COOLDOWN, 0), Some(uid(1)));
    }

    proptest! {
        /// Whatever the figures: one is chosen if there is one, it is never much worse than the best, and the others are spares.
        #[test]
        fn the_choice_is_good(
            costs in proptest::collection::vec((0.0_f64..2_000.0, 0_u8..=100), 1..12),
            random: u32,
        ) {
            let candidates: Vec<_> = costs
                .iter()
                .enumerate()
                .map(|(n, (cost_ms, load_percent))| Candidate { uid: uid(n), cost_ms: *cost_ms, load_percent: *load_percent })
                .collect();
            let now = Instant::now();
            let mut choice = Choice::default();
            let chosen = choice.choose(&candidates, now, random).unwrap();
            let best = candidates.iter().map(|c| c.cost_ms).fold(f64::INFINITY, f64::min);
            let cost = candidates[index(chosen)].cost_ms;
            prop_assert!(cost <= best + AS_GOOD_MS.max(best * AS_GOOD_SHARE), "{} of {}", cost, best);
            let spares = choice.spares(&candidates, now);
            prop_assert!(!spares.contains(&chosen) && spares.len() == SPARES.min(candidates.len() - 1));
            // What is as good is not left.
            for _ in 0..10 {
                prop_assert!(!choice.should_move(&candidates, now));
            }
        }
    }
}
