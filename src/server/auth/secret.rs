//! The keys that sign access tokens: a file that only the server's own user can read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::config::Config;

/// Where the keys are within the data directory, unless the configuration names another file.
const DEFAULT_FILE: &str = "secrets/signing-keys.json";
/// As long as the hash's output (RFC 7518 §3.2 asks for no less).
const KEY_BYTES: usize = 32;
/// No set of keys that a person keeps is larger.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why there are no signing keys.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{path}: others can read the signing keys (mode {mode:04o}): run `chmod 600 {path}`", path = path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{path}: not a file of signing keys: {reason}", path = path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{path}: there are no signing keys", path = path.display())]
    Missing { path: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the operating system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// The active key signs; any key of the set verifies. So a new key can be made active while tokens of the one
/// before are still good: add it to the file under a new name, name it `active`, restart. Where several servers share
/// the keys, each has to know the new one before one signs with it: restart all between the two steps.
pub struct SigningKeys {
    active: String,
    signing: EncodingKey,
    verifying: BTreeMap<String, DecodingKey>,
    fingerprints: BTreeMap<String, String>,
}

/// The file of signing keys of this configuration.
pub fn keys_file(config: &Config) -> PathBuf {
    let named = &config.auth.keys_file;
    if named.as_os_str().is_empty() { config.data_dir.join(DEFAULT_FILE) } else { named.clone() }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("active", &self.active).finish_non_exhaustive()
    }
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    /// The name (`kid`) of the key that signs.
    active: String,
    /// Name → 32 bytes in base64url without padding.
    keys: BTreeMap<String, String>,
}

impl SigningKeys {
    /// The keys in this file, generated if it isn't there. Of several processes that start at the same time, one
    /// generates them and the others read them. Only the last folder of the path is made.
    ///
    /// Errors: [`SecretError`]; nothing that is there is ever changed.
    pub fn open(path: &Path) -> Result<Self, SecretError> {
        if let Some(keys) = Self::load(path)? {
            return Ok(keys);
        }
        create(path)?;
        Self::existing(path)
    }

    /// As [`SigningKeys::open`], but none are made: [`SecretError::Missing`].
    pub fn existing(path: &Path) -> Result<Self, SecretError> {
        Self::load(path)?.ok_or_else(|| SecretError::Missing { path: path.to_owned() })
    }

    /// New keys, kept nowhere: for work that neither signs nor verifies, and for tests.
    pub fn ephemeral() -> Result<Self, SecretError> {
        let malformed = |reason| SecretError::Malformed { path: PathBuf::new(), reason };
        Self::parse(&generate()?).map_err(malformed)
    }

    /// The name of the key that signs, with its fingerprint.
    pub(super) fn active_fingerprint(&self) -> (&str, &str) {
        (&self.active, self.fingerprint(&self.active).unwrap_or_default())
    }

    /// By which a key can be compared without being told: SHA-256, in hexadecimal. The key has 256 random bits.
    pub(super) fn fingerprint(&self, name: &str) -> Option<&str> {
        self.fingerprints.get(name).map(String::as_str)
    }

    fn load(path: &Path) -> Result<Option<Self>, SecretError> {
        let at = |source| SecretError::Io { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(error)),
        };
        // Of the open file, not of the path: nobody can exchange it between the check and the reading.
        let mode = file.metadata().map_err(at)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::TooOpen { path: path.to_owned(), mode });
        }
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(at)?;
        let malformed = |reason| SecretError::Malformed { path: path.to_owned(), reason };
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(malformed(format!("it is longer than {MAX_FILE_BYTES} bytes")));
        }
        Self::parse(&content).map(Some).map_err(malformed)
    }

    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(content).map_err(|error| describe(&error))?;
        if stored.version != 1 {
            return Err(format!("its version is {}, this server knows version 1", stored.version));
        }
        let mut signing = None;
        let (mut verifying, mut fingerprints) = (BTreeMap::new(), BTreeMap::new());
        for (name, encoded) in stored.keys {
            let mut key = [0; KEY_BYTES];
            let decoded = URL_SAFE_NO_PAD.decode_slice(&encoded, &mut key);
            if decoded.ok() != Some(KEY_BYTES) {
                return Err(format!("the key {name:?} is not {KEY_BYTES} bytes in base64url without padding"));
            }
            if name == stored.active {
                signing = Some(EncodingKey::from_secret(&key));
            }
            fingerprints.insert(name.clone(), fingerprint(&key));
            verifying.insert(name, DecodingKey::from_secret(&key));
        }
        let signing = signing.ok_or_else(|| format!("it has no key {:?}, which is to be active", stored.active))?;
        Ok(Self { active: stored.active, signing, verifying, fingerprints })
    }

    pub(super) fn signing(&self) -> (&str, &EncodingKey) {
        (&self.active, &self.signing)
    }

    pub(super) fn verifying(&self, name: &str) -> Option<&DecodingKey> {
        self.verifying.get(name)
    }
}

fn fingerprint(key: &[u8; KEY_BYTES]) -> String {
    let hash = Sha256::new().chain_update("aula signing key\n").chain_update(key).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where and what kind, but no text of the file: it may hold a key.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io => "it can't be read",
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Data => "it has not the fields version, active and keys",
        serde_json::error::Category::Eof => "it ends too early",
    };
    format!("{what} (line {})", error.line())
}

fn generate() -> Result<Vec<u8>, SecretError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    // Named by chance, so that keys of two data directories can't be taken for each other.
    let name = Uuid::new_v4().simple().to_string()[..8].to_owned();
    let keys = BTreeMap::from([(name.clone(), URL_SAFE_NO_PAD.encode(key))]);
    let stored = Stored { version: 1, active: name, keys };
    // Texts and a number: writing them can't fail.
    Ok(serde_json::to_vec_pretty(&stored).unwrap_or_default())
}

/// Writes new keys aside, and gives them their name when they are whole and on disk. If another process was
/// faster, its keys stay.
fn create(path: &Path) -> Result<(), SecretError> {
    // A name alone is in the current folder.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder_error = |source| SecretError::Io { path: folder.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(folder_error(error)),
        _ => {}
    }
    let content = generate()?;
    let aside = folder.join(format!("signing-keys.{}.new", Uuid::new_v4().simple()));
    let written = write_new(&aside, &content).and_then(|()| match fs::hard_link(&aside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    });
    // Its content lives on under its name, or is of no use.
    let removed = fs::remove_file(&aside);
    written.and(removed).map_err(|source| SecretError::Io { path: path.to_owned(), source })?;
    sync_folder(folder).map_err(folder_error)?;
    // The folder's own name may be new as well.
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(above).map_err(folder_error)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
