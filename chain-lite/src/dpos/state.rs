//! A chain written down, to go on from after a restart: the settled header, and who may sign on top of it. Unlike a
//! checkpoint it may be of any height, and knows who signed lately and which votes are open.

use alloy_primitives::{Address, B256, Bloom};
use thiserror::Error;

use crate::dpos::chain::HeaderChain;
use crate::dpos::network::Network;
use crate::dpos::signed::SignedHeader;
use crate::dpos::snapshot::{Recent, Snapshot, Vote};

/// The first bytes of a state.
const MAGIC: [u8; 8] = *b"ioexclq1";

impl HeaderChain {
    /// The settled block and the vote's state there, for [`Self::resume`]. Blocks above it are asked for again, at
    /// most a window of them.
    pub fn state(&self) -> Vec<u8> {
        let (header, snapshot) = (self.settled(), self.settled_snapshot());
        let mut out = MAGIC.to_vec();
        let flags = u64::from(header.authorise) | u64::from(header.base_fee_wei.is_some()) << 1;
        for number in [
            self.network().chain_id,
            header.number,
            header.time_s,
            header.difficulty,
            header.gas_limit,
            header.gas_used,
            header.base_fee_wei.unwrap_or(0),
            flags,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let hashes = [
            header.hash,
            header.parent_hash,
            header.state_root,
            header.transactions_root,
            header.receipts_root,
        ];
        hashes.iter().for_each(|hash| out.extend_from_slice(&hash[..]));
        out.extend_from_slice(&header.logs_bloom[..]);
        out.extend_from_slice(&header.signer[..]);
        out.extend_from_slice(&header.coinbase[..]);
        for count in [snapshot.signers.len(), snapshot.recents.len(), snapshot.votes.len()] {
            out.extend_from_slice(&(count as u64).to_le_bytes());
        }
        snapshot.signers.iter().for_each(|signer| out.extend_from_slice(&signer[..]));
        for Recent { number, signer } in &snapshot.recents {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&signer[..]);
        }
        for Vote { signer, candidate } in &snapshot.votes {
            out.extend_from_slice(&signer[..]);
            out.extend_from_slice(&candidate[..]);
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Goes on from what [`Self::state`] has written. The bytes are believed, as one's own; the check sum finds
    /// damage, not forgery.
    pub fn resume(
        network: Network,
        state: &[u8],
        window: u64,
        hash_seed: u64,
    ) -> Result<HeaderChain, StateError> {
        let (header, snapshot, chain_id) = decode(&network, state)?;
        if chain_id != network.chain_id {
            return Err(StateError::OtherChain { expected: network.chain_id, found: chain_id });
        }
        Ok(HeaderChain::on(network, header, snapshot, window, hash_seed))
    }
}

fn decode(network: &Network, state: &[u8]) -> Result<(SignedHeader, Snapshot, u64), StateError> {
    let Some((body, check)) = state.split_last_chunk() else { return Err(StateError::Damaged) };
    let Some(fields) = body.strip_prefix(&MAGIC) else { return Err(StateError::NoState) };
    if crc32c::crc32c(body) != u32::from_le_bytes(*check) {
        return Err(StateError::Damaged);
    }
    let mut fields = Fields(fields);
    let chain_id = fields.u64()?;
    let [number, time_s, difficulty] = [fields.u64()?, fields.u64()?, fields.u64()?];
    let [gas_limit, gas_used, base_fee_wei] = [fields.u64()?, fields.u64()?, fields.u64()?];
    let flags = fields.u64()?;
    let mut header = SignedHeader {
        hash: B256::new(fields.array()?),
        parent_hash: B256::new(fields.array()?),
        number,
        time_s,
        state_root: B256::new(fields.array()?),
        transactions_root: B256::new(fields.array()?),
        receipts_root: B256::new(fields.array()?),
        logs_bloom: Bloom::new(fields.array()?),
        signer: fields.address()?,
        difficulty,
        coinbase: fields.address()?,
        authorise: flags & 1 != 0,
        gas_limit,
        gas_used,
        base_fee_wei: (flags & 2 != 0).then_some(base_fee_wei),
        signers: vec![],
    };
    // Nothing is allocated by these counts: reading ends where the bytes do.
    let [signers, recents, votes] = [fields.u64()?, fields.u64()?, fields.u64()?];
    let snapshot = Snapshot {
        signers: (0..signers).map(|_| fields.address()).collect::<Result<_, _>>()?,
        recents: (0..recents)
            .map(|_| Ok(Recent { number: fields.u64()?, signer: fields.address()? }))
            .collect::<Result<_, _>>()?,
        votes: (0..votes)
            .map(|_| Ok(Vote { signer: fields.address()?, candidate: fields.address()? }))
            .collect::<Result<_, _>>()?,
    };
    if !fields.0.is_empty() || !snapshot.signers.is_sorted_by(|one, next| one < next) {
        return Err(StateError::Damaged);
    }
    if network.is_epoch(number) {
        header.signers.clone_from(&snapshot.signers);
    }
    Ok((header, snapshot, chain_id))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn address(&mut self) -> Result<Address, StateError> {
        Ok(Address::new(self.array()?))
    }
}

/// Why a chain cannot go on from a state. Begin at a checkpoint instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// The bytes are none.
    #[error("these bytes are not the state of a chain")]
    NoState,
    /// They are not those that were written.
    #[error("the state of the chain is damaged; begin at a checkpoint")]
    Damaged,
    /// They are of another chain.
    #[error("the state is of chain {found}, this is chain {expected}")]
    OtherChain {
        /// This chain's id.
        expected: u64,
        /// The state's.
        found: u64,
    },
}
