//! Section `[api]`: where a running node answers besides its Unix socket.

use super::keys::{Allowed, Configuration, Key, parse_socket_address};
use super::value::Value;
use std::net::{Ipv4Addr, SocketAddr};

/// The API of a running node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// Where it answers over TCP to whoever has the token; nowhere if absent.
    pub listen: Option<SocketAddr>,
}

pub(super) const API_KEYS: &[Key] = &[Key {
    section: "api",
    name: "listen",
    meaning: "Where the API answers over TCP besides its Unix socket, to whoever has the token in api/token of the data directory; without TLS.",
    allowed: Allowed::Words("a port of loopback such as 8645, ADDRESS:PORT in quotes, or \"\" for nowhere"),
    set: |c: &mut Configuration, value| {
        c.api.listen = match value {
            Value::Integer(_) => Some(loopback(value.integer(0, u16::MAX.into())?)),
            value => value.text(|text| match (text, text.parse::<u16>()) {
                ("", _) => Ok(None),
                (_, Ok(port)) => Ok(Some(loopback(port.into()))),
                (text, _) => parse_socket_address(text).map(Some),
            })?,
        };
        Ok(())
    },
    show: |c| Value::Text(c.api.listen.map(|address| address.to_string()).unwrap_or_default()),
}];

fn loopback(port: u64) -> SocketAddr {
    // The range that is read lies within a port's.
    SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap_or(0)))
}
