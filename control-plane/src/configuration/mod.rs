//! The configuration: what can be set, where a value came from, and what is wrong with a bad one.
//!
//! Four layers, each over the one before: built-in defaults (those of the node's role, if it has one), a TOML file,
//! environment variables `IOEX_SECTION_KEY`, flags of the command line. One table ([`keys`]) names every setting, so that the file,
//! the environment, `config print` and the messages cannot disagree. An unknown key is an error and never
//! ignored: a misspelt limit would otherwise leave the default in force without a word.

mod api;
pub mod chain;
pub mod dht;
mod friends;
mod keys;
mod load;
pub mod peer;
mod policy;
mod print;
mod problem;
mod relay;
mod role;
mod value;

pub use api::Api;
pub use chain::Chain;
pub use dht::Dht;
pub use friends::{FriendsSettings, PresetFriend};
pub use keys::{
    Allowed, Configuration, CutOff, Driver, Engine, Key, Node, Publishers, StorageExecutor, TokenId, keys,
    keys_of, sections,
};
pub use load::{Flags, Loaded, Origin, Sources, load, parse};
pub use peer::{MailboxNode, Peer};
pub use policy::PolicySettings;
pub use problem::{ConfigurationError, Place, Problem};
pub use relay::{Ports, Relay, RelayAddress};
pub use role::Role;
pub use value::{Unfit, Value};
