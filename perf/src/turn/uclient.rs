//! coturn's own client, `turnutils_uclient`, against its own peer, `turnutils_peer`; judged by what it says, since its exit code
//! does not show loss.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{Credential, PAYLOAD_LEN};
use crate::process::Process;

/// Clients of one run.
pub const CLIENTS: usize = 20;

/// How long a run may take beside its messages.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// ChannelData to the peer, which sends it back.
    ChannelData,
    /// Send indications to the peer, which sends it back as Data indications.
    SendIndications,
    /// Client to client, each with an allocation; ChannelData.
    RelayToRelay,
}

impl Mode {
    /// All.
    pub const ALL: [Self; 3] = [Self::ChannelData, Self::SendIndications, Self::RelayToRelay];

    /// As documents name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelData => "ChannelData",
            Self::SendIndications => "Send indications",
            Self::RelayToRelay => "relay to relay",
        }
    }
}

/// What the client said at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Messages that its clients sent.
    pub sent: u64,
    /// Messages that came back or across.
    pub received: u64,
    /// Its own figure for loss, in percent.
    pub lost_percent: f64,
}

/// Starts the echoing peer at `address` on `core`.
pub fn start_peer(address: SocketAddr, core: usize, log: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new("turnutils_peer");
    command.args(["-L", &address.ip().to_string(), "-p", &address.port().to_string()]);
    Process::start(command, core, log)
}

/// Runs the client once, on the core that this program is pinned to: `messages` of 1,200 bytes from each of 20 clients, one a
/// millisecond each.
pub fn run(
    mode: Mode,
    server: SocketAddr,
    credential: &Credential,
    peer: SocketAddr,
    messages: usize,
) -> anyhow::Result<Report> {
    let mut command = Command::new("turnutils_uclient");
    command.args(["-u", &credential.user, "-w", &credential.password, "-p", &server.port().to_string()]);
    match mode {
        Mode::RelayToRelay => command.arg("-y"),
        _ => command.args(["-e", &peer.ip().to_string(), "-r", &peer.port().to_string()]),
    };
    if mode == Mode::SendIndications {
        command.arg("-s");
    }
    command.args(["-X", "-c", "-g", "-z", "1", "-m", &CLIENTS.to_string(), "-n", &messages.to_string()]);
    command.args(["-l", &PAYLOAD_LEN.to_string(), &server.ip().to_string()]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting turnutils_uclient")?;
    let mut stdout = child.stdout.take().context("standard output is piped")?;
    // It prints a line a second: the pipe holds them all.
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > RUN_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("turnutils_uclient did not end within {} s", RUN_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut text)?;
    read_report(&text).with_context(|| format!("turnutils_uclient said:\n{text}"))
}

/// Reads the summary: the last line with both counts, and the line with the loss.
fn read_report(text: &str) -> anyhow::Result<Report> {
    let counts = text
        .lines()
        .rev()
        .find(|l| l.contains("tot_recv_msgs="))
        .context("it did not say what it counted")?;
    let number = |name: &str| -> anyhow::Result<u64> {
        let (_, rest) = counts.split_once(name).context("a count is missing")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    };
    let (sent, received) = (number("tot_send_msgs=")?, number("tot_recv_msgs=")?);
    let loss = text
        .lines()
        .find_map(|l| l.split_once("Total lost packets "))
        .context("it did not say what was lost")?;
    let percent = loss
        .1
        .split_once('(')
        .and_then(|(_, p)| p.split_once('%'))
        .context("the loss is not a percentage")?;
    ensure!(sent > 0, "it sent nothing");
    Ok(Report { sent, received, lost_percent: percent.0.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_run() {
        let text = "6: : start_mclient: msz=20, tot_send_msgs=17436, tot_recv_msgs=17421, tot_send_bytes ~ 1\n\
                    7: : start_mclient: tot_send_msgs=20000, tot_recv_msgs=19990\n\
                    7: : start_mclient: tot_send_bytes ~ 24000000, tot_recv_bytes ~ 23988000\n\
                    7: : Total transmit time is 7\n\
                    7: : Total lost packets 10 (0.050000%), total send dropped 0 (0.000000%)\n";
        let report = read_report(text).unwrap();
        assert_eq!(report, Report { sent: 20_000, received: 19_990, lost_percent: 0.05 });
    }

    #[test]
    fn a_run_that_failed_is_no_report() {
        assert!(read_report("0: : Cannot complete Allocation\n").is_err());
    }
}
