//! Taking from files that are here already what the new file has in common with them.
//!
//! A seed is cut as the list says the file was: by content, or at the same offsets. Parts whose plain bytes
//! hash to what the publisher signed are copied to wherever the new file has them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use fastcdc::v2020::{self, StreamCDC};
use store::Hash;
use store::list::Chunking;

use super::error::FetchError;
use super::partial::PartialFile;
use super::plan::Plan;
use super::schedule::ShardIndex;

/// What `seeds` have in common with the file, copied into it; gives the bytes. `plain_hashes` are those of all segments.
/// `seeded` hears the running total. Blocking.
pub(crate) fn take_from_seeds(
    file: &mut PartialFile,
    plan: &Plan,
    plain_hashes: &[Hash],
    seeds: &[PathBuf],
    mut seeded: impl FnMut(u64),
) -> Result<u64, FetchError> {
    let mut wanted: HashMap<Hash, Vec<ShardIndex>> = HashMap::new();
    for (index, hash) in (0..).zip(plain_hashes).take(plan.segments.len()) {
        if !file.has(index) {
            wanted.entry(*hash).or_default().push(index);
        }
    }
    let mut bytes = 0;
    for seed in seeds {
        let failed = |source| FetchError::Seed { path: seed.clone(), source };
        let mut pieces = Pieces::open(seed, plan).map_err(failed)?;
        while !wanted.is_empty() {
            let Some(piece) = pieces.next().map_err(failed)? else { break };
            // The file's last segment may be the beginning of a longer piece.
            let last_len = plan.segments.last().map_or(0, |segment| segment.plain_len as usize);
            for part in [Some(&piece[..]), piece.get(..last_len)].into_iter().flatten() {
                for index in wanted.remove(&Hash::of(part)).unwrap_or_default() {
                    file.write(index, part)?;
                    bytes += part.len() as u64;
                    seeded(bytes);
                }
                if !pieces.is_beside_the_last() {
                    break;
                }
            }
        }
    }
    Ok(bytes)
}

/// A seed in pieces, as the new file would have been cut.
enum Pieces<'a> {
    ByContent(Box<StreamCDC<File>>),
    ByOffset { seed: File, plan: &'a Plan, next: usize },
}

impl Pieces<'_> {
    fn open<'a>(path: &PathBuf, plan: &'a Plan) -> io::Result<Pieces<'a>> {
        let seed = File::open(path)?;
        Ok(match plan.chunking {
            Chunking::FastCdc { average } => {
                let average = average as usize;
                Pieces::ByContent(Box::new(StreamCDC::new(seed, average / 4, average, average * 4)))
            }
            Chunking::Fixed => Pieces::ByOffset { seed, plan, next: 0 },
        })
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Pieces::ByContent(chunks) => match chunks.next() {
                None => Ok(None),
                Some(Ok(chunk)) => Ok(Some(chunk.data)),
                Some(Err(v2020::Error::IoError(error))) => Err(error),
                Some(Err(error)) => Err(io::Error::other(error)),
            },
            Pieces::ByOffset { seed, plan, next } => {
                // Beyond the new file's end the seed is cut on, as long as all pieces have one length.
                let listed = plan.segments.get(*next).map(|segment| segment.plain_len);
                let len = if plan.segment_len > 0 { plan.segment_len } else { listed.unwrap_or(0) };
                *next += 1;
                let mut piece = Vec::with_capacity(len as usize);
                seed.take(u64::from(len)).read_to_end(&mut piece)?;
                Ok((!piece.is_empty()).then_some(piece))
            }
        }
    }

    /// Whether the piece that came last lies where the new file's last segment does.
    fn is_beside_the_last(&self) -> bool {
        matches!(self, Pieces::ByOffset { plan, next, .. } if *next == plan.segments.len())
    }
}
