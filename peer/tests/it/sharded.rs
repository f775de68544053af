//! A file with parity and outboards, made by hand, and nodes among which its shards are spread.

use bytes::Bytes;
use identity::SecretKey;
use store::Hash;
use store::erasure::{Code, Codec, Shape};
use store::list::{ListBuilder, OUTBOARD_SHARDS, Parity};
use store::outboard;

use crate::content::random_file;
use crate::node::TestNode;

pub struct CodedFile {
    /// Data segments, then parity segments.
    pub shards: Vec<Bytes>,
    /// By group: numbers of its shards, data first.
    pub groups: Vec<Vec<usize>>,
    /// The list and the outboard documents: what belongs on every node.
    pub documents: Vec<Bytes>,
    pub list: Hash,
}

impl CodedFile {
    pub fn new(seed: u8, len: usize, segment_len: usize, shape: Shape) -> CodedFile {
        let code = Code::ReedSolomon256;
        let bytes = random_file(seed, len);
        let data: Vec<Bytes> = bytes.chunks(segment_len).map(|part| bytes.slice_ref(part)).collect();
        let mut codec = Codec::new(code, shape).unwrap();
        let mut parity_segments = Vec::new();
        let mut groups = Vec::new();
        for (g, group) in data.chunks(shape.data).enumerate() {
            let shard_len =
                group.iter().map(|part| part.len()).max().unwrap().next_multiple_of(code.shard_align());
            let mut padded = vec![vec![0; shard_len]; shape.data];
            for (into, part) in padded.iter_mut().zip(group) {
                into[..part.len()].copy_from_slice(part);
            }
            let mut parity = vec![vec![0; shard_len]; shape.parity];
            let data_slices: Vec<&[u8]> = padded.iter().map(|shard| &shard[..]).collect();
            let mut parity_slices: Vec<&mut [u8]> = parity.iter_mut().map(|shard| &mut shard[..]).collect();
            codec.encode(&data_slices, &mut parity_slices).unwrap();
            parity_segments.extend(parity.into_iter().map(Bytes::from));
            let first_parity = data.len() + g * shape.parity;
            let first = g * shape.data;
            groups.push(
                (first..first + group.len()).chain(first_parity..first_parity + shape.parity).collect(),
            );
        }
        let entry = |shard: &Bytes| (Hash::of(shard), shard.len() as u32);
        let mut shards = data.clone();
        shards.extend(parity_segments.iter().cloned());
        let mut documents = Vec::new();
        let mut outboards = Vec::new();
        for shards in shards.chunks(OUTBOARD_SHARDS as usize) {
            let mut document = Vec::new();
            for shard in shards {
                outboard::append(shard, &mut document);
            }
            let document = Bytes::from(document);
            match document.len() {
                0 => outboards.push((Hash([0; 32]), 0)),
                _ => {
                    outboards.push(entry(&document));
                    documents.push(document);
                }
            }
        }
        let list = ListBuilder {
            name: "firmware.bin".to_owned(),
            version: (1, 2, 3),
            counter: 7,
            file_hash: Some(Hash::of(&bytes)),
            parity: Some(Parity { code, shape, segments: parity_segments.iter().map(entry).collect() }),
            outboards,
            ..ListBuilder::plain(data.iter().map(entry))
        };
        let document: Bytes = list.sign(&SecretKey::from_seed([seed; 32])).unwrap().into();
        let list = Hash::of(&document);
        documents.push(document);
        CodedFile { shards, groups, documents, list }
    }

    pub fn hash(&self, shard: usize) -> Hash {
        Hash::of(&self.shards[shard])
    }

    /// Puts every document on every node, and shard `i` of each group on node `i` modulo their number.
    pub fn spread(&self, nodes: &[&TestNode]) {
        for node in nodes {
            self.documents.iter().for_each(|document| node.insert(document.clone()));
        }
        for group in &self.groups {
            for (ordinal, shard) in group.iter().enumerate() {
                nodes[ordinal % nodes.len()].insert(self.shards[*shard].clone());
            }
        }
    }

    /// How many shards of the group a node holds.
    pub fn held(&self, node: &TestNode, group: usize) -> usize {
        self.groups[group].iter().filter(|shard| node.holds(&self.hash(**shard))).count()
    }

    /// Whether each shard is on one of the nodes.
    pub fn is_whole_on(&self, nodes: &[&TestNode]) -> bool {
        (0..self.shards.len()).all(|shard| nodes.iter().any(|node| node.holds(&self.hash(shard))))
    }
}
