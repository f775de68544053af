//! The server's TLS identity: a certificate chain and its key, as PEM text, checked when they are loaded.

use boring::pkey::{PKey, Private};
use boring::ssl::{SslContextBuilder, SslMethod, SslVersion};
use boring::x509::X509;

/// Length of a session ticket key, bytes: name, MAC key and cipher key of 16 bytes each (BoringSSL).
const TICKET_KEY_LEN: usize = 48;

/// A certificate chain, its key, and the key of session tickets; shared by the shards, replaced as a whole.
pub struct Tls {
    chain: Vec<X509>,
    key: PKey<Private>,
    ticket_key: [u8; TICKET_KEY_LEN],
}

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not a certificate.
    #[error("the certificate file is not a PEM chain of X.509 certificates, leaf first: {0}")]
    Certificate(boring::error::ErrorStack),
    /// The file holds no certificate.
    #[error("the certificate file holds no certificate; it must start with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// Not PEM, or not a key.
    #[error("the key file is not a PEM private key without a passphrase: {0}")]
    Key(boring::error::ErrorStack),
    /// Key and certificate do not belong together.
    #[error("the private key is not that of the first certificate in the chain: {0}")]
    Mismatch(boring::error::ErrorStack),
    /// BoringSSL refused the rest of the configuration.
    #[error("BoringSSL refuses the TLS configuration: {0}")]
    Context(boring::error::ErrorStack),
}

impl Tls {
    /// Checks a certificate chain (leaf first) and its private key, both PEM. Session tickets are sealed under a key
    /// derived from `secret`, so that every shard, and the process after a restart, accepts them; a new certificate
    /// changes that key, and so ends the sessions of the old one.
    ///
    /// # Errors
    /// [`TlsError`] says which of the two files is wrong and how.
    pub fn from_pem(certificates: &[u8], key: &[u8], secret: &[u8; 32]) -> Result<Self, TlsError> {
        let chain = X509::stack_from_pem(certificates).map_err(TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PKey::private_key_from_pem(key).map_err(TlsError::Key)?;
        let mut ticket_key = [0; TICKET_KEY_LEN];
        blake3::Hasher::new_derive_key("ioex 2026 tls session ticket v1")
            .update(secret)
            .update(certificates)
            .finalize_xof()
            .fill(&mut ticket_key);
        let tls = Self { chain, key, ticket_key };
        tls.context()?;
        Ok(tls)
    }

    /// A BoringSSL context for QUIC: TLS 1.3, this certificate. With AES in hardware on both sides BoringSSL picks
    /// AES-128-GCM by itself, else ChaCha20-Poly1305.
    ///
    /// # Errors
    /// As [`Tls::from_pem`]; what passed there passes here.
    pub fn context(&self) -> Result<SslContextBuilder, TlsError> {
        let mut context = SslContextBuilder::new(SslMethod::tls()).map_err(TlsError::Context)?;
        context.set_min_proto_version(Some(SslVersion::TLS1_3)).map_err(TlsError::Context)?;
        let (leaf, issuers) = self.chain.split_first().ok_or(TlsError::NoCertificate)?;
        context.set_certificate(leaf).map_err(TlsError::Certificate)?;
        for issuer in issuers {
            context.add_extra_chain_cert(issuer.clone()).map_err(TlsError::Certificate)?;
        }
        context.set_private_key(&self.key).map_err(TlsError::Mismatch)?;
        context.check_private_key().map_err(TlsError::Mismatch)?;
        Ok(context)
    }

    /// The key of session tickets, [`quiche::Config::set_ticket_key`].
    pub fn ticket_key(&self) -> &[u8] {
        &self.ticket_key
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_file_is_wrong() {
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let load =
            |certificate: &str, key: &str| Tls::from_pem(certificate.as_bytes(), key.as_bytes(), &[0; 32]);
        assert!(load(&certificate, &key).is_ok());
        assert!(matches!(load(&certificate, &other.signing_key.serialize_pem()), Err(TlsError::Mismatch(_))));
        assert!(matches!(load(&certificate, "no key"), Err(TlsError::Key(_))));
        assert!(matches!(
            load(&certificate[..200], &key),
            Err(TlsError::Certificate(_) | TlsError::NoCertificate)
        ));
        assert!(matches!(load("", &key), Err(TlsError::NoCertificate)));
    }
}
