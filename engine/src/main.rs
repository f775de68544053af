//! `ioex-engine`: the data plane of a node as a program of its own. `ioex up` starts it; systemd or a person can, too.

use clap::{Parser, ValueEnum};
use engine::driver::DriverKind;
use engine::node::{Cores, End, Node, NodeOptions, RelaySettings};
use engine::relay::{PortRange, RelayAddress};
use engine::storage;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version with commit, compiler, target and profile.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit   ",
    env!("IOEX_BUILD_COMMIT"),
    "\ncompiler ",
    env!("IOEX_BUILD_COMPILER"),
    "\ntarget   ",
    env!("IOEX_BUILD_TARGET"),
    "\nprofile  ",
    env!("IOEX_BUILD_PROFILE"),
);

/// The node could not start; the message says why.
const EXIT_CANNOT_START: u8 = 3;

/// A shard died while the node ran.
const EXIT_DIED: u8 = 4;

/// A second signal ended the drain.
const EXIT_FORCED: u8 = 130;

const AFTER_HELP: &str = "\
Signals: SIGTERM and SIGINT finish what is in flight within drain_timeout_ms, a second one ends at once; SIGHUP reads \
certificate and policy again.
Environment: IOEX_LOG sets the level (error, warn, info, debug, or per module: engine::tcp=debug).
Exit codes: 0 drained, 2 wrong command line, 3 cannot start, 4 died, 130 ended by a second signal.";

/// The data plane of an ioex node: content over HTTP/3 on UDP, and over HTTP/2 and 1.1 on TCP.
#[derive(Debug, Parser)]
#[command(name = "ioex-engine", version, long_version = LONG_VERSION, after_help = AFTER_HELP)]
struct Arguments {
    /// The data directory, with identity/uid.pub, tls/cert.pem and tls/key.pem in it
    #[arg(long, value_name = "DIR", required_unless_present = "probe")]
    data: Option<PathBuf>,
    /// Address to listen on, UDP and TCP; may be given more than once [default: port 4433 on every address]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Cores to run on, one shard each, such as 0-3,8 [default: all that this process may use]
    #[arg(long, value_name = "LIST")]
    cores: Option<Cores>,
    /// How shards talk to the kernel: auto, uring or epoll
    #[arg(long, value_name = "DRIVER", default_value = "auto")]
    driver: DriverKind,
    /// What runs storage: auto, glommio or threads
    #[arg(long, value_name = "EXECUTOR", default_value = "auto")]
    storage: storage::Choice,
    /// Serve over UDP alone
    #[arg(long)]
    no_tcp: bool,
    /// Serve Prometheus text at http://ADDR:PORT/metrics, without TLS: choose a loopback or private address
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Relay as a TURN server at this address, UDP and TCP; may be given more than once [default: no relay]
    #[arg(long, value_name = "ADDR:PORT")]
    relay: Vec<SocketAddr>,
    /// Relay over TLS at this address; may be given more than once
    #[arg(long, value_name = "ADDR:PORT")]
    relay_tls: Vec<SocketAddr>,
    /// Address that relayed addresses are made of, with the address that peers see behind 1:1 NAT; may be given more than
    /// once [default: the addresses that --relay listens on]
    #[arg(long, value_name = "IP[=EXTERNAL_IP]")]
    relay_address: Vec<RelayAddress>,
    /// Ports that relayed addresses are made of
    #[arg(long, value_name = "MIN-MAX", default_value_t)]
    relay_ports: PortRange,
    /// Take the place of the engine that runs in the data directory: its sockets and its store, while it finishes its
    /// connections and ends
    #[arg(long, conflicts_with_all = ["relay", "relay_tls"])]
    take_over: bool,
    /// Say on standard output as JSON what listens where
    #[arg(long)]
    json: bool,
    /// How to write the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    /// Print as JSON what this kernel offers the engine, and end
    #[arg(long)]
    probe: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log);
    if arguments.probe {
        say(&engine::probe::Probe::run().to_json().to_string());
        return ExitCode::SUCCESS;
    }
    let options = NodeOptions {
        // clap has made sure that it is there.
        data: arguments.data.unwrap_or_default(),
        listen: arguments.listen,
        cores: arguments.cores,
        driver: arguments.driver,
        storage: arguments.storage,
        tcp: !arguments.no_tcp,
        metrics: arguments.metrics,
        relay: RelaySettings {
            listen: arguments.relay,
            listen_tls: arguments.relay_tls,
            addresses: arguments.relay_address,
            ports: arguments.relay_ports,
        },
        take_over: arguments.take_over,
    };
    let node = match Node::start(&options) {
        Ok(node) => node,
        Err(error) => {
            tracing::error!(%error, "the engine does not start");
            return ExitCode::from(EXIT_CANNOT_START);
        }
    };
    let ready = node.ready();
    say(&if arguments.json { ready.to_json() } else { ready.to_string() });
    match node.run() {
        Ok(End::Drained) => ExitCode::SUCCESS,
        // The process ends without waiting for its threads.
        Ok(End::Forced) => std::process::exit(EXIT_FORCED.into()),
        Err(error) => {
            tracing::error!(%error, "the engine ends");
            ExitCode::from(EXIT_DIED)
        }
    }
}

/// Writes a line to standard output. Whoever started this program may not listen; the engine runs all the same.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("IOEX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_env_filter(filter);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
