//! Which UIDs a node serves.

use super::limits::LimitError;
use identity::Uid;
use rkyv::{Archive, Deserialize, Serialize};

/// The most UIDs in one list: 2 MiB. Lists are looked through by bisection.
pub const UIDS_MAX: usize = 1 << 16;

/// Whom a node serves at its mailbox and its relay, and who may write. The default serves everybody.
///
/// Reading content needs no UID, so these lists have no say in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct UidAccess {
    /// Only these are served; with none, everybody is. Ascending, each once; at most [`UIDS_MAX`].
    pub allow: Vec<[u8; 32]>,
    /// These are not, whatever `allow` says. The same.
    pub deny: Vec<[u8; 32]>,
}

/// Why somebody is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UidRefusal {
    /// The UID is denied.
    #[error("this UID is denied here")]
    Denied,
    /// Only others are allowed.
    #[error("this UID is not among those that are allowed here")]
    NotAllowed,
}

impl UidAccess {
    /// Whether everybody is served.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether this UID is served.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, uid: &[u8; 32]) -> Result<(), UidRefusal> {
        if self.deny.binary_search(uid).is_ok() {
            return Err(UidRefusal::Denied);
        }
        if !self.allow.is_empty() && self.allow.binary_search(uid).is_err() {
            return Err(UidRefusal::NotAllowed);
        }
        Ok(())
    }

    /// Whether a user of the relay is served. A name that is no UID is an operator's own, to whom these lists do not apply.
    ///
    /// # Errors
    /// Why not.
    pub fn admit_user(&self, name: &str) -> Result<(), UidRefusal> {
        if self.is_open() {
            return Ok(());
        }
        name.parse::<Uid>().map_or(Ok(()), |uid| self.admit(uid.as_bytes()))
    }

    /// Checks length and order of the lists.
    pub(super) fn check(&self) -> Result<(), LimitError> {
        for (name, list) in [("uids allow", &self.allow), ("uids deny", &self.deny)] {
            if list.len() > UIDS_MAX {
                let (value, max) = (list.len() as u64, UIDS_MAX as u64);
                return Err(LimitError::Range { name, value, min: 0, max });
            }
            if list.array_windows().any(|[one, next]| one >= next) {
                return Err(LimitError::Unusable { name, reason: "its UIDs must ascend, each once" });
            }
        }
        Ok(())
    }
}
