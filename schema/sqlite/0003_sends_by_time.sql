-- The client_id first: those of version 7 begin with the time, so new ones go to the end of the index, whatever their
-- channels, and share its last pages. With the channel first, each send wrote a page of its own.
DROP INDEX sends_by_client_id;
CREATE UNIQUE INDEX sends_by_client_id ON messages (client_id, sender, channel);
