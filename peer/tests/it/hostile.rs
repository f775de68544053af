//! Lists that must not be believed. Each hashes to the address asked for, so the node is not to blame.

use bytes::Bytes;
use identity::SecretKey;
use peer::{FetchError, FetchOptions, fetch_to_file};
use proptest::prelude::*;
use store::Hash;

use crate::content::{TestFile, client, fetch_options, nodes, progress};
use crate::node::TestNode;

const KIB: usize = 1024;

fn file() -> TestFile {
    TestFile::new(3, 5 * 16 * KIB, 16 * KIB)
}

async fn refusal(file: &TestFile, document: Bytes, options: &FetchOptions) -> FetchError {
    let hash = Hash::of(&document);
    let node = TestNode::start(&file.segments, vec![]);
    node.insert(document);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let outcome = fetch_to_file(&nodes(&client, &[&node]), &hash, &out, options, &progress()).await;
    assert!(!out.exists());
    outcome.unwrap_err()
}

#[tokio::test]
async fn a_bad_signature() {
    let file = file();
    let mut document = file.document.to_vec();
    *document.last_mut().unwrap() ^= 1;
    let error = refusal(&file, document.into(), &fetch_options()).await;
    assert!(matches!(error, FetchError::List { .. }), "{error}");
}

#[tokio::test]
async fn cut_short_and_grown_long() {
    let file = file();
    for document in
        [file.document.slice(..file.document.len() - 36), [&file.document[..], &[0; 36]].concat().into()]
    {
        let error = refusal(&file, document, &fetch_options()).await;
        assert!(matches!(error, FetchError::List { .. }), "{error}");
    }
}

#[test]
fn any_flipped_bit_after_the_magic() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let file = file();
    let bits = file.document.len() * 8;
    proptest!(ProptestConfig::with_cases(64), |(bit in 64..bits)| {
        let mut document = file.document.to_vec();
        document[bit / 8] ^= 1 << (bit % 8);
        let error = runtime.block_on(refusal(&file, document.into(), &fetch_options()));
        prop_assert!(matches!(error, FetchError::List { .. }), "bit {}: {}", bit, error);
    });
}

#[tokio::test]
async fn another_publisher() {
    let file = file();
    let expected = SecretKey::from_seed([42; 32]).uid();
    let options = FetchOptions { publisher: Some(expected), ..fetch_options() };
    let error = refusal(&file, file.document.clone(), &options).await;
    let FetchError::Publisher { expected: said, found, .. } = &error else { panic!("{error}") };
    assert_eq!((*said, *found), (expected, file.publisher.uid()));
}

#[tokio::test]
async fn an_older_counter() {
    let file = file();
    let options = FetchOptions { counter_min: Some(8), ..fetch_options() };
    let error = refusal(&file, file.document.clone(), &options).await;
    assert!(matches!(error, FetchError::Rollback { counter: 7, counter_min: 8, .. }), "{error}");
}

#[tokio::test]
async fn an_expired_list_unless_it_is_allowed() {
    let file = TestFile::with(3, 5 * 16 * KIB, 16 * KIB, |list| list.expires_s = 1_000_000_000);
    let error = refusal(&file, file.document.clone(), &fetch_options()).await;
    assert!(matches!(error, FetchError::Expired { expires_s: 1_000_000_000, .. }), "{error}");

    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let options = FetchOptions { allow_expired: true, ..fetch_options() };
    fetch_to_file(&nodes(&client, &[&node]), &file.list, &out, &options, &progress()).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == file.bytes);
}

#[tokio::test]
async fn a_file_hash_that_the_segments_do_not_give() {
    let file = TestFile::with(3, 5 * 16 * KIB, 16 * KIB, |list| list.file_hash = Some(Hash([7; 32])));
    let error = refusal(&file, file.document.clone(), &fetch_options()).await;
    let FetchError::FileHash { expected, found } = &error else { panic!("{error}") };
    assert_eq!((*expected, *found), (Hash([7; 32]), Hash::of(&file.bytes)));
}

#[tokio::test]
async fn without_a_file_hash_the_segments_decide() {
    let file = TestFile::with(3, 5 * 16 * KIB, 16 * KIB, |list| list.file_hash = None);
    let node = TestNode::start(&file.content(), vec![]);
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fetch_to_file(&nodes(&client, &[&node]), &file.list, &out, &fetch_options(), &progress()).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == file.bytes);
}
