//! `aula token`: access tokens, made, explained and taken back by the operator.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::accounts::{Keys, first_line, with_accounts};
use super::user::known;
use super::{Context, Exit, arguments};
use crate::message::{Millis, Username};
use crate::server::auth::{AuthError, Identity, Refusal};

/// Mint, check and revoke access tokens
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a new access token of a user; it needs no password and can't be refreshed
    Mint {
        user: Username,
        /// How long it is good
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = arguments::duration)]
        ttl: Duration,
    },
    /// Say whose an access token is and whether it is good, or why not; exits 1 if it is refused
    Check {
        /// The token; `-` reads it from stdin, where other users of this machine don't see it
        token: String,
    },
    /// Take back one access token, or all sessions of a user; a running server closes their sockets
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Revoke {
        /// The token; `-` reads it from stdin
        #[arg(group = "what")]
        token: Option<String>,
        /// End all sessions of this user instead
        #[arg(long, value_name = "NAME", group = "what")]
        user: Option<Username>,
    },
}

#[derive(Serialize)]
struct Minted {
    token: String,
    #[serde(flatten)]
    claims: Claims,
}

#[derive(Serialize)]
struct Claims {
    username: Username,
    token_id: Uuid,
    session: Uuid,
    expires_at: Millis,
}

#[derive(Serialize)]
struct Checked {
    good: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
    #[serde(flatten)]
    claims: Option<Claims>,
}

#[derive(Serialize)]
struct Revoked {
    username: Username,
    /// Absent when all sessions were ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<Uuid>,
}

impl From<Identity> for Claims {
    fn from(identity: Identity) -> Self {
        let Identity { username, session_id, token_id, expires_at } = identity;
        Self { username, token_id, session: session_id, expires_at }
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.command {
            Command::Mint { user, ttl } => mint(context, &user, ttl),
            Command::Check { token } => check(context, &given(token)?),
            Command::Revoke { token: Some(token), .. } => revoke(context, &given(token)?),
            Command::Revoke { user: Some(user), .. } => revoke_all(context, user),
            // clap asks for one of the two.
            Command::Revoke { .. } => Ok(Exit::Usage),
        }
    }
}

fn given(token: String) -> anyhow::Result<String> {
    if token == "-" { first_line(&mut std::io::stdin().lock()) } else { Ok(token) }
}

fn mint(context: &Context, user: &Username, ttl: Duration) -> anyhow::Result<Exit> {
    let minted = with_accounts(context, Keys::Needed, async |auth| match auth.mint(user, ttl).await {
        Err(AuthError::Refused(Refusal::UnknownUser)) => anyhow::bail!("there is no user {user}"),
        Err(AuthError::Refused(Refusal::UserDisabled)) => anyhow::bail!("the user {user} is disabled"),
        outcome => Ok(outcome?),
    });
    let (token, identity) = minted?;
    let minted = Minted { token, claims: identity.into() };
    context.output.value(&minted, || minted.token.clone())?;
    Ok(Exit::Done)
}

fn check(context: &Context, token: &str) -> anyhow::Result<Exit> {
    let (identity, refusal) =
        with_accounts(context, Keys::Needed, async |auth| Ok(auth.examine(token.trim()).await?))?;
    let checked = Checked {
        good: refusal.is_none(),
        reason: refusal.as_ref().map(Refusal::as_str),
        explanation: refusal.as_ref().map(Refusal::to_string),
        claims: identity.map(Claims::from),
    };
    context.output.value(&checked, || {
        let verdict = checked.explanation.as_ref().map_or("good".to_owned(), |why| format!("refused: {why}"));
        match &checked.claims {
            None => verdict,
            Some(Claims { username, token_id, session, expires_at }) => format!(
                "{verdict}\nusername: {username}\nexpires:  {expires_at}\nsession:  {session}\ntoken:    {token_id}"
            ),
        }
    })?;
    Ok(if checked.good { Exit::Done } else { Exit::Failed })
}

fn revoke(context: &Context, token: &str) -> anyhow::Result<Exit> {
    let identity = with_accounts(context, Keys::Needed, async |auth| Ok(auth.revoke(token.trim()).await?))?;
    let revoked = Revoked { username: identity.username, token_id: Some(identity.token_id) };
    context.output.value(&revoked, || format!("{}: token {} revoked", revoked.username, identity.token_id))?;
    Ok(Exit::Done)
}

fn revoke_all(context: &Context, user: Username) -> anyhow::Result<Exit> {
    let change = with_accounts(context, Keys::Unneeded, async |auth| {
        Ok(auth.accounts().end_sessions(&user, Millis::now()).await?)
    })?;
    known(&user, change)?;
    let revoked = Revoked { username: user, token_id: None };
    context.output.value(&revoked, || format!("{}: all sessions ended", revoked.username))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::super::tests::aula;
    use super::*;

    /// A data directory with the user ada.
    fn with_ada() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        aula(folder.path(), &["user", "add", "ada", "--generate"]).unwrap();
        folder
    }

    fn check(folder: &tempfile::TempDir, token: &str) -> (Exit, serde_json::Value) {
        let (exit, text) = aula(folder.path(), &["--output", "json", "token", "check", token]).unwrap();
        (exit, serde_json::from_str(&text).unwrap())
    }

    fn mint(folder: &tempfile::TempDir, words: &[&str]) -> String {
        let (exit, text) = aula(folder.path(), &[&["token", "mint", "ada"], words].concat()).unwrap();
        assert_eq!((exit, text.lines().count()), (Exit::Done, 1));
        text.trim().to_owned()
    }

    #[test]
    fn a_minted_token_is_good_until_it_is_revoked() {
        let folder = with_ada();
        let (token, other) = (mint(&folder, &[]), mint(&folder, &["--ttl", "5m"]));
        let (exit, checked) = check(&folder, &token);
        assert_eq!((exit, &checked["good"], &checked["username"]), (Exit::Done, &true.into(), &"ada".into()));

        let (_, text) = aula(folder.path(), &["token", "revoke", &token]).unwrap();
        assert!(text.starts_with("ada: token ") && text.ends_with(" revoked\n"), "{text}");
        let (exit, checked) = check(&folder, &token);
        assert_eq!((exit, &checked["reason"]), (Exit::Failed, &"revoked".into()));
        assert_eq!(checked["username"], "ada", "a refused token still says whose it is");
        assert_eq!(check(&folder, &other).0, Exit::Done);

        aula(folder.path(), &["token", "revoke", "--user", "ada"]).unwrap();
        assert_eq!(check(&folder, &other).1["reason"], "revoked");
    }

    #[test]
    fn a_check_says_why() {
        let folder = with_ada();
        let (good, expired) = (mint(&folder, &[]), mint(&folder, &["--ttl", "0s"]));
        assert_eq!(check(&folder, "rubbish").1["reason"], "malformed");
        let (exit, text) = aula(folder.path(), &["token", "check", &expired]).unwrap();
        assert_eq!(exit, Exit::Failed);
        assert!(text.starts_with("refused: the token expired at 2") && text.contains("username: ada"), "{text}");
        aula(folder.path(), &["user", "disable", "ada"]).unwrap();
        assert_eq!(check(&folder, &good).1["reason"], "user_disabled");
        let error = aula(folder.path(), &["token", "mint", "ada"]).unwrap_err().to_string();
        assert_eq!(error, "the user ada is disabled");
        // Another server's token.
        let elsewhere = with_ada();
        assert_eq!(check(&elsewhere, &good).1["reason"], "unknown_key");
    }

    #[test]
    fn what_can_not_be_done_is_said() {
        let folder = with_ada();
        let error = |words: &[&str]| aula(folder.path(), words).unwrap_err().to_string();
        assert_eq!(error(&["token", "mint", "bob"]), "there is no user bob");
        assert_eq!(error(&["token", "revoke", "--user", "bob"]), "there is no user bob");
        assert_eq!(error(&["token", "revoke", "rubbish"]), "the token is malformed");
        assert!(error(&["token", "revoke"]).contains("required"));
        assert!(error(&["token", "revoke", "x", "--user", "ada"]).contains("cannot be used with"));
        assert!(error(&["token", "mint", "ada", "--ttl", "5"]).contains("duration"));
    }
}
