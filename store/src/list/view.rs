//! Reading a list in place.

use identity::{Domain, SecretKey, Signature, Uid};
use zerocopy::FromBytes;

use super::check::{self, Methods, field};
use super::layout::{
    FLAG_FILE_HASH, FLAG_FILE_HASH_SEALED, FLAG_OUTER, HEADER_LEN, Header, KEY_OPEN, LEN_MIN, MAGIC,
    RawEntry, RawWrapped, SIGNATURE_LEN, VERSION, padded,
};
use super::{
    Chunking, Compression, ENTRY_LEN, Group, KeyError, KeyMaterial, LIST_LEN_MAX, ListError,
    SEAL_INDEX_FILE_HASH, WrappedKeys,
};
use crate::Hash;
use crate::aead::{FileId, FileKey, NotAuthentic, SegmentCipher};
use crate::erasure::{Code, Shape};

/// A list whose bounds and signature hold, read in place.
#[derive(Clone, Copy, Debug)]
pub struct ListView<'a> {
    document: &'a [u8],
    header: &'a Header,
    methods: Methods,
    name: &'a str,
    target: &'a str,
    key_material: &'a [u8],
    data: &'a [RawEntry],
    parity: &'a [RawEntry],
    outboards: &'a [RawEntry],
}

/// A data segment as the list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// BLAKE3 of its stored bytes: its address.
    pub hash: Hash,
    /// Where its first plain byte is in the file.
    pub file_offset: u64,
    /// Bytes that are stored and transferred: compressed and encrypted, the tag included.
    pub stored_len: u32,
    /// Bytes of the file.
    pub plain_len: u32,
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
        let digest = Hash::of(signed);
        list.publisher().verify(Domain::ContentList, digest.as_bytes(), &Signature(bytes))?;
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
        let methods = check::header(header)?;
        field("document_len", header.document_len.get(), len, "it must be the document's length")?;

        // Three counts of at most 2^32 entries of 48 bytes and lengths of at most 2^32: their sum cannot overflow. It must be the
        // whole document, so that whatever is taken off below is there.
        let name_len = usize::from(header.name_len.get());
        let target_len = usize::from(header.target_len.get());
        let key_len = header.key_material_len.get();
        let counts = [header.data_count, header.parity_count, header.outboard_count].map(|count| count.get());
        let entries_len = counts.map(u64::from).iter().sum::<u64>() * ENTRY_LEN as u64;
        let fixed_len = (HEADER_LEN + padded(name_len) + padded(target_len) + SIGNATURE_LEN) as u64;
        let needed = fixed_len + u64::from(key_len) + entries_len;
        field(
            "document_len",
            len,
            needed,
            "header, texts, key material, entries and signature must fill it",
        )?;

        let (name, rest) = rest.split_at(padded(name_len));
        let (target, rest) = rest.split_at(padded(target_len));
        let (key_material, rest) = rest.split_at(key_len as usize);
        let name = check::text("name", name, name_len)?;
        let target = check::text("target", target, target_len)?;
        if name.is_empty() {
            return Err(ListError::Text { field: "name", rule: "must not be empty" });
        }
        if header.key_kind.get() != KEY_OPEN {
            check::wrapped_keys(wrapped(key_material))?;
        }
        let tables = &rest[..rest.len() - SIGNATURE_LEN];
        let Ok(entries) = <[RawEntry]>::ref_from_bytes(tables) else {
            return Err(ListError::Field {
                field: "data_count",
                value: entries_len,
                rule: "entries of 48 bytes",
            });
        };
        let (data, entries) = entries.split_at(counts[0] as usize);
        let (parity, outboards) = entries.split_at(counts[1] as usize);
        check::data(header, &methods, data)?;
        check::parity(&methods, data, parity)?;
        check::outboards(header, data, parity, outboards)?;
        Ok(ListView { document, header, methods, name, target, key_material, data, parity, outboards })
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

    /// BLAKE3 of the whole file, if the list says it in the clear.
    pub fn file_hash(&self) -> Option<Hash> {
        let flags = self.header.flags.get() & (FLAG_FILE_HASH | FLAG_FILE_HASH_SEALED);
        (flags == FLAG_FILE_HASH).then_some(Hash(self.header.file_hash))
    }

    /// BLAKE3 of the whole file, if the list says it, for whoever has the file's key.
    ///
    /// # Errors
    /// The key is not this file's.
    pub fn file_hash_by(&self, key: &FileKey) -> Result<Option<Hash>, NotAuthentic> {
        if self.header.flags.get() & FLAG_FILE_HASH_SEALED == 0 {
            return Ok(self.file_hash());
        }
        let mut sealed = [0u8; 48];
        sealed[..32].copy_from_slice(&self.header.file_hash);
        sealed[32..].copy_from_slice(&self.header.file_hash_tag);
        let mut hash = [0u8; 32];
        let cipher = SegmentCipher::new(key, self.file_id());
        hash.copy_from_slice(cipher.open(SEAL_INDEX_FILE_HASH, &mut sealed)?);
        Ok(Some(Hash(hash)))
    }

    /// Whether the file is a content list itself, too long for a segment: see [`ListView::open_inner`].
    pub fn is_outer(&self) -> bool {
        self.header.flags.get() & FLAG_OUTER != 0
    }

    /// Whether the data segments, one behind the other, are the file, and the file is what was published.
    pub fn is_plain(&self) -> bool {
        self.compression() == Compression::None && !self.is_encrypted() && !self.is_outer()
    }

    /// What was done to make segments shorter.
    pub fn compression(&self) -> Compression {
        self.methods.compression
    }

    /// Whether segments are encrypted (AES-256-GCM, [`crate::aead`]).
    pub fn is_encrypted(&self) -> bool {
        self.methods.is_encrypted
    }

    /// How the file was cut.
    pub fn chunking(&self) -> Chunking {
        self.methods.chunking
    }

    /// Length in bytes of all segments but the last, of their plain bytes; 0: uneven.
    pub fn segment_len(&self) -> u32 {
        self.header.segment_len.get()
    }

    /// The code and the shape of its groups; `None` if there is no parity.
    pub fn coding(&self) -> Option<(Code, Shape)> {
        self.methods.coding
    }

    /// What the encryption is bound to; zeros if there is none.
    pub fn file_id(&self) -> FileId {
        FileId(self.header.file_id)
    }

    /// How the file's key is given.
    pub fn key_material(&self) -> KeyMaterial<'a> {
        match <&[u8; FileKey::LEN]>::try_from(self.key_material) {
            _ if !self.is_encrypted() => KeyMaterial::None,
            Ok(key) if self.header.key_kind.get() == KEY_OPEN => KeyMaterial::Open(FileKey::from_bytes(key)),
            _ => {
                let (id, publisher) = (self.file_id(), self.publisher());
                KeyMaterial::Wrapped(WrappedKeys { keys: wrapped(self.key_material), id, publisher })
            }
        }
    }

    /// The file's key, for the holder of `secret` where it is wrapped; `None` if the file is not encrypted.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn file_key(&self, secret: Option<&SecretKey>) -> Result<Option<FileKey>, KeyError> {
        match self.key_material() {
            KeyMaterial::None => Ok(None),
            KeyMaterial::Open(key) => Ok(Some(key)),
            KeyMaterial::Wrapped(keys) => {
                let secret = secret.ok_or(KeyError::NoSecret { receivers: keys.len() })?;
                keys.unwrap(secret).map(Some)
            }
        }
    }

    /// Number of data segments.
    pub fn data_count(&self) -> u32 {
        self.header.data_count.get()
    }

    /// Number of parity segments.
    pub fn parity_count(&self) -> u32 {
        self.header.parity_count.get()
    }

    /// Number of shards: data and parity segments.
    pub fn shard_count(&self) -> u32 {
        self.data_count() + self.parity_count()
    }

    /// Number of groups; 0 if there is no code.
    pub fn group_count(&self) -> u32 {
        self.coding().map_or(0, |(_, shape)| self.data_count().div_ceil(shape.data as u32))
    }

    /// Data segment `i`, or `None` past the last.
    pub fn entry(&self, i: u32) -> Option<Entry> {
        self.data.get(i as usize).map(Entry::from_raw)
    }

    /// All data segments in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> + use<'a> {
        self.data.iter().map(Entry::from_raw)
    }

    /// Address and stored length in bytes of shard `i`, data segments first, then parity segments; `None` past the last.
    pub fn shard(&self, i: u32) -> Option<(Hash, u32)> {
        let at = i as usize;
        let entry = self.data.get(at).or_else(|| self.parity.get(at - self.data.len()))?;
        Some((Hash(entry.hash), entry.stored_len.get()))
    }

    /// All shards: address and stored length in bytes.
    pub fn shards(&self) -> impl Iterator<Item = (Hash, u32)> + use<'a> {
        self.data.iter().chain(self.parity).map(|entry| (Hash(entry.hash), entry.stored_len.get()))
    }

    /// Group `g`, or `None` past the last.
    pub fn group(&self, g: u32) -> Option<Group> {
        let (_, shape) = self.coding()?;
        if g >= self.group_count() {
            return None;
        }
        let (k, m, n) = (shape.data as u32, shape.parity as u32, self.data_count());
        let data = g * k..n.min((g + 1) * k);
        let parity = n + g * m..n + (g + 1) * m;
        let shard_len = self.parity[(g * m) as usize].stored_len.get();
        Some(Group { data, parity, shard_len, shape })
    }

    /// The group that shard `i` belongs to; `None` past the last shard, or if there is no code.
    pub fn group_of(&self, i: u32) -> Option<u32> {
        let (_, shape) = self.coding()?;
        match i.checked_sub(self.data_count()) {
            None => Some(i / shape.data as u32),
            Some(parity) if parity < self.parity_count() => Some(parity / shape.parity as u32),
            Some(_) => None,
        }
    }

    /// The outboard documents in order, each with the number of the first of its 1,024 shards, its address and its length in bytes. Nothing if the
    /// list has none; one of length 0 has no address, for none of its shards is longer than a block.
    pub fn outboards(&self) -> impl ExactSizeIterator<Item = (u32, Hash, u32)> + use<'a> {
        // Below 2^32, as was checked: it is the number of a shard.
        let read =
            |entry: &RawEntry| (entry.file_offset.get() as u32, Hash(entry.hash), entry.stored_len.get());
        self.outboards.iter().map(read)
    }

    /// Address and stored length in bytes of the table of plain hashes, if there is one ([`crate::pipeline`] opens it).
    pub fn plain_hashes(&self) -> Option<(Hash, u32)> {
        let len = self.header.plain_hashes_len.get();
        (len != 0).then_some((Hash(self.header.plain_hashes), len))
    }

    /// Addresses of all that the list names: shards, outboard documents, plain hashes. What a node must hold to hold the file.
    pub fn names(&self) -> impl Iterator<Item = Hash> + use<'a> {
        let outboards = self.outboards.iter().filter(|entry| entry.stored_len.get() > 0);
        let entries = self.data.iter().chain(self.parity).chain(outboards).map(|entry| Hash(entry.hash));
        entries.chain(self.plain_hashes().map(|(hash, _)| hash))
    }

    /// The segment that holds byte `offset` of the file, and the offset within its plain bytes; `None` past the end.
    pub fn locate(&self, offset: u64) -> Option<(u32, u32)> {
        if offset >= self.file_len() {
            return None;
        }
        // Offsets start at 0 and grow, as was checked: one at least is not above `offset`.
        let i = self.data.partition_point(|entry| entry.file_offset.get() <= offset) - 1;
        Some((i as u32, (offset - self.data[i].file_offset.get()) as u32))
    }
}

impl Entry {
    fn from_raw(raw: &RawEntry) -> Entry {
        Entry {
            hash: Hash(raw.hash),
            file_offset: raw.file_offset.get(),
            stored_len: raw.stored_len.get(),
            plain_len: raw.plain_len.get(),
        }
    }
}

/// The wrapped keys of a section whose length was checked to be a multiple of a key's.
fn wrapped(section: &[u8]) -> &[RawWrapped] {
    <[RawWrapped]>::ref_from_bytes(section).unwrap_or(&[])
}
