-- Accounts ---------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    username      TEXT    NOT NULL PRIMARY KEY,
    password_hash TEXT    NOT NULL,            -- PHC string, argon2id
    created_at    INTEGER NOT NULL,            -- every *_at is in Unix milliseconds
    disabled_at   INTEGER
) STRICT, WITHOUT ROWID;

-- One row a log-in. All its refresh tokens share one secret part and differ in another, so this row knows the family
-- of a token without keeping the used ones: a known family with another token is a used token come back.
CREATE TABLE login_sessions (
    session_id   BLOB    NOT NULL PRIMARY KEY, -- uuid
    username     TEXT    NOT NULL,
    family_hash  BLOB    UNIQUE,               -- SHA-256 of the shared part; NULL: the session has no refresh tokens
    refresh_hash BLOB,                         -- SHA-256 of the one refresh token that is good now
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,             -- moved by each refresh; no access token outlives it
    revoked_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX login_sessions_by_username ON login_sessions (username, created_at);
CREATE INDEX login_sessions_by_expiry   ON login_sessions (expires_at);

-- What a running server must act on at once: it follows this table and closes the sockets concerned.
CREATE TABLE revocations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    username   TEXT    NOT NULL,
    session_id BLOB,                           -- NULL: every session of the user
    token_id   BLOB,                           -- not NULL: only this access token (its jti)
    expires_at INTEGER NOT NULL,               -- when the last token concerned has expired by itself
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_by_token  ON revocations (token_id) WHERE token_id IS NOT NULL;
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

-- Channels ---------------------------------------------------------------------------------------------------------

-- `channel` is a small local key for the uuid: it keeps the indexes of the messages narrow.
CREATE TABLE channels (
    channel          INTEGER PRIMARY KEY,
    channel_id       BLOB    NOT NULL UNIQUE,
    kind             TEXT    NOT NULL,
    name             TEXT,
    created_at       INTEGER NOT NULL,
    last_seq         INTEGER NOT NULL,         -- the head of the stored log
    last_at          INTEGER NOT NULL,
    delivered_by_all INTEGER NOT NULL DEFAULT 0,
    read_by_all      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE channels_by_username (
    username   TEXT    NOT NULL,
    channel    INTEGER NOT NULL,
    joined_seq INTEGER NOT NULL,
    PRIMARY KEY (username, channel)
) STRICT, WITHOUT ROWID;

CREATE TABLE users_by_channel (
    channel       INTEGER NOT NULL,
    username      TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    joined_seq    INTEGER NOT NULL,
    delivered_seq INTEGER NOT NULL,            -- the member's watermarks: only ever raised
    read_seq      INTEGER NOT NULL,
    PRIMARY KEY (channel, username)
) STRICT, WITHOUT ROWID;

-- The log. `position` is the order of storing: search walks it backwards to find the newest first.
CREATE TABLE messages (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    channel    INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    id         BLOB    NOT NULL,
    sender     TEXT    NOT NULL,
    client_id  BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX messages_by_channel ON messages (channel, seq);
CREATE UNIQUE INDEX sends_by_client_id  ON messages (channel, client_id, sender);

-- `channel` is indexed as a word, so that a search reads only the lists of the channels that its user is in.
CREATE VIRTUAL TABLE messages_fts USING fts5 (
    body, channel,
    content = 'messages', content_rowid = 'position',
    tokenize = 'unicode61 remove_diacritics 2'
);

-- Queues -----------------------------------------------------------------------------------------------------------

-- Ids are never used again (AUTOINCREMENT): a consumer's cursor stays valid when the table has been emptied.
CREATE TABLE tasks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    family      TEXT    NOT NULL,
    shard       INTEGER NOT NULL,
    payload     BLOB    NOT NULL,
    enqueued_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tasks_by_lane ON tasks (family, shard, id);

CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY,           -- the task's id
    family      TEXT    NOT NULL,
    shard       INTEGER NOT NULL,
    payload     BLOB    NOT NULL,
    enqueued_at INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    died_at     INTEGER NOT NULL
) STRICT;

-- Who consumes a lane. `expires_at` is in milliseconds since the machine booted: wall clocks jump.
CREATE TABLE leases (
    family     TEXT    NOT NULL,
    shard      INTEGER NOT NULL,
    holder     TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (family, shard)
) STRICT, WITHOUT ROWID;

-- Events from a worker in another process to the gateway of this data directory.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    payload BLOB    NOT NULL
) STRICT;

-- Facts about this data directory, such as the number of shards its waiting tasks were routed to.
CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
