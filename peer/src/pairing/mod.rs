//! Pairing: two devices of one person become friends by a short code that one shows and the other is told. Drawn in
//! `peer/docs/pairing.md`.
//!
//! Participants: the *host* shows the code and waits, the *guest* is where it is typed; they meet at the mailbox of a *node* that neither
//! has to trust. Goals: whoever does not know the code, the node included, learns nothing about it but by guessing at the host, which
//! counts guesses and ends the code with the third wrong one; both know the other's UID then, proved; either both keep the other, or
//! the one that does asks for it. No goals: hiding from the node that two devices pair, and pairing in spite of a node, or of
//! somebody who knows the nameplate, that disturbs.
//!
//! [`Code`] is the code, [`Pairing`] offers codes and takes them. A device may be delivered with a code, which waits until a first device
//! of its owner has come.

mod body;
mod code;
mod default_code;
mod error;
mod exchange;
mod host;
mod join;
mod meeting;
mod offer;
mod service;

pub use code::{CODE_DIGITS, Code, DEFAULT_CODE_DIGITS};
pub use default_code::{DefaultState, DefaultStatus};
pub use error::{CodeError, JoinError, OfferError};
pub use host::WRONG_GUESSES_MAX;
pub use offer::{OfferState, OfferStatus};
pub use service::{Offered, Pairing, VALID_DEFAULT, VALID_MAX, VALID_MIN};
