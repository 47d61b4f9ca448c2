use rusqlite::ErrorCode;

/// What went wrong with the embedded database, told apart by what can be done about it.
///
/// Cloned to every write of a transaction that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    #[error("too many writes are waiting for the disk")]
    Overloaded,
    #[error("the database is closed")]
    Closed,
    #[error("the disk is full: free space on the data directory's file system")]
    Full,
    #[error("the data directory can't be written: check its owner and permissions")]
    ReadOnly,
    #[error("another process holds the database's write lock")]
    Busy,
    #[error("the disk fails ({0}): see the system's log, and the data directory's disk")]
    Disk(String),
    #[error("the database file is damaged ({0}): restore it from a backup")]
    Corrupt(String),
    #[error("{0}")]
    Other(String),
}

impl DbError {
    /// Whether the same write may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Overloaded | Self::Full | Self::Busy | Self::ReadOnly | Self::Disk(_))
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error_code() else {
            return Self::Other(error.to_string());
        };
        match code {
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Self::ReadOnly,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
            ErrorCode::SystemIoFailure => Self::Disk(error.to_string()),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}
