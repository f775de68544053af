//! Making and signing a list.

use identity::{Domain, SecretKey};
use zerocopy::IntoBytes;

use super::layout::{
    ENTRY_LEN, Entry, FLAG_FILE_HASH, HEADER_LEN, Header, LEN_MIN, MAGIC, SIGNATURE_LEN, VERSION, padded,
};
use super::{LIST_LEN_MAX, ListError, ListView, NAME_LEN_MAX};
use crate::Hash;

/// What goes into a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListBuilder {
    /// The publisher's name for the file, 1 to 255 bytes, no control characters.
    pub name: String,
    /// Semantic version: major, minor, patch.
    pub version: (u32, u32, u32),
    /// Grows with every list that the publisher signs under this name.
    pub counter: u64,
    /// Seconds since 1970 (UTC) after which the list is not to be used; 0: never.
    pub expires_s: u64,
    /// Which product the file is for, at most 255 bytes; may be empty.
    pub target: String,
    /// BLAKE3 of the whole file.
    pub file_hash: Option<Hash>,
    /// The segments in order: address and length in bytes.
    pub segments: Vec<(Hash, u32)>,
}

impl ListBuilder {
    /// The signed document, at most [`LIST_LEN_MAX`] bytes. The same list and key give the same bytes.
    ///
    /// # Errors
    /// [`ListError`] if a field is out of its range: what this returns, [`ListView::open`] takes.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, ListError> {
        for (field, text) in [("name", &self.name), ("target", &self.target)] {
            if text.len() > NAME_LEN_MAX {
                return Err(ListError::Text { field, rule: "must have at most 255 bytes" });
            }
        }
        let texts_len = padded(self.name.len()) + padded(self.target.len());
        let len = HEADER_LEN + texts_len + self.segments.len() * ENTRY_LEN + SIGNATURE_LEN;
        if len > LIST_LEN_MAX {
            return Err(ListError::Length { len: len as u64, min: LEN_MIN as u64, max: LIST_LEN_MAX as u64 });
        }

        let mut document = Vec::with_capacity(len);
        document.extend_from_slice(self.header(len, key).as_bytes());
        for text in [&self.name, &self.target] {
            document.extend_from_slice(text.as_bytes());
            document.resize(document.len().next_multiple_of(8), 0);
        }
        let mut file_offset = 0u64;
        for (hash, len) in &self.segments {
            let (stored_len, plain_len) = ((*len).into(), (*len).into());
            let entry = Entry { hash: hash.0, file_offset: file_offset.into(), stored_len, plain_len };
            document.extend_from_slice(entry.as_bytes());
            file_offset += u64::from(*len);
        }
        let signature = key.sign(Domain::ContentList, &document);
        document.extend_from_slice(&signature.0);
        // One set of rules for both directions.
        ListView::parse(&document)?;
        Ok(document)
    }

    fn header(&self, document_len: usize, key: &SecretKey) -> Header {
        let (major, minor, patch) = self.version;
        Header {
            magic: MAGIC,
            version: VERSION.into(),
            flags: if self.file_hash.is_some() { FLAG_FILE_HASH } else { 0 }.into(),
            header_len: (HEADER_LEN as u32).into(),
            document_len: (document_len as u64).into(),
            publisher: *key.uid().as_bytes(),
            counter: self.counter.into(),
            expires_s: self.expires_s.into(),
            version_major: major.into(),
            version_minor: minor.into(),
            version_patch: patch.into(),
            segment_len: self.segment_len().into(),
            file_len: self.segments.iter().map(|(_, len)| u64::from(*len)).sum::<u64>().into(),
            file_hash: self.file_hash.map_or([0; 32], |hash| hash.0),
            segment_count: (self.segments.len() as u32).into(),
            parity_count: 0.into(),
            compression: 0.into(),
            encryption: 0.into(),
            code: 0.into(),
            name_len: (self.name.len() as u16).into(),
            code_data: 0.into(),
            code_parity: 0.into(),
            target_len: (self.target.len() as u16).into(),
            reserved_a: 0.into(),
            key_material_len: 0.into(),
            reserved_b: 0.into(),
            file_id: [0; 16],
            reserved_c: [0; 80],
        }
    }

    /// The length that all segments but the last have, or 0 if there is none such.
    fn segment_len(&self) -> u32 {
        let Some(((_, last), others)) = self.segments.split_last() else { return 0 };
        let first = others.first().map_or(*last, |(_, len)| *len);
        let is_even = others.iter().all(|(_, len)| *len == first) && *last <= first;
        if is_even { first } else { 0 }
    }
}
