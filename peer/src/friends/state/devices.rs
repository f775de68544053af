//! Devices of the same owner, which have proved by a code that they are.

use identity::{Address, Uid};

use super::{Due, State, unix_time_s};
use crate::friends::devices::Device;
use crate::friends::error::FriendError;
use crate::friends::record::{Friend, NAME_LEN_MAX, Standing, check_len};

/// What the request says that goes if the other does not keep this device after all.
const GREETING: &str = "paired by a code";

impl State {
    pub(in crate::friends) fn own_device(&self) -> Device {
        Device {
            address: Address { uid: self.uid, nospam: self.nospam },
            name: self.book.profile().name.clone(),
            nodes: self.own_nodes.clone(),
        }
    }

    pub(in crate::friends) fn has_had_own_device(&self) -> Result<bool, FriendError> {
        Ok(self.book.has_had_own_device()?)
    }

    pub(in crate::friends) fn expect_device(&mut self, device: Device) -> Result<(), FriendError> {
        let (uid, mut friend) = (device.address.uid, self.as_friend(&device)?);
        if friend.standing != Standing::Friend {
            friend.standing = Standing::Asked;
            friend.since_s = unix_time_s();
            friend.is_address_revoked = false;
            GREETING.clone_into(&mut friend.greeting);
        }
        self.book.put(&uid, friend)?;
        self.learn_nodes(&uid, device.nodes)?;
        self.due.push_back(Due::Allow(uid));
        Ok(())
    }

    pub(in crate::friends) fn ask_device(&mut self, uid: &Uid) {
        if self.book.get(uid).is_some_and(|friend| friend.standing == Standing::Asked) {
            self.request(uid);
        }
    }

    pub(in crate::friends) fn pair_device(
        &mut self,
        device: Device,
        is_confirmed: bool,
    ) -> Result<(), FriendError> {
        let (uid, mut friend) = (device.address.uid, self.as_friend(&device)?);
        if friend.standing != Standing::Friend {
            friend.standing = Standing::Friend;
            friend.since_s = unix_time_s();
        }
        friend.is_confirmed = is_confirmed;
        self.book.put(&uid, friend)?;
        self.learn_nodes(&uid, device.nodes)?;
        self.due.push_back(Due::Allow(uid));
        if !is_confirmed {
            self.send_accept(&uid);
        }
        self.greet(&uid);
        Ok(())
    }

    /// What is kept of it, as its owner's.
    fn as_friend(&self, device: &Device) -> Result<Friend, FriendError> {
        let uid = device.address.uid;
        check_len("name", &device.name, NAME_LEN_MAX)?;
        if uid == self.uid {
            return Err(FriendError::Oneself { uid });
        }
        if uid.to_x25519().is_none() {
            return Err(FriendError::Unusable { uid });
        }
        self.check_room(&uid)?;
        let known = self.book.get(&uid).cloned();
        let mut friend = known.unwrap_or_else(|| Friend::new(Standing::Asked, unix_time_s()));
        friend.is_own_device = true;
        friend.nospam = device.address.nospam;
        friend.profile.name.clone_from(&device.name);
        Ok(friend)
    }
}
