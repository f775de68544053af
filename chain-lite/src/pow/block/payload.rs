//! What a transaction carries besides coins, by its type.

use crate::Hash;
use crate::pow::block::amount::Amount;
use crate::pow::block::list::{Entry, List};
use crate::pow::wire::{DecodeError, Reader, write_bytes, write_varint};
use crate::wallet::ProgramHash;

/// Longest field of a payload in bytes, as deployed.
pub const PAYLOAD_FIELD_LEN_MAX: u64 = 1 << 20;

/// A transaction's type and what belongs to it. Texts are bytes: nobody checks that they are UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Type 0: the block's reward.
    Coinbase {
        /// Free: the miner's name.
        data: &'a [u8],
    },
    /// Type 1: a new asset. The hash of such a transaction is the asset's id.
    RegisterAsset(Asset<'a>),
    /// Type 2: coins, and nothing else.
    Transfer,
    /// Type 3: bytes for the record.
    Record {
        /// What kind of bytes they are.
        kind: &'a [u8],
        /// The bytes.
        data: &'a [u8],
    },
    /// Type 5: an arbitrator names a side chain's block.
    SideChainPow {
        /// Hash of the side chain's block.
        block: Hash,
        /// Hash of the side chain's genesis block.
        genesis: Hash,
        /// Height of the side chain's block.
        height: u32,
        /// The arbitrator's signature over the 68 bytes before it.
        signature: &'a [u8],
    },
    /// Type 7: coins come back from a side chain.
    WithdrawFromSideChain {
        /// Height of the side chain's block.
        height: u32,
        /// The side chain's address on this chain.
        genesis_address: &'a [u8],
        /// Hashes of the transactions on the side chain.
        transactions: &'a [[u8; 32]],
    },
    /// Type 8: coins go to a side chain.
    TransferCrossChain(List<'a, CrossChainTransfer<'a>>),
}

impl<'a> Payload<'a> {
    /// The byte that a transaction begins with.
    pub fn type_byte(&self) -> u8 {
        match self {
            Payload::Coinbase { .. } => 0,
            Payload::RegisterAsset(_) => 1,
            Payload::Transfer => 2,
            Payload::Record { .. } => 3,
            Payload::SideChainPow { .. } => 5,
            Payload::WithdrawFromSideChain { .. } => 7,
            Payload::TransferCrossChain(_) => 8,
        }
    }

    /// Reads what follows the type and the payload's version, which stand at byte `type_at`. No payload
    /// depends on its version.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        type_at: usize,
        type_byte: u8,
    ) -> Result<Payload<'a>, DecodeError> {
        Ok(match type_byte {
            0 => Payload::Coinbase { data: reader.bytes("coinbase data", PAYLOAD_FIELD_LEN_MAX)? },
            1 => Payload::RegisterAsset(Asset::read(reader)?),
            2 => Payload::Transfer,
            3 => Payload::Record {
                kind: reader.bytes("record's kind", PAYLOAD_FIELD_LEN_MAX)?,
                data: reader.bytes("record's data", PAYLOAD_FIELD_LEN_MAX)?,
            },
            5 => Payload::SideChainPow {
                block: Hash(*reader.array("side chain block")?),
                genesis: Hash(*reader.array("side chain genesis")?),
                height: reader.u32("side chain height")?,
                signature: reader.bytes("arbitrator's signature", PAYLOAD_FIELD_LEN_MAX)?,
            },
            7 => Payload::WithdrawFromSideChain {
                height: reader.u32("side chain height")?,
                genesis_address: reader.bytes("side chain address", PAYLOAD_FIELD_LEN_MAX)?,
                transactions: reader.hashes("side chain transactions")?,
            },
            8 => Payload::TransferCrossChain(List::read(reader, "number of cross chain transfers")?),
            found => {
                return Err(DecodeError::UnknownType { field: "transaction type", at: type_at, found });
            }
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Coinbase { data } => write_bytes(out, data),
            Payload::RegisterAsset(asset) => asset.encode(out),
            Payload::Transfer => {}
            Payload::Record { kind, data } => {
                write_bytes(out, kind);
                write_bytes(out, data);
            }
            Payload::SideChainPow { block, genesis, height, signature } => {
                out.extend_from_slice(&block.0);
                out.extend_from_slice(&genesis.0);
                out.extend_from_slice(&height.to_le_bytes());
                write_bytes(out, signature);
            }
            Payload::WithdrawFromSideChain { height, genesis_address, transactions } => {
                out.extend_from_slice(&height.to_le_bytes());
                write_bytes(out, genesis_address);
                write_varint(out, transactions.len() as u64);
                out.extend_from_slice(transactions.as_flattened());
            }
            Payload::TransferCrossChain(transfers) => transfers.encode(out),
        }
    }
}

/// An asset as it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset<'a> {
    /// Its name: `IOEX` is the chain's own.
    pub name: &'a [u8],
    /// What it is.
    pub description: &'a [u8],
    /// Decimals, at most 8 in a block.
    pub precision: u8,
    /// 0 a token, 1 a share.
    pub asset_type: u8,
    /// 0 unspent outputs, 1 balances.
    pub record_type: u8,
    /// How much of it there is.
    pub amount: Amount,
    /// Who may issue it.
    pub controller: ProgramHash,
}

impl<'a> Asset<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Asset<'a>, DecodeError> {
        Ok(Asset {
            name: reader.bytes("asset's name", PAYLOAD_FIELD_LEN_MAX)?,
            description: reader.bytes("asset's description", PAYLOAD_FIELD_LEN_MAX)?,
            precision: reader.u8("asset's precision")?,
            asset_type: reader.u8("asset's type")?,
            record_type: reader.u8("asset's record type")?,
            amount: Amount(reader.i64("asset's amount")?),
            controller: ProgramHash(*reader.array("asset's controller")?),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.name);
        write_bytes(out, self.description);
        out.extend_from_slice(&[self.precision, self.asset_type, self.record_type]);
        out.extend_from_slice(&self.amount.0.to_le_bytes());
        out.extend_from_slice(&self.controller.0);
    }
}

/// One payment to a side chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossChainTransfer<'a> {
    /// Whom it is for, on the side chain.
    pub address: &'a [u8],
    /// Which output of this transaction pays for it.
    pub output: u64,
    /// What arrives there.
    pub amount: Amount,
}

impl<'a> Entry<'a> for CrossChainTransfer<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<CrossChainTransfer<'a>, DecodeError> {
        Ok(CrossChainTransfer {
            address: reader.bytes("cross chain address", PAYLOAD_FIELD_LEN_MAX)?,
            output: reader.varint("cross chain output")?,
            amount: Amount(reader.i64("cross chain amount")?),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.address);
        write_varint(out, self.output);
        out.extend_from_slice(&self.amount.0.to_le_bytes());
    }
}
