//! What is asked of the database: prepared once, at the start.

use anyhow::Context as _;
use scylla::statement::prepared::PreparedStatement;

use crate::server::cassandra::Cassandra;

/// Rows in a page of an answer: bounds what the database and this process hold of it at a time.
const PAGE: i32 = 1_000;

/// All but the scan are bound with the partition key, so the driver sends each to a node that has it.
macro_rules! statements {
    ($($kind:ident $name:ident: $cql:expr;)*) => {
        pub(super) struct Statements {
            $(pub(super) $name: PreparedStatement,)*
        }

        impl Statements {
            pub(super) async fn prepare(cassandra: &Cassandra) -> anyhow::Result<Self> {
                Ok(Self { $($name: $kind(cassandra, $cql).await?,)* })
            }
        }
    };
}

statements! {
    // The timestamp is the seq: see the schema.
    write insert_message: "INSERT INTO messages_by_channel
        (channel_id, bucket, seq, id, sender, client_id, kind, body, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        USING TIMESTAMP ?";
    read messages_after: "SELECT seq, id, sender, client_id, kind, body, at FROM messages_by_channel
        WHERE channel_id = ? AND bucket = ? AND seq > ? ORDER BY seq ASC LIMIT ?";
    read messages_before: "SELECT seq, id, sender, client_id, kind, body, at FROM messages_by_channel
        WHERE channel_id = ? AND bucket = ? AND seq < ? ORDER BY seq DESC LIMIT ?";
    read ids_between: "SELECT seq, id FROM messages_by_channel
        WHERE channel_id = ? AND bucket = ? AND seq >= ? AND seq <= ?";

    write insert_send: "INSERT INTO sends_by_client_id (channel_id, sender, client_id, seq) VALUES (?, ?, ?, ?)
        USING TTL ?";
    write insert_refusal: "INSERT INTO sends_by_client_id (channel_id, sender, client_id, code) VALUES (?, ?, ?, ?)
        USING TTL ?";
    read find_sends: "SELECT client_id, seq, code FROM sends_by_client_id
        WHERE channel_id = ? AND sender = ? AND client_id IN ?";

    read partition: "SELECT username, joined_seq, role, delivered_seq, read_seq,
        kind, name, last_seq, last_at, delivered_by_all, read_by_all, purged_seq FROM users_by_channel
        WHERE channel_id = ?";
    read first_members: "SELECT username, joined_seq, role, delivered_seq, read_seq,
        kind, name, last_seq, last_at, delivered_by_all, read_by_all, purged_seq FROM users_by_channel
        WHERE channel_id = ? LIMIT ?";
    read count_members: "SELECT count(role), max(last_seq) FROM users_by_channel WHERE channel_id = ?";
    read member: "SELECT joined_seq, role, delivered_seq, read_seq, kind, last_seq FROM users_by_channel
        WHERE channel_id = ? AND username = ?";
    read head: "SELECT DISTINCT channel_id, last_seq, last_at, delivered_by_all, read_by_all FROM users_by_channel
        WHERE channel_id = ?";

    read extent: "SELECT DISTINCT channel_id, last_seq, purged_seq, removed_seq FROM users_by_channel
        WHERE channel_id = ?";
    write set_purged: "UPDATE users_by_channel USING TIMESTAMP ? SET purged_seq = ? WHERE channel_id = ?";
    write set_removed: "UPDATE users_by_channel USING TIMESTAMP ? SET removed_seq = ? WHERE channel_id = ?";
    // With the present time, and so for good: see the schema.
    write delete_bucket: "DELETE FROM messages_by_channel WHERE channel_id = ? AND bucket = ?";
    write delete_entries: "DELETE FROM messages_by_channel WHERE channel_id = ? AND bucket = ? AND seq <= ?";
    write keep_of_channel: "INSERT INTO purges_by_channel (channel_id, id, record) VALUES (?, ?, ?)";
    write keep_of_month: "INSERT INTO purges_by_month (month, id, record) VALUES (?, ?, ?)";
    read purges_of_channel: "SELECT record FROM purges_by_channel WHERE channel_id = ? LIMIT ?";
    read purges_of_month: "SELECT record FROM purges_by_month WHERE month = ? LIMIT ?";

    write set_kind: "UPDATE users_by_channel USING TIMESTAMP ? SET kind = ?, name = ?, created_at = ?
        WHERE channel_id = ?";
    write set_head: "UPDATE users_by_channel USING TIMESTAMP ? SET last_seq = ?, last_at = ? WHERE channel_id = ?";
    write set_delivered_by_all: "UPDATE users_by_channel USING TIMESTAMP ? SET delivered_by_all = ?
        WHERE channel_id = ?";
    write set_read_by_all: "UPDATE users_by_channel USING TIMESTAMP ? SET read_by_all = ? WHERE channel_id = ?";
    write set_role: "UPDATE users_by_channel USING TIMESTAMP ? SET role = ?
        WHERE channel_id = ? AND username = ? AND joined_seq = ?";
    write set_delivered: "UPDATE users_by_channel USING TIMESTAMP ? SET delivered_seq = ?
        WHERE channel_id = ? AND username = ? AND joined_seq = ?";
    write set_read: "UPDATE users_by_channel USING TIMESTAMP ? SET read_seq = ?
        WHERE channel_id = ? AND username = ? AND joined_seq = ?";
    write set_both: "UPDATE users_by_channel USING TIMESTAMP ? SET delivered_seq = ?, read_seq = ?
        WHERE channel_id = ? AND username = ? AND joined_seq = ?";
    write end_memberships: "DELETE FROM users_by_channel USING TIMESTAMP ?
        WHERE channel_id = ? AND username = ? AND joined_seq <= ?";

    write list_channel: "INSERT INTO channels_by_username (username, channel_id, joined_seq) VALUES (?, ?, ?)
        USING TIMESTAMP ?";
    write unlist_channel: "DELETE FROM channels_by_username USING TIMESTAMP ? WHERE username = ? AND channel_id = ?";
    read channels_of: "SELECT channel_id FROM channels_by_username WHERE username = ?";
    // Of all partitions in a range of tokens: whichever node is asked, it asks those that have them.
    read scan_channels: "SELECT DISTINCT token(channel_id), channel_id, last_seq FROM users_by_channel
        WHERE token(channel_id) >= ? AND token(channel_id) <= ?";
    // For looking at all of it, and mending it.
    read next_seq: "SELECT seq FROM messages_by_channel WHERE channel_id = ? AND bucket = ? AND seq > ? AND seq <= ?
        ORDER BY seq ASC LIMIT 1";
    read listed: "SELECT joined_seq FROM channels_by_username WHERE username = ? AND channel_id = ?";
    read scan_lists: "SELECT token(username), username, channel_id FROM channels_by_username";
    read count_channels: "SELECT count(*) FROM channels_by_username WHERE username = ?";
}

async fn read(cassandra: &Cassandra, cql: &str) -> anyhow::Result<PreparedStatement> {
    let mut statement = write(cassandra, cql).await?;
    statement.set_execution_profile_handle(Some(cassandra.reads.clone()));
    statement.set_page_size(PAGE);
    Ok(statement)
}

/// Every write says what is, none what changes: repeated, it changes nothing.
async fn write(cassandra: &Cassandra, cql: &str) -> anyhow::Result<PreparedStatement> {
    let mut statement = cassandra.session.prepare(cql).await.with_context(|| {
        format!("the keyspace {} lacks what the store needs (`aula migrate` makes it): {cql}", cassandra.keyspace)
    })?;
    statement.set_is_idempotent(true);
    Ok(statement)
}
