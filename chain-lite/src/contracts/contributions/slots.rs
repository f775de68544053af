//! Which storage slots answer a question about contributions, and what their words say.

use alloy_primitives::{Address, B256, U256};

use crate::contracts::storage::{field, following, mapping_slot, variable};
use crate::dpos::{ProofError, verify_storage};

const OWNER: u64 = 0;
const REPORTER: u64 = 2;
const DAYS: u64 = 4;
const ACCOUNTS: u64 = 5;
const CLAIMED_DAYS: u64 = 6;

/// What a UID has accumulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// GAS points.
    pub points: u128,
    /// Workload in bytes.
    pub workload_bytes: u128,
}

impl Account {
    /// Reads the word at [`account_slot`]. A word of zero, which a proof of absence gives, is an account
    /// that has nothing.
    pub fn from_word(word: U256) -> Account {
        Account { points: field::<128>(word, 0).to(), workload_bytes: field::<128>(word, 128).to() }
    }

    /// What a UID has accumulated under the storage root of the contract's verified account. `proof` is of
    /// [`account_slot`].
    pub fn verify<N: AsRef<[u8]>>(
        storage_root: &B256,
        uid: B256,
        proof: &[N],
    ) -> Result<Account, ProofError> {
        verify_storage(storage_root, &account_slot(uid), proof).map(Account::from_word)
    }
}

/// The slot of what a UID has accumulated.
pub fn account_slot(uid: B256) -> B256 {
    mapping_slot(uid, variable(ACCOUNTS))
}

/// What stands for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostedDay {
    /// Merkle root over the day's leaves.
    pub root: B256,
    /// Points of all leaves together.
    pub points: u128,
    /// Points that were claimed so far.
    pub claimed_points: u128,
    /// Workload of all leaves together, in bytes.
    pub workload_bytes: u128,
    /// Unix time in seconds from which the root never changes and claims are taken.
    pub final_at_s: u64,
    /// How many leaves there are.
    pub accounts: u32,
}

impl PostedDay {
    /// Reads the words at [`day_slots`], in their order. `None`: nothing stands for the day.
    pub fn from_words(words: [U256; 3]) -> Option<PostedDay> {
        let [root, points, rest] = words;
        (root != U256::ZERO).then(|| PostedDay {
            root: root.into(),
            points: field::<128>(points, 0).to(),
            claimed_points: field::<128>(points, 128).to(),
            workload_bytes: field::<128>(rest, 0).to(),
            final_at_s: field::<64>(rest, 128).to(),
            accounts: field::<32>(rest, 192).to(),
        })
    }

    /// What stands for a day under the storage root of the contract's verified account. `proofs` are of
    /// [`day_slots`], in their order.
    pub fn verify<N: AsRef<[u8]>>(
        storage_root: &B256,
        day: u32,
        proofs: [&[N]; 3],
    ) -> Result<Option<PostedDay>, ProofError> {
        let mut words = [U256::ZERO; 3];
        for ((word, slot), proof) in words.iter_mut().zip(day_slots(day)).zip(proofs) {
            *word = verify_storage(storage_root, &slot, proof)?;
        }
        Ok(PostedDay::from_words(words))
    }

    /// Whether the root can no longer change at this Unix time in seconds, a block's.
    pub fn is_final(&self, time_s: u64) -> bool {
        time_s >= self.final_at_s
    }
}

/// The three slots of what stands for a day.
pub fn day_slots(day: u32) -> [B256; 3] {
    let first = mapping_slot(U256::from(day).into(), variable(DAYS));
    [first, following(first, 1), following(first, 2)]
}

/// The slot that says, for a UID, which of the 256 days around `day` it has claimed.
pub fn claimed_slot(uid: B256, day: u32) -> B256 {
    let of_uid = mapping_slot(uid, variable(CLAIMED_DAYS));
    mapping_slot(U256::from(day >> 8).into(), of_uid)
}

/// Whether `day` is claimed, from the word at [`claimed_slot`].
pub fn is_claimed(word: U256, day: u32) -> bool {
    word.bit((day & 0xff) as usize)
}

/// Whether a UID has claimed a day, under the storage root of the contract's verified account. `proof` is of
/// [`claimed_slot`].
pub fn verify_claimed<N: AsRef<[u8]>>(
    storage_root: &B256,
    uid: B256,
    day: u32,
    proof: &[N],
) -> Result<bool, ProofError> {
    verify_storage(storage_root, &claimed_slot(uid, day), proof).map(|word| is_claimed(word, day))
}

/// The slot of the owner's address.
pub fn owner_slot() -> B256 {
    variable(OWNER)
}

/// The slot of the reporter's address.
pub fn reporter_slot() -> B256 {
    variable(REPORTER)
}

/// The address in a word, as at [`owner_slot`] and [`reporter_slot`]; zero if nobody's.
pub fn address_from_word(word: U256) -> Address {
    Address::from_word(word.into())
}
