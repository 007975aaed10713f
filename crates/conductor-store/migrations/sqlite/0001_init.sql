-- What a caller posted. Never changed after it was accepted.
CREATE TABLE notification (
    id          BLOB    NOT NULL PRIMARY KEY, -- UUIDv7
    tenant      BLOB    NOT NULL,
    channel     TEXT    NOT NULL,             -- the channel's type
    channel_id  BLOB    NOT NULL,
    target      TEXT,
    message     TEXT    NOT NULL,
    title       TEXT,
    priority    TEXT    NOT NULL,
    format      TEXT    NOT NULL,
    data        TEXT,                         -- JSON
    metadata    TEXT,                         -- JSON
    key         TEXT,
    fallback    TEXT,                         -- JSON
    accepted_at INTEGER NOT NULL,             -- all times: milliseconds since 1970, UTC
    send_at     INTEGER,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A delivery that has not ended. Narrow, and deleted at the end, so that it stays small however much was ever sent.
CREATE TABLE pending (
    notification  BLOB    NOT NULL,
    ordinal       INTEGER NOT NULL,           -- 0 is the first; fallbacks and redirects follow
    tenant        BLOB    NOT NULL,
    channel_id    BLOB    NOT NULL,
    channel       TEXT,                       -- NULL: channel and target are the notification's own
    target        TEXT,
    lane          INTEGER NOT NULL,           -- hash of the target
    priority      TEXT    NOT NULL,
    due_at        INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,           -- made in all
    failures      INTEGER NOT NULL,           -- of them, those that count towards the backoff
    next_fallback INTEGER NOT NULL,
    held          INTEGER NOT NULL,
    claimed       INTEGER NOT NULL,           -- written before an attempt that may have killed a process before
    lost          INTEGER NOT NULL,           -- attempts that a dying process took with it
    PRIMARY KEY (notification, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_claimed ON pending (notification, ordinal) WHERE claimed > 0;

-- A delivery that has ended.
CREATE TABLE ended (
    notification  BLOB    NOT NULL,
    ordinal       INTEGER NOT NULL,
    tenant        BLOB    NOT NULL,
    channel_id    BLOB    NOT NULL,
    channel       TEXT,
    target        TEXT,
    status        TEXT    NOT NULL,
    reason        TEXT,
    provider_id   TEXT,
    ended_at      INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    next_fallback INTEGER NOT NULL,
    PRIMARY KEY (notification, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_dead ON ended (tenant, notification) WHERE status IN ('failed', 'expired', 'undelivered');

CREATE TABLE attempt (
    notification   BLOB    NOT NULL,
    ordinal        INTEGER NOT NULL,
    number         INTEGER NOT NULL,
    at             INTEGER NOT NULL,
    duration_ms    INTEGER NOT NULL,
    outcome        TEXT    NOT NULL,
    code           TEXT,
    detail         TEXT,
    retry_after_ms INTEGER,
    PRIMARY KEY (notification, ordinal, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant       BLOB    NOT NULL,
    key          TEXT    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    notification BLOB    NOT NULL,
    accepted_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- The notification that holds a `key` while it is queued.
CREATE TABLE live_key (
    tenant       BLOB NOT NULL,
    channel_id   BLOB NOT NULL,
    target       TEXT NOT NULL,
    key          TEXT NOT NULL,
    notification BLOB NOT NULL,
    PRIMARY KEY (tenant, channel_id, target, key)
) STRICT, WITHOUT ROWID;

-- Each tenant's notifications in order. Written lazily, in sorted batches: all up to `feed_mark` in `meta` are here.
CREATE TABLE feed (
    tenant       BLOB NOT NULL,
    notification BLOB NOT NULL,
    PRIMARY KEY (tenant, notification)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- For people with a shell: sqlite3 conductor.db 'SELECT * FROM deliveries ORDER BY accepted_at DESC LIMIT 20'
CREATE VIEW deliveries AS
SELECT lower(hex(n.id)) AS notification, d.ordinal, lower(hex(n.tenant)) AS tenant,
       coalesce(d.channel, n.channel) AS channel, d.status,
       strftime('%Y-%m-%dT%H:%M:%fZ', n.accepted_at / 1000.0, 'unixepoch') AS accepted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', d.at / 1000.0, 'unixepoch') AS due_or_ended_at,
       d.attempts, d.reason, substr(n.message, 1, 80) AS message
FROM (
    SELECT notification, ordinal, channel, CASE WHEN held THEN 'held' WHEN attempts > 0 THEN 'retrying' ELSE 'queued' END AS status,
           due_at AS at, attempts, NULL AS reason FROM pending
    UNION ALL
    SELECT notification, ordinal, channel, status, ended_at, attempts, reason FROM ended
) AS d JOIN notification AS n ON n.id = d.notification;
