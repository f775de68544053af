//! Who someone is, and how they prove it: UIDs, addresses, key files and backups, domain-separated signatures, capability
//! tokens and the binding of a TLS certificate to a UID.
//!
//! Everything here is pure: time is an argument, keys are made from seeds that the caller drew, nothing opens a file
//! or a socket. `clippy.toml` beside this crate denies clocks, randomness, files and sockets by name.
//!
//! The formats are drawn in `identity/docs/`, with test vectors in `identity/tests/vectors/`.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types, missing_docs)]

mod address;
mod backup;
pub mod certificate;
mod key;
mod sealed;
pub mod token;
mod uid;

pub use address::{ADDRESS_LEN, Address, AddressError};
pub use backup::{BACKUP_LEN_MAX, Backup, BackupError};
pub use key::{Domain, SecretKey, SeedError, Signature};
pub use sealed::{Cost, KeyFile, KeyFileError, PASSPHRASE_LEN_MAX, SALT_LEN, SealError, SealedKey};
pub use uid::{SignatureError, UID_LEN, Uid, UidError};
