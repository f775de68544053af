//! The consortium chain: 51 arbitrators in rotation sign a block every 30 seconds. Its headers are those of Clique
//! (EIP-225), so that Ethereum's tools read them, and its state is read by proof.
//!
//! [`SignedHeader::read_all`] does what headers cost, by themselves and on any thread; [`HeaderChain`] places headers in a
//! tree, holds them to the vote's state, and follows the branch that EIP-3436 takes. What was settled is handed to the
//! caller to be kept, and proofs lead from its roots to accounts, storage, receipts and logs. Formats and rules:
//! `chain-lite/docs/dpos.md`.
//!
//! Participants: anybody may send headers and proofs. A sender can withhold them; it cannot make one up without the
//! keys of arbitrators. Trusted is one recent [`Checkpoint`], whose age is said ([`Freshness`]), and that fewer than
//! half of the arbitrators lie. Not here: transactions' execution, and sockets.

mod account;
mod certificate;
mod chain;
mod checkpoint;
mod fork_choice;
mod header;
mod keccak;
mod network;
mod receipt;
mod rlp;
mod rule;
mod signed;
mod snapshot;
mod state;
mod trie;

pub use account::{Account, EMPTY_CODE_HASH, is_code_of, verify_account, verify_storage};
pub use certificate::{
    CERTIFICATE_DOMAIN, CERTIFICATE_SIGNERS_MAX, CERTIFICATE_VERSION, Certificate, CertificateError,
    certificate_digest, threshold,
};
pub use chain::{Accepted, HeaderChain, Reorganisation, Settled, TWINS_MAX, WINDOW_BLOCKS};
pub use checkpoint::{Checkpoint, CheckpointError, Freshness, STALE_AFTER_S};
pub use fork_choice::Rank;
pub use header::{
    EMPTY_UNCLES_HASH, HEADER_BYTES_MAX, Header, NONCE_AUTHORISE, NONCE_DROP, SEAL_LEN, VANITY_LEN,
};
pub use network::{ARBITRATORS, FIRST_BASE_FEE_WEI, GAS_LIMIT_MAX, GAS_LIMIT_MIN, Network};
pub use receipt::{
    Log, Outcome, Receipt, ReceiptError, TOPICS_MAX, verify_log, verify_receipt, verify_receipts,
    verify_transaction,
};
pub use rlp::DecodeError;
pub use rule::{HeaderError, HeaderField, ReadError, Rule};
pub use signed::{SignedHeader, signer};
pub use snapshot::Snapshot;
pub use state::StateError;
pub use trie::{NodeError, ProofError, ordered_proof, ordered_root, verify as verify_trie};
