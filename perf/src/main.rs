//! engine
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
mod client; mod content; mod document; mod measure; mod process; mod scenario; mod statistics; mod subject;
mod datagrams;
mod quic;
mod server;
use clap::Parser;
#[derive(clap::Parser)] enum Cli { Serve, #[command(subcommand)] Server(S) }
#[derive(clap::Subcommand)] enum S { QuicheSender(server::ServerArgs), H3Quinn(server::ServerArgs) }
fn main() -> anyhow::Result<()> { match Cli::parse() { Cli::Serve => scenario::serve::run(), Cli::Server(S::QuicheSender(a)) => server::quiche_sender::run(&a), Cli::Server(S::H3Quinn(a)) => server::h3_quinn::run(&a) } }
