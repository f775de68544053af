//! A header as it is sent: 15 fields, and the base fee since London (EIP-1559).

use alloy_primitives::{Address, B256, Bloom, U256, b256, keccak256};

use crate::dpos::rlp::{self, DecodeError, Reader};

/// How many bytes a header may have: room for about 3,000 signers in an epoch block.
pub const HEADER_BYTES_MAX: usize = 65_536;

/// Bytes at the start of the extra data that a signer may fill as it likes.
pub const VANITY_LEN: usize = 32;

/// Bytes of the signature at the end of the extra data: r, s, and the recovery id from 0 to 3.
pub const SEAL_LEN: usize = 65;

/// Keccak-256 of an empty list: the uncles of every block here.
pub const EMPTY_UNCLES_HASH: B256 =
    b256!("0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347");

/// A nonce that votes for the address in `coinbase`.
pub const NONCE_AUTHORISE: [u8; 8] = [0xff; 8];

/// A nonce that votes against the address in `coinbase`, or not at all.
pub const NONCE_DROP: [u8; 8] = [0; 8];

/// A header, read but not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Hash of the block before it.
    pub parent_hash: B256,
    /// Hash of the list of uncles.
    pub uncles_hash: B256,
    /// Whom the signer votes about; zero without a vote.
    pub coinbase: Address,
    /// Root of the state after this block.
    pub state_root: B256,
    /// Root of the transactions.
    pub transactions_root: B256,
    /// Root of the receipts.
    pub receipts_root: B256,
    /// Bloom filter of the logs.
    pub logs_bloom: &'a Bloom,
    /// 2 in turn, 1 out of turn.
    pub difficulty: U256,
    /// Height.
    pub number: u64,
    /// How much gas the transactions may use.
    pub gas_limit: u64,
    /// How much they used.
    pub gas_used: u64,
    /// Seconds since 1970.
    pub time_s: u64,
    /// Vanity, signers in epoch blocks, signature.
    pub extra: &'a [u8],
    /// Zero.
    pub mix_hash: B256,
    /// A vote's direction.
    pub nonce: [u8; 8],
    /// Base fee in wei per gas, since London.
    pub base_fee_wei: Option<u64>,
}

impl<'a> Header<'a> {
    /// Reads a header that fills `bytes`. Nothing is copied but fixed fields, nothing is allocated.
    pub fn decode(bytes: &'a [u8]) -> Result<Header<'a>, DecodeError> {
        Ok(Header::decode_around_extra(bytes)?.0)
    }

    /// Reads a header, and says what stands before and behind its extra data.
    pub(super) fn decode_around_extra(bytes: &'a [u8]) -> Result<(Header<'a>, AroundExtra<'a>), DecodeError> {
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(DecodeError::TooLong { field: "header", len: bytes.len(), max: HEADER_BYTES_MAX });
        }
        let mut outer = Reader::new(bytes);
        let mut fields = outer.list("header")?;
        outer.finish()?;
        let start = fields.at();
        let (extra_start, extra_end);
        let header = Header {
            parent_hash: B256::new(*fields.array("parent hash")?),
            uncles_hash: B256::new(*fields.array("uncles hash")?),
            coinbase: Address::new(*fields.array("coinbase")?),
            state_root: B256::new(*fields.array("state root")?),
            transactions_root: B256::new(*fields.array("transactions root")?),
            receipts_root: B256::new(*fields.array("receipts root")?),
            logs_bloom: fields.array("logs bloom")?.into(),
            difficulty: fields.u256("difficulty")?,
            number: fields.u64("number")?,
            gas_limit: fields.u64("gas limit")?,
            gas_used: fields.u64("gas used")?,
            time_s: fields.u64("time")?,
            extra: {
                extra_start = fields.at();
                let extra = fields.string("extra data")?;
                extra_end = fields.at();
                extra
            },
            mix_hash: B256::new(*fields.array("mix hash")?),
            nonce: *fields.array("nonce")?,
            base_fee_wei: if fields.is_empty() { None } else { Some(fields.u64("base fee")?) },
        };
        if !fields.is_empty() {
            return Err(DecodeError::TooMany { field: "header", at: fields.at(), max: 16 });
        }
        Ok((header, AroundExtra { before: &bytes[start..extra_start], behind: &bytes[extra_end..] }))
    }

    /// Appends the header as it is sent and hashed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_with_extra(self.extra, out);
    }

    /// Keccak-256 of the whole header: the block's hash.
    pub fn hash(&self) -> B256 {
        let mut encoded = Vec::with_capacity(1024);
        self.encode(&mut encoded);
        keccak256(encoded)
    }

    /// What the signer signed: Keccak-256 of the header without the signature in its extra data. `None` if the
    /// extra data is too short to hold one.
    pub fn seal_hash(&self) -> Option<B256> {
        let unsealed = self.extra.split_last_chunk::<SEAL_LEN>()?.0;
        let mut encoded = Vec::with_capacity(1024);
        self.encode_with_extra(unsealed, &mut encoded);
        Some(keccak256(encoded))
    }

    fn encode_with_extra(&self, extra: &[u8], out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(600 + extra.len());
        for field in [
            &self.parent_hash[..],
            &self.uncles_hash[..],
            &self.coinbase[..],
            &self.state_root[..],
            &self.transactions_root[..],
            &self.receipts_root[..],
            &self.logs_bloom[..],
        ] {
            rlp::write_string(&mut payload, field);
        }
        rlp::write_u256(&mut payload, &self.difficulty);
        for number in [self.number, self.gas_limit, self.gas_used, self.time_s] {
            rlp::write_u64(&mut payload, number);
        }
        for field in [extra, &self.mix_hash[..], &self.nonce[..]] {
            rlp::write_string(&mut payload, field);
        }
        if let Some(base_fee_wei) = self.base_fee_wei {
            rlp::write_u64(&mut payload, base_fee_wei);
        }
        rlp::write_list(out, &payload);
    }
}

/// The fields of a header as they were sent, without the extra data between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct AroundExtra<'a> {
    before: &'a [u8],
    behind: &'a [u8],
}

impl AroundExtra<'_> {
    /// Appends the header with other extra data. As there is one canonical form, and nothing else is read, this is
    /// what encoding its fields again would give.
    pub fn encode_with_extra(&self, extra: &[u8], out: &mut Vec<u8>) {
        rlp::write_list_prefix(out, self.before.len() + rlp::string_len(extra) + self.behind.len());
        out.extend_from_slice(self.before);
        rlp::write_string(out, extra);
        out.extend_from_slice(self.behind);
    }
}
