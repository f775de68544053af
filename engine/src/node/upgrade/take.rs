//! The new engine's part: it asks for the sockets, and serves when the old one has stopped reading from them.

use super::wire::Wire;
use super::{PROMPT, START_TIMEOUT, SUSPEND_TIMEOUT, UpgradeError, VERSION};
use crate::node::files::DataDirectory;
use crate::node::sockets::Sockets;
use crate::passage::Passage;
use crate::shard::Command;
use crate::storage::Storage;
use serde_json::{Value, json};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Weak;

/// What the running engine hands over.
#[derive(Debug)]
pub(in crate::node) struct Taken {
    wire: Wire,
    /// Of connection ids.
    pub(in crate::node) generation: u32,
    /// Of each shard, in the order of the addresses.
    pub(in crate::node) udp: Vec<Vec<OwnedFd>>,
    /// With the UDP port of HTTP/3 beside each.
    pub(in crate::node) tcp: Vec<(TcpListener, u16)>,
    pub(in crate::node) metrics: Option<TcpListener>,
    /// One a shard.
    pub(in crate::node) passages: Vec<Passage>,
    /// The store's.
    pub(in crate::node) lock: File,
    /// Where the old engine asks for writes.
    pub(in crate::node) writes: UnixStream,
}

impl Taken {
    /// Asks the engine that runs in `directory`. It goes on as before until [`Taken::prepare`].
    pub(in crate::node) fn ask(directory: &DataDirectory) -> Result<Taken, UpgradeError> {
        let path = directory.upgrade_socket();
        let no_engine = |source| UpgradeError::NoEngine { path: path.clone(), source };
        let mut wire = UnixStream::connect(&path).and_then(Wire::new).map_err(no_engine)?;
        wire.send(&json!({ "hello": VERSION }), &[])?;
        let (offer, descriptors) = wire.receive(Some(PROMPT))?;
        if let Some(why) = offer["refused"].as_str() {
            return Err(UpgradeError::Refused(why.to_owned()));
        }
        let number = |name: &str| offer[name].as_u64().and_then(|number| usize::try_from(number).ok());
        let unclear = UpgradeError::Unclear;
        let generation = offer["generation"].as_u64().and_then(|number| u32::try_from(number).ok());
        let shards = number("shards").ok_or(unclear("shards"))?;
        let addresses = number("addresses").ok_or(unclear("addresses"))?;
        let ports = offer["tcp"].as_array().ok_or(unclear("tcp"))?;
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(unclear("descriptors"));
        let mut udp = Vec::new();
        for _ in 0..shards {
            udp.push((0..addresses).map(|_| next()).collect::<Result<_, _>>()?);
        }
        let mut tcp = Vec::new();
        for port in ports {
            let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).ok_or(unclear("tcp"))?;
            tcp.push((TcpListener::from(next()?), port));
        }
        let has_metrics = offer["metrics"].as_bool().ok_or(unclear("metrics"))?;
        let metrics = has_metrics.then(|| next().map(TcpListener::from)).transpose()?;
        let (lock, writes) = (File::from(next()?), UnixStream::from(next()?));
        let passages = (0..shards).map(|_| next().map(Passage::from)).collect::<Result<_, _>>()?;
        let generation = generation.ok_or(unclear("generation"))?;
        Ok(Taken { wire, generation, udp, tcp, metrics, passages, lock, writes })
    }

    /// Has the old engine stop writing to the store, which may be opened when this returns.
    pub(in crate::node) fn prepare(&mut self) -> Result<(), UpgradeError> {
        self.wire.send(&json!({ "prepare": true }), &[])?;
        self.expect("prepared", SUSPEND_TIMEOUT + PROMPT).map(drop)
    }

    /// Says that everything is ready. When this returns the old engine reads from the sockets no more; it tells, for each
    /// shard, the ids that its clients chose for their first flights.
    pub(in crate::node) fn ready(&mut self) -> Result<Vec<Vec<Box<[u8]>>>, UpgradeError> {
        self.wire.send(&json!({ "ready": true }), &[])?;
        let go = self.expect("initial_ids", START_TIMEOUT)?;
        let shards = go["initial_ids"].as_array().ok_or(UpgradeError::Unclear("initial_ids"))?;
        let ids = |shard: &Value| -> Option<Vec<Box<[u8]>>> {
            shard.as_array()?.iter().map(|id| decode_hex(id.as_str()?)).collect()
        };
        let shards: Option<Vec<_>> = shards.iter().map(ids).collect();
        shards.ok_or(UpgradeError::Unclear("initial_ids"))
    }

    /// Says that this engine serves: from now on the old one finishes what it has. When it has ended, `shards` and `storage`
    /// are told.
    pub(in crate::node) fn serving(
        mut self,
        shards: Vec<crate::mailbox::Sender<Command>>,
        storage: Weak<Storage>,
    ) -> Result<UnixStream, UpgradeError> {
        self.wire.send(&json!({ "serving": true }), &[])?;
        // Without this answer the old engine may have given this one up.
        self.expect("given", PROMPT)?;
        let mut wire = self.wire;
        let watch = move || {
            // It says nothing more; this ends with it.
            while wire.receive(None).is_ok() {}
            tracing::info!("the engine before this one has ended");
            if let Some(storage) = storage.upgrade() {
                storage.set_upkeep_waits(false);
            }
            for shard in shards {
                let mut tries = 0;
                while !shard.is_closed()
                    && shard.send(Command::PredecessorEnded).is_err()
                    && tries < crate::shard::MAILBOX_TRIES
                {
                    tries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        };
        std::thread::Builder::new().name("services-before".into()).spawn(watch)?;
        Ok(self.writes)
    }

    fn expect(&mut self, what: &'static str, patience: std::time::Duration) -> Result<Value, UpgradeError> {
        let (message, _) = self.wire.receive(Some(patience))?;
        if let Some(why) = message["refused"].as_str() {
            return Err(UpgradeError::Refused(why.to_owned()));
        }
        if message.get(what).is_none() {
            return Err(UpgradeError::Unclear(what));
        }
        Ok(message)
    }

    /// Whether this engine is to run as the old one does: on as many shards and on the same addresses.
    pub(in crate::node) fn check(
        &self,
        shards: usize,
        listen: &[SocketAddr],
        sockets: &Sockets,
    ) -> Result<(), UpgradeError> {
        let (old, bound) = (sockets.udp.len(), sockets.udp_addrs());
        if old != shards {
            let differs = format!("the running engine has {old} shards, this one would have {shards}");
            return Err(UpgradeError::Differs(differs));
        }
        let is_same = |(asked, bound): (&SocketAddr, &SocketAddr)| {
            asked.ip() == bound.ip() && (asked.port() == 0 || asked.port() == bound.port())
        };
        if listen.is_empty() || (listen.len() == bound.len() && listen.iter().zip(bound).all(is_same)) {
            return Ok(());
        }
        let text = |addresses: &[SocketAddr]| {
            addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
        };
        let differs =
            format!("the running engine listens on {}, this one would on {}", text(bound), text(listen));
        Err(UpgradeError::Differs(differs))
    }
}

fn decode_hex(text: &str) -> Option<Box<[u8]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    rest.is_empty().then(|| bytes.collect::<Option<Vec<u8>>>())?.map(Into::into)
}
