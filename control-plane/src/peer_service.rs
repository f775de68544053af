//! The friends of a running node, at the mailbox that is configured or chosen, on a thread of their own: a sync of their database must
//! never hold up whoever keeps the engine running.

use crate::bootstrap::Bootstrap;
use crate::commands::local_node::local_node;
use crate::configuration::{Configuration, MailboxNode, PresetFriend};
use crate::data_directory::DataDirectory;
use crate::engine_socket::EngineSocket;
use crate::exit::Failure;
use crate::node_identity::NodeIdentity;
use crate::reachable;
use identity::Uid;
use peer::friends::{FriendBook, Friends, FriendsOptions, NodeAddress, NodeChoice, NodeFinder, ReachedAt};
use peer::{Client, ClientOptions, NodeUrl};
use std::future::ready;
use std::time::Duration;

/// How often a silent session at a chosen node is kept alive, and after which silence the node counts as dead: 5.5 s after its last
/// word at most, of the 10 s in which its peers are to be at others. What is lost on the way is sent again several times meanwhile. A peer costs
/// its node half a datagram a second each way.
const CHOSEN_KEEP_ALIVE: Duration = Duration::from_secs(2);
const CHOSEN_IDLE_TIMEOUT: Duration = Duration::from_millis(3_500);

/// How long a connection may take: a node to which a whole fleet comes at once takes a while.
const CHOSEN_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a peer connects to a node that it has chosen among others.
pub fn chosen_node_options() -> ClientOptions {
    ClientOptions {
        keep_alive_interval: CHOSEN_KEEP_ALIVE,
        idle_timeout: CHOSEN_IDLE_TIMEOUT,
        connect_timeout: CHOSEN_CONNECT_TIMEOUT,
        ..ClientOptions::default()
    }
}

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
    let reached_at: ReachedAt = match &configuration.peer.mailbox {
        // The peer reaches its own engine over loopback; others do not.
        MailboxNode::Local => {
            let (settings, directory) = (settings.clone(), directory.clone());
            Box::new(move || {
                let status =
                    EngineSocket::connect(&directory.engine_socket()).and_then(|mut socket| socket.status());
                status
                    .map_or_else(|_| Vec::new(), |status| reachable::addresses(&settings, &status.listeners))
            })
        }
        _ => Box::new(Vec::new),
    };
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
            client = chosen_node_options();
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
    let finder = Some(finder(bootstrap));
    let (friends, service) =
        Friends::new(FriendsOptions { key, nospam, book, client, node, reached_at, finder });
    bootstrap.attach(&friends);
    let service = with_presets(service, friends.clone(), configuration.friends.preset.clone());
    std::thread::Builder::new().name("friends".into()).spawn(move || runtime.block_on(service))?;
    Ok(Some(friends))
}

/// Finds friends by the records that they have published in the DHT.
fn finder(bootstrap: &Bootstrap) -> NodeFinder {
    let bootstrap = bootstrap.clone();
    Box::new(move |uid| {
        let bootstrap = bootstrap.clone();
        Box::pin(async move {
            let nodes = bootstrap.nodes_of(&uid).await.unwrap_or_else(|error| {
                tracing::debug!(%error, %uid, "looking a friend up");
                Vec::new()
            });
            addresses(&nodes)
        })
    })
}

/// One address of each node, in their order, and then their further ones: a friend is tried at few.
fn addresses(nodes: &[(Uid, Vec<NodeUrl>)]) -> Vec<NodeAddress> {
    let most = nodes.iter().map(|(_, urls)| urls.len()).max().unwrap_or(0);
    let nth = |n: usize| nodes.iter().filter_map(move |(uid, urls)| Some((uid, urls.get(n)?)));
    let address =
        |(uid, url): (&Uid, &NodeUrl)| Some(NodeAddress::new(*uid, (url.address()?, url.port()).into()));
    (0..most).flat_map(nth).filter_map(address).collect()
}

/// The service, which first asks the friends that this node was delivered with.
async fn with_presets(service: impl Future<Output = ()>, friends: Friends, presets: Vec<PresetFriend>) {
    let asking = async {
        for PresetFriend { label, address } in presets {
            let uid = address.uid;
            match friends.add_preset(address, label).await {
                Ok(true) => tracing::info!(%uid, "a friend of friends.preset is asked"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%uid, %error, "a friend of friends.preset is not asked"),
            }
        }
        // This handle must not keep the service alive.
        drop(friends);
    };
    tokio::join!(service, asking);
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::SecretKey;

    #[test]
    fn every_node_is_tried_before_a_second_address_of_one() {
        let uid = |n: u8| SecretKey::from_seed([n; 32]).uid();
        let url = |n: u8, host: &str| format!("https://{}@{host}", uid(n)).parse().unwrap();
        let nodes = [
            (uid(1), vec![url(1, "192.0.2.1:4433"), url(1, "[2001:db8::1]:4433")]),
            (uid(2), vec![url(2, "192.0.2.2:4434")]),
        ];
        let place = |n: u8, address: &str| NodeAddress::new(uid(n), address.parse().unwrap());
        let expected =
            [place(1, "192.0.2.1:4433"), place(2, "192.0.2.2:4434"), place(1, "[2001:db8::1]:4433")];
        assert_eq!(addresses(&nodes), expected);
        assert_eq!(addresses(&[]), []);
    }
}
