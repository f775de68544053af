//! How the API has the supervisor put a change of the policy in force.

use crate::configuration::PolicySettings;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait: each is a frame to the engine and a sync of the disk, and whoever asked waits for it.
const REQUESTS_MAX: usize = 16;

/// What comes of a change: the policy's generation, or why it is not in force.
type Answer = oneshot::Sender<Result<u64, String>>;

/// The API's end. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct PolicyLink {
    requests: mpsc::Sender<Answer>,
    settings: Arc<Mutex<PolicySettings>>,
}

/// The supervisor's end.
#[derive(Debug)]
pub struct PolicyRequests {
    requests: mpsc::Receiver<Answer>,
    settings: Arc<Mutex<PolicySettings>>,
}

/// Both ends, with what the configuration says.
#[must_use]
pub fn policy_link(settings: PolicySettings) -> (PolicyLink, PolicyRequests) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    let settings = Arc::new(Mutex::new(settings));
    (
        PolicyLink { requests: sender, settings: Arc::clone(&settings) },
        PolicyRequests { requests: receiver, settings },
    )
}

impl PolicyLink {
    /// Has the engine be told the policy as it stands now; gives its generation.
    ///
    /// # Errors
    /// Why it is not in force.
    pub async fn put_in_force(&self) -> Result<u64, String> {
        let (answer, outcome) = oneshot::channel();
        let ends = || String::from("the node ends");
        self.requests.send(answer).await.map_err(|_| ends())?;
        outcome.await.map_err(|_| ends())?
    }

    /// What the configuration in force says.
    #[must_use]
    pub fn settings(&self) -> PolicySettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PolicyRequests {
    /// The next change. Never, if nobody can ask any more.
    pub async fn next(&mut self) -> Answer {
        match self.requests.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// The configuration has been read again.
    pub fn set_settings(&self, settings: &PolicySettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings.clone();
    }
}
