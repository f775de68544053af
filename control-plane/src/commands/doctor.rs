//! `ioex doctor`.

use crate::cli::Doctor;
use crate::configuration::load;
use crate::console::Console;
use crate::doctor::{Facts, Probe, RelayFacts, Status, judge, to_json, to_table};
use crate::engine_program;
use crate::exit::Failure;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

pub fn run(arguments: &Doctor) -> Result<ExitCode, Failure> {
    let console = Console { json: arguments.json };
    let root = Path::new("/");
    // A configuration that is wrong is `ioex config check`'s to explain; the machine can be looked at all the same.
    let relay = load(&arguments.place.sources()).ok().map(|loaded| loaded.configuration.relay);
    let relay = relay.and_then(|relay| RelayFacts::gather(root, &relay));
    let facts = Facts { probe: Some(ask_engine()), relay, ..Facts::gather(root) };
    let checks = judge(&facts);
    if console.json {
        console.json(&to_json(&checks))?;
    } else {
        console.text(&to_table(&checks))?;
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(ExitCode::from(u8::from(failed)))
}

/// Runs `ioex-engine --probe`: the engine alone knows what it uses, and trying is the only proof that a
/// container allows it.
fn ask_engine() -> Result<Probe, String> {
    let program = engine_program::find().map_err(|error| error.to_string())?;
    let shown = program.display();
    let output = Command::new(&program)
        .args(["--probe", "--json"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown} cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{shown} --probe: {}: {}", output.status, said.trim()));
    }
    Probe::from_json(&output.stdout).map_err(|reason| format!("{shown} --probe: {reason}"))
}
