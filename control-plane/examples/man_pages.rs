//! Writes the manual pages of `ioex` and its commands into a directory: `cargo run -p control-plane --example man_pages -- DIR`.

use clap::CommandFactory;
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "target/man".into()));
    std::fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(control_plane::cli::Cli::command(), &directory)
}
