//! The node that runs on this machine.

use crate::configuration::Node as NodeSettings;
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use crate::exit::{Exit, Failure};
use identity::Uid;
use peer::NodeUrl;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Its URL, over loopback where it listens on every address. `needed` says what it is asked for, in front of why it is
/// not there.
pub fn local_node(settings: &NodeSettings, needed: &str) -> Result<NodeUrl, Failure> {
    let directory = DataDirectory::existing(&settings.data);
    let absent =
        |error: EngineSocketError| Failure::message(Exit::NotFound, format!("{needed}, and {error}"));
    let status = EngineSocket::connect(&directory.engine_socket())
        .and_then(|mut socket| socket.status())
        .map_err(absent)?;
    let listening = status.listeners.iter().filter_map(|listener| listener.strip_prefix("udp://"));
    let address = listening
        .filter_map(|address| address.parse::<SocketAddr>().ok())
        .map(|mut address| {
            match address {
                _ if !address.ip().is_unspecified() => {}
                SocketAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                SocketAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            }
            address
        })
        .next()
        .ok_or_else(|| Failure::message(Exit::NotFound, "the local node listens on no UDP port"))?;
    let url = format!("https://{}@{address}", Uid::from_bytes(status.uid));
    url.parse().map_err(|error| Failure::message(Exit::Failed, error))
}
