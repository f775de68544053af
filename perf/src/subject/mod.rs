//! The programs under test, each a process of its own on one core.

pub mod caddy;
pub mod coturn;
pub mod ioex;
pub mod ioex_relay;
pub mod reference;
pub mod relay;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::client::{LoadOptions, Protocol};
use crate::content::{Content, SERVER_NAME};
use crate::process::Process;

/// What a subject needs to start.
pub struct Setting<'a> {
    /// What it serves.
    pub content: &'a Content,
    /// The core it runs on.
    pub core: usize,
}

impl Setting<'_> {
    fn log(&self, name: &str) -> PathBuf {
        self.content.folder().join(format!("{name}.log"))
    }

    fn folder(&self) -> &Path {
        self.content.folder()
    }
}

/// A server that is ready.
pub struct Server {
    /// The process.
    pub process: Process,
    /// UDP address it listens on.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Path of the content.
    pub path: String,
    /// Version of the program or library.
    pub version: String,
}

impl Server {
    /// Options of a load on this server.
    pub fn load(&self, window_bytes: u64, requests_in_flight: usize, hash: bool) -> LoadOptions {
        LoadOptions {
            server: self.address,
            protocol: self.protocol,
            authority: format!("{SERVER_NAME}:{}", self.address.port()),
            window_bytes,
            requests_in_flight,
            hash,
        }
    }
}
