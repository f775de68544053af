//! What this node's owner asks for.

use std::time::Instant;

use identity::{Address, Uid};
use relay::mailbox::{MESSAGE_LEN_MAX, NodeAddress};
use tokio::sync::oneshot;

use super::{Connection, DISPLACED, Due, Outcome, RECEIPT_TIMEOUT, State, WAITING_MAX, unix_time_s};
use crate::friends::body::Body;
use crate::friends::contact::Outgoing;
use crate::friends::error::{FriendError, SendError};
use crate::friends::record::{
    Friend, GREETING_LEN_MAX, LABEL_LEN_MAX, NODES_MAX, NOTES_LEN_MAX, Profile, Standing, check_len,
};

impl State {
    /// Asks somebody to be a friend, or accepts if they have asked. `nodes`: where they are, if that is known.
    pub(in crate::friends) fn add(
        &mut self,
        address: Address,
        greeting: &str,
        nodes: Vec<NodeAddress>,
    ) -> Result<Standing, FriendError> {
        check_len("greeting", greeting, GREETING_LEN_MAX)?;
        let uid = address.uid;
        if uid == self.uid {
            return Err(FriendError::Oneself { uid });
        }
        let known = self.book.get(&uid).cloned();
        match known.as_ref().map(|friend| friend.standing) {
            Some(Standing::Friend) => return Err(FriendError::Already { uid }),
            Some(Standing::Asking) => return self.accept(&uid).map(|()| Standing::Friend),
            _ => {}
        }
        self.check_room(&uid)?;
        if uid.to_x25519().is_none() {
            return Err(FriendError::Unusable { uid });
        }
        let mut friend = known.unwrap_or_else(|| Friend::new(Standing::Asked, unix_time_s()));
        friend.standing = Standing::Asked;
        friend.since_s = unix_time_s();
        friend.nospam = address.nospam;
        greeting.clone_into(&mut friend.greeting);
        friend.is_address_revoked = false;
        if !nodes.is_empty() {
            friend.nodes = nodes;
            friend.nodes.truncate(NODES_MAX);
        }
        self.book.put(&uid, friend)?;
        self.due.push_back(Due::Allow(uid));
        self.request(&uid);
        Ok(Standing::Asked)
    }

    pub(in crate::friends) fn accept(&mut self, uid: &Uid) -> Result<(), FriendError> {
        let mut friend = self.known(uid)?;
        match friend.standing {
            Standing::Asking => {}
            Standing::Friend => return Ok(()),
            standing => return Err(FriendError::NotAsking { uid: *uid, standing }),
        }
        self.check_room(uid)?;
        friend.standing = Standing::Friend;
        friend.since_s = unix_time_s();
        friend.is_confirmed = false;
        self.book.put(uid, friend)?;
        self.due.push_back(Due::Allow(*uid));
        self.send_accept(uid);
        self.greet(uid);
        Ok(())
    }

    pub(in crate::friends) fn decline(&mut self, uid: &Uid) -> Result<(), FriendError> {
        let friend = self.known(uid)?;
        if friend.standing != Standing::Asking {
            return Err(FriendError::NotAsking { uid: *uid, standing: friend.standing });
        }
        let via = self.via(uid);
        self.book.decline(uid, self.now_us())?;
        self.send_last(uid, via, &Body::Decline);
        Ok(())
    }

    pub(in crate::friends) fn remove(&mut self, uid: &Uid) -> Result<(), FriendError> {
        let (friend, via) = (self.known(uid)?, self.via(uid));
        self.book.remove(uid)?;
        if friend.standing == Standing::Friend {
            self.send_last(uid, via, &Body::End);
        }
        if friend.is_allowed() {
            self.due.push_back(Due::Forbid(*uid));
        }
        self.forget(uid);
        Ok(())
    }

    pub(in crate::friends) fn label(
        &mut self,
        uid: &Uid,
        label: Option<String>,
        notes: Option<String>,
    ) -> Result<(), FriendError> {
        let mut friend = self.known(uid)?;
        if let Some(label) = label {
            check_len("label", &label, LABEL_LEN_MAX)?;
            let other = self.book.friends().iter().find(|(other, f)| *other != uid && f.label == label);
            if let Some((other, _)) = other.filter(|_| !label.is_empty()) {
                return Err(FriendError::LabelTaken { uid: *other, label });
            }
            friend.label = label;
        }
        if let Some(notes) = notes {
            check_len("notes", &notes, NOTES_LEN_MAX)?;
            friend.notes = notes;
        }
        Ok(self.book.put(uid, friend)?)
    }

    pub(in crate::friends) fn set_profile(&mut self, profile: Profile) -> Result<(), FriendError> {
        profile.check()?;
        self.book.set_profile(profile)?;
        self.send_profile_to_all();
        Ok(())
    }

    pub(in crate::friends) fn set_nospam(&mut self, nospam: [u8; 4]) {
        self.nospam = nospam;
        self.due.push_back(Due::Nospam(nospam));
    }

    /// Who is meant by a UID, an address, or a friend's label.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::friends) fn resolve(&self, to: &str) -> Result<Uid, String> {
        let labelled = self.book.friends().iter().find(|(_, friend)| !to.is_empty() && friend.label == to);
        if let Some((uid, _)) = labelled {
            return Ok(*uid);
        }
        to.parse::<Uid>().or_else(|uid_error| {
            // The longer one is an address: what is wrong with it is then said of an address.
            let is_address = to.len() > 44;
            let address = to.parse::<Address>();
            address.map(|a| a.uid).map_err(|e| if is_address { e.to_string() } else { uid_error.to_string() })
        })
    }

    /// Sends a message; the outcome comes later.
    pub(in crate::friends) fn send(
        &mut self,
        to: &str,
        text: String,
    ) -> Result<oneshot::Receiver<Outcome>, SendError> {
        match text.len() {
            0 => return Err(SendError::Empty),
            len if len > MESSAGE_LEN_MAX => return Err(SendError::TooLong { len }),
            _ => {}
        }
        let uid = self.receiver(to)?;
        let id = self.next_id();
        let contact = self.contacts.entry(uid).or_default();
        if contact.pending() >= WAITING_MAX {
            return Err(SendError::Waiting { uid, waiting: contact.pending() });
        }
        let (reply, outcome) = oneshot::channel();
        contact.waiting.push_back(Outgoing::new(id, text, Instant::now() + RECEIPT_TIMEOUT, reply));
        self.flush(&uid);
        Ok(outcome)
    }

    /// An id above that of every message before.
    pub(super) fn next_id(&mut self) -> u64 {
        self.signed_us = self.now_us().max(self.signed_us + 1);
        self.signed_us
    }

    /// To whom something may be sent now.
    pub(super) fn receiver(&self, to: &str) -> Result<Uid, SendError> {
        let uid = self.resolve(to).map_err(|reason| SendError::BadAddress { to: to.to_owned(), reason })?;
        if uid == self.uid {
            return Err(SendError::Oneself { uid });
        }
        let reason = match &self.connection {
            Connection::Connected { .. } => None,
            Connection::Connecting { reason } => Some(reason.clone()),
            Connection::Displaced => Some(DISPLACED.to_owned()),
        };
        if let Some(reason) = reason {
            return Err(SendError::NotConnected { reason });
        }
        let standing = self.book.get(&uid).map(|friend| friend.standing);
        if standing != Some(Standing::Friend) {
            return Err(SendError::NotFriend { uid, standing });
        }
        Ok(uid)
    }
}
