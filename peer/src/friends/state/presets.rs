//! Friends that a device is delivered with.

use identity::Address;

use super::State;
use crate::friends::error::FriendError;

const GREETING: &str = "preset in the configuration";

impl State {
    pub(in crate::friends) fn add_preset(
        &mut self,
        address: Address,
        label: String,
    ) -> Result<bool, FriendError> {
        let uid = address.uid;
        if uid == self.uid || self.book.is_preset_used(&uid)? {
            // One list may serve a whole fleet, so a device may find itself in it.
            return Ok(false);
        }
        match self.add(address, GREETING, Vec::new()) {
            Ok(_) => {}
            Err(FriendError::Already { .. }) => {
                self.book.use_preset(&uid)?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        // A label that somebody else has is not taken from them.
        match self.label(&uid, Some(label), None) {
            Ok(()) | Err(FriendError::LabelTaken { .. }) => {}
            Err(error) => return Err(error),
        }
        self.book.use_preset(&uid)?;
        Ok(true)
    }
}
