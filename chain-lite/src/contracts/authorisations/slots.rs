//! Which storage slots answer a question about authorisations, and what their words say.

use alloy_primitives::{Address, B256, U256};

use crate::contracts::storage::{field, following, mapping_slot, variable};
use crate::dpos::{ProofError, verify_storage};

const OFFERS: u64 = 0;
const GRANTS: u64 = 1;

/// What a receiver may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Unix time in seconds until which, exclusively, the receiver may have the list. Zero: it never might,
    /// or the grant was revoked.
    pub until_s: u64,
    /// How many downloads are on record.
    pub downloads: u32,
    /// The account that speaks for the receiver; zero if none does.
    pub account: Address,
}

impl Grant {
    /// Reads the word at [`grant_slot`]. A word of zero, which a proof of absence gives, grants nothing.
    pub fn from_word(word: U256) -> Grant {
        Grant {
            until_s: field::<64>(word, 0).to(),
            downloads: field::<32>(word, 64).to(),
            account: Address::from_word((word >> 96_u32).into()),
        }
    }

    /// What a receiver may under the storage root of the contract's verified account. `proof` is of
    /// [`grant_slot`].
    pub fn verify<N: AsRef<[u8]>>(
        storage_root: &B256,
        publisher: Address,
        list: B256,
        uid: B256,
        proof: &[N],
    ) -> Result<Grant, ProofError> {
        verify_storage(storage_root, &grant_slot(publisher, list, uid), proof).map(Grant::from_word)
    }

    /// Whether the receiver may have the list at this Unix time in seconds.
    pub fn stands(&self, time_s: u64) -> bool {
        time_s < self.until_s
    }
}

/// The slot of what a receiver may.
pub fn grant_slot(publisher: Address, list: B256, uid: B256) -> B256 {
    let of_publisher = mapping_slot(publisher.into_word(), variable(GRANTS));
    mapping_slot(uid, mapping_slot(list, of_publisher))
}

/// What a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The product: its name in ASCII filled with zeros, or the hash of a longer one.
    pub product: B256,
    /// Version of the product that the list brings.
    pub version: u64,
    /// Unix time in seconds of the offer.
    pub offered_at_s: u64,
}

impl Offer {
    /// Reads the words at [`offer_slots`], in their order. `None`: the publisher does not offer the list.
    pub fn from_words(words: [U256; 2]) -> Option<Offer> {
        let [product, rest] = words;
        let offered_at_s = field::<64>(rest, 64).to();
        (offered_at_s != 0).then(|| Offer {
            product: product.into(),
            version: field::<64>(rest, 0).to(),
            offered_at_s,
        })
    }

    /// What a publisher's list is for under the storage root of the contract's verified account. `proofs` are
    /// of [`offer_slots`], in their order.
    pub fn verify<N: AsRef<[u8]>>(
        storage_root: &B256,
        publisher: Address,
        list: B256,
        proofs: [&[N]; 2],
    ) -> Result<Option<Offer>, ProofError> {
        let [product, rest] = offer_slots(publisher, list);
        let words = [
            verify_storage(storage_root, &product, proofs[0])?,
            verify_storage(storage_root, &rest, proofs[1])?,
        ];
        Ok(Offer::from_words(words))
    }
}

/// The two slots of what a list is for.
pub fn offer_slots(publisher: Address, list: B256) -> [B256; 2] {
    let of_publisher = mapping_slot(publisher.into_word(), variable(OFFERS));
    let first = mapping_slot(list, of_publisher);
    [first, following(first, 1)]
}
