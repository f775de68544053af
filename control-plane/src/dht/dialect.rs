//! Queries of other implementations, put into the words that the crate understands, and its answers put back.
//!
//! BEP 5 has a querying node choose a transaction id of any length, which the answer repeats; most take two bytes. The crate
//! reads ids of two and four bytes and always answers with four, so that others do not recognise its answers. BEP 44 has
//! no `target` in `put`, and the crate wants one. And it enters whoever asks for nodes into its table under the id that
//! is looked for, as if nobody looked for others than itself. All are mended here: the gate hands over what is foreign; it is sent to the
//! node again from a loopback socket under an id of its own, and the answer leaves through the node's socket under the
//! querying node's id. Such a query says `ro`, for its sender's address is not the one that the node sees.

use super::krpc::{Glance, Kind, splice, string};
use n0_mainline::{Dht, MutableItem};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Queries under way at once; the oldest gives way.
const PENDING_MAX: usize = 4_096;

/// Queries that wait for the translator; further ones are dropped.
const QUEUE_MAX: usize = 256;

/// After so long an answer does not come any more. The node answers at once or never.
const PENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest transaction id that is answered.
const TRANSACTION_LEN_MAX: usize = 32;

/// Bytes of a token that bind it to the address that asked for it: all translated queries come from one
/// address, so the crate's own binding says nothing.
const TOKEN_TAG_LEN: usize = 8;

/// Longest datagram that the crate sends or reads.
const DATAGRAM_LEN_MAX: usize = 2_048;

/// Whether the crate would not answer this, or not so that its sender understands, or would take the sender for another.
pub fn is_foreign(message: &Glance<'_>) -> bool {
    let body = &message.body;
    let lacks_target = message.method == b"put" && body.target.is_none();
    let looks_for_others = message.method == b"find_node" && !message.read_only && body.target != body.id;
    message.kind == Kind::Query && (message.transaction.len() != 4 || lacks_target || looks_for_others)
}

/// The way from the gate to the translator.
pub type Sender = mpsc::Sender<(Vec<u8>, SocketAddrV4)>;

/// The translator of one node.
#[derive(Debug)]
pub struct Translator {
    socket: UdpSocket,
    queries: mpsc::Receiver<(Vec<u8>, SocketAddrV4)>,
    secret: [u8; 32],
}

impl Translator {
    /// Its socket, and where the gate sends what is foreign.
    pub async fn bind() -> io::Result<(Translator, Sender, SocketAddrV4)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, socket.local_addr()?.port());
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
        let (sender, queries) = mpsc::channel(QUEUE_MAX);
        Ok((Translator { socket, queries, secret }, sender, address))
    }

    /// Translates for the node that listens on `port`, until dropped.
    pub async fn run(mut self, dht: Dht, port: u16) -> io::Result<()> {
        // From nobody else does the socket take an answer.
        self.socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut pending = Pending::default();
        let mut answer = [0; DATAGRAM_LEN_MAX];
        loop {
            let reply = tokio::select! {
                query = self.queries.recv() => {
                    let Some((datagram, from)) = query else { return Ok(()) };
                    match self.take(&datagram, from, &mut pending) {
                        Some(Step::Ask(translated)) => {
                            // A node that has ended, or a full queue: the query is lost as on any other way.
                            let _ = self.socket.send(&translated).await;
                            None
                        }
                        Some(Step::Refuse(error)) => Some((error, from)),
                        None => None,
                    }
                }
                received = self.socket.recv(&mut answer) => match received {
                    Ok(len) => self.give_back(&answer[..len], &mut pending),
                    Err(_) => None,
                },
            };
            if let Some((datagram, to)) = reply
                && dht.send_datagram(datagram, to).await.is_err()
            {
                return Ok(());
            }
        }
    }

    fn take(&self, datagram: &[u8], from: SocketAddrV4, pending: &mut Pending) -> Option<Step> {
        let message = Glance::read(datagram)?;
        if message.transaction.is_empty() || message.transaction.len() > TRANSACTION_LEN_MAX {
            return None;
        }
        // It would be entered under the translator's address.
        if message.method == b"announce_peer" {
            return Some(Step::Refuse(refusal(message.transaction, 204, "announce_peer is not taken here")));
        }
        let mut edits = Vec::new();
        match &message.read_only_at {
            Some(at) => edits.push((at.clone(), b"i1e".to_vec())),
            None => edits.push((message.transaction_key_at..message.transaction_key_at, b"2:roi1e".to_vec())),
        }
        if message.stores() {
            let (token, token_at) = (message.body.token?, message.body.token_at.clone()?);
            let Some(own) = self.open_token(token, from) else {
                return Some(Step::Refuse(refusal(message.transaction, 203, "Bad token")));
            };
            edits.push((token_at, string(own)));
            if message.method == b"put" && message.body.target.is_none() {
                let key_at = message.body.token_key_at?;
                let target = [string(b"target"), string(&target(&message)?)].concat();
                edits.push((key_at..key_at, target));
            }
        }
        let id = pending.enter(message.transaction, from, Instant::now());
        edits.push((message.transaction_at.clone(), string(&id.to_be_bytes())));
        Some(Step::Ask(splice(datagram, edits)))
    }

    fn give_back(&self, datagram: &[u8], pending: &mut Pending) -> Option<(Vec<u8>, SocketAddrV4)> {
        let message = Glance::read(datagram)?;
        if message.kind == Kind::Query {
            return None;
        }
        let asked = pending.leave(u32::from_be_bytes(message.transaction.try_into().ok()?))?;
        let mut edits = vec![(message.transaction_at.clone(), string(&asked.transaction))];
        if let Some(at) = &message.ip_at {
            let mut ip = asked.from.ip().octets().to_vec();
            ip.extend(asked.from.port().to_be_bytes());
            edits.push((at.clone(), string(&ip)));
        }
        if let (Some(token), Some(at)) = (message.body.token, &message.body.token_at) {
            edits.push((at.clone(), string(&[token, &self.tag(token, asked.from)].concat())));
        }
        Some((splice(datagram, edits), asked.from))
    }

    fn open_token<'a>(&self, token: &'a [u8], from: SocketAddrV4) -> Option<&'a [u8]> {
        let (own, tag) = token.split_at_checked(token.len().checked_sub(TOKEN_TAG_LEN)?)?;
        (self.tag(own, from) == tag).then_some(own)
    }

    fn tag(&self, token: &[u8], from: SocketAddrV4) -> [u8; TOKEN_TAG_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&from.ip().octets()).update(token);
        let mut tag = [0; TOKEN_TAG_LEN];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }
}

enum Step {
    Ask(Vec<u8>),
    Refuse(Vec<u8>),
}

/// What a `put` stores at: of a mutable item SHA-1 of key and salt, else of the value as it is encoded.
fn target(message: &Glance<'_>) -> Option<[u8; 20]> {
    match message.body.key {
        Some(key) => Some(*MutableItem::target_from_key(key.try_into().ok()?, message.body.salt).as_bytes()),
        None => Some(Sha1::digest(message.body.value_encoded?).into()),
    }
}

fn refusal(transaction: &[u8], code: u32, text: &str) -> Vec<u8> {
    let list = format!("d1:eli{code}e{}:{text}e1:t", text.len());
    [list.as_bytes(), &string(transaction), b"1:y1:ee"].concat()
}

/// Queries that the node has not answered yet, by the id under which it was asked.
#[derive(Default)]
struct Pending {
    next: u32,
    asked: HashMap<u32, Asked>,
    /// The same ids in the order in which they were entered.
    order: BTreeMap<u64, u32>,
    entered: u64,
}

struct Asked {
    transaction: Vec<u8>,
    from: SocketAddrV4,
    since: Instant,
    order: u64,
}

impl Pending {
    fn enter(&mut self, transaction: &[u8], from: SocketAddrV4, now: Instant) -> u32 {
        while let Some((&order, &id)) = self.order.first_key_value() {
            let is_over =
                self.asked.get(&id).is_none_or(|asked| now.duration_since(asked.since) > PENDING_TIMEOUT);
            if !is_over && self.order.len() < PENDING_MAX {
                break;
            }
            self.order.remove(&order);
            self.asked.remove(&id);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let order = self.entered;
        self.entered += 1;
        self.order.insert(order, id);
        self.asked.insert(id, Asked { transaction: transaction.to_vec(), from, since: now, order });
        id
    }

    fn leave(&mut self, id: u32) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        self.order.remove(&asked.order);
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_answered_is_forgotten() {
        let mut pending = Pending::default();
        let start = Instant::now();
        let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        for _ in 0..PENDING_MAX * 2 {
            pending.enter(b"aa", from, start);
        }
        assert_eq!((pending.asked.len(), pending.order.len()), (PENDING_MAX, PENDING_MAX));
        let last = pending.next - 1;
        assert_eq!(pending.leave(last).unwrap().transaction, b"aa");
        assert!(pending.leave(last).is_none() && pending.leave(0).is_none());
        pending.enter(b"bb", from, start + PENDING_TIMEOUT * 2);
        assert_eq!((pending.asked.len(), pending.order.len()), (1, 1));
    }
}
