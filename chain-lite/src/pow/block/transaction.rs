//! Transactions: coins move from outputs of earlier transactions to new outputs.

use std::fmt;

use thiserror::Error;

use crate::pow::block::amount::Amount;
use crate::pow::block::list::{Entry, List};
use crate::pow::block::payload::{PAYLOAD_FIELD_LEN_MAX, Payload};
use crate::pow::merkle::Leaf;
use crate::pow::wire::{DecodeError, Reader, write_bytes, write_varint};
use crate::wallet::ProgramHash;
use crate::{Hash, sha256d};

/// Id of the chain's own coin: the hash of the transaction in the genesis block that registers `IOEX`.
pub const COIN_ASSET: Hash = Hash([
    0x8f, 0x29, 0xd1, 0xb1, 0x2c, 0xd3, 0x0e, 0x2f, 0xe9, 0x05, 0xd1, 0x5b, 0xb8, 0xcb, 0x72, 0xcb, 0x39,
    0x71, 0x91, 0x41, 0x10, 0x32, 0x71, 0x0a, 0x66, 0xe9, 0x8c, 0x9f, 0xae, 0xbf, 0xcc, 0x61,
]);

/// Length of an input.
pub const INPUT_LEN: usize = 38;

/// Length of an output.
pub const OUTPUT_LEN: usize = 65;

/// Longest attribute in bytes: the bound of payloads, since the public sources name none for attributes.
const ATTRIBUTE_LEN_MAX: u64 = PAYLOAD_FIELD_LEN_MAX;

/// Longest code of a program in bytes, as deployed.
const CODE_LEN_MAX: u64 = 10_000;

/// Longest parameter of a program in bytes, as deployed.
const PARAMETER_LEN_MAX: u64 = 2 * CODE_LEN_MAX;

/// Most outputs: an input names an output by 16 bits.
const OUTPUTS_MAX: u64 = u16::MAX as u64;

/// A transaction, borrowed from the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    unsigned: &'a [u8],
    payload_version: u8,
    payload: Payload<'a>,
    attributes: List<'a, Attribute<'a>>,
    inputs: &'a [[u8; INPUT_LEN]],
    outputs: &'a [[u8; OUTPUT_LEN]],
    lock_time: u32,
    programs: List<'a, Program<'a>>,
}

impl<'a> Transaction<'a> {
    /// Reads a transaction that ends where `bytes` end. Nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<Transaction<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let transaction = Transaction::read(&mut reader)?;
        reader.finish()?;
        Ok(transaction)
    }

    /// Appends the transaction as it is sent. What [`Self::decode`] read is written back to the byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.payload.type_byte(), self.payload_version]);
        self.payload.encode(out);
        self.attributes.encode(out);
        write_varint(out, self.inputs.len() as u64);
        out.extend_from_slice(self.inputs.as_flattened());
        write_varint(out, self.outputs.len() as u64);
        out.extend_from_slice(self.outputs.as_flattened());
        out.extend_from_slice(&self.lock_time.to_le_bytes());
        self.programs.encode(out);
    }

    /// The transaction's hash: double SHA-256 of everything but the programs, so that a signature does not
    /// change it.
    pub fn hash(&self) -> Hash {
        sha256d(self.unsigned)
    }

    /// What [`Self::hash`] and signatures cover: everything but the programs.
    pub fn unsigned(&self) -> &'a [u8] {
        self.unsigned
    }

    /// The hash as a leaf of a block's Merkle tree. Refused if the transaction could also be two hashes of
    /// the tree side by side.
    pub fn leaf(&self) -> Result<Leaf, InnerNode> {
        if self.unsigned.len() == 64 {
            return Err(InnerNode { hash: self.hash() });
        }
        Ok(Leaf::new(self.hash()))
    }

    /// The type, and what belongs to it.
    pub fn payload(&self) -> Payload<'a> {
        self.payload
    }

    /// Free: no payload depends on it.
    pub fn payload_version(&self) -> u8 {
        self.payload_version
    }

    /// Notes of the sender.
    pub fn attributes(&self) -> List<'a, Attribute<'a>> {
        self.attributes
    }

    /// What is spent.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Input> + use<'a> {
        self.inputs.iter().map(Input::from_bytes)
    }

    /// What is paid.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = Output> + use<'a> {
        self.outputs.iter().map(Output::from_bytes)
    }

    /// The output with this number.
    pub fn output(&self, index: u16) -> Option<Output> {
        self.outputs.get(usize::from(index)).map(Output::from_bytes)
    }

    /// The height that the block must be above; in a coinbase, the block's height.
    pub fn lock_time(&self) -> u32 {
        self.lock_time
    }

    /// Codes and signatures: who allows the inputs to be spent.
    pub fn programs(&self) -> List<'a, Program<'a>> {
        self.programs
    }

    /// Whether this is the type that pays a block's reward.
    pub fn is_coinbase(&self) -> bool {
        matches!(self.payload, Payload::Coinbase { .. })
    }

    /// Every payment of coins to `recipient`. Other assets, and outputs that pay nothing or less, are left
    /// out.
    pub fn payments_to(&self, recipient: ProgramHash) -> impl Iterator<Item = Payment> + use<'a> {
        (0..=u16::MAX).zip(self.outputs()).filter_map(move |(output, paid)| {
            let counts =
                paid.recipient == recipient && paid.asset == COIN_ASSET && paid.value > Amount::default();
            counts.then_some(Payment { output, value: paid.value, output_lock: paid.output_lock })
        })
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Transaction<'a>, DecodeError> {
        let start = reader.at();
        let type_byte = reader.u8("transaction type")?;
        let payload_version = reader.u8("payload version")?;
        let payload = Payload::read(reader, start, type_byte)?;
        let attributes = List::read(reader, "number of attributes")?;
        let inputs = reader.varint("number of inputs")?;
        let inputs = reader.records("inputs", inputs)?;
        let at = reader.at();
        let outputs = reader.varint("number of outputs")?;
        if outputs > OUTPUTS_MAX {
            return Err(DecodeError::TooMany {
                field: "number of outputs",
                at,
                count: outputs,
                max: OUTPUTS_MAX,
            });
        }
        let outputs = reader.records("outputs", outputs)?;
        let lock_time = reader.u32("lock time")?;
        let unsigned = reader.since(start);
        let programs = List::read(reader, "number of programs")?;
        Ok(Transaction {
            unsigned,
            payload_version,
            payload,
            attributes,
            inputs,
            outputs,
            lock_time,
            programs,
        })
    }
}

/// A transaction whose unsigned part has 64 bytes, as two hashes of a Merkle tree have: whoever proves one
/// could mean the other (CVE-2017-12842). No block holds such a transaction: with one input and one output
/// there are at least 112 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("transaction {hash} has 64 unsigned bytes, as two hashes side by side have; no block holds one")]
pub struct InnerNode {
    /// Hash of the 64 bytes.
    pub hash: Hash,
}

/// Which output is spent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// Hash of the transaction that has it.
    pub transaction: Hash,
    /// Its number there, from 0.
    pub output: u16,
}

impl OutPoint {
    /// What a coinbase spends: nothing.
    pub const NULL: OutPoint = OutPoint { transaction: Hash::ZERO, output: u16::MAX };
}

impl fmt::Display for OutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transaction, self.output)
    }
}

impl fmt::Debug for OutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Which output is spent.
    pub previous: OutPoint,
    /// `0xffff_fffe` where the output spent was locked; free otherwise.
    pub sequence: u32,
}

impl Input {
    fn from_bytes(bytes: &[u8; INPUT_LEN]) -> Input {
        let mut reader = Reader::new(bytes);
        Input::read(&mut reader).expect("the reader holds 38 bytes")
    }

    fn read(reader: &mut Reader<'_>) -> Result<Input, DecodeError> {
        let transaction = Hash(*reader.array("input's transaction")?);
        let output = u16::from_le_bytes(*reader.array("input's output")?);
        Ok(Input { previous: OutPoint { transaction, output }, sequence: reader.u32("input's sequence")? })
    }

    /// The input as it is sent.
    pub fn to_bytes(&self) -> [u8; INPUT_LEN] {
        let mut bytes = [0; INPUT_LEN];
        bytes[..32].copy_from_slice(&self.previous.transaction.0);
        bytes[32..34].copy_from_slice(&self.previous.output.to_le_bytes());
        bytes[34..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }
}

/// Something paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Id of the asset; [`COIN_ASSET`] in a block.
    pub asset: Hash,
    /// How much. Below zero it is refused in a block, but in a coinbase the deployed nodes look at the sum
    /// alone.
    pub value: Amount,
    /// The height that a block must be above to spend it; 0 for any.
    pub output_lock: u32,
    /// Whom it pays.
    pub recipient: ProgramHash,
}

impl Output {
    fn from_bytes(bytes: &[u8; OUTPUT_LEN]) -> Output {
        let mut reader = Reader::new(bytes);
        Output::read(&mut reader).expect("the reader holds 65 bytes")
    }

    fn read(reader: &mut Reader<'_>) -> Result<Output, DecodeError> {
        Ok(Output {
            asset: Hash(*reader.array("output's asset")?),
            value: Amount(reader.i64("output's value")?),
            output_lock: reader.u32("output's lock")?,
            recipient: ProgramHash(*reader.array("output's recipient")?),
        })
    }

    /// The output as it is sent.
    pub fn to_bytes(&self) -> [u8; OUTPUT_LEN] {
        let mut bytes = [0; OUTPUT_LEN];
        bytes[..32].copy_from_slice(&self.asset.0);
        bytes[32..40].copy_from_slice(&self.value.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.output_lock.to_le_bytes());
        bytes[44..].copy_from_slice(&self.recipient.0);
        bytes
    }
}

/// Coins that somebody gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Number of the output.
    pub output: u16,
    /// How much, above zero.
    pub value: Amount,
    /// The height that a block must be above to spend it; 0 for any. A coinbase's outputs mature besides:
    /// [`matures_at`](super::matures_at).
    pub output_lock: u32,
}

/// A note of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What it is for.
    pub usage: Usage,
    /// The note.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> for Attribute<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Attribute<'a>, DecodeError> {
        let at = reader.at();
        let found = reader.u8("attribute's usage")?;
        let usage = Usage::from_byte(found).ok_or(DecodeError::UnknownType {
            field: "attribute's usage",
            at,
            found,
        })?;
        Ok(Attribute { usage, data: reader.bytes("attribute's data", ATTRIBUTE_LEN_MAX)? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.usage as u8);
        write_bytes(out, self.data);
    }
}

/// What an attribute is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Makes two transactions different that would be the same.
    Nonce = 0x00,
    /// A program hash that must sign besides those of the inputs.
    Script = 0x20,
    /// A text for the recipient.
    Memo = 0x81,
    /// A text for everybody.
    Description = 0x90,
    /// Where a text for everybody is.
    DescriptionUrl = 0x91,
    /// How deep the sender wants the transaction to be.
    Confirmations = 0x92,
}

impl Usage {
    fn from_byte(byte: u8) -> Option<Usage> {
        Some(match byte {
            0x00 => Usage::Nonce,
            0x20 => Usage::Script,
            0x81 => Usage::Memo,
            0x90 => Usage::Description,
            0x91 => Usage::DescriptionUrl,
            0x92 => Usage::Confirmations,
            _ => return None,
        })
    }
}

/// A code whose hash is the recipient of what is spent, and what satisfies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// Signatures, each with its length in front.
    pub parameter: &'a [u8],
    /// Public keys, and how many of them must sign.
    pub code: &'a [u8],
}

impl<'a> Entry<'a> for Program<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Program<'a>, DecodeError> {
        Ok(Program {
            parameter: reader.bytes("program's parameter", PARAMETER_LEN_MAX)?,
            code: reader.bytes("program's code", CODE_LEN_MAX)?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.parameter);
        write_bytes(out, self.code);
    }
}
