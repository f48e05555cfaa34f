CREATE TABLE idempotency_schema (version BIGINT NOT NULL PRIMARY KEY);
CREATE TABLE idempotency_records (
    id          BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    token       BYTEA  NOT NULL CHECK (length(token) = 16),
    fingerprint BYTEA  NOT NULL,
    effects     TEXT   NOT NULL CHECK (effects IN ('local', 'marked', 'opaque')),
    state       TEXT   NOT NULL CHECK (state IN ('in_flight', 'completed', 'tombstoned', 'released')),
    fence       BIGINT NOT NULL,
    attempt     BIGINT NOT NULL CHECK (attempt > 0),
    created_at  BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    cap_until   BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    effect_at   BIGINT,
    finished_at BIGINT,
    status      BIGINT,
    headers     BYTEA,
    body        BYTEA,
    location    BYTEA,
    reason      TEXT,
    CHECK ((state = 'completed') = (body IS NOT NULL)),
    CHECK ((state = 'tombstoned') = (reason IS NOT NULL))
) WITH (fillfactor = 70);

CREATE INDEX idempotency_records_expiry ON idempotency_records (expires_at);
INSERT INTO idempotency_schema (version) VALUES (1);
