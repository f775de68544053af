//! Encrypted and coded files: any k of k + m shards, wrong bytes noticed within 64 KiB, keys.

use bytes::Bytes;
use http::Method;
use identity::SecretKey;
use peer::fetch::LostGroup;
use peer::{ExchangeError, FetchError, FetchOptions, Fetched, Node, fetch_to_file, fetch_to_writer};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use store::Hash;
use store::aead::{FileId, FileKey, SegmentCipher};
use store::erasure::{Code, Codec, Shape};
use store::list::{DataSegment, Encryption, ListBuilder, OUTBOARD_SHARDS, Parity, Readers, WrappedKey};
use store::outboard;

use crate::content::{client, fetch_afresh, fetch_options, nodes, progress, random_file};
use crate::node::{Fault, Rule, TestNode};

const KIB: usize = 1024;

/// How a file is published.
#[derive(Clone)]
pub struct Recipe {
    pub segment_len: usize,
    pub shape: Option<Shape>,
    pub is_encrypted: bool,
    pub has_outboards: bool,
    /// Nobody: the key is open.
    pub receivers: Vec<SecretKey>,
}

impl Recipe {
    /// 4 + 2, encrypted, with outboards, the key open.
    pub fn usual(segment_len: usize) -> Recipe {
        let shape = Some(Shape { data: 4, parity: 2 });
        Recipe { segment_len, shape, is_encrypted: true, has_outboards: true, receivers: Vec::new() }
    }
}

/// A published file: what nodes hold, and what a receiver should get.
pub struct CodedFile {
    pub bytes: Bytes,
    /// Stored bytes of data shards, then of parity shards.
    pub shards: Vec<Bytes>,
    pub outboards: Vec<Bytes>,
    pub document: Bytes,
    pub list: Hash,
    pub shape: Shape,
    data_count: usize,
}

impl CodedFile {
    pub fn new(seed: u8, len: usize, recipe: &Recipe) -> CodedFile {
        CodedFile::with(seed, len, recipe, |_| {})
    }

    /// As `change` makes the list before it is signed.
    pub fn with(seed: u8, len: usize, recipe: &Recipe, change: impl FnOnce(&mut ListBuilder)) -> CodedFile {
        let bytes = random_file(seed, len);
        let publisher = SecretKey::from_seed([seed; 32]);
        let (key, id) = (FileKey::from_bytes(&[seed; 32]), FileId([seed; 16]));
        let cipher = recipe.is_encrypted.then(|| SegmentCipher::new(&key, id));
        let mut shards: Vec<Bytes> = Vec::new();
        let mut segments = Vec::new();
        for (index, plain) in bytes.chunks(recipe.segment_len).enumerate() {
            let mut stored = plain.to_vec();
            if let Some(cipher) = &cipher {
                let tag = cipher.seal(index as u64, &mut stored);
                stored.extend_from_slice(&tag);
            }
            let (stored_len, plain_len) = (stored.len() as u32, plain.len() as u32);
            segments.push(DataSegment { hash: Hash::of(&stored), stored_len, plain_len });
            shards.push(stored.into());
        }
        let data_count = shards.len();
        let code = Code::ReedSolomon256;
        let parity = recipe.shape.map(|shape| parity_of(&shards, code, shape)).unwrap_or_default();
        shards.extend(parity.iter().cloned());
        let outboards: Vec<Bytes> = match recipe.has_outboards {
            true => shards.chunks(OUTBOARD_SHARDS as usize).map(outboards_of).collect(),
            false => Vec::new(),
        };
        // What is empty has no address.
        let address = |bytes: &Bytes| match bytes.len() {
            0 => (Hash([0; 32]), 0),
            len => (Hash::of(bytes), len as u32),
        };
        let mut list = ListBuilder {
            name: "firmware.bin".to_owned(),
            version: (1, 2, 3),
            counter: 7,
            file_hash: Some(Hash::of(&bytes)),
            segments,
            encryption: recipe.is_encrypted.then(|| Encryption {
                key: key.clone(),
                id,
                readers: readers(&key, id, &publisher, &recipe.receivers),
            }),
            parity: recipe.shape.map(|shape| Parity {
                code,
                shape,
                segments: parity.iter().map(address).collect(),
            }),
            outboards: outboards.iter().map(address).collect(),
            ..ListBuilder::plain([])
        };
        change(&mut list);
        let document: Bytes = list.sign(&publisher).expect("a valid list").into();
        let shape = recipe.shape.unwrap_or(Shape { data: 1, parity: 0 });
        CodedFile { bytes, shards, outboards, list: Hash::of(&document), document, shape, data_count }
    }

    /// Everything a node needs to serve the file.
    pub fn content(&self) -> Vec<Bytes> {
        [&self.shards[..], &self.outboards, std::slice::from_ref(&self.document)].concat()
    }

    pub fn groups(&self) -> usize {
        self.data_count.div_ceil(self.shape.data)
    }

    /// The shards of a group, data first.
    pub fn group(&self, group: usize) -> Vec<usize> {
        let data = group * self.shape.data..((group + 1) * self.shape.data).min(self.data_count);
        let parity = self.data_count + group * self.shape.parity;
        data.chain(parity..parity + self.shape.parity).collect()
    }

    pub fn hash(&self, shard: usize) -> Hash {
        Hash::of(&self.shards[shard])
    }

    /// Nodes of which none holds a shard that another has.
    pub fn spread(&self, nodes: usize) -> Vec<TestNode> {
        let made: Vec<_> = (0..nodes).map(|_| TestNode::start(&[], vec![])).collect();
        for group in 0..self.groups() {
            for (ordinal, shard) in self.group(group).into_iter().enumerate() {
                made[(group + ordinal) % nodes].insert(self.shards[shard].clone());
            }
        }
        for node in &made {
            node.insert(self.document.clone());
            self.outboards.iter().for_each(|outboards| node.insert(outboards.clone()));
        }
        made
    }
}

fn parity_of(data: &[Bytes], code: Code, shape: Shape) -> Vec<Bytes> {
    let mut codec = Codec::new(code, shape).expect("a shape of the code");
    let mut parity = Vec::new();
    for group in data.chunks(shape.data) {
        let longest = group.iter().map(Bytes::len).max().unwrap_or(0);
        let len = longest.next_multiple_of(code.shard_align());
        let mut padded: Vec<Vec<u8>> = group.iter().map(|shard| shard.to_vec()).collect();
        padded.resize(shape.data, Vec::new());
        padded.iter_mut().for_each(|shard| shard.resize(len, 0));
        let data: Vec<&[u8]> = padded.iter().map(Vec::as_slice).collect();
        let mut made = vec![vec![0; len]; shape.parity];
        let mut into: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(&data, &mut into).expect("shards of one length");
        parity.extend(made.into_iter().map(Bytes::from));
    }
    parity
}

fn outboards_of(shards: &[Bytes]) -> Bytes {
    let mut outboards = Vec::new();
    for shard in shards {
        outboard::append(shard, &mut outboards);
    }
    outboards.into()
}

fn readers(key: &FileKey, id: FileId, publisher: &SecretKey, receivers: &[SecretKey]) -> Readers {
    if receivers.is_empty() {
        return Readers::Open;
    }
    let mut random = StdRng::seed_from_u64(1);
    let seal = |receiver: &SecretKey| {
        WrappedKey::seal(key, id, &publisher.uid(), &receiver.uid(), &mut random)
            .expect("a key that can receive")
    };
    Readers::Wrapped(receivers.iter().map(seal).collect())
}

async fn fetch(nodes: &[Node], file: &CodedFile, options: &FetchOptions) -> Result<Fetched, FetchError> {
    fetch_afresh(nodes, &file.list, &file.bytes, options).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn every_subset_of_lost_shards_up_to_m_restores_the_file() {
    let runtime = runtime();
    // A group of 4 and one of 3, whose last segment is short.
    let recipe = Recipe::usual(4 * KIB);
    let file = CodedFile::new(1, 6 * 4 * KIB + 100, &recipe);
    for lost in 0u32..64 {
        if lost.count_ones() > 2 {
            continue;
        }
        runtime.block_on(async {
            let node = TestNode::start(&file.content(), vec![]);
            for group in 0..2 {
                let shards = file.group(group);
                for (ordinal, shard) in
                    shards.iter().enumerate().filter(|(ordinal, _)| lost >> ordinal & 1 == 1)
                {
                    assert!(ordinal < 6);
                    node.remove(&file.hash(*shard));
                }
            }
            let client = client();
            let handles = nodes(&client, &[&node]);
            fetch(&handles, &file, &fetch_options()).await.unwrap_or_else(|e| panic!("{lost:06b}: {e}"));
            let mut streamed = Vec::new();
            let fetched =
                fetch_to_writer(&handles, &file.list, &mut streamed, &fetch_options(), &progress()).await;
            fetched.unwrap_or_else(|e| panic!("{lost:06b}: {e}"));
            assert!(streamed == file.bytes, "{lost:06b}");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_alone_is_fetched_while_it_is_there() {
    let file = CodedFile::new(2, 20 * 4 * KIB, &Recipe::usual(4 * KIB));
    let made = file.spread(3);
    let client = client();
    let handles = nodes(&client, &made.iter().collect::<Vec<_>>());
    fetch(&handles, &file, &fetch_options()).await.unwrap();
    for parity in file.data_count..file.shards.len() {
        assert!(made.iter().all(|node| node.gets_of(&file.hash(parity)) == 0), "parity shard {parity}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_too_many_lost_is_told_with_groups_and_numbers() {
    let file = CodedFile::new(3, 20 * 4 * KIB, &Recipe::usual(4 * KIB));
    let node = TestNode::start(&file.content(), vec![]);
    for (group, lost) in [(1, 3), (3, 3), (4, 2)] {
        file.group(group).iter().take(lost).for_each(|shard| node.remove(&file.hash(*shard)));
    }
    let client = client();
    let handles = nodes(&client, &[&node]);
    let error = fetch(&handles, &file, &fetch_options()).await.unwrap_err();
    let FetchError::LostGroups { groups, .. } = &error else { panic!("{error}") };
    let lost: Vec<_> = groups.0.iter().map(|(lost, _)| *lost).collect();
    assert_eq!(
        lost,
        [
            LostGroup { group: 1, shards: 6, needed: 4, missing: 3 },
            LostGroup { group: 3, shards: 6, needed: 4, missing: 3 },
        ]
    );
    let text = error.to_string();
    assert!(
        text.contains("group 1 (bytes 16384 to 32768) takes 4 of its 6 shards, of which 3 are missing"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_may_be_whole_without_any_data_shard() {
    // 2 + 4: all data lost.
    let shape = Some(Shape { data: 2, parity: 4 });
    let file = CodedFile::new(4, 9 * 4 * KIB + 5, &Recipe { shape, ..Recipe::usual(4 * KIB) });
    let node = TestNode::start(&file.content(), vec![]);
    (0..file.data_count).for_each(|shard| node.remove(&file.hash(shard)));
    let client = client();
    fetch(&nodes(&client, &[&node]), &file, &fetch_options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_byte_is_noticed_within_a_block() {
    const SEGMENT: usize = 1024 * KIB;
    let file = CodedFile::new(5, 4 * SEGMENT, &Recipe::usual(SEGMENT));
    // The first block is right, the second is not.
    let liar =
        TestNode::start(&file.content(), vec![Rule::always(Fault::WrongByteAt(100 * KIB)).of(file.hash(0))]);
    let client = client();
    let handles = nodes(&client, &[&liar]);
    let error = fetch(&handles, &file, &fetch_options()).await.unwrap_err();
    let FetchError::AllNodesFailed { failures, .. } = &error else { panic!("{error}") };
    let ExchangeError::WrongBlock { hash, offset } = &failures.0[0].error else { panic!("{error}") };
    assert_eq!((*hash, *offset), (file.hash(0), 64 * KIB as u32));
    assert!(failures.0[0].error.is_misconduct());

    // What came before it is kept: the honest node is asked for the rest.
    let good = TestNode::start(&file.content(), vec![Rule::after(2, Fault::Slow(20))]);
    let liar = TestNode::start(&file.shards, vec![Rule::always(Fault::WrongByteAt(100 * KIB))]);
    let fetched = fetch(&nodes(&client, &[&liar, &good]), &file, &fetch_options()).await.unwrap();
    assert!(fetched.nodes[0].is_misconduct, "{:?}", fetched.nodes[0]);
    assert_eq!(fetched.nodes[0].segments, 0);
    assert!(good.ranges().iter().any(|(_, start)| *start == 64 * KIB), "{:?}", good.ranges());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cut_off_request_verified_is_not_fetched_again() {
    const SEGMENT: usize = 512 * KIB;
    // Without parity, which would be fetched instead of what stalls.
    let file = CodedFile::new(6, 3 * SEGMENT, &Recipe { shape: None, ..Recipe::usual(SEGMENT) });
    for fault in [Fault::Truncate(300 * KIB), Fault::Reset(300 * KIB), Fault::Stall(300 * KIB)] {
        let node = TestNode::start(&file.content(), vec![Rule::first(1, fault).of(file.hash(1))]);
        let client = client();
        fetch(&nodes(&client, &[&node]), &file, &fetch_options())
            .await
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        let ranges: Vec<_> = node.ranges().into_iter().filter(|(hash, _)| *hash == file.hash(1)).collect();
        // A reset may overtake what was sent before it.
        if !matches!(fault, Fault::Reset(_)) {
            assert_eq!(ranges, [(file.hash(1), 256 * KIB)], "{fault:?}: whole blocks are kept");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_no_ranges_or_give_wrong_ones() {
    const SEGMENT: usize = 512 * KIB;
    let file = CodedFile::new(7, 3 * SEGMENT, &Recipe::usual(SEGMENT));
    for (fault, is_liar) in [(Fault::NoRanges, false), (Fault::HalfLength, true), (Fault::LongBody, true)] {
        let rules = |second| {
            vec![
                Rule::first(1, Fault::Reset(300 * KIB)).of(file.hash(1)),
                Rule::after(1, second).of(file.hash(1)),
            ]
        };
        let odd = TestNode::start(&file.content(), rules(fault));
        let client = client();
        let fetched = fetch(&nodes(&client, &[&odd]), &file, &fetch_options()).await;
        assert_eq!(fetched.is_err(), is_liar, "{fault:?}");
        let good = TestNode::start(&file.content(), vec![Rule::always(Fault::Slow(5))]);
        let odd = TestNode::start(&file.content(), rules(fault));
        fetch(&nodes(&client, &[&odd, &good]), &file, &fetch_options()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_outboards_a_file_is_still_fetched() {
    let file = CodedFile::new(8, 5 * 128 * KIB, &Recipe::usual(128 * KIB));
    let node = TestNode::start(&file.content(), vec![]);
    file.outboards.iter().for_each(|outboards| node.remove(&Hash::of(outboards)));
    let client = client();
    fetch(&nodes(&client, &[&node]), &file, &fetch_options()).await.unwrap();

    // A node that lies about them is not used.
    let liar = TestNode::start(
        &file.content(),
        vec![Rule::always(Fault::WrongByte).of(Hash::of(&file.outboards[0]))],
    );
    let good = TestNode::start(&file.content(), vec![]);
    let fetched = fetch(&nodes(&client, &[&liar, &good]), &file, &fetch_options()).await.unwrap();
    assert!(fetched.nodes[0].is_misconduct || fetched.nodes[0].failure.is_none(), "{:?}", fetched.nodes[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_key_opens_for_its_receivers_alone() {
    let (receiver, stranger) = (SecretKey::from_seed([21; 32]), SecretKey::from_seed([22; 32]));
    let receivers = vec![SecretKey::from_seed([20; 32]), receiver.clone()];
    let file = CodedFile::new(9, 9 * 4 * KIB, &Recipe { receivers, ..Recipe::usual(4 * KIB) });
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let handles = nodes(&client, &[&node]);
    let as_who = |identity: Option<SecretKey>| FetchOptions {
        identity: identity.map(std::sync::Arc::new),
        ..fetch_options()
    };
    fetch(&handles, &file, &as_who(Some(receiver.clone()))).await.unwrap();
    let asked = node.requests(&Method::GET);
    for identity in [None, Some(stranger.clone())] {
        let error = fetch(&handles, &file, &as_who(identity.clone())).await.unwrap_err();
        let FetchError::NotForThisIdentity { uid, receivers, .. } = &error else { panic!("{error}") };
        assert_eq!(*uid, identity.map(|key| key.uid()));
        assert!(receivers.contains(&receiver.uid()) && receivers.len() == 2);
        assert!(error.to_string().contains(&receiver.uid().to_string()), "{error}");
    }
    assert_eq!(node.requests(&Method::GET) - asked, 2, "the list alone was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_file_hash_is_checked() {
    let receiver = SecretKey::from_seed([21; 32]);
    let recipe = Recipe { receivers: vec![receiver.clone()], ..Recipe::usual(4 * KIB) };
    let file = CodedFile::with(10, 9 * 4 * KIB, &recipe, |list| list.file_hash = Some(Hash([7; 32])));
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let options = FetchOptions { identity: Some(std::sync::Arc::new(receiver)), ..fetch_options() };
    let error = fetch(&nodes(&client, &[&node]), &file, &options).await.unwrap_err();
    assert!(matches!(error, FetchError::FileHash { expected: Hash([7, ..]), .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_parity_is_the_publishers_fault() {
    let file = CodedFile::with(11, 8 * 4 * KIB, &Recipe::usual(4 * KIB), |list| {
        // The parity of another group: it verifies, and restores nothing.
        let parity = list.parity.as_mut().unwrap();
        parity.segments.swap(0, 2);
        list.outboards.clear();
    });
    let node = TestNode::start(&file.content(), vec![]);
    node.remove(&file.hash(0));
    let client = client();
    let error = fetch(&nodes(&client, &[&node]), &file, &fetch_options()).await.unwrap_err();
    assert!(matches!(error, FetchError::Segment { index: 0, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_where_it_was_cut_off() {
    let file = CodedFile::new(12, 40 * 4 * KIB + 77, &Recipe::usual(4 * KIB));
    let node = TestNode::start(&file.content(), vec![]);
    file.group(5).iter().take(3).for_each(|shard| node.remove(&file.hash(*shard)));
    let client = client();
    let handles = nodes(&client, &[&node]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap_err();
    let before = node.requests(&Method::GET);
    // One data shard comes back, so that the other two can be restored with the parity of the group.
    node.insert(file.shards[file.group(5)[1]].clone());
    let fetched = fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == file.bytes);
    // All but the group that was lost; of that, requests may have been called off.
    assert!(
        fetched.bytes_resumed >= file.bytes.len() as u64 - 4 * 4 * KIB as u64,
        "{}",
        fetched.bytes_resumed
    );
    // The list, four data shards (two in vain), two of parity.
    let asked = node.requests(&Method::GET) - before;
    assert!(asked <= 1 + 4 + 2, "{asked}");
}

#[test]
fn cut_off_at_any_point_with_any_shards_lost() {
    let runtime = runtime();
    let file = CodedFile::new(13, 30 * 4 * KIB + 77, &Recipe::usual(4 * KIB));
    let lost = proptest::collection::vec(0usize..6, 0..2);
    let cuts = proptest::collection::vec(0u64..file.bytes.len() as u64, 1..4);
    proptest!(ProptestConfig::with_cases(32), |(lost in lost, cuts in cuts)| {
        runtime.block_on(async {
            let made = file.spread(3);
            for group in 0..file.groups() {
                for shard in lost.iter().filter_map(|ordinal| file.group(group).get(*ordinal).copied()) {
                    made.iter().for_each(|node| node.remove(&file.hash(shard)));
                }
            }
            let client = client();
            let handles = nodes(&client, &made.iter().collect::<Vec<_>>());
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            for cut_at in &cuts {
                let (sender, mut receiver) = tokio::sync::watch::channel(peer::Progress::default());
                let options = fetch_options();
                let cut = receiver.wait_for(|progress| progress.bytes_verified >= *cut_at);
                tokio::select! {
                    biased;
                    cut = cut => drop(cut.unwrap()),
                    done = fetch_to_file(&handles, &file.list, &out, &options, &sender) => drop(done.unwrap()),
                }
                assert!(!out.exists() || std::fs::read(&out).unwrap() == file.bytes);
            }
            fetch_to_file(&handles, &file.list, &out, &fetch_options(), &progress()).await.unwrap();
            assert!(std::fs::read(&out).unwrap() == file.bytes);
        });
    });
}
