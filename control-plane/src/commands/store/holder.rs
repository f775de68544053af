//! Whom a command about the store asks: the engine where one runs, else the store itself.

use super::stopped::StoppedStore;
use crate::configuration::Configuration;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use crate::exit::{Exit, Failure};
use relay::policy::{StoreDone, StoreRequest, StoreSegment, StoreStat};
use std::fs::{File, TryLockError};
use std::io;

pub enum Holder {
    Engine(EngineSocket),
    Stopped(Box<StoppedStore>),
}

impl Holder {
    /// The engine of this node, or its store, which is locked then: a node that starts meanwhile says who has it.
    pub fn of(configuration: &Configuration, console: Console) -> Result<Holder, Failure> {
        let directory = DataDirectory::existing(&configuration.node.data);
        match EngineSocket::connect(&directory.engine_socket()) {
            Ok(engine) => Ok(Holder::Engine(engine)),
            Err(error @ EngineSocketError::NotRunning { .. }) => {
                if !directory.store().is_dir() {
                    return Err(Failure::new(Exit::NotFound, error));
                }
                // Between two lives of its engine the store is not to be had either: the next one is about to open it.
                if is_supervised(&directory) {
                    let what = "`ioex up` runs and is about to start its engine; try again in a moment";
                    return Err(Failure::message(Exit::Failed, what));
                }
                let stopped = StoppedStore::open(&directory, &configuration.limits)?;
                console.note("the node is not running: its store is read directly");
                Ok(Holder::Stopped(Box::new(stopped)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Figures.
    pub fn stat(&mut self) -> Result<StoreStat, Failure> {
        match self {
            Holder::Engine(engine) => Ok(engine.store_stat()?),
            Holder::Stopped(stopped) => stopped.stat(),
        }
    }

    /// What is held, a page at a time.
    pub fn list(&mut self, page: &mut dyn FnMut(Vec<StoreSegment>) -> io::Result<()>) -> Result<(), Failure> {
        match self {
            Holder::Engine(engine) => Ok(engine.store_list(page)?),
            Holder::Stopped(stopped) => stopped.list(page),
        }
    }

    /// Removes, collects, verifies or compacts; `progress` hears how many bytes are done, and of how many.
    pub fn act(
        &mut self,
        request: StoreRequest,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoreDone, Failure> {
        match self {
            Holder::Engine(engine) => Ok(engine.store_do(request, progress)?),
            Holder::Stopped(stopped) => stopped.act(&request, progress),
        }
    }
}

/// Whether an `ioex up` runs for this directory.
fn is_supervised(directory: &DataDirectory) -> bool {
    let lock = File::open(directory.supervisor_lock());
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
