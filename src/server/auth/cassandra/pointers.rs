//! Whose a session is, by its id and by its refresh tokens: what leads to the user's row, where it is judged.

use std::time::Duration;

use scylla::DeserializeRow;
use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::super::AccountsError;
use super::CassandraAccounts;
use super::statements::{failure, malformed};
use crate::message::{Millis, Username};

/// Kept beyond what they lead to, so that clocks that differ lose nobody.
const SLACK: i64 = 24 * 3600 * 1000;
/// Kept longer than needed yet, so that they are written again every other week and not with each refresh.
const AHEAD: i64 = 15 * SLACK;
/// Beyond this there is no TTL: a server may refuse times after 2038.
const LONGEST_TTL: Duration = Duration::from_secs(2 * 366 * 24 * 3600);

/// A row of `sessions_by_family`.
#[derive(DeserializeRow)]
pub(super) struct Family {
    pub(super) username: String,
    pub(super) session_id: Uuid,
    kept_until: CqlTimestamp,
}

impl Family {
    /// Whether a session that lasts until `expires_at` would be forgotten while it is good.
    pub(super) fn ends_before(&self, expires_at: Millis) -> bool {
        self.kept_until.0 < expires_at.0.saturating_add(SLACK)
    }
}

impl CassandraAccounts {
    /// Plain writes that may be repeated. They come before the session is in its user's row: one that leads to
    /// nothing is harmless, a session that nothing leads to could not be ended.
    pub(super) async fn point_to(
        &self,
        username: &Username,
        session_id: Uuid,
        family: Option<&[u8; 32]>,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), AccountsError> {
        let kept_until = Millis(expires_at.0.saturating_add(SLACK + AHEAD));
        let ttl = ttl(kept_until, now);
        let name = username.as_str();
        let by_id = async {
            let values = (session_id, name, ttl);
            self.session.execute_unpaged(&self.statements.add_session_id, values).await
        };
        let by_family = async {
            let Some(family) = family else { return Ok(()) };
            let values = (family.as_slice(), name, session_id, CqlTimestamp(kept_until.0), ttl);
            self.session.execute_unpaged(&self.statements.add_family, values).await.map(|_done| ())
        };
        tokio::try_join!(by_id, by_family).map_err(failure)?;
        Ok(())
    }

    pub(super) async fn family(&self, hash: &[u8; 32]) -> Result<Option<Family>, AccountsError> {
        let statement = &self.statements.family;
        let result = self.session.execute_unpaged(statement, (hash.as_slice(),)).await.map_err(failure)?;
        result.into_rows_result().map_err(malformed)?.maybe_first_row().map_err(malformed)
    }

    pub(super) async fn owner_of(&self, session_id: Uuid) -> Result<Option<Username>, AccountsError> {
        let statement = &self.statements.session_id;
        let result = self.session.execute_unpaged(statement, (session_id,)).await.map_err(failure)?;
        let row = result.into_rows_result().map_err(malformed)?.maybe_first_row::<(String,)>().map_err(malformed)?;
        row.map(|(name,)| Username::new(&name)).transpose().map_err(malformed)
    }

    /// A plain write that may be repeated: nothing ever takes a revocation back.
    pub(super) async fn mark_token(
        &self,
        username: &Username,
        token_id: Uuid,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), AccountsError> {
        let ttl = ttl(Millis(expires_at.0.max(now.0).saturating_add(SLACK)), now);
        let values = (token_id, username.as_str(), ttl);
        self.session.execute_unpaged(&self.statements.revoke_token, values).await.map_err(failure)?;
        Ok(())
    }

    pub(super) async fn is_marked(&self, token_id: Uuid) -> Result<bool, AccountsError> {
        let statement = &self.statements.revoked_token;
        let result = self.session.execute_unpaged(statement, (token_id,)).await.map_err(failure)?;
        Ok(result.into_rows_result().map_err(malformed)?.rows_num() > 0)
    }
}

/// Seconds from `now` to `until`, of the caller's clock: the server only measures how long that is. 0: for ever.
fn ttl(until: Millis, now: Millis) -> i32 {
    let seconds = until.0.saturating_sub(now.0).max(0) / 1000 + 1;
    if seconds.unsigned_abs() > LONGEST_TTL.as_secs() { 0 } else { i32::try_from(seconds).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_length_and_never_too_long() {
        assert_eq!(ttl(Millis(5500), Millis(2000)), 4);
        assert_eq!(ttl(Millis(0), Millis(2000)), 1, "0 would be for ever");
        assert_eq!(ttl(Millis(i64::MAX), Millis(2000)), 0);
        assert_eq!(ttl(Millis(i64::MAX), Millis(i64::MIN)), 0);
        assert!(ttl(Millis(LONGEST_TTL.as_millis() as i64 - 1000), Millis(0)) > 0);
    }
}
