//! Where a node is and, if the user says so, who it must be: `https://[UID@]HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use identity::Uid;

/// The port an ioex node listens on unless it is told otherwise (UDP for HTTP/3, TCP for the rest).
pub const PORT_DEFAULT: u16 = 4433;

/// The address of a node, written `https://[UID@]HOST:PORT`.
///
/// `UID` (base58) pins the node's identity: the connection is refused unless the node's certificate is bound
/// to it. `HOST` is a name, an IPv4 address or an IPv6 address in brackets. `Display` gives back what was
/// parsed, with names in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NodeUrl {
    uid: Option<Uid>,
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Host {
    Name(String),
    V4(std::net::Ipv4Addr),
    V6(std::net::Ipv6Addr),
}

/// Why a text is not a node URL; each says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeUrlError {
    /// The scheme is missing or not `https`.
    #[error(
        "{text:?} is not a node URL: it must start with https://, as in https://node.example:{PORT_DEFAULT}"
    )]
    Scheme {
        /// What was given.
        text: String,
    },
    /// The text before `@` is not a UID.
    #[error(
        "{user:?} before the @ is not a node's UID ({reason}); copy the UID that `ioex up` prints, \
         or leave it and the @ out to trust a CA instead"
    )]
    Uid {
        /// The text before `@`.
        user: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No host.
    #[error("{text:?} names no host; write https://HOST:{PORT_DEFAULT}")]
    NoHost {
        /// What was given.
        text: String,
    },
    /// The host holds a character that no host name has, or is an IPv6 address without brackets.
    #[error(
        "{host:?} is not a host name or address; an IPv6 address goes in brackets, as in \
         https://[::1]:{PORT_DEFAULT}"
    )]
    Host {
        /// The text in the host's place.
        host: String,
    },
    /// No port.
    #[error(
        "{text:?} has no port; ioex nodes listen on {PORT_DEFAULT} unless told otherwise: write \
         {text}:{PORT_DEFAULT}"
    )]
    NoPort {
        /// What was given, without a trailing slash.
        text: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("{port:?} is not a port; it must be a number from 1 to 65535")]
    Port {
        /// The text in the port's place.
        port: String,
    },
    /// A path, query or fragment follows the port.
    #[error(
        "{rest:?} after the port does not belong in a node URL; end it after the port and give the \
         content's hash apart"
    )]
    Path {
        /// What follows the port.
        rest: String,
    },
}

impl NodeUrl {
    /// The identity the node must prove, if the URL pins one.
    pub fn uid(&self) -> Option<&Uid> {
        self.uid.as_ref()
    }

    /// The same URL with the node's identity pinned.
    pub fn with_uid(mut self, uid: Uid) -> NodeUrl {
        self.uid = Some(uid);
        self
    }

    /// The host without brackets, as name resolution and TLS want it.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::V4(address) => address.to_string(),
            Host::V6(address) => address.to_string(),
        }
    }

    /// The host's address, if it was given as one and needs no name resolution.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        match &self.host {
            Host::Name(_) => None,
            Host::V4(address) => Some((*address).into()),
            Host::V6(address) => Some((*address).into()),
        }
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT` with brackets where they belong: the `:authority` of requests (RFC 9114 section 4.3.1).
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Name(name) => format!("{name}:{}", self.port),
            Host::V4(address) => format!("{address}:{}", self.port),
            Host::V6(address) => format!("[{address}]:{}", self.port),
        }
    }
}

impl FromStr for NodeUrl {
    type Err = NodeUrlError;

    fn from_str(text: &str) -> Result<NodeUrl, NodeUrlError> {
        let after_scheme = text
            .get(..8)
            .filter(|scheme| scheme.eq_ignore_ascii_case("https://"))
            .map(|_| &text[8..])
            .ok_or_else(|| NodeUrlError::Scheme { text: text.to_owned() })?;
        let (authority, rest) = match after_scheme.find(['/', '?', '#']) {
            Some(at) => after_scheme.split_at(at),
            None => (after_scheme, ""),
        };
        if !matches!(rest, "" | "/") {
            return Err(NodeUrlError::Path { rest: rest.to_owned() });
        }
        let (uid, place) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, place)) => {
                let uid = user.parse().map_err(|e: <Uid as FromStr>::Err| NodeUrlError::Uid {
                    user: user.to_owned(),
                    reason: e.to_string(),
                })?;
                (Some(uid), place)
            }
        };
        let (host, port) = split_port(text, place)?;
        Ok(NodeUrl { uid, host: parse_host(text, host)?, port })
    }
}

/// Splits `HOST:PORT`; the brackets of an IPv6 address stay with the host.
fn split_port<'a>(text: &str, place: &'a str) -> Result<(&'a str, u16), NodeUrlError> {
    let no_port = || NodeUrlError::NoPort { text: text.trim_end_matches('/').to_owned() };
    let (host, port) = match place.rfind(']') {
        Some(end) => {
            let port = place[end + 1..].strip_prefix(':').ok_or_else(no_port)?;
            (&place[..=end], port)
        }
        None => match place.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Err(NodeUrlError::Host { host: place.to_owned() });
            }
            Some(parts) => parts,
            None if place.is_empty() => return Err(NodeUrlError::NoHost { text: text.to_owned() }),
            None => return Err(no_port()),
        },
    };
    // `u16::from_str` alone would take a leading plus sign.
    let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten();
    match number {
        Some(number) if number > 0 => Ok((host, number)),
        _ => Err(NodeUrlError::Port { port: port.to_owned() }),
    }
}

fn parse_host(text: &str, host: &str) -> Result<Host, NodeUrlError> {
    let wrong = || NodeUrlError::Host { host: host.to_owned() };
    if host.is_empty() {
        return Err(NodeUrlError::NoHost { text: text.to_owned() });
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(wrong)?;
        return inner.parse().map(Host::V6).map_err(|_| wrong());
    }
    if let Ok(address) = host.parse() {
        return Ok(Host::V4(address));
    }
    let is_name = host.len() <= 253
        && host.split('.').filter(|label| !label.is_empty()).count() > 0
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if !is_name {
        return Err(wrong());
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("https://")?;
        if let Some(uid) = &self.uid {
            write!(f, "{uid}@")?;
        }
        f.write_str(&self.authority())
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeUrl({self})")
    }
}
