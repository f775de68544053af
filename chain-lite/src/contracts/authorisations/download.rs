//! What the account of a receiver signs so that somebody else may record a download (EIP-712).

use alloy_primitives::{Address, B256};
use alloy_sol_types::{SolStruct, eip712_domain};

/// That a receiver has a list. [`DownloadStatement::digest`] is signed with secp256k1 by its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownloadStatement {
    /// Whose grant it was.
    pub publisher: Address,
    /// The list's address.
    pub list: B256,
    /// The receiver.
    pub uid: B256,
    /// Number of the download, from 1: one more than the grant has on record. It makes a signature good once.
    pub ordinal: u32,
    /// Last Unix second at which the signature is good.
    pub deadline_s: u64,
}

/// A recoverable secp256k1 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// 27 or 28.
    pub v: u8,
    /// First half.
    pub r: B256,
    /// Second half; the contract takes only the lower of its two forms.
    pub s: B256,
}

impl DownloadStatement {
    /// What is signed, for this contract on this chain and no other.
    pub fn digest(&self, chain_id: u64, contract: Address) -> B256 {
        let domain = eip712_domain! {
            name: "ioex authorisations",
            version: "1",
            chain_id: chain_id,
            verifying_contract: contract,
        };
        let message = abi::Download {
            publisher: self.publisher,
            list: self.list,
            uid: self.uid,
            ordinal: self.ordinal,
            deadline: self.deadline_s,
        };
        message.eip712_signing_hash(&domain)
    }
}

mod abi {
    #![allow(missing_docs)]
    alloy_sol_types::sol! {
        struct Download {
            address publisher;
            bytes32 list;
            bytes32 uid;
            uint32 ordinal;
            uint64 deadline;
        }
    }
}
