//! The statements, prepared once, and what their outcomes mean.

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, Row};

use super::super::AccountsError;
use crate::server::cassandra::Cassandra;

pub(super) struct Statements {
    pub(super) account: Fresh,
    pub(super) add_user: PreparedStatement,
    pub(super) change_user: PreparedStatement,
    pub(super) disabled_at: PreparedStatement,
    pub(super) add_name: PreparedStatement,
    pub(super) names: PreparedStatement,
    pub(super) add_family: PreparedStatement,
    pub(super) family: PreparedStatement,
    pub(super) add_session_id: PreparedStatement,
    pub(super) session_id: PreparedStatement,
    pub(super) revoke_token: PreparedStatement,
    pub(super) revoked_token: PreparedStatement,
    pub(super) newest_revocations: Fresh,
    pub(super) revocations: PreparedStatement,
    pub(super) oldest_revocations: PreparedStatement,
    pub(super) log_state: PreparedStatement,
    pub(super) set_last_id: PreparedStatement,
    pub(super) add_revocation: PreparedStatement,
    pub(super) set_forgotten_id: PreparedStatement,
    pub(super) forget_revocation: PreparedStatement,
}

/// One read in two strengths.
pub(super) struct Fresh {
    /// Sees all that was written before by a write that was confirmed.
    pub(super) quorum: PreparedStatement,
    /// Also settles whether a conditional write with an unknown outcome happened.
    pub(super) serial: PreparedStatement,
}

impl Fresh {
    pub(super) fn get(&self, serial: bool) -> &PreparedStatement {
        if serial { &self.serial } else { &self.quorum }
    }
}

impl Statements {
    pub(super) async fn prepare(cassandra: &Cassandra) -> Result<Self, PrepareError> {
        let read = async |text: &str| read(cassandra, text).await;
        let fresh = async |text: &str| {
            let quorum = read(text).await?;
            let mut serial = quorum.clone();
            serial.set_consistency(serial_level(&cassandra.session));
            Ok::<_, PrepareError>(Fresh { quorum, serial })
        };
        // The same twice is the same as once: the driver may repeat it.
        let repeatable = async |text: &str| {
            let mut statement = cassandra.session.prepare(text).await?;
            statement.set_is_idempotent(true);
            Ok::<_, PrepareError>(statement)
        };
        // Of a conditional write only its author knows what a second attempt would mean: not marked as idempotent.
        let conditional = async |text: &str| cassandra.session.prepare(text).await;
        Ok(Self {
            account: fresh(
                "SELECT username, password_hash, created_at, disabled_at, sessions, unannounced, last_change \
                 FROM users WHERE username = ?",
            )
            .await?,
            add_user: conditional("INSERT INTO users (username, password_hash, created_at, last_change) VALUES (?, ?, ?, ?) \
                 IF NOT EXISTS")
            .await?,
            change_user: conditional("UPDATE users SET password_hash = ?, disabled_at = ?, sessions = ?, unannounced = ?, last_change = ? \
                 WHERE username = ? IF last_change = ?")
            .await?,
            disabled_at: read("SELECT disabled_at FROM users WHERE username = ?").await?,
            add_name: repeatable("INSERT INTO usernames_by_initial (initial, username) VALUES (?, ?)").await?,
            names: read(
                "SELECT username FROM usernames_by_initial WHERE initial = ? AND username >= ? AND username < ? LIMIT ?",
            )
            .await?,
            add_family: repeatable("INSERT INTO sessions_by_family (family_hash, username, session_id, kept_until) VALUES (?, ?, ?, ?) \
                 USING TTL ?")
            .await?,
            family: read("SELECT username, session_id, kept_until FROM sessions_by_family WHERE family_hash = ?")
                .await?,
            add_session_id: repeatable("INSERT INTO sessions_by_id (session_id, username) VALUES (?, ?) USING TTL ?")
            .await?,
            session_id: read("SELECT username FROM sessions_by_id WHERE session_id = ?").await?,
            revoke_token: repeatable("INSERT INTO revoked_tokens (token_id, username) VALUES (?, ?) USING TTL ?")
                .await?,
            revoked_token: read("SELECT token_id FROM revoked_tokens WHERE token_id = ?").await?,
            newest_revocations: fresh(
                "SELECT id, entry, last_id FROM revocations WHERE log = ? ORDER BY id DESC LIMIT ?",
            )
            .await?,
            revocations: read(
                "SELECT id, username, session_id, token_id FROM revocations WHERE log = ? AND id > ? LIMIT ?",
            )
            .await?,
            oldest_revocations: read("SELECT id, expires_at FROM revocations WHERE log = ? AND id > ? LIMIT ?")
                .await?,
            log_state: read("SELECT last_id, forgotten_id FROM revocations WHERE log = ? AND id = 0").await?,
            set_last_id: conditional("UPDATE revocations SET last_id = ? WHERE log = ? AND id = 0 IF last_id = ?")
            .await?,
            add_revocation: conditional("INSERT INTO revocations (log, id, username, session_id, token_id, expires_at, entry) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)")
            .await?,
            set_forgotten_id: conditional("UPDATE revocations SET forgotten_id = ? WHERE log = ? AND id = 0 IF forgotten_id = ?")
            .await?,
            forget_revocation: conditional("DELETE FROM revocations WHERE log = ? AND id = ?").await?,
        })
    }
}

async fn read(cassandra: &Cassandra, text: &str) -> Result<PreparedStatement, PrepareError> {
    let mut statement = cassandra.session.prepare(text).await?;
    statement.set_is_idempotent(true);
    statement.set_execution_profile_handle(Some(cassandra.reads.clone()));
    Ok(statement)
}

/// Reads have to ask as far as conditional writes do.
pub(in super::super) fn serial_level(session: &Session) -> Consistency {
    match session.get_default_execution_profile_handle().to_profile().get_serial_consistency() {
        Some(SerialConsistency::LocalSerial) => Consistency::LocalSerial,
        Some(SerialConsistency::Serial) | None => Consistency::Serial,
    }
}

/// What became of a conditional write.
#[derive(Debug)]
pub(in super::super) enum Conditional {
    Applied,
    /// The condition did not hold.
    Refused,
    /// It may happen yet, or have happened: a serial read tells.
    Unknown(AccountsError),
}

impl Conditional {
    /// Errors: what no repetition can mend.
    pub(in super::super) fn from(outcome: Result<QueryResult, ExecutionError>) -> Result<Self, AccountsError> {
        let result = match outcome.map_err(failure) {
            Ok(result) => result,
            Err(error) if error.is_transient() => return Ok(Self::Unknown(error)),
            Err(error) => return Err(error),
        };
        let rows = result.into_rows_result().map_err(malformed)?;
        // `[applied]` comes first; ScyllaDB tells it of each statement of a batch, with the same value.
        let first = rows.first_row::<Row>().map_err(malformed)?;
        let applied = matches!(first.columns.first(), Some(Some(CqlValue::Boolean(true))));
        Ok(if applied { Self::Applied } else { Self::Refused })
    }
}

/// One conditional write to several rows of a partition.
pub(super) async fn conditional_batch(
    session: &Session,
    steps: Vec<(&PreparedStatement, Box<dyn SerializeRow + Send + Sync>)>,
) -> Result<Conditional, AccountsError> {
    // One partition is atomic by itself; a logged batch can't be conditional anyway.
    let mut batch = Batch::new(BatchType::Unlogged);
    let mut values = Vec::with_capacity(steps.len());
    for (statement, row) in steps {
        batch.append_statement(statement.clone());
        values.push(row);
    }
    Conditional::from(session.batch(&batch, values).await)
}

pub(in super::super) fn failure(error: ExecutionError) -> AccountsError {
    use ExecutionError as E;
    let refused = |error: &DbError| {
        matches!(
            error,
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::Unauthorized
                | DbError::AuthenticationError
                | DbError::ConfigError
                | DbError::ProtocolError
        )
    };
    match &error {
        E::LastAttemptError(RequestAttemptError::DbError(DbError::Overloaded, _)) => AccountsError::Overloaded,
        E::LastAttemptError(RequestAttemptError::DbError(reason, _)) if refused(reason) => {
            AccountsError::Failed(Box::new(error))
        }
        E::BadQuery(_) => AccountsError::Failed(Box::new(error)),
        _ => AccountsError::Unavailable(Box::new(error)),
    }
}

/// Rows that are not of the schema.
pub(in super::super) fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> AccountsError {
    AccountsError::Failed(Box::new(error))
}
