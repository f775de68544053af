//! The consortium chain held against real headers of public Clique networks, against other implementations, and
//! against naive models.

mod certificate;
mod ethereumjs;
mod flips;
mod following;
mod model;
mod proofs;
mod real;
mod receipts;
mod rules;
mod signing;
mod votes;
