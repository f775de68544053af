//! The endpoint and the content service against quiche clients, without sockets.

mod content;
pub mod harness;
mod leases;
mod mail;
mod resumption;
mod sending;
mod transport;
pub mod upload;
