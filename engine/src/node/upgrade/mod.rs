//! An engine that takes the place of a running one, without a connection or a request being dropped. What both say to each
//! other, and in which order, is drawn in `engine/docs/upgrade.md`.

mod give;
mod take;
mod wire;

pub(super) use give::{Giver, GiverParts, Offered};
pub(super) use take::Taken;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Version of what is said.
const VERSION: u64 = 1;

/// How long either side may take for what costs nothing but a few system calls.
const PROMPT: Duration = Duration::from_secs(10);

/// How long the new engine may take to open the store and start its shards. Writes wait as long.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long what writes to the store may take to come to an end: group commits and upkeep take milliseconds, an import may
/// take hours and is not waited for.
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an engine does not take the place of the one that runs. That one goes on as if nothing had been.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// There is no engine to take over from.
    #[error("no engine to take over from answers on {path}: {source}; start without --take-over", path = .path.display())]
    NoEngine {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It does not want to.
    #[error("the running engine does not hand over: {0}")]
    Refused(String),
    /// It went away or stopped answering.
    #[error("the running engine broke off the hand-over: {0}; its log says why")]
    BrokenOff(#[from] io::Error),
    /// It speaks otherwise.
    #[error("the running engine does not say what it must ({0}); it is of another version: restart instead")]
    Unclear(&'static str),
    /// The new engine is to run otherwise than the old one.
    #[error("{0}; an upgrade changes the program alone: restart to change that")]
    Differs(String),
}
