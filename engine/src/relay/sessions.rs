//! What is logged of sessions. A shard must not wait for whoever reads the log, so it tells a task of the services,
//! which writes.

use crate::control::SessionsPage;
use crate::metrics::ShardCounters;
use relay::policy::{RELAY_PEERS_LISTED_MAX, RELAY_SESSIONS_PER_FRAME_MAX, RelaySession};
use relay::turn::{SessionEvent, SessionRecord, Transport};
use tokio::sync::mpsc;

/// Sessions that may wait to be logged: what 10,000 allocations leave that expire together.
const WAITING_MAX: usize = 10_000;

/// A shard's end.
#[derive(Clone, Debug)]
pub struct SessionLog {
    events: mpsc::Sender<SessionEvent>,
}

/// The other end, for [`write_sessions`].
pub type SessionEvents = mpsc::Receiver<SessionEvent>;

impl SessionLog {
    /// Both ends. When the last [`SessionLog`] is dropped, [`write_sessions`] ends.
    #[must_use]
    pub fn new() -> (SessionLog, SessionEvents) {
        let (events, receiver) = mpsc::channel(WAITING_MAX);
        (SessionLog { events }, receiver)
    }

    /// Tells what happened; counts it if the log does not keep up.
    pub fn tell(&self, event: SessionEvent, counters: &ShardCounters) {
        let is_wanted = matches!(event, SessionEvent::Ended(..)) || tracing::enabled!(tracing::Level::DEBUG);
        if is_wanted && self.events.try_send(event).is_err() {
            counters.relay_sessions_unlogged.increment();
        }
    }
}

/// Writes a line for each session that ends, with what went through it, and at level debug one for each that begins.
pub async fn write_sessions(mut events: SessionEvents) {
    while let Some(event) = events.recv().await {
        match event {
            SessionEvent::Started(session) => tracing::debug!(
                session = %format_args!("{:016x}", session.id),
                user = %session.user,
                client = %session.client.client,
                transport = transport(session.client.transport),
                relayed = ?session.relayed,
                "a relay session has begun"
            ),
            SessionEvent::Ended(session, reason) => tracing::info!(
                session = %format_args!("{:016x}", session.id),
                user = %session.user,
                client = %session.client.client,
                transport = transport(session.client.transport),
                relayed = ?session.relayed,
                since_unix_s = session.since_unix_s,
                to_peer_packets = session.usage.to_peer_packets,
                to_peer_bytes = session.usage.to_peer_bytes,
                to_client_packets = session.usage.to_client_packets,
                to_client_bytes = session.usage.to_client_bytes,
                ?reason,
                "a relay session has ended"
            ),
        }
    }
}

/// The sessions from number `from` on, as many as one answer takes.
pub(super) fn page(sessions: impl Iterator<Item = SessionRecord>, from: u64) -> SessionsPage {
    let start = usize::try_from(from).unwrap_or(usize::MAX);
    let mut rest = sessions.skip(start);
    let sessions: Vec<RelaySession> =
        rest.by_ref().take(RELAY_SESSIONS_PER_FRAME_MAX).map(|session| told(&session)).collect();
    let next = rest.next().map(|_| from + sessions.len() as u64);
    SessionsPage { sessions, next }
}

fn told(session: &SessionRecord) -> RelaySession {
    RelaySession {
        id: session.id,
        user: session.user.to_string(),
        transport: transport(session.client.transport).to_owned(),
        client: session.client.client,
        server: session.client.server,
        relayed: session.relayed.clone(),
        since_unix_s: session.since_unix_s,
        remaining_s: session.remaining_s,
        to_peer_packets: session.usage.to_peer_packets,
        to_peer_bytes: session.usage.to_peer_bytes,
        to_client_packets: session.usage.to_client_packets,
        to_client_bytes: session.usage.to_client_bytes,
        peers: session.peers.iter().copied().take(RELAY_PEERS_LISTED_MAX).collect(),
        peers_count: u32::try_from(session.peers.len()).unwrap_or(u32::MAX),
    }
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    }
}
