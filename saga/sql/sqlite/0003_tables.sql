-- The tables of probity-saga, version 3. Times are UTC text by SQLite's own clock; they compare as text.
--
-- The store runs this file itself, unless it was told only to verify the tables.

CREATE TABLE IF NOT EXISTS saga_schema (version INTEGER PRIMARY KEY NOT NULL);

-- One row per saga, written when it starts, is claimed, turns, stops and ends. A step forward only inserts its own row:
-- `saga_instances` shows both together.
CREATE TABLE saga_heads (
    id              TEXT PRIMARY KEY NOT NULL,
    business_id     TEXT NOT NULL,
    business_type   TEXT NOT NULL,
    definition      TEXT NOT NULL,
    input           TEXT NOT NULL,
    input_hash      TEXT NOT NULL,
    metadata        TEXT NOT NULL DEFAULT '{}',
    created_at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    run_at          TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    lease_epoch     INTEGER NOT NULL DEFAULT 1,
    stalled_claims  INTEGER NOT NULL DEFAULT 0,
    pause_requested INTEGER NOT NULL DEFAULT 0,
    cancel_reason   TEXT,
    status          TEXT NOT NULL CHECK (status IN ('pending', 'in_progress', 'committing', 'compensating',
                        'stuck', 'paused', 'completed', 'compensated', 'aborted')),
    current_step    INTEGER NOT NULL DEFAULT 0,
    unresolved      INTEGER NOT NULL DEFAULT 0,
    row_version     INTEGER NOT NULL DEFAULT 1,
    write_no        INTEGER NOT NULL DEFAULT 0,
    updated_at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    owner_id        TEXT,
    resume_status   TEXT,
    error_message   TEXT,
    completed_at    TEXT,
    compensated_at  TEXT,
    -- Begins with business_id, so that operators find a saga by it alone.
    UNIQUE (business_id, business_type),
    CONSTRAINT resume_status_iff_stopped CHECK ((status IN ('stuck', 'paused')) = (resume_status IS NOT NULL)),
    CONSTRAINT proven_end CHECK (status NOT IN ('completed', 'compensated') OR unresolved = 0),
    CONSTRAINT resting_has_no_owner CHECK (
        status IN ('pending', 'in_progress', 'committing', 'compensating') OR owner_id IS NULL)
);

-- By owner first: a claim looks only at the sagas of workers that are dead, and at those without one.
CREATE INDEX saga_heads_active ON saga_heads (owner_id, run_at)
    WHERE status IN ('pending', 'in_progress', 'committing', 'compensating');
CREATE INDEX saga_heads_waiting_for_people ON saga_heads (status, id) WHERE status IN ('stuck', 'paused');

CREATE TABLE saga_steps (
    saga_id          TEXT NOT NULL,
    step_order       INTEGER NOT NULL,
    step_name        TEXT NOT NULL,
    status           TEXT NOT NULL CHECK (status IN ('executing', 'succeeded', 'failed', 'unknown', 'skipped',
                         'compensating', 'compensated', 'compensation_failed')),
    result           TEXT,
    error_message    TEXT,
    retry_count      INTEGER NOT NULL DEFAULT 0,
    max_retry_count  INTEGER NOT NULL DEFAULT 0,
    next_retry_at    TEXT,
    executed_at      TEXT,
    compensated_at   TEXT,
    evidence         TEXT,
    undo_retry_count INTEGER NOT NULL DEFAULT 0,
    completion_no    INTEGER NOT NULL,
    idempotency_key  TEXT NOT NULL,
    resolved_by      TEXT,
    lease_epoch      INTEGER NOT NULL,
    write_no         INTEGER NOT NULL,
    PRIMARY KEY (saga_id, step_order)
) WITHOUT ROWID;

-- For people and their tools. A saga is at its last step row; nothing else need be written for a step forward.
CREATE VIEW saga_instances AS
SELECT h.id, h.business_id, h.business_type, h.status,
    max(h.current_step, (SELECT COALESCE(max(s.step_order), 0) FROM saga_steps s WHERE s.saga_id = h.id)) AS current_step,
    h.error_message, h.metadata, h.created_at,
    max(h.updated_at, COALESCE((SELECT s.executed_at FROM saga_steps s WHERE s.saga_id = h.id
                                ORDER BY s.step_order DESC LIMIT 1), h.updated_at)) AS updated_at,
    h.completed_at, h.compensated_at, h.definition, h.resume_status, h.input, h.input_hash, h.owner_id, h.lease_epoch,
    h.unresolved, h.row_version, h.stalled_claims, h.cancel_reason, h.pause_requested, h.run_at
FROM saga_heads h;

CREATE TABLE saga_workers (
    worker_id    TEXT PRIMARY KEY NOT NULL,
    pid          INTEGER NOT NULL,
    started_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    heartbeat_at TEXT NOT NULL,
    expires_at   TEXT NOT NULL
);

CREATE TABLE saga_definitions (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    saga_type   TEXT NOT NULL,
    version     INTEGER NOT NULL,
    steps       TEXT NOT NULL,
    seen_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

CREATE TABLE saga_audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    saga_id  TEXT NOT NULL,
    at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    reason   TEXT NOT NULL,
    before   TEXT NOT NULL,
    after    TEXT NOT NULL
);
CREATE INDEX saga_audit_by_saga ON saga_audit (saga_id);

INSERT INTO saga_schema (version) VALUES (3);
