//! What a folder should hold, and how it is known to be that.

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files;
use crate::message::Millis;
use crate::ops::exit::Advise as _;
use crate::server::sqlite::copy::Contents;

/// Written last: a folder without it is not finished.
pub const FILE: &str = "manifest.json";

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Relative to the folder.
    pub name: String,
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// What every manifest begins with.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    /// The `aula` that wrote it.
    #[serde(default)]
    aula: String,
}

/// A kind of manifest.
pub trait Manifest: Serialize + DeserializeOwned {
    const FORMAT: &'static str;
    /// Raised when an older reader would misread it.
    const VERSION: u32;
    /// The command that makes such folders.
    const COMMAND: &'static str;

    fn files(&self) -> impl Iterator<Item = &Listed>;
}

/// Of `aula export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// `embedded` or `distributed`: where it comes from. It can go to either.
    pub deployment: String,
    pub began_at: Millis,
    pub ended_at: Millis,
    /// Not all channels, but those that were asked for.
    pub is_selection: bool,
    pub accounts: u64,
    pub channels: u64,
    pub entries: u64,
    pub files: Vec<Part>,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    #[serde(flatten)]
    pub listed: Listed,
    pub accounts: u64,
    pub channels: u64,
    pub entries: u64,
}

impl Manifest for Exported {
    const FORMAT: &'static str = "aula-export";
    const VERSION: u32 = 1;
    const COMMAND: &'static str = "aula export";

    fn files(&self) -> impl Iterator<Item = &Listed> {
        self.files.iter().map(|part| &part.listed)
    }
}

/// Of `aula backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Everything that was persisted before this is in it.
    pub taken_at: Millis,
    #[serde(flatten)]
    pub contents: Contents,
    pub files: Vec<Listed>,
}

impl Manifest for BackedUp {
    const FORMAT: &'static str = "aula-backup";
    const VERSION: u32 = 1;
    const COMMAND: &'static str = "aula backup";

    fn files(&self) -> impl Iterator<Item = &Listed> {
        self.files.iter()
    }
}

#[derive(Serialize)]
struct Document<'m, M> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    manifest: &'m M,
}

/// Writes the manifest, synced: with it the folder is finished.
pub fn write<M: Manifest>(folder: &Path, manifest: &M) -> io::Result<()> {
    let aula = env!("CARGO_PKG_VERSION").to_owned();
    let head = Head { format: M::FORMAT.to_owned(), version: M::VERSION, aula };
    let mut text = serde_json::to_vec_pretty(&Document { head, manifest })?;
    text.push(b'\n');
    files::write_whole(&folder.join(FILE), &text, 0o644)
}

/// The folder's manifest, and its SHA-256. None of the files has been looked at.
///
/// Errors: there is none, it is another kind's, or a later version's.
pub fn read<M: Manifest>(folder: &Path) -> anyhow::Result<(M, String)> {
    let path = folder.join(FILE);
    let shown = path.display();
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(anyhow::anyhow!("there is no {shown}"))
                .hint(format!("it is written last: `{}` was not finished, or this is another folder", M::COMMAND));
        }
        text => text.with_context(|| format!("can't read {shown}"))?,
    };
    let head: Head = serde_json::from_slice(&text).with_context(|| format!("{shown} is not a manifest"))?;
    if head.format != M::FORMAT {
        return Err(anyhow::anyhow!("{shown} is of another kind: {}", head.format))
            .hint(format!("a folder that `{}` has made is expected", M::COMMAND));
    }
    if head.version > M::VERSION {
        return Err(anyhow::anyhow!(
            "{shown} is of version {}, and this binary knows up to {}",
            head.version,
            M::VERSION
        ))
        .hint(format!("use the aula that wrote it, {}, or a later one", head.aula));
    }
    let manifest: M = serde_json::from_slice(&text).with_context(|| format!("{shown} is not a manifest"))?;
    // A name leads to a file of this folder, and nowhere else.
    if let Some(bad) = manifest.files().find(|listed| !files::is_inside(&listed.name)) {
        anyhow::bail!("{shown} names a file outside the folder: {}", bad.name);
    }
    Ok((manifest, files::digest(&text)))
}
