//! Sessions at the mailbox where two meet.

use std::time::Duration;

use identity::{SecretKey, Uid};
use tokio::time::timeout;

use super::body::Body;
use super::code::Code;
use crate::client::{Client, ClientError, ClientOptions};
use crate::mailbox::{Event, Kind, Login, Mailbox, MailboxError, Status};
use crate::node_url::NodeUrl;

/// How long a node, or the other device, may take for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take: there may be other nodes to try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of its own: its socket is there as long as a code is.
pub(super) fn client() -> Result<Client, ClientError> {
    Client::new(ClientOptions { connect_timeout: CONNECT_TIMEOUT, ..ClientOptions::default() })
}

/// The host's session: the one that a guest finds by the nameplate.
pub(super) async fn wait_at(client: &Client, node: &NodeUrl, code: &Code) -> Result<Mailbox, MailboxError> {
    let meeting = code.meeting();
    let login = Login { key: meeting.key, nospam: meeting.nospam, friends: Vec::new(), latest_sent_us: 0 };
    Mailbox::open(&client.node(node.clone()), login).await
}

/// A session under a UID that nobody has had before, and that takes envelopes of the meeting's UID alone.
pub(super) async fn go_to(client: &Client, node: &NodeUrl, meeting: &Uid) -> Result<(Mailbox, Uid), GoError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let key = SecretKey::from_seed(seed);
    let uid = key.uid();
    let login = Login { key, nospam: [0; 4], friends: vec![(*meeting, 0)], latest_sent_us: 0 };
    Ok((Mailbox::open(&client.node(node.clone()), login).await?, uid))
}

/// Why there is no such session.
#[derive(Debug, thiserror::Error)]
pub(super) enum GoError {
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Whether somebody waits with this nameplate already; `None` if the node does not say.
pub(super) async fn is_taken(client: &Client, node: &NodeUrl, code: &Code) -> Result<Option<bool>, GoError> {
    let meeting = code.meeting().key.uid();
    let (mut mailbox, _) = go_to(client, node, &meeting).await?;
    // Nobody is allowed to send a message there without a knock, so what is there refuses this one.
    mailbox.send(Kind::Message, &meeting, [0; 4], &[])?;
    let asking = async {
        loop {
            if let Event::NotDelivered { status, .. } = mailbox.next().await? {
                return Ok(status != Status::Offline);
            }
        }
    };
    let answered: Result<Result<bool, MailboxError>, _> = timeout(ANSWER_TIMEOUT, asking).await;
    mailbox.close();
    answered.ok().transpose().map_err(GoError::from)
}

/// Queues a body, which goes with the next [`Mailbox::next`] or [`Mailbox::flush`].
pub(super) fn say(mailbox: &mut Mailbox, to: &Uid, body: &Body) -> Result<(), MailboxError> {
    mailbox.send(Kind::Message, to, [0; 4], &body.to_bytes()).map(drop)
}
