-- What providers reported later, one row a message: of a delivery in parts, each part has its own.
CREATE TABLE receipt (
    notification BLOB    NOT NULL,
    ordinal      INTEGER NOT NULL,
    part         INTEGER NOT NULL,
    parts        INTEGER NOT NULL,           -- how many the delivery has
    arrival      TEXT    NOT NULL,           -- 'delivered' is never replaced by 'undelivered'
    at           INTEGER NOT NULL,
    code         TEXT,
    detail       TEXT,
    PRIMARY KEY (notification, ordinal, part)
) STRICT, WITHOUT ROWID;
