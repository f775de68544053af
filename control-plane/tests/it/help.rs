//! Help teaches, and mentions what exists.

use crate::program::{ioex, out};
use clap::CommandFactory;
use control_plane::cli::Cli;

fn help(arguments: &[&str]) -> String {
    let root = tempfile::tempdir().unwrap();
    out(&ioex(root.path()).args(arguments).arg("--help").output().unwrap())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_names_every_command_and_every_command_shows_examples() {
    let main = help(&[]);
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(main.contains(&format!("  {name} ")), "{name} is missing in\n{main}");
        let text = help(&[name]);
        assert!(text.contains("xample"), "`ioex {name} --help` shows no example:\n{text}");
        assert!(text.contains(&format!("ioex {name}")), "{text}");
    }
}

#[test]
fn every_flag_that_an_example_uses_exists() {
    let command = Cli::command();
    for subcommand in command.get_subcommands() {
        let text = help(&[subcommand.get_name()]);
        let nested = subcommand.get_subcommands().flat_map(clap::Command::get_arguments);
        let known: Vec<_> =
            subcommand.get_arguments().chain(nested).filter_map(clap::Arg::get_long).collect();
        let own_lines = text.lines().filter(|line| line.trim_start().starts_with("ioex "));
        for flag in own_lines.flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix("--")) {
            assert!(known.contains(&flag), "`ioex {}` has no --{flag}", subcommand.get_name());
        }
    }
}

#[test]
fn version_tells_the_facts_of_the_build() {
    let root = tempfile::tempdir().unwrap();
    let text = out(&ioex(root.path()).arg("--version").output().unwrap());
    let words: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(words, ["ioex", "commit", "compiler", "target", "profile"]);
    assert!(text.starts_with(&format!("ioex {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let root = tempfile::tempdir().unwrap();
    let output = ioex(root.path()).arg("--no-such-flag").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
