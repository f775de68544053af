//! The policy in force, kept on disk so that the engine goes on with it when the control plane is gone.
//!
//! The file is one [`ToEngine::SetPolicy`] frame: the contract's own encoding with its checksum.
//!
//! A whole policy is on disk before it is in force. Changes may come ten thousand times a second: they are gathered in a draft, put in
//! force together, and written down a moment later. A crash in between leaves an earlier policy on disk, of an earlier generation, which
//! the control plane replaces when it finds the engine again.

use super::policy_changes::Changing;
use crate::limits::{PolicyError, SharedPolicy};
use relay::policy::{
    ChangeError, Decoder, FrameError, HEADER_LEN, LimitError, PAYLOAD_LEN_MAX, Policy, ToEngine, VERSION,
    encode_to_engine,
};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use store::Store;
use tokio::sync::Notify;

/// The policy in force together with its file.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    shared: Arc<SharedPolicy>,
    /// Its limit follows the policy. Opened after the policy was read, since opening takes a limit, too.
    store: OnceLock<Store>,
    /// One change at a time. Taken before `writing` by who needs both.
    pub(super) changing: Mutex<Changing>,
    /// Held from before a policy is chosen to be written until it is on disk and, if it is a whole new one, in force: what is in
    /// force and what is on disk must not cross.
    writing: Mutex<()>,
    /// Whether what is in force is not on disk yet.
    pub(super) is_unwritten: AtomicBool,
    /// Told when that becomes so.
    pub(super) unwritten: Notify,
}

impl PolicyFile {
    /// Reads the last policy, or starts with the defaults (and no publishers) where there is none.
    ///
    /// # Errors
    /// [`PolicyFileError`]: a file that is there must be usable, since starting with other limits than the operator's
    /// would go unnoticed.
    pub fn open(path: &Path) -> Result<PolicyFile, PolicyFileError> {
        let policy = read(path)?.unwrap_or_default();
        let shared = SharedPolicy::new(policy)
            .map_err(|source| PolicyFileError::Limit { path: path.to_path_buf(), source })?;
        Ok(PolicyFile {
            path: path.to_path_buf(),
            shared,
            store: OnceLock::new(),
            changing: Mutex::default(),
            writing: Mutex::default(),
            is_unwritten: AtomicBool::new(false),
            unwritten: Notify::new(),
        })
    }

    /// The policy for those who enforce it.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedPolicy> {
        &self.shared
    }

    /// Has the store's limit follow `store_bytes_max` from now on.
    pub fn govern(&self, store: Store) {
        let _changing = self.lock_changing();
        store.set_bytes_max(self.shared.load().limits.store_bytes_max);
        // A second store would be a mistake without harm: the first keeps its governor.
        let _ = self.store.set(store);
    }

    /// Checks a policy, writes it to disk and puts it in force, in this order: what was promised to be in force is in
    /// force after a crash too. Blocks on the disk.
    ///
    /// # Errors
    /// [`PolicyFileError`]; the old policy stays in force.
    pub fn apply(&self, policy: Policy) -> Result<(), PolicyFileError> {
        let mut changing = self.lock_changing();
        self.shared.check(&policy)?;
        self.replace(policy, &mut changing)
    }

    /// Changes in the policy in force whether the relay refuses new allocations, on disk and then in memory. Its generation
    /// stays and is returned: who sets the whole policy says that anew. Blocks on the disk.
    ///
    /// # Errors
    /// [`PolicyFileError`]; the old policy stays in force.
    pub fn set_relay_draining(&self, draining: bool) -> Result<u64, PolicyFileError> {
        let mut changing = self.lock_changing();
        // Changes that wait are the policy in force a moment early.
        let mut policy = changing.drafted().unwrap_or_else(|| Policy::clone(&self.shared.load()));
        policy.relay.draining = draining;
        let generation = policy.generation;
        self.replace(policy, &mut changing)?;
        Ok(generation)
    }

    /// Reads the file again and puts it in force, if it has changed.
    ///
    /// # Errors
    /// [`PolicyFileError`]; the old policy stays in force.
    pub fn reload(&self) -> Result<(), PolicyFileError> {
        let mut changing = self.lock_changing();
        // What is on disk is then older than what is in force, and not an operator's doing.
        if self.keep()? {
            return Ok(());
        }
        if let Some(policy) = read(&self.path)?
            && policy != *self.shared.load()
        {
            changing.forget();
            self.put_in_force(policy)?;
        }
        Ok(())
    }

    /// Writes what is in force, if changes have not been written yet; says whether they had not. Blocks on the disk.
    ///
    /// # Errors
    /// [`PolicyFileError`]; an earlier policy is on disk.
    pub fn keep(&self) -> Result<bool, PolicyFileError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_unwritten.swap(false, Relaxed) {
            return Ok(false);
        }
        let policy = self.shared.load();
        self.write(&policy).inspect_err(|_| self.is_unwritten.store(true, Relaxed))?;
        Ok(true)
    }

    pub(super) fn lock_changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a policy that was checked, then puts it in force. Changes that wait are replaced by it.
    fn replace(&self, policy: Policy, changing: &mut Changing) -> Result<(), PolicyFileError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&policy)?;
        self.is_unwritten.store(false, Relaxed);
        changing.forget();
        self.put_in_force(policy)
    }

    pub(super) fn put_in_force(&self, policy: Policy) -> Result<(), PolicyFileError> {
        let bytes_max = policy.limits.store_bytes_max;
        self.shared.replace(policy)?;
        if let Some(store) = self.store.get() {
            store.set_bytes_max(bytes_max);
        }
        Ok(())
    }

    fn write(&self, policy: &Policy) -> Result<(), PolicyFileError> {
        let io = |source| PolicyFileError::Io { path: self.path.clone(), source };
        let frame = encode_to_engine(&ToEngine::SetPolicy(policy.clone()))
            .map_err(|source| PolicyFileError::Frame { path: self.path.clone(), source })?;
        crate::node::files::replace(&self.path, &frame).map_err(io)
    }
}

/// The policy in a file; `None` if there is no file.
fn read(path: &Path) -> Result<Option<Policy>, PolicyFileError> {
    let io = |source| PolicyFileError::Io { path: path.to_path_buf(), source };
    let frame_error = |source| PolicyFileError::Frame { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    // One byte more than the longest frame, so that a longer file is noticed without being read.
    let mut bytes = Vec::new();
    file.take((HEADER_LEN + PAYLOAD_LEN_MAX + 1) as u64).read_to_end(&mut bytes).map_err(io)?;
    let mut decoder = Decoder::<ToEngine>::new();
    decoder.push(&bytes);
    let message = match decoder.next_message() {
        // Written by an earlier release. The control plane that comes with this one sends its policy at once; until then the
        // defaults let nobody write and nobody relay.
        Err(FrameError::Version { found }) if found < VERSION => {
            tracing::warn!(path = %path.display(), found, "the policy's file is of an older version; defaults until a policy comes");
            return Ok(None);
        }
        message => message.map_err(frame_error)?,
    };
    decoder.finish().map_err(frame_error)?;
    match message {
        Some(ToEngine::SetPolicy(policy)) => Ok(Some(policy)),
        _ => Err(PolicyFileError::NoPolicy { path: path.to_path_buf() }),
    }
}

/// Why a policy is not in force, or not on disk.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged: {source}; restore it, or remove it to start with the default limits and no publishers", path.display())]
    Frame {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FrameError,
    },
    /// The file holds another message, or nothing.
    #[error("{} holds no policy; remove it to start with the default limits and no publishers", path.display())]
    NoPolicy {
        /// The file.
        path: PathBuf,
    },
    /// A limit in the file is out of its range.
    #[error("{}: {source}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// Which, and what is allowed.
        source: LimitError,
    },
    /// The policy offered is not acceptable.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The change offered is not acceptable.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A change was accepted, and before it was in force somebody set another policy.
    #[error(
        "policy generation {current} was set before the change to generation {generation} was in force; send the whole policy"
    )]
    Overtaken {
        /// Where the change would have led.
        generation: u64,
        /// What is in force.
        current: u64,
    },
}
