//! The folder that a command fills or reads, and the data directory that it must have to itself.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::config::{Config, Deployment};
use crate::ops::exit::Advise as _;
use crate::ops::{Exit, migrate};
use crate::server::backends::Stored;
use crate::server::lock::ServerLock;
use crate::server::sqlite::holder;

/// A folder, for one command at a time. The kernel lets go of it however the process ends.
pub struct Held {
    _locked: File,
}

/// Makes the folder, for its owner alone, if it isn't there.
///
/// Errors: it can't be made; another command is at work in it.
pub fn hold(folder: &Path) -> anyhow::Result<Held> {
    let shown = folder.display();
    if !folder.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("can't make the folder {shown}"))?;
    }
    let file = File::open(folder).with_context(|| format!("can't open {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(Held { _locked: file }),
        Err(TryLockError::WouldBlock) => Err(anyhow::anyhow!("another command is at work on {shown}"))
            .hint("wait for its end, or use another folder"),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {shown}")),
    }
}

/// The names in a folder but for `ignored`, the first few of them. None if there is no folder.
pub fn contents(folder: &Path, ignored: impl Fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    const FEW: usize = 5;
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ignored(&name) {
            names.push(name);
        }
    }
    names.sort();
    names.truncate(FEW);
    Ok(names)
}

/// Keeps servers away from an embedded data directory.
///
/// Errors: a server or a worker is at work there.
pub fn keep_others_out(data_dir: &Path) -> anyhow::Result<ServerLock> {
    const HINT: &str = "stop it (SIGTERM, then wait for its end) and give the command again";
    let lock = ServerLock::take(data_dir).hint(HINT)?;
    match holder::living(data_dir).first() {
        None => Ok(lock),
        Some(name) => Err(anyhow::anyhow!("{name} is at work on {}", data_dir.display())).hint(HINT),
    }
}

/// The deployment's store, accounts and index.
pub async fn open(config: &Config) -> anyhow::Result<Stored> {
    let hint = match config.deployment() {
        Deployment::Embedded => "is this the server's data directory? see --data-dir and `aula config print`",
        Deployment::Distributed => "are these the deployment's servers? see `aula config print`",
    };
    migrate::with_hint_or(Stored::open(config).await, hint)
}

/// Refuses the distributed deployment.
pub fn only_embedded(config: &Config, command: &str) -> anyhow::Result<()> {
    match config.deployment() {
        Deployment::Embedded => Ok(()),
        Deployment::Distributed => Err(anyhow::anyhow!("`aula {command}` is for the embedded deployment"))
            .hint(
                "on servers use the databases' own tools, `nodetool snapshot` and Elasticsearch's snapshots: \
                 runbooks/backup.md has the order of the steps; `aula export` takes out channels as text",
            )
            .exit(Exit::Usage),
    }
}
