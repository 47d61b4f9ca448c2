//! `aula user`: who may use the server.

use anyhow::bail;
use serde::Serialize;

use super::accounts::{Keys, PasswordSource, with_accounts, with_new_accounts};
use super::{Context, Exit};
use crate::message::{Millis, Username};
use crate::server::auth::{Auth, Change, Creation, UserQuery};

/// Add, list and disable users, and change passwords
#[derive(Debug, clap::Args)]
#[command(after_help = "A running server follows within a second: it closes the sockets of a user who is disabled or \
    whose password changes.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add a user; asks for the password unless told where it comes from
    Add {
        name: Username,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List users in the order of their names
    List {
        /// Only names that begin with this
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        /// Only names after this one: the last of the list before
        #[arg(long, value_name = "NAME")]
        after: Option<Username>,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
    /// End all sessions of a user and let them in no more; what they wrote stays
    Disable { name: Username },
    /// Let a disabled user log in again
    Enable { name: Username },
    /// Change a user's password and end all their sessions
    Passwd {
        name: Username,
        #[command(flatten)]
        password: PasswordSource,
    },
}

#[derive(Serialize)]
struct Row {
    username: Username,
    created_at: Millis,
    disabled_at: Option<Millis>,
}

/// What was done to whom.
#[derive(Serialize)]
struct Done<'a> {
    username: &'a Username,
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.command {
            Command::Add { name, password } => add(context, &name, &password),
            Command::List { prefix, after, limit } => list(context, prefix, after, limit),
            Command::Disable { name } => change(context, &name, "disabled", async |auth| {
                Ok(auth.accounts().disable(&name, Millis::now()).await?)
            }),
            Command::Enable { name } => {
                change(context, &name, "enabled", async |auth| Ok(auth.accounts().enable(&name).await?))
            }
            Command::Passwd { name, password } => passwd(context, &name, &password),
        }
    }
}

fn add(context: &Context, name: &Username, source: &PasswordSource) -> anyhow::Result<Exit> {
    let new = source.read()?;
    let created = with_new_accounts(context, async |auth| {
        let hash = auth.hash_new_password(new.password).await?;
        Ok(auth.accounts().create_user(name, &hash, Millis::now()).await?)
    })?;
    if created == Creation::Taken {
        bail!("there is a user {name} already");
    }
    report(context, name, "added", new.generated)
}

fn passwd(context: &Context, name: &Username, source: &PasswordSource) -> anyhow::Result<Exit> {
    let new = source.read()?;
    let changed = with_accounts(context, Keys::Unneeded, async |auth| {
        let hash = auth.hash_new_password(new.password).await?;
        Ok(auth.accounts().set_password(name, &hash, Millis::now()).await?)
    })?;
    known(name, changed)?;
    report(context, name, "password changed", new.generated)
}

fn change(
    context: &Context,
    name: &Username,
    done: &'static str,
    work: impl AsyncFnOnce(Auth) -> anyhow::Result<Change>,
) -> anyhow::Result<Exit> {
    known(name, with_accounts(context, Keys::Unneeded, work)?)?;
    report(context, name, done, None)
}

pub(super) fn known(name: &Username, change: Change) -> anyhow::Result<()> {
    if change == Change::UnknownUser {
        bail!("there is no user {name}");
    }
    Ok(())
}

fn report(
    context: &Context,
    username: &Username,
    done: &'static str,
    password: Option<String>,
) -> anyhow::Result<Exit> {
    let report = Done { username, done, password };
    context.output.value(&report, || match &report.password {
        Some(password) => format!("{username}: {done}\npassword: {password}"),
        None => format!("{username}: {done}"),
    })?;
    Ok(Exit::Done)
}

fn list(context: &Context, prefix: String, after: Option<Username>, limit: u32) -> anyhow::Result<Exit> {
    // One more than asked for tells whether there are more.
    let query = UserQuery { prefix, after, limit: limit.saturating_add(1), with_disabled: true };
    let mut users =
        with_accounts(context, Keys::Unneeded, async |auth| Ok(auth.accounts().list_users(&query).await?))?;
    let more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let rows: Vec<_> = users
        .into_iter()
        .map(|user| Row { username: user.username, created_at: user.created_at, disabled_at: user.disabled_at })
        .collect();
    context.output.rows(&rows, ["USERNAME", "CREATED", "DISABLED"], |row| {
        let disabled = row.disabled_at.map_or(String::new(), |at| at.to_string());
        [row.username.to_string(), row.created_at.to_string(), disabled]
    })?;
    if let (true, Some(last)) = (more, rows.last()) {
        context.output.note(format_args!("there are more: --after {}", last.username));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::super::tests::aula;
    use super::*;

    #[test]
    fn a_user_from_added_to_disabled() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let json = |words: &[&str]| -> serde_json::Value {
            let words = [&["--output", "json"], words].concat();
            serde_json::from_str(&aula(&data, &words).unwrap().1).unwrap()
        };
        let added = json(&["user", "add", "ada", "--generate"]);
        assert_eq!((&added["username"], &added["done"]), (&"ada".into(), &"added".into()));
        let first = added["password"].as_str().unwrap().to_owned();
        json(&["user", "add", "bob", "--generate"]);

        assert_eq!(aula(&data, &["user", "disable", "bob"]).unwrap(), (Exit::Done, "bob: disabled\n".to_owned()));
        let (_, table) = aula(&data, &["user", "list"]).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("USERNAME  CREATED"), "{table}");
        assert_eq!(lines[1].split_whitespace().count(), 2, "{table}");
        assert_eq!(lines[2].split_whitespace().count(), 3, "{table}");
        assert_eq!(json(&["user", "list", "--prefix", "b"]).as_array().unwrap().len(), 1);
        assert_eq!(json(&["user", "list", "--limit", "1"])[0]["username"], "ada");
        assert_eq!(json(&["user", "list", "--after", "ada"])[0]["username"], "bob");
        aula(&data, &["user", "enable", "bob"]).unwrap();
        assert!(json(&["user", "list"])[1]["disabled_at"].is_null());

        let changed = json(&["user", "passwd", "ada", "--generate"]);
        assert_ne!(changed["password"].as_str().unwrap(), first);
    }

    #[test]
    fn what_can_not_be_done_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = |words: &[&str]| aula(folder.path(), words).unwrap_err().to_string();
        aula(folder.path(), &["user", "add", "ada", "--generate"]).unwrap();
        assert_eq!(error(&["user", "add", "ada", "--generate"]), "there is a user ada already");
        for command in ["disable", "enable"] {
            assert_eq!(error(&["user", command, "bob"]), "there is no user bob");
        }
        assert_eq!(error(&["user", "passwd", "bob", "--generate"]), "there is no user bob");
        assert!(error(&["user", "add", "No", "--generate"]).contains("a username is"));
        assert!(error(&["user", "add", "bob", "--generate", "--password-stdin"]).contains("cannot be used with"));
    }
}
