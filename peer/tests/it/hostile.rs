//! Lists that must not be believed (each hashes to the address asked for, so the node is not to blame), and a
//! node that would fill this device's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h3_quinn::quinn;
use http::Method;
use identity::{Domain, SecretKey};
use peer::{Client, ClientOptions, ExchangeError, FetchError, FetchOptions, fetch_to_file, fetch_to_writer};
use proptest::prelude::*;
use store::Hash;

use crate::content::{TestFile, client, fetch_options, nodes, progress};
use crate::node::{TestNode, tls};

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
    let error = outcome.unwrap_err();
    // What the list alone gives away is refused before anything else is asked for.
    let asked = node.requests(&Method::GET);
    assert!(asked == 1 || matches!(error, FetchError::FileHash { .. }), "{asked} requests: {error}");
    error
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

/// Writes over fields of a list and signs it anew: a publisher can claim whatever it likes.
fn resigned(file: &TestFile, fields: &[(usize, &[u8])]) -> Bytes {
    let mut document = file.document.to_vec();
    for (at, value) in fields {
        document[*at..*at + value.len()].copy_from_slice(value);
    }
    let signed = document.len() - 64;
    let digest = Hash::of(&document[..signed]);
    let signature = file.publisher.sign(Domain::ContentList, digest.as_bytes());
    document[signed..].copy_from_slice(&signature.0);
    document.into()
}

#[tokio::test]
async fn more_segments_than_there_can_be() {
    let file = file();
    assert_eq!(resigned(&file, &[]), file.document, "fields are where they are written to below");
    let (huge, many) = ((1u64 << 63).to_le_bytes(), u32::MAX.to_le_bytes());
    // The fields of the format's page: length of the document, and of the file; data, parity and outboard entries; length
    // of key material.
    let [document_len, file_len, data, parity, key, outboards] = [16, 88, 128, 132, 152, 156];
    let claims: [&[(usize, &[u8])]; 8] = [
        &[(document_len, &huge)],
        &[(file_len, &huge)],
        &[(file_len, &huge), (data, &many)],
        &[(document_len, &huge), (file_len, &huge), (data, &many)],
        &[(parity, &many)],
        &[(outboards, &many)],
        &[(key, &many)],
        &[(data, &many), (parity, &many), (outboards, &many), (key, &many), (document_len, &[0xff; 8])],
    ];
    for claim in claims {
        let error = refusal(&file, resigned(&file, claim), &fetch_options()).await;
        assert!(matches!(error, FetchError::List { .. }), "{claim:?}: {error}");
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_without_end_is_not_kept() {
    let key = SecretKey::from_seed([6; 32]);
    let endpoint = quinn::Endpoint::server(tls(&key).0, "127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("https://{}@{}", key.uid(), endpoint.local_addr().unwrap());
    let written = Arc::new(AtomicU64::new(0));
    let counter = written.clone();
    tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        // A control stream with empty settings (RFC 9114 sections 6.2.1 and 7.2.4), as is due.
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&[0, 4, 0]).await.unwrap();
        while let Ok((mut answer, _request)) = connection.accept_bi().await {
            // A HEADERS frame of 2^40 bytes.
            let _ = answer.write_all(&[1, 0xc0, 0, 1, 0, 0, 0, 0, 0]).await;
            let zeros = vec![0; 64 * KIB];
            while answer.write_all(&zeros).await.is_ok() {
                counter.fetch_add(zeros.len() as u64, Ordering::Relaxed);
            }
        }
    });
    let mut options = fetch_options();
    options.backoff.failures_max = 1;
    // No stall may end it: bytes keep coming.
    let stall_timeout = std::time::Duration::from_secs(600);
    let client = Client::new(ClientOptions { stall_timeout, ..crate::content::options() }).unwrap();
    let node = client.node(url.parse().unwrap());
    let mut bytes = Vec::new();
    let outcome = fetch_to_writer(&[node], &Hash([1; 32]), &mut bytes, &options, &progress()).await;
    let Err(FetchError::NoDocument { failures, .. }) = outcome else { panic!("{outcome:?}") };
    let ExchangeError::Lost { reason } = &failures.0[0].error else { panic!("{failures}") };
    assert!(reason.contains("more than 17825792 bytes"), "{reason}");
    // The bound, and what flow control let the node send ahead of it.
    let sent_max = (17 << 20) + 2 * u64::from(client.options().connection_window_bytes);
    assert!(written.load(Ordering::Relaxed) <= sent_max, "{} bytes", written.load(Ordering::Relaxed));
}
