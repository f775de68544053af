//! How a command ends: what the exit codes mean, and which failure gets which.

use std::fmt;
use std::process::ExitCode;

/// Why a command ended, as its exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything without a code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The content, or the local node, is not there.
    NotFound = 3,
    /// What arrived is not what was asked for, or not signed by whom it should be.
    VerificationFailed = 4,
    /// No space left, here or at the node.
    NoSpace = 5,
    /// No node could be reached, or none stayed up.
    Unreachable = 6,
    /// A node did not prove who it is, a node does not accept this publisher, or the file is encrypted for others.
    NotTrusted = 7,
    /// Ended by Ctrl-C; what was fetched is kept, and the next run goes on from there.
    Interrupted = 130,
}

/// The table for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0    done
  1    failed for a reason that the message gives
  2    wrong command line or configuration
  3    not found: no node has the content, or no local node runs
  4    verification failed: content or signature is not what it should be
  5    no space left, here or at the node
  6    no node could be reached
  7    not trusted: a node's identity is not proved, it refuses this publisher, or the file's key is for others
  130  interrupted";

/// A failure on its way to the person: the code, and the error with its causes.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with a code of its own.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit, error: error.into() }
    }

    /// A failure that is a message.
    pub fn message(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure { exit, error: anyhow::anyhow!("{message}") }
    }
}

/// Whatever no command has classified is a plain failure.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(Exit::Failed, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Errors of one's own often quote their source already; a cause is added only if it says something
        // new.
        let mut said = self.error.to_string();
        f.write_str(&said)?;
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
        }
        Ok(())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
