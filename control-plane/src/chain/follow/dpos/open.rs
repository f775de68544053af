//! Where following the consortium chain begins: the checkpoint, the files of its headers, the tree on top of what is
//! settled.

use super::DposSettings;
use super::fetch::fetch_header;
use crate::chain::follow::{FollowError, random};
use crate::chain::headers::{DposRecord, HeaderFile, Page, SignerTable};
use crate::chain::place::{ChainDirectory, read_if_any, write_public};
use crate::chain::rpc::{Endpoints, EthereumRpc, Fault, Lie};
use crate::configuration::chain::{DposCheckpoint, show_hex};
use crate::data_directory::DataDirectoryError;
use alloy_primitives::{Address, B256, keccak256};
use chain_lite::dpos::{Checkpoint, Header, HeaderChain, Network, SEAL_LEN, VANITY_LEN, WINDOW_BLOCKS};

/// The checkpoint's header: the one that is kept, or somebody's, which the hash vouches for.
pub(super) async fn checkpoint_header(
    settings: &DposSettings,
    directory: &ChainDirectory,
    endpoints: &Endpoints,
) -> Result<Vec<u8>, FollowError> {
    let DposCheckpoint { number, hash } = settings.checkpoint;
    let path = directory.dpos_checkpoint();
    if let Some(kept) = read_if_any(&path)?.filter(|kept| keccak256(kept) == B256::new(hash)) {
        return Ok(kept);
    }
    let fetched = endpoints.first("the header of chain.dpos_checkpoint", |endpoint| {
        let endpoints = endpoints.clone();
        async move {
            let bytes = fetch_header(&EthereumRpc::new(&endpoints, &endpoint), number).await?;
            let found = keccak256(&bytes);
            if found != B256::new(hash) {
                let detail = format!("its block {number} is {found}, the checkpoint is {}", show_hex(&hash));
                return Err(Fault::lie(Lie::OtherChain, detail));
            }
            Ok(bytes)
        }
    });
    let bytes = fetched.await?;
    write_public(&path, &bytes)?;
    Ok(bytes)
}

/// The files of the chain that has this checkpoint. A checkpoint among the headers that are kept changes nothing;
/// one that is not among them begins a new file.
pub(super) fn open_files(
    settings: &DposSettings,
    directory: &ChainDirectory,
    checkpoint: &Header<'_>,
) -> Result<(HeaderFile<DposRecord>, SignerTable), FollowError> {
    let path = directory.dpos_headers();
    let DposCheckpoint { number, hash } = settings.checkpoint;
    if path.exists() {
        let (file, opened) = HeaderFile::<DposRecord>::open_to_write(&path)?;
        if opened.cut_bytes > 0 {
            tracing::warn!(path = %path.display(), opened.records, opened.cut_bytes, "cut behind the verified headers");
        }
        if file.get(number)?.is_some_and(|record| record.hash == hash) {
            return Ok((file, SignerTable::read(directory)?));
        }
        tracing::warn!(
            number,
            "the checkpoint is not among the kept headers of the consortium chain: beginning at it"
        );
    }
    let page = Page { anchor: hash, first: number, chain_id: settings.chain_id };
    let file = HeaderFile::create(&path, page)?;
    match std::fs::remove_file(directory.dpos_watched()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let path = directory.dpos_watched();
            return Err(DataDirectoryError::Write { path, source: error }.into());
        }
        _ => {}
    }
    let record = DposRecord {
        hash,
        state_root: checkpoint.state_root.0,
        receipts_root: checkpoint.receipts_root.0,
        time_s: checkpoint.time_s,
        signer: DposRecord::NO_SIGNER,
        in_turn: DposRecord::NO_SIGNER,
    };
    file.append(&[record])?;
    Ok((file, SignerTable::default()))
}

/// The tree from where the last follower wrote down to, if the headers up to there are kept, else from the
/// checkpoint.
pub(super) fn open_chain(
    settings: &DposSettings,
    directory: &ChainDirectory,
    network: &Network,
    header: &Header<'_>,
    bytes: &[u8],
    file: &HeaderFile<DposRecord>,
) -> Result<HeaderChain, FollowError> {
    let seed = u64::from_le_bytes(random());
    if let Some(state) = read_if_any(&directory.dpos_state())? {
        match HeaderChain::resume(*network, &state, WINDOW_BLOCKS, seed) {
            Ok(chain) => {
                let settled = chain.settled();
                let is_kept = file.get(settled.number)?.is_some_and(|record| record.hash == settled.hash.0);
                if is_kept && settled.number >= settings.checkpoint.number {
                    return Ok(chain);
                }
            }
            Err(error) => tracing::warn!(%error, "following begins at the checkpoint again"),
        }
    }
    let signers =
        header.extra.get(VANITY_LEN..header.extra.len().saturating_sub(SEAL_LEN)).unwrap_or_default();
    let checkpoint = Checkpoint {
        number: settings.checkpoint.number,
        hash: B256::new(settings.checkpoint.hash),
        time_s: header.time_s,
        signers: signers.chunks_exact(20).map(Address::from_slice).collect(),
    };
    HeaderChain::from_checkpoint(*network, &checkpoint, bytes, WINDOW_BLOCKS, seed)
        .map_err(|error| wrong_checkpoint(&error))
}

pub(super) fn wrong_checkpoint(error: &dyn std::fmt::Display) -> FollowError {
    FollowError::Settings(format!("chain.dpos_checkpoint: {error}"))
}
