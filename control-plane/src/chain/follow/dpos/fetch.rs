//! Headers of the consortium chain from an endpoint.

use crate::chain::ethereum_json::{hash, header_rlp};
use crate::chain::rpc::{EthereumRpc, Fault, Lie};
use alloy_primitives::keccak256;
use chain_lite::dpos::{Header, Network, SignedHeader};
use futures_util::future::join_all;

/// Headers that are asked for at once.
const REQUESTS_AT_ONCE: usize = 16;

/// Headers from `first` to `last`, their signers recovered by two threads.
pub(super) async fn fetch_headers(
    network: &Network,
    rpc: &EthereumRpc<'_>,
    first: u64,
    last: u64,
) -> Result<Vec<SignedHeader>, Fault> {
    let numbers: Vec<_> = (first..=last).collect();
    let mut all = Vec::with_capacity(numbers.len());
    for some in numbers.chunks(REQUESTS_AT_ONCE) {
        for bytes in join_all(some.iter().map(|&number| fetch_header(rpc, number))).await {
            all.push(bytes?);
        }
    }
    let network = *network;
    let behind = all.split_off(all.len() / 2);
    let threads = [all, behind]
        .map(|part| tokio::task::spawn_blocking(move || SignedHeader::read_all(&network, &part)));
    let mut headers = Vec::new();
    for thread in threads {
        // It does not panic, and is not cancelled.
        let part = thread.await.map_err(|error| Fault::Lacks(error.to_string()))?;
        headers.extend(part.map_err(|error| Fault::lie(Lie::ForgedHeader, error))?);
    }
    Ok(headers)
}

/// The header at a number, as its hash covers it: raw if the endpoint gives it so, else rebuilt from the block's
/// JSON. What is neither is no header of the chain, whoever made it so.
pub async fn fetch_header(rpc: &EthereumRpc<'_>, number: u64) -> Result<Vec<u8>, Fault> {
    let bytes = match rpc.raw_header(number).await {
        Ok(bytes) => bytes,
        Err(Fault::Rpc(error)) if !error.is_unknown_method() => return Err(error.into()),
        Err(_) => {
            let block = rpc.block(number).await?;
            let bytes =
                header_rlp(&block).map_err(|error| Fault::Lacks(format!("block {number}: {error}")))?;
            let said = hash(&block, "hash");
            if said != Ok(keccak256(&bytes)) {
                let detail = format!("the fields of its block {number} do not give the hash that it says");
                return Err(Fault::lie(Lie::ForgedHeader, detail));
            }
            bytes
        }
    };
    let header = Header::decode(&bytes).map_err(|error| Fault::lie(Lie::ForgedHeader, error))?;
    if header.number != number {
        let detail = format!("asked for block {number}, it sent block {}", header.number);
        return Err(Fault::lie(Lie::ForgedHeader, detail));
    }
    Ok(bytes)
}
