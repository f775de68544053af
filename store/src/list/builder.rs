//! Making and signing a list.

use identity::{Domain, SecretKey};
use zerocopy::IntoBytes;

use super::layout::{
    CHUNKING_FASTCDC, CHUNKING_FIXED, ENCRYPTION_AES_256_GCM, ENTRY_LEN, FLAG_FILE_HASH,
    FLAG_FILE_HASH_SEALED, FLAG_OUTER, HEADER_LEN, Header, KEY_NONE, LEN_MIN, MAGIC, RawEntry, SIGNATURE_LEN,
    VERSION, padded,
};
use super::{
    Chunking, Compression, LIST_LEN_MAX, ListError, ListView, NAME_LEN_MAX, OUTBOARD_SHARDS, Readers,
    SEAL_INDEX_FILE_HASH,
};
use crate::aead::{FileId, FileKey, SegmentCipher};
use crate::erasure::{Code, Shape};
use crate::{Hash, outboard};

/// What goes into a list. [`ListBuilder::plain`] fills in what a file needs whose segments are its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// BLAKE3 of the whole file. Written encrypted where the key is wrapped.
    pub file_hash: Option<Hash>,
    /// The data segments in order.
    pub segments: Vec<DataSegment>,
    /// How the file was cut.
    pub chunking: Chunking,
    /// What was done to make segments shorter.
    pub compression: Compression,
    /// The key under which segments were sealed.
    pub encryption: Option<Encryption>,
    /// What brings lost segments back.
    pub parity: Option<Parity>,
    /// Outboard documents, each of 1,024 shards in order: address and length in bytes; one of length 0 stands for nothing.
    pub outboards: Vec<(Hash, u32)>,
    /// Address and stored length in bytes of the table of plain hashes.
    pub plain_hashes: Option<(Hash, u32)>,
}

/// A data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSegment {
    /// BLAKE3 of its stored bytes.
    pub hash: Hash,
    /// Bytes that are stored, the tag included.
    pub stored_len: u32,
    /// Bytes of the file.
    pub plain_len: u32,
}

/// The code, and what it made of the data segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parity {
    /// Which code.
    pub code: Code,
    /// k and m.
    pub shape: Shape,
    /// m segments for each group of k data segments, group by group: address and length in bytes.
    pub segments: Vec<(Hash, u32)>,
}

/// How the file was encrypted, and who may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// The key of this publication of this file, and of nothing else.
    pub key: FileKey,
    /// What the segments are bound to.
    pub id: FileId,
    /// Who gets the key.
    pub readers: Readers,
}

impl ListBuilder {
    /// A list of segments that are the file's bytes: address and length in bytes of each. Everything else is empty.
    pub fn plain(segments: impl IntoIterator<Item = (Hash, u32)>) -> ListBuilder {
        let segments = segments
            .into_iter()
            .map(|(hash, len)| DataSegment { hash, stored_len: len, plain_len: len })
            .collect();
        ListBuilder { segments, ..ListBuilder::default() }
    }

    /// The signed document, at most [`LIST_LEN_MAX`] bytes. The same list and key give the same bytes.
    ///
    /// # Errors
    /// [`ListError`] if a field is out of its range: what this returns, [`ListView::open`] takes.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, ListError> {
        self.sign_with(key, 0)
    }

    /// The signed list of a file that is a list.
    pub(super) fn sign_outer(&self, key: &SecretKey) -> Result<Vec<u8>, ListError> {
        self.sign_with(key, FLAG_OUTER)
    }

    fn sign_with(&self, key: &SecretKey, flags: u16) -> Result<Vec<u8>, ListError> {
        for (field, text) in [("name", &self.name), ("target", &self.target)] {
            if text.len() > NAME_LEN_MAX {
                return Err(ListError::Text { field, rule: "must have at most 255 bytes" });
            }
        }
        let parity = self.parity.as_ref().map_or(&[][..], |parity| &parity.segments);
        let (key_kind, key_material) = match &self.encryption {
            Some(encryption) => encryption.readers.to_section(&encryption.key),
            None => (KEY_NONE, Vec::new().into()),
        };
        let texts_len = padded(self.name.len()) + padded(self.target.len());
        let entries = self.segments.len() + parity.len() + self.outboards.len();
        let len = HEADER_LEN + texts_len + key_material.len() + entries * ENTRY_LEN + SIGNATURE_LEN;
        if len > LIST_LEN_MAX {
            return Err(ListError::Length { len: len as u64, min: LEN_MIN as u64, max: LIST_LEN_MAX as u64 });
        }

        let mut header = self.header(key, flags);
        header.document_len = (len as u64).into();
        header.key_kind = key_kind.into();
        header.key_material_len = (key_material.len() as u32).into();
        let mut document = Vec::with_capacity(len);
        document.extend_from_slice(header.as_bytes());
        for text in [&self.name, &self.target] {
            document.extend_from_slice(text.as_bytes());
            document.resize(document.len().next_multiple_of(8), 0);
        }
        document.extend_from_slice(&key_material);
        self.push_entries(&mut document, parity);
        let signature = key.sign(Domain::ContentList, Hash::of(&document).as_bytes());
        document.extend_from_slice(&signature.0);
        // One set of rules for both directions.
        ListView::parse(&document)?;
        Ok(document)
    }

    fn push_entries(&self, document: &mut Vec<u8>, parity: &[(Hash, u32)]) {
        let mut push = |hash: Hash, file_offset: u64, stored_len: u32, plain_len: u32| {
            let entry = RawEntry {
                hash: hash.0,
                file_offset: file_offset.into(),
                stored_len: stored_len.into(),
                plain_len: plain_len.into(),
            };
            document.extend_from_slice(entry.as_bytes());
        };
        let mut file_offset = 0;
        for segment in &self.segments {
            push(segment.hash, file_offset, segment.stored_len, segment.plain_len);
            file_offset += u64::from(segment.plain_len);
        }
        for (hash, len) in parity {
            push(*hash, 0, *len, 0);
        }
        for (i, (hash, len)) in self.outboards.iter().enumerate() {
            push(*hash, i as u64 * u64::from(OUTBOARD_SHARDS), *len, 0);
        }
    }

    /// All but the document's length and the key material.
    fn header(&self, key: &SecretKey, flags: u16) -> Header {
        let (major, minor, patch) = self.version;
        let (chunking, chunk_len_average) = match self.chunking {
            Chunking::Fixed => (CHUNKING_FIXED, 0),
            Chunking::FastCdc { average } => (CHUNKING_FASTCDC, average),
        };
        let (code, shape, parity_count) = match &self.parity {
            Some(parity) => (parity.code as u16, parity.shape, parity.segments.len()),
            None => (0, Shape { data: 0, parity: 0 }, 0),
        };
        let (plain_hashes, plain_hashes_len) = self.plain_hashes.unwrap_or((Hash([0; 32]), 0));
        let (hash_flags, file_hash, file_hash_tag) = self.written_file_hash();
        Header {
            magic: MAGIC,
            version: VERSION.into(),
            flags: (flags | hash_flags).into(),
            header_len: (HEADER_LEN as u32).into(),
            document_len: 0.into(),
            publisher: *key.uid().as_bytes(),
            counter: self.counter.into(),
            expires_s: self.expires_s.into(),
            version_major: major.into(),
            version_minor: minor.into(),
            version_patch: patch.into(),
            segment_len: self.segment_len().into(),
            file_len: self.segments.iter().map(|segment| u64::from(segment.plain_len)).sum::<u64>().into(),
            file_hash,
            data_count: (self.segments.len() as u32).into(),
            parity_count: (parity_count as u32).into(),
            compression: (self.compression as u16).into(),
            encryption: if self.encryption.is_some() { ENCRYPTION_AES_256_GCM } else { 0 }.into(),
            code: code.into(),
            name_len: (self.name.len() as u16).into(),
            code_data: u16::try_from(shape.data).unwrap_or(u16::MAX).into(),
            code_parity: u16::try_from(shape.parity).unwrap_or(u16::MAX).into(),
            target_len: (self.target.len() as u16).into(),
            key_kind: KEY_NONE.into(),
            key_material_len: 0.into(),
            outboard_count: (self.outboards.len() as u32).into(),
            file_id: self.encryption.as_ref().map_or([0; 16], |encryption| encryption.id.0),
            file_hash_tag,
            plain_hashes: plain_hashes.0,
            plain_hashes_len: plain_hashes_len.into(),
            chunk_len_average: chunk_len_average.into(),
            chunking: chunking.into(),
            outboard_block: if self.outboards.is_empty() { 0 } else { u16::from(outboard::BLOCK_LOG2) }
                .into(),
            reserved: [0; 20],
        }
    }

    /// Flags, hash and tag: where only some may read the file, the hash would let others confirm a guess.
    fn written_file_hash(&self) -> (u16, [u8; 32], [u8; 16]) {
        match (self.file_hash, &self.encryption) {
            (None, _) => (0, [0; 32], [0; 16]),
            (Some(hash), Some(Encryption { key, id, readers: Readers::Wrapped(_) })) => {
                let mut sealed = hash.0;
                let tag = SegmentCipher::new(key, *id).seal(SEAL_INDEX_FILE_HASH, &mut sealed);
                (FLAG_FILE_HASH | FLAG_FILE_HASH_SEALED, sealed, tag)
            }
            (Some(hash), _) => (FLAG_FILE_HASH, hash.0, [0; 16]),
        }
    }

    /// The plain length that all segments but the last have, or 0 if there is none such.
    fn segment_len(&self) -> u32 {
        if self.chunking != Chunking::Fixed {
            return 0;
        }
        let mut lens = self.segments.iter().map(|segment| segment.plain_len);
        let Some(last) = lens.next_back() else { return 0 };
        let first = lens.clone().next().unwrap_or(last);
        let is_even = lens.all(|len| len == first) && last <= first;
        if is_even { first } else { 0 }
    }
}
