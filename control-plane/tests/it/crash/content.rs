//! Files that stand for a seed, so that what was published need not be kept to be compared.

use identity::SecretKey;
use peer::PublishOptions;
use store::Hash;
use store::list::ListBuilder;

/// SplitMix64: small, and the same everywhere.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `end` - 1. The bias is far below what a test could notice.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A file to publish. Its bytes, name and list follow from these numbers.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub seed: u64,
    pub len: usize,
    pub segment_len: u32,
    /// Whether its list names outboards: those of publishers do, that of an import does not.
    pub has_outboards: bool,
}

impl File {
    /// Mostly small files of a few small segments, now and then one of megabytes.
    pub fn draw(seeded: &mut Seeded) -> File {
        let (len_max, segment_len_max) =
            if seeded.below(12) == 0 { (4 << 20, 1 << 20) } else { (96 << 10, 24 << 10) };
        let segment_len = seeded.below(segment_len_max - 512) + 512;
        // Not so many segments that one file outlasts a round.
        let len = (seeded.below(len_max) + 1).min(segment_len * 40);
        File { seed: seeded.next(), len: len as usize, segment_len: segment_len as u32, has_outboards: true }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut seeded = Seeded(self.seed);
        let mut bytes = Vec::with_capacity(self.len.next_multiple_of(8));
        while bytes.len() < self.len {
            bytes.extend_from_slice(&seeded.next().to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }

    pub fn name(&self) -> String {
        format!("{:016x}.bin", self.seed)
    }

    pub fn options(&self) -> PublishOptions {
        PublishOptions { segment_len: self.segment_len, ..PublishOptions::new(self.name()) }
    }

    /// The outboards of its segments, one behind the other: one document, for it has fewer segments than a document has room for.
    pub fn outboards(&self) -> Vec<u8> {
        let mut outboards = Vec::new();
        if self.has_outboards {
            for segment in segments(&self.bytes(), self.segment_len) {
                store::outboard::append(segment, &mut outboards);
            }
        }
        outboards
    }

    /// The list that publishing with [`File::options`] signs.
    pub fn list(&self, key: &SecretKey) -> Vec<u8> {
        let bytes = self.bytes();
        let options = self.options();
        let outboards = match self.outboards() {
            _ if !self.has_outboards => Vec::new(),
            empty if empty.is_empty() => vec![(Hash([0; 32]), 0)],
            document => vec![(Hash::of(&document), document.len() as u32)],
        };
        let builder = ListBuilder {
            name: options.name,
            version: options.version,
            counter: options.counter,
            expires_s: options.expires_s,
            target: options.target,
            file_hash: Some(Hash::of(&bytes)),
            outboards,
            ..ListBuilder::plain(segments(&bytes, self.segment_len).map(|s| (Hash::of(s), s.len() as u32)))
        };
        builder.sign(key).unwrap()
    }
}

pub fn segments(bytes: &[u8], segment_len: u32) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(segment_len as usize)
}
