//! The old engine's part: it hands its sockets over, and takes nothing away from itself before the new one is ready.

use super::wire::Wire;
use super::{PROMPT, START_TIMEOUT, SUSPEND_TIMEOUT, VERSION};
use crate::control;
use crate::mailbox::Sender;
use crate::node::sockets::SharedSockets;
use crate::passage::Passage;
use crate::shard::{Command, MAILBOX_TRIES};
use crate::storage::Storage;
use serde_json::json;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::Builder;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What an engine needs to hand itself over.
#[derive(Debug)]
pub(in crate::node) struct GiverParts {
    pub(in crate::node) offered: Offered,
    pub(in crate::node) shards: Vec<Sender<Command>>,
    pub(in crate::node) storage: Weak<Storage>,
    /// Of its connection ids.
    pub(in crate::node) generation: u32,
    /// Why it is not handed over, if it never is.
    pub(in crate::node) refusal: Option<&'static str>,
}

/// Descriptors of what listens. They keep a listener open that this engine has closed, so they go as soon as it drains.
#[derive(Debug)]
pub(in crate::node) struct Offered {
    pub(in crate::node) sockets: SharedSockets,
    pub(in crate::node) metrics: Option<TcpListener>,
}

/// Waits for an engine that is to take this one's place.
#[derive(Debug)]
pub(in crate::node) struct Giver {
    phase: Arc<Mutex<Phase>>,
    offered: Arc<Mutex<Option<Offered>>>,
    given: watch::Receiver<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Another engine has everything.
    Given,
    /// This one ends by itself.
    Ending,
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
enum GiveError {
    #[error("{0}")]
    Refused(String),
    #[error("the new engine broke off: {0}")]
    Io(#[from] io::Error),
    #[error("the new engine did not say `{0}`")]
    Unclear(&'static str),
    #[error("a shard did not answer")]
    Shard,
}

impl Giver {
    /// Listens on `path`.
    pub(in crate::node) fn start(path: &Path, parts: GiverParts) -> io::Result<Giver> {
        // tokio's listener does not block; this one's thread waits in it.
        let listener = control::listen(path).map_err(io::Error::other)?.into_std()?;
        listener.set_nonblocking(false)?;
        let phase = Arc::new(Mutex::new(Phase::Serving));
        let (tell, given) = watch::channel(false);
        let GiverParts { offered, shards, storage, generation, refusal } = parts;
        let offered = Arc::new(Mutex::new(Some(offered)));
        let parts = Parts { offered: Arc::clone(&offered), shards, storage, generation, refusal };
        let giving = Arc::clone(&phase);
        let wait = move || serve(&listener, &parts, &giving, &tell);
        Builder::new().name("services-upgrade".into()).spawn(wait)?;
        Ok(Giver { phase, offered, given })
    }

    /// Becomes true when another engine serves in this one's place.
    pub(in crate::node) fn given(&self) -> watch::Receiver<bool> {
        self.given.clone()
    }

    /// Hands nothing over from now on; waits for a hand-over that is under way. Whether another engine has everything.
    pub(in crate::node) fn end(&self) -> bool {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Serving {
            *phase = Phase::Ending;
        }
        drop(self.offered.lock().unwrap_or_else(PoisonError::into_inner).take());
        *phase == Phase::Given
    }
}

/// What the giver's thread has.
struct Parts {
    /// None as soon as this engine drains.
    offered: Arc<Mutex<Option<Offered>>>,
    shards: Vec<Sender<Command>>,
    storage: Weak<Storage>,
    generation: u32,
    refusal: Option<&'static str>,
}

fn serve(listener: &UnixListener, parts: &Parts, phase: &Mutex<Phase>, given: &watch::Sender<bool>) {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let outcome = Wire::new(stream).map_err(GiveError::from).and_then(|mut wire| {
            let outcome = give(parts, phase, &mut wire);
            if let Err(error) = &outcome {
                let _ = wire.send(&json!({ "refused": error.to_string() }), &[]);
            }
            outcome.map(|()| wire)
        });
        match outcome {
            Ok(mut wire) => {
                tracing::info!("another engine has taken over; this one finishes its connections and ends");
                given.send_replace(true);
                // Closed by this process's end, which tells the other engine.
                while wire.receive(None).is_ok() {}
                loop {
                    std::thread::park();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "nothing was handed over; this engine goes on as before");
            }
        }
    }
}

fn give(parts: &Parts, phase: &Mutex<Phase>, wire: &mut Wire) -> Result<(), GiveError> {
    let hello = wire.receive(Some(PROMPT))?.0["hello"].as_u64();
    if hello != Some(VERSION) {
        let version = hello.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(GiveError::Refused(format!(
            "it speaks version {VERSION} of the hand-over, the new one {version}: restart instead"
        )));
    }
    if let Some(why) = parts.refusal {
        return Err(GiveError::Refused(why.to_owned()));
    }
    let storage = parts.storage.upgrade().ok_or_else(|| GiveError::Refused("it is ending".into()))?;
    let passages: Vec<(Passage, Passage)> =
        parts.shards.iter().map(|_| Passage::pair()).collect::<io::Result<_>>()?;
    let (near, far): (Vec<Passage>, Vec<Passage>) = passages.into_iter().unzip();
    let writes = offer(parts, wire, &storage, far)?;
    expect(wire, "prepare", START_TIMEOUT)?;

    let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
    if *phase != Phase::Serving {
        return Err(GiveError::Refused("it is ending".into()));
    }
    let suspended = storage.suspend(Instant::now() + SUSPEND_TIMEOUT);
    suspended.map_err(|error| GiveError::Refused(error.to_string()))?;
    let outcome = switch(parts, wire, near);
    match &outcome {
        Ok(()) => {
            *phase = Phase::Given;
            if let Err(error) = storage.forward_writes(writes) {
                tracing::error!(%error, "what this engine's clients still upload is not stored");
            }
        }
        Err(_) => {
            tell(&parts.shards, || Command::Resume);
            if let Err(error) = storage.resume() {
                tracing::error!(%error, "the leases do not open again; nothing can be stored until they do");
            }
        }
    }
    outcome
}

/// Sends the sockets and what else belongs to the node; gives this engine's end of the way for writes.
fn offer(
    parts: &Parts,
    wire: &mut Wire,
    storage: &Storage,
    passages: Vec<Passage>,
) -> Result<UnixStream, GiveError> {
    let (near, far) = UnixStream::pair()?;
    let lock = storage.leases().store().lock_file()?;
    let passages: Vec<OwnedFd> = passages.into_iter().map(Into::into).collect();
    let offered = parts.offered.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Offered { sockets, metrics }) = &*offered else {
        return Err(GiveError::Refused("it is ending".into()));
    };
    let mut descriptors: Vec<BorrowedFd<'_>> = sockets.udp.iter().flatten().map(AsFd::as_fd).collect();
    descriptors.extend(sockets.tcp.iter().map(|(listener, _)| listener.as_fd()));
    descriptors.extend(metrics.as_ref().map(AsFd::as_fd));
    descriptors.extend([lock.as_fd(), far.as_fd()]);
    descriptors.extend(passages.iter().map(AsFd::as_fd));
    let offer = json!({
        "version": VERSION,
        "generation": parts.generation,
        "shards": sockets.udp.len(),
        "addresses": sockets.udp.first().map_or(0, Vec::len),
        "tcp": sockets.tcp.iter().map(|(_, port)| port).collect::<Vec<_>>(),
        "metrics": metrics.is_some(),
    });
    wire.send(&offer, &descriptors)?;
    Ok(near)
}

/// From the store's rest to the new engine's word that it serves.
fn switch(parts: &Parts, wire: &mut Wire, passages: Vec<Passage>) -> Result<(), GiveError> {
    wire.send(&json!({ "prepared": true }), &[])?;
    expect(wire, "ready", START_TIMEOUT)?;
    for (passage, shard) in passages.into_iter().zip(&parts.shards) {
        let shard = shard.clone();
        let pass = move || {
            while let Some((meta, bytes)) = passage.receive() {
                if shard.is_closed() {
                    return;
                }
                // What does not fit is lost, and QUIC sends it again.
                let _ = shard.send(Command::HandedOver { meta, bytes });
            }
        };
        Builder::new().name("services-passage".into()).spawn(pass)?;
    }
    let (done, paused) = mpsc::channel();
    tell(&parts.shards, || Command::Pause { done: done.clone() });
    for _ in &parts.shards {
        paused.recv_timeout(PROMPT).map_err(|_| GiveError::Shard)?;
    }
    // Only now has every shard what others had received for it.
    let (reply, replies) = mpsc::channel();
    tell(&parts.shards, || Command::InitialIds { reply: reply.clone() });
    let mut ids = vec![Vec::new(); parts.shards.len()];
    for _ in &parts.shards {
        let (shard, its) = replies.recv_timeout(PROMPT).map_err(|_| GiveError::Shard)?;
        let hex = |id: Box<[u8]>| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if let Some(place) = ids.get_mut(shard) {
            *place = its.into_iter().map(hex).collect();
        }
    }
    wire.send(&json!({ "initial_ids": ids }), &[])?;
    expect(wire, "serving", PROMPT)?;
    Ok(wire.send(&json!({ "given": true }), &[])?)
}

fn expect(wire: &mut Wire, what: &'static str, patience: Duration) -> Result<(), GiveError> {
    let (message, _) = wire.receive(Some(patience))?;
    message.get(what).map(drop).ok_or(GiveError::Unclear(what))
}

/// As the node does: a shard empties its mailbox every turn.
fn tell(shards: &[Sender<Command>], command: impl Fn() -> Command) {
    for shard in shards {
        let mut tries = 0;
        while !shard.is_closed() && shard.send(command()).is_err() && tries < MAILBOX_TRIES {
            tries += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
