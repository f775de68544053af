//! `ioex config check|print`.

use super::configuration;
use crate::cli::Config;
use crate::configuration::{Flags, Sources};
use crate::console::Console;
use crate::exit::Failure;
use std::process::ExitCode;

pub fn run(arguments: Config) -> Result<ExitCode, Failure> {
    match arguments {
        Config::Check { config } => {
            let loaded = configuration(&Sources::of_process(config, Flags::default()))?;
            let file = loaded.file.map_or_else(
                || String::from("no file is read; defaults and environment"),
                |path| path.display().to_string(),
            );
            Console { json: false }.text(&format!("the configuration is right ({file})\n"))?;
        }
        Config::Print { config, explain, json } => {
            let loaded = configuration(&Sources::of_process(config, Flags::default()))?;
            let console = Console { json };
            if json { console.json(&loaded.to_json())? } else { console.text(&loaded.to_toml(explain))? }
        }
    }
    Ok(ExitCode::SUCCESS)
}
