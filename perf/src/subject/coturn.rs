//! coturn's turnserver, as the Debian package installs it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Setting;
use super::caddy::free_port;
use super::relay::{REALM, Relay};
use crate::process::Process;
use crate::turn::Credential;

/// How long it may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// turnserver's version, or `None` where it is not installed.
pub fn version() -> Option<String> {
    let output = Command::new("turnserver").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().map(|l| l.trim().to_owned()).filter(|v| !v.is_empty())
}

/// Starts turnserver with one relay thread, UDP alone, no command-line interface, one static user, and everything that would
/// log a session off.
pub fn start(setting: &Setting, credential: &Credential, relayed: IpAddr) -> anyhow::Result<Relay> {
    let version = version().context("coturn is not installed (Debian package `coturn`)")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let folder = setting.folder();
    let mut command = Command::new("turnserver");
    command
        .arg("-n")
        .args(["--listening-ip", &address.ip().to_string()])
        .args(["--listening-port", &address.port().to_string()])
        .args(["--relay-ip", &relayed.to_string(), "--relay-threads", "1"])
        .args(["--lt-cred-mech", "--realm", REALM])
        .args(["--user", &format!("{}:{}", credential.user, credential.password)])
        .args(["--allow-loopback-peers", "--no-tls", "--no-dtls", "--no-tcp", "--no-cli", "--no-rfc5780"])
        .args(["--simple-log", "--no-stdout-log", "--log-file"])
        .arg(folder.join("turnserver.log"))
        .arg("--pidfile")
        .arg(folder.join("turnserver.pid"))
        .arg("--userdb")
        .arg(folder.join("turnserver.db"));
    let mut process = Process::start(command, setting.core, &setting.log("coturn"))?;
    let started = Instant::now();
    // Bound means that the kernel queues our first request until coturn reads it.
    while UdpSocket::bind(address).is_ok() {
        if process.has_ended() || started.elapsed() > START_LIMIT {
            bail!("turnserver does not listen; it said:\n{}", process.log_tail());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Relay {
        process,
        address,
        version: format!("coturn {version}, Debian"),
        credential: Some(credential.clone()),
    })
}
