//! The users of an export.

use super::super::record::Account;
use super::report::Fate;
use crate::message::Millis;
use crate::server::auth::{Accounts, AccountsError, Creation};

/// Adds a user, with the same password and age; `writes` is not set in a dry run.
pub async fn import(accounts: &dyn Accounts, account: &Account, writes: bool) -> Result<Fate, AccountsError> {
    let Account { username, password_hash, created_at, disabled_at } = account;
    let disable = async || match (disabled_at, writes) {
        (Some(at), true) => accounts.disable(username, Millis(*at)).await.map(drop),
        _ => Ok(()),
    };
    match accounts.credentials(username).await? {
        None if !writes => Ok(Fate::Added),
        None => match accounts.create_user(username, password_hash, Millis(*created_at)).await? {
            Creation::Created => {
                crate::crash_point!("import_account");
                disable().await?;
                Ok(Fate::Added)
            }
            Creation::Taken => Ok(Fate::LeftAlone("somebody has taken the name just now".to_owned())),
        },
        Some((user, hash)) if &hash != password_hash || user.created_at != Millis(*created_at) => {
            Ok(Fate::LeftAlone("another user has this name, or another password".to_owned()))
        }
        // An import may have been killed in between, and who is locked out there must not come in here.
        Some((user, _)) if user.disabled_at.is_none() && disabled_at.is_some() => {
            disable().await?;
            Ok(Fate::Completed)
        }
        Some((user, _)) if user.disabled_at.is_some() && disabled_at.is_none() => {
            Ok(Fate::LeftAlone("it is disabled here, and was not there".to_owned()))
        }
        Some(_) => Ok(Fate::Unchanged),
    }
}
