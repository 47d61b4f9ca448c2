//! The schema's steps, built into the binary: the files of `schema/sqlite/` are their only source.

use sha2::{Digest, Sha256};

/// One file of `schema/sqlite/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// Takes version and name from the file's name, so that they can't contradict it.
macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: number($version),
            name: $name,
            sql: include_str!(concat!("../../../../schema/sqlite/", $version, "_", $name, ".sql")),
        }),*]
    };
}

/// In the order in which they are applied. A file that has been released is never edited: what it should have said
/// is the next file's business.
pub(super) const MIGRATIONS: &[Migration] = migrations!["0001" "initial", "0002" "refusals"];

const fn number(digits: &str) -> u32 {
    let digits = digits.as_bytes();
    let (mut value, mut at) = (0, 0);
    while at < digits.len() {
        value = value * 10 + (digits[at] - b'0') as u32;
        at += 1;
    }
    value
}

impl Migration {
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub(super) fn checksum(&self) -> String {
        Sha256::digest(self.sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_built_in_and_in_order_without_holes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/sqlite");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let built_in: Vec<String> = MIGRATIONS.iter().map(|m| format!("{:04}_{}.sql", m.version, m.name)).collect();
        assert_eq!(files, built_in);
        let versions: Vec<u32> = MIGRATIONS.iter().map(|m| m.version).collect();
        assert_eq!(versions, (1..).take(MIGRATIONS.len()).collect::<Vec<u32>>());
    }

    #[test]
    fn no_file_ends_the_transaction_that_it_runs_in() {
        for migration in MIGRATIONS {
            let connection = rusqlite::Connection::open_in_memory().unwrap();
            connection.execute_batch("BEGIN").unwrap();
            for earlier in MIGRATIONS.iter().filter(|m| m.version < migration.version) {
                connection.execute_batch(earlier.sql).unwrap();
            }
            connection.execute_batch(migration.sql).unwrap();
            assert!(!connection.is_autocommit(), "{} commits", migration.name);
        }
    }
}
