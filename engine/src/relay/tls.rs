//! TLS for the relay's streams: bytes in, bytes out; sockets and time are the caller's.

use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::quic::TicketKeys;
use crate::tcp::{TcpTls, TlsError};

/// ALPN names of RFC 7443. A client may also name none, as most do.
const PROTOCOLS: &[&[u8]] = &[b"stun.turn", b"stun.nat-discovery"];

/// The node's certificate for the relay, reloadable as [`TcpTls`] says.
///
/// # Errors
/// [`TlsError`].
pub fn load(certificate: &Path, key: &Path, tickets: &TicketKeys) -> Result<TcpTls, TlsError> {
    TcpTls::load_for(PROTOCOLS, certificate, key, tickets)
}

/// The server's side of TLS on one stream.
#[derive(Debug)]
pub struct TlsStream {
    connection: ServerConnection,
}

impl TlsStream {
    /// Waits for a client's handshake.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        // What waits is bounded by whoever sends, before it comes here.
        connection.set_buffer_limit(None);
        Ok(Self { connection })
    }

    /// Takes in what arrived and appends what it says to `plaintext`. What is to be answered (handshake, alerts) waits in
    /// [`take_records`](Self::take_records), after an error too.
    ///
    /// # Errors
    /// The client does not speak TLS properly, or refuses the certificate. Nothing can be received any more.
    pub fn receive(&mut self, mut records: &[u8], plaintext: &mut Vec<u8>) -> Result<Heard, rustls::Error> {
        let mut has_closed = false;
        while !records.is_empty() && !has_closed {
            // Fails only when too much plaintext waits to be read, and all of it is read below.
            let taken = self.connection.read_tls(&mut records).map_err(|error| broken(&error))?;
            let state = self.connection.process_new_packets()?;
            let waiting = state.plaintext_bytes_to_read();
            if waiting > 0 {
                let start = plaintext.len();
                plaintext.resize(start + waiting, 0);
                self.connection
                    .reader()
                    .read_exact(&mut plaintext[start..])
                    .map_err(|error| broken(&error))?;
            }
            has_closed = state.peer_has_closed();
            if taken == 0 {
                break;
            }
        }
        Ok(if has_closed { Heard::Closed } else { Heard::Open })
    }

    /// Encrypts `plaintext`; it leaves with [`take_records`](Self::take_records). Before the handshake is over, it waits for that.
    pub fn send(&mut self, plaintext: &[u8]) {
        // Without a limit on its buffers a connection takes everything.
        let _ = self.connection.writer().write_all(plaintext);
    }

    /// Tells the client that nothing more will come.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends what is to be sent to the client.
    pub fn take_records(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to memory does not fail.
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }
}

/// Whether the client will say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It may.
    Open,
    /// It has closed its side (close_notify).
    Closed,
}

fn broken(error: &io::Error) -> rustls::Error {
    rustls::Error::General(error.to_string())
}
