CREATE TABLE idempotency_schema (version BIGINT NOT NULL PRIMARY KEY);
CREATE TABLE idempotency_records (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    token       BLOB    NOT NULL CHECK (length(token) = 16),
    fingerprint BLOB    NOT NULL,
    effects     TEXT    NOT NULL CHECK (effects IN ('local', 'marked', 'opaque')),
    state       TEXT    NOT NULL CHECK (state IN ('in_flight', 'completed', 'tombstoned', 'released')),
    fence       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL CHECK (attempt > 0),
    created_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    cap_until   INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    effect_at   INTEGER,
    finished_at INTEGER,
    status      INTEGER,
    headers     BLOB,
    body        BLOB,
    location    BLOB,
    reason      TEXT,
    CHECK ((state = 'completed') = (body IS NOT NULL)),
    CHECK ((state = 'tombstoned') = (reason IS NOT NULL))
) WITHOUT ROWID;

CREATE INDEX idempotency_records_expiry ON idempotency_records (expires_at);
INSERT INTO idempotency_schema (version) VALUES (1);
