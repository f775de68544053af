//! Questions about the relay's sessions, which the shards answer: each knows its own.

use crate::mailbox::Sender;
use crate::relay;
use crate::shard::{Command, MAILBOX_TRIES};
use ::relay::policy::{RelaySelector, RelaySession};
use std::time::Duration;
use tokio::sync::oneshot;

/// Time in which a shard answers. A turn takes milliseconds; a shard that is at its end does not answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Some of a shard's sessions.
#[derive(Debug, Default)]
pub struct SessionsPage {
    /// At most [`relay::policy::RELAY_SESSIONS_PER_FRAME_MAX`].
    pub sessions: Vec<RelaySession>,
    /// Where the next page begins; none if this is the last one.
    pub next: Option<u64>,
}

/// The shards, to be asked.
#[derive(Debug)]
pub struct RelayShards {
    mailboxes: Vec<Sender<Command>>,
}

impl RelayShards {
    /// Asks through these mailboxes.
    #[must_use]
    pub fn new(mailboxes: Vec<Sender<Command>>) -> RelayShards {
        RelayShards { mailboxes }
    }

    /// How many shards there are.
    pub(super) fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Has every shard put the policy in force at once, also one that has nothing else to do.
    pub(super) fn look_at_policy(&self) {
        for mailbox in &self.mailboxes {
            // One that is full is emptied with the shard's next turn, which looks first.
            let _ = mailbox.send(Command::LookAtPolicy);
        }
    }

    /// A page of the sessions of shard `shard`, from `from` on.
    ///
    /// # Errors
    /// The shard does not answer.
    pub(super) async fn sessions(&self, shard: usize, from: u64) -> Result<SessionsPage, String> {
        self.ask(shard, |answer| Command::Relay(relay::Command::Sessions { from, answer })).await
    }

    /// Ends the sessions that `selector` means, on every shard, and says how many there were.
    ///
    /// # Errors
    /// A shard does not answer; others have ended theirs.
    pub(super) async fn kick(&self, selector: &RelaySelector) -> Result<u64, String> {
        let mut count = 0;
        for shard in 0..self.count() {
            let selector = selector.clone();
            let kicked =
                self.ask(shard, |answer| Command::Relay(relay::Command::Kick { selector, answer })).await?;
            count += kicked as u64;
        }
        Ok(count)
    }

    async fn ask<T>(
        &self,
        shard: usize,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, String> {
        let silent = || format!("shard {shard} does not answer; ask again, or see the engine's log");
        let mailbox = self.mailboxes.get(shard).ok_or_else(silent)?;
        let (sender, receiver) = oneshot::channel();
        let mut command = command(sender);
        let mut tries = 0;
        // A mailbox that is full of handed-over datagrams is emptied at the shard's next turn.
        while let Err(back) = mailbox.send(command) {
            if mailbox.is_closed() || tries == MAILBOX_TRIES {
                return Err(silent());
            }
            (command, tries) = (back, tries + 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(silent()),
        }
    }
}
