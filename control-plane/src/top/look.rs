//! One look at a running node: the engine's counters, and what its `ioex up` says of the DHT and of friends.

use crate::api::client::{ApiError, call};
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use http::{Method, StatusCode};
use relay::policy::Status;
use serde_json::Value;
use std::time::Instant;

/// What was seen at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    pub at: Instant,
    /// The engine, with its counters.
    pub engine: Status,
    /// The node's part of the DHT, as `GET /v1/dht` answers; none if it has none, or why it is not known.
    pub dht: Result<Option<Value>, String>,
    /// The node's friends, as `GET /v1/friends` answers; the same.
    pub friends: Result<Option<Value>, String>,
}

/// Looks at the node of this directory. Without an engine there is nothing to see; one whose `ioex up` has died is seen without
/// DHT and friends.
///
/// # Errors
/// The engine does not run, or does not answer.
pub fn look(directory: &DataDirectory) -> Result<Look, EngineSocketError> {
    let engine = EngineSocket::connect(&directory.engine_socket())?.status()?;
    let ask = |target| match call(directory, Method::GET, target, None) {
        Ok(answer) => Ok(Some(answer)),
        Err(ApiError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    let (dht, friends) = (ask("/v1/dht"), ask("/v1/friends"));
    Ok(Look { at: Instant::now(), engine, dht, friends })
}
