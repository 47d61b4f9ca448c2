//! The schema's steps, built into the binary: the files of `schema/sqlite/` are their only source.

use crate::server::migrate::files::{File, files};

/// In the order in which they are applied. A file that has been released is never edited: what it should have said
/// is the next file's business.
pub(super) const MIGRATIONS: &[File] = files!["sqlite", "sql": "0001" "initial", "0002" "refusals", "0003" "sends_by_time", "0004" "deaths", "0005" "purges"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::migrate::files::assert_complete;

    #[test]
    fn every_file_of_the_folder_is_built_in_and_in_order_without_holes() {
        assert_complete(MIGRATIONS, "sqlite", "sql");
    }

    #[test]
    fn no_file_ends_the_transaction_that_it_runs_in() {
        for migration in MIGRATIONS {
            let connection = rusqlite::Connection::open_in_memory().unwrap();
            connection.execute_batch("BEGIN").unwrap();
            for earlier in MIGRATIONS.iter().filter(|m| m.version < migration.version) {
                connection.execute_batch(earlier.text).unwrap();
            }
            connection.execute_batch(migration.text).unwrap();
            assert!(!connection.is_autocommit(), "{} commits", migration.name);
        }
    }
}
