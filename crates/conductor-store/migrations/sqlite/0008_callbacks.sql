-- What is to be posted to a tenant's own server. Kept in the transaction that changed what it tells of.
CREATE TABLE callback (
    endpoint     BLOB    NOT NULL,
    number       INTEGER NOT NULL,            -- counts from 1 for each endpoint
    id           BLOB    NOT NULL,            -- the same in every attempt
    event        TEXT    NOT NULL,
    notification BLOB,                        -- NULL: it tells of a channel
    body         TEXT    NOT NULL,            -- JSON, as it is posted
    created_at   INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    PRIMARY KEY (endpoint, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX callback_due ON callback (endpoint, due_at, number);
CREATE INDEX callback_notification ON callback (notification) WHERE notification IS NOT NULL;

-- How each endpoint goes.
CREATE TABLE callback_endpoint (
    endpoint    BLOB    NOT NULL PRIMARY KEY, -- UUIDv5 of tenant and URL
    tenant      BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,             -- of what is configured for it
    made        INTEGER NOT NULL,             -- the number of its last callback
    waiting     INTEGER NOT NULL,
    delivered   INTEGER NOT NULL,
    given_up    INTEGER NOT NULL,
    dropped     INTEGER NOT NULL,
    disabled_at INTEGER,
    last_at     INTEGER,
    last_ok     INTEGER,
    last_code   TEXT,
    last_detail TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX callback_endpoint_tenant ON callback_endpoint (tenant);

-- The last callbacks of each endpoint that were given up.
CREATE TABLE callback_given_up (
    endpoint     BLOB    NOT NULL,
    number       INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    event        TEXT    NOT NULL,
    notification BLOB,
    created_at   INTEGER NOT NULL,
    given_up_at  INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    code         TEXT,
    detail       TEXT,
    PRIMARY KEY (endpoint, number)
) STRICT, WITHOUT ROWID;

-- The channels of which their tenant was told last that they are down.
CREATE TABLE channel_down (
    channel BLOB    NOT NULL PRIMARY KEY,
    tenant  BLOB    NOT NULL,
    since   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
