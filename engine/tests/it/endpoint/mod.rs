//! The endpoint and the content service against quiche clients, without sockets.

mod content;
mod harness;
mod transport;
mod upload;
