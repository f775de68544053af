//! The friends of a running node, at the mailbox that is configured or chosen, on a thread of their own: a sync of their database must never hold up whoever keeps the engine
//! running.

use crate::bootstrap::Bootstrap;
use crate::commands::local_node::local_node;
use crate::configuration::{Configuration, MailboxNode};
use crate::data_directory::DataDirectory;
use crate::exit::Failure;
use crate::node_identity::NodeIdentity;
use peer::friends::{FriendBook, Friends, FriendsOptions, NodeChoice};
use peer::{Client, ClientOptions};
use std::future::ready;
use std::time::Duration;

/// How often a silent session at a chosen node is kept alive, and after which silence the node counts as dead: 7 s after its last word
/// at most, of the 10 s in which its peers are to be at others. A peer costs its node half a datagram a second each way.
const CHOSEN_KEEP_ALIVE: Duration = Duration::from_secs(2);
const CHOSEN_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts it if the configuration names a mailbox. It ends with [`Friends::leave`], or with the process: what it has written is
/// safe at any moment.
///
/// # Errors
/// The database cannot be used.
pub fn start(
    configuration: &Configuration,
    directory: &DataDirectory,
    identity: &NodeIdentity,
    bootstrap: &Bootstrap,
) -> Result<Option<Friends>, Failure> {
    let settings = configuration.node.clone();
    let mut client = ClientOptions::default();
    let node: NodeChoice = match &configuration.peer.mailbox {
        MailboxNode::Off => return Ok(None),
        MailboxNode::Local => Box::new(move || {
            let local = local_node(&settings, "the mailbox is to be at this node");
            Box::pin(ready(local.map_err(|failure| failure.to_string())))
        }),
        MailboxNode::At(url) => {
            let url = url.clone();
            Box::new(move || Box::pin(ready(Ok(*url.clone()))))
        }
        MailboxNode::Auto => {
            // There are others to go to, so a dead one is to be known for dead soon.
            client.keep_alive_interval = CHOSEN_KEEP_ALIVE;
            client.idle_timeout = CHOSEN_IDLE_TIMEOUT;
            client.connect_timeout = CHOSEN_IDLE_TIMEOUT;
            let bootstrap = bootstrap.clone();
            Box::new(move || {
                let bootstrap = bootstrap.clone();
                Box::pin(async move { bootstrap.choose().await })
            })
        }
    };
    let book = FriendBook::open(&directory.friends())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = {
        let _inside = runtime.enter();
        Client::new(client)?
    };
    let (key, nospam) = (identity.key.clone(), identity.nospam);
    let (friends, service) = Friends::new(FriendsOptions { key, nospam, book, client, node });
    bootstrap.attach(&friends);
    std::thread::Builder::new().name("friends".into()).spawn(move || runtime.block_on(service))?;
    Ok(Some(friends))
}
