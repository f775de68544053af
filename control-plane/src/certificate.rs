//! The node's own TLS certificate: self-signed, P-256, with the extension that binds its key to the node's
//! UID.
//!
//! Who pins the UID needs no authority and looks neither at names nor at dates; who trusts `tls/cert.pem` as
//! a CA file needs the right names in it. A certificate that the operator put there (from an authority) is
//! kept as it is.

use crate::data_directory::{DataDirectory, DataDirectoryError, read_secret, write_whole};
use identity::certificate::{EXTENSION_OID, extension_value, verify_extension};
use identity::{SecretKey, Uid};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a certificate is valid. It is no authority's statement but the node's own, and renewed by `ioex
/// up`, so it need only outlast the longest time that a node runs without a restart.
const VALID_FOR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Clocks of devices lag: the certificate is valid from this long before it was made.
const VALID_SINCE: Duration = Duration::from_secs(30 * 86_400);

/// A certificate that ends sooner than this is renewed at the start of `ioex up`.
const RENEW_BEFORE: Duration = Duration::from_secs(365 * 86_400);

/// What [`ensure`] found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was none; one was made.
    Created,
    /// The one there serves.
    Kept,
    /// The one there was the node's own and no longer fit; a new one was made for the same key.
    Renewed {
        /// Why.
        reason: String,
    },
    /// The one there is not the node's own work (no UID extension). It is kept; pinning by UID will not work
    /// with it.
    Foreign,
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file's trouble.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// One of the pair is there without the other.
    #[error("{present} is there, but {missing} is not; put both there, or delete the one to have both made",
            present = .present.display(), missing = .missing.display())]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{path} is not {what}: {reason}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        reason: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make the node's certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Host names and IP addresses of a certificate.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// All that a new certificate gets.
    pub all: BTreeSet<String>,
    /// Those without which an existing one must be renewed.
    pub required: BTreeSet<String>,
}

/// Makes sure that `tls/cert.pem` and `tls/key.pem` are there and fit the node's UID and `names`; `now`
/// decides about renewal.
pub fn ensure(
    directory: &DataDirectory,
    key: &SecretKey,
    names: &Names,
    now: SystemTime,
) -> Result<Outcome, CertificateError> {
    let (certificate_path, key_path) = (directory.certificate(), directory.certificate_key());
    let pem = match std::fs::read(&certificate_path) {
        Ok(pem) => Some(pem),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => return Err(DataDirectoryError::Read { path: certificate_path, source }.into()),
    };
    let key_pem = read_secret(&key_path)?;
    let (pem, key_pem) = match (pem, key_pem) {
        (Some(pem), Some(key_pem)) => (pem, key_pem),
        // The key is written first, so a key without a certificate is a first start that was cut short.
        (None, Some(key_pem)) => {
            let pair = parse_key(&key_path, &key_pem)?;
            issue(directory, key, &pair, &names.all, now)?;
            return Ok(Outcome::Created);
        }
        (Some(_), None) => {
            return Err(CertificateError::Half { present: certificate_path, missing: key_path });
        }
        (None, None) => {
            let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            let text = zeroize::Zeroizing::new(pair.serialize_pem());
            write_whole(&key_path, text.as_bytes(), 0o600)?;
            issue(directory, key, &pair, &names.all, now)?;
            return Ok(Outcome::Created);
        }
    };
    let facts = Facts::of_pem(&pem).map_err(|reason| CertificateError::Malformed {
        path: certificate_path,
        what: "a certificate in PEM",
        reason,
    })?;
    let Some(bound_to) = &facts.bound_to else { return Ok(Outcome::Foreign) };
    let Some(reason) = facts.why_renew(bound_to, key.uid(), &names.required, now) else {
        return Ok(Outcome::Kept);
    };
    let pair = parse_key(&key_path, &key_pem)?;
    issue(directory, key, &pair, &names.all, now)?;
    Ok(Outcome::Renewed { reason })
}

fn parse_key(path: &std::path::Path, pem: &str) -> Result<KeyPair, CertificateError> {
    KeyPair::from_pem(pem).map_err(|error| CertificateError::Malformed {
        path: path.into(),
        what: "a private key in PEM (PKCS #8)",
        reason: error.to_string(),
    })
}

fn issue(
    directory: &DataDirectory,
    key: &SecretKey,
    pair: &KeyPair,
    names: &BTreeSet<String>,
    now: SystemTime,
) -> Result<(), CertificateError> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    // X.520 bounds a common name at 64 characters; a UID has at most 44.
    params.distinguished_name.push(DnType::CommonName, key.uid().to_string());
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(VALID_SINCE);
    params.not_after = epoch + since_epoch + VALID_FOR;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let value = extension_value(key, &pair.subject_public_key_info());
    params.custom_extensions = vec![CustomExtension::from_oid_content(EXTENSION_OID, value)];
    let certificate = params.self_signed(pair)?;
    Ok(write_whole(&directory.certificate(), certificate.pem().as_bytes(), 0o644)?)
}

/// What matters of a certificate.
pub struct Facts {
    /// The UID that its extension names, or why the extension proves nothing; `None` without one.
    pub bound_to: Option<Result<Uid, String>>,
    /// Host names and addresses in it.
    pub names: BTreeSet<String>,
    /// When it ends, in seconds since 1970.
    pub ends_s: i64,
}

impl Facts {
    /// Reads the first certificate of a PEM file.
    pub fn of_pem(pem: &[u8]) -> Result<Facts, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|e| e.to_string())?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|e| e.to_string())?;
        let bound_to = certificate
            .extensions()
            .iter()
            .find(|extension| extension.oid.iter().is_some_and(|arcs| arcs.eq(EXTENSION_OID.iter().copied())))
            .map(|found| {
                verify_extension(found.value, certificate.public_key().raw).map_err(|e| e.to_string())
            });
        let alternative = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
        let names = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => {
                    let address = <[u8; 4]>::try_from(*bytes)
                        .map(IpAddr::from)
                        .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    address.ok().map(|address| address.to_string())
                }
                _ => None,
            })
            .collect();
        Ok(Facts { bound_to, names, ends_s: certificate.validity().not_after.timestamp() })
    }

    fn why_renew(
        &self,
        bound_to: &Result<Uid, String>,
        uid: Uid,
        required: &BTreeSet<String>,
        now: SystemTime,
    ) -> Option<String> {
        match bound_to {
            Ok(bound) if *bound == uid => {}
            Ok(bound) => return Some(format!("it was bound to another UID, {bound}")),
            Err(reason) => return Some(reason.clone()),
        }
        let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        if self.ends_s - now_s < RENEW_BEFORE.as_secs() as i64 {
            return Some("it would have ended within a year".into());
        }
        let missing: Vec<_> = required.difference(&self.names).map(String::as_str).collect();
        (!missing.is_empty()).then(|| format!("it lacked {}", missing.join(", ")))
    }
}
