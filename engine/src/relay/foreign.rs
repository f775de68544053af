//! Clients whose allocation lives on another shard.
//!
//! The kernel spreads clients over the shards by their addresses. An allocation whose client moves (RFC 8016) stays
//! where it is, and so does a reserved port; what such a client sends may reach any shard, which then passes it on.
//! The shard of the allocation answers by itself: each shard has a socket on the same address.
//!
//! A shard learns of such a client from the shard that holds the allocation, after that has checked the client's
//! credentials. So strangers leave nothing here. What is passed on in vain is forgotten again in the same way.

use hashbrown::HashMap;
use relay::turn::FiveTuple;
use std::time::{Duration, Instant};

/// Clients that a shard knows to belong to others: at 100 bytes each 1.6 MB. One that is not known any more has to
/// show its ticket once more.
pub const FOREIGN_MAX: usize = 16 << 10;

/// A client that sent nothing for so long has no allocation any more: the longest lifetime that a policy allows is
/// a day, yet clients refresh permissions every five minutes.
const FOREIGN_IDLE: Duration = Duration::from_secs(3_600);

/// The clients of other shards that send to this one.
#[derive(Debug, Default)]
pub struct Foreign {
    clients: HashMap<FiveTuple, Entry, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    shard: usize,
    last_used: Instant,
}

impl Foreign {
    /// The shard that has the client's allocation. Costs nothing as long as there is no such client.
    #[inline]
    pub fn shard_of(&mut self, now: Instant, client: &FiveTuple) -> Option<usize> {
        if self.clients.is_empty() {
            return None;
        }
        let entry = self.clients.get_mut(client)?;
        entry.last_used = now;
        Some(entry.shard)
    }

    /// Whether the client's allocation is known to live on another shard.
    #[must_use]
    pub fn contains(&self, client: &FiveTuple) -> bool {
        self.clients.contains_key(client)
    }

    /// Notes where a client's allocation lives. `false`: there are too many such clients, all of them in use.
    pub fn learn(&mut self, now: Instant, client: FiveTuple, shard: usize) -> bool {
        if self.clients.len() >= FOREIGN_MAX && !self.clients.contains_key(&client) {
            self.clients.retain(|_, entry| entry.last_used + FOREIGN_IDLE > now);
            if self.clients.len() >= FOREIGN_MAX {
                return false;
            }
        }
        self.clients.insert(client, Entry { shard, last_used: now });
        true
    }

    /// Forgets a client whose allocation is gone.
    pub fn forget(&mut self, client: &FiveTuple) {
        self.clients.remove(client);
    }

    /// Clients known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay::turn::Transport;
    use std::net::{Ipv4Addr, SocketAddr};

    fn client(i: usize) -> FiveTuple {
        let address = |i: u32| SocketAddr::from((Ipv4Addr::from(i), 1_024));
        FiveTuple { transport: Transport::Udp, client: address(i as u32), server: address(0) }
    }

    #[test]
    fn the_table_is_bounded_and_gives_up_the_silent_ones_only() {
        let (mut foreign, start) = (Foreign::default(), Instant::now());
        assert_eq!(foreign.shard_of(start, &client(0)), None);
        for i in 0..FOREIGN_MAX {
            assert!(foreign.learn(start, client(i), i % 4));
        }
        assert!(!foreign.learn(start, client(FOREIGN_MAX), 0), "all are in use");
        assert!(foreign.learn(start, client(3), 1), "one that is known moves");
        let later = start + FOREIGN_IDLE;
        assert_eq!(foreign.shard_of(later, &client(3)), Some(1));
        assert!(foreign.learn(later, client(FOREIGN_MAX), 2));
        assert_eq!((foreign.len(), foreign.shard_of(later, &client(3))), (2, Some(1)));
        foreign.forget(&client(3));
        assert_eq!(foreign.shard_of(later, &client(3)), None);
    }
}
