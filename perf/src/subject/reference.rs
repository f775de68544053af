//! The comparison servers that live in this binary.

use std::io::Write;
use std::process::Command;

use anyhow::Context;

use super::{Server, Setting};
use crate::client::Protocol;
use crate::document::crate_version;
use crate::process::Process;
use crate::server::ServerLine;

/// Starts the bare quiche sender; `protocol` says what the client will ask it for.
pub fn quiche_sender(setting: &Setting, protocol: Protocol) -> anyhow::Result<Server> {
    start(setting, "quiche-sender", protocol, format!("quiche {}", crate_version("quiche")))
}

/// Starts the h3-quinn server.
pub fn h3_quinn(setting: &Setting) -> anyhow::Result<Server> {
    let version = format!("quinn {}, h3-quinn {}", crate_version("quinn"), crate_version("h3-quinn"));
    start(setting, "h3-quinn", Protocol::Http3, version)
}

fn start(setting: &Setting, name: &str, protocol: Protocol, version: String) -> anyhow::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["server", name])
        .arg("--content")
        .arg(setting.content.file())
        .arg("--certificate")
        .arg(setting.content.certificate())
        .arg("--key")
        .arg(setting.content.key());
    let mut process = Process::start(command, setting.core, &setting.log(name))?;
    let line: ServerLine =
        serde_json::from_str(&process.read_line()?).context("the server says that it is ready")?;
    Ok(Server { process, address: line.listen, protocol, path: "/".to_owned(), version })
}

/// Asks a comparison server for its counters.
pub fn counters(server: &mut Server) -> anyhow::Result<ServerLine> {
    server.process.stdin().context("standard input is piped")?.write_all(b"\n")?;
    serde_json::from_str(&server.process.read_line()?).context("the server's counters")
}
