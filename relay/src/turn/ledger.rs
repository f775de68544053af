//! What allocations and bytes a user, a client's address and the node may have, counted over all shards.
//!
//! One [`Ledger`] serves a node, one [`Meter`] a shard. Allocations are counted in the ledger under its lock, so their quotas
//! are exact; that happens once when an allocation begins and once when it ends.
//!
//! Bytes are counted on the shards, out of leases: a shard that has used up its lease of an account (a user, an address, the
//! node) takes the next chunk from the account's token bucket in the ledger. So the lock is taken once a chunk, not once a packet, and
//! never where no rate is set. **The error bound**: a shard holds less than one chunk of an account unused. In any time
//! `t` an account of rate `r` relays at most `r * t + depth + shards * chunk` bytes, and is refused bytes only while all that
//! the ledger could still give it lies, less than a chunk each, on other shards. The depth of a bucket is a quarter of a second of its rate, at least
//! 256 KiB (four full GSO batches); a chunk is a 64th of the depth, at least 16 KiB and at most 1 MiB.
//!
//! **Fair between sessions**: as long as a bucket is more than half full, whoever comes takes. Below that each session
//! gets in every 50 ms at most its share, the rate divided by the sessions that asked lately, and what it took beyond (one batch)
//! counts against its next shares. A session that sends more than its share so cannot take that of the others; what others leave fills the bucket
//! again, and goes to whoever asks.

use super::books::{Ask, Books, NODE, WINDOW};
use crate::policy::RelayLimits;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Which quota an allocation would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum QuotaExceeded {
    /// `allocations_max`: the node has no more room (508).
    #[error("the node has all the allocations that it may have")]
    Node,
    /// `allocations_per_user_max` (486).
    #[error("the user has all the allocations that it may have")]
    User,
    /// `allocations_per_min_per_user` (486).
    #[error("the user has begun all the allocations that it may begin in a minute")]
    UserRate,
    /// `allocations_per_ip_max` (486).
    #[error("the client's address has all the allocations that it may have")]
    Ip,
}

impl QuotaExceeded {
    /// Every quota, in the order of their numbers.
    pub const ALL: [QuotaExceeded; 4] =
        [QuotaExceeded::Node, QuotaExceeded::User, QuotaExceeded::UserRate, QuotaExceeded::Ip];
}

/// Which rate has no byte left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RateExceeded {
    /// `bytes_per_s_per_user`.
    #[error("the user's bytes a second are used up")]
    User,
    /// `bytes_per_s_per_ip`.
    #[error("the bytes a second of the client's address are used up")]
    Ip,
    /// `bytes_per_s`.
    #[error("the node's bytes a second are used up")]
    Node,
}

/// The accounts of a node, shared by its shards.
#[derive(Debug)]
pub struct Ledger {
    epoch: Instant,
    shard_count: usize,
    books: Mutex<Books>,
}

/// A shard's end of the ledger.
#[derive(Debug)]
pub struct Meter {
    ledger: Arc<Ledger>,
    shard: usize,
    rates: Rates,
    node: Lease,
    /// Leases of users' and addresses' accounts with a session on this shard.
    leases: Vec<Lease>,
    free: Vec<u32>,
    by_account: hashbrown::HashMap<u32, u32, foldhash::fast::FixedState>,
}

/// What an allocation is charged to. Made by [`Meter::open`]; whoever holds it gives it back with [`Meter::close`].
#[derive(Debug)]
#[must_use = "the quota stays taken until the charge is closed"]
pub struct Charge {
    user: u32,
    ip: u32,
    fair: [Fair; 3],
}

/// How far ahead of its share a session is with one account.
#[derive(Clone, Copy, Debug, Default)]
struct Fair {
    window: u32,
    ahead: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    user: u64,
    ip: u64,
    node: u64,
}

/// A shard's part of an account's bytes.
#[derive(Debug)]
struct Lease {
    account: u32,
    /// Sessions of this shard that are charged to the account.
    charges: u32,
    /// Bytes taken from the ledger and not used.
    left: u64,
    /// Before this there is nothing to be had in the ledger.
    dry_until: Option<Instant>,
    /// Whether the bucket was less than half full at the last look.
    is_contended: bool,
    /// Bytes of one session in one window while it is.
    share: u64,
    window: u32,
    /// Sessions that asked in this window, and in the one before.
    asking: u32,
    asked: u32,
}

impl Meter {
    /// The meter of shard `shard`, below the count that the ledger was made with.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, shard: usize, hash_seed: u64) -> Meter {
        let by_account = hashbrown::HashMap::with_hasher(foldhash::fast::FixedState::with_seed(hash_seed));
        let node = Lease::new(NODE);
        let rates = Rates::default();
        Meter { ledger, shard, rates, node, leases: Vec::new(), free: Vec::new(), by_account }
    }

    /// Takes over new bounds, for this shard and the ledger. Sessions live on; an allocation that is above a lowered quota stays, and no
    /// new one is given until the count is below it.
    pub fn set_limits(&mut self, limits: &RelayLimits) {
        let rates = Rates {
            user: limits.bytes_per_s_per_user,
            ip: limits.bytes_per_s_per_ip,
            node: limits.bytes_per_s,
        };
        self.ledger.books().set_limits(limits);
        if rates != self.rates {
            self.rates = rates;
            // What was leased at the old rate is given up: less than a chunk.
            for lease in self.leases.iter_mut().chain([&mut self.node]) {
                (lease.left, lease.dry_until, lease.is_contended) = (0, None, false);
            }
        }
    }

    /// Counts a new allocation of `user` from `ip`, and that the user has begun one. `user` is the name that quotas go by: of `expiry:name` (TURN REST) only
    /// the name, or a user would have a quota a credential.
    ///
    /// # Errors
    /// The quota that is used up; nothing was counted.
    pub fn open(&mut self, now: Instant, user: &str, ip: IpAddr) -> Result<Charge, QuotaExceeded> {
        let (user, ip) = self.ledger.books().open(now, user, ip)?;
        Ok(Charge { user: self.lease(user), ip: self.lease(ip), fair: Default::default() })
    }

    /// The allocation has ended.
    #[expect(clippy::needless_pass_by_value, reason = "so that a charge is closed once")]
    pub fn close(&mut self, now: Instant, charge: Charge) {
        let accounts = [self.unlease(charge.user), self.unlease(charge.ip)];
        self.ledger.books().close(now, accounts);
    }

    /// The allocation's client has another address (RFC 8016).
    ///
    /// # Errors
    /// The new address has all its allocations; the charge is as it was.
    pub fn change_ip(&mut self, now: Instant, charge: &mut Charge, ip: IpAddr) -> Result<(), QuotaExceeded> {
        let account = self.ledger.books().open_ip(ip)?;
        let old = self.unlease(charge.ip);
        charge.ip = self.lease(account);
        charge.fair[1] = Fair::default();
        self.ledger.books().close_account(now, old);
        Ok(())
    }

    /// Takes `bytes` (at most 64 KiB, one batch) from the user's, the address's and the node's budget, or from none of them.
    ///
    /// # Errors
    /// The first rate that has not enough left.
    #[inline]
    pub fn admit(&mut self, now: Instant, charge: &mut Charge, bytes: u64) -> Result<(), RateExceeded> {
        if self.rates == Rates::default() { Ok(()) } else { self.admit_limited(now, charge, bytes) }
    }

    fn admit_limited(&mut self, now: Instant, charge: &mut Charge, bytes: u64) -> Result<(), RateExceeded> {
        let Meter { ledger, shard, rates, node, leases, .. } = self;
        let window = ledger.window(now);
        let limited = [
            (rates.user, charge.user, RateExceeded::User),
            (rates.ip, charge.ip, RateExceeded::Ip),
            (rates.node, NODE, RateExceeded::Node),
        ];
        for (at, (rate, slot, error)) in limited.into_iter().enumerate() {
            if rate == 0 {
                continue;
            }
            let lease = if slot == NODE { &mut *node } else { &mut leases[slot as usize] };
            let fair = &mut charge.fair[at];
            if lease.take(ledger, *shard, now, window, rate, fair, bytes) {
                continue;
            }
            // What was taken from those before is theirs again.
            for (before, (rate, slot, _)) in limited[..at].iter().enumerate() {
                let lease = &mut leases[*slot as usize];
                if *rate > 0 {
                    lease.left += bytes;
                    let fair = &mut charge.fair[before];
                    fair.ahead = fair.ahead.saturating_sub(bytes as u32);
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// The shard's lease of an account, with one more session.
    fn lease(&mut self, account: u32) -> u32 {
        let Meter { leases, free, by_account, .. } = self;
        let slot = *by_account.entry(account).or_insert_with(|| {
            let lease = Lease::new(account);
            match free.pop() {
                Some(slot) => {
                    leases[slot as usize] = lease;
                    slot
                }
                None => {
                    leases.push(lease);
                    leases.len() as u32 - 1
                }
            }
        });
        leases[slot as usize].charges += 1;
        slot
    }

    /// Takes a session off a lease, and gives back what is left of it with the last one.
    fn unlease(&mut self, slot: u32) -> u32 {
        let lease = &mut self.leases[slot as usize];
        let account = lease.account;
        lease.charges -= 1;
        if lease.charges == 0 {
            let left = std::mem::take(&mut lease.left);
            if left > 0 {
                self.ledger.books().put_back(account, left);
            }
            self.by_account.remove(&account);
            self.free.push(slot);
        }
        account
    }
}

impl Lease {
    fn new(account: u32) -> Lease {
        Lease {
            account,
            charges: 0,
            left: 0,
            dry_until: None,
            is_contended: false,
            share: u64::MAX,
            window: 0,
            asking: 0,
            asked: 0,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a meter, borrowed apart")]
    fn take(
        &mut self,
        ledger: &Ledger,
        shard: usize,
        now: Instant,
        window: u32,
        rate: u64,
        fair: &mut Fair,
        bytes: u64,
    ) -> bool {
        if self.window != window {
            self.asked = if self.window + 1 == window { self.asking } else { 0 };
            (self.window, self.asking) = (window, 0);
        }
        if fair.window != window {
            let passed = u64::from(window.wrapping_sub(fair.window));
            fair.ahead = u64::from(fair.ahead).saturating_sub(self.share.saturating_mul(passed)) as u32;
            fair.window = window;
            self.asking += 1;
        }
        if self.is_contended && u64::from(fair.ahead) >= self.share {
            return false;
        }
        if self.left < bytes && !self.draw(ledger, shard, now, window, rate, bytes) {
            return false;
        }
        self.left -= bytes;
        if self.is_contended {
            fair.ahead = fair.ahead.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        true
    }

    /// Takes a chunk from the ledger; says whether there are `bytes` now.
    fn draw(
        &mut self,
        ledger: &Ledger,
        shard: usize,
        now: Instant,
        window: u32,
        rate: u64,
        bytes: u64,
    ) -> bool {
        if self.dry_until.is_some_and(|until| now < until) {
            return false;
        }
        let asked = self.asked.max(self.asking);
        let ask = Ask { shard, window, asked, missing: bytes - self.left };
        let grant = ledger.books().draw(now, ledger.shard_count, self.account, rate, &ask);
        self.left += grant.bytes;
        self.is_contended = grant.is_contended;
        self.share = grant.share;
        self.dry_until = (self.left < bytes).then(|| now + grant.dry_for);
        self.left >= bytes
    }
}

impl Ledger {
    /// An empty ledger for `shard_count` shards (at least one). `hash_seed`: random.
    #[must_use]
    pub fn new(now: Instant, shard_count: usize, hash_seed: u64) -> Arc<Ledger> {
        let books = Mutex::new(Books::new(hash_seed));
        Arc::new(Ledger { epoch: now, shard_count: shard_count.max(1), books })
    }

    /// Allocations of the node.
    #[must_use]
    pub fn allocations(&self) -> u32 {
        self.books().allocations()
    }

    /// Users and addresses that have an allocation, or had one and are still over their rate.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.books().accounts()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing between lock and unlock panics; if it did, counts could be off by one, which serves better than none.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.epoch).as_millis() / WINDOW.as_millis()) as u32
    }
}
