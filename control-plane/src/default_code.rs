//! The file with the pairing code that a device is delivered with.

use peer::pairing::{Code, CodeError, DEFAULT_CODE_DIGITS};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longer than any code, with whatever stands between its digits.
const FILE_LEN_MAX: u64 = 256;

/// Why there is no such code.
#[derive(Debug, thiserror::Error)]
pub enum DefaultCodeError {
    /// The file.
    #[error(
        "cannot read the pairing code of this device in {}: {source}; friends.pairing_code names the file", path.display()
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in it.
    #[error("{} holds no pairing code: {source}", path.display())]
    Code {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodeError,
    },
    /// It could be guessed in the time that it has.
    #[error(
        "the pairing code in {} is too short for a device to be delivered with: it takes {DEFAULT_CODE_DIGITS} digits, as drawn by: \
         ioex pair --draw", path.display()
    )]
    Short {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads it.
///
/// # Errors
/// [`DefaultCodeError`].
pub fn read(path: &Path) -> Result<Code, DefaultCodeError> {
    let mut text = Zeroizing::new(String::new());
    let mut read = || {
        let file = File::open(path)?;
        if file.metadata()?.permissions().mode() & 0o007 != 0 {
            let path = path.display();
            tracing::warn!(%path, "everybody on this machine may read its pairing code; chmod 600 it");
        }
        file.take(FILE_LEN_MAX).read_to_string(&mut text)
    };
    read().map_err(|source| DefaultCodeError::File { path: path.to_owned(), source })?;
    let code: Code =
        text.parse().map_err(|source| DefaultCodeError::Code { path: path.to_owned(), source })?;
    if !code.is_default() {
        return Err(DefaultCodeError::Short { path: path.to_owned() });
    }
    Ok(code)
}
