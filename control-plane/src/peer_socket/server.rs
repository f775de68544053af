//! The node's end: what commands ask for is done with the friends.

use super::{Answer, FailureKind, REQUEST_LEN_MAX, Request};
use crate::data_directory::DataDirectory;
use crate::node_identity::IdentityFiles;
use peer::friends::{
    Connection, FriendError, FriendView, Friends, Message, Outcome, Profile, SendError, ServiceEnded,
    Standing, Status,
};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Commands that are served at once; further ones wait.
const CONNECTIONS_MAX: usize = 64;

/// How long a request may take to arrive, and an answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages that are read from the disk at a time.
const PAGE_LEN: usize = 100;

/// The socket, bound.
#[derive(Debug)]
pub struct Listener {
    listener: std::os::unix::net::UnixListener,
    directory: DataDirectory,
}

impl Listener {
    /// Binds it. Whoever calls this holds the lock of the data directory, so what is there is left over.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(directory: &DataDirectory) -> io::Result<Listener> {
        let path = directory.peer_socket();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else gets into its directory (0700) meanwhile.
        let listener = std::os::unix::net::UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Listener { listener, directory: directory.clone() })
    }
}

/// Serves commands until dropped.
///
/// # Errors
/// The socket fails.
pub async fn serve(listener: Listener, friends: Friends) -> io::Result<std::convert::Infallible> {
    let Listener { listener, directory } = listener;
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Err(io::Error::other("the places are closed"));
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Descriptors are short, or the command has gone already.
            Err(error) => {
                tracing::warn!(%error, "a command was not served");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (friends, directory) = (friends.clone(), directory.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, &friends, &directory).await {
                tracing::debug!(%error, "a command went away");
            }
            drop(place);
        });
    }
}

async fn serve_one(stream: UnixStream, friends: &Friends, directory: &DataDirectory) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if user != rustix::process::geteuid().as_raw() && user != 0 {
        tracing::warn!(user, "a command of another user was refused");
        return Ok(());
    }
    let (receive, mut send) = stream.into_split();
    let mut reader = BufReader::new(receive.take(REQUEST_LEN_MAX));
    let mut line = Vec::new();
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    if line.last() != Some(&b'\n') {
        let text = format!("a request is one line of at most {REQUEST_LEN_MAX} bytes");
        return say(&mut send, &Answer::Failed { kind: FailureKind::Usage, text }).await;
    }
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Inbox { after, follow }) => {
            let mut gone = [0];
            return tokio::select! {
                outcome = inbox(friends, &mut send, after, follow) => outcome,
                // The command says nothing more: this ends when it has gone.
                _ = reader.read(&mut gone) => Ok(()),
            };
        }
        Ok(request) => obey(request, friends, directory).await,
        Err(error) => Err((FailureKind::Usage, format!("no request: {error}"))),
    };
    let answer = answer.map_or_else(|(kind, text)| Answer::Failed { kind, text }, Answer::Ok);
    say(&mut send, &answer).await
}

type Refusal = (FailureKind, String);

async fn obey(request: Request, friends: &Friends, directory: &DataDirectory) -> Result<Value, Refusal> {
    match request {
        Request::List => {
            let status = friends.status().await.map_err(ended)?;
            let list = friends.list().await.map_err(ended)?;
            let list: Vec<_> = list.iter().map(show).collect();
            Ok(json!({ "node": show_status(&status), "friends": list }))
        }
        Request::Add { address, greeting } => {
            let parsed = address.parse::<identity::Address>();
            let address = parsed.map_err(|error| (FailureKind::Usage, format!("`{address}`: {error}")))?;
            friends.add(address, greeting).await.map_err(|error| refused(&error))?;
            view(friends, address.uid).await
        }
        Request::Accept { who } => {
            let uid = resolve(friends, who).await?;
            friends.accept(uid).await.map_err(|error| refused(&error))?;
            view(friends, uid).await
        }
        Request::Decline { who } => {
            let uid = resolve(friends, who).await?;
            friends.decline(uid).await.map_err(|error| refused(&error))?;
            Ok(json!({ "uid": uid.to_string(), "declined": true }))
        }
        Request::Remove { who } => {
            let uid = resolve(friends, who).await?;
            friends.remove(uid).await.map_err(|error| refused(&error))?;
            Ok(json!({ "uid": uid.to_string(), "removed": true }))
        }
        Request::Label { who, label, notes } => {
            let uid = resolve(friends, who).await?;
            friends.label(uid, label, notes).await.map_err(|error| refused(&error))?;
            view(friends, uid).await
        }
        Request::Profile { name, description, presence } => {
            let old = friends.status().await.map_err(ended)?.profile;
            let presence = match presence {
                Some(word) => word.parse().map_err(|error| (FailureKind::Usage, error))?,
                None => old.presence,
            };
            let new = Profile {
                name: name.unwrap_or_else(|| old.name.clone()),
                description: description.unwrap_or_else(|| old.description.clone()),
                presence,
            };
            if new != old {
                friends.set_profile(new.clone()).await.map_err(|error| refused(&error))?;
            }
            Ok(show_profile(&new))
        }
        Request::Nospam => {
            let files = IdentityFiles::load(directory).map_err(|e| (FailureKind::Other, e.to_string()))?;
            friends.set_nospam(files.nospam).await.map_err(ended)?;
            Ok(json!({ "address": files.address().to_string() }))
        }
        Request::Send { to, text } => {
            let outcome = friends.send(to, text).await.map_err(|error| {
                let kind = match &error {
                    SendError::Empty
                    | SendError::TooLong { .. }
                    | SendError::BadAddress { .. }
                    | SendError::Oneself { .. } => FailureKind::Usage,
                    SendError::NotConnected { .. } => FailureKind::NotConnected,
                    SendError::NotFriend { .. } => FailureKind::NotFriend,
                    SendError::Waiting { .. } | SendError::Ended(_) => FailureKind::Other,
                };
                (kind, error.to_string())
            })?;
            Ok(match outcome {
                Outcome::Delivered(receipt) => json!({
                    "status": "delivered", "time_us": receipt.time_us, "envelope_blake3": hex(&receipt.hash),
                }),
                Outcome::Offline => json!({ "status": "offline" }),
                Outcome::Refused => json!({ "status": "refused" }),
                Outcome::Busy => json!({ "status": "busy" }),
                Outcome::Unknown => json!({ "status": "unknown" }),
            })
        }
        // It has more than one answer and is served where they are written.
        Request::Inbox { .. } => Ok(Value::Null),
    }
}

async fn inbox(friends: &Friends, send: &mut OwnedWriteHalf, mut after: u64, follow: bool) -> io::Result<()> {
    let mut latest = friends.watch().await.map_err(io::Error::other)?;
    loop {
        // Seen before it is read: what comes meanwhile changes it again.
        latest.borrow_and_update();
        loop {
            let page = match friends.inbox(after, PAGE_LEN).await {
                Ok(page) => page,
                Err(error) => {
                    let (kind, text) = refused(&error);
                    return say(send, &Answer::Failed { kind, text }).await;
                }
            };
            let Some(last) = page.last() else { break };
            after = last.number;
            let friends = friends.list().await.map_err(io::Error::other)?;
            for message in &page {
                say(send, &Answer::Ok(show_message(message, &friends))).await?;
            }
        }
        if !follow {
            return say(send, &Answer::Ok(Value::Null)).await;
        }
        latest.changed().await.map_err(io::Error::other)?;
    }
}

async fn say(send: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, send.write_all(&line)).await?
}

async fn resolve(friends: &Friends, who: String) -> Result<identity::Uid, Refusal> {
    let name = format!("`{who}` is no UID, no address and no friend's label");
    let found = friends.resolve(who).await.map_err(ended)?;
    found.map_err(|reason| (FailureKind::Usage, format!("{name}: {reason}")))
}

async fn view(friends: &Friends, uid: identity::Uid) -> Result<Value, Refusal> {
    let view = friends.view(uid).await.map_err(ended)?;
    Ok(view.as_ref().map_or_else(|| json!({ "uid": uid.to_string() }), show))
}

fn refused(error: &FriendError) -> Refusal {
    let kind = match error {
        FriendError::TooLong(_)
        | FriendError::Oneself { .. }
        | FriendError::Unusable { .. }
        | FriendError::Already { .. }
        | FriendError::NotAsking { .. }
        | FriendError::LabelTaken { .. } => FailureKind::Usage,
        FriendError::Unknown { .. } => FailureKind::NotFound,
        FriendError::TooMany | FriendError::Book(_) | FriendError::Ended(_) => FailureKind::Other,
    };
    (kind, error.to_string())
}

fn ended(error: ServiceEnded) -> Refusal {
    (FailureKind::Other, error.to_string())
}

fn show_status(status: &Status) -> Value {
    let (is_connected, mailbox, reason) = match &status.connection {
        Connection::Connected { node } => (true, Some(node.as_str()), None),
        Connection::Connecting { reason } => (false, None, Some(reason.as_str())),
        Connection::Displaced => (false, None, Some("the same identity has logged in elsewhere, later")),
    };
    let counters = &status.counters;
    json!({
        "uid": status.address.uid.to_string(),
        "address": status.address.to_string(),
        "connected": is_connected,
        "mailbox": mailbox,
        "reason": reason,
        "profile": show_profile(&status.profile),
        "counters": {
            "received": counters.received, "repeated": counters.repeated, "delivered": counters.delivered,
            "requests": counters.requests, "requests_dropped": counters.requests_dropped,
            "requests_declined": counters.requests_declined, "dropped": counters.dropped,
            "malformed": counters.malformed, "unexpected": counters.unexpected, "flooded": counters.flooded, "unsaved": counters.unsaved,
        },
    })
}

fn show_profile(profile: &Profile) -> Value {
    json!({
        "name": profile.name, "description": profile.description, "presence": profile.presence.to_string(),
    })
}

fn show(view: &FriendView) -> Value {
    let friend = &view.friend;
    let standing = match friend.standing {
        Standing::Asked => "asked",
        Standing::Asking => "asking",
        Standing::Friend => "friend",
        Standing::Declined => "declined",
        Standing::Ended => "ended",
    };
    json!({
        "uid": view.uid.to_string(),
        "standing": standing,
        "since_unix_s": friend.since_s,
        "connected": view.is_connected,
        "label": friend.label,
        "notes": friend.notes,
        "greeting": friend.greeting,
        "profile": show_profile(&friend.profile),
        "address_revoked": friend.is_address_revoked,
    })
}

fn show_message(message: &Message, friends: &[FriendView]) -> Value {
    let label = friends.iter().find(|view| view.uid == message.from).map(|view| view.friend.label.as_str());
    json!({
        "number": message.number,
        "from": message.from.to_string(),
        "label": label.filter(|label| !label.is_empty()),
        "sent_unix_us": message.id,
        "text": message.text,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
