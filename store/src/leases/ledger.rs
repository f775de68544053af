//! What owners have, and what is reserved for uploads under way. In memory: what is durable is beside the leases.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Owner;

/// What an owner has leases on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many.
    pub leases: u64,
    /// Bytes of their segments.
    pub bytes: u64,
}

/// Framing of one segment, at most: its commit's page and half a page of padding on either side.
const FRAMING_LEN_MAX: u64 = 12 << 10;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    owners: HashMap<Owner, Usage>,
    /// Bytes by owner that uploads may still bring.
    reserved: HashMap<Owner, u64>,
    /// Of all of them, with framing, as far as they need new room.
    reserved_space: u64,
}

/// Room for one upload, taken before its first byte. Given back when dropped: by then the segment counts as stored, or it
/// was given up.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    owner: Owner,
    len: u64,
    space: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut accounts = self.ledger.accounts();
        accounts.reserved_space = accounts.reserved_space.saturating_sub(self.space);
        if let Some(reserved) = accounts.reserved.get_mut(&self.owner) {
            *reserved = reserved.saturating_sub(self.len);
            if *reserved == 0 {
                accounts.reserved.remove(&self.owner);
            }
        }
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The store is full, with what is reserved.
    Store,
    /// The owner has used up its quota.
    Quota,
}

/// What is to be reserved, and within what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) owner: Owner,
    pub(super) len: u64,
    /// Bytes that the store can still take; none if the segment is held already.
    pub(super) space: Option<u64>,
    /// Most bytes of the owner.
    pub(super) quota: u64,
}

impl Ledger {
    pub(super) fn reserve(self: &Arc<Self>, wanted: &Wanted) -> Result<Reservation, NoRoom> {
        let mut accounts = self.accounts();
        let has = accounts.owners.get(&wanted.owner).map_or(0, |usage| usage.bytes);
        let reserved = accounts.reserved.get(&wanted.owner).copied().unwrap_or(0);
        if has.saturating_add(reserved).saturating_add(wanted.len) > wanted.quota {
            return Err(NoRoom::Quota);
        }
        let space = wanted.space.map_or(0, |_| wanted.len + FRAMING_LEN_MAX);
        if wanted.space.is_some_and(|left| accounts.reserved_space.saturating_add(space) > left) {
            return Err(NoRoom::Store);
        }
        accounts.reserved_space += space;
        *accounts.reserved.entry(wanted.owner).or_default() += wanted.len;
        Ok(Reservation { ledger: Arc::clone(self), owner: wanted.owner, len: wanted.len, space })
    }

    pub(super) fn set(&self, owner: Owner, usage: Usage) {
        let mut accounts = self.accounts();
        if usage.leases == 0 {
            accounts.owners.remove(&owner);
        } else {
            accounts.owners.insert(owner, usage);
        }
    }

    pub(super) fn is_owner(&self, owner: &Owner) -> bool {
        self.accounts().owners.contains_key(owner)
    }

    pub(super) fn owners(&self) -> Vec<(Owner, Usage)> {
        let mut owners: Vec<_> =
            self.accounts().owners.iter().map(|(owner, usage)| (*owner, *usage)).collect();
        owners.sort_unstable_by_key(|(owner, _)| *owner);
        owners
    }

    pub(super) fn reserved_space(&self) -> u64 {
        self.accounts().reserved_space
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
