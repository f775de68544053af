//! Importing a file that the control socket hands over, on a thread of its own.

use super::{Storage, lower_weight};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};
use store::import::{ImportError, Imported, Input, import};
use store::leases::LeaseError;
use tokio::sync::mpsc;

/// Events that wait for a slow reader. A report that does not fit is left out: the next one says more.
const EVENTS_MAX: usize = 16;

/// A running import.
#[derive(Debug)]
pub struct ImportJob {
    /// What happens, ending with [`ImportEvent::Done`].
    pub events: mpsc::Receiver<ImportEvent>,
}

/// What an import reports.
#[derive(Debug)]
pub enum ImportEvent {
    /// This many bytes are durable.
    Progress {
        /// Bytes of the input.
        bytes: u64,
    },
    /// The end.
    Done(Result<Imported, ImportFailure>),
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailure {
    /// The segments.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The node's leases on them.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Why no import starts.
#[derive(Debug, thiserror::Error)]
pub enum ImportStartError {
    /// One import at a time: two would only take the disk from each other.
    #[error("another import is running; try again when it has ended")]
    Running,
    /// An upgrade has given the store to another engine.
    #[error("another engine has taken the store over; connect again to ask it")]
    HandedOver,
    /// The operating system gave no thread.
    #[error("no thread for the import: {0}")]
    Thread(#[from] io::Error),
}

impl Storage {
    /// Imports `file` in segments of `segment_len` bytes. Pipes are read to their end. The import goes on if its events
    /// are no longer read; its segments stay in the store.
    ///
    /// # Errors
    /// [`ImportStartError`].
    pub fn import(&self, file: File, segment_len: u32) -> Result<ImportJob, ImportStartError> {
        let pass = self.enter().ok_or(ImportStartError::HandedOver)?;
        let running = Running::begin(&self.importing).ok_or(ImportStartError::Running)?;
        let regular = file.metadata()?.is_file();
        let input = if regular { Input::File(file) } else { Input::Reader(Box::new(file)) };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let leases = Arc::clone(&self.leases);
        std::thread::Builder::new().name("storage-import".into()).spawn(move || {
            lower_weight();
            let mut progress = |bytes| drop(sender.try_send(ImportEvent::Progress { bytes }));
            // What a crash leaves without a lease is kept for the usual grace, in which the import can be repeated.
            let result = import(leases.store(), input, segment_len, 0, &mut progress)
                .map_err(ImportFailure::Import)
                .and_then(|imported| {
                    leases.keep(&imported.segments)?;
                    Ok(imported)
                });
            drop((running, pass));
            // The end is not left out; a reader that has gone does not hold it up.
            let _ = sender.blocking_send(ImportEvent::Done(result));
        })?;
        Ok(ImportJob { events })
    }
}

/// Holds the place of the one import.
struct Running(Arc<AtomicBool>);

impl Running {
    fn begin(flag: &Arc<AtomicBool>) -> Option<Running> {
        (!flag.swap(true, AcqRel)).then(|| Running(Arc::clone(flag)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}
