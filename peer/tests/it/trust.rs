//! Whom a client believes: pins, CA files, and nobody else.

use std::io::Write;

use h3_quinn::quinn;
use identity::{SecretKey, certificate};
use peer::trust::IdentityMismatch;
use peer::{
    Authorities, Client, ClientOptions, ConnectError, ExchangeError, FetchError, Node, NodeUrl, TrustError,
    fetch_to_writer,
};
use store::Hash;

use crate::content::{client, fetch_options, options, progress, random_file};
use crate::node::{TestNode, server_config};

/// Fetches a plain segment; what came, or why the one node refused or was refused.
async fn get(node: Node, hash: &Hash) -> Result<Vec<u8>, ConnectError> {
    let mut bytes = Vec::new();
    match fetch_to_writer(&[node], hash, &mut bytes, &fetch_options(), &progress()).await {
        Ok(_) => Ok(bytes),
        Err(FetchError::NoDocument { failures, .. }) => match &failures.0[0].error {
            ExchangeError::Connect(error) => Err(error.clone()),
            other => panic!("not a matter of trust: {other}"),
        },
        Err(other) => panic!("not a matter of trust: {other}"),
    }
}

#[tokio::test]
async fn a_pinned_node_is_believed_whatever_its_name() {
    let bytes = random_file(1, 1000);
    let node = TestNode::start(std::slice::from_ref(&bytes), vec![]);
    // The certificate is for "localhost"; the URL says 127.0.0.1.
    let got = get(client().node(node.url()), &Hash::of(&bytes)).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn another_uid_is_refused() {
    let bytes = random_file(1, 1000);
    let node = TestNode::start(std::slice::from_ref(&bytes), vec![]);
    let stranger = SecretKey::from_seed([9; 32]).uid();
    let error = get(client().node(node.url().with_uid(stranger)), &Hash::of(&bytes)).await.unwrap_err();
    let ConnectError::Identity { mismatch, .. } = &error else { panic!("{error}") };
    assert_eq!(*mismatch, IdentityMismatch::WrongUid { pinned: stranger, presented: node.uid });
    assert_eq!(node.requests(&http::Method::GET), 0, "nothing is asked of a stranger");
}

#[tokio::test]
async fn a_copied_extension_is_refused() {
    // A thief shows the victim's extension in a certificate with a key of its own.
    let victim = SecretKey::from_seed([5; 32]);
    let victims_tls = rcgen::KeyPair::generate().unwrap();
    let thiefs_tls = rcgen::KeyPair::generate().unwrap();
    let value = {
        use rcgen::PublicKeyData;
        certificate::extension_value(&victim, &victims_tls.subject_public_key_info())
    };
    for (extension, expected) in [(Some(value), "binding"), (None, "none")] {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.custom_extensions.extend(
            extension
                .map(|value| rcgen::CustomExtension::from_oid_content(certificate::EXTENSION_OID, value)),
        );
        let signed = params.self_signed(&thiefs_tls).unwrap();
        let config = server_config(signed.der().clone(), &thiefs_tls);
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let _ = incoming.await;
            }
        });
        let url: NodeUrl = format!("https://{}@127.0.0.1:{port}", victim.uid()).parse().unwrap();
        let error = get(client().node(url), &Hash([0; 32])).await.unwrap_err();
        let ConnectError::Identity { mismatch, .. } = &error else { panic!("{error}") };
        match expected {
            "binding" => assert!(matches!(mismatch, IdentityMismatch::Binding(_)), "{mismatch}"),
            _ => assert_eq!(*mismatch, IdentityMismatch::NoExtension),
        }
        accepting.abort();
    }
}

#[tokio::test]
async fn a_ca_file_vouches_for_its_nodes_and_for_no_others() {
    let bytes = random_file(1, 1000);
    let node = TestNode::start(std::slice::from_ref(&bytes), vec![]);
    let other = TestNode::start(std::slice::from_ref(&bytes), vec![]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(node.certificate_pem.as_bytes()).unwrap();
    let authorities = Authorities::File(file.path().to_owned());
    let client = Client::new(ClientOptions { authorities, ..options() }).unwrap();

    let trusted = client.node(node.url_unpinned());
    assert_eq!(
        trusted.uid().await.unwrap(),
        Some(node.uid),
        "read from the certificate that the CA vouches for"
    );
    assert_eq!(get(trusted, &Hash::of(&bytes)).await.unwrap(), bytes);

    let error = get(client.node(other.url_unpinned()), &Hash::of(&bytes)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("https://UID@"), "it says how to pin: {error}");
    assert!(error.is_final());
}

#[tokio::test]
async fn a_ca_file_without_certificates_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let authorities = Authorities::File(file.path().to_owned());
    let client = Client::new(ClientOptions { authorities, ..options() }).unwrap();
    let error = client.node("https://localhost:1".parse().unwrap()).uid().await.unwrap_err();
    let ConnectError::Trust(TrustError::File { path, .. }) = &error else { panic!("{error}") };
    assert_eq!(path, file.path());
}

#[tokio::test]
async fn nobody_at_home_is_a_timeout_that_names_the_place() {
    // Bound and silent: datagrams arrive and nothing answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url: NodeUrl = format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let url = url.with_uid(SecretKey::from_seed([1; 32]).uid());
    let error = client().node(url.clone()).uid().await;
    assert!(error.is_ok(), "a pinned UID needs no connection");
    let error = get(client().node(url.clone()), &Hash([0; 32])).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Timeout { authority, .. } if *authority == url.authority()),
        "{error}"
    );
}
