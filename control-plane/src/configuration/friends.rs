//! Section `[friends]`: friends that a device is delivered with.

use super::keys::{Allowed, Configuration, Key};
use super::value::Value;
use identity::Address;
use peer::friends::{LABEL_LEN_MAX, PRESETS_MAX};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Friends that are asked without their owner's doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FriendsSettings {
    /// Whom, each once: one that is removed does not come back.
    pub preset: Vec<PresetFriend>,
    /// File with the pairing code that this device was delivered with, if it was.
    pub pairing_code: Option<PathBuf>,
}

/// A friend to be: `ADDRESS`, or `LABEL=ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresetFriend {
    /// The name that this node gives it; empty for none.
    pub label: String,
    /// Where it is asked.
    pub address: Address,
}

impl FromStr for PresetFriend {
    type Err = String;

    fn from_str(text: &str) -> Result<PresetFriend, String> {
        // An address has no equals sign, a label may.
        let (label, address) = text.rsplit_once('=').unwrap_or(("", text));
        if label.len() > LABEL_LEN_MAX {
            return Err(format!("the label `{label}` has {} bytes; at most {LABEL_LEN_MAX}", label.len()));
        }
        let address =
            address.trim().parse().map_err(|error| format!("`{address}` is no address: {error}"))?;
        Ok(PresetFriend { label: label.trim().to_owned(), address })
    }
}

impl fmt::Display for PresetFriend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.label.is_empty() {
            write!(f, "{}=", self.label)?;
        }
        write!(f, "{}", self.address)
    }
}

pub(super) const FRIENDS_KEYS: &[Key] = &[PRESET, PAIRING_CODE];

const PRESET: Key = Key {
    section: "friends",
    name: "preset",
    meaning: "Friends that this node asks at its first start with them, each once: one that was removed does not come back. Two that are each \
              other's presets are friends as soon as both are connected.",
    allowed: Allowed::Words(
        "a list of at most 100 addresses as `ioex id` shows them, each with a label if you like: [\"LABEL=ADDRESS\"]",
    ),
    set: |c: &mut Configuration, value| {
        let preset: Vec<PresetFriend> = value.list(str::parse)?;
        if preset.len() > PRESETS_MAX {
            let reason = format!("{} are more than {PRESETS_MAX}", preset.len());
            return Err(super::value::Unfit { element: None, reason });
        }
        c.friends.preset = preset;
        Ok(())
    },
    show: |c| Value::List(c.friends.preset.iter().map(|friend| Value::Text(friend.to_string())).collect()),
};

const PAIRING_CODE: Key = Key {
    section: "friends",
    name: "pairing_code",
    meaning: "File with the pairing code that this device is delivered with, as `ioex pair --draw` makes one: whoever types it on a first device of \
              theirs is this one's friend. It counts until a device of the owner's is kept.",
    allowed: Allowed::Words("a path in quotes, of a file that holds twenty digits; empty for no such code"),
    set: |c: &mut Configuration, value| {
        c.friends.pairing_code =
            value.text(|text| Ok::<_, String>((!text.is_empty()).then(|| PathBuf::from(text))))?;
        Ok(())
    },
    show: |c| {
        let path = c.friends.pairing_code.as_ref().map(|path| path.display().to_string());
        Value::Text(path.unwrap_or_default())
    },
};
