-- A bulk retry: many dead letters are queued again, step by step. A step and its place here are one transaction.
CREATE TABLE replay_job (
    id          BLOB    NOT NULL PRIMARY KEY, -- UUIDv7; what was accepted after it is not taken
    tenant      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    filter      TEXT    NOT NULL,             -- JSON
    redirect    TEXT,                         -- JSON
    interval_ns INTEGER NOT NULL,             -- between two that are due
    position    BLOB    NOT NULL,             -- all notifications from this one on have been visited
    next_due    INTEGER NOT NULL,
    retried     INTEGER NOT NULL,
    skipped     INTEGER NOT NULL,
    ended_at    INTEGER,
    canceled    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX replay_job_tenant ON replay_job (tenant, id);
CREATE INDEX replay_job_running ON replay_job (id) WHERE ended_at IS NULL;
