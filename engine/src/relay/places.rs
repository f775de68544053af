//! How many streams each client's address holds on this node: places, of which an address has so many.
//!
//! Shared by the shards: which one a stream comes to is the kernel's choice. The lock is taken once when a stream comes and once when its
//! place is given back, which is nothing beside a connection's own cost.

use foldhash::fast::RandomState;
use relay::turn::access::subscriber;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the [module](self). An address is an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Default)]
pub struct StreamPlaces {
    taken: Mutex<HashMap<IpAddr, u32, RandomState>>,
}

impl StreamPlaces {
    /// Takes a place, if the address has fewer than `max`; 0 is no bound.
    #[must_use]
    pub fn take(&self, ip: IpAddr, max: u32) -> bool {
        let mut places = self.taken();
        let taken = places.entry(subscriber(ip)).or_insert(0);
        let is_free = max == 0 || *taken < max;
        // An address without places is at no bound, so what was not there before is not left there with 0.
        *taken += u32::from(is_free);
        is_free
    }

    /// Gives a place back that was taken.
    pub fn give_back(&self, ip: IpAddr) {
        let mut places = self.taken();
        let ip = subscriber(ip);
        if let Some(taken) = places.get_mut(&ip) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                places.remove(&ip);
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, u32, RandomState>> {
        // Nothing between lock and unlock panics.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places() {
        let places = StreamPlaces::default();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(places.take(ip("192.0.2.1"), 2) && places.take(ip("::ffff:192.0.2.1"), 2));
        assert!(!places.take(ip("192.0.2.1"), 2) && places.take(ip("192.0.2.2"), 2));
        assert!(places.take(ip("2001:db8::1"), 1) && !places.take(ip("2001:db8::2"), 1));
        assert!(places.take(ip("192.0.2.1"), 0), "no bound, and counted");
        places.give_back(ip("192.0.2.1"));
        assert!(!places.take(ip("192.0.2.1"), 2));
        places.give_back(ip("192.0.2.1"));
        assert!(places.take(ip("192.0.2.1"), 2));
        for text in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::2"] {
            places.give_back(ip(text));
        }
        assert!(places.taken().is_empty());
    }
}
