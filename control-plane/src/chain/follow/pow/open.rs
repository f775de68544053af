//! Where following the public chain begins: the genesis block, the file of its headers, the tree that they make.

use super::PowSettings;
use crate::chain::follow::{FollowError, random};
use crate::chain::headers::{HeaderFile, HeaderFileError, PowRecord};
use crate::chain::place::ChainDirectory;
use crate::chain::rpc::{Endpoints, Fault, MainChainRpc};
use chain_lite::Hash;
use chain_lite::pow::{BLOCK_HEADER_LEN, BlockHeader, HeaderChain, Mode};

/// The file of this chain, cut to what holds; `None` if there is none.
pub(super) fn open_file(
    settings: &PowSettings,
    directory: &ChainDirectory,
) -> Result<Option<HeaderFile<PowRecord>>, FollowError> {
    let path = directory.pow_headers();
    if !path.exists() {
        return Ok(None);
    }
    let (file, opened) = HeaderFile::open_to_write(&path)?;
    if opened.cut_bytes > 0 {
        tracing::warn!(path = %path.display(), opened.records, opened.cut_bytes, "cut behind the verified headers");
    }
    if file.page().anchor != settings.genesis.0 {
        let found = Hash(file.page().anchor);
        return Err(FollowError::Settings(format!(
            "{} is of the chain with genesis block {found}, chain.pow_genesis is {}",
            path.display(),
            settings.genesis
        )));
    }
    Ok((opened.records > 0).then_some(file))
}

pub(super) async fn fetch_genesis(endpoints: &Endpoints, hash: Hash) -> Result<BlockHeader, FollowError> {
    let block = endpoints.first("the genesis block", |endpoint| {
        let endpoints = endpoints.clone();
        async move {
            // Its hash is compared where it comes in.
            let bytes = MainChainRpc::new(&endpoints, &endpoint).block(&hash).await?;
            bytes
                .first_chunk::<BLOCK_HEADER_LEN>()
                .map(BlockHeader::from_bytes)
                .ok_or(Fault::Lacks("no header".into()))
        }
    });
    Ok(block.await?)
}

/// The tree of the headers that are kept. What does not hold is cut off, and fetched again.
pub(super) fn restore(
    settings: &PowSettings,
    file: &HeaderFile<PowRecord>,
) -> Result<HeaderChain, FollowError> {
    let missing = || HeaderFileError::Damaged { path: "pow/headers".into(), height: 0 };
    let genesis = file.get(0)?.ok_or_else(missing)?.block(Hash::ZERO, 0);
    let seed = u64::from_le_bytes(random());
    let mut chain =
        HeaderChain::new(settings.network, Mode::Strict, genesis, settings.checkpoints.clone(), seed)
            .map_err(|error| FollowError::Settings(error.to_string()))?;
    let mut before = genesis.hash();
    let mut height: u32 = 1;
    loop {
        let records = file.range(u64::from(height), 1 << 14)?;
        if records.is_empty() {
            return Ok(chain);
        }
        let blocks: Vec<_> = (height..)
            .zip(&records)
            .map(|(height, record)| {
                let block = record.block(before, height);
                before = record.hash;
                block
            })
            .collect();
        // The number of records is bounded by the range.
        height += blocks.len() as u32;
        if let Err(error) = chain.restore(blocks) {
            tracing::warn!(%error, "kept headers that do not hold are fetched again");
            file.replace_from(u64::from(chain.tip().height) + 1, &[])?;
            return Ok(chain);
        }
    }
}
