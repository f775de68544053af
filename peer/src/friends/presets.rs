//! Friends that a device is delivered with: asked once, by nobody's doing.

use identity::Address;

use super::error::FriendError;
use super::service::Friends;

/// Friends that a device may be delivered with.
pub const PRESETS_MAX: usize = 100;

impl Friends {
    /// Asks somebody whom this device was delivered with, as [`Friends::add`], and names them; true if it did. It does so once: who was
    /// removed, has declined, or was a friend before, is left as they are.
    ///
    /// # Errors
    /// [`FriendError`]; it is tried again with the next call.
    pub async fn add_preset(&self, address: Address, label: String) -> Result<bool, FriendError> {
        self.ask(move |state| state.add_preset(address, label)).await?
    }
}
