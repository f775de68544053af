//! Relayed ports that wait for whoever shows their token (EVEN-PORT with R, RFC 8656 section 7.2).

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// "The server MUST hold this reservation for at least 30 seconds" (RFC 8656 section 7.2). A client needs two exchanges for its second
/// Allocate; 60 s let it lose a packet in each, with the time-outs of RFC 8489 section 6.2.1 up to the fifth transmission (15.5 s).
const HOLD: Duration = Duration::from_secs(60);

/// Reservations of a shard at once, 48 bytes each. Each holds a port, of which a shard has at most 32,768.
const LEN_MAX: usize = 4_096;

/// The reservations of a shard.
#[derive(Debug)]
pub(super) struct Reservations {
    by_token: HashMap<[u8; 8], (Instant, SocketAddr), FixedState>,
    /// All are held equally long, so the oldest ends first. Some were taken already.
    by_age: VecDeque<(Instant, [u8; 8])>,
}

impl Reservations {
    pub(super) fn new(seed: u64) -> Reservations {
        Reservations { by_token: HashMap::with_hasher(FixedState::with_seed(seed)), by_age: VecDeque::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_age.len() >= LEN_MAX
    }

    /// Holds the local address for the token, unless that is held already.
    pub(super) fn hold(&mut self, now: Instant, token: [u8; 8], local: SocketAddr) -> bool {
        if self.is_full() || self.by_token.contains_key(&token) {
            return false;
        }
        let due = now + HOLD;
        self.by_token.insert(token, (due, local));
        self.by_age.push_back((due, token));
        true
    }

    /// The local address that is held for the token, which is good only once.
    pub(super) fn take(&mut self, now: Instant, token: &[u8; 8]) -> Option<SocketAddr> {
        let &(due, local) = self.by_token.get(token)?;
        if due <= now {
            return None;
        }
        self.by_token.remove(token);
        Some(local)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_age.front().map(|&(due, _)| due)
    }

    /// The next local address that nobody asked for in time.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<SocketAddr> {
        while self.by_age.front().is_some_and(|&(due, _)| due <= now) {
            let (due, token) = self.by_age.pop_front()?;
            if self.by_token.get(&token).is_some_and(|&(held_until, _)| held_until == due) {
                return self.by_token.remove(&token).map(|(_, local)| local);
            }
        }
        None
    }
}
