//! The mailbox at one node: what other peers send arrives here as long as the connection lasts.
//!
//! The protocol is [`relay::mailbox`], drawn in `relay/docs/mailbox.md`. This is its transport: it proves the UID, signs and
//! verifies envelopes, and drops what is repeated, too old, for somebody else or from somebody who is not allowed. Bodies are
//! the caller's, and so is their encryption.

mod error;

pub use error::MailboxError;
pub use relay::mailbox::{Kind, NoRelay, NodeAddress, RECEIPTS_MAX, Receipt, Status};

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use identity::{Domain, SecretKey, Uid};
use quinn::{RecvStream, SendStream};
use relay::mailbox::{
    EXPORTER_LABEL, EXPORTER_LEN, Envelope, Frame, FrameReader, REPLAY_WINDOW_US, RelayGrant, Replay,
    ReplayWindow, UIDS_PER_FRAME_MAX, sign,
};

use crate::node::Node;

/// Bytes that are taken from the connection at a time.
const CHUNK_LEN: usize = 16 << 10;

/// Who logs in, and whose envelopes it takes.
#[derive(Debug)]
pub struct Login {
    /// The key of the UID.
    pub key: SecretKey,
    /// The nospam value of its address.
    pub nospam: [u8; 4],
    /// Friends, each with the time of the latest envelope that was accepted of it (microseconds since 1970, 0 for none), so
    /// that none counts twice over a restart.
    pub friends: Vec<(Uid, u64)>,
    /// The time of the latest envelope that this key has signed, 0 for none.
    pub latest_sent_us: u64,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A friend has sent something. Its sender waits for [`Mailbox::acknowledge`] with this receipt.
    Message {
        /// Who.
        from: Uid,
        /// What, as it was sent.
        body: Vec<u8>,
        /// What a receipt of it says.
        receipt: Receipt,
    },
    /// Somebody asks to be a friend. The same request may come more than once.
    Request {
        /// Who.
        from: Uid,
        /// What the request says, as it was sent.
        body: Vec<u8>,
        /// What a receipt of it says; somebody who is no friend does not get it.
        receipt: Receipt,
    },
    /// A friend has received what [`Mailbox::send`] gave this receipt for.
    Delivered {
        /// Who.
        by: Uid,
        /// Which envelope.
        receipt: Receipt,
    },
    /// An envelope was not passed on.
    NotDelivered {
        /// Whom it was for.
        to: Uid,
        /// Its time, as in the receipt that [`Mailbox::send`] gave.
        time_us: u64,
        /// Why not.
        status: Status,
    },
    /// The node has issued credentials for its relay, as [`Mailbox::ask_relay`] asked.
    Relay(RelayCredentials),
    /// It has not.
    NoRelay(NoRelay),
}

/// Credentials for a node's relay (TURN, RFC 8656), under this peer's UID.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    /// USERNAME: `expiry:UID`.
    pub username: String,
    /// The password.
    pub password: String,
    /// When they expire by the node's clock, seconds since 1970. Sessions that have begun go on.
    pub expires_s: u64,
    /// Where the relay is (RFC 7065): UDP first, then TCP and TLS.
    pub uris: Vec<String>,
}

impl fmt::Debug for RelayCredentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayCredentials")
            .field("username", &self.username)
            .field("uris", &self.uris)
            .finish_non_exhaustive()
    }
}

/// A session at one node. Whoever holds it calls [`Mailbox::next`] in a loop.
#[derive(Debug)]
pub struct Mailbox {
    connection: quinn::Connection,
    /// Where the node is, if its certificate says who it is.
    node: Option<NodeAddress>,
    send: SendStream,
    receive: RecvStream,
    reader: FrameReader,
    /// What one envelope said beside the first thing: other receipts.
    heard: VecDeque<Event>,
    /// What has arrived and was not read yet.
    input: bytes::Bytes,
    /// What is to be sent and was not taken by the connection yet.
    output: Vec<u8>,
    key: SecretKey,
    uid: Uid,
    nospam: [u8; 4],
    windows: HashMap<Uid, ReplayWindow>,
    /// How far the node's clock is ahead of this machine's, microseconds.
    clock_offset_us: i64,
    latest_sent_us: u64,
    allowed_max: usize,
    dropped: u64,
}

impl Mailbox {
    /// Connects, logs in, and returns when others reach this peer.
    ///
    /// # Errors
    /// The node cannot be reached or does not let this peer in.
    pub async fn open(node: &Node, login: Login) -> Result<Mailbox, MailboxError> {
        let connection = node.connect_mailbox().await?;
        let mut exported = [0; EXPORTER_LEN];
        connection.export_keying_material(&mut exported, EXPORTER_LABEL.as_bytes(), &[]).map_err(|_| {
            MailboxError::Lost { reason: "this connection exports no keying material".to_owned() }
        })?;
        let (send, receive) = connection.open_bi().await?;
        let Login { key, nospam, friends, latest_sent_us } = login;
        let uid = key.uid();
        let signature = key.sign(Domain::MailboxLogin, &exported);
        let node = node.uid_over(&connection).map(|uid| NodeAddress::new(uid, connection.remote_address()));
        let mut mailbox = Mailbox {
            connection,
            node,
            send,
            receive,
            reader: FrameReader::default(),
            heard: VecDeque::new(),
            input: bytes::Bytes::new(),
            output: Vec::new(),
            key,
            uid,
            nospam,
            windows: HashMap::new(),
            clock_offset_us: 0,
            latest_sent_us,
            allowed_max: usize::MAX,
            dropped: 0,
        };
        mailbox.say(&Frame::Login { uid, nospam, signature });
        mailbox.allow(&friends)?;
        mailbox.say(&Frame::Listen);
        mailbox.flush().await?;
        match mailbox.next_frame().await? {
            Frame::Welcome { time_us, allowed_max } => {
                mailbox.clock_offset_us = (time_us as i64).wrapping_sub(local_time_us() as i64);
                mailbox.allowed_max = allowed_max as usize;
                Ok(mailbox)
            }
            frame => Err(MailboxError::Unexpected { frame: format!("{frame:?}") }),
        }
    }

    /// Takes envelopes from these, too; with each the time of the latest that was accepted of it before.
    ///
    /// # Errors
    /// [`MailboxError::AllowedMax`]: the node keeps no more.
    pub fn allow(&mut self, friends: &[(Uid, u64)]) -> Result<(), MailboxError> {
        let new: Vec<_> = friends.iter().filter(|(uid, _)| !self.windows.contains_key(uid)).collect();
        if self.windows.len() + new.len() > self.allowed_max {
            return Err(MailboxError::AllowedMax { max: self.allowed_max });
        }
        for friends in new.chunks(UIDS_PER_FRAME_MAX) {
            self.say(&Frame::Allow(friends.iter().map(|(uid, _)| *uid).collect()));
        }
        self.windows.extend(new.into_iter().map(|(uid, latest_us)| (*uid, ReplayWindow::new(*latest_us))));
        Ok(())
    }

    /// Takes none from these any more.
    pub fn forbid(&mut self, uids: &[Uid]) {
        for uids in uids.chunks(UIDS_PER_FRAME_MAX) {
            self.say(&Frame::Forbid(uids.to_vec()));
        }
        uids.iter().for_each(|uid| drop(self.windows.remove(uid)));
    }

    /// The address has another nospam value now; requests with the old one are refused.
    pub fn set_nospam(&mut self, nospam: [u8; 4]) {
        self.nospam = nospam;
        self.say(&Frame::Nospam(nospam));
    }

    /// Asks the node for credentials of its relay; [`Event::Relay`] or [`Event::NoRelay`] answers. At most six times a minute, ten at
    /// once.
    pub fn ask_relay(&mut self) {
        self.say(&Frame::AskRelay);
    }

    /// Signs an envelope and queues it; [`Mailbox::next`] sends it. What comes back is what [`Event::Delivered`] will say, and
    /// its time is what [`Event::NotDelivered`] will say. `nospam` is that of the address in a request, zeros else.
    ///
    /// # Errors
    /// [`MailboxError::Envelope`]: the body is too long.
    pub fn send(
        &mut self,
        kind: Kind,
        to: &Uid,
        nospam: [u8; 4],
        body: &[u8],
    ) -> Result<Receipt, MailboxError> {
        self.send_via(None, kind, to, nospam, body)
    }

    /// The same to a receiver at another node, `via`.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub fn send_via(
        &mut self,
        via: Option<NodeAddress>,
        kind: Kind,
        to: &Uid,
        nospam: [u8; 4],
        body: &[u8],
    ) -> Result<Receipt, MailboxError> {
        let time_us = self.now_us().max(self.latest_sent_us + 1);
        let envelope = sign(&self.key, kind, to, nospam, time_us, body)?;
        let receipt = Envelope::parse(&envelope)?.receipt();
        self.latest_sent_us = time_us;
        self.say(&match via {
            None => Frame::Send(envelope),
            Some(node) => Frame::SendVia { node, envelope },
        });
        Ok(receipt)
    }

    /// Tells a friend that its message has arrived, and is kept.
    ///
    /// # Errors
    /// None that a receipt's length could cause.
    pub fn acknowledge(&mut self, from: &Uid, receipt: &Receipt) -> Result<(), MailboxError> {
        self.acknowledge_via(None, from, std::slice::from_ref(receipt))
    }

    /// The same of several messages, 1 to [`RECEIPTS_MAX`], in one envelope; `via` another node, if the friend is there.
    ///
    /// # Errors
    /// [`MailboxError::Envelope`]: there are more.
    pub fn acknowledge_via(
        &mut self,
        via: Option<NodeAddress>,
        from: &Uid,
        receipts: &[Receipt],
    ) -> Result<(), MailboxError> {
        let body: Vec<u8> = receipts.iter().flat_map(Receipt::to_bytes).collect();
        self.send_via(via, Kind::Receipt, from, [0; 4], &body).map(drop)
    }

    /// Sends what is queued, and waits for what happens next. May be dropped at any time: nothing is lost.
    ///
    /// # Errors
    /// The session is over; the error says why.
    pub async fn next(&mut self) -> Result<Event, MailboxError> {
        loop {
            if let Some(event) = self.heard.pop_front() {
                return Ok(event);
            }
            match self.next_frame().await? {
                Frame::Deliver(bytes) => match self.judge(&bytes) {
                    Some(event) => return Ok(event),
                    None => self.dropped += 1,
                },
                Frame::Status { receiver, time_us, status } => {
                    return Ok(Event::NotDelivered { to: receiver, time_us, status });
                }
                Frame::Relay(grant) => return Ok(Event::Relay(self.relay_credentials(&grant))),
                Frame::NoRelay(reason) => return Ok(Event::NoRelay(reason)),
                frame => return Err(MailboxError::Unexpected { frame: format!("{frame:?}") }),
            }
        }
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The session is over.
    pub async fn flush(&mut self) -> Result<(), MailboxError> {
        // By pieces, so that whoever drops this knows how much was taken.
        while !self.output.is_empty() {
            match self.send.write(&self.output).await {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) => return Err(self.ended(error.to_string())),
            }
        }
        Ok(())
    }

    /// The latest time that was accepted of a friend, to be kept for the next login.
    pub fn latest_from_us(&self, friend: &Uid) -> u64 {
        self.windows.get(friend).map_or(0, ReplayWindow::latest_us)
    }

    /// Envelopes that were dropped: not signed by their sender, repeated, out of time, or from nobody whom this peer allows.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The node, as this peer has reached it, if its certificate says who it is: what senders at other nodes have to know.
    pub fn node(&self) -> Option<NodeAddress> {
        self.node
    }

    /// How far the node's clock is ahead of this machine's, microseconds.
    pub fn clock_offset_us(&self) -> i64 {
        self.clock_offset_us
    }

    /// Sends what is queued, and leaves when the node has it.
    ///
    /// # Errors
    /// The session was over before.
    pub async fn leave(mut self) -> Result<(), MailboxError> {
        self.flush().await?;
        // The node closes the connection when it has read the stream to its end. That it is closed already is as good.
        let _ = self.send.finish();
        self.connection.closed().await;
        Ok(())
    }

    /// Leaves at once; what is queued is lost.
    pub fn close(self) {
        self.connection.close(quinn::VarInt::from_u32(0), b"");
    }

    fn relay_credentials(&self, grant: &RelayGrant) -> RelayCredentials {
        RelayCredentials {
            username: grant.user_name(&self.uid),
            password: grant.password().to_string(),
            expires_s: grant.expires_s,
            uris: grant.places.uris(self.connection.remote_address().ip()),
        }
    }

    /// What an envelope means, if it may mean anything. The node is not believed: it could be anybody's.
    fn judge(&mut self, bytes: &[u8]) -> Option<Event> {
        let envelope = Envelope::parse(bytes).ok()?;
        if envelope.receiver() != self.uid || envelope.verify().is_err() {
            return None;
        }
        let (from, receipt, now_us) = (envelope.sender(), envelope.receipt(), self.now_us());
        let body = envelope.body();
        if envelope.kind() == Kind::Request {
            // Kept out of the windows, which strangers could fill. A request that comes twice asks for the same.
            let is_in_time = receipt.time_us.abs_diff(now_us) <= REPLAY_WINDOW_US;
            let is_for_address = envelope.nospam() == self.nospam;
            return (is_in_time && is_for_address).then(|| Event::Request {
                from,
                body: body.to_vec(),
                receipt,
            });
        }
        if self.windows.get_mut(&from)?.accept(receipt.time_us, now_us) != Replay::New {
            return None;
        }
        match envelope.kind() {
            Kind::Receipt => {
                self.heard.extend(Receipt::all(body).map(|receipt| Event::Delivered { by: from, receipt }));
                self.heard.pop_front()
            }
            Kind::Message | Kind::Request => Some(Event::Message { from, body: body.to_vec(), receipt }),
        }
    }

    fn say(&mut self, frame: &Frame) {
        frame.write(&mut self.output);
    }

    async fn next_frame(&mut self) -> Result<Frame, MailboxError> {
        loop {
            let mut input = &self.input[..];
            let frame = self.reader.next(&mut input)?;
            self.input = self.input.slice(self.input.len() - input.len()..);
            if let Some(frame) = frame {
                return Ok(frame);
            }
            tokio::select! {
                // Both may be dropped: what was read or written is known when they return.
                read = self.receive.read_chunk(CHUNK_LEN, true) => match read {
                    Ok(Some(chunk)) => self.input = chunk.bytes,
                    Ok(None) => return Err(self.ended("the node has ended the session".to_owned())),
                    Err(error) => return Err(self.ended(error.to_string())),
                },
                written = self.send.write(&self.output), if !self.output.is_empty() => match written {
                    Ok(len) => drop(self.output.drain(..len)),
                    Err(error) => return Err(self.ended(error.to_string())),
                },
            }
        }
    }

    /// Why the session is over: what the connection says, else `reason`.
    fn ended(&self, reason: String) -> MailboxError {
        self.connection.close_reason().map_or(MailboxError::Lost { reason }, MailboxError::from)
    }

    /// The node's clock, microseconds since 1970: all of a node's peers agree on it, and a device may have none.
    fn now_us(&self) -> u64 {
        local_time_us().wrapping_add_signed(self.clock_offset_us)
    }
}

fn local_time_us() -> u64 {
    // A clock before 1970 counts as 1970; only the difference to the node's matters.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
