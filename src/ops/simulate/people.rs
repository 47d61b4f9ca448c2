//! The accounts of a run's people: made for it, or given.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::future::ready;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::interrupt::Interrupt;
use super::plan::Account;
use crate::config::Config;
use crate::message::{Millis, Username};
use crate::ops::Context;
use crate::ops::accounts::{Keys, with_accounts, with_new_embedded_accounts};
use crate::ops::exit::{Advise as _, Exit};
use crate::server::auth::password::Password;
use crate::server::auth::{Auth, Creation};

/// Accounts that are written at the same time: one transaction has them all.
const AT_ONCE: usize = 1000;
/// No file of tokens is larger: a million of them.
const MAX_TOKENS_BYTES: u64 = 512 << 20;

/// The names of a run's people.
pub fn names(prefix: &str, clients: u32) -> anyhow::Result<Vec<Username>> {
    let name = |number| Username::new(&format!("{prefix}-{number}"));
    let names: Result<Vec<_>, _> = (0..clients).map(name).collect();
    names.hint("choose another --user-prefix, of at most 24 characters").exit(Exit::Usage)
}

/// The accounts that were made, and why there are no more if some are missing.
pub struct Made {
    pub accounts: Vec<Account>,
    pub fault: Option<anyhow::Error>,
}

impl Made {
    /// Errors: not all that were wanted could be made.
    pub fn all(self) -> anyhow::Result<Vec<Account>> {
        self.fault.map_or(Ok(self.accounts), Err)
    }
}

/// Makes accounts in the data directory of a server that does not run yet. None of them has a password: nobody knows
/// the one that all were given, which costs one hash instead of thousands.
pub fn make(config: &Config, names: &[Username], ttl: Duration, interrupt: &Interrupt) -> anyhow::Result<Made> {
    with_new_embedded_accounts(config, async |auth| make_in(&auth, names, ttl, interrupt).await)
}

/// As [`make`], for a deployment that may be running: where its accounts are kept, not over its network.
pub fn make_beside(
    context: &Context,
    names: &[Username],
    ttl: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Made> {
    let made = with_accounts(context, Keys::Needed, async |auth| make_in(&auth, names, ttl, interrupt).await);
    made.hint("or give the clients' access tokens with --tokens")
}

/// Nobody logs in as these any more.
pub fn disable(context: &Context, names: &[Username]) -> anyhow::Result<()> {
    with_accounts(context, Keys::Unneeded, async |auth| {
        let disable = async |name: &Username| auth.accounts().disable(name, Millis::now()).await.map(drop);
        Ok(stream::iter(names).map(disable).buffered(AT_ONCE).try_collect().await?)
    })
}

async fn make_in(auth: &Auth, names: &[Username], ttl: Duration, interrupt: &Interrupt) -> anyhow::Result<Made> {
    let mut secret = [0; 24];
    getrandom::fill(&mut secret)?;
    let hash = auth.hash_new_password(Password::new(URL_SAFE_NO_PAD.encode(secret))).await?;
    let hash = &hash;
    let make = async |name: &Username| {
        if auth.accounts().create_user(name, hash, Millis::now()).await? == Creation::Taken {
            bail!("there is a user {name} already: choose another --user-prefix");
        }
        let (token, _) = auth.mint(name, ttl).await?;
        Ok(Account { name: name.to_string(), token })
    };
    let mut accounts = Vec::with_capacity(names.len());
    let mut fault = None;
    // What was begun is waited for, so that it is known which accounts there are.
    let has_failed = Cell::new(false);
    let wanted = stream::iter(names).take_while(|_| ready(!has_failed.get() && interrupt.count() == 0));
    let mut made = std::pin::pin!(wanted.map(make).buffered(AT_ONCE));
    while let Some(account) = made.next().await {
        match account {
            Ok(account) => accounts.push(account),
            Err(error) => {
                has_failed.set(true);
                fault = fault.or(Some(error));
            }
        }
    }
    if interrupt.count() > 0 {
        fault = fault.or_else(|| Some(anyhow::anyhow!("interrupted while accounts were made")));
    }
    Ok(Made { accounts, fault })
}

/// The accounts whose access tokens are in this file, one a line.
///
/// Errors: what is no token, or one more of the same person, with its line.
pub fn given(path: &Path) -> anyhow::Result<Vec<Account>> {
    let context = || format!("can't read the tokens in {}", path.display());
    if fs::metadata(path).with_context(context)?.len() > MAX_TOKENS_BYTES {
        bail!("{} is larger than {MAX_TOKENS_BYTES} bytes", path.display());
    }
    let text = fs::read_to_string(path).with_context(context)?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let (texts, numbers): (Vec<_>, Vec<usize>) = lines.unzip();
    let accounts: anyhow::Result<Vec<_>> = texts
        .iter()
        .zip(&numbers)
        .map(|(line, number)| {
            let token = line.trim();
            let name = subject(token).with_context(|| format!("{}:{number} is no access token", path.display()));
            Ok(Account {
                name: name.hint("a line each, as `aula token mint NAME` prints them")?,
                token: token.to_owned(),
            })
        })
        .collect();
    let accounts = accounts.exit(Exit::Usage)?;
    let mut lines: HashMap<&str, usize> = HashMap::new();
    for (line, account) in numbers.iter().zip(&accounts) {
        if let Some(first) = lines.insert(&account.name, *line) {
            let (file, name) = (path.display(), &account.name);
            return Err(anyhow::anyhow!("{file}:{line} is a token of {name}, as line {first} is"))
                .hint("each client is a person of its own")
                .exit(Exit::Usage);
        }
    }
    if accounts.len() < 2 {
        return Err(anyhow::anyhow!("{} has fewer than two tokens", path.display())).exit(Exit::Usage);
    }
    Ok(accounts)
}

/// Whose a token is, as it says itself (RFC 7519 §4.1.2); whether that is true is the server's to check.
fn subject(token: &str) -> anyhow::Result<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: Username,
    }
    let claims = token.split('.').nth(1).context("it has no dots")?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    Ok(claims.sub.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn thousands_are_made_in_moments_and_their_tokens_say_who_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides { data_dir: Some(folder.path().join("data")), ..Overrides::default() };
        let config = Config::load(None, std::iter::empty(), &overrides).unwrap();
        let names = names("sim-x", 2500).unwrap();
        let interrupt = Interrupt::never();
        let made = make(&config, &names, Duration::from_secs(60), &interrupt).unwrap();
        let accounts = made.all().unwrap();
        assert_eq!(accounts.len(), 2500);
        let file = folder.path().join("tokens");
        let lines: Vec<_> = accounts.iter().map(|account| account.token.as_str()).collect();
        fs::write(&file, lines.join("\n")).unwrap();
        let given: Vec<_> = given(&file).unwrap().into_iter().map(|account| account.name).collect();
        assert_eq!(given[2499], "sim-x-2499");
        let again = make(&config, &names[..1], Duration::from_secs(60), &interrupt).unwrap();
        assert!(again.all().unwrap_err().to_string().contains("already"));
        // Who wishes to end gets no more of them.
        interrupt.wish();
        let names = super::names("sim-y", 2500).unwrap();
        let made = make(&config, &names, Duration::from_secs(60), &interrupt).unwrap();
        assert_eq!(made.accounts.len(), 0);
        assert!(made.all().unwrap_err().to_string().contains("interrupted"));
    }

    #[test]
    fn what_is_no_token_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        fs::write(&file, "\nhello\n").unwrap();
        assert!(given(&file).unwrap_err().to_string().contains("tokens:2 is no access token"));
        assert!(names(&"x".repeat(33), 1).is_err());
    }
}
