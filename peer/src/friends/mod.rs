//! Friends: who may write to this peer, and messages among them. Drawn in `peer/docs/friends.md`.
//!
//! Participants: two *peers* that have agreed to be friends, and the *node* whose mailbox they share, which neither of them
//! has to trust with more than passing envelopes on. Goals: nobody but a friend gets a word through; the node learns who
//! writes to whom and when, and nothing of what; a key that is stolen opens nothing that was said before; what a receipt says
//! is kept is kept, once and in order, also after `kill -9`. No goals: hiding who is whose friend from the node, and
//! messages for peers that are not connected.
//!
//! Files of up to 5 MiB go the same way, in parts.
//!
//! [`FriendBook`] is what is on the disk, [`Friends`] the handle to a running service.

mod body;
mod book;
mod bulk;
mod contact;
mod devices;
mod error;
mod greeting;
mod presets;
mod record;
mod service;
mod session;
mod state;

pub(crate) use body::{nodes_bytes, read_nodes, read_text, write_text};
pub use book::{BookError, FriendBook};
pub use bulk::{
    FILE_LEN_MAX, FILE_NAME_LEN_MAX, FILES_BYTES_MAX, FILES_RECEIVING_MAX, FILES_SENDING_MAX,
    FRIEND_FILES_BYTES_MAX, File, FileProgress, FileTransfer,
};
pub(crate) use devices::Device;
pub use error::{FriendError, SendError};
pub use presets::PRESETS_MAX;
pub use record::{
    ASKING_MAX, DECLINED_MAX, DESCRIPTION_LEN_MAX, FRIENDS_MAX, Friend, GREETING_LEN_MAX, INBOX_MAX,
    LABEL_LEN_MAX, Message, NAME_LEN_MAX, NODES_MAX, NOTES_LEN_MAX, Presence, Profile, ProfileError,
    Standing,
};
pub use relay::mailbox::{MESSAGE_LEN_MAX, NodeAddress, NodeAddressError};
pub use service::{
    Choosing, Finding, Friends, FriendsOptions, NodeChoice, NodeFinder, ReachedAt, ServiceEnded,
};
pub use state::{Connection, Counters, FriendView, Outcome, Status, WAITING_MAX};
