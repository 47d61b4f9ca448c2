//! What the tests of accounts share.

use std::sync::Arc;
use std::time::Duration;

use super::secret::SigningKeys;
use super::sqlite::SqliteAccounts;
use super::{Auth, AuthOptions};
use crate::server::sqlite::{Database, Options};

/// An empty database in a folder that is removed with the guard.
pub(crate) fn database() -> (Database, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("aula.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("../../../schema/sqlite/0001_initial.sql")).unwrap();
    drop(connection);
    (Database::open(&path, &Options::default()).unwrap(), dir)
}

/// Generous limits, so that only the tests of limits meet them.
pub(crate) fn options() -> AuthOptions {
    AuthOptions { logins_per_minute: 1000, ..AuthOptions::default() }
}

pub(crate) fn auth(change: impl FnOnce(&mut AuthOptions)) -> (Auth, tempfile::TempDir) {
    let (database, dir) = database();
    let mut options = options();
    change(&mut options);
    (Auth::new(Arc::new(SqliteAccounts::new(database)), SigningKeys::ephemeral().unwrap(), options), dir)
}

/// Waits until `moment` has passed, when a test needs the clock to be beyond it.
pub(crate) async fn until_after(moment: crate::message::Millis) {
    while crate::message::Millis::now() <= moment {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
