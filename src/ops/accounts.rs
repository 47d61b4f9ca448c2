//! The accounts of a deployment, for the commands that work on them: beside running servers or without one.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::exit::Advise as _;
use super::{Context, Exit, migrate};
use crate::config::{Config, Deployment};
use crate::server::auth::cassandra::CassandraAccounts;
use crate::server::auth::password::{MAX_PASSWORD_BYTES, Password};
use crate::server::auth::secret::{SecretError, SigningKeys, keys_file};
use crate::server::auth::sqlite::SqliteAccounts;
use crate::server::auth::{Accounts, Auth, AuthOptions, agreement};
use crate::server::cassandra::Cassandra;
use crate::server::sqlite::migrate::{Mode, ensure};
use crate::server::sqlite::{Database, Options};

/// Whether the work signs or checks tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    Needed,
    Unneeded,
}

/// Runs `work` on the accounts of the deployment in force, which must be there: a misspelt data directory is not made.
pub(super) fn with_accounts<T>(
    context: &Context,
    keys: Keys,
    work: impl AsyncFnOnce(Auth) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let config = context.config()?;
    if config.deployment() == Deployment::Distributed {
        return on_cassandra(&config, keys, work);
    }
    let path = migrate::database(&config);
    if !path.exists() {
        return Err(anyhow::anyhow!("there is no database at {}", path.display()))
            .hint("name the server's data directory with --data-dir; `aula user add` makes a new one");
    }
    migrate::with_hint(ensure(&path, Mode::Verify))?;
    on_sqlite(&config, &path, work)
}

/// As [`with_accounts`] without keys, but a data directory that isn't there yet is made, so that users can be added before
/// the first start. In a distributed deployment `aula migrate` makes what is needed.
pub(super) fn with_new_accounts<T>(
    context: &Context,
    work: impl AsyncFnOnce(Auth) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let config = context.config()?;
    if config.deployment() == Deployment::Distributed {
        return on_cassandra(&config, Keys::Unneeded, work);
    }
    with_new_embedded_accounts(&config, work)
}

/// As [`with_new_accounts`], in the data directory of a configuration that is embedded.
pub(super) fn with_new_embedded_accounts<T>(
    config: &Config,
    work: impl AsyncFnOnce(Auth) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let path = migrate::database(config);
    migrate::with_hint(ensure(&path, Mode::ApplyPending))?;
    on_sqlite(config, &path, work)
}

fn on_sqlite<T>(config: &Config, path: &Path, work: impl AsyncFnOnce(Auth) -> anyhow::Result<T>) -> anyhow::Result<T> {
    // One command reads little: one reader.
    let options = Options { readers: 1, ..Options::default() };
    let database = Database::open(path, &options).with_context(|| format!("can't open {}", path.display()))?;
    let keys = SigningKeys::open(&keys_file(config))?;
    runtime()?.block_on(work(auth(config, Arc::new(SqliteAccounts::new(database)), keys)))
}

fn on_cassandra<T>(
    config: &Config,
    keys: Keys,
    work: impl AsyncFnOnce(Auth) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        let cassandra = Cassandra::connect(&config.cassandra, true)
            .await
            .hint("`aula migrate` makes the keyspace; `aula config print` shows which servers are asked")?;
        let accounts = CassandraAccounts::open(&cassandra)
            .await
            .with_context(|| format!("the keyspace {} can't serve accounts", cassandra.keyspace))
            .hint("run `aula migrate`, and `aula migrate status` to see what is missing")?;
        let keys = match keys {
            Keys::Needed => shared_keys(config, &cassandra).await?,
            // No file is made: the gateways would have to have the same.
            Keys::Unneeded => SigningKeys::ephemeral()?,
        };
        work(auth(config, Arc::new(accounts), keys)).await
    })
}

/// The keys that the gateways sign with.
async fn shared_keys(config: &Config, cassandra: &Cassandra) -> anyhow::Result<SigningKeys> {
    let path = keys_file(config);
    let keys = match SigningKeys::existing(&path) {
        Err(error @ SecretError::Missing { .. }) => {
            return Err(error).hint("copy the file from a gateway's host, and name it in auth.keys_file");
        }
        found => found?,
    };
    agreement::check(cassandra, &keys, &path).await?;
    Ok(keys)
}

fn auth(config: &Config, accounts: Arc<dyn Accounts>, keys: SigningKeys) -> Auth {
    // Nobody signs up by way of an operator's command.
    Auth::new(accounts, keys, AuthOptions::configured(&config.auth, false))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Where a new password comes from.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct PasswordSource {
    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Make a password up and print it
    #[arg(long)]
    generate: bool,
}

/// A password for somebody.
pub(super) struct NewPassword {
    pub password: Password,
    /// To be printed, because nobody has seen it yet.
    pub generated: Option<String>,
}

impl PasswordSource {
    /// The password: asked for twice on the terminal unless the arguments say otherwise.
    pub(super) fn read(&self) -> anyhow::Result<NewPassword> {
        if self.generate {
            let mut bytes = [0; 18];
            getrandom::fill(&mut bytes)?;
            let text = URL_SAFE_NO_PAD.encode(bytes);
            return Ok(NewPassword { password: Password::new(text.clone()), generated: Some(text) });
        }
        let text = if self.password_stdin {
            first_line(&mut io::stdin().lock())?
        } else if io::stdin().is_terminal() {
            ask_twice()?
        } else {
            let nowhere = anyhow::anyhow!("there is no terminal to ask for the password");
            return Err(nowhere).hint("use --password-stdin or --generate").exit(Exit::Usage);
        };
        Ok(NewPassword { password: Password::new(text), generated: None })
    }
}

fn ask_twice() -> anyhow::Result<String> {
    let first = rpassword::prompt_password("Password: ")?;
    let second = rpassword::prompt_password("The same again: ")?;
    if first != second {
        bail!("the two are not the same");
    }
    Ok(first)
}

/// The first line without its end. Longer than any password: cut off where it is certainly too long.
pub(super) fn first_line(input: &mut dyn BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    let limit = 8 * MAX_PASSWORD_BYTES as u64;
    io::Read::take(input, limit).read_line(&mut line).context("can't read stdin")?;
    let text = line.strip_suffix('\n').unwrap_or(&line);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::aula;
    use super::*;
    use crate::server::cassandra::testing;

    #[test]
    fn users_and_tokens_of_a_distributed_deployment() {
        let cassandra = testing::configured();
        let gateway = || async { testing::connect().await };
        let _keyspace = runtime().unwrap().block_on(gateway());
        let folder = tempfile::tempdir().unwrap();
        let (file, keys) = (folder.path().join("aula.yaml"), folder.path().join("keys.json"));
        let text = format!(
            "store: {{backend: cassandra}}\nqueue: {{backend: rabbitmq}}\nsearch: {{backend: elasticsearch}}\n\
             cassandra: {{contact_points: [\"{}\"], keyspace: {}}}\nauth: {{keys_file: {}}}\n",
            cassandra.contact_points[0],
            cassandra.keyspace,
            keys.display()
        );
        std::fs::write(&file, text).unwrap();
        let data = folder.path().join("data");
        let file = file.display().to_string();
        let run = |words: &[&str]| aula(&data, &[words, &["--config", &file]].concat());
        let name = testing::unique("ada");

        run(&["user", "add", &name, "--generate"]).unwrap();
        assert!(run(&["user", "add", &name, "--generate"]).unwrap_err().to_string().contains("already"));
        assert!(run(&["user", "list", "--prefix", &name]).unwrap().1.contains(&name));
        assert!(!data.exists() && !keys.exists(), "no file is made for it");

        let refused = run(&["token", "mint", &name]).unwrap_err();
        assert!(format!("{refused:#}").contains("no signing keys"), "{refused:#}");
        let made = SigningKeys::open(&keys).unwrap();
        let refused = run(&["token", "mint", &name]).unwrap_err();
        assert!(format!("{refused:#}").contains("aula serve"), "{refused:#}");
        let agreed = async { agreement::agree(&gateway().await, &made, &keys).await };
        runtime().unwrap().block_on(agreed).unwrap();

        let (_, token) = run(&["token", "mint", &name]).unwrap();
        assert_eq!(run(&["token", "check", token.trim()]).unwrap().0, Exit::Done);
        run(&["user", "disable", &name]).unwrap();
        assert_eq!(run(&["token", "check", token.trim()]).unwrap().0, Exit::Failed);

        // Keys that no gateway has.
        std::fs::remove_file(&keys).unwrap();
        SigningKeys::open(&keys).unwrap();
        let refused = run(&["token", "check", token.trim()]).unwrap_err();
        assert!(format!("{refused:#}").contains("copy "), "{refused:#}");
    }

    #[test]
    fn a_line_ends_where_it_ends() {
        for (input, line) in [("a b \n", "a b "), ("a\r\nb", "a"), ("a", "a"), ("", ""), ("\n\n", "")] {
            assert_eq!(first_line(&mut input.as_bytes()).unwrap(), line, "{input:?}");
        }
        assert!(first_line(&mut [0xff, b'\n'].as_slice()).is_err());
        assert_eq!(first_line(&mut "x".repeat(100_000).as_bytes()).unwrap().len(), 8192);
    }

    #[test]
    fn made_up_passwords_are_long_and_different() {
        let source = PasswordSource { password_stdin: false, generate: true };
        let [a, b] = [source.read().unwrap(), source.read().unwrap()].map(|new| new.generated.unwrap());
        assert!(a.len() == 24 && a != b, "{a} {b}");
    }
}
