-- Requests that were accepted and then refused when their turn came. Delivered again after a crash, such a task must be
-- refused again, although the channel may have changed since.
CREATE TABLE refusals (
    channel_id BLOB    NOT NULL,               -- of a channel that need not be there
    client_id  BLOB    NOT NULL,
    sender     TEXT    NOT NULL,
    code       TEXT,                           -- NULL: there was nothing to do
    at         INTEGER NOT NULL,
    PRIMARY KEY (channel_id, client_id, sender)
) STRICT, WITHOUT ROWID;
CREATE INDEX refusals_by_age ON refusals (at);
