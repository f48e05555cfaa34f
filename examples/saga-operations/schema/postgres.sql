-- Version 1 of saga-operations, PostgreSQL. Version 2 will be another file.
-- Decisions that need a second operator. A decision applies to the saga as it was seen (row_version) and to nothing later.
CREATE TABLE saga_decisions (
    id            UUID PRIMARY KEY,
    business_type TEXT NOT NULL,
    business_id   TEXT NOT NULL,
    row_version   BIGINT NOT NULL,
    verb          TEXT NOT NULL,
    body          TEXT NOT NULL,
    asked_by      TEXT NOT NULL,
    asked_at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    confirmed_by  TEXT,
    confirmed_at  TIMESTAMPTZ,
    CHECK (confirmed_by IS NULL OR confirmed_by <> asked_by)
);
CREATE INDEX saga_decisions_open ON saga_decisions (asked_at) WHERE confirmed_by IS NULL;
