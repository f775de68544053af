//! A device's codes: at most one is offered at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{SecretKey, Uid};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::code::Code;
use super::default_code::DefaultStatus;
use super::error::{JoinError, OfferError};
use super::host::Host;
use super::join::join;
use super::meeting::{GoError, client, is_taken, wait_at};
use super::offer::{Offer, OfferState, OfferStatus};
use crate::friends::Friends;
use crate::node_url::NodeUrl;

/// How long a code may be valid, and how long it is if nothing is said.
pub const VALID_MIN: Duration = Duration::from_secs(1);
/// See [`VALID_MIN`].
pub const VALID_MAX: Duration = Duration::from_secs(3_600);
/// See [`VALID_MIN`].
pub const VALID_DEFAULT: Duration = Duration::from_secs(300);

/// Codes that are drawn before it is said that all nameplates are in use.
const DRAWS_MAX: usize = 5;

/// Offers codes and takes them. Clones are of the same one.
#[derive(Clone)]
pub struct Pairing(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) key: SecretKey,
    pub(super) friends: Friends,
    running: Mutex<Option<Running>>,
    /// The code that this device was delivered with, and how it stands; see [`super::default_code`].
    pub(super) default_code: watch::Sender<Option<(Code, DefaultStatus)>>,
    /// Changes when a device of the same owner is kept.
    pub(super) paired: watch::Sender<()>,
}

struct Running {
    code: Code,
    status: watch::Sender<OfferStatus>,
    task: AbortHandle,
}

/// A code that is offered.
pub struct Offered {
    /// What the person types on the other device.
    pub code: Code,
    /// How it stands.
    pub status: OfferStatus,
}

impl Pairing {
    /// For the device with this key and these friends.
    pub fn new(key: SecretKey, friends: Friends) -> Pairing {
        let (default_code, paired) = (watch::Sender::new(None), watch::Sender::new(()));
        Pairing(Arc::new(Shared { key, friends, running: Mutex::new(None), default_code, paired }))
    }

    /// Draws a code and waits with it for the other device, at the node where this one's mailbox is, as long as `valid` says (held to
    /// [`VALID_MIN`] and [`VALID_MAX`]). A code that waits already is withdrawn. Must be called within a tokio runtime, in which the
    /// waiting goes on.
    ///
    /// # Errors
    /// [`OfferError`]; nobody waits then.
    pub async fn offer(&self, valid: Duration) -> Result<Offered, OfferError> {
        let Shared { key, friends, paired, .. } = &*self.0;
        let valid = valid.clamp(VALID_MIN, VALID_MAX);
        let node = friends.at().ok_or(OfferError::NotConnected)?;
        let failed = |source| OfferError::Mailbox { node: Box::new(node.clone()), source };
        let client = client()?;
        let mut draws = 0..DRAWS_MAX;
        let code = loop {
            if draws.next().is_none() {
                return Err(OfferError::Crowded { tried: DRAWS_MAX, node: Box::new(node) });
            }
            let code = Code::random()?;
            match is_taken(&client, &node, &code).await {
                Ok(Some(false)) => break code,
                Ok(Some(true)) => {}
                Ok(None) => return Err(OfferError::Silent { node: Box::new(node) }),
                Err(GoError::Mailbox(error)) => return Err(failed(error)),
                Err(GoError::Random(error)) => return Err(error.into()),
            }
        };
        let mailbox = wait_at(&client, &node, &code).await.map_err(failed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let status = OfferStatus {
            state: OfferState::Waiting,
            wrong_guesses: 0,
            node: node.clone(),
            expires_unix_s: (now + valid).as_secs(),
        };
        let sender = watch::Sender::new(status.clone());
        let offer = Offer {
            client,
            friends: friends.clone(),
            key: key.clone(),
            host: Host::new(code.clone(), code.meeting().key.uid()),
            node,
            until: Instant::now() + valid,
            status: sender.clone(),
            paired: paired.clone(),
        };
        let task = tokio::spawn(offer.run(mailbox)).abort_handle();
        let running = Running { code: code.clone(), status: sender, task };
        if let Some(before) = self.lock().replace(running) {
            before.withdraw();
        }
        Ok(Offered { code, status })
    }

    /// How the latest code stands, if there was one since the start.
    pub fn status(&self) -> Option<OfferStatus> {
        self.lock().as_ref().map(|running| running.status.borrow().clone())
    }

    /// Ends the code that waits, and tells how it stands then.
    pub fn withdraw(&self) -> Option<OfferStatus> {
        let running = self.lock();
        running.as_ref().map(|running| {
            running.withdraw();
            running.status.borrow().clone()
        })
    }

    /// Looks for the device that shows `code` at these nodes, in this order, and becomes its friend; gives its UID.
    ///
    /// # Errors
    /// [`JoinError`]; unless it says otherwise, nothing has changed here.
    pub async fn join(&self, code: &Code, nodes: &[NodeUrl]) -> Result<Uid, JoinError> {
        let is_own = {
            let running = self.lock();
            running.as_ref().is_some_and(|own| own.code == *code && own.is_waiting())
        };
        let is_default = self.0.default_code.borrow().as_ref().is_some_and(|(own, _)| own == code);
        if is_own || is_default {
            return Err(JoinError::Oneself { uid: self.0.key.uid() });
        }
        let uid = join(&self.0.friends, &self.0.key, code, nodes).await?;
        self.0.paired.send_replace(());
        Ok(uid)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        // Nothing is left half-done in there.
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn is_waiting(&self) -> bool {
        self.status.borrow().state == OfferState::Waiting
    }

    /// Ends it, unless the other device has come already.
    fn withdraw(&self) {
        let is_waiting = self.status.send_if_modified(|status| {
            let is_waiting = status.state == OfferState::Waiting;
            if is_waiting {
                status.state = OfferState::Withdrawn;
            }
            is_waiting
        });
        if is_waiting {
            self.task.abort();
        }
    }
}
