//! The versioned steps, built into the binary: the files below `schema/` are their only source.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// One file, `VERSION_NAME.ext`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub version: u32,
    pub name: &'static str,
    pub text: &'static str,
}

/// What a step means to binaries that don't have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only adds: an older binary works on.
    Expand,
    /// Ends what an older binary relies on: it must not start any more.
    Contract,
}

/// Takes version and name from the file's name, so that they can't contradict it.
macro_rules! files {
    ($folder:literal, $ext:literal: $($version:literal $name:literal),* $(,)?) => {
        &[$($crate::server::migrate::File {
            version: $crate::server::migrate::files::number($version),
            name: $name,
            text: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/schema/", $folder, "/", $version, "_", $name, ".", $ext
            )),
        }),*]
    };
}
pub(crate) use files;

/// Cassandra's steps, in the order in which they are applied. A file that has been released is never edited: what it
/// should have said is the next file's business.
pub const CASSANDRA: &[File] = files!["cassandra", "cql": "0001" "messages", "0002" "accounts", "0003" "purges"];

/// Elasticsearch's: a template that replaces the one before it.
pub const ELASTICSEARCH: &[File] = files!["elasticsearch", "json": "0001" "messages"];

/// The line that makes a file of CQL a step of contraction.
const CONTRACT: &str = "-- kind: contract";

pub(crate) const fn number(digits: &str) -> u32 {
    let digits = digits.as_bytes();
    let (mut value, mut at) = (0, 0);
    while at < digits.len() {
        value = value * 10 + (digits[at] - b'0') as u32;
        at += 1;
    }
    value
}

impl File {
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub fn checksum(&self) -> String {
        hexadecimal(&Sha256::digest(self.text.as_bytes()))
    }

    /// By the comment at the head of the file.
    pub fn kind(&self) -> Kind {
        let mut head = self.text.lines().take_while(|line| line.starts_with("--"));
        if head.any(|line| line.trim_end() == CONTRACT) { Kind::Contract } else { Kind::Expand }
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }

    /// The name that a later binary may have written, too: what isn't known to be harmless isn't.
    pub(super) fn named(name: &str) -> Self {
        if name == Self::Expand.name() { Self::Expand } else { Self::Contract }
    }
}

/// That `files` are those of the folder below `schema/`, in order and without holes.
#[cfg(test)]
pub(crate) fn assert_complete(files: &[File], folder: &str, ext: &str) {
    let folder = format!("{}/schema/{folder}", env!("CARGO_MANIFEST_DIR"));
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<String> = names.filter(|name| name.ends_with(&format!(".{ext}"))).collect();
    there.sort();
    let built_in: Vec<String> = files.iter().map(|f| format!("{:04}_{}.{ext}", f.version, f.name)).collect();
    assert_eq!(there, built_in);
    let versions: Vec<u32> = files.iter().map(|file| file.version).collect();
    assert_eq!(versions, (1..).take(files.len()).collect::<Vec<u32>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_built_in() {
        assert_complete(CASSANDRA, "cassandra", "cql");
        assert_complete(ELASTICSEARCH, "elasticsearch", "json");
    }

    #[test]
    fn the_head_of_a_file_says_what_kind_it_is() {
        let kind = |text| File { version: 1, name: "x", text }.kind();
        assert_eq!(kind("CREATE TABLE IF NOT EXISTS x (y int PRIMARY KEY);"), Kind::Expand);
        assert_eq!(kind("-- Readers have moved.\n-- kind: contract\n\n"), Kind::Contract);
        assert_eq!(kind("-- Said below the head, it is only text.\n\n-- kind: contract\n"), Kind::Expand);
        assert_eq!(Kind::named("a kind to come"), Kind::Contract);
    }
}
