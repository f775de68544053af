//! What a verified list says about the file: its shards, where their plain bytes go, and how they are opened.

use bytes::{Bytes, BytesMut};
use identity::{SecretKey, Uid};
use store::Hash;
use store::aead::{FileKey, SegmentCipher, TAG_LEN};
use store::erasure::{Code, Shape};
use store::list::{Chunking, Entry, Group, KeyMaterial, ListView};
use store::pipeline::{GroupShards, Scratch, SegmentOpener};

use super::FetchOptions;
use super::error::FetchError;
use super::schedule::{GroupIndex, Grouping, ShardIndex};

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
    /// Whether the segments are encrypted.
    pub is_encrypted: bool,
    /// k and m of the code, if there is one.
    pub shape: Option<Shape>,
}

/// The shards of a file, and how they make it up.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) list_hash: Hash,
    pub(crate) grouping: Grouping,
    pub(crate) coding: Option<(Code, Shape)>,
    /// The data shards, in the file's order.
    pub(crate) segments: Vec<Entry>,
    /// The parity shards: address, and length in bytes.
    pub(crate) parity: Vec<(Hash, u32)>,
    /// Outboard documents in order: address, and length in bytes.
    pub(crate) outboards: Vec<(Hash, u32)>,
    pub(crate) chunking: Chunking,
    /// Plain length of all segments but the last, in bytes; 0: uneven.
    pub(crate) segment_len: u32,
    pub(crate) file_len: u64,
    pub(crate) file_hash: Option<Hash>,
    /// Length of the longest shard in bytes.
    pub(crate) shard_len_max: u32,
    /// What makes plain bytes of stored ones.
    opener: SegmentOpener,
    /// What makes stored bytes of plain ones that are not compressed; none where they are the same.
    cipher: Option<SegmentCipher>,
}

impl Plan {
    /// What a shard is addressed by, and its length in bytes.
    pub(crate) fn shard(&self, index: ShardIndex) -> (Hash, u32) {
        match self.segments.get(index as usize) {
            Some(segment) => (segment.hash, segment.stored_len),
            None => self.parity[index as usize - self.segments.len()],
        }
    }

    /// Whether the stored bytes of a data shard can be made of its plain ones: not if it was compressed, because
    /// compressors differ.
    pub(crate) fn can_be_stored_again(&self, index: ShardIndex) -> bool {
        let tag_len = if self.cipher.is_some() { TAG_LEN as u32 } else { 0 };
        let is_as_is = |segment: &Entry| segment.stored_len == segment.plain_len + tag_len;
        self.segments.get(index as usize).is_some_and(is_as_is)
    }

    /// Whether the stored bytes of a data shard are its plain ones.
    pub(crate) fn is_stored_as_it_is(&self, index: ShardIndex) -> bool {
        self.cipher.is_none() && self.can_be_stored_again(index)
    }

    /// Bytes of the file that a shard brings by itself: none if it is parity.
    pub(crate) fn plain_len(&self, index: ShardIndex) -> u64 {
        self.segments.get(index as usize).map_or(0, |segment| u64::from(segment.plain_len))
    }

    /// Data shards of a group in bytes of the file.
    pub(crate) fn group_bytes(&self, group: GroupIndex) -> std::ops::Range<u64> {
        let data = self.grouping.data_of(group);
        let end = |segment: &Entry| segment.file_offset + u64::from(segment.plain_len);
        let segments = &self.segments[data.start as usize..data.end as usize];
        segments.first().map_or(0, |segment| segment.file_offset)..segments.last().map_or(0, end)
    }

    /// The plain bytes of a data shard.
    pub(crate) fn open(
        &self,
        index: ShardIndex,
        stored: Bytes,
        scratch: &mut Scratch,
    ) -> Result<Bytes, FetchError> {
        let segment = &self.segments[index as usize];
        let is_as_is = self.can_be_stored_again(index);
        if is_as_is && self.cipher.is_none() {
            return Ok(stored);
        }
        let mut stored = stored.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let plain = self.opener.open(index, segment, &mut stored, scratch);
        let plain = plain.map_err(|e| FetchError::Segment { index, reason: e.to_string() })?;
        if !is_as_is {
            return Ok(Bytes::copy_from_slice(plain));
        }
        // Decrypted in place, without the tag behind it.
        stored.truncate(segment.plain_len as usize);
        Ok(stored.freeze())
    }

    /// The stored bytes of a data shard that [can be stored again](Plan::can_be_stored_again), which must hash to its
    /// address; `None` if the plain bytes are not its.
    pub(crate) fn store_again(&self, index: ShardIndex, plain: Vec<u8>) -> Option<Bytes> {
        let mut stored = plain;
        if let Some(cipher) = &self.cipher {
            let tag = cipher.seal(u64::from(index), &mut stored);
            stored.extend_from_slice(&tag);
        }
        (Hash::of(&stored) == self.segments.get(index as usize)?.hash).then(|| stored.into())
    }

    /// Whether the address of each segment is the hash of its plain bytes.
    pub(crate) fn are_segments_plain(&self) -> bool {
        self.cipher.is_none() && (0..self.segments.len() as u32).all(|index| self.can_be_stored_again(index))
    }

    /// A group as it is restored; `None` if there is no parity.
    pub(crate) fn group(&self, number: GroupIndex) -> Option<GroupShards> {
        let (_, shape) = self.coding?;
        let (data, parity) = (self.grouping.data_of(number), self.grouping.parity_of(number));
        let shard_len = self.shard(parity.start).1;
        let group = Group { data, parity, shard_len, shape };
        let addresses = group.shards().map(|shard| self.shard(shard)).collect();
        Some(GroupShards { number, group, addresses })
    }
}

/// Checks the list (signature first) and the caller's conditions; `now_s` is in seconds since 1970 (UTC).
pub(crate) fn check_list<'a>(
    hash: &Hash,
    document: &'a [u8],
    options: &FetchOptions,
    now_s: u64,
) -> Result<ListView<'a>, FetchError> {
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
    Ok(list)
}

/// What the list says of itself; `hash` is the address by which it was asked for.
pub(crate) fn describe(hash: &Hash, list: &ListView<'_>) -> Listing {
    Listing {
        hash: *hash,
        publisher: list.publisher(),
        name: list.name().to_owned(),
        target: list.target().to_owned(),
        version: list.version(),
        counter: list.counter(),
        expires_s: list.expires_s(),
        file_len: list.file_len(),
        is_encrypted: list.is_encrypted(),
        shape: list.coding().map(|(_, shape)| shape),
    }
}

/// How to put the file together. Takes the key of an encrypted file from the list, with `identity` where it is wrapped.
pub(crate) fn plan(
    hash: &Hash,
    list: &ListView<'_>,
    identity: Option<&SecretKey>,
) -> Result<Plan, FetchError> {
    let key = file_key(hash, list, identity)?;
    let file_hash = match &key {
        Some(key) => list.file_hash_by(key).map_err(|_| FetchError::Inconsistent {
            hash: *hash,
            what: "the file's hash does not open with the file's key",
        })?,
        None => list.file_hash(),
    };
    let coding = list.coding();
    let grouping = match coding {
        Some((_, shape)) => Grouping::new(list.data_count(), shape.data as u32, shape.parity as u32),
        None => Grouping::uncoded(list.data_count()),
    };
    let segments: Vec<_> = list.entries().collect();
    let parity: Vec<_> = list.shards().skip(segments.len()).collect();
    if parity.len() as u64 + segments.len() as u64 != u64::from(grouping.shard_count()) {
        return Err(FetchError::Inconsistent {
            hash: *hash,
            what: "it has another number of parity segments",
        });
    }
    let opener = SegmentOpener::new(list, key.as_ref())
        .map_err(|_| FetchError::Inconsistent { hash: *hash, what: "it is encrypted and has no key" })?;
    Ok(Plan {
        list_hash: *hash,
        grouping,
        coding,
        shard_len_max: list.shards().map(|(_, len)| len).max().unwrap_or(0),
        segments,
        parity,
        outboards: list.outboards().map(|(_, hash, len)| (hash, len)).collect(),
        chunking: list.chunking(),
        segment_len: list.segment_len(),
        file_len: list.file_len(),
        file_hash,
        opener,
        cipher: key.map(|key| SegmentCipher::new(&key, list.file_id())),
    })
}

/// The file's key: the list's own, or the one that is wrapped for `identity`; none if it is not encrypted.
pub(crate) fn file_key(
    hash: &Hash,
    list: &ListView<'_>,
    identity: Option<&SecretKey>,
) -> Result<Option<FileKey>, FetchError> {
    let KeyMaterial::Wrapped(keys) = list.key_material() else {
        return list.file_key(identity).map_err(|reason| FetchError::Key { hash: *hash, reason });
    };
    let uid = identity.map(SecretKey::uid);
    if uid.is_none_or(|uid| keys.of(&uid).is_none()) {
        return Err(FetchError::NotForThisIdentity {
            hash: *hash,
            uid,
            receivers: keys.receivers().collect(),
        });
    }
    list.file_key(identity).map_err(|reason| FetchError::Key { hash: *hash, reason })
}
