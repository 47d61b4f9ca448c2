use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::{DbError, connect};

/// A bounded pool of read-only connections, opened when first needed.
pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path, limit: usize) -> Self {
        Self { path: path.to_owned(), idle: Arc::default(), permits: Arc::new(Semaphore::new(limit.max(1))) }
    }

    pub(super) async fn run<T, F>(&self, read: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| DbError::Closed)?;
        let idle = Arc::clone(&self.idle);
        let path = self.path.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let reused = idle.lock().pop();
            let mut connection = match reused {
                Some(connection) => connection,
                None => open(&path)?,
            };
            let result = read(&mut connection).map_err(DbError::from);
            idle.lock().push(connection);
            result
        });
        outcome.await.unwrap_or_else(|panic| Err(DbError::Other(format!("a read panicked: {panic}"))))
    }
}

fn open(path: &Path) -> Result<Connection, DbError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // In KiB. The operating system caches the file's pages once for all readers; a large cache here would copy them.
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}
