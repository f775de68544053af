//! Calls of the contract, as the data of a transaction.

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolInterface;

use super::Signature;
use crate::contracts::abi::{self, Authorisations as sol, CallError};

/// Most receivers in one call.
pub const RECEIVERS_MAX: usize = 256;

/// Who gets a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its Ed25519 public key.
    pub uid: B256,
    /// The account that speaks for it on this chain; zero if none does.
    pub account: Address,
}

/// What can be asked of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The publisher says what a list is for, once.
    Offer {
        /// The list's address.
        list: B256,
        /// The product's name in ASCII filled with zeros, or the hash of a longer one.
        product: B256,
        /// Version of the product that the list brings.
        version: u64,
    },
    /// The publisher grants a list to receivers that have no grant for it, or one that is over.
    Grant {
        /// The list's address.
        list: B256,
        /// 1 to [`RECEIVERS_MAX`] receivers.
        receivers: Vec<Receiver>,
        /// Unix time in seconds, exclusive.
        until_s: u64,
    },
    /// The publisher moves the end of grants to a later time.
    Extend {
        /// The list's address.
        list: B256,
        /// 1 to [`RECEIVERS_MAX`] receivers.
        uids: Vec<B256>,
        /// Unix time in seconds, exclusive.
        until_s: u64,
    },
    /// The publisher ends grants at once.
    Revoke {
        /// The list's address.
        list: B256,
        /// 1 to [`RECEIVERS_MAX`] receivers.
        uids: Vec<B256>,
    },
    /// The receiver's account puts on record that the receiver has the list.
    RecordDownload {
        /// Whose grant it was.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The receiver.
        uid: B256,
    },
    /// Anybody puts it on record with the signature of the receiver's account.
    RecordDownloadFor {
        /// Whose grant it was.
        publisher: Address,
        /// The list's address.
        list: B256,
        /// The receiver.
        uid: B256,
        /// Last Unix second at which the signature is good.
        deadline_s: u64,
        /// Of a [`DownloadStatement`](super::DownloadStatement).
        signature: Signature,
    },
}

impl Call {
    /// The data of a transaction to the contract.
    pub fn encode(&self) -> Vec<u8> {
        use sol::AuthorisationsCalls as Calls;
        let calls = match self {
            Call::Offer { list, product, version } => {
                Calls::offer(sol::offerCall { list: *list, product: *product, version: *version })
            }
            Call::Grant { list, receivers, until_s } => {
                let receivers =
                    receivers.iter().map(|&Receiver { uid, account }| sol::Receiver { uid, account });
                Calls::grant(sol::grantCall { list: *list, receivers: receivers.collect(), until: *until_s })
            }
            Call::Extend { list, uids, until_s } => {
                Calls::extend(sol::extendCall { list: *list, uids: uids.clone(), until: *until_s })
            }
            Call::Revoke { list, uids } => Calls::revoke(sol::revokeCall { list: *list, uids: uids.clone() }),
            Call::RecordDownload { publisher, list, uid } => Calls::recordDownload(sol::recordDownloadCall {
                publisher: *publisher,
                list: *list,
                uid: *uid,
            }),
            Call::RecordDownloadFor { publisher, list, uid, deadline_s, signature } => {
                Calls::recordDownloadFor(sol::recordDownloadForCall {
                    publisher: *publisher,
                    list: *list,
                    uid: *uid,
                    deadline: *deadline_s,
                    v: signature.v,
                    r: signature.r,
                    s: signature.s,
                })
            }
        };
        calls.abi_encode()
    }

    /// Reads the data of a transaction. Only the one encoding that [`Call::encode`] writes is taken.
    pub fn decode(data: &[u8]) -> Result<Call, CallError> {
        use sol::AuthorisationsCalls as Calls;
        let call = match abi::decode_call::<Calls>(data)? {
            Calls::offer(sol::offerCall { list, product, version }) => Call::Offer { list, product, version },
            Calls::grant(sol::grantCall { list, receivers, until }) => {
                abi::check_items(receivers.len(), RECEIVERS_MAX)?;
                let receiver = |sol::Receiver { uid, account }| Receiver { uid, account };
                Call::Grant { list, receivers: receivers.into_iter().map(receiver).collect(), until_s: until }
            }
            Calls::extend(sol::extendCall { list, uids, until }) => {
                abi::check_items(uids.len(), RECEIVERS_MAX)?;
                Call::Extend { list, uids, until_s: until }
            }
            Calls::revoke(sol::revokeCall { list, uids }) => {
                abi::check_items(uids.len(), RECEIVERS_MAX)?;
                Call::Revoke { list, uids }
            }
            Calls::recordDownload(sol::recordDownloadCall { publisher, list, uid }) => {
                Call::RecordDownload { publisher, list, uid }
            }
            Calls::recordDownloadFor(sol::recordDownloadForCall {
                publisher,
                list,
                uid,
                deadline,
                v,
                r,
                s,
            }) => Call::RecordDownloadFor {
                publisher,
                list,
                uid,
                deadline_s: deadline,
                signature: Signature { v, r, s },
            },
        };
        Ok(call)
    }
}
