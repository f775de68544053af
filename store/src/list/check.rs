//! The rules that the parts of a list keep, one function a part. None allocates, and none reads a part before the lengths of all parts are known
//! to make up the document.

use super::layout::{
    CHUNKING_FASTCDC, CHUNKING_FIXED, ENCRYPTION_AES_256_GCM, FLAG_FILE_HASH, FLAG_FILE_HASH_SEALED,
    FLAG_OUTER, FLAGS_KNOWN, HEADER_LEN, Header, KEY_NONE, KEY_OPEN, KEY_WRAPPED, LEN_MIN, RawEntry,
    RawWrapped,
};
use super::{
    Chunking, Compression, LIST_LEN_MAX, ListError, NAME_LEN_MAX, OUTBOARD_SHARDS, WRAPPED_KEY_LEN, group_len,
};
use crate::aead::{FileKey, TAG_LEN};
use crate::erasure::{Code, Shape};
use crate::{SEGMENT_LEN_MAX, outboard};

/// The methods that the header names, all of them known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Methods {
    pub(super) compression: Compression,
    pub(super) is_encrypted: bool,
    pub(super) coding: Option<(Code, Shape)>,
    pub(super) chunking: Chunking,
}

impl Methods {
    /// What encryption adds to a segment, in bytes.
    fn tag_len(&self) -> u32 {
        if self.is_encrypted { TAG_LEN as u32 } else { 0 }
    }
}

pub(super) fn header(header: &Header) -> Result<Methods, ListError> {
    field("header_len", header.header_len.get().into(), HEADER_LEN as u64, "version 2 has 256")?;
    let flags = header.flags.get();
    unsupported("flags", (flags & !FLAGS_KNOWN).into())?;
    unsupported("reserved", header.reserved.iter().any(|byte| *byte != 0).into())?;
    for (name, len) in [("name_len", header.name_len.get()), ("target_len", header.target_len.get())] {
        if usize::from(len) > NAME_LEN_MAX {
            return Err(ListError::Field { field: name, value: len.into(), rule: "at most 255 bytes" });
        }
    }
    let methods = methods(header)?;
    file_hash(header, methods.is_encrypted)?;
    key_and_id(header, methods.is_encrypted)?;
    plain_hashes(header, &methods)?;
    if flags & FLAG_OUTER != 0 {
        outer(header, &methods)?;
    }
    Ok(methods)
}

fn methods(header: &Header) -> Result<Methods, ListError> {
    let compression = match header.compression.get() {
        0 => Compression::None,
        1 => Compression::Zstd,
        other => return Err(ListError::Unsupported { field: "compression", value: other.into() }),
    };
    let is_encrypted = match header.encryption.get() {
        0 => false,
        ENCRYPTION_AES_256_GCM => true,
        other => return Err(ListError::Unsupported { field: "encryption", value: other.into() }),
    };
    let average = header.chunk_len_average.get();
    let chunking = match header.chunking.get() {
        CHUNKING_FIXED => {
            field("chunk_len_average", average.into(), 0, "0 where chunks are not content-defined")?;
            Chunking::Fixed
        }
        CHUNKING_FASTCDC => {
            if !(Chunking::AVERAGE_MIN..=Chunking::AVERAGE_MAX).contains(&average) {
                return Err(ListError::Field {
                    field: "chunk_len_average",
                    value: average.into(),
                    rule: "1024 to 4194304",
                });
            }
            let rule = "0 where chunks are content-defined";
            field("segment_len", header.segment_len.get().into(), 0, rule)?;
            Chunking::FastCdc { average }
        }
        other => return Err(ListError::Unsupported { field: "chunking", value: other.into() }),
    };
    Ok(Methods { compression, is_encrypted, coding: coding(header)?, chunking })
}

fn coding(header: &Header) -> Result<Option<(Code, Shape)>, ListError> {
    let shape =
        Shape { data: usize::from(header.code_data.get()), parity: usize::from(header.code_parity.get()) };
    let parity_count = u64::from(header.parity_count.get());
    let number = header.code.get();
    if number == 0 {
        let rule = "0 where there is no code";
        field("code_data", shape.data as u64, 0, rule)?;
        field("code_parity", shape.parity as u64, 0, rule)?;
        field("parity_count", parity_count, 0, rule)?;
        return Ok(None);
    }
    let code =
        Code::from_number(number).ok_or(ListError::Unsupported { field: "code", value: number.into() })?;
    if shape.data == 0 || shape.parity == 0 || shape.shards() > code.shards_max() {
        return Err(ListError::Field {
            field: "code_data + code_parity",
            value: shape.shards() as u64,
            rule: "one of each at least, and together no more than the code has",
        });
    }
    let groups = u64::from(header.data_count.get()).div_ceil(shape.data as u64);
    let expected = groups * shape.parity as u64;
    field("parity_count", parity_count, expected, "code_parity for each group of code_data segments")?;
    Ok(Some((code, shape)))
}

fn file_hash(header: &Header, is_encrypted: bool) -> Result<(), ListError> {
    let flags = header.flags.get();
    let (is_there, is_sealed) = (flags & FLAG_FILE_HASH != 0, flags & FLAG_FILE_HASH_SEALED != 0);
    let wrong = |field, rule| Err(ListError::Field { field, value: flags.into(), rule });
    if !is_there && header.file_hash != [0; 32] {
        return wrong("file_hash", "zeros where flag 1 is not set");
    }
    if is_sealed && !(is_there && is_encrypted) {
        return wrong("flags", "flag 2 needs flag 1 and encryption");
    }
    if !is_sealed && header.file_hash_tag != [0; 16] {
        return wrong("file_hash_tag", "zeros where flag 2 is not set");
    }
    let is_private = header.key_kind.get() == KEY_WRAPPED;
    if is_private && is_there && !is_sealed {
        return wrong(
            "flags",
            "a file for some readers has no file hash that others can read: flag 2 is missing",
        );
    }
    Ok(())
}

fn key_and_id(header: &Header, is_encrypted: bool) -> Result<(), ListError> {
    let len = header.key_material_len.get();
    let wrong = |rule| Err(ListError::Field { field: "key_material_len", value: len.into(), rule });
    match header.key_kind.get() {
        KEY_NONE if is_encrypted => Err(ListError::Field {
            field: "key_kind",
            value: 0,
            rule: "an encrypted file's list carries its key",
        }),
        KEY_NONE if len != 0 => wrong("0 where there is no key"),
        KEY_NONE if header.file_id != [0; 16] => {
            Err(ListError::Field { field: "file_id", value: 1, rule: "zeros where nothing is encrypted" })
        }
        KEY_NONE => Ok(()),
        kind @ (KEY_OPEN | KEY_WRAPPED) if !is_encrypted => Err(ListError::Field {
            field: "key_kind",
            value: kind.into(),
            rule: "0 where nothing is encrypted",
        }),
        KEY_OPEN if len as usize != FileKey::LEN => wrong("an open key has 32 bytes"),
        KEY_OPEN => Ok(()),
        KEY_WRAPPED if len == 0 || !(len as usize).is_multiple_of(WRAPPED_KEY_LEN) => {
            wrong("a wrapped key has 112 bytes for each receiver, of whom there is one at least")
        }
        KEY_WRAPPED => Ok(()),
        other => Err(ListError::Unsupported { field: "key_kind", value: other.into() }),
    }
}

fn plain_hashes(header: &Header, methods: &Methods) -> Result<(), ListError> {
    let len = header.plain_hashes_len.get();
    let wrong = |rule| Err(ListError::Field { field: "plain_hashes_len", value: len.into(), rule });
    if len == 0 {
        return if header.plain_hashes == [0; 32] {
            Ok(())
        } else {
            wrong("its address is there, its length is not")
        };
    }
    if !methods.is_encrypted && methods.compression == Compression::None {
        return wrong("0 where the segments' own hashes are those of the plain bytes");
    }
    let table_len = u64::from(header.data_count.get()) * 32;
    let expected = table_len + u64::from(methods.tag_len());
    if table_len == 0 || u64::from(len) != expected || len > SEGMENT_LEN_MAX {
        return wrong("32 bytes a data segment and the tag, at most 16777216 bytes");
    }
    Ok(())
}

/// The list of a list is the plainest there is.
fn outer(header: &Header, methods: &Methods) -> Result<(), ListError> {
    let wrong = |rule| Err(ListError::Nesting { rule });
    if methods.compression != Compression::None
        || methods.is_encrypted
        || methods.coding.is_some()
        || methods.chunking != Chunking::Fixed
        || header.outboard_count.get() != 0
    {
        return wrong("the outer list has no compression, encryption, code, chunks by content or outboards");
    }
    if header.flags.get() & FLAG_FILE_HASH == 0 {
        return wrong("the outer list says the hash of the inner one");
    }
    if !(LEN_MIN as u64..=LIST_LEN_MAX as u64).contains(&header.file_len.get()) {
        return wrong("the inner list is as long as a list may be");
    }
    Ok(())
}

/// Receivers are in the order of their UIDs' bytes, each once, so that one is found by binary search.
pub(super) fn wrapped_keys(keys: &[RawWrapped]) -> Result<(), ListError> {
    match keys.windows(2).position(|pair| pair[0].receiver >= pair[1].receiver) {
        None => Ok(()),
        Some(at) => Err(ListError::Segment {
            table: "wrapped key",
            index: at as u32 + 1,
            rule: "receivers are in ascending order, each once",
        }),
    }
}

/// The segments lie one behind the other and make up the file.
pub(super) fn data(header: &Header, methods: &Methods, entries: &[RawEntry]) -> Result<(), ListError> {
    let rules = DataRules::new(header, methods);
    let mut offset = 0u64;
    for (i, entry) in entries.iter().enumerate() {
        if let Some(rule) = rules.broken_by(entry, offset, i + 1 == entries.len()) {
            return Err(ListError::Segment { table: "segment", index: i as u32, rule });
        }
        // At most 2^32 segments of 2^24 bytes: no overflow.
        offset += u64::from(entry.plain_len.get());
    }
    field("file_len", header.file_len.get(), offset, "the segments' plain lengths must add up to it")
}

struct DataRules {
    is_compressed: bool,
    tag_len: u32,
    /// 0: uneven.
    segment_len: u32,
    /// Bounds of a plain length; the lower one does not hold for the last.
    plain_min: u32,
    plain_max: u32,
}

impl DataRules {
    fn new(header: &Header, methods: &Methods) -> DataRules {
        let (plain_min, plain_max) = match methods.chunking {
            Chunking::Fixed => (1, SEGMENT_LEN_MAX),
            Chunking::FastCdc { average } => (average / 4, average * 4),
        };
        DataRules {
            is_compressed: methods.compression != Compression::None,
            tag_len: methods.tag_len(),
            segment_len: header.segment_len.get(),
            plain_min,
            plain_max,
        }
    }

    #[inline]
    fn broken_by(&self, entry: &RawEntry, offset: u64, is_last: bool) -> Option<&'static str> {
        let (stored_len, plain_len) = (entry.stored_len.get(), entry.plain_len.get());
        let least = if is_last { 1 } else { self.plain_min };
        // Before the first comparison with it, `stored_len` is known to be longer than the tag.
        if stored_len <= self.tag_len || stored_len > SEGMENT_LEN_MAX {
            Some("a segment has at least one byte beside its tag, and at most 16777216")
        } else if plain_len < least || plain_len > self.plain_max {
            Some("its plain length is out of the bounds of its chunking")
        } else if !self.is_compressed && plain_len != stored_len - self.tag_len {
            Some("without compression its plain length is its stored length without the tag")
        } else if plain_len < stored_len - self.tag_len {
            Some("compressed it must not be longer than its plain bytes")
        } else if entry.file_offset.get() != offset {
            Some("it must start where the one before ends")
        } else if self.segment_len != 0
            && (plain_len > self.segment_len || plain_len < self.segment_len && !is_last)
        {
            Some("all but the last have the list's segment length")
        } else {
            None
        }
    }
}

/// Every parity segment is as long as its group's longest data segment, rounded up as the code asks.
pub(super) fn parity(methods: &Methods, data: &[RawEntry], parity: &[RawEntry]) -> Result<(), ListError> {
    let Some((code, shape)) = methods.coding else { return Ok(()) };
    for (g, (data, parity)) in data.chunks(shape.data).zip(parity.chunks(shape.parity)).enumerate() {
        let longest = data.iter().map(|entry| entry.stored_len.get()).max().unwrap_or(0);
        let broken = |at: usize, rule| ListError::Segment { table: "parity segment", index: at as u32, rule };
        let first = g * shape.parity;
        let len = group_len(code, shape, longest.into()).map_err(|_| {
            broken(first, "a group's segments have at most 268435456 bytes, a shard 16777216")
        })?;
        for (i, entry) in parity.iter().enumerate() {
            if entry.stored_len.get() != len {
                return Err(broken(
                    first + i,
                    "its length is that of its group's longest segment, rounded up",
                ));
            }
            if entry.file_offset.get() != 0 || entry.plain_len.get() != 0 {
                return Err(broken(first + i, "its offset and plain length are 0"));
            }
        }
    }
    Ok(())
}

/// Each document has exactly the outboards of its shards.
pub(super) fn outboards(
    header: &Header,
    data: &[RawEntry],
    parity: &[RawEntry],
    outboards: &[RawEntry],
) -> Result<(), ListError> {
    let block = u64::from(header.outboard_block.get());
    if outboards.is_empty() {
        return field("outboard_block", block, 0, "0 where there are no outboards");
    }
    if block != u64::from(outboard::BLOCK_LOG2) {
        return Err(ListError::Unsupported { field: "outboard_block", value: block });
    }
    let shards = data.len() as u64 + parity.len() as u64;
    let rule = "none, or one for each 1024 shards";
    field("outboard_count", outboards.len() as u64, shards.div_ceil(OUTBOARD_SHARDS.into()), rule)?;
    let mut lens = data.iter().chain(parity).map(|entry| outboard::len_of(entry.stored_len.get()));
    for (i, entry) in outboards.iter().enumerate() {
        let broken = |rule| ListError::Segment { table: "outboard document", index: i as u32, rule };
        // 1,024 outboards of at most 255 nodes of 64 bytes: no overflow.
        let len: u32 = lens.by_ref().take(OUTBOARD_SHARDS as usize).sum();
        if entry.stored_len.get() != len {
            return Err(broken("its length is that of its shards' outboards"));
        }
        if entry.file_offset.get() != i as u64 * u64::from(OUTBOARD_SHARDS) || entry.plain_len.get() != 0 {
            return Err(broken("its offset is the number of its first shard, its plain length is 0"));
        }
        if len == 0 && entry.hash != [0; 32] {
            return Err(broken("what is empty has no address"));
        }
    }
    Ok(())
}

pub(super) fn text<'a>(field: &'static str, padded: &'a [u8], len: usize) -> Result<&'a str, ListError> {
    let (bytes, padding) = padded.split_at(len);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(ListError::Text { field, rule: "must be padded with zeros" });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ListError::Text { field, rule: "must be UTF-8" })?;
    if text.chars().any(char::is_control) {
        return Err(ListError::Text { field, rule: "must not have control characters" });
    }
    Ok(text)
}

pub(super) fn field(
    field: &'static str,
    value: u64,
    expected: u64,
    rule: &'static str,
) -> Result<(), ListError> {
    if value == expected { Ok(()) } else { Err(ListError::Field { field, value, rule }) }
}

fn unsupported(field: &'static str, value: u64) -> Result<(), ListError> {
    if value == 0 { Ok(()) } else { Err(ListError::Unsupported { field, value }) }
}
