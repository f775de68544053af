//! A file on its way to a friend, as its sender sees it.

use identity::Uid;
use tokio::sync::watch;

use crate::friends::state::Outcome;

/// How far a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileProgress {
    /// Bytes that the receiver keeps, from the first.
    pub kept: u64,
    /// How it went, once that is known; [`Outcome::Delivered`] when the receiver has all of it and has found it whole.
    pub outcome: Option<Outcome>,
}

/// A file on its way. It goes on without this handle.
#[derive(Clone, Debug)]
pub struct FileTransfer {
    /// Its name among this node's messages and files.
    pub id: u64,
    /// To whom.
    pub to: Uid,
    /// What it is called.
    pub name: String,
    /// Its length, bytes.
    pub len: u64,
    /// How far it is.
    pub progress: watch::Receiver<FileProgress>,
}

impl FileTransfer {
    /// Waits until it is known how it went: as long as it takes, so long as something moves. [`Outcome::Unknown`] if this node's service ends
    /// before.
    pub async fn outcome(&self) -> Outcome {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.outcome.is_some()).await;
        ended.ok().and_then(|progress| progress.outcome).unwrap_or(Outcome::Unknown)
    }
}
