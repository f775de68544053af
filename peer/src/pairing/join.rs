//! A code that is typed: goes to where the other device waits, and becomes its friend.

use std::time::Duration;

use identity::{SecretKey, Uid};
use relay::mailbox::Status;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::{Body, Refusal, Sealed};
use super::code::Code;
use super::error::JoinError;
use super::exchange::{Exchange, Knocking};
use super::meeting::{ANSWER_TIMEOUT, GoError, client, go_to, say};
use crate::friends::Friends;
use crate::mailbox::{Event, Kind, Mailbox, MailboxError};
use crate::node_url::NodeUrl;

/// How often a proof is repeated until its answer comes, and how long a busy node is left alone.
const REPEAT_INTERVAL: Duration = Duration::from_secs(2);

/// After so long no further node is tried.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long saying goodbye may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks for the device that shows `code` at these nodes, in this order, and becomes its friend.
pub(super) async fn join(
    friends: &Friends,
    key: &SecretKey,
    code: &Code,
    nodes: &[NodeUrl],
) -> Result<Uid, JoinError> {
    let (client, meeting) = (client()?, code.meeting());
    let host = meeting.key.uid();
    let (search_until, mut tried) = (Instant::now() + SEARCH_TIMEOUT, Vec::new());
    for node in nodes {
        if Instant::now() >= search_until {
            break;
        }
        let (mut mailbox, guest) = match go_to(&client, node, &host).await {
            Ok(session) => session,
            Err(GoError::Random(error)) => return Err(error.into()),
            Err(GoError::Mailbox(error)) => {
                tried.push(format!("{node} ({error})"));
                continue;
            }
        };
        let Some(exchange) = knock(&mut mailbox, code, guest, host, meeting.nospam).await? else {
            mailbox.close();
            tried.push(node.to_string());
            continue;
        };
        let own = friends.own_device().await?;
        // The profile's name was checked when it was set.
        let proof = exchange.prove(key, &own).ok_or(JoinError::NotTheOther)?;
        let done = prove(&mut mailbox, &host, proof).await?;
        let device = exchange.check_done(&done).ok_or(JoinError::NotTheOther)?;
        let uid = device.address.uid;
        if uid == own.address.uid {
            return Err(JoinError::Oneself { uid });
        }
        // The other has written this device down; from here on both hear of each other even if nothing more is said here.
        friends.pair_device(device, false).await?;
        let last = say(&mut mailbox, &host, &Body::Kept(exchange.kept()));
        let left = tokio::time::timeout(LEAVE_TIMEOUT, mailbox.leave()).await;
        tracing::debug!(?last, ?left, "paired");
        return Ok(uid);
    }
    Err(JoinError::NobodyWaits { tried })
}

/// Exchanges shares; `None` if nobody waits here.
async fn knock(
    mailbox: &mut Mailbox,
    code: &Code,
    guest: Uid,
    host: Uid,
    nospam: [u8; 4],
) -> Result<Option<Exchange>, JoinError> {
    const WHEN: &str = "to the first message";
    let knocking = Knocking::begin(code, guest, host).ok_or(JoinError::NotTheOther)?;
    let body = Body::Knock(knocking.share()).to_bytes();
    mailbox.send(Kind::Request, &host, nospam, &body)?;
    let until = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let event = timeout_at(until, mailbox.next()).await;
        match event.map_err(|_| JoinError::NoAnswer { when: WHEN })?? {
            Event::Message { from, body, .. } if from == host => match Body::parse(&body) {
                Some(Body::Offer(share)) => {
                    return knocking.finish(share).map(Some).ok_or(JoinError::NotTheOther);
                }
                Some(Body::Ended(refusal)) => return Err(refusal.into()),
                _ => {}
            },
            Event::NotDelivered { status: Status::Busy, .. } => {
                sleep(REPEAT_INTERVAL).await;
                mailbox.send(Kind::Request, &host, nospam, &body)?;
            }
            Event::NotDelivered { .. } => return Ok(None),
            _ => {}
        }
    }
}

/// Sends the proof until it is answered.
async fn prove(mailbox: &mut Mailbox, host: &Uid, proof: Sealed) -> Result<Sealed, JoinError> {
    const WHEN: &str = "to the code; if it asks for friendship later (ioex friend list), accept it";
    let (until, proof) = (Instant::now() + ANSWER_TIMEOUT, Body::Proof(proof));
    while Instant::now() < until {
        say(mailbox, host, &proof)?;
        let next = until.min(Instant::now() + REPEAT_INTERVAL);
        loop {
            let event: Result<Event, MailboxError> = match timeout_at(next, mailbox.next()).await {
                Ok(event) => event,
                Err(_) => break,
            };
            match event? {
                Event::Message { from, body, .. } if from == *host => match Body::parse(&body) {
                    Some(Body::Done(done)) => return Ok(done),
                    Some(Body::Ended(refusal)) => return Err(refusal.into()),
                    _ => {}
                },
                // It was there a moment ago.
                Event::NotDelivered { status: Status::Offline | Status::Refused, .. } => {
                    return Err(JoinError::CodeEnded);
                }
                _ => {}
            }
        }
    }
    Err(JoinError::NoAnswer { when: WHEN })
}

impl From<Refusal> for JoinError {
    fn from(refusal: Refusal) -> JoinError {
        match refusal {
            Refusal::WrongCode => JoinError::WrongCode,
            Refusal::CodeEnded => JoinError::CodeEnded,
            Refusal::NotTaken => JoinError::NotTaken,
        }
    }
}
