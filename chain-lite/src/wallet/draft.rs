//! Transactions to be sent: put together, then signed.

use thiserror::Error;

use crate::pow::wire::{write_bytes, write_varint};
use crate::pow::{Amount, Attribute, Entry, Input, OutPoint, Output, Payload};
use crate::wallet::{ProgramHash, Script, SecretKey};

/// A transaction that nobody signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft<'a> {
    /// The type, and what belongs to it.
    pub payload: Payload<'a>,
    /// Written as 0 but in a coinbase, where it is 4; nobody reads it.
    pub payload_version: u8,
    /// Notes of the sender.
    pub attributes: Vec<Attribute<'a>>,
    /// What is spent.
    pub inputs: Vec<Input>,
    /// What is paid. What the inputs hold above this is the miner's.
    pub outputs: Vec<Output>,
    /// The height that the block must be above: at least the largest lock of what is spent, whose inputs
    /// have the sequence `0xffff_fffe` then.
    pub lock_time: u32,
}

impl<'a> Draft<'a> {
    /// A payment: nothing but coins, no locks, nothing in it yet.
    pub fn payment() -> Draft<'a> {
        Draft {
            payload: Payload::Transfer,
            payload_version: 0,
            attributes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            lock_time: 0,
        }
    }

    /// Spends an output that is not locked.
    pub fn spend(&mut self, previous: OutPoint) {
        self.inputs.push(Input { previous, sequence: 0 });
    }

    /// Pays coins that are not locked.
    pub fn pay(&mut self, recipient: ProgramHash, value: Amount) {
        self.outputs.push(Output { asset: crate::pow::COIN_ASSET, value, output_lock: 0, recipient });
    }

    /// The bytes that signatures and the transaction's hash cover.
    pub fn unsigned(&self) -> Vec<u8> {
        let mut out = vec![self.payload.type_byte(), self.payload_version];
        self.payload.encode(&mut out);
        write_varint(&mut out, self.attributes.len() as u64);
        self.attributes.iter().for_each(|attribute| attribute.encode(&mut out));
        write_varint(&mut out, self.inputs.len() as u64);
        self.inputs.iter().for_each(|input| out.extend_from_slice(&input.to_bytes()));
        write_varint(&mut out, self.outputs.len() as u64);
        self.outputs.iter().for_each(|output| out.extend_from_slice(&output.to_bytes()));
        out.extend_from_slice(&self.lock_time.to_le_bytes());
        out
    }

    /// The transaction as it is sent, signed for each account that the inputs spend from: its script and as
    /// many keys of it as must sign.
    pub fn sign(&self, accounts: &[(Script, &[&SecretKey])]) -> Result<Vec<u8>, DraftError> {
        let mut out = self.unsigned();
        let unsigned = out.clone();
        write_varint(&mut out, accounts.len() as u64);
        for (script, signers) in accounts {
            let (keys, required) = script.keys();
            let mut parameter = Vec::new();
            let mut by_place = Vec::new();
            for signer in *signers {
                let public = signer.public_key();
                let place = keys.iter().position(|key| *key == public);
                let place = place
                    .ok_or(DraftError::ForeignKey { account: script.account(), key: public.account() })?;
                by_place.push((place, *signer));
            }
            by_place.sort_by_key(|(place, _)| *place);
            by_place.dedup_by_key(|(place, _)| *place);
            if by_place.len() < required {
                let (account, found) = (script.account(), by_place.len());
                return Err(DraftError::TooFewKeys { account, required, found });
            }
            for (_, signer) in &by_place[..required] {
                write_bytes(&mut parameter, &signer.sign(&unsigned).0);
            }
            write_bytes(&mut out, &parameter);
            write_bytes(&mut out, &script.encode());
        }
        Ok(out)
    }
}

/// Why a draft cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DraftError {
    /// A key has no part in the account.
    #[error("the key of account {key} has no part in account {account}")]
    ForeignKey {
        /// The account to spend from.
        account: ProgramHash,
        /// The account that the key alone spends from.
        key: ProgramHash,
    },
    /// There are too few different keys.
    #[error("account {account} needs {required} signatures, there are {found} different keys")]
    TooFewKeys {
        /// The account.
        account: ProgramHash,
        /// How many must sign.
        required: usize,
        /// How many keys there are.
        found: usize,
    },
}
