//! One writer a store: `lock` is held with flock while the store is open, and says who holds it. A process that takes the store
//! over from another gets the lock's descriptor from it, so that at no time a third one could take it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::OpenError;

/// The held lock. Closing the file, also by dying, gives it up; where several processes have its descriptor, the last one does.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) file: File,
}

impl Lock {
    /// `inherited`: the descriptor of the process that had it until now.
    pub(crate) fn take(store_dir: &Path, inherited: Option<File>) -> Result<Lock, OpenError> {
        let path = store_dir.join("lock");
        let io = |source| OpenError::Io { path: path.clone(), source };
        let own = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let own = own.map_err(io)?;
        // Only one that is this store's: locking it again is then no change, for flock goes by the open file.
        let is_same = |other: &File| -> std::io::Result<bool> {
            let (a, b) = (own.metadata()?, other.metadata()?);
            Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
        };
        let mut file = match inherited {
            Some(inherited) if is_same(&inherited).map_err(io)? => inherited,
            _ => own,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(OpenError::Locked { path, pid });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // Only for people who ask who holds it: a full disk must not keep the store from opening.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { file })
    }
}
