-- What happened, in the order in which it was written. Each row's hash covers the row and the hash of the row before it.
CREATE TABLE audit (
    seq          INTEGER PRIMARY KEY,         -- from 1, without gaps
    at           INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    actor        TEXT    NOT NULL,
    tenant       BLOB,
    notification BLOB,
    ordinal      INTEGER,
    channel_id   BLOB,
    details      TEXT,                        -- JSON
    seal         BLOB,                        -- salted SHA-256 of the content, which may have been removed
    hash         BLOB    NOT NULL             -- SHA-256
) STRICT;

-- Content of single entries, as long as it is kept. That of a notification stands in `notification`, with its salt.
CREATE TABLE audit_content (
    seq     INTEGER PRIMARY KEY,
    salt    BLOB NOT NULL,
    content TEXT NOT NULL                     -- JSON
) STRICT;

-- In which blocks of 256 entries a tenant has any. Written lazily: up to `fed_through`.
CREATE TABLE audit_feed (
    tenant BLOB    NOT NULL,
    block  INTEGER NOT NULL,
    PRIMARY KEY (tenant, block)
) STRICT, WITHOUT ROWID;

-- One row: where the chain ends, and where it begins since old entries were removed.
CREATE TABLE audit_state (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    head_seq        INTEGER NOT NULL,
    head_hash       BLOB    NOT NULL,
    removed_through INTEGER NOT NULL,
    removed_hash    BLOB    NOT NULL,         -- of the last entry that was removed
    removed_at      INTEGER NOT NULL,         -- the latest time of those
    fed_through     INTEGER NOT NULL
) STRICT;
INSERT INTO audit_state VALUES (1, 0, zeroblob(32), 0, zeroblob(32), 0, 0);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
WHEN OLD.seq > (SELECT removed_through FROM audit_state WHERE id = 1)
BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;

-- Makes the seal of what was accepted unguessable. Goes with the content.
ALTER TABLE notification ADD COLUMN salt BLOB;

-- For people with a shell: sqlite3 conductor.db 'SELECT * FROM audit_log ORDER BY seq DESC LIMIT 20'
CREATE VIEW audit_log AS
SELECT a.seq, strftime('%Y-%m-%dT%H:%M:%fZ', a.at / 1000.0, 'unixepoch') AS at, a.kind, a.actor,
       lower(hex(a.tenant)) AS tenant, lower(hex(a.notification)) AS notification, a.ordinal,
       lower(hex(a.channel_id)) AS channel, a.details, c.content
FROM audit AS a LEFT JOIN audit_content AS c ON c.seq = a.seq;
