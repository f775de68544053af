//! Accounts on the public chain: addresses, keys, and signatures over transactions.
//!
//! An account is the hash of a [`Script`], which says whose signatures it takes to spend: one key's
//! ([`PublicKey`]) or some of several. Formats: `chain-lite/docs/transactions.md`.

mod address;
mod draft;
mod key;
mod script;

pub use address::{ADDRESS_LEN, AddressError, PROGRAM_HASH_LEN, Prefix, ProgramHash};
pub use draft::{Draft, DraftError};
pub use key::{KeyError, PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature};
pub use script::{MULTISIG_KEYS_MAX, ProgramError, Script, ScriptError, verify_program};
