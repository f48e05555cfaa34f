-- Version 1. Times are UTC text by SQLite's own clock; they compare as text.
CREATE TABLE saga_instances (
    id              TEXT PRIMARY KEY NOT NULL,
    business_id     TEXT NOT NULL,
    business_type   TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('pending', 'in_progress', 'committing', 'compensating',
                        'stuck', 'paused', 'completed', 'compensated', 'aborted')),
    current_step    INTEGER NOT NULL DEFAULT 0,
    error_message   TEXT,
    metadata        TEXT NOT NULL DEFAULT '{}',
    created_at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    completed_at    TEXT,
    compensated_at  TEXT,
    definition      TEXT NOT NULL,
    resume_status   TEXT,
    input           TEXT NOT NULL,
    input_hash      TEXT NOT NULL,
    owner_id        TEXT,
    lease_epoch     INTEGER NOT NULL DEFAULT 1,
    write_no        INTEGER NOT NULL DEFAULT 0,
    unresolved      INTEGER NOT NULL DEFAULT 0,
    row_version     INTEGER NOT NULL DEFAULT 1,
    stalled_claims  INTEGER NOT NULL DEFAULT 0,
    cancel_reason   TEXT,
    pause_requested INTEGER NOT NULL DEFAULT 0,
    run_at          TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    -- Begins with business_id, so that operators find a saga by it alone.
    UNIQUE (business_id, business_type),
    CONSTRAINT resume_status_iff_stopped CHECK ((status IN ('stuck', 'paused')) = (resume_status IS NOT NULL)),
    CONSTRAINT proven_end CHECK (status NOT IN ('completed', 'compensated') OR unresolved = 0),
    CONSTRAINT resting_has_no_owner CHECK (
        status IN ('pending', 'in_progress', 'committing', 'compensating') OR owner_id IS NULL)
);

CREATE INDEX saga_instances_due ON saga_instances (run_at)
    WHERE status IN ('pending', 'in_progress', 'committing', 'compensating');
CREATE INDEX saga_instances_owned ON saga_instances (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX saga_instances_waiting_for_people ON saga_instances (status, id) WHERE status IN ('stuck', 'paused');

CREATE TABLE saga_steps (
    saga_id          TEXT NOT NULL REFERENCES saga_instances (id),
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
    PRIMARY KEY (saga_id, step_order)
) WITHOUT ROWID;

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
