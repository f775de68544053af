//! Events of the contract, as logs carry them.

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolEvent;

use crate::contracts::abi::{self, Authorisations as sol, EventError};

/// What the contract reports. Publisher and list stand in the second and third topic of every event, the
/// UID (in an offer the product) in the fourth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A publisher said what a list is for.
    Offered {
        /// The publisher's account.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The product.
        product: B256,
        /// Version of the product that the list brings.
        version: u64,
    },
    /// A receiver may have a list.
    Granted {
        /// The publisher's account.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The receiver.
        uid: B256,
        /// The account that speaks for it; zero if none does.
        account: Address,
        /// Unix time in seconds, exclusive.
        until_s: u64,
    },
    /// A grant lasts longer.
    Extended {
        /// The publisher's account.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The receiver.
        uid: B256,
        /// Unix time in seconds, exclusive.
        until_s: u64,
    },
    /// A grant is over.
    Revoked {
        /// The publisher's account.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The receiver.
        uid: B256,
    },
    /// A receiver has a list.
    Downloaded {
        /// Whose grant it was.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The receiver.
        uid: B256,
        /// Number of the download, from 1.
        ordinal: u32,
        /// The account that speaks for the receiver.
        account: Address,
        /// Who sent the transaction: that account, or somebody with its signature.
        sender: Address,
    },
}

impl Event {
    /// First topic of [`Event::Offered`].
    pub const OFFERED: B256 = sol::Offered::SIGNATURE_HASH;
    /// First topic of [`Event::Granted`].
    pub const GRANTED: B256 = sol::Granted::SIGNATURE_HASH;
    /// First topic of [`Event::Extended`].
    pub const EXTENDED: B256 = sol::Extended::SIGNATURE_HASH;
    /// First topic of [`Event::Revoked`].
    pub const REVOKED: B256 = sol::Revoked::SIGNATURE_HASH;
    /// First topic of [`Event::Downloaded`].
    pub const DOWNLOADED: B256 = sol::Downloaded::SIGNATURE_HASH;

    /// Reads a log that the contract wrote. Which contract wrote it is the caller's to check.
    pub fn decode(topics: &[B256], data: &[u8]) -> Result<Event, EventError> {
        use sol::AuthorisationsEvents as Events;
        let known = |topic: B256| Events::SELECTORS.contains(&topic.0);
        Ok(match abi::decode_log(known, topics, data)? {
            Events::Offered(sol::Offered { publisher, list, product, version }) => {
                Event::Offered { publisher, list, product, version }
            }
            Events::Granted(sol::Granted { publisher, list, uid, account, until }) => {
                Event::Granted { publisher, list, uid, account, until_s: until }
            }
            Events::Extended(sol::Extended { publisher, list, uid, until }) => {
                Event::Extended { publisher, list, uid, until_s: until }
            }
            Events::Revoked(sol::Revoked { publisher, list, uid }) => Event::Revoked { publisher, list, uid },
            Events::Downloaded(sol::Downloaded { publisher, list, uid, ordinal, account, sender }) => {
                Event::Downloaded { publisher, list, uid, ordinal, account, sender }
            }
        })
    }
}
