//! The users, with the hashes of their passwords.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::manifest::Part;
use super::super::record::{Account, Record};
use super::output::OutputFile;
use crate::message::{ChannelId, Username};
use crate::server::auth::{Accounts, UserQuery};
use crate::server::backends::Stored;

pub const FILE: &str = "accounts.ndjson";
/// Users listed at once.
const PAGE: u32 = 500;

/// All users, or the members of these channels.
pub async fn write(stored: &Stored, folder: &Path, of: Option<&[ChannelId]>) -> anyhow::Result<Part> {
    let mut file = OutputFile::create(folder, FILE.to_owned())?;
    match of {
        None => {
            let mut query = UserQuery { limit: PAGE, with_disabled: true, ..UserQuery::default() };
            loop {
                let users = stored.accounts.list_users(&query).await?;
                for user in &users {
                    write_one(&*stored.accounts, &user.username, &mut file).await?;
                }
                match users.last() {
                    Some(last) => query.after = Some(last.username.clone()),
                    None => break,
                }
            }
        }
        Some(channels) => {
            let mut names = BTreeSet::new();
            for channel in channels {
                let state = stored.store.channel(*channel).await?;
                names.extend(state.into_iter().flat_map(|state| state.members.into_keys()));
            }
            for name in &names {
                write_one(&*stored.accounts, name, &mut file).await?;
            }
        }
    }
    Ok(file.finish()?)
}

async fn write_one(accounts: &dyn Accounts, name: &Username, file: &mut OutputFile) -> anyhow::Result<()> {
    // Somebody may be a member without an account, where accounts came and went.
    let Some((user, password_hash)) = accounts.credentials(name).await? else { return Ok(()) };
    let (created_at, disabled_at) = (user.created_at.0, user.disabled_at.map(|at| at.0));
    let account = Account { username: user.username, password_hash, created_at, disabled_at };
    Ok(file.write(&Record::Account(account))?)
}
