//! The server's TLS identity: a certificate chain and its key, as PEM text, checked when they are loaded.

use super::tickets::{self, TicketKeys};
use boring::pkey::{PKey, Private};
use boring::ssl::{SslContextBuilder, SslMethod, SslVersion};
use boring::x509::X509;

/// A certificate chain, its key, and the keys of session tickets; shared by the shards, replaced as a whole.
pub struct Tls {
    chain: Vec<X509>,
    key: PKey<Private>,
    tickets: TicketKeys,
    /// Of the certificate file: sessions end with the certificate that they began under.
    digest: [u8; 32],
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
    /// Checks a certificate chain (leaf first) and its private key, both PEM. Every shard, and the process after a
    /// restart, opens the session tickets that were sealed under `tickets`; a new certificate ends the sessions of the
    /// old one.
    ///
    /// # Errors
    /// [`TlsError`] says which of the two files is wrong and how.
    pub fn from_pem(certificates: &[u8], key: &[u8], tickets: &TicketKeys) -> Result<Self, TlsError> {
        let chain = X509::stack_from_pem(certificates).map_err(TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PKey::private_key_from_pem(key).map_err(TlsError::Key)?;
        let digest = *blake3::hash(certificates).as_bytes();
        let tls = Self { chain, key, tickets: tickets.clone(), digest };
        tls.context(&[])?;
        Ok(tls)
    }

    /// A BoringSSL context for QUIC: TLS 1.3, this certificate. With AES in hardware on both sides BoringSSL picks
    /// AES-128-GCM by itself, else ChaCha20-Poly1305. Sessions are resumed only where `remembered` is what it was when they
    /// began: what clients keep of the transport's settings beside a ticket.
    ///
    /// # Errors
    /// As [`Tls::from_pem`]; what passed there passes here.
    pub fn context(&self, remembered: &[u8]) -> Result<SslContextBuilder, TlsError> {
        let mut context = SslContextBuilder::new(SslMethod::tls()).map_err(TlsError::Context)?;
        context.set_min_proto_version(Some(SslVersion::TLS1_3)).map_err(TlsError::Context)?;
        let (leaf, issuers) = self.chain.split_first().ok_or(TlsError::NoCertificate)?;
        context.set_certificate(leaf).map_err(TlsError::Certificate)?;
        for issuer in issuers {
            context.add_extra_chain_cert(issuer.clone()).map_err(TlsError::Certificate)?;
        }
        context.set_private_key(&self.key).map_err(TlsError::Mismatch)?;
        context.check_private_key().map_err(TlsError::Mismatch)?;
        tickets::install(&mut context, self.tickets.seals("quic", &[&self.digest, remembered]));
        Ok(context)
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
        let load = |certificate: &str, key: &str| {
            let tickets = TicketKeys::new([0; 32], vec![]);
            Tls::from_pem(certificate.as_bytes(), key.as_bytes(), &tickets)
        };
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
