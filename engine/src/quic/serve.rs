//! A connection's turn: its session works, a batch leaves, its timer is set, and when it is over it is forgotten.

use super::buf::QuicConnection;
use super::connection::INTERNAL_ERROR;
use super::endpoint::{Endpoint, new_id};
use super::transport::CONNECTION_IDS_PER_CONNECTION;
use crate::cid::ConnectionId;
use crate::driver::SendMeta;
use crate::http::{ConnectionRef, Content, Session, Waiter};
use crate::mail::Mail;
use std::time::{Duration, Instant};

impl Endpoint {
    /// Lets a connection's session work, then fills one batch with what the connection has to say.
    pub(super) fn transmit(&mut self, now: Instant, key: usize, out: &mut [u8]) -> Option<SendMeta> {
        let was_flushed = self.connections.get(key)?.flushed;
        self.serve(now, key);
        let connection = self.connections.get_mut(key)?;
        connection.queued = false;
        let meta = connection.fill_batch(out);
        if connection.quic.is_closed() {
            self.remove(key);
            return meta;
        }
        // The session writes only into a flushed connection. One that this turn has flushed comes once more: all that was
        // in flight may have been acknowledged before, and then nothing else would let its session write on.
        if !connection.flushed || !was_flushed {
            Self::enqueue(&mut self.ready, connection, key);
        }
        if connection.flushed {
            if connection.is_ending() {
                self.end(key);
            }
            self.arm(now, key);
        }
        meta
    }

    /// Lets the connection's session take what has arrived and write what there is room for.
    fn serve(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_handshaking() {
            if connection.is_ending() {
                return;
            }
            if connection.quic.is_established() {
                self.establish(now, key);
            } else if connection.dialled.is_none()
                && connection.quic.is_in_early_data()
                && !Mail::is_for(&connection.quic)
            {
                // Requests of a client that resumes come before its handshake is complete. A login cannot: it signs what the
                // complete handshake exports.
                self.open_session(now, key);
            } else {
                return;
            }
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let reference = ConnectionRef { key, serial: connection.serial };
        if connection.is_mail {
            return self.serve_mail(now, reference);
        }
        let Some(session) = &mut connection.http else { return };
        if std::mem::take(&mut connection.received) {
            session.receive(now, &mut connection.quic, &mut self.content, reference);
            if connection.quic.retired_scids() > 0 {
                self.renew_ids(key);
            }
            self.follow_paths(key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(session) = &mut connection.http else { return };
        if connection.flushed {
            session.send(now, &mut connection.quic, &mut self.content, reference);
        }
        if self.draining && session.is_idle(&mut connection.quic) {
            let _ = connection.quic.close(true, quiche::h3::WireErrorCode::NoError as u64, b"");
        }
    }

    /// The same for a session of the mailbox service.
    fn serve_mail(&mut self, now: Instant, reference: ConnectionRef) {
        let key = reference.key;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if std::mem::take(&mut connection.received) {
            self.mail.receive(now, &mut connection.quic, reference);
            if connection.quic.retired_scids() > 0 {
                self.renew_ids(key);
            }
            self.follow_paths(key);
        }
        if let Some(connection) = self.connections.get_mut(key)
            && connection.flushed
        {
            self.mail.send(&mut connection.quic, reference);
        }
        // What has arrived may be for others on this shard, or for other nodes. This connection is served already.
        self.dial_nodes(now);
        self.wake_mail();
    }

    fn establish(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.handshake_done();
        self.handshakes -= 1;
        self.counters.connections_established.increment();
        if connection.quic.is_resumed() {
            self.counters.connections_resumed.increment();
        }
        if let Some(dialled) = connection.dialled {
            self.establish_link(key, &dialled.node);
        } else if Mail::is_for(&connection.quic) {
            self.establish_mail(now, key);
        } else {
            self.open_session(now, key);
        }
        self.renew_ids(key);
    }

    fn open_session(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.http.is_some() {
            return;
        }
        match Session::new(&mut connection.quic, &self.content, now) {
            Ok(mut session) => {
                if self.draining {
                    session.go_away(&mut connection.quic);
                }
                connection.http = Some(session);
            }
            Err(error) => {
                tracing::debug!(connection = connection.quic.trace_id(), %error, "no HTTP/3 session");
                let _ = connection.quic.close(false, INTERNAL_ERROR, b"");
            }
        }
    }

    fn establish_mail(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_mail = true;
        if self.draining {
            return Mail::go_away(&mut connection.quic);
        }
        let reference = ConnectionRef { key, serial: connection.serial };
        if Mail::is_hop(&connection.quic) {
            return self.mail.open_visitor(now, reference, connection.remote());
        }
        let timeout = Duration::from_millis(self.content.limits().handshake_timeout_ms.into());
        connection.login_deadline = Some(now + timeout);
        self.mail.open(&mut connection.quic, reference);
    }

    /// Forgets the ids that the client has retired and gives it new ones, so that it always has some to move with.
    fn renew_ids(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        while let Some(retired) = connection.quic.retired_scid_next() {
            if let Some(id) = ConnectionId::from_slice(&retired) {
                self.ids.remove(&id);
                connection.ids.retain(|held| *held != id);
            }
        }
        for _ in 0..CONNECTION_IDS_PER_CONNECTION {
            if connection.quic.scids_left() == 0 {
                break;
            }
            let id = new_id(&self.keys, self.shard, self.shard_count, &self.ids);
            let token = u128::from_be_bytes(self.keys.reset_token(&id));
            if connection.quic.new_scid(&quiche::ConnectionId::from_ref(id.as_bytes()), token, false).is_err()
            {
                break;
            }
            self.ids.insert(id, key);
            connection.ids.push(id);
        }
    }

    fn follow_paths(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        while let Some(event) = connection.quic.path_event_next() {
            match event {
                quiche::PathEvent::PeerMigrated(local, remote) => {
                    self.counters.paths_migrated.increment();
                    connection.paths.migrated(&mut connection.quic, local, remote);
                }
                quiche::PathEvent::FailedValidation(..) => self.counters.paths_failed.increment(),
                _ => {}
            }
            tracing::trace!(connection = connection.quic.trace_id(), ?event, "path");
        }
    }

    pub(super) fn with_session(
        &mut self,
        waiter: Waiter,
        work: impl FnOnce(&mut Session, &mut QuicConnection, &mut Content),
    ) {
        let key = waiter.connection.key;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.serial != waiter.connection.serial {
            return;
        }
        let Some(session) = &mut connection.http else { return };
        work(session, &mut connection.quic, &mut self.content);
        Self::enqueue(&mut self.ready, connection, key);
    }

    /// Sets the connection's timer to what it now waits for.
    fn arm(&mut self, now: Instant, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let due = connection.due(now, self.content.limits());
        self.timers.set(timer_key(key), due);
    }

    /// Counts a connection that begins to end and lets go of what its requests held.
    fn end(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if std::mem::replace(&mut connection.ended, true) {
            return;
        }
        connection.http = None;
        if std::mem::take(&mut connection.is_mail) {
            self.mail.end(ConnectionRef { key, serial: connection.serial });
        }
        self.counters.stream_bytes_retransmitted.add(connection.quic.stats().stream_retrans_bytes);
        self.live -= 1;
        if connection.is_handshaking() {
            connection.handshake_done();
            self.handshakes -= 1;
        }
        let cause = if connection.quic.is_timed_out() {
            &self.counters.connections_idle_timeout
        } else if connection.quic.peer_error().is_some() {
            &self.counters.connections_closed_by_peer
        } else {
            &self.counters.connections_closed
        };
        cause.increment();
        self.counters.connections_open.set(self.live as u64);
        // Senders are told of what was on its way over it.
        self.wake_mail();
    }

    pub(super) fn remove(&mut self, key: usize) {
        self.end(key);
        let connection = self.connections.remove(key);
        self.timers.set(timer_key(key), None);
        for id in &connection.ids {
            self.ids.remove(id);
        }
        self.initial_ids.remove(&connection.initial_id);
    }
}

/// A connection's slot as the timers know it.
fn timer_key(key: usize) -> u32 {
    u32::try_from(key).expect("connections_max is below 2^32, and so are the slots in use")
}
