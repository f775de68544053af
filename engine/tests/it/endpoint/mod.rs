//! The endpoint and the content service against quiche clients, without sockets.

mod content;
pub mod harness;
mod sending;
mod transport;
pub mod upload;
