//! `ioex up`: identity and certificate, then an engine that is kept running until a signal ends it.

use super::configuration;
use crate::api::EngineLink;
use crate::bootstrap::Bootstrap;
use crate::certificate::{self, Outcome};
use crate::chain::place::ChainDirectory;
use crate::chain::service;
use crate::cli::Up;
use crate::configuration::{Engine, Loaded};
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::Failure;
use crate::node_identity::NodeIdentity;
use crate::peer_service;
use crate::policy_link::{PolicyRequests, policy_link};
use crate::quantity::{show_bytes, show_seconds};
use crate::reachable;
use crate::service_manager;
use crate::services::{self, Services};
use crate::supervisor::{DRAIN_GRACE, Running, Supervisor, describe};
use peer::friends::Friends;
use rustix::process::Signal;
use serde_json::json;
use std::fmt::Write;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::oneshot;

pub fn run(arguments: &Up) -> Result<ExitCode, Failure> {
    let loaded = configuration(&arguments.sources())?;
    let directory = DataDirectory::prepare(&loaded.configuration.node.data)?;
    let (identity, is_new) = NodeIdentity::load_or_create(&directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let supervisor = Supervisor::lock(directory.clone(), identity.uid())?;
    let console = Console { json: arguments.json };
    if is_new {
        console.note(&format!("made a new identity: {}", directory.identity_key().display()));
    }
    let chain = &loaded.configuration.chain;
    if chain.is_on() && (chain.follow || chain.explorer.is_some()) {
        service::start(chain.clone(), ChainDirectory::of(&directory), identity.uid(), console)?;
    }
    let bootstrap = Bootstrap::new(&loaded.configuration, &directory, identity.uid());
    let peer = peer_service::start(&loaded.configuration, &directory, &identity, &bootstrap)?;
    let (policy, policy_requests) = policy_link(loaded.configuration.policy.clone());
    let services = services::start(
        &loaded.configuration,
        &directory,
        &identity,
        peer.clone(),
        bootstrap,
        EngineLink { history: supervisor.history(), policy },
        console,
    )?;
    let node = Node {
        console,
        arguments,
        directory,
        identity,
        supervisor,
        loaded,
        services,
        policy_requests,
        peer: peer.clone(),
    };
    runtime.block_on(async {
        let outcome = node.live().await;
        leave(peer).await;
        outcome
    })
}

/// A node that is up, or on its way.
struct Node<'a> {
    console: Console,
    arguments: &'a Up,
    directory: DataDirectory,
    identity: NodeIdentity,
    supervisor: Supervisor,
    loaded: Loaded,
    /// Its friends, if it is to have any.
    peer: Option<Friends>,
    services: Services,
    /// Changes of the policy that the API was asked for.
    policy_requests: PolicyRequests,
}

/// What ends or changes the quiet life of a node.
enum Event {
    EngineEnded(Option<ExitStatus>),
    End,
    Reload,
    /// The policy's date is to be looked at.
    Renewal,
    /// The policy has changed; whoever changed it waits.
    PolicyChanged(oneshot::Sender<Result<u64, String>>),
}

impl Node<'_> {
    async fn live(mut self) -> Result<ExitCode, Failure> {
        let mut signals = Signals::listen()?;
        let certificate = self.ensure_certificate()?;
        // A node whose first start fails has a wrong address, no rights or no space: a person must see that,
        // and a restart would fail the same way.
        let starting = self.supervisor.adopt_or_start(&self.loaded.configuration);
        let mut running = tokio::select! {
            running = starting => running?,
            () = signals.end() => return Ok(ExitCode::SUCCESS),
        };
        self.report(&running, &certificate)?;
        let listeners = running.status.listeners.join(" ");
        service_manager::ready(&format!("serves on {listeners}, engine process {}", running.process.pid()));
        loop {
            let event = tokio::select! {
                status = running.process.ended() => Event::EngineEnded(status),
                asked = signals.next() => asked,
                () = tokio::time::sleep(Supervisor::renewal_look(&self.loaded.configuration)) => Event::Renewal,
                answer = self.policy_requests.next() => Event::PolicyChanged(answer),
            };
            match event {
                Event::PolicyChanged(answer) => {
                    let outcome = self.supervisor.set_policy(&self.loaded.configuration);
                    let outcome = outcome.map(|status| status.policy_generation);
                    // Whoever asked may have gone.
                    let _ = answer.send(outcome.map_err(|error| error.to_string()));
                }
                Event::Renewal => self.supervisor.renew_policy(&self.loaded.configuration),
                Event::Reload => {
                    service_manager::reloading();
                    self.reload(&running)?;
                    service_manager::reloaded();
                }
                Event::End => return self.drain(running, &mut signals).await,
                Event::EngineEnded(Some(status)) if status.success() => {
                    self.event("drained", "the engine was drained by another process; leaving", json!({}))?;
                    return Ok(ExitCode::SUCCESS);
                }
                Event::EngineEnded(status) => match self.restart(&running, status, &mut signals).await? {
                    Some(restarted) => running = restarted,
                    None => return Ok(ExitCode::SUCCESS),
                },
            }
        }
    }

    /// Starts engines until one lives; `None` if a signal ended that.
    async fn restart(
        &mut self,
        dead: &Running,
        status: Option<ExitStatus>,
        signals: &mut Signals,
    ) -> Result<Option<Running>, Failure> {
        let how = describe(status);
        let mut lived = dead.since.elapsed();
        let text = format!("the engine (process {}) died: {how}; starting it again", dead.process.pid());
        self.event("engine_died", &text, json!({ "pid": dead.process.pid(), "status": how }))?;
        loop {
            let attempt = async {
                self.supervisor.back_off(lived).await;
                // Another program may have started an engine meanwhile; two would fight for the store.
                self.supervisor.adopt_or_start(&self.loaded.configuration).await
            };
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = signals.end() => return Ok(None),
            };
            match outcome {
                Ok(running) => {
                    self.supervisor.history().note_restart();
                    let pid = running.process.pid();
                    self.event(
                        "engine_started",
                        &format!("the engine runs again (process {pid})"),
                        json!({ "pid": pid }),
                    )?;
                    return Ok(Some(running));
                }
                Err(error) => {
                    let text = format!("the engine does not start: {error}");
                    self.event("engine_failed", &text, json!({ "reason": error.to_string() }))?;
                    lived = Duration::ZERO;
                }
            }
        }
    }

    async fn drain(&self, mut running: Running, signals: &mut Signals) -> Result<ExitCode, Failure> {
        let configuration = &self.loaded.configuration;
        let limit_s = f64::from(configuration.limits.drain_timeout_ms) / 1000.0;
        let text = format!("draining for at most {}; once more to end at once", show_seconds(limit_s));
        self.event("draining", &text, json!({ "drain_timeout_s": limit_s }))?;
        service_manager::stopping(Duration::from_secs_f64(limit_s) + DRAIN_GRACE);
        leave(self.peer.clone()).await;
        let by_itself = self.supervisor.drain(&mut running.process, configuration, signals.end()).await;
        let text = if by_itself { "drained" } else { "the engine was killed before it had drained" };
        self.event("stopped", text, json!({ "drained": by_itself }))?;
        Ok(ExitCode::SUCCESS)
    }

    /// A configuration that has become wrong changes nothing, and the node runs on.
    fn reload(&mut self, running: &Running) -> Result<(), Failure> {
        let loaded = match configuration(&self.arguments.sources()) {
            Ok(loaded) => loaded,
            Err(failure) => {
                let text = format!("not reloaded, the configuration in force stays: {failure}");
                return self.event("reload_failed", &text, json!({ "reason": failure.to_string() }));
            }
        };
        let needs_restart = differs(&self.loaded.configuration.engine, &loaded.configuration.engine)
            || self.loaded.configuration.relay.needs_restart(&loaded.configuration.relay)
            || self.loaded.configuration.dht != loaded.configuration.dht
            || self.loaded.configuration.api != loaded.configuration.api
            || self.loaded.configuration.chain != loaded.configuration.chain
            || self.loaded.configuration.peer != loaded.configuration.peer
            || self.loaded.configuration.node.data != loaded.configuration.node.data;
        self.loaded = loaded;
        self.policy_requests.set_settings(&self.loaded.configuration.policy);
        let outcome = self.ensure_certificate().and_then(|certificate| {
            let status = self.supervisor.set_policy(&self.loaded.configuration)?;
            running.process.signal(Signal::HUP);
            Ok((certificate, status))
        });
        match outcome {
            Ok((certificate, status)) => {
                let generation = status.policy_generation;
                let mut text =
                    format!("reloaded: policy generation {generation}, certificate {}", word(&certificate));
                if needs_restart {
                    text.push_str("; changes of [engine], [peer], [dht], [api], [chain], node.data and where the relay listens wait for the next start");
                }
                let facts = json!({ "policy_generation": generation, "certificate": word(&certificate),
                                    "needs_restart": needs_restart });
                self.event("reloaded", &text, facts)
            }
            Err(failure) => {
                let text = format!("reload failed: {failure}");
                self.event("reload_failed", &text, json!({ "reason": failure.to_string() }))
            }
        }
    }

    fn ensure_certificate(&self) -> Result<Outcome, Failure> {
        let configuration = &self.loaded.configuration;
        let names = reachable::certificate_names(&configuration.node, &configuration.engine.listen);
        Ok(certificate::ensure(&self.directory, &self.identity.key, &names, SystemTime::now())?)
    }

    /// Says what listens where, and what to hand to others.
    fn report(&self, running: &Running, certificate: &Outcome) -> Result<(), Failure> {
        let status = &running.status;
        let uid = self.identity.uid();
        let urls = reachable::urls(uid, &self.loaded.configuration.node, &status.listeners);
        let adopted = running.process.is_adopted();
        if self.console.json {
            self.console.json(&json!({
                "event": "ready",
                "uid": uid.to_string(),
                "address": self.identity.address().to_string(),
                "role": self.loaded.configuration.node.role.map(|role| role.to_string()),
                "data": self.directory.root(),
                "configuration": self.loaded.file,
                "certificate": word(certificate),
                "engine": { "pid": running.process.pid(), "version": status.version, "driver": status.driver,
                            "adopted": adopted },
                "policy_generation": status.policy_generation,
                "store": { "bytes": status.store_bytes, "segments": status.store_segments },
                "listeners": status.listeners,
                "urls": urls,
                "mailbox": self.loaded.configuration.peer.mailbox.to_string(),
                "relay": reachable::turn_uris(&self.loaded.configuration.node, &status.relay),
                "dht": self.services.dht.map(|listens| listens.to_string()),
                "api": self.services.api.map(|listens| listens.to_string()),
            }))?;
            return Ok(());
        }
        let mut out = String::new();
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(out, "{name:12} {value}");
        };
        row("UID", &uid.to_string());
        if let Some(role) = self.loaded.configuration.node.role {
            row("role", &role.to_string());
        }
        row("data", &self.directory.root().display().to_string());
        if let Some(file) = &self.loaded.file {
            row("settings", &file.display().to_string());
        }
        row("certificate", &explain(certificate));
        let how = if adopted { "adopted" } else { "started" };
        let engine = format!(
            "{}, driver {}, process {} ({how})",
            status.version,
            status.driver,
            running.process.pid()
        );
        row("engine", &engine);
        row("store", &format!("{} in {} segments", show_bytes(status.store_bytes), status.store_segments));
        for (i, listener) in status.listeners.iter().enumerate() {
            row(if i == 0 { "listens" } else { "" }, listener);
        }
        let turn = reachable::turn_uris(&self.loaded.configuration.node, &status.relay);
        for (i, uri) in turn.iter().enumerate() {
            row(if i == 0 { "relays" } else { "" }, uri);
        }
        if self.peer.is_some() {
            row("mailbox", &self.loaded.configuration.peer.mailbox.to_string());
        }
        if let Some(listens) = self.services.dht {
            row("DHT", &format!("udp://{listens}"));
        }
        if let Some(listens) = self.services.api {
            let token = self.directory.api_token();
            row("API", &format!("http://{listens} with the token in {}", token.display()));
        }
        for (i, url) in urls.iter().enumerate() {
            row(if i == 0 { "give others" } else { "" }, url);
        }
        Ok(self.console.text(&out)?)
    }

    fn event(&self, name: &str, text: &str, mut facts: serde_json::Value) -> Result<(), Failure> {
        service_manager::status(text);
        if self.console.json {
            facts["event"] = json!(name);
            self.console.json(&facts)?;
        } else {
            self.console.note(text);
        }
        Ok(())
    }
}

/// Tells friends that this node goes.
async fn leave(peer: Option<Friends>) {
    if let Some(peer) = peer {
        peer.leave().await;
    }
}

/// Whether an engine that runs must be started again to follow the change.
fn differs(old: &Engine, new: &Engine) -> bool {
    (&old.listen, &old.cores, old.driver, old.storage, old.tcp, old.metrics)
        != (&new.listen, &new.cores, new.driver, new.storage, new.tcp, new.metrics)
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Kept => "kept",
        Outcome::Renewed { .. } => "renewed",
        Outcome::Foreign => "foreign",
    }
}

fn explain(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created => "made, bound to the UID".into(),
        Outcome::Kept => "bound to the UID".into(),
        Outcome::Renewed { reason } => format!("renewed, bound to the UID: {reason}"),
        Outcome::Foreign => {
            "another's, kept as it is; it does not prove the UID, so clients must trust its authority".into()
        }
    }
}

/// The signals that a node listens to.
struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hang_up: SignalStream,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::End,
            _ = self.terminate.recv() => Event::End,
            _ = self.hang_up.recv() => Event::Reload,
        }
    }

    /// The next signal that asks for the end.
    async fn end(&mut self) {
        while !matches!(self.next().await, Event::End) {}
    }
}
