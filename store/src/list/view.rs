//! Reading a list in place.

use identity::{Domain, Signature, Uid};
use zerocopy::FromBytes;

use super::layout::{
    ENTRY_LEN, Entry, FLAG_FILE_HASH, HEADER_LEN, Header, LEN_MIN, MAGIC, SIGNATURE_LEN, VERSION, padded,
};
use super::{LIST_LEN_MAX, ListError, NAME_LEN_MAX};
use crate::{Hash, SEGMENT_LEN_MAX};

/// A list whose bounds and signature hold, read in place.
#[derive(Clone, Copy, Debug)]
pub struct ListView<'a> {
    document: &'a [u8],
    header: &'a Header,
    name: &'a str,
    target: &'a str,
    entries: &'a [Entry],
}

impl<'a> ListView<'a> {
    /// Checks bounds and structure, then the signature; only then is there anything to read. Whether the publisher is
    /// one to trust, the list has expired or its counter went back is for the caller to judge.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn open(document: &'a [u8]) -> Result<ListView<'a>, ListError> {
        let list = ListView::parse(document)?;
        let (signed, signature) = document.split_at(document.len() - SIGNATURE_LEN);
        let mut bytes = [0u8; SIGNATURE_LEN];
        bytes.copy_from_slice(signature);
        list.publisher().verify(Domain::ContentList, signed, &Signature(bytes))?;
        Ok(list)
    }

    /// Everything but the signature.
    pub(super) fn parse(document: &'a [u8]) -> Result<ListView<'a>, ListError> {
        let len = document.len() as u64;
        let length_error = ListError::Length { len, min: LEN_MIN as u64, max: LIST_LEN_MAX as u64 };
        if document.len() < LEN_MIN || document.len() > LIST_LEN_MAX {
            return Err(length_error);
        }
        let (header, rest) = Header::ref_from_prefix(document).map_err(|_| length_error)?;
        if header.magic != MAGIC {
            return Err(ListError::Magic);
        }
        if header.version.get() != VERSION {
            return Err(ListError::Version { found: header.version.get() });
        }
        check_known(header)?;
        check_field("document_len", header.document_len.get(), len, "it must be the document's length")?;

        // Lengths are at most 2^16 and 2^32 x 48, so their sum cannot overflow; it must be the whole document.
        let name_len = usize::from(header.name_len.get());
        let target_len = usize::from(header.target_len.get());
        let entries_len = u64::from(header.segment_count.get()) * ENTRY_LEN as u64;
        let needed =
            (HEADER_LEN + padded(name_len) + padded(target_len) + SIGNATURE_LEN) as u64 + entries_len;
        check_field("document_len", len, needed, "header, texts, segments and signature must fill it")?;

        let (name, rest) = rest.split_at(padded(name_len));
        let (target, rest) = rest.split_at(padded(target_len));
        let name = text("name", name, name_len)?;
        let target = text("target", target, target_len)?;
        if name.is_empty() {
            return Err(ListError::Text { field: "name", rule: "must not be empty" });
        }
        let entries = &rest[..rest.len() - SIGNATURE_LEN];
        let Ok(entries) = <[Entry]>::ref_from_bytes(entries) else {
            return Err(ListError::Field {
                field: "segment_count",
                value: entries_len,
                rule: "entries of 48 bytes",
            });
        };
        check_entries(header, entries)?;
        Ok(ListView { document, header, name, target, entries })
    }

    /// The list's address: BLAKE3 of the whole document.
    pub fn hash(&self) -> Hash {
        Hash::of(self.document)
    }

    /// Who signed it.
    pub fn publisher(&self) -> Uid {
        Uid::from_bytes(self.header.publisher)
    }

    /// The publisher's name for the file, 1 to 255 bytes, no control characters. Not a path: whoever makes a file name
    /// of it must deal with slashes and dots.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Which product the file is for, at most 255 bytes; may be empty.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// Semantic version: major, minor, patch.
    pub fn version(&self) -> (u32, u32, u32) {
        (self.header.version_major.get(), self.header.version_minor.get(), self.header.version_patch.get())
    }

    /// Grows with every list that the publisher signs under this name, so that an old list cannot pass for the newest.
    pub fn counter(&self) -> u64 {
        self.header.counter.get()
    }

    /// Seconds since 1970 (UTC) after which the list is not to be used; 0: never.
    pub fn expires_s(&self) -> u64 {
        self.header.expires_s.get()
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.header.file_len.get()
    }

    /// BLAKE3 of the whole file, if the list says it.
    pub fn file_hash(&self) -> Option<Hash> {
        (self.header.flags.get() & FLAG_FILE_HASH != 0).then_some(Hash(self.header.file_hash))
    }

    /// Number of segments.
    pub fn segment_count(&self) -> u32 {
        self.header.segment_count.get()
    }

    /// Address and length in bytes of segment `i`, or `None` past the last.
    pub fn segment(&self, i: u32) -> Option<(Hash, u32)> {
        self.entries.get(i as usize).map(|entry| (Hash(entry.hash), entry.stored_len.get()))
    }

    /// All segments in order: address and length in bytes.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (Hash, u32)> + use<'a> {
        self.entries.iter().map(|entry| (Hash(entry.hash), entry.stored_len.get()))
    }

    /// Where segment `i` starts in the file, or `None` past the last.
    pub fn offset_of(&self, i: u32) -> Option<u64> {
        self.entries.get(i as usize).map(|entry| entry.file_offset.get())
    }

    /// The segment that holds byte `offset` of the file, and the offset within it; `None` past the end.
    pub fn locate(&self, offset: u64) -> Option<(u32, u32)> {
        if offset >= self.file_len() {
            return None;
        }
        // Offsets start at 0 and grow, as was checked: one at least is not above `offset`.
        let i = self.entries.partition_point(|entry| entry.file_offset.get() <= offset) - 1;
        Some((i as u32, (offset - self.entries[i].file_offset.get()) as u32))
    }
}

/// Fields that version 1 draws and does not use yet: a list that sets them needs a newer reader.
fn check_known(header: &Header) -> Result<(), ListError> {
    let unused = [
        ("flags", u64::from(header.flags.get() & !FLAG_FILE_HASH)),
        ("compression", header.compression.get().into()),
        ("encryption", header.encryption.get().into()),
        ("code", header.code.get().into()),
        ("code_data", header.code_data.get().into()),
        ("code_parity", header.code_parity.get().into()),
        ("parity_count", header.parity_count.get().into()),
        ("key_material_len", header.key_material_len.get().into()),
        ("file_id", header.file_id.iter().any(|byte| *byte != 0).into()),
        ("reserved", header.reserved_a.get().into()),
        ("reserved", header.reserved_b.get().into()),
        ("reserved", header.reserved_c.iter().any(|byte| *byte != 0).into()),
    ];
    if let Some((field, value)) = unused.into_iter().find(|(_, value)| *value != 0) {
        return Err(ListError::Unsupported { field, value });
    }
    check_field("header_len", header.header_len.get().into(), HEADER_LEN as u64, "version 1 has 256")?;
    for (field, len) in [("name_len", header.name_len.get()), ("target_len", header.target_len.get())] {
        if usize::from(len) > NAME_LEN_MAX {
            return Err(ListError::Field { field, value: len.into(), rule: "at most 255 bytes" });
        }
    }
    let has_hash = header.flags.get() & FLAG_FILE_HASH != 0;
    if !has_hash && header.file_hash != [0; 32] {
        return Err(ListError::Field {
            field: "file_hash",
            value: 1,
            rule: "zeros where the flag is not set",
        });
    }
    Ok(())
}

/// The segments lie one behind the other and make up the file.
fn check_entries(header: &Header, entries: &[Entry]) -> Result<(), ListError> {
    let segment_len = header.segment_len.get();
    let mut offset = 0u64;
    for (i, entry) in entries.iter().enumerate() {
        let (stored_len, is_last) = (entry.stored_len.get(), i + 1 == entries.len());
        let broken = if stored_len == 0 || stored_len > SEGMENT_LEN_MAX {
            "a segment has 1 to 16777216 bytes"
        } else if entry.plain_len.get() != stored_len {
            "without compression and encryption its plain length is its stored length"
        } else if entry.file_offset.get() != offset {
            "it must start where the one before ends"
        } else if segment_len != 0 && (stored_len > segment_len || stored_len < segment_len && !is_last) {
            "all but the last have the list's segment length"
        } else {
            // At most 2^32 segments of 2^24 bytes: no overflow.
            offset += u64::from(stored_len);
            continue;
        };
        return Err(ListError::Segment { index: i as u32, rule: broken });
    }
    check_field("file_len", header.file_len.get(), offset, "the segments' lengths must add up to it")
}

fn check_field(field: &'static str, value: u64, expected: u64, rule: &'static str) -> Result<(), ListError> {
    if value == expected { Ok(()) } else { Err(ListError::Field { field, value, rule }) }
}

fn text<'a>(field: &'static str, padded: &'a [u8], len: usize) -> Result<&'a str, ListError> {
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
