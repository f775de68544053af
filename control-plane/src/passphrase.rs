//! Where a passphrase comes from. Never an argument and never a variable's value: those are seen by others.

use crate::data_directory::{DataDirectoryError, read_secret};
use std::io::{self, IsTerminal, stdin};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Names the file (mode 0600) whose first line is the passphrase, for services.
pub const FILE_VARIABLE: &str = "IOEX_PASSPHRASE_FILE";

/// What systemd calls the passphrase: `LoadCredential=ioex-passphrase:/path` or `LoadCredentialEncrypted=`.
const CREDENTIAL: &str = "ioex-passphrase";

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file that holds it.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// The variable names a file that is not there.
    #[error("{path}, which {FILE_VARIABLE} names, does not exist", path = .path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// Nobody is there to ask, and nothing else says it.
    #[error(
        "the key is sealed under a passphrase, and there is no terminal to ask at: put it into a file of mode 0600 and \
         name that in {FILE_VARIABLE}, or give the service a systemd credential called {CREDENTIAL}"
    )]
    NobodyToAsk,
    /// The two that were typed differ.
    #[error("the two are not the same; nothing was changed")]
    Differ,
    /// Standard input has none.
    #[error("standard input holds no passphrase in its first line")]
    NoLine,
    /// The terminal or standard input cannot be read.
    #[error("the passphrase cannot be read: {0}")]
    Input(#[from] io::Error),
}

/// The passphrase of a key that exists: from the file that [`FILE_VARIABLE`] names, else from the service's credentials,
/// else from the terminal.
pub fn of_existing() -> Result<Zeroizing<String>, PassphraseError> {
    if let Some(path) = std::env::var_os(FILE_VARIABLE).map(PathBuf::from) {
        let text = read_secret(&path)?.ok_or(PassphraseError::NoFile { path })?;
        return Ok(first_line(&text));
    }
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        // systemd guards that directory itself: its files may be readable by the service's group.
        let path = PathBuf::from(directory).join(CREDENTIAL);
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(first_line(&Zeroizing::new(text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataDirectoryError::Read { path, source }.into()),
        }
    }
    if !stdin().is_terminal() {
        return Err(PassphraseError::NobodyToAsk);
    }
    Ok(Zeroizing::new(rpassword::prompt_password("Passphrase of the key: ")?))
}

/// A passphrase to be: asked for twice at the terminal, else the first line of standard input.
pub fn of_new() -> Result<Zeroizing<String>, PassphraseError> {
    if stdin().is_terminal() {
        let ask = |prompt: &str| rpassword::prompt_password(prompt).map(Zeroizing::new);
        let first = ask("New passphrase: ")?;
        return if first == ask("The same again: ")? { Ok(first) } else { Err(PassphraseError::Differ) };
    }
    let mut line = Zeroizing::new(String::new());
    stdin().read_line(&mut line)?;
    let line = first_line(&line);
    if line.is_empty() { Err(PassphraseError::NoLine) } else { Ok(line) }
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_string())
}
