use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::DbError;
use super::Holder;

/// Why the schema was left as it is. A step that failed has left no trace: it is undone as a whole.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("{}: the schema is at version {found}, this binary knows versions up to {known}", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{}: version {version} ({name}) was applied from a file with other contents", path.display())]
    Changed { path: PathBuf, version: u32, name: String },
    #[error("{}: version {version} ({name}) is applied, but this binary doesn't have it", path.display())]
    Missing { path: PathBuf, version: u32, name: String },
    /// Only of [`super::Mode::Verify`].
    #[error("{}: {pending} schema migration(s) have not been applied", path.display())]
    Pending { path: PathBuf, pending: usize },
    #[error("{}", locked(path, holder.as_ref(), *waited))]
    Locked { path: PathBuf, holder: Option<Holder>, waited: Duration },
    #[error("{}: not an SQLite database", path.display())]
    NotADatabase { path: PathBuf },
    #[error("{}: an SQLite database, but not one of aula's (it has tables and no `schema_migrations`)", path.display())]
    Foreign { path: PathBuf },
    #[error("version {version} ({name}) failed and was undone")]
    Step { version: u32, name: &'static str, source: DbError },
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: DbError },
    #[error("can't {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl MigrateError {
    /// What a person can do about it, if that isn't plain from the error.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Newer { .. } => {
                Some("a newer aula has migrated this database: run that version, or restore a backup")
            }
            Self::Changed { .. } => Some(
                "a released migration is never edited: use the binary that applied it, or move the change to a new version",
            ),
            Self::Missing { .. } => Some("use the binary that applied it: `aula migrate status` lists what differs"),
            Self::Pending { .. } => Some("run `aula migrate up`"),
            Self::Locked { .. } => Some("wait for the other process, or give it longer with `--wait`"),
            Self::NotADatabase { .. } | Self::Foreign { .. } => Some("check `data_dir`, or move the file away"),
            Self::Step { .. } | Self::Database { .. } | Self::Io { .. } => None,
        }
    }

    /// Tells the disk's troubles apart, so that they read the same whichever call met them first.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Database { path, source: DbError::Full },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Database { path, source: DbError::ReadOnly }
            }
            _ => Self::Io { action, path, source },
        }
    }

    pub(super) fn database(path: &Path) -> impl Fn(DbError) -> Self {
        let path = path.to_owned();
        move |source| Self::Database { path: path.clone(), source }
    }
}

fn locked(path: &Path, holder: Option<&Holder>, waited: Duration) -> String {
    let waited = waited.as_secs_f64();
    match holder {
        Some(Holder { pid, since }) => {
            format!("{}: process {pid} has been migrating since {since} (waited {waited:.1} s)", path.display())
        }
        None => format!("{}: another process is migrating (waited {waited:.1} s)", path.display()),
    }
}
