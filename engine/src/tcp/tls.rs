//! The certificate of the TCP service, reloadable while connections are open.

use super::tickets::Tickets;
use crate::quic::TicketKeys;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// What the TCP service speaks inside TLS.
const CONTENT_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// TLS of a service on TCP. A reload concerns new connections; open ones keep what they have.
#[derive(Debug)]
pub struct TcpTls {
    /// ALPN names, the preferred one first.
    protocols: &'static [&'static [u8]],
    current: RwLock<Arc<ServerConfig>>,
}

impl TcpTls {
    /// Reads certificate chain and key, both PEM, for the content service. Session tickets are sealed under `tickets`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(certificate: &Path, key: &Path, tickets: &TicketKeys) -> Result<TcpTls, TlsError> {
        TcpTls::load_for(CONTENT_PROTOCOLS, certificate, key, tickets)
    }

    /// Reads certificate chain and key, both PEM, for a service that speaks `protocols` (ALPN names, the preferred one
    /// first). Clients that name others are refused; those that name none are not.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load_for(
        protocols: &'static [&'static [u8]],
        certificate: &Path,
        key: &Path,
        tickets: &TicketKeys,
    ) -> Result<TcpTls, TlsError> {
        let config = read(protocols, certificate, key, tickets)?;
        Ok(TcpTls { protocols, current: RwLock::new(Arc::new(config)) })
    }

    /// Reads both again. On an error the old ones stay in use.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self, certificate: &Path, key: &Path, tickets: &TicketKeys) -> Result<(), TlsError> {
        let config = Arc::new(read(self.protocols, certificate, key, tickets)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What new connections use.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(
    protocols: &[&[u8]],
    certificate: &Path,
    key: &Path,
    tickets: &TicketKeys,
) -> Result<ServerConfig, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::Pem { path, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(unreadable(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: certificate.to_path_buf() });
    }
    let leaf = chain[0].to_vec();
    let secret = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let pair = |source| TlsError::Pair { certificate: certificate.into(), key: key.into(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = Arc::new(Tickets::new(tickets.seals("tcp", &[&leaf, &protocols.concat()])));
    Ok(config)
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("{}: {source}; `ioex up` makes a certificate on its first start", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM file without a certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key does not belong to the certificate, or its kind is not supported.
    #[error("{} and {} make no usable pair: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}
