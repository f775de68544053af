//! The consortium chain held against real headers of public Clique networks, against other implementations, and
//! against naive models.

mod certificate;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the other implementation is a process"
)]
mod ethereumjs;
mod flips;
mod following;
mod model;
mod proofs;
mod reading;
mod real;
mod receipts;
mod rules;
mod signing;
mod votes;
