//! What a verified list says about the file: where each segment goes and what it must hash to.

use identity::Uid;
use store::Hash;
use store::list::ListView;

use super::FetchOptions;
use super::error::FetchError;

/// The publisher's statement about a fetched file, after its signature and the caller's conditions were
/// checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The list's address.
    pub hash: Hash,
    /// Who signed it.
    pub publisher: Uid,
    /// The publisher's name for the file.
    pub name: String,
    /// Which product the file is for; may be empty.
    pub target: String,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Grows with every list of this name: keep it, and pass it as [`FetchOptions::counter_min`] next time.
    pub counter: u64,
    /// Seconds since 1970 (UTC) after which the list is not to be used; 0: never.
    pub expires_s: u64,
    /// The file's length in bytes.
    pub file_len: u64,
}

/// The segments of a file, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) list_hash: Hash,
    pub(crate) segments: Vec<PlannedSegment>,
    pub(crate) file_len: u64,
    pub(crate) file_hash: Option<Hash>,
    pub(crate) segment_len_max: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PlannedSegment {
    pub(crate) hash: Hash,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// Checks the list (signature first) and the caller's conditions; `now_s` is in seconds since 1970 (UTC).
pub(crate) fn open_list(
    hash: &Hash,
    document: &[u8],
    options: &FetchOptions,
    now_s: u64,
) -> Result<(Listing, Plan), FetchError> {
    let list = ListView::open(document).map_err(|reason| FetchError::List { hash: *hash, reason })?;
    if let Some(expected) = options.publisher
        && expected != list.publisher()
    {
        return Err(FetchError::Publisher { hash: *hash, expected, found: list.publisher() });
    }
    if let Some(counter_min) = options.counter_min
        && list.counter() < counter_min
    {
        return Err(FetchError::Rollback { hash: *hash, counter: list.counter(), counter_min });
    }
    if list.expires_s() != 0 && list.expires_s() <= now_s && !options.allow_expired {
        return Err(FetchError::Expired { hash: *hash, expires_s: list.expires_s(), now_s });
    }
    let plan = plan(hash, &list)?;
    let listing = Listing {
        hash: *hash,
        publisher: list.publisher(),
        name: list.name().to_owned(),
        target: list.target().to_owned(),
        version: list.version(),
        counter: list.counter(),
        expires_s: list.expires_s(),
        file_len: list.file_len(),
    };
    Ok((listing, plan))
}

fn plan(hash: &Hash, list: &ListView<'_>) -> Result<Plan, FetchError> {
    let inconsistent = |what: &'static str| FetchError::Inconsistent { hash: *hash, what };
    if !list.is_plain() {
        return Err(inconsistent(
            "its file is compressed, encrypted or a list itself, which is not fetched yet",
        ));
    }
    let segments: Vec<_> = list
        .entries()
        .map(|entry| PlannedSegment { hash: entry.hash, offset: entry.file_offset, len: entry.stored_len })
        .collect();
    let segment_len_max = segments.iter().map(|segment| segment.len).max().unwrap_or(0);
    let (file_len, file_hash) = (list.file_len(), list.file_hash());
    Ok(Plan { list_hash: *hash, segments, file_len, file_hash, segment_len_max })
}
