//! Promises that anyone can re-run: ioex measured against other programs, in alternation, on this machine.
//!
//! Participants: a **scenario** (`scenario/`) starts **subjects** (`subject/`), each a process on a core of its own, drives
//! them with one **load client** (`client/`), reads clocks (`measure/`), and writes a **document** (`document.rs`) in which
//! every figure that the project promises is judged. `report.rs` turns recorded documents into `REPORT.md`.
//! The comparison servers (`server/`) are in this binary, so that nothing else needs building.
#![deny(unsafe_code)]

mod client;
mod content;
mod datagrams;
mod document;
mod measure;
mod policy_socket;
mod process;
mod quic;
mod report;
mod scenario;
mod server;
mod statistics;
mod subject;
mod turn;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use document::{Better, Document};
use scenario::CommonArgs;

/// The allocator of the engine, so that the comparison servers have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures ioex and its peers side by side and judges what the project promises
///
/// Build it with --release. Each scenario measures everything in one run, in alternation, since machines have phases in
/// which everything costs twice as much: trust ratios, not absolutes, and leave the machine alone meanwhile. The exit status
/// is 0 only if every promise holds; --quick judges nothing.
#[derive(Debug, Parser)]
#[command(name = "perf", bin_name = "cargo run --release -p perf --", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Serving content: CPU a byte against bare quiche, h3-quinn and Caddy; uploads
    ///
    /// Starts every subject on one core with the same content, and one client on another; each serves the content over 1
    /// connection and over 32, once a round. Judged: ioex against the bare quiche sender (at most 1.10 times its CPU a byte),
    /// h3-quinn (at least 1.3 times ioex's), Caddy (at least 5 times), copies out of the mapping (one a byte), and PUT
    /// against GET (at most twice). A full run takes about twenty minutes.
    ///
    /// Example: cargo run --release -p perf -- serve --json perf/results/serve.json
    Serve(scenario::serve::ServeArgs),
    /// Relaying as a TURN server: CPU a byte against coturn, a bare forwarder and turn-server-proto; delay, memory
    ///
    /// Starts every relay on one core, and clients with their peer on another, over the loopback interface. Judged, with 1, 100
    /// and 5,000 allocations and both ways: GSO batches of ChannelData (at most 0.40 CPU-seconds a GB and 1.4 times the bare
    /// forwarder; coturn at least 12 times ioex), single datagrams in bursts (at least 2.5 times coturn's a CPU-second),
    /// coturn's own turnutils_uclient (at least 1.3 times), added delay, and memory of idle allocations. A full run takes about
    /// twenty minutes.
    ///
    /// Example: cargo run --release -p perf -- relay --json perf/results/relay.json
    Relay(scenario::relay::RelayArgs),
    /// 100,000 TURN allocations on one node: whether all live, and their memory
    ///
    /// Each has a socket of the relay and one of its client, so the hard limit on open files (ulimit -Hn) must allow 165,536,
    /// or be raised by a user who may (root, CAP_SYS_RESOURCE); 1.5 GiB of memory. The document names the limit that stopped
    /// it. Where the machine's limits may not be raised, perf/vm/run runs it in a virtual machine. A run takes seconds.
    ///
    /// Example: cargo run --release -p perf -- relay-allocations --json perf/results/relay-allocations.json
    RelayAllocations(scenario::relay::allocations::AllocationsArgs),
    /// Importing a 4 GiB file from the page cache: at least 1 GB a CPU-second
    ///
    /// Splits, hashes and appends a file to an empty store, durably. Hashing and writing are reported apart. Needs 9 GiB of
    /// free disk in --dir.
    ///
    /// Example: cargo run --release -p perf -- import --json perf/results/import.json
    Import(scenario::import::ImportArgs),
    /// Publishing from the page cache: encryption, 10+4, addresses; at least 1 GB a CPU-second and 60 % of what the stages allow
    ///
    /// Takes a file through the pipeline without compression, measures each of its stages alone, restores groups with 4 of 14 shards
    /// lost (at least 2 GB a CPU-second) and opens a list of 1,000,000 segments (under 50 ms), everything once a round. A full run takes
    /// about a minute.
    ///
    /// Example: cargo run --release -p perf -- publish --json perf/results/publish.json
    Publish(scenario::publish::PublishArgs),
    /// Opening a store of 1,000,000 small segments: under a second, no payload read, at most 80 bytes of memory each
    ///
    /// Makes the store, then opens it in new processes, from a cold page cache and from a warm one. Needs 9 GiB of free disk
    /// in --dir.
    ///
    /// Example: cargo run --release -p perf -- open --json perf/results/open.json
    Open(scenario::open::OpenArgs),
    /// Fetching an encrypted 10+4 file from five nodes: at least 80 % of the rate of a plain file from the same nodes
    ///
    /// Five nodes on one core hold the same content twice: plain, whole on each, and encrypted, coded and spread, so that each shard
    /// lies on one node. `ioex fetch` on another core fetches both in alternation, also with four of fourteen shards of each group
    /// gone. Reports rate, CPU-seconds a GB and the peak of resident memory. Needs five times --bytes of free disk in --dir.
    ///
    /// Example: cargo run --release -p perf -- fetch --json perf/results/fetch.json
    Fetch(scenario::fetch::FetchArgs),
    /// Capability tokens: under 60 us at their first use on a connection, under 200 ns from then on, at most 1 % of serving
    ///
    /// Checks tokens in this process, as a shard does, and beside that has a node take segments of 64 KiB (PUT) and serve them (GET),
    /// each under CPU clocks, so that the check is seen as a part of a request. A full run takes about two minutes.
    ///
    /// Example: cargo run --release -p perf -- token --json perf/results/token.json
    Token(scenario::token::TokenArgs),
    /// Verifying chains from headers: PoW headers a second of a core, beside rust-bitcoin
    ///
    /// Reads, links and checks headers in this process, on one thread, everything once a round. Judged: headers without
    /// proofs (at least 2.0 M a CPU-second), with proofs of merged mining (at least 300 k), and the rate beside rust-bitcoin's (at
    /// least the same). A full run takes about twenty seconds.
    ///
    /// Example: cargo run --release -p perf -- chain --json perf/results/chain.json
    Chain(scenario::chain::ChainArgs),
    /// A private DHT of 200 nodes: publishing a record, looking one up, and what is found after a third was killed
    ///
    /// All nodes are in this process, on sockets of their own. Judged: publishing (p50 at most 200 ms), looking up (p50 at most 60
    /// ms), and records found after a third of the nodes was killed and each record was published once more (at least 99.9 %). A
    /// full run takes about a minute and a half.
    ///
    /// Example: cargo run --release -p perf -- dht --json perf/results/dht.json
    Dht(scenario::dht::DhtArgs),
    /// Messages between friends at two nodes, until they are kept and until the receipt is there: p50 at most 10 ms
    ///
    /// Two nodes on one core, two peers in this process, over the loopback interface; beside that two peers at one node. A full run
    /// takes about a minute.
    ///
    /// Example: cargo run --release -p perf -- message --json perf/results/message.json
    Message(scenario::message::MessageArgs),
    /// 20,000 idle connections on one node: at most 32 KiB of memory each, at the mailbox and with HTTP/3
    ///
    /// Peers log in at the mailbox of one engine (QUIC, UID proven) and are silent; then as many HTTP/3 connections ask for the node's
    /// health and stay. Reads the engine's memory before and after, and has some peers of the whole range write to each other at the
    /// end. Needs 3 GiB of memory. A full run takes about two minutes.
    ///
    /// Example: cargo run --release -p perf -- mailbox --json perf/results/mailbox.json
    Mailbox(scenario::mailbox::MailboxArgs),
    /// Serving while 10,000 changes of the policy a second arrive: at least 98 % of the throughput without them
    ///
    /// Downloads from one engine over HTTP/3, in windows with changes and without by turns; each change adds or removes a publisher, a
    /// revoked token or a user of the relay. Says too what a change costs. A full run takes about two minutes.
    ///
    /// Example: cargo run --release -p perf -- policy --json perf/results/policy.json
    Policy(scenario::policy::PolicyArgs),
    /// 1,000 peers join at once through five bootstrap nodes, one of which dies: all connected within 10 s, nobody overrun
    ///
    /// Starts five control planes with their engines on addresses of their own, and 1,000 peers that choose among them and log in at a
    /// mailbox; then kills one node. Judged: when the last peer is connected, when the last of the dead node's is at another (10 s
    /// each), and the most peers at a node (twice its fair share). A full run takes about a minute and a half.
    ///
    /// Example: cargo run --release -p perf -- join --json perf/results/join.json
    Join(scenario::join::JoinArgs),
    /// Makes perf/REPORT.md and its charts from the documents in perf/results
    Report(report::ReportArgs),
    /// Runs a comparison server; scenarios do this themselves
    #[command(hide = true, subcommand)]
    Server(ComparisonServer),
    /// Opens a store and prints what it cost; `perf open` does this itself
    #[command(hide = true)]
    Opener(scenario::open::OpenerArgs),
}

#[derive(Debug, Subcommand)]
enum ComparisonServer {
    QuicheSender(server::ServerArgs),
    H3Quinn(server::ServerArgs),
    Forwarder(server::forwarder::ForwarderArgs),
    TurnProto(server::turn_proto::TurnProtoArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    let document = match Cli::parse().command {
        Scenario::Serve(args) => finish(scenario::serve::run(&args)?, args.common())?,
        Scenario::Relay(args) => finish(scenario::relay::run(&args)?, args.common())?,
        Scenario::RelayAllocations(args) => finish(scenario::relay::allocations::run(&args)?, args.common())?,
        Scenario::Import(args) => finish(scenario::import::run(&args)?, args.common())?,
        Scenario::Publish(args) => finish(scenario::publish::run(&args)?, args.common())?,
        Scenario::Open(args) => finish(scenario::open::run(&args)?, args.common())?,
        Scenario::Fetch(args) => finish(scenario::fetch::run(&args)?, args.common())?,
        Scenario::Token(args) => finish(scenario::token::run(&args)?, args.common())?,
        Scenario::Chain(args) => finish(scenario::chain::run(&args)?, args.common())?,
        Scenario::Dht(args) => finish(scenario::dht::run(&args)?, args.common())?,
        Scenario::Message(args) => finish(scenario::message::run(&args)?, args.common())?,
        Scenario::Policy(args) => finish(scenario::policy::run(&args)?, args.common())?,
        Scenario::Mailbox(args) => finish(scenario::mailbox::run(&args)?, args.common())?,
        Scenario::Join(args) => finish(scenario::join::run(&args)?, args.common())?,
        Scenario::Report(args) => return report::run(&args).map(|()| ExitCode::SUCCESS),
        Scenario::Server(ComparisonServer::QuicheSender(args)) => {
            return server::quiche_sender::run(&args).map(|()| ExitCode::SUCCESS);
        }
        Scenario::Server(ComparisonServer::H3Quinn(args)) => {
            return server::h3_quinn::run(&args).map(|()| ExitCode::SUCCESS);
        }
        Scenario::Server(ComparisonServer::Forwarder(args)) => {
            return server::forwarder::run(&args).map(|()| ExitCode::SUCCESS);
        }
        Scenario::Server(ComparisonServer::TurnProto(args)) => {
            return server::turn_proto::run(&args).map(|()| ExitCode::SUCCESS);
        }
        Scenario::Opener(args) => return scenario::open::opener(&args).map(|()| ExitCode::SUCCESS),
    };
    Ok(if document.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the document and tells a person what is in it.
fn finish(document: Document, common: &CommonArgs) -> anyhow::Result<Document> {
    if let Some(path) = &common.json {
        document.write(path)?;
    }
    for line in report::text(&document).lines() {
        print_line(line)?;
    }
    if document.quick {
        print_line("A quick run: it shows that the scenario runs, and judges nothing.")?;
    } else {
        for promise in &document.promises {
            let sign = if promise.better == Better::Lower { "<=" } else { ">=" };
            let verdict = if promise.holds { "holds" } else { "FAILS" };
            let measured = promise.measured.map_or("not measured".to_owned(), |m| format!("{m:.3}"));
            print_line(&format!("{verdict}: {}: {measured}, goal {sign} {}", promise.name, promise.goal))?;
        }
    }
    Ok(document)
}

/// One line on standard output.
fn print_line(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}
