//! The friends of a running node, on a thread of their own: a sync of their database must never hold up whoever keeps the engine
//! running.

use crate::commands::local_node::local_node;
use crate::configuration::{Configuration, MailboxNode};
use crate::data_directory::DataDirectory;
use crate::exit::Failure;
use crate::node_identity::NodeIdentity;
use peer::friends::{FriendBook, Friends, FriendsOptions, NodeChoice};
use peer::{Client, ClientOptions};

/// Starts it if the configuration names a mailbox. It ends with [`Friends::leave`], or with the process: what it has written is
/// safe at any moment.
///
/// # Errors
/// The database cannot be used.
pub fn start(
    configuration: &Configuration,
    directory: &DataDirectory,
    identity: &NodeIdentity,
) -> Result<Option<Friends>, Failure> {
    let settings = configuration.node.clone();
    let node: NodeChoice = match &configuration.peer.mailbox {
        MailboxNode::Off => return Ok(None),
        MailboxNode::Local => Box::new(move || {
            local_node(&settings, "the mailbox is to be at this node").map_err(|failure| failure.to_string())
        }),
        MailboxNode::At(url) => {
            let url = url.clone();
            Box::new(move || Ok(*url.clone()))
        }
    };
    let book = FriendBook::open(&directory.friends())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = {
        let _inside = runtime.enter();
        Client::new(ClientOptions::default())?
    };
    let (key, nospam) = (identity.key.clone(), identity.nospam);
    let (friends, service) = Friends::new(FriendsOptions { key, nospam, book, client, node });
    std::thread::Builder::new().name("friends".into()).spawn(move || runtime.block_on(service))?;
    Ok(Some(friends))
}
