//! Where the engine's program is.

use std::path::{Path, PathBuf};

/// The engine's name.
pub const NAME: &str = "ioex-engine";

/// There is no engine to run.
#[derive(Debug, thiserror::Error)]
pub enum EngineProgramError {
    /// `IOEX_ENGINE` names something that is no program.
    #[error("IOEX_ENGINE names {path}, which is not a program that may be run", path = .0.display())]
    NamedIsNone(PathBuf),
    /// It is nowhere.
    #[error(
        "{NAME} is neither beside {beside} nor in PATH; install it there or name it in IOEX_ENGINE \
         (from source: cargo build -p engine)",
        beside = .beside.display()
    )]
    NotFound {
        /// This program's own file.
        beside: PathBuf,
    },
}

/// The engine that `IOEX_ENGINE` names, else the one beside this program, else the first in PATH.
pub fn find() -> Result<PathBuf, EngineProgramError> {
    if let Some(named) = std::env::var_os("IOEX_ENGINE").filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        return if is_program(&path) { Ok(path) } else { Err(EngineProgramError::NamedIsNone(path)) };
    }
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ioex"));
    let beside = own.parent().map(|directory| directory.join(NAME));
    let in_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|directory| directory.join(NAME)).collect::<Vec<_>>());
    beside
        .into_iter()
        .chain(in_path.into_iter().flatten())
        .find(|path| is_program(path))
        .ok_or(EngineProgramError::NotFound { beside: own })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
