//! Which storage slots answer a question about authorisations, and what their words say.

use alloy_primitives::{Address, B256, U256};

use crate::contracts::storage::{field, following, mapping_slot, variable};

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
}

/// The two slots of what a list is for.
pub fn offer_slots(publisher: Address, list: B256) -> [B256; 2] {
    let of_publisher = mapping_slot(publisher.into_word(), variable(OFFERS));
    let first = mapping_slot(list, of_publisher);
    [first, following(first, 1)]
}
