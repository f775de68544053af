//! The scenarios, one a file.

pub mod chain;
pub mod dht;
pub mod fetch;
pub mod import;
pub mod join;
pub mod mailbox;
pub mod message;
pub mod open;
pub mod policy;
pub mod publish;
pub mod relay;
pub mod serve;
pub mod token;

use std::path::PathBuf;

/// Options that every scenario has.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Write the JSON document here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Prove that the scenario runs, in less than a minute; judge nothing
    #[arg(long)]
    pub quick: bool,
    /// Folder for the content and the stores; what is made there is removed at the end
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}
