//! The newest counter of each file that was accepted, remembered on disk, so that nobody can lead this receiver back to
//! an older version by showing it an older list.
//!
//! ```text
//! DIR/lock            held while a file below is compared and replaced
//! DIR/<32 hex>        one for each publisher and name; the digits are of BLAKE3 of both:
//!                     ioex counter 1
//!                     <publisher's UID>
//!                     <counter>
//!                     <hash of the list>
//!                     <name>
//! ```
//!
//! A file is replaced by renaming a whole and synced one over it, so a process that is killed leaves the old or the new.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use identity::Uid;
use store::Hash;
use store::list::ListView;

use super::error::FetchError;
use super::partial::sync_directory;

const HEAD: &str = "ioex counter 1";
const NAME_CONTEXT: &str = "ioex 2026 remembered counters v1";

/// Where counters are remembered, and what they decide.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Made when it is first written to.
    pub directory: PathBuf,
    /// Accept lists that go back all the same. What is remembered stays the highest counter.
    pub allow_downgrade: bool,
}

/// The newest list of a publisher and name that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its counter.
    pub counter: u64,
    /// Its hash.
    pub list: Hash,
}

impl Counters {
    /// Remembers in `directory`, which is made when it is first written to.
    pub fn at(directory: impl Into<PathBuf>) -> Counters {
        Counters { directory: directory.into(), allow_downgrade: false }
    }

    /// The newest list of this publisher and name that was accepted. Blocking.
    ///
    /// # Errors
    /// [`FetchError::File`]; [`FetchError::Counter`] if what is there cannot be understood.
    pub fn newest(&self, publisher: &Uid, name: &str) -> Result<Option<Seen>, FetchError> {
        let path = self.path(publisher, name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &path, source)),
        };
        match read(&text, publisher, name) {
            Some(seen) => Ok(Some(seen)),
            None => Err(FetchError::Counter { path }),
        }
    }

    /// Refuses a list that goes back. Blocking.
    pub(crate) fn check(&self, list: &Remembered) -> Result<(), FetchError> {
        match self.newest(&list.publisher, &list.name)? {
            Some(seen) if list.seen.counter < seen.counter && !self.allow_downgrade => {
                Err(FetchError::Downgrade {
                    hash: list.seen.list,
                    name: list.name.clone(),
                    counter: list.seen.counter,
                    seen: seen.counter,
                })
            }
            _ => Ok(()),
        }
    }

    /// Remembers a list that was accepted, unless a newer one is: another fetch may have been quicker. Blocking.
    pub(crate) fn remember(&self, list: &Remembered) -> Result<(), FetchError> {
        let make = |source| failed("make the directory", &self.directory, source);
        fs::create_dir_all(&self.directory).map_err(make)?;
        let _lock = self.lock()?;
        self.check(list)?;
        let newest = self.newest(&list.publisher, &list.name)?;
        if newest.is_some_and(|seen| seen.counter >= list.seen.counter) {
            return Ok(());
        }
        let path = self.path(&list.publisher, &list.name);
        let aside = path.with_extension("new");
        let written = || {
            let mut file = File::create(&aside)?;
            let Seen { counter, list: hash } = list.seen;
            writeln!(file, "{HEAD}\n{}\n{counter}\n{hash}\n{}", list.publisher, list.name)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            sync_directory(&path)
        };
        written().map_err(|source| failed("write", &path, source))
    }

    fn lock(&self) -> Result<File, FetchError> {
        let path = self.directory.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(|source| failed("open", &path, source))?;
        // Held for a few writes by whoever holds it. File systems without locks exist; two fetches are then on their own.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => file.lock().map_err(|source| failed("lock", &path, source))?,
            Err(TryLockError::Error(e)) if e.kind() != io::ErrorKind::Unsupported => {
                return Err(failed("lock", &path, e));
            }
            _ => {}
        }
        Ok(file)
    }

    fn path(&self, publisher: &Uid, name: &str) -> PathBuf {
        let mut hasher = blake3::Hasher::new_derive_key(NAME_CONTEXT);
        let digest = hasher.update(publisher.as_bytes()).update(name.as_bytes()).finalize().to_hex();
        self.directory.join(&digest[..32])
    }
}

/// What is remembered of a list.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    publisher: Uid,
    name: String,
    seen: Seen,
}

impl Remembered {
    /// Of the list that was asked for by `hash`.
    pub(crate) fn of(hash: &Hash, list: &ListView<'_>) -> Remembered {
        let seen = Seen { counter: list.counter(), list: *hash };
        Remembered { publisher: list.publisher(), name: list.name().to_owned(), seen }
    }
}

fn read(text: &str, publisher: &Uid, name: &str) -> Option<Seen> {
    let mut lines = text.strip_suffix('\n')?.splitn(5, '\n');
    let is_ours = lines.next()? == HEAD && lines.next()? == publisher.to_string();
    let seen = Seen { counter: lines.next()?.parse().ok()?, list: lines.next()?.parse().ok()? };
    (is_ours && lines.next()? == name).then_some(seen)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> FetchError {
    FetchError::File { action, path: path.to_owned(), source }
}
