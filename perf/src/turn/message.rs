//! The requests of a TURN client and the answers to them (RFC 8489, RFC 8656).

use std::net::SocketAddr;

use anyhow::{Context, bail};
use turn_types::attribute::{ChannelNumber, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use turn_types::stun::attribute::{ErrorCode, Nonce, Realm, Username};
use turn_types::stun::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageWriteVec, Method,
    TransactionId,
};
use turn_types::stun::prelude::{MessageWrite, MessageWriteExt};

use super::{CHANNEL, Credential};

/// Lifetime that allocations are asked for, in seconds: longer than any phase of a run.
const LIFETIME_S: u32 = 3_600;

/// Protocol number of UDP in REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// What a client learnt from a 401, with the key made of it.
#[derive(Clone)]
pub struct Session {
    user: String,
    realm: String,
    nonce: String,
    key: IntegrityKey,
}

/// A request ready to be sent, and the transaction its answer names.
pub struct Request {
    /// The datagram.
    pub bytes: Vec<u8>,
    /// Its transaction.
    pub transaction: TransactionId,
}

/// What a server answered.
pub enum Answer {
    /// Success; with the relayed address, if it is an Allocate's.
    Success(Option<SocketAddr>),
    /// 401 or 438: again with this realm and nonce.
    Challenge { realm: String, nonce: String },
    /// Any other error.
    Refused { code: u16, reason: String },
}

impl Session {
    /// The session of `credential` in `realm`. The key is made anew only if `known` is of another realm.
    pub fn new(credential: &Credential, realm: String, nonce: String, known: Option<&Self>) -> Self {
        let user = credential.user.clone();
        let key = match known {
            Some(known) if known.realm == realm => known.key.clone(),
            _ => LongTermKeyCredentials::new(user.clone(), credential.password.clone(), realm.clone())
                .make_key(IntegrityAlgorithm::Sha1),
        };
        Self { user, realm, nonce, key }
    }
}

/// Allocate for UDP; without a session it asks for the challenge.
pub fn allocate(session: Option<&Session>) -> anyhow::Result<Request> {
    request(ALLOCATE, session, |message, _| {
        message.add_attribute(&RequestedTransport::new(UDP))?;
        Ok(message.add_attribute(&Lifetime::new(LIFETIME_S))?)
    })
}

/// CreatePermission for `peer`.
pub fn create_permission(session: &Session, peer: SocketAddr) -> anyhow::Result<Request> {
    request(CREATE_PERMISSION, Some(session), |message, transaction| {
        Ok(message.add_attribute(&XorPeerAddress::new(peer, transaction))?)
    })
}

/// ChannelBind of [`CHANNEL`] to `peer`.
pub fn channel_bind(session: &Session, peer: SocketAddr) -> anyhow::Result<Request> {
    request(CHANNEL_BIND, Some(session), |message, transaction| {
        message.add_attribute(&ChannelNumber::new(CHANNEL))?;
        Ok(message.add_attribute(&XorPeerAddress::new(peer, transaction))?)
    })
}

/// Refresh to a lifetime of 0: the allocation ends.
pub fn release(session: &Session) -> anyhow::Result<Request> {
    request(REFRESH, Some(session), |message, _| Ok(message.add_attribute(&Lifetime::new(0))?))
}

fn request(
    method: Method,
    session: Option<&Session>,
    attributes: impl FnOnce(&mut MessageWriteVec, TransactionId) -> anyhow::Result<()>,
) -> anyhow::Result<Request> {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    let transaction = message.transaction_id();
    attributes(&mut message, transaction)?;
    if let Some(session) = session {
        message.add_attribute(&Username::new(&session.user)?)?;
        message.add_attribute(&Realm::new(&session.realm)?)?;
        message.add_attribute(&Nonce::new(&session.nonce)?)?;
        message.add_message_integrity_with_key(&session.key, IntegrityAlgorithm::Sha1)?;
    }
    Ok(Request { bytes: message.finish(), transaction })
}

/// Reads what arrived in answer to `transaction`; `None` if it answers something else. What a session's request is
/// answered with must carry the server's MESSAGE-INTEGRITY, unless it is a challenge.
pub fn answer(
    bytes: &[u8],
    transaction: TransactionId,
    session: Option<&Session>,
) -> anyhow::Result<Option<Answer>> {
    let Ok(message) = Message::from_bytes(bytes) else { return Ok(None) };
    if message.transaction_id() != transaction || !message.is_response() {
        return Ok(None);
    }
    if message.class() == MessageClass::Error {
        let error = message.attribute::<ErrorCode>().context("an error response without ERROR-CODE")?;
        if matches!(error.code(), ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE)
            && let (Ok(realm), Ok(nonce)) = (message.attribute::<Realm>(), message.attribute::<Nonce>())
        {
            let (realm, nonce) = (realm.realm().to_owned(), nonce.nonce().to_owned());
            return Ok(Some(Answer::Challenge { realm, nonce }));
        }
        return Ok(Some(Answer::Refused { code: error.code(), reason: error.reason().to_owned() }));
    }
    if let Some(session) = session
        && message.validate_integrity_with_key(&session.key).is_err()
    {
        bail!("the server's answer does not carry its MESSAGE-INTEGRITY");
    }
    let relayed = message.attribute::<XorRelayedAddress>().ok().map(|a| a.addr(transaction));
    Ok(Some(Answer::Success(relayed)))
}
