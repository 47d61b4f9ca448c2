//! What an operator is told: the cause in a few words. The rest is logged where nobody expects it.

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};

use super::StoreError;

pub(super) fn unavailable(error: ExecutionError) -> StoreError {
    let cause = match &error {
        ExecutionError::RequestTimeout(after) => format!("Cassandra did not answer within {after:?}"),
        ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan => "no Cassandra node can be reached".into(),
        ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_)) => {
            "the connection to Cassandra broke".into()
        }
        ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId) => {
            "too many requests to Cassandra are under way".into()
        }
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => match error {
            DbError::Unavailable { alive, required, .. } => {
                format!("{alive} of the {required} Cassandra replicas that are needed are up")
            }
            DbError::WriteTimeout { received, required, .. } | DbError::ReadTimeout { received, required, .. } => {
                format!("{received} of the {required} Cassandra replicas that are needed answered in time")
            }
            DbError::Overloaded | DbError::RateLimitReached { .. } => "Cassandra is overloaded".into(),
            DbError::IsBootstrapping => "the Cassandra node is still starting".into(),
            DbError::Unauthorized => "Cassandra does not allow this user to do that".into(),
            _ => refused(&error),
        },
        _ => refused(&error),
    };
    StoreError::Unavailable(cause)
}

/// A row that is not what this version writes.
pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    tracing::error!(%error, "a row in Cassandra can't be read");
    StoreError::Unavailable("a row in Cassandra can't be read".into())
}

fn refused(error: &dyn std::fmt::Display) -> String {
    tracing::error!(%error, "cassandra refuses a request");
    "Cassandra refuses a request of this version".into()
}
