//! A content address list from a stranger: bounds, then signature, then everything that it says. Each input is also read as if its publisher had signed it,
//! for no mutation of bytes makes a signature.
#![no_main]

use identity::{Domain, SecretKey};
use libfuzzer_sys::fuzz_target;
use store::list::{KeyMaterial, ListView};
use store::pipeline::{GroupShards, Restorer, Scratch, SegmentOpener, open_plain_hashes};
use store::{Hash, outboard};

fuzz_target!(|data: &[u8]| {
    if let Ok(list) = ListView::open(data) {
        use_all(&list, data);
    }
    const SIGNATURE_LEN: usize = 64;
    if data.len() < 56 + SIGNATURE_LEN {
        return;
    }
    // The publisher of the committed vectors, who is also a reader of nothing; 8 is one of the private list.
    let publisher = SecretKey::from_seed([7; 32]);
    let mut document = data.to_vec();
    let body = document.len() - SIGNATURE_LEN;
    document[24..56].copy_from_slice(publisher.uid().as_bytes());
    let signature = publisher.sign(Domain::ContentList, Hash::of(&document[..body]).as_bytes());
    document[body..].copy_from_slice(&signature.0);
    if let Ok(list) = ListView::open(&document) {
        use_all(&list, data);
    }
});

fn use_all(list: &ListView<'_>, data: &[u8]) {
    let mut end = 0;
    for i in 0..list.data_count() {
        let entry = list.entry(i).expect("a list that opened has every segment that it counts");
        assert_eq!(entry.file_offset, end);
        assert_eq!(list.locate(end), Some((i, 0)));
        end += u64::from(entry.plain_len);
    }
    assert_eq!(end, list.file_len());
    assert!(list.entry(list.data_count()).is_none() && list.shard(list.shard_count()).is_none());
    assert!(list.locate(list.file_len()).is_none());

    let mut shards = 0;
    for g in 0..list.group_count() {
        let group = list.group(g).expect("a list that opened has every group that it counts");
        for shard in group.shards() {
            assert_eq!(list.group_of(shard), Some(g));
            assert!(group.position(shard).is_some_and(|position| position < group.shape.shards()));
            let (_, len) = list.shard(shard).expect("a group's shards are the list's");
            assert!(len <= group.shard_len);
            shards += 1;
        }
    }
    assert!(list.coding().is_none() || shards == list.shard_count());

    for (first, _, len) in list.outboards() {
        let _ = outboard::find(list, first, &data[..data.len().min(len as usize)]);
    }
    if let KeyMaterial::Wrapped(keys) = list.key_material() {
        assert_eq!(keys.receivers().len(), keys.len());
        keys.receivers().for_each(|receiver| assert!(keys.of(&receiver).is_some()));
    }
    let key = list.file_key(Some(&SecretKey::from_seed([8; 32]))).ok().flatten();
    if let Some(key) = &key {
        let _ = list.file_hash_by(key);
    }
    let _ = open_plain_hashes(list, key.as_ref(), data);
    if let (Ok(opener), Some(entry)) = (SegmentOpener::new(list, key.as_ref()), list.entry(0)) {
        let mut stored = data[..data.len().min(entry.stored_len as usize)].to_vec();
        let mut scratch = Scratch::default();
        if let Ok(plain) = opener.open(0, &entry, &mut stored, &mut scratch) {
            assert_eq!(plain.len(), entry.plain_len as usize);
        }
    }
    if let (Ok(mut restorer), Ok(first)) = (Restorer::new(list), GroupShards::of(list, 0))
        && first.group.shard_len < 10_000
        && first.group.shape.shards() < 300
    {
        let none = vec![None; first.addresses.len()];
        assert!(restorer.restore(&first, &none, &[0]).is_err());
    }
}
