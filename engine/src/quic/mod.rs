//! QUIC on quiche, with an endpoint of our own: which connection a datagram belongs to, who may open one, when each must
//! be woken, and whose packets leave next.
//!
//! It knows nothing of sockets or threads: [`Endpoint::handle`] takes datagrams in, [`Endpoint::poll_transmit`] gives GSO
//! batches out, [`Endpoint::next_timeout`] and [`Endpoint::expire`] are its clock. What is asked on a connection is
//! [`crate::http`]'s business.

mod accept;
mod buf;
mod connection;
mod dial;
mod endpoint;
mod header;
mod paths;
mod rate;
mod receive;
mod reset;
mod retry;
mod serve;
mod tickets;
mod tls;
mod transport;

pub use buf::{Outstanding, QuicConnection, Shared, Slice};
pub use endpoint::{Endpoint, EndpointOptions, Foreign};
pub use rate::RateLimit;
pub use retry::RetryTokens;
pub(crate) use tickets::Seal;
pub use tickets::{TICKET_LIFETIME_S, TicketKeys};
pub use tls::{Tls, TlsError};
pub use transport::{ConfigError, DATAGRAM_LEN_MAX, Transport};
