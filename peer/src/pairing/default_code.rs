//! The code that a device is delivered with, on a sticker say: waits where the device's mailbox is, until a first device of its owner is
//! kept, whichever code has led to it. From then on it counts no more, with whatever may be configured later, until the device has lost its friends'
//! database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::code::Code;
use super::host::{Host, WRONG_GUESSES_MAX};
use super::meeting::{client, wait_at};
use super::offer::{Offer, OfferState, OfferStatus};
use super::service::{Pairing, Shared};
use crate::NodeUrl;
use crate::friends::FriendError;

/// How long the code rests after [`WRONG_GUESSES_MAX`] wrong guesses: 72 a day are left, of 100,000,000,000 secrets.
const REST: Duration = Duration::from_secs(3_600);

/// The wait before a session is begun again that another one has displaced, or that could not be had.
const RETRY: Duration = Duration::from_secs(10);

/// How long one offer waits before the next one takes its place.
const RENEWAL: Duration = Duration::from_secs(24 * 3_600);

/// How the code stands that a device was delivered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultStatus {
    /// What becomes of it.
    pub state: DefaultState,
    /// Wrong guesses since the start.
    pub wrong_guesses: u64,
}

/// What becomes of the code that a device was delivered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultState {
    /// There is no mailbox at which it could wait.
    Offline,
    /// It waits for a first device.
    Waiting {
        /// At this node.
        node: NodeUrl,
    },
    /// It was guessed at too often, and waits again later.
    Resting {
        /// When, seconds since 1970.
        until_unix_s: u64,
    },
    /// A device was kept: it counts no more.
    Used,
}

/// How an offer of the code ends.
enum End {
    /// The mailbox is at another node, or the offer was to be renewed.
    Again,
    Guessed,
    /// A device has come, or there is one.
    Paired,
    Disturbed(String),
}

impl Pairing {
    /// How the code stands that this device was delivered with, if there is one.
    pub fn default_status(&self) -> Option<DefaultStatus> {
        self.0.default_code.borrow().as_ref().map(|(_, status)| status.clone())
    }

    /// Waits with the code that this device was delivered with, as long as no device of the same owner was ever kept; comes back when
    /// the code counts no more.
    ///
    /// # Errors
    /// The friends cannot be read, or their service has ended.
    pub async fn wait_with_default(&self, code: Code) -> Result<(), FriendError> {
        let shared = &*self.0;
        let status = DefaultStatus { state: DefaultState::Offline, wrong_guesses: 0 };
        shared.default_code.send_replace(Some((code.clone(), status)));
        let mut at = shared.friends.node();
        let mut paired = shared.paired.subscribe();
        loop {
            paired.mark_unchanged();
            if shared.friends.has_had_own_device().await? {
                shared.say(DefaultState::Used);
                return Ok(());
            }
            let node = at.borrow_and_update().clone();
            let Some(node) = node else {
                shared.say(DefaultState::Offline);
                tokio::select! {
                    changed = at.changed() => if changed.is_err() { return Ok(()) },
                    _ = paired.changed() => {}
                }
                continue;
            };
            match shared.offer_default(&code, node, &mut at, &mut paired).await {
                End::Again | End::Paired => {}
                End::Guessed => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    shared.say(DefaultState::Resting { until_unix_s: (now + REST).as_secs() });
                    tracing::warn!(
                        rest_s = REST.as_secs(),
                        "the pairing code of this device rests: it was guessed at {WRONG_GUESSES_MAX} times"
                    );
                    tokio::select! {
                        () = sleep(REST) => {}
                        _ = paired.changed() => {}
                    }
                }
                End::Disturbed(reason) => {
                    shared.say(DefaultState::Offline);
                    tracing::warn!(
                        reason,
                        "the pairing code of this device waits nowhere; it is tried again"
                    );
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        _ = paired.changed() => {}
                    }
                }
            }
        }
    }
}

impl Shared {
    async fn offer_default(
        &self,
        code: &Code,
        node: NodeUrl,
        at: &mut watch::Receiver<Option<NodeUrl>>,
        paired: &mut watch::Receiver<()>,
    ) -> End {
        let (client, mailbox) = match client() {
            Err(error) => return End::Disturbed(error.to_string()),
            Ok(client) => match wait_at(&client, &node, code).await {
                Err(error) => return End::Disturbed(error.to_string()),
                Ok(mailbox) => (client, mailbox),
            },
        };
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + RENEWAL;
        let sender = watch::Sender::new(OfferStatus {
            state: OfferState::Waiting,
            wrong_guesses: 0,
            node: node.clone(),
            expires_unix_s: expires.as_secs(),
        });
        let mut status = sender.subscribe();
        let offer = Offer {
            client,
            friends: self.friends.clone(),
            key: self.key.clone(),
            host: Host::new(code.clone(), code.meeting().key.uid()),
            node: node.clone(),
            until: Instant::now() + RENEWAL,
            status: sender,
            paired: self.paired.clone(),
        };
        self.say(DefaultState::Waiting { node: node.clone() });
        let mut run = std::pin::pin!(offer.run(mailbox));
        let mut guesses_seen = 0;
        // Whether a device is just being taken: what else may happen waits for that.
        let is_taking = |status: &watch::Receiver<OfferStatus>| {
            matches!(status.borrow().state, OfferState::Confirming { .. } | OfferState::Paired { .. })
        };
        loop {
            let is_over = tokio::select! {
                () = &mut run => true,
                changed = status.changed() => changed.is_err(),
                _ = paired.changed(), if !is_taking(&status) => return End::Paired,
                changed = at.changed(), if !is_taking(&status) => {
                    if changed.is_err() {
                        return End::Disturbed("the friends' service has ended".into());
                    }
                    // A mailbox that was lost is had again where it was, mostly: the offer looks after that itself.
                    let now = at.borrow_and_update().clone();
                    if now.is_some_and(|now| now != status.borrow().node) {
                        return End::Again;
                    }
                    false
                }
            };
            let now = status.borrow_and_update().clone();
            self.count_guesses(u64::from(now.wrong_guesses.saturating_sub(guesses_seen)));
            guesses_seen = now.wrong_guesses;
            if now.state == OfferState::Waiting {
                self.say(DefaultState::Waiting { node: now.node });
            }
            if is_over {
                return match now.state {
                    OfferState::Paired { uid, .. } => {
                        tracing::info!(%uid, "a device of the same owner has come with the code of this device");
                        End::Paired
                    }
                    OfferState::Guessed => End::Guessed,
                    OfferState::Displaced => {
                        End::Disturbed("somebody else waits with the same nameplate".into())
                    }
                    OfferState::Failed { reason } => End::Disturbed(reason),
                    _ => End::Again,
                };
            }
        }
    }

    fn say(&self, state: DefaultState) {
        self.default_code.send_if_modified(|code| match code {
            Some((_, status)) if status.state != state => {
                status.state = state;
                true
            }
            _ => false,
        });
    }

    fn count_guesses(&self, more: u64) {
        self.default_code.send_if_modified(|code| {
            if let Some((_, status)) = code {
                status.wrong_guesses += more;
            }
            more > 0
        });
    }
}
