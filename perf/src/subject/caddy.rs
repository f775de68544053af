//! Caddy's file server over HTTP/3, as the Debian package installs it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Server, Setting};
use crate::client::{Load, Protocol};
use crate::content::{CONTENT_FILE, SERVER_NAME};
use crate::process::Process;

/// How long Caddy may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Caddy's version, or `None` where it is not installed.
pub fn version() -> Option<String> {
    let output = Command::new("caddy").arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().map(str::to_owned)
}

/// Starts Caddy with logging off, nothing but the file server, and the certificate that all servers share.
pub fn start(setting: &Setting) -> anyhow::Result<Server> {
    let version = version().context("Caddy is not installed (Debian package `caddy`)")?;
    let port = free_port()?;
    let folder = setting.folder();
    let config = folder.join("Caddyfile");
    let text = format!(
        "{{\n\tadmin off\n\tauto_https disable_redirects\n\tlog {{\n\t\tlevel ERROR\n\t}}\n}}\n\
         https://{SERVER_NAME}:{port} {{\n\ttls {} {}\n\troot * {}\n\tfile_server\n}}\n",
        setting.content.certificate().display(),
        setting.content.key().display(),
        folder.display(),
    );
    fs::write(&config, text)?;
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config);
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    let process = Process::start(command, setting.core, &setting.log("caddy"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server =
        Server { process, address, protocol: Protocol::Http3, path: format!("/{CONTENT_FILE}"), version };
    wait_until_ready(&mut server)?;
    Ok(server)
}

fn wait_until_ready(server: &mut Server) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        if server.process.has_ended() {
            bail!("Caddy ended early; it said:\n{}", server.process.log_tail());
        }
        // Bound means that the kernel queues our first packet until Caddy reads it.
        if UdpSocket::bind(server.address).is_err()
            && Load::connect(&server.load(1 << 20, 1, false), 1).is_ok()
        {
            return Ok(());
        }
        if started.elapsed() > START_LIMIT {
            bail!("Caddy does not answer; it said:\n{}", server.process.log_tail());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that is free for UDP and TCP now; Caddy cannot be told to pick one itself.
pub fn free_port() -> anyhow::Result<u16> {
    loop {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}
