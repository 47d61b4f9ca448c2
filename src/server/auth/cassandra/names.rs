//! The names of all users in their order, spread over partitions by their first character.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use scylla::value::CqlTimestamp;

use super::super::{AccountsError, User, UserQuery};
use super::CassandraAccounts;
use super::statements::{failure, malformed};
use crate::message::Username;

/// What a username may begin with, in the order of names.
const INITIALS: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
/// Names read at once.
const PAGE: usize = 200;
/// Users read at the same time.
const READS_AT_ONCE: usize = 16;

impl CassandraAccounts {
    /// May be repeated, and may come before a user who then isn't created.
    pub(super) async fn add_name(&self, username: &Username) -> Result<(), AccountsError> {
        let name = username.as_str();
        let values = (name.get(..1).unwrap_or_default(), name);
        self.session.execute_unpaged(&self.statements.add_name, values).await.map_err(failure)?;
        Ok(())
    }

    pub(super) async fn users_after(&self, query: &UserQuery) -> Result<Vec<User>, AccountsError> {
        let limit = query.limit as usize;
        // The least text that is greater than a name is the name with a NUL.
        let after = query.after.as_ref().map_or(String::new(), |name| format!("{name}\0"));
        let mut start = after.max(query.prefix.clone());
        // DEL is greater than every character of a username: the range holds exactly those with the prefix.
        let beyond = format!("{}\u{7f}", query.prefix);
        let mut users = Vec::new();
        for initial in INITIALS.chars().map(String::from) {
            let of_prefix = query.prefix.is_empty() || query.prefix.starts_with(&initial);
            if !of_prefix || initial.as_str() < start.get(..1).unwrap_or_default() {
                continue;
            }
            while users.len() < limit {
                let most = (limit - users.len()).min(PAGE);
                let names = self.names(&initial, &start, &beyond, most).await?;
                let Some(last) = names.last() else { break };
                start = format!("{last}\0");
                let whole_page = names.len() == most;
                let found = stream::iter(names).map(|name| async move { self.account(&name, false).await });
                let found: Vec<_> = found.buffered(READS_AT_ONCE).try_collect().await?;
                // A name without a user is one whose creation was cut short.
                for account in found.into_iter().flatten() {
                    if query.with_disabled || account.disabled_at.is_none() {
                        users.push(account.user()?);
                    }
                }
                if !whole_page {
                    break;
                }
            }
        }
        Ok(users)
    }

    async fn names(
        &self,
        initial: &str,
        start: &str,
        beyond: &str,
        limit: usize,
    ) -> Result<Vec<String>, AccountsError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (initial, start, beyond, limit);
        let result = self.session.execute_unpaged(&self.statements.names, values).await.map_err(failure)?;
        let rows = result.into_rows_result().map_err(malformed)?;
        let names = rows.rows::<(String,)>().map_err(malformed)?.map(|row| row.map(|(name,)| name));
        names.collect::<Result<_, _>>().map_err(malformed)
    }

    pub(super) async fn missing_of(&self, usernames: &[Username]) -> Result<Vec<Username>, AccountsError> {
        let asked = stream::iter(usernames.to_vec()).map(|name| async move {
            let active = self.is_active(&name).await?;
            Ok::<_, AccountsError>((!active).then_some(name))
        });
        let missing: Vec<_> = asked.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(missing.into_iter().flatten().collect())
    }

    async fn is_active(&self, username: &Username) -> Result<bool, AccountsError> {
        let statement = &self.statements.disabled_at;
        let result = self.session.execute_unpaged(statement, (username.as_str(),)).await.map_err(failure)?;
        let rows = result.into_rows_result().map_err(malformed)?;
        let row = rows.maybe_first_row::<(Option<CqlTimestamp>,)>().map_err(malformed)?;
        Ok(matches!(row, Some((None,))))
    }
}
