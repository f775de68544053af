//! A header whose signer is known: the part of the work that needs no other header, and so may be done for many
//! headers at once on several threads.

use alloy_primitives::{Address, B256, Bloom, U256, keccak256};
use secp256k1::Message;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};

use crate::dpos::header::{Header, NONCE_AUTHORISE, SEAL_LEN, VANITY_LEN};
use crate::dpos::keccak::keccak256_all;
use crate::dpos::network::{Gas, Network};
use crate::dpos::rule::{HeaderError, ReadError, Rule};

/// Headers that are hashed together: enough to fill the lanes, few enough to stay in the cache.
const HEADERS_AT_ONCE: usize = 64;

/// A header that holds by itself, and whose signer was recovered. Whether that signer may sign is decided where it
/// is placed in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    /// Keccak-256 of the whole header.
    pub hash: B256,
    /// Hash of the block before it.
    pub parent_hash: B256,
    /// Height.
    pub number: u64,
    /// Seconds since 1970.
    pub time_s: u64,
    /// Root of the state after this block: what account proofs lead to.
    pub state_root: B256,
    /// Root of the transactions.
    pub transactions_root: B256,
    /// Root of the receipts: what log proofs lead to.
    pub receipts_root: B256,
    /// Bloom filter of the logs: a block whose filter lacks an address or topic has no log of it.
    pub logs_bloom: Bloom,
    /// Whose signature it carries; zero in a genesis block.
    pub signer: Address,
    /// 2 in turn, 1 out of turn.
    pub difficulty: u64,
    /// Whom the signer votes about; zero without a vote.
    pub coinbase: Address,
    /// Whether it votes for (or else against) `coinbase`.
    pub authorise: bool,
    /// How much gas the transactions may use.
    pub gas_limit: u64,
    /// How much they used.
    pub gas_used: u64,
    /// Base fee in wei per gas, since London.
    pub base_fee_wei: Option<u64>,
    /// In blocks that begin an epoch: who may sign from here on, in order.
    pub signers: Vec<Address>,
}

impl SignedHeader {
    /// Reads a header, holds it to the rules that it can break by itself, and recovers its signer. Almost all of
    /// the time that a header costs is spent here, and nothing here depends on other headers.
    pub fn read(network: &Network, bytes: &[u8]) -> Result<SignedHeader, ReadError> {
        let mut one = SignedHeader::read_all(network, &[bytes])?;
        Ok(one.pop().expect("of one header one is read"))
    }

    /// Reads many headers, faster than one by one, as they are hashed side by side. If some do not hold, the error is
    /// that of the first of them.
    pub fn read_all<B: AsRef<[u8]>>(network: &Network, all: &[B]) -> Result<Vec<SignedHeader>, ReadError> {
        let mut headers = Vec::with_capacity(all.len());
        for some in all.chunks(HEADERS_AT_ONCE) {
            read_some(network, some, &mut headers)?;
        }
        Ok(headers)
    }

    /// A genesis block, which nobody has signed.
    pub(super) fn read_genesis(network: &Network, bytes: &[u8]) -> Result<SignedHeader, ReadError> {
        let header = Header::decode(bytes)?;
        let hash = keccak256(bytes);
        network.check_form(&header).map_err(|rule| HeaderError { number: header.number, hash, rule })?;
        Ok(SignedHeader::new(&header, hash, Address::ZERO))
    }

    fn new(header: &Header<'_>, hash: B256, signer: Address) -> SignedHeader {
        let signers = &header.extra[VANITY_LEN..header.extra.len() - SEAL_LEN];
        let (signers, rest) = signers.as_chunks::<20>();
        debug_assert!(rest.is_empty(), "the form was checked");
        SignedHeader {
            hash,
            parent_hash: header.parent_hash,
            number: header.number,
            time_s: header.time_s,
            state_root: header.state_root,
            transactions_root: header.transactions_root,
            receipts_root: header.receipts_root,
            logs_bloom: *header.logs_bloom,
            signer,
            // Above 2 only in a genesis block, whose own difficulty is in every branch.
            difficulty: header.difficulty.min(U256::from(2)).to(),
            coinbase: header.coinbase,
            authorise: header.nonce == NONCE_AUTHORISE,
            gas_limit: header.gas_limit,
            gas_used: header.gas_used,
            base_fee_wei: header.base_fee_wei,
            signers: signers.iter().copied().map(Address::new).collect(),
        }
    }

    pub(super) fn gas(&self) -> Gas {
        Gas { limit: self.gas_limit, used: self.gas_used, base_fee_wei: self.base_fee_wei }
    }
}

/// Reads headers that are hashed together.
fn read_some<B: AsRef<[u8]>>(
    network: &Network,
    some: &[B],
    headers: &mut Vec<SignedHeader>,
) -> Result<(), ReadError> {
    let mut decoded = Vec::with_capacity(some.len());
    let mut unsealed = Vec::with_capacity(some.iter().map(|bytes| bytes.as_ref().len()).sum());
    let mut broken = None;
    for bytes in some {
        match Header::decode_around_extra(bytes.as_ref()) {
            Ok((header, around)) => {
                let start = unsealed.len();
                if let Some((extra, _)) = header.extra.split_last_chunk::<SEAL_LEN>() {
                    around.encode_with_extra(extra, &mut unsealed);
                }
                decoded.push((header, start..unsealed.len()));
            }
            // What is wrong with headers before it is said first.
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }

    let whole = some[..decoded.len()].iter().map(AsRef::as_ref);
    let messages: Vec<_> = whole.chain(decoded.iter().map(|(_, range)| &unsealed[range.clone()])).collect();
    let hashes = keccak256_all(&messages);
    let (hashes, seal_hashes) = hashes.split_at(decoded.len());

    let mut keys = Vec::with_capacity(decoded.len());
    for (((header, _), &hash), &seal_hash) in decoded.iter().zip(hashes).zip(seal_hashes) {
        let error = |rule| HeaderError { number: header.number, hash, rule };
        network.check_form(header).map_err(error)?;
        let seal = header.extra.last_chunk().expect("the form was checked");
        keys.push(recover_key(seal_hash, seal).ok_or(error(Rule::Signature))?);
    }
    for (((header, _), &hash), key_hash) in decoded.iter().zip(hashes).zip(keccak256_all(&keys)) {
        headers.push(SignedHeader::new(header, hash, Address::from_word(key_hash)));
    }
    broken.map_or(Ok(()), |error| Err(error.into()))
}

/// Whose key signed a header; `None` if its extra data is too short or no key can have made the signature.
pub fn signer(header: &Header<'_>) -> Option<Address> {
    let seal_hash = header.seal_hash()?;
    let (_, seal) = header.extra.split_last_chunk()?;
    recover(seal_hash, seal)
}

/// The address whose key made a signature over `digest`.
pub(super) fn recover(digest: B256, signature: &[u8; SEAL_LEN]) -> Option<Address> {
    Some(Address::from_raw_public_key(&recover_key(digest, signature)?))
}

/// The key that made a signature over `digest`, x and y: the signature is r, s, and the recovery id from 0 to 3. A
/// high s is taken, as geth does: to refuse it would let one signer part light clients from the nodes.
fn recover_key(digest: B256, signature: &[u8; SEAL_LEN]) -> Option<[u8; 64]> {
    let (compact, id) = signature.split_at(64);
    let id = RecoveryId::try_from(i32::from(id[0])).ok()?;
    let signature = RecoverableSignature::from_compact(compact, id).ok()?;
    let key = signature.recover_ecdsa(Message::from_digest(digest.0)).ok()?;
    key.serialize_uncompressed().last_chunk().copied()
}
