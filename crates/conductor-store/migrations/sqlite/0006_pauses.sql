-- A hash of the parts that were sent: where it does not fit, the text is cut elsewhere now, and begins anew.
ALTER TABLE pending ADD COLUMN cuts INTEGER NOT NULL DEFAULT 0;
-- 'channel' or 'lane': what its provider told to wait until `due_at`. NULL: neither, or nobody was asked to.
ALTER TABLE pending ADD COLUMN limited TEXT;
