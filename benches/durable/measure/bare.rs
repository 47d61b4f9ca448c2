use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use uuid::Uuid;

/// Rows in a transaction.
const ROWS: usize = 100;

const SCHEMA: &str = concat!(
    include_str!("../../../schema/sqlite/0001_initial.sql"),
    include_str!("../../../schema/sqlite/0002_refusals.sql"),
    include_str!("../../../schema/sqlite/0003_sends_by_time.sql"),
    include_str!("../../../schema/sqlite/0004_deaths.sql"),
    include_str!("../../../schema/sqlite/0005_purges.sql"),
);

/// The same rows in the same table with the same indexes and the same durability, and nothing else.
pub fn rows_per_second(folder: &Path, body_bytes: usize, length: Duration) -> f64 {
    let path = folder.join(format!("bare-{}.db", Uuid::new_v4()));
    let mut connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let body = "x".repeat(body_bytes);
    let began = Instant::now();
    let mut rows = 0u64;
    while began.elapsed() < length {
        let transaction = connection.transaction().unwrap();
        {
            let mut insert = transaction
                .prepare_cached(
                    "INSERT INTO messages (channel, seq, id, sender, client_id, kind, body, at)
                     VALUES (?1, ?2, ?3, ?4, ?5, 'text', ?6, ?7)",
                )
                .unwrap();
            for _ in 0..ROWS {
                let (channel, seq) = (rows % 25 + 1, rows / 25 + 1);
                let (id, client_id) = (Uuid::now_v7(), Uuid::now_v7());
                insert
                    .execute(params![channel as i64, seq as i64, id, "bench-000", client_id, body, rows as i64])
                    .unwrap();
                rows += 1;
            }
        }
        transaction.commit().unwrap();
    }
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    drop(connection);
    std::fs::remove_file(path).unwrap();
    rate
}
