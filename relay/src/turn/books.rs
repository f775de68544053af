//! What the ledger's lock guards: the accounts, their quotas, and the buckets that shards take their leases from.

use super::access::subscriber;
use super::ledger::QuotaExceeded;
use super::rate::TokenBucket;
use crate::policy::RelayLimits;
use hashbrown::hash_table::{Entry, HashTable};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The time in which a session gets one share. Short enough for a call's sound, long enough that a share is a few packets.
pub(super) const WINDOW: Duration = Duration::from_millis(50);

/// The time that `allocations_per_min_per_user` is of, and how far ahead of it a user may be.
const MINUTE: Duration = Duration::from_secs(60);

/// The least depth of a byte bucket: four GSO batches of 64 KiB.
const DEPTH_MIN: u64 = 256 << 10;

/// The account of the whole node.
pub(super) const NODE: u32 = u32::MAX;

/// What the ledger's lock guards.
#[derive(Debug)]
pub(super) struct Books {
    limits: RelayLimits,
    hasher: foldhash::fast::FixedState,
    accounts: slab::Slab<Account>,
    /// Indices into `accounts`, found by their owner.
    by_owner: HashTable<u32>,
    /// Of the node.
    allocations: u32,
    node: Option<Box<Budget>>,
    /// Accounts without allocations of which a bucket is not full, and when it will be. They are kept until then, or whoever ends an
    /// allocation and makes a new one would find a full bucket each time.
    spent: BinaryHeap<Reverse<(Instant, u32)>>,
}

/// A user or a client's address.
#[derive(Debug)]
struct Account {
    owner: Owner<Box<str>>,
    allocations: u32,
    /// Until when the allocations that a user has begun last, at one each interval of the rate: a token bucket that
    /// holds a minute's worth, as one number. `None` before the first.
    begun_until: Option<Instant>,
    /// There as soon as a rate is set.
    budget: Option<Box<Budget>>,
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner<T> {
    User(T),
    /// An IPv4 address, or the /64 of an IPv6 address.
    Ip(IpAddr),
}

/// The bytes of an account.
#[derive(Debug)]
struct Budget {
    bucket: TokenBucket,
    /// A shard's last window in which sessions asked, and how many.
    asked: Box<[(u32, u32)]>,
}

/// What a shard asks for.
pub(super) struct Ask {
    pub(super) shard: usize,
    pub(super) window: u32,
    pub(super) asked: u32,
    pub(super) missing: u64,
}

/// What it gets.
pub(super) struct Grant {
    pub(super) bytes: u64,
    pub(super) share: u64,
    pub(super) is_contended: bool,
    pub(super) dry_for: Duration,
}

impl Books {
    /// No accounts. `hash_seed`: random.
    pub(super) fn new(hash_seed: u64) -> Books {
        Books {
            limits: RelayLimits::default(),
            hasher: foldhash::fast::FixedState::with_seed(hash_seed),
            accounts: slab::Slab::new(),
            by_owner: HashTable::new(),
            allocations: 0,
            spent: BinaryHeap::new(),
            node: None,
        }
    }

    /// Allocations of the node.
    pub(super) fn allocations(&self) -> u32 {
        self.allocations
    }

    /// Accounts that are held.
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn set_limits(&mut self, limits: &RelayLimits) {
        if self.limits != *limits {
            self.limits = limits.clone();
        }
    }

    pub(super) fn open(&mut self, now: Instant, user: &str, ip: IpAddr) -> Result<(u32, u32), QuotaExceeded> {
        if is_used_up(self.allocations, self.limits.allocations_max) {
            return Err(QuotaExceeded::Node);
        }
        let user = self.open_account(Owner::User(user), self.limits.allocations_per_user_max);
        let user = user.ok_or(QuotaExceeded::User)?;
        let ip = self.open_ip(ip).inspect_err(|_| self.take_back(user))?;
        if !self.begin(now, user) {
            self.take_back(user);
            self.take_back(ip);
            return Err(QuotaExceeded::UserRate);
        }
        self.allocations += 1;
        Ok((user, ip))
    }

    /// Counts that a user begins an allocation, if it may begin one more.
    fn begin(&mut self, now: Instant, user: u32) -> bool {
        let rate = self.limits.allocations_per_min_per_user;
        if rate == 0 {
            return true;
        }
        let account = &mut self.accounts[user as usize];
        let until = account.begun_until.map_or(now, |until| until.max(now)) + MINUTE / rate;
        // As many intervals as there are in a minute, whatever rounding them has left.
        let is_within = until.saturating_duration_since(now) <= MINUTE;
        if is_within {
            account.begun_until = Some(until);
        }
        is_within
    }

    pub(super) fn open_ip(&mut self, ip: IpAddr) -> Result<u32, QuotaExceeded> {
        let owner = Owner::Ip(subscriber(ip));
        self.open_account(owner, self.limits.allocations_per_ip_max).ok_or(QuotaExceeded::Ip)
    }

    /// The account with one allocation more, made if there is none; nothing if its quota is used up.
    fn open_account(&mut self, owner: Owner<&str>, max: u32) -> Option<u32> {
        let Books { hasher, accounts, by_owner, .. } = self;
        let hash = hasher.hash_one(owner);
        let found = by_owner.entry(
            hash,
            |index| accounts[*index as usize].owner.borrow() == owner,
            |index| hasher.hash_one(accounts[*index as usize].owner.borrow()),
        );
        match found {
            Entry::Occupied(entry) => {
                let account = &mut accounts[*entry.get() as usize];
                if is_used_up(account.allocations, max) {
                    return None;
                }
                account.allocations += 1;
                Some(*entry.get())
            }
            Entry::Vacant(entry) => {
                let account =
                    Account { owner: owner.to_owned(), allocations: 1, begun_until: None, budget: None };
                // Accounts are at most twice the allocations, so their indices stay far below that of the node.
                let index = accounts.insert(account) as u32;
                entry.insert(index);
                Some(index)
            }
        }
    }

    pub(super) fn close(&mut self, now: Instant, accounts: [u32; 2]) {
        self.allocations -= 1;
        for account in accounts {
            self.close_account(now, account);
        }
        while let Some(Reverse((at, index))) = self.spent.peek().copied()
            && at <= now
        {
            self.spent.pop();
            // Another account may have the index by now, or this one allocations: what is forgotten is what is idle and full.
            if self.accounts.get(index as usize).is_some_and(|account| account.allocations == 0) {
                self.forget(now, index);
            }
        }
    }

    pub(super) fn close_account(&mut self, now: Instant, index: u32) {
        let account = &mut self.accounts[index as usize];
        account.allocations -= 1;
        if account.allocations == 0 {
            self.forget(now, index);
        }
    }

    /// Takes back an allocation that was counted a moment ago.
    fn take_back(&mut self, index: u32) {
        let account = &mut self.accounts[index as usize];
        account.allocations -= 1;
        // One that has a budget, or has begun something, was there before, and is in `spent`.
        if account.allocations == 0 && account.budget.is_none() && account.begun_until.is_none() {
            self.remove(index);
        }
    }

    /// Removes an account without allocations, now or when its buckets are full.
    fn forget(&mut self, now: Instant, index: u32) {
        let rate = self.rate(index);
        let account = &mut self.accounts[index as usize];
        let mut full = account.begun_until.unwrap_or(now);
        if rate > 0
            && let Some(budget) = &mut account.budget
        {
            budget.bucket.refill(now, rate, depth(rate));
            full = full.max(now + budget.bucket.time_until(depth(rate), rate));
        }
        if full > now {
            self.spent.push(Reverse((full, index)));
        } else {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: u32) {
        let hash = self.hasher.hash_one(self.accounts[index as usize].owner.borrow());
        if let Ok(entry) = self.by_owner.find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        self.accounts.remove(index as usize);
    }

    /// The rate of a user's or address's account.
    fn rate(&self, index: u32) -> u64 {
        match self.accounts[index as usize].owner {
            Owner::User(_) => self.limits.bytes_per_s_per_user,
            Owner::Ip(_) => self.limits.bytes_per_s_per_ip,
        }
    }

    pub(super) fn draw(
        &mut self,
        now: Instant,
        shard_count: usize,
        account: u32,
        rate: u64,
        ask: &Ask,
    ) -> Grant {
        let (depth, chunk) = (depth(rate), chunk(rate));
        let budget = match account {
            NODE => &mut self.node,
            index => &mut self.accounts[index as usize].budget,
        };
        let budget = budget.get_or_insert_with(|| {
            let bucket = TokenBucket::new(now, depth);
            Box::new(Budget { bucket, asked: vec![(0, 0); shard_count].into_boxed_slice() })
        });
        let tokens = budget.bucket.refill(now, rate, depth);
        if let Some(asked) = budget.asked.get_mut(ask.shard) {
            *asked = (ask.window, ask.asked);
        }
        let is_recent = |window: u32| ask.window.abs_diff(window) <= 1;
        let sessions: u32 =
            budget.asked.iter().filter(|(window, _)| is_recent(*window)).map(|(_, asked)| *asked).sum();
        let in_window = u128::from(rate) * WINDOW.as_millis() / 1_000;
        let share = (in_window / u128::from(sessions.max(1))) as u64;
        let wanted = ask.missing.max(chunk);
        let bytes = if tokens >= ask.missing { wanted.min(tokens) } else { 0 };
        budget.bucket.take(bytes);
        Grant {
            bytes,
            share: share.max(1),
            is_contended: tokens < depth / 2,
            // A whole chunk is waited for, so that those who are refused do not come for every packet.
            dry_for: budget.bucket.time_until(wanted.min(depth), rate),
        }
    }

    pub(super) fn put_back(&mut self, account: u32, bytes: u64) {
        if let Some(budget) = &mut self.accounts[account as usize].budget {
            budget.bucket.put_back(bytes);
        }
    }
}

/// A quota of 0 is none.
fn is_used_up(count: u32, max: u32) -> bool {
    max > 0 && count >= max
}

/// The deepest that an account's bucket can be, bytes.
fn depth(rate: u64) -> u64 {
    (rate / 4).max(DEPTH_MIN)
}

/// What a shard takes at a time, bytes.
fn chunk(rate: u64) -> u64 {
    (depth(rate) / 64).clamp(16 << 10, 1 << 20)
}

impl Owner<&str> {
    fn to_owned(self) -> Owner<Box<str>> {
        match self {
            Owner::User(name) => Owner::User(name.into()),
            Owner::Ip(ip) => Owner::Ip(ip),
        }
    }
}

impl Owner<Box<str>> {
    fn borrow(&self) -> Owner<&str> {
        match self {
            Owner::User(name) => Owner::User(name),
            Owner::Ip(ip) => Owner::Ip(*ip),
        }
    }
}
