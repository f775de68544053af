//! Devices of one's own, which [`crate::pairing`] makes friends.

use identity::{Address, Uid};
use relay::mailbox::NodeAddress;

use super::error::FriendError;
use super::service::{Friends, ServiceEnded};
use crate::NodeUrl;

/// A device, as it says to another of the same owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its address.
    pub(crate) address: Address,
    /// The name in its profile.
    pub(crate) name: String,
    /// The nodes at whose mailboxes it is.
    pub(crate) nodes: Vec<NodeAddress>,
}

impl Friends {
    /// The node at whose mailbox this one has its session, if it has one.
    pub fn at(&self) -> Option<NodeUrl> {
        self.node().borrow().clone()
    }

    /// This device.
    pub(crate) async fn own_device(&self) -> Result<Device, ServiceEnded> {
        self.ask(|state| state.own_device()).await
    }

    /// Whether a device of the same owner was ever kept, even if it was removed since.
    pub(crate) async fn has_had_own_device(&self) -> Result<bool, FriendError> {
        self.ask(|state| state.has_had_own_device()).await?
    }

    /// A device of the same owner is about to keep this one, and is kept from now on: it counts as asked until it has said so, and is asked
    /// like anybody else if it does not.
    ///
    /// # Errors
    /// [`FriendError`]; nothing has changed then.
    pub(crate) async fn expect_device(&self, device: Device) -> Result<(), FriendError> {
        self.ask(move |state| state.expect_device(device)).await?
    }

    /// Asks a device that was expected, and has not said that it keeps this one.
    pub(crate) async fn ask_device(&self, uid: Uid) -> Result<(), ServiceEnded> {
        self.ask(move |state| state.ask_device(&uid)).await
    }

    /// A device of the same owner keeps this one, which keeps it from now on. `is_confirmed`: it knows that.
    ///
    /// # Errors
    /// [`FriendError`]; the device is not kept then.
    pub(crate) async fn pair_device(&self, device: Device, is_confirmed: bool) -> Result<(), FriendError> {
        self.ask(move |state| state.pair_device(device, is_confirmed)).await?
    }
}
