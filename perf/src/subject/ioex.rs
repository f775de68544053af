//! ioex: a data directory with the content published into it, and `ioex-engine` serving it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use identity::token::{self, Action, Claims, Scope};
use identity::{SecretKey, Uid, certificate};
use rcgen::PublicKeyData;
use relay::policy::{FromEngine, Policy, Status, ToEngine};
use store::list::ListBuilder;
use store::{FileBackend, Hash, SEGMENT_LEN_DEFAULT, Store};

use super::caddy::free_port;
use super::{Server, Setting};
use crate::client::Protocol;
use crate::content::SERVER_NAME;
use crate::policy_socket;
use crate::process::Process;

/// A node's data directory and the keys that perf plays the operator and the publisher with.
pub struct Node {
    folder: PathBuf,
    uid: Uid,
    publisher: SecretKey,
}

impl Node {
    /// Makes a data directory `folder` as `ioex up` would, with the certificate that all subjects share.
    pub fn create(folder: &Path, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        Self::create_as(&SecretKey::from_seed([7; 32]), folder, certificate, key)
    }

    /// The same for a node with an identity of its own.
    pub fn create_as(
        node_key: &SecretKey,
        folder: &Path,
        certificate: &Path,
        key: &Path,
    ) -> anyhow::Result<Self> {
        let publisher = SecretKey::from_seed([8; 32]);
        for sub_folder in ["identity", "tls", "run", "engine", "store"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(sub_folder))?;
        }
        let uid = node_key.uid();
        fs::write(folder.join("identity/uid.pub"), format!("{uid}\n"))?;
        fs::copy(certificate, folder.join("tls/cert.pem"))?;
        let key_file = folder.join("tls/key.pem");
        fs::copy(key, &key_file)?;
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
        Ok(Self { folder: folder.to_owned(), uid, publisher })
    }

    /// The same with a certificate of its own that is bound to the node's UID, as `ioex up` makes it: URLs that pin the UID name it.
    pub fn create_bound(node_key: &SecretKey, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let tls_key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        let value = certificate::extension_value(node_key, &tls_key.subject_public_key_info());
        params
            .custom_extensions
            .push(rcgen::CustomExtension::from_oid_content(certificate::EXTENSION_OID, value));
        let (certificate, key_file) = (folder.join("made-cert.pem"), folder.join("made-key.pem"));
        fs::write(&certificate, params.self_signed(&tls_key)?.pem())?;
        fs::write(&key_file, tls_key.serialize_pem())?;
        Self::create_as(node_key, folder, &certificate, &key_file)
    }

    /// Publishes `file` into the store, before the engine opens it, and gives the address of its list.
    pub fn publish(&self, file: &Path) -> anyhow::Result<Hash> {
        let folder = self.folder.join("store");
        let (store, _) = Store::open(&folder, store::Options::default(), Arc::new(FileBackend::default()))?;
        let input = store::import::Input::File(fs::File::open(file)?);
        let imported = store::import::import(&store, input, SEGMENT_LEN_DEFAULT, 0, &mut |_| ())?;
        let list = ListBuilder {
            name: "perf".to_owned(),
            version: (1, 0, 0),
            counter: 1,
            expires_s: now_s()? + 24 * 3600,
            target: String::new(),
            file_hash: Some(imported.file_hash),
            ..ListBuilder::plain(imported.segments)
        };
        let document = Bytes::from(list.sign(&self.publisher)?);
        let hash = Hash::of(&document);
        store.append(vec![(hash, document)])?;
        Ok(hash)
    }

    /// Where its store is.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Starts `engine` on this directory. `driver` is `auto`, `uring` or `epoll`.
    pub fn start(
        &self,
        setting: &Setting,
        engine: &Path,
        driver: &str,
        list: Option<Hash>,
    ) -> anyhow::Result<Server> {
        let policy =
            Policy { generation: 1, publishers: vec![*self.publisher.uid().as_bytes()], ..Policy::default() };
        self.start_with(setting, engine, driver, list, &[], policy)
    }

    /// The same with further `arguments` and another policy.
    pub fn start_with(
        &self,
        setting: &Setting,
        engine: &Path,
        driver: &str,
        list: Option<Hash>,
        arguments: &[String],
        policy: Policy,
    ) -> anyhow::Result<Server> {
        let (process, address) = self.launch(setting, engine, driver, arguments, policy)?;
        let status = self.status()?;
        let path = list.map_or_else(|| "/healthz".to_owned(), |list| format!("/list/{list}"));
        let version = format!("{} ({})", status.version, status.driver);
        Ok(Server { process, address, protocol: Protocol::Http3, path, version })
    }

    /// Starts `engine` with further `arguments` and gives it `policy`.
    pub fn launch(
        &self,
        setting: &Setting,
        engine: &Path,
        driver: &str,
        arguments: &[String],
        policy: Policy,
    ) -> anyhow::Result<(Process, SocketAddr)> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(engine);
        command
            .arg("--data")
            .arg(&self.folder)
            .args(["--listen", &address.to_string(), "--cores", &setting.core.to_string()])
            .args(["--driver", driver, "--json"])
            .args(arguments);
        let name = self.folder.file_name().and_then(|n| n.to_str()).unwrap_or("node").to_owned();
        let mut process = Process::start(command, setting.core, &setting.log(&name))?;
        process.read_line().context("ioex-engine says that it is ready")?;
        match policy_socket::ask(&self.socket(), &ToEngine::SetPolicy(policy))? {
            FromEngine::PolicyApplied { .. } => {}
            FromEngine::Rejected { reason } => bail!("ioex-engine refused the policy: {reason}"),
            other => bail!("ioex-engine answered a policy with {other:?}"),
        }
        Ok((process, address))
    }

    /// How the engine is, with its counters.
    pub fn status(&self) -> anyhow::Result<Status> {
        match policy_socket::ask(&self.socket(), &ToEngine::Status)? {
            FromEngine::Status(status) => Ok(status),
            other => bail!("ioex-engine answered a status request with {other:?}"),
        }
    }

    /// One of its counters or gauges by its Prometheus name, its labels added up.
    pub fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let counters = self.status()?.counters;
        let is_named = |full: &str| full.split('{').next() == Some(name);
        Ok(counters.iter().filter(|(full, _)| is_named(full)).map(|(_, value)| value).sum())
    }

    /// Value of an `authorization` header that allows PUT of any content for an hour.
    pub fn authorization(&self) -> anyhow::Result<String> {
        let now_s = now_s()?;
        let claims = Claims {
            issuer: self.publisher.uid(),
            subject: self.publisher.uid(),
            audience: self.uid,
            not_before_s: now_s - 60,
            expires_s: now_s + 3600,
            token_id: [1; 16],
            action: Action::Put,
            scope: Scope::Any,
            bytes_max: None,
            lease_expires_s: None,
        };
        Ok(format!("Bearer {}", token::to_text(&claims.sign(&self.publisher))))
    }

    /// The engine's policy socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/engine.sock")
    }
}

/// Builds `ioex-engine` of this workspace in release and gives its path.
pub fn build_engine() -> anyhow::Result<PathBuf> {
    build("engine", "ioex-engine").context("building ioex-engine; --engine PATH names one that is built")
}

/// Builds `ioex` of this workspace in release and gives its path.
pub fn build_command() -> anyhow::Result<PathBuf> {
    build("control-plane", "ioex").context("building ioex; --ioex PATH names one that is built")
}

fn build(package: &str, program: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", package, "--bin", program])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    ensure!(built.success(), "{program} does not build");
    let path = std::env::current_exe()?.with_file_name(program);
    ensure!(path.exists(), "there is no {}", path.display());
    Ok(path)
}

fn now_s() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
