//! From a file to stored segments and back, whatever the settings and whatever is lost.

use std::io::{self, Read};

use bytes::Bytes;
use identity::SecretKey;
use proptest::prelude::*;
use store::aead::{FileId, FileKey};
use store::erasure::{Code, Shape};
use store::list::{Chunking, Compression, DataSegment, ListBuilder, ListError, ListView, Parity, Readers};
use store::pipeline::{
    CompressionChoice, ConvergenceSecret, EncodedGroup, Encoder, GroupShards, Input, OpenError,
    PlainHashesError, RestoreError, Restorer, Scratch, SealingKey, SegmentOpener, Settings, SettingsError,
    Stored, make_plain_hashes, open_plain_hashes,
};
use store::{Hash, outboard};

use crate::support::noise;

/// A publication as nodes and receivers see it.
struct Published {
    document: Vec<u8>,
    groups: Vec<EncodedGroup>,
    documents: Vec<Stored>,
}

impl Published {
    fn list(&self) -> ListView<'_> {
        ListView::open(&self.document).unwrap()
    }

    /// The shards of group `g`, as [`Restorer`] takes them.
    fn shards(&self, g: u32) -> Vec<Option<Bytes>> {
        let group = &self.groups[g as usize];
        group.data.iter().chain(&group.parity).map(|stored| Some(stored.bytes.clone())).collect()
    }
}

fn publisher() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn sealing_key() -> SealingKey {
    SealingKey { key: FileKey::from_bytes(&[5; 32]), id: FileId([6; 16]) }
}

fn settings() -> Settings {
    Settings {
        segment_len: 8192,
        compression: CompressionChoice::Off,
        coding: Some((Code::ReedSolomon256, Shape { data: 4, parity: 2 })),
        threads: 2,
        ..Settings::default()
    }
}

fn publish(settings: &Settings, key: Option<SealingKey>, input: Input) -> Published {
    let mut encoder = Encoder::new(settings.clone(), key, input).unwrap();
    let mut groups = Vec::new();
    while let Some(group) = encoder.next_group().unwrap() {
        groups.push(group);
    }
    let mut encoded = encoder.finish().unwrap();
    if let Some(encryption) = &mut encoded.list.encryption {
        encryption.readers = Readers::Open;
    }
    let list = ListBuilder { name: "file".into(), ..encoded.list };
    let document = list.sign(&publisher()).unwrap();
    let mut documents: Vec<_> = groups.iter().flat_map(|group| group.documents.clone()).collect();
    documents.extend(encoded.documents);
    Published { document, groups, documents }
}

/// All that the list promises, and the file.
fn read_back(published: &Published) -> Vec<u8> {
    let list = published.list();
    let key = list.file_key(None).unwrap();
    let opener = SegmentOpener::new(&list, key.as_ref()).unwrap();
    let mut scratch = Scratch::default();
    let mut file = Vec::new();
    let mut index = 0;
    for group in &published.groups {
        assert_eq!(group.first, index);
        for stored in &group.data {
            let entry = list.entry(index).unwrap();
            assert_eq!((entry.hash, entry.file_offset), (Hash::of(&stored.bytes), file.len() as u64));
            let mut bytes = stored.bytes.to_vec();
            file.extend_from_slice(opener.open(index, &entry, &mut bytes, &mut scratch).unwrap());
            index += 1;
        }
    }
    assert_eq!((index, file.len() as u64), (list.data_count(), list.file_len()));
    assert_eq!(list.file_hash(), Some(Hash::of(&file)));
    let parity = published.groups.iter().flat_map(|group| &group.parity);
    for (i, stored) in (list.data_count()..).zip(parity) {
        assert_eq!(list.shard(i), Some((Hash::of(&stored.bytes), stored.bytes.len() as u32)));
    }
    check_documents(published, key.as_ref(), &file);
    file
}

/// Outboards verify every shard; plain hashes are those of the plain segments.
fn check_documents(published: &Published, key: Option<&FileKey>, file: &[u8]) {
    let list = published.list();
    let document = |hash: &Hash| published.documents.iter().find(|stored| stored.hash == *hash);
    let shards: Vec<&Stored> = published
        .groups
        .iter()
        .flat_map(|group| &group.data)
        .chain(published.groups.iter().flat_map(|group| &group.parity))
        .collect();
    for (first, hash, len) in list.outboards() {
        let bytes = if len == 0 { Bytes::new() } else { document(&hash).unwrap().bytes.clone() };
        assert_eq!(bytes.len(), len as usize);
        for shard in first..list.shard_count().min(first + 1024) {
            let outboard = outboard::find(&list, shard, &bytes).unwrap();
            outboard.verify_range(0, &shards[shard as usize].bytes).unwrap();
        }
    }
    if let Some((hash, _)) = list.plain_hashes() {
        let hashes = open_plain_hashes(&list, key, &document(&hash).unwrap().bytes).unwrap();
        let plain = |entry: store::list::Entry| {
            let start = entry.file_offset as usize;
            Hash::of(&file[start..start + entry.plain_len as usize])
        };
        assert_eq!(hashes, list.entries().map(plain).collect::<Vec<_>>());
        let again = make_plain_hashes(&list, key, &hashes);
        assert!(again.unwrap() == document(&hash).unwrap().bytes);
        assert_eq!(make_plain_hashes(&list, key, &hashes[1..]), Err(PlainHashesError::NotNamed));
    }
    assert!(list.names().all(|name| shards.iter().any(|s| s.hash == name) || document(&name).is_some()));
}

/// Text-like bytes, which compress, with noise between.
fn mixed(seed: u64, len: usize) -> Bytes {
    let noise = noise(seed, len);
    (0..len).map(|i| if i / 5000 % 2 == 0 { noise[i] } else { b"the same again. "[i % 16] }).collect()
}

#[test]
fn files_of_all_lengths_come_back() {
    for len in [0, 1, 8191, 8192, 8193, 4 * 8192, 4 * 8192 + 1, 100_000, 1_000_001] {
        let file = mixed(len as u64, len);
        for key in [None, Some(sealing_key())] {
            for compression in
                [CompressionChoice::Off, CompressionChoice::Level(1), CompressionChoice::IfItHelps(3)]
            {
                let settings = Settings { compression, plain_hashes: true, ..settings() };
                let published = publish(&settings, key.clone(), Input::Bytes(file.clone()));
                assert!(read_back(&published) == file, "{len} bytes, {compression:?}");
                assert_eq!(published.list().data_count() as usize, len.div_ceil(8192));
            }
        }
    }
}

#[test]
fn what_does_not_compress_is_stored_as_it_is() {
    let file = noise(1, 100_000);
    let sampled = Settings { compression: CompressionChoice::IfItHelps(3), ..settings() };
    let published = publish(&sampled, Some(sealing_key()), Input::Bytes(file.clone()));
    assert_eq!(published.list().compression(), Compression::None);
    let forced = Settings { compression: CompressionChoice::Level(3), ..settings() };
    let published = publish(&forced, Some(sealing_key()), Input::Bytes(file.clone()));
    let list = published.list();
    assert_eq!(list.compression(), Compression::Zstd);
    assert!(list.entries().all(|entry| entry.stored_len == entry.plain_len + 16));
    assert!(read_back(&published) == file);
    let zeros = Bytes::from(vec![0; 100_000]);
    let published = publish(&sampled, Some(sealing_key()), Input::Bytes(zeros.clone()));
    assert!(published.list().entries().all(|entry| entry.stored_len < 100));
    assert!(read_back(&published) == zeros);
}

/// Reads a few bytes at a time, of lengths that have nothing to do with segments.
struct Dribble(Bytes, usize);

impl Read for Dribble {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 31 % 9973 + 1;
        let len = self.1.min(into.len()).min(self.0.len());
        into[..len].copy_from_slice(&self.0.split_to(len));
        Ok(len)
    }
}

#[test]
fn the_same_input_key_and_settings_give_the_same_bytes_however_it_is_read_and_worked_on() {
    let file = mixed(3, 3_000_000);
    for chunking in [Chunking::Fixed, Chunking::FastCdc { average: 16_384 }] {
        let settings = Settings { chunking, compression: CompressionChoice::IfItHelps(3), ..settings() };
        let first = publish(&settings, Some(sealing_key()), Input::Bytes(file.clone()));
        for (threads, memory_max) in [(1, 1), (3, 1 << 30)] {
            let settings = Settings { threads, memory_max, ..settings.clone() };
            let input = Input::reader(Dribble(file.clone(), 7));
            let again = publish(&settings, Some(sealing_key()), input);
            assert!(again.document == first.document);
            assert!(read_back(&again) == file);
        }
    }
}

/// Where chunks end is part of the format: receivers cut their old files alike, and a publication that goes on under its key must cut as it began. If a
/// new version of the crate cuts elsewhere, it needs a number of its own in lists and in the fingerprint of settings.
#[test]
fn chunks_by_content_end_where_they_always_did() {
    let settings = Settings { chunking: Chunking::FastCdc { average: 4096 }, ..settings() };
    let mut encoder = Encoder::new(settings, None, Input::Bytes(noise(7, 40_000))).unwrap();
    while encoder.next_group().unwrap().is_some() {}
    let list = encoder.finish().unwrap().list;
    let lengths: Vec<u32> = list.segments.iter().map(|segment| segment.plain_len).collect();
    assert_eq!(lengths, [6_115, 1_910, 15_663, 4_885, 11_427]);
}

#[test]
fn chunks_by_content_survive_an_insertion() {
    let file = noise(4, 2_000_000);
    let inserted = [&file[..700_000], b"three words more", &file[700_000..]].concat();
    let settings =
        Settings { chunking: Chunking::FastCdc { average: 16_384 }, plain_hashes: true, ..settings() };
    let hashes = |file: Bytes| {
        let published = publish(&settings, Some(sealing_key()), Input::Bytes(file));
        let list = published.list();
        let (hash, _) = list.plain_hashes().unwrap();
        let document = published.documents.iter().find(|stored| stored.hash == hash).unwrap();
        let key = list.file_key(None).unwrap();
        assert_eq!(open_plain_hashes(&list, None, &document.bytes), Err(PlainHashesError::NoKey));
        assert_eq!(open_plain_hashes(&list, key.as_ref(), b"other"), Err(PlainHashesError::NotNamed));
        open_plain_hashes(&list, key.as_ref(), &document.bytes).unwrap()
    };
    let (old, new) = (hashes(file), hashes(inserted.into()));
    let kept = new.iter().filter(|hash| old.contains(hash)).count();
    assert!(kept > new.len() * 9 / 10, "{kept} of {} chunks are the same", new.len());
}

/// All subsets of `0..n`, as bit masks.
fn subsets(n: usize) -> impl Iterator<Item = u32> {
    0..1 << n
}

#[test]
fn every_subset_of_lost_shards_up_to_m_comes_back_bit_exactly() {
    for (code, k, m) in [
        (Code::ReedSolomon256, 1, 1),
        (Code::ReedSolomon256, 3, 2),
        (Code::ReedSolomon256, 4, 3),
        (Code::Leopard65536, 3, 2),
        (Code::Leopard65536, 4, 3),
    ] {
        // The last group has 1 to k segments, and compression makes all of them of different lengths.
        for last in 1..=k {
            let file = mixed(9, (k + last) * 8192 - 100);
            let settings = Settings {
                coding: Some((code, Shape { data: k, parity: m })),
                compression: CompressionChoice::Level(1),
                ..settings()
            };
            let published = publish(&settings, Some(sealing_key()), Input::Bytes(file));
            let list = published.list();
            let mut restorer = Restorer::new(&list).unwrap();
            for g in 0..2 {
                let whole = published.shards(g);
                let numbers: Vec<u32> = list.group(g).unwrap().shards().collect();
                for lost in subsets(whole.len()) {
                    let is_lost = |i: &usize| lost & 1 << i != 0;
                    let lost: Vec<usize> = (0..whole.len()).filter(is_lost).collect();
                    let wanted: Vec<u32> = lost.iter().map(|i| numbers[*i]).collect();
                    let mut shards = whole.clone();
                    lost.iter().for_each(|i| shards[*i] = None);
                    let restored = restorer.restore(&GroupShards::of(&list, g).unwrap(), &shards, &wanted);
                    if lost.len() <= m {
                        let restored = restored.unwrap();
                        assert!(lost.iter().zip(restored).all(|(i, bytes)| Some(bytes) == whole[*i]));
                    } else {
                        let present = whole.len() - lost.len();
                        let needed = whole.len() - m;
                        assert_eq!(restored, Err(RestoreError::TooFew { group: g, present, needed }));
                    }
                }
            }
        }
    }
}

#[test]
fn shards_that_are_not_the_groups_are_refused() {
    let published = publish(&settings(), None, Input::Bytes(noise(1, 60_000)));
    let list = published.list();
    let mut restorer = Restorer::new(&list).unwrap();
    let first = GroupShards::of(&list, 0).unwrap();
    let shards = published.shards(0);
    let mut shorter = shards.clone();
    shorter[1] = Some(shards[1].as_ref().unwrap().slice(1..));
    assert_eq!(restorer.restore(&first, &shorter, &[]), Err(RestoreError::Shard { group: 0, shard: 1 }));
    assert_eq!(restorer.restore(&first, &shards, &[2]), Err(RestoreError::Shard { group: 0, shard: 2 }));
    assert_eq!(restorer.restore(&first, &shards, &[4]), Err(RestoreError::Shard { group: 0, shard: 4 }));
    assert!(matches!(restorer.restore(&first, &shards[1..], &[]), Err(RestoreError::Shard { .. })));
    assert_eq!(GroupShards::of(&list, 2), Err(RestoreError::NoGroup { group: 2 }));
    let plain = publish(&Settings { coding: None, ..settings() }, None, Input::Bytes(noise(1, 60_000)));
    assert!(read_back(&plain) == noise(1, 60_000));
    assert_eq!(Restorer::new(&plain.list()).unwrap_err(), RestoreError::NoCode);
}

#[test]
fn parity_that_the_publisher_made_wrongly_is_noticed() {
    let segments: Vec<_> = (0..2).map(|i| noise(i, 100)).collect();
    let wrong = noise(9, 100);
    let list = ListBuilder {
        name: "wrong".into(),
        parity: Some(Parity {
            code: Code::ReedSolomon256,
            shape: Shape { data: 2, parity: 1 },
            segments: vec![(Hash::of(&wrong), 100)],
        }),
        ..ListBuilder::plain(segments.iter().map(|bytes| (Hash::of(bytes), 100)))
    };
    let document = list.sign(&publisher()).unwrap();
    let list = ListView::open(&document).unwrap();
    let mut restorer = Restorer::new(&list).unwrap();
    let shards = [None, Some(segments[1].clone()), Some(wrong)];
    let expected = Hash::of(&segments[0]);
    let refused = restorer.restore(&GroupShards::of(&list, 0).unwrap(), &shards, &[0]);
    assert_eq!(refused, Err(RestoreError::Differs { group: 0, shard: 0, expected }));
}

#[test]
fn a_frame_that_is_longer_than_the_list_says_is_refused_and_writes_nothing_beyond() {
    let bomb = zstd::bulk::compress(&vec![0; 8 << 20], 19).unwrap();
    let short = zstd::bulk::compress(&[0; 900], 19).unwrap();
    let garbage = vec![0xaa; 500];
    for (frame, reason) in [(bomb, "longer"), (short, "shorter"), (garbage, "no frame")] {
        let segment = DataSegment { hash: Hash::of(&frame), stored_len: frame.len() as u32, plain_len: 1000 };
        let list = ListBuilder {
            name: "bomb".into(),
            compression: Compression::Zstd,
            segments: vec![segment],
            ..ListBuilder::default()
        };
        let document = list.sign(&publisher()).unwrap();
        let list = ListView::open(&document).unwrap();
        let opener = SegmentOpener::new(&list, None).unwrap();
        let mut stored = frame.clone();
        let mut scratch = Scratch::default();
        let refused = opener.open(0, &list.entry(0).unwrap(), &mut stored, &mut scratch);
        assert!(matches!(refused, Err(OpenError::Decompress { index: 0, plain_len: 1000, .. })), "{reason}");
    }
}

#[test]
fn a_segment_opens_in_its_place_alone_and_with_its_key_alone() {
    let published = publish(&settings(), Some(sealing_key()), Input::Bytes(noise(1, 60_000)));
    let list = published.list();
    let opener = SegmentOpener::new(&list, Some(&sealing_key().key)).unwrap();
    let entry = list.entry(0).unwrap();
    let mut scratch = Scratch::default();
    let mut second = published.groups[0].data[1].bytes.to_vec();
    assert!(matches!(opener.open(0, &entry, &mut second, &mut scratch), Err(OpenError::NotAuthentic(_))));
    let mut cut = published.groups[0].data[0].bytes[1..].to_vec();
    assert!(matches!(opener.open(0, &entry, &mut cut, &mut scratch), Err(OpenError::Length { .. })));
    let other = SegmentOpener::new(&list, Some(&FileKey::from_bytes(&[1; 32]))).unwrap();
    let mut first = published.groups[0].data[0].bytes.to_vec();
    assert!(matches!(other.open(0, &entry, &mut first, &mut scratch), Err(OpenError::NotAuthentic(_))));
    assert!(SegmentOpener::new(&list, None).is_err());
}

#[test]
fn an_encrypted_list_cannot_be_signed_before_it_has_readers() {
    let encoder = Encoder::new(settings(), Some(sealing_key()), Input::Bytes(noise(1, 10_000))).unwrap();
    let list = ListBuilder { name: "file".into(), ..encoder.finish().unwrap().list };
    assert!(matches!(list.sign(&publisher()), Err(ListError::Field { field: "key_material_len", .. })));
}

#[test]
fn a_convergent_key_follows_from_file_settings_and_secret() {
    let secret = ConvergenceSecret::from_bytes([1; 32]);
    let hash = Hash::of(b"firmware");
    let key = SealingKey::convergent(&secret, &hash, &settings());
    assert_eq!(key, SealingKey::convergent(&secret, &hash, &Settings { threads: 7, ..settings() }));
    assert_ne!(key, SealingKey::convergent(&secret, &Hash::of(b"other"), &settings()));
    assert_ne!(key, SealingKey::convergent(&ConvergenceSecret::from_bytes([2; 32]), &hash, &settings()));
    assert_ne!(key, SealingKey::convergent(&secret, &hash, &Settings { segment_len: 4096, ..settings() }));
    let file = noise(2, 50_000);
    let publish_it = || publish(&settings(), Some(key.clone()), Input::Bytes(file.clone()));
    assert!(publish_it().document == publish_it().document);
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        match Encoder::new(settings, Some(sealing_key()), Input::Bytes(Bytes::new())) {
            Err(store::pipeline::EncodeError::Settings(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused(&|s| s.segment_len = 0), SettingsError::SegmentLen { .. }));
    // The tag does not fit any more.
    assert!(matches!(refused(&|s| s.segment_len = 16 << 20), SettingsError::SegmentLen { .. }));
    let average = |average| move |s: &mut Settings| s.chunking = Chunking::FastCdc { average };
    assert!(matches!(refused(&average(512)), SettingsError::Average { average: 512 }));
    assert!(matches!(refused(&average(5000)), SettingsError::Average { average: 5000 }));
    assert!(matches!(
        refused(&|s| s.compression = CompressionChoice::Level(99)),
        SettingsError::Level { .. }
    ));
    let shape = |data, parity| {
        move |s: &mut Settings| s.coding = Some((Code::ReedSolomon256, Shape { data, parity }))
    };
    assert!(matches!(refused(&shape(0, 1)), SettingsError::Shape(_)));
    assert!(matches!(refused(&shape(200, 57)), SettingsError::Shape(_)));
    let large = |s: &mut Settings| {
        shape(100, 10)(s);
        s.segment_len = 8 << 20;
    };
    assert!(matches!(refused(&large), SettingsError::Group(_)));
}

#[test]
fn outboards_of_more_shards_than_a_document_has() {
    // 1,100 segments and 550 parity segments: documents end among data segments, across the border and at the end.
    let settings = Settings {
        segment_len: 70_000,
        coding: Some((Code::ReedSolomon256, Shape { data: 4, parity: 2 })),
        ..settings()
    };
    let file = Bytes::from(vec![1; 1100 * 70_000]);
    let published = publish(&settings, None, Input::Bytes(file.clone()));
    assert_eq!(published.list().outboards().len(), 2);
    assert_eq!(published.groups.iter().map(|group| group.documents.len()).sum::<usize>(), 1);
    assert!(read_back(&published) == file);
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let chunking = prop_oneof![
        Just((Chunking::Fixed, 4096)),
        (100u32..20_000).prop_map(|len| (Chunking::Fixed, len)),
        (10u32..15).prop_map(|log2| (Chunking::FastCdc { average: 1 << log2 }, 1)),
    ];
    let compression = prop_oneof![
        Just(CompressionChoice::Off),
        Just(CompressionChoice::Level(1)),
        Just(CompressionChoice::IfItHelps(-5)),
    ];
    let coding =
        prop::option::of((any::<bool>(), 1usize..12, 1usize..6).prop_map(|(leopard, data, parity)| {
            let code = if leopard { Code::Leopard65536 } else { Code::ReedSolomon256 };
            (code, Shape { data, parity })
        }));
    let switches = (any::<bool>(), any::<bool>(), 1usize..4, 1usize..3_000_000);
    (chunking, compression, coding, switches).prop_map(
        |((chunking, segment_len), compression, coding, (outboards, plain_hashes, threads, memory_max))| {
            Settings {
                chunking,
                segment_len,
                compression,
                coding,
                outboards,
                plain_hashes,
                threads,
                memory_max,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_file_with_any_settings_comes_back(
        settings in any_settings(),
        encrypted: bool,
        read: bool,
        len in 0usize..400_000,
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        seed: u64,
    ) {
        let file = mixed(seed, len);
        let input = if read { Input::reader(Dribble(file.clone(), 1)) } else { Input::Bytes(file.clone()) };
        let published = publish(&settings, encrypted.then(sealing_key), input);
        prop_assert!(read_back(&published) == file);
        let list = published.list();
        let Some((_, shape)) = list.coding() else { return Ok(()) };
        let mut restorer = Restorer::new(&list).unwrap();
        for g in 0..list.group_count() {
            let numbers: Vec<u32> = list.group(g).unwrap().shards().collect();
            let whole = published.shards(g);
            let mut shards = whole.clone();
            for index in lost.iter().take(shape.parity) {
                shards[index.index(whole.len())] = None;
            }
            let gone: Vec<usize> = (0..shards.len()).filter(|i| shards[*i].is_none()).collect();
            let wanted: Vec<u32> = gone.iter().map(|i| numbers[*i]).collect();
            let restored = restorer.restore(&GroupShards::of(&list, g).unwrap(), &shards, &wanted).unwrap();
            prop_assert!(gone.iter().zip(restored).all(|(i, bytes)| Some(bytes) == whole[*i]));
        }
    }
}
