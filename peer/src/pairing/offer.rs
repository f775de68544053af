//! A code that is offered: waits at a mailbox until the other device has come, or the code has ended.

use std::time::Duration;

use identity::{SecretKey, Uid};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::{Body, Refusal, Sealed};
use super::exchange::Exchange;
use super::host::{Host, Verdict};
use super::meeting::{say, wait_at};
use crate::client::Client;
use crate::friends::{Device, FriendError, Friends};
use crate::mailbox::{Event, Mailbox, MailboxError};
use crate::node_url::NodeUrl;

/// How long the guest's last word is waited for, and how often the host says its own until then.
const KEPT_TIMEOUT: Duration = Duration::from_secs(8);
const REPEAT_INTERVAL: Duration = Duration::from_secs(2);

/// The wait before a lost session is begun again.
const REOPEN_WAIT: Duration = Duration::from_secs(1);

/// How a code stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferStatus {
    /// What has become of it.
    pub state: OfferState,
    /// Wrong guesses so far; [`super::WRONG_GUESSES_MAX`] end it.
    pub wrong_guesses: u32,
    /// The node at which the other device is met.
    pub node: NodeUrl,
    /// When it expires, seconds since 1970.
    pub expires_unix_s: u64,
}

/// What has become of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferState {
    /// Nobody has come yet.
    Waiting,
    /// This device knows the code and is written down; its last word is missing.
    Confirming {
        /// Which.
        uid: Uid,
    },
    /// Done. If the last word did not come, the friendship begins when the two next hear of each other.
    Paired {
        /// With which device.
        uid: Uid,
        /// Whether the last word came.
        is_confirmed: bool,
    },
    /// Nobody came in time.
    Expired,
    /// Somebody has guessed at it too often.
    Guessed,
    /// Somebody else waits with the same nameplate, and came later.
    Displaced,
    /// Its owner has taken it back.
    Withdrawn,
    /// It led to nothing.
    Failed {
        /// Why.
        reason: String,
    },
}

pub(super) struct Offer {
    pub(super) client: Client,
    pub(super) friends: Friends,
    /// The key of this device's UID.
    pub(super) key: SecretKey,
    pub(super) host: Host,
    pub(super) node: NodeUrl,
    pub(super) until: Instant,
    pub(super) status: watch::Sender<OfferStatus>,
    /// Is told that a device of the same owner is kept.
    pub(super) paired: watch::Sender<()>,
}

/// How a session at the mailbox ends.
enum End {
    State(OfferState),
    Lost(MailboxError),
}

impl From<MailboxError> for End {
    fn from(error: MailboxError) -> End {
        match error {
            MailboxError::Displaced => End::State(OfferState::Displaced),
            error => End::Lost(error),
        }
    }
}

impl Offer {
    /// Waits, in this session and those that follow when it is lost, until the code has ended.
    pub(super) async fn run(mut self, mut mailbox: Mailbox) {
        let state = loop {
            let error = match self.serve(&mut mailbox).await {
                End::State(state) => break state,
                End::Lost(error) => error,
            };
            tracing::debug!(%error, "the session at which a pairing code waits is lost");
            match self.reopen().await {
                Ok(new) => mailbox = new,
                Err(state) => break state,
            }
        };
        self.say_state(state);
        // What was said last is on its way; the end of the connection must not overtake it.
        let _ = tokio::time::timeout(REPEAT_INTERVAL, mailbox.leave()).await;
    }

    /// Begins another session. The code is where the device's own mailbox is, which may have moved.
    async fn reopen(&mut self) -> Result<Mailbox, OfferState> {
        self.host.forget_exchanges();
        let opening = async {
            loop {
                sleep(REOPEN_WAIT).await;
                let node = self.friends.at().unwrap_or_else(|| self.node.clone());
                match wait_at(&self.client, &node, self.host.code()).await {
                    Ok(mailbox) => return (mailbox, node),
                    Err(error) => tracing::debug!(%error, "no session at which the pairing code could wait"),
                }
            }
        };
        let opened = timeout_at(self.until, opening).await;
        let (mailbox, node) = opened.map_err(|_| OfferState::Expired)?;
        self.node = node.clone();
        self.status.send_modify(|status| status.node = node);
        Ok(mailbox)
    }

    async fn serve(&mut self, mailbox: &mut Mailbox) -> End {
        loop {
            let event = match timeout_at(self.until, mailbox.next()).await {
                Ok(Ok(event)) => event,
                Ok(Err(error)) => return error.into(),
                Err(_) => return End::State(OfferState::Expired),
            };
            let answered = match event {
                Event::Request { from, body, .. } => self.on_knock(mailbox, from, &body),
                Event::Message { from, body, .. } => match self.on_message(mailbox, from, &body).await {
                    Ok(Some(state)) => return End::State(state),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                },
                Event::Delivered { .. }
                | Event::NotDelivered { .. }
                | Event::Relay(_)
                | Event::NoRelay(_) => Ok(()),
            };
            if let Err(error) = answered {
                return error.into();
            }
        }
    }

    fn on_knock(&mut self, mailbox: &mut Mailbox, from: Uid, body: &[u8]) -> Result<(), MailboxError> {
        let Some(Body::Knock(share)) = Body::parse(body) else { return Ok(()) };
        let Some(knocked) = self.host.on_knock(from, share) else { return Ok(()) };
        if let Some(evicted) = knocked.evicted {
            mailbox.forbid(&[evicted]);
        }
        mailbox.allow(&[(from, 0)])?;
        say(mailbox, &from, &Body::Offer(knocked.share))
    }

    /// Gives what has become of the code, if it has ended.
    async fn on_message(
        &mut self,
        mailbox: &mut Mailbox,
        from: Uid,
        body: &[u8],
    ) -> Result<Option<OfferState>, MailboxError> {
        let Some(Body::Proof(proof)) = Body::parse(body) else { return Ok(None) };
        match self.host.on_proof(&from, &proof) {
            Verdict::Right(exchange, device) => self.accept(mailbox, from, &exchange, device).await.map(Some),
            Verdict::Wrong => {
                say(mailbox, &from, &Body::Ended(Refusal::WrongCode))?;
                let wrong_guesses = self.host.wrong_guesses();
                tracing::warn!(wrong_guesses, "somebody has guessed wrongly at the pairing code");
                self.status.send_modify(|status| status.wrong_guesses = wrong_guesses);
                Ok(self.host.is_guessed_at_too_often().then_some(OfferState::Guessed))
            }
            Verdict::Unexpected => say(mailbox, &from, &Body::Ended(Refusal::CodeEnded)).map(|()| None),
        }
    }

    /// The guest knows the code: it is written down, and told who this device is, until it says that it keeps this one, too.
    async fn accept(
        &mut self,
        mailbox: &mut Mailbox,
        guest: Uid,
        exchange: &Exchange,
        device: Device,
    ) -> Result<OfferState, MailboxError> {
        let uid = device.address.uid;
        // The code is used, whatever comes now.
        if !self.claim(uid) {
            say(mailbox, &guest, &Body::Ended(Refusal::CodeEnded))?;
            return Ok(OfferState::Withdrawn);
        }
        let done = match self.keep(exchange, &device).await {
            Ok(done) => done,
            Err(error) => {
                say(mailbox, &guest, &Body::Ended(Refusal::NotTaken))?;
                return Ok(OfferState::Failed { reason: error.to_string() });
            }
        };
        let is_confirmed = match self.hear_kept(mailbox, &guest, exchange, done).await {
            Ok(true) => self.friends.pair_device(device, true).await.is_ok(),
            Ok(false) => false,
            Err(error) => {
                tracing::debug!(%error, "the session ended before the other device's last word");
                false
            }
        };
        if !is_confirmed && self.friends.ask_device(uid).await.is_err() {
            tracing::debug!("the friends' service has ended; the device is asked when it begins again");
        }
        Ok(OfferState::Paired { uid, is_confirmed })
    }

    /// Writes the guest down, and makes what it is told.
    async fn keep(&self, exchange: &Exchange, device: &Device) -> Result<Sealed, FriendError> {
        self.friends.expect_device(device.clone()).await?;
        self.paired.send_replace(());
        let own = self.friends.own_device().await?;
        // The profile's name was checked when it was set.
        exchange.confirm(&self.key, &own).ok_or(FriendError::Oneself { uid: own.address.uid })
    }

    /// Says `done` again and again until the guest's last word comes; false if it does not.
    async fn hear_kept(
        &self,
        mailbox: &mut Mailbox,
        guest: &Uid,
        exchange: &Exchange,
        done: Sealed,
    ) -> Result<bool, MailboxError> {
        let (until, done) = (Instant::now() + KEPT_TIMEOUT, Body::Done(done));
        while Instant::now() < until {
            say(mailbox, guest, &done)?;
            let next = until.min(Instant::now() + REPEAT_INTERVAL);
            while let Ok(event) = timeout_at(next, mailbox.next()).await {
                let (from, body) = match event? {
                    Event::Message { from, body, .. } => (from, body),
                    Event::Request { from, .. } => {
                        mailbox.allow(&[(from, 0)])?;
                        say(mailbox, &from, &Body::Ended(Refusal::CodeEnded))?;
                        continue;
                    }
                    Event::Delivered { .. }
                    | Event::NotDelivered { .. }
                    | Event::Relay(_)
                    | Event::NoRelay(_) => continue,
                };
                match Body::parse(&body) {
                    Some(Body::Kept(tag)) if from == *guest && exchange.check_kept(&tag) => return Ok(true),
                    // It has not heard yet.
                    Some(Body::Proof(_)) if from == *guest => break,
                    Some(Body::Proof(_)) => say(mailbox, &from, &Body::Ended(Refusal::CodeEnded))?,
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// The device has come; false if the code was withdrawn before.
    fn claim(&self, uid: Uid) -> bool {
        self.status.send_if_modified(|status| {
            let is_waiting = status.state == OfferState::Waiting;
            if is_waiting {
                status.state = OfferState::Confirming { uid };
            }
            is_waiting
        })
    }

    fn say_state(&self, state: OfferState) {
        self.status.send_modify(|status| status.state = state);
    }
}
