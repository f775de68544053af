//! `ioex`: the command line of an ioex node.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_plane::main()
}
