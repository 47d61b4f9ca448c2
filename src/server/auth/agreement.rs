//! All gateways of a deployment sign with keys that all of them know: checked before one serves.
//!
//! The deployment's database holds the name and the fingerprint of the key that signs, and where it was last seen. A
//! process whose file lacks that key is refused. One that signs with another, and knows it, puts its own in its place:
//! so a new key comes in two steps, each with a restart of all gateways one by one: first into all files, then as
//! `active` in all files. The old key leaves the files when the last token signed with it has expired.

use std::fs;
use std::path::Path;

use scylla::statement::prepared::PreparedStatement;
use serde::{Deserialize, Serialize};

use super::AccountsError;
use super::cassandra::statements::{Conditional, failure, malformed, serial_level};
use super::secret::SigningKeys;
use crate::server::cassandra::Cassandra;

/// The name of the row in `settings`.
const SETTING: &str = "signing_key";
/// Each refused write means that another process has recorded its key.
const ATTEMPTS: u32 = 10;

/// Why this process can't speak for the deployment.
#[derive(Debug, thiserror::Error)]
pub enum AgreementError {
    #[error(
        "{file} has not the key {key} that this deployment signs with: copy {from} here, readable by aula alone (mode 0600)"
    )]
    UnknownKey { file: String, key: String, from: String },
    #[error(
        "{file} has another key under the name {key} than this deployment signs with: copy {from} here, readable by aula alone (mode 0600)"
    )]
    OtherKey { file: String, key: String, from: String },
    #[error("nothing was ever signed in this deployment: start `aula serve` first")]
    NoKeyYet,
    #[error("can't compare the signing keys with those of the deployment")]
    Store(#[source] AccountsError),
}

/// What the setting holds, in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    /// The key that signs.
    key: String,
    fingerprint: String,
    /// Where it was last seen, for people.
    host: String,
    file: String,
}

/// Records the key that signs, if none or another one is recorded, after making sure that this process knows the one
/// that is. For gateways, before they serve.
pub async fn agree(cassandra: &Cassandra, keys: &SigningKeys, file: &Path) -> Result<(), AgreementError> {
    agree_on(cassandra, SETTING, keys, file).await
}

/// As [`agree`], but records nothing: for commands that sign or check tokens.
pub async fn check(cassandra: &Cassandra, keys: &SigningKeys, file: &Path) -> Result<(), AgreementError> {
    let settings = Settings::prepare(cassandra).await.map_err(AgreementError::Store)?;
    let found = settings.read(SETTING).await.map_err(AgreementError::Store)?;
    known(&found.ok_or(AgreementError::NoKeyYet)?.1, keys, file)
}

async fn agree_on(cassandra: &Cassandra, setting: &str, keys: &SigningKeys, file: &Path) -> Result<(), AgreementError> {
    let settings = Settings::prepare(cassandra).await.map_err(AgreementError::Store)?;
    let (key, fingerprint) = keys.active_fingerprint();
    let (key, fingerprint) = (key.to_owned(), fingerprint.to_owned());
    let mine = Recorded { key, fingerprint, host: host(), file: file.display().to_string() };
    let mut error = AccountsError::Overloaded;
    for _ in 0..ATTEMPTS {
        let found = settings.read(setting).await.map_err(AgreementError::Store)?;
        if let Some((_, recorded)) = &found {
            known(recorded, keys, file)?;
            if recorded.key == mine.key {
                return Ok(());
            }
        }
        let before = found.map(|(text, _)| text);
        match settings.write(setting, before.as_deref(), &mine).await.map_err(AgreementError::Store)? {
            // Read once more if the outcome is unknown, or somebody else was faster.
            Conditional::Applied => return Ok(()),
            Conditional::Refused => {}
            Conditional::Unknown(why) => error = why,
        }
    }
    Err(AgreementError::Store(error))
}

fn known(recorded: &Recorded, keys: &SigningKeys, file: &Path) -> Result<(), AgreementError> {
    let from = format!("{} from {}", recorded.file, recorded.host);
    let (file, key) = (file.display().to_string(), recorded.key.clone());
    match keys.fingerprint(&recorded.key) {
        Some(fingerprint) if fingerprint == recorded.fingerprint => Ok(()),
        Some(_) => Err(AgreementError::OtherKey { file, key, from }),
        None => Err(AgreementError::UnknownKey { file, key, from }),
    }
}

/// Only for the message that says where to copy a file from.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "a gateway's host".to_owned() } else { name.trim().to_owned() }
}

struct Settings<'a> {
    cassandra: &'a Cassandra,
    read: PreparedStatement,
    add: PreparedStatement,
    replace: PreparedStatement,
}

impl<'a> Settings<'a> {
    async fn prepare(cassandra: &'a Cassandra) -> Result<Self, AccountsError> {
        let prepare = async |text: &str| {
            cassandra.session.prepare(text).await.map_err(|error| AccountsError::Unavailable(Box::new(error)))
        };
        let mut read = prepare("SELECT value FROM settings WHERE name = ?").await?;
        read.set_is_idempotent(true);
        // Once a start: it also settles whether an earlier write happened.
        read.set_consistency(serial_level(&cassandra.session));
        let add = prepare("INSERT INTO settings (name, value) VALUES (?, ?) IF NOT EXISTS").await?;
        let replace = prepare("UPDATE settings SET value = ? WHERE name = ? IF value = ?").await?;
        Ok(Self { cassandra, read, add, replace })
    }

    /// The text as it is stored, and what it says.
    async fn read(&self, name: &str) -> Result<Option<(String, Recorded)>, AccountsError> {
        let result = self.cassandra.session.execute_unpaged(&self.read, (name,)).await.map_err(failure)?;
        let row = result.into_rows_result().map_err(malformed)?.maybe_first_row::<(String,)>().map_err(malformed)?;
        let Some((text,)) = row else { return Ok(None) };
        let recorded = serde_json::from_str(&text).map_err(malformed)?;
        Ok(Some((text, recorded)))
    }

    async fn write(&self, name: &str, before: Option<&str>, mine: &Recorded) -> Result<Conditional, AccountsError> {
        let text = serde_json::to_string(mine).map_err(malformed)?;
        let session = &self.cassandra.session;
        Conditional::from(match before {
            None => session.execute_unpaged(&self.add, (name, text)).await,
            Some(before) => session.execute_unpaged(&self.replace, (text, name, before)).await,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::cassandra::testing;

    const OLD: &str = r#""old":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#;
    const NEW: &str = r#""new":"BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#;

    fn keys(active: &str, keys: &[&str]) -> SigningKeys {
        let text = format!(r#"{{"version":1,"active":"{active}","keys":{{{}}}}}"#, keys.join(","));
        SigningKeys::parse(text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_gateway_with_keys_of_its_own_is_refused_and_told_what_to_copy() {
        let (cassandra, setting) = (testing::connect().await, testing::unique("keys"));
        let agree = async |keys: &SigningKeys, file: &str| agree_on(&cassandra, &setting, keys, Path::new(file)).await;
        agree(&keys("old", &[OLD]), "/a/keys.json").await.unwrap();
        agree(&keys("old", &[OLD, NEW]), "/b/keys.json").await.unwrap();
        let other = agree(&SigningKeys::ephemeral().unwrap(), "/c/keys.json").await.unwrap_err();
        let text = other.to_string();
        assert!(matches!(other, AgreementError::UnknownKey { .. }), "{text}");
        assert!(text.starts_with("/c/keys.json") && text.contains("copy /a/keys.json from "), "{text}");
        let same_name = agree(&keys("old", &[&NEW.replace("new", "old")]), "/d/keys.json").await.unwrap_err();
        assert!(matches!(same_name, AgreementError::OtherKey { .. }), "{same_name}");
    }

    #[tokio::test]
    async fn a_new_key_comes_in_two_steps() {
        let (cassandra, setting) = (testing::connect().await, testing::unique("keys"));
        let agree = async |keys: &SigningKeys| agree_on(&cassandra, &setting, keys, Path::new("keys.json")).await;
        agree(&keys("old", &[OLD])).await.unwrap();
        assert!(agree(&keys("new", &[NEW])).await.is_err(), "others can't verify what it would sign");
        for step in [keys("old", &[OLD, NEW]), keys("new", &[OLD, NEW]), keys("old", &[OLD, NEW])] {
            agree(&step).await.unwrap();
        }
        agree(&keys("new", &[OLD, NEW])).await.unwrap();
        agree(&keys("new", &[NEW])).await.unwrap();
        assert!(agree(&keys("old", &[OLD])).await.is_err(), "who has not followed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_who_start_together_with_other_keys_one_goes_on() {
        let setting = testing::unique("keys");
        let mut starts = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let setting = setting.clone();
            starts.spawn(async move {
                let (cassandra, keys) = (testing::connect().await, SigningKeys::ephemeral().unwrap());
                agree_on(&cassandra, &setting, &keys, Path::new("keys.json")).await.is_ok()
            });
        }
        assert_eq!(starts.join_all().await.into_iter().filter(|went_on| *went_on).count(), 1);
    }
}
