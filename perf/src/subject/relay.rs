//! The relays under test.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context;

use super::Setting;
use crate::document::crate_version;
use crate::process::Process;
use crate::server::ServerLine;
use crate::turn::Credential;
use crate::turn::flows::Path;

/// Realm of the long-term credentials.
pub const REALM: &str = "ioex";

/// A relay that is ready.
pub struct Relay {
    /// The process.
    pub process: Process,
    /// UDP address that clients send to.
    pub address: SocketAddr,
    /// Version of the program or library.
    pub version: String,
    /// Who may use it; the bare forwarder asks nobody.
    pub credential: Option<Credential>,
}

impl Relay {
    /// How flows go through it.
    pub fn path(&self) -> Path<'_> {
        match &self.credential {
            Some(credential) => Path::Turn { server: self.address, credential },
            None => Path::Forwarder { server: self.address },
        }
    }
}

/// Starts the bare forwarder.
pub fn forwarder(setting: &Setting) -> anyhow::Result<Relay> {
    let command = Command::new(std::env::current_exe()?);
    start(setting, "forwarder", command, &[], env!("CARGO_PKG_VERSION").to_owned(), None)
}

/// Starts the server made of turn-server-proto.
pub fn turn_proto(setting: &Setting, credential: &Credential) -> anyhow::Result<Relay> {
    let version =
        format!("turn-server-proto {}, tokio {}", crate_version("turn-server-proto"), crate_version("tokio"));
    let arguments = ["--user", &credential.user, "--password", &credential.password];
    let command = Command::new(std::env::current_exe()?);
    start(setting, "turn-proto", command, &arguments, version, Some(credential.clone()))
}

fn start(
    setting: &Setting,
    name: &str,
    mut command: Command,
    arguments: &[&str],
    version: String,
    credential: Option<Credential>,
) -> anyhow::Result<Relay> {
    command.args(["server", name]).args(arguments);
    let mut process = Process::start(command, setting.core, &setting.log(name))?;
    let line: ServerLine =
        serde_json::from_str(&process.read_line()?).context("the server says that it is ready")?;
    Ok(Relay { process, address: line.listen, version, credential })
}
