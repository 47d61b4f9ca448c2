-- The log begins behind this seq: what came before it was purged.
ALTER TABLE channels ADD COLUMN purged_seq INTEGER NOT NULL DEFAULT 0;

-- Sends whose entry was purged, as long as a client_id is remembered (queue.dedup_ttl): the entry itself, by which a
-- repeated send is known, is gone.
CREATE TABLE purged_sends (
    channel_id BLOB    NOT NULL,
    client_id  BLOB    NOT NULL,
    sender     TEXT    NOT NULL,
    seq        INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (channel_id, client_id, sender)
) STRICT, WITHOUT ROWID;
CREATE INDEX purged_sends_by_time ON purged_sends (at);

-- Who had what removed, as JSON: kept for ever, without a word of what was said.
CREATE TABLE purges (
    id         BLOB NOT NULL PRIMARY KEY,      -- uuid v7: in the order of time
    channel_id BLOB NOT NULL,
    record     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX purges_by_channel ON purges (channel_id, id);
