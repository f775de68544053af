//! Damage, as the index snapshot keeps it; and moving files aside.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Hash;
use crate::backend::{Backend, WriteOp};
use crate::error::{Damage, DamageKind};
use crate::index::QuarantinedMeta;

/// Every kind with the number that a snapshot keeps of it.
const KINDS: [DamageKind; 8] = [
    DamageKind::Missing,
    DamageKind::Truncated,
    DamageKind::PackHeader,
    DamageKind::CommitHeader,
    DamageKind::RecordHeader,
    DamageKind::Payload,
    DamageKind::Index,
    DamageKind::Unreadable,
];

pub(crate) fn to_meta(damage: &Damage) -> QuarantinedMeta {
    QuarantinedMeta {
        path: damage.path.to_string_lossy().into_owned(),
        offset: damage.offset,
        len: damage.len,
        kind: KINDS.iter().position(|kind| *kind == damage.kind).unwrap_or(KINDS.len()) as u8,
        hash: damage.hash.map(|hash| hash.0),
    }
}

pub(crate) fn from_meta(meta: &QuarantinedMeta) -> Damage {
    Damage {
        path: PathBuf::from(&meta.path),
        offset: meta.offset,
        len: meta.len,
        kind: KINDS.get(usize::from(meta.kind)).copied().unwrap_or(DamageKind::Unreadable),
        hash: meta.hash.map(Hash),
    }
}

/// Where files are moved that cannot be used. Nothing in there is ever deleted or read.
pub(crate) fn quarantine_dir(store_dir: &Path) -> PathBuf {
    store_dir.join("quarantine")
}

/// Moves a file to the quarantine directory, under a name that is free there, and returns where it is now.
pub(crate) fn move_aside(backend: &dyn Backend, store_dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let dir = quarantine_dir(store_dir);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut to = dir.join(&name);
    for n in 1u32.. {
        if !to.exists() {
            break;
        }
        to = dir.join(format!("{name}.{n}"));
    }
    backend.run(&WriteOp::Rename { from: Arc::from(path), to: Arc::from(to.as_path()) })?;
    backend.run(&WriteOp::SyncDir { path: dir })?;
    if let Some(parent) = path.parent() {
        backend.run(&WriteOp::SyncDir { path: parent.to_owned() })?;
    }
    Ok(to)
}
