-- How often a task was set aside already, and when first: carried through its lane when it is put back, so that a task
-- that dies of each retry is known by it.
ALTER TABLE tasks ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN first_died_at INTEGER;
ALTER TABLE dead_letters ADD COLUMN deaths INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead_letters ADD COLUMN first_died_at INTEGER; -- NULL: died_at
