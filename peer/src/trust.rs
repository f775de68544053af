//! Whom a connection trusts: a pinned UID, the certificates of a CA file, or the system's roots.
//!
//! A URL that pins a UID needs nothing else: the certificate may be self-signed, expired or for another name,
//! as long as its extension binds its key to that UID (see [`identity::certificate`]) and the handshake is
//! signed by that key. Without a pin the usual rules of the web apply (chain, name, dates).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use identity::{Uid, certificate};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What vouches for nodes whose URL pins no UID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Authorities {
    /// The system's certificate store (or what `SSL_CERT_FILE` names).
    #[default]
    System,
    /// The certificates in this PEM file, and no others.
    File(PathBuf),
}

/// Why the certificates to trust could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// The CA file cannot be read or is not PEM.
    #[error("the CA file {} cannot be used: {reason}; it must hold certificates in PEM form", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no usable root certificates.
    #[error(
        "the system offers no root certificates ({reason}); install its ca-certificates package, name a file \
         with --ca, or pin the node's UID: https://UID@HOST:PORT"
    )]
    NoSystemRoots {
        /// What the search said.
        reason: String,
    },
}

/// Why a node whose UID is pinned was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityMismatch {
    /// The certificate is not parseable X.509.
    #[error("its certificate is not readable X.509 ({reason})")]
    Unreadable {
        /// What the parser said.
        reason: String,
    },
    /// The certificate carries no UID extension, or several.
    #[error("its certificate names no UID; is something else listening there, or a proxy in between?")]
    NoExtension,
    /// The extension's signature or shape is wrong.
    #[error("its certificate's UID extension is not valid: {0}")]
    Binding(#[from] certificate::BindingError),
    /// The node proved another identity than the pinned one.
    #[error("it is {presented}, but the URL pins {pinned}")]
    WrongUid {
        /// The UID in the URL.
        pinned: Uid,
        /// The UID the node's certificate is bound to.
        presented: Uid,
    },
}

/// The TLS configuration for a node that must prove to be `uid` and speak `alpn`, and where its verdict can be read.
pub(crate) fn pinned(uid: Uid, alpn: &[u8]) -> (rustls::ClientConfig, Arc<NodeVerifier>) {
    configure(Rule::Pinned(uid), alpn)
}

/// The TLS configuration for nodes without a pin.
pub(crate) fn rooted(
    roots: Arc<WebPkiServerVerifier>,
    alpn: &[u8],
) -> (rustls::ClientConfig, Arc<NodeVerifier>) {
    configure(Rule::Rooted(roots), alpn)
}

/// Loads the certificates that vouch for nodes without a pin. Blocking.
pub(crate) fn load_roots(authorities: &Authorities) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    let roots = match authorities {
        Authorities::System => system_roots()?,
        Authorities::File(path) => file_roots(path)?,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| TrustError::NoSystemRoots { reason: e.to_string() })
}

/// TLS 1.3: QUIC has no other (RFC 9001 section 4.2).
fn configure(rule: Rule, alpn: &[u8]) -> (rustls::ClientConfig, Arc<NodeVerifier>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(NodeVerifier { rule, algorithms, refusal: Mutex::new(None) });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the aws-lc-rs provider has cipher suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    (config, verifier)
}

/// The UID that a certificate (DER) is bound to.
pub(crate) fn certificate_uid(certificate: &[u8]) -> Result<Uid, IdentityMismatch> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|e| IdentityMismatch::Unreadable { reason: e.to_string() })?;
    let oid = x509_parser::der_parser::Oid::from(certificate::EXTENSION_OID)
        .map_err(|_| IdentityMismatch::NoExtension)?;
    let extension = parsed.get_extension_unique(&oid).ok().flatten().ok_or(IdentityMismatch::NoExtension)?;
    Ok(certificate::verify_extension(extension.value, parsed.tbs_certificate.subject_pki.raw)?)
}

/// Decides about certificates and remembers why it refused one: rustls passes that on as an alert's text, but
/// callers are owed the facts.
pub(crate) struct NodeVerifier {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: Mutex<Option<Refusal>>,
}

enum Rule {
    /// The certificate must be bound to this UID; nothing else matters.
    Pinned(Uid),
    /// The usual rules of the web.
    Rooted(Arc<WebPkiServerVerifier>),
}

/// Why a certificate was refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    Identity(IdentityMismatch),
    Untrusted(rustls::Error),
}

impl NodeVerifier {
    /// Why the last certificate was refused, once.
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal().take()
    }

    fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_pin(pinned: Uid, certificate: &[u8]) -> Result<(), IdentityMismatch> {
    let presented = certificate_uid(certificate)?;
    if presented != pinned {
        return Err(IdentityMismatch::WrongUid { pinned, presented });
    }
    Ok(())
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::Pinned(uid) => match check_pin(*uid, end_entity) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(mismatch) => {
                    *self.refusal() = Some(Refusal::Identity(mismatch));
                    Err(rustls::CertificateError::ApplicationVerificationFailure.into())
                }
            },
            Rule::Rooted(roots) => {
                let verdict =
                    roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                if let Err(error) = &verdict {
                    *self.refusal() = Some(Refusal::Untrusted(error.clone()));
                }
                verdict
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Not offered.
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for NodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeVerifier")
    }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TrustError::NoSystemRoots { reason });
    }
    Ok(roots)
}

fn file_roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let wrong = |reason: String| TrustError::File { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(roots)
}
