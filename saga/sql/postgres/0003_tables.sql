-- The tables of probity-saga, version 3. Every time in them is the server's.
--
-- The store runs this file itself if it may create tables. Otherwise the owner of the database runs it once, in one
-- transaction (psql --single-transaction --file), and grants what grants.sql names.

CREATE TABLE IF NOT EXISTS saga_schema (version bigint PRIMARY KEY);

-- One row per saga, written when it starts, is claimed, turns, stops and ends. A step forward only inserts its own row:
-- `saga_instances` shows both together. What an end changes stands last, because the log of an update leaves out what
-- stays the same at its begin.
CREATE TABLE saga_heads (
    id              uuid PRIMARY KEY,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_epoch     bigint NOT NULL DEFAULT 1,
    stalled_claims  integer NOT NULL DEFAULT 0,
    pause_requested boolean NOT NULL DEFAULT false,
    business_id     text NOT NULL,
    business_type   text NOT NULL,
    definition      text NOT NULL,
    input           text NOT NULL,
    input_hash      text NOT NULL,
    metadata        jsonb,
    cancel_reason   text,
    status          text NOT NULL,
    current_step    integer NOT NULL DEFAULT 0,
    unresolved      integer NOT NULL DEFAULT 0,
    row_version     integer NOT NULL DEFAULT 1,
    write_no        integer NOT NULL DEFAULT 0,
    -- None: it is as it was started.
    updated_at      timestamptz,
    owner_id        uuid,
    resume_status   text,
    error_message   text,
    -- Begins with business_id, so that operators find a saga by it alone.
    UNIQUE (business_id, business_type),
    -- One constraint, because each is read anew by every statement that writes.
    CONSTRAINT shape CHECK (CASE
        WHEN status IN ('pending', 'in_progress', 'committing', 'compensating') THEN resume_status IS NULL
        WHEN status IN ('stuck', 'paused') THEN resume_status IS NOT NULL AND owner_id IS NULL
        WHEN status IN ('completed', 'compensated') THEN
            resume_status IS NULL AND owner_id IS NULL AND unresolved = 0
        ELSE status = 'aborted' AND resume_status IS NULL AND owner_id IS NULL END)
) WITH (fillfactor = 50);

-- By owner first: a claim looks only at the sagas of workers that are dead, and at those without one.
CREATE INDEX saga_heads_active ON saga_heads (owner_id, run_at)
    WHERE status IN ('pending', 'in_progress', 'committing', 'compensating');
CREATE INDEX saga_heads_waiting_for_people ON saga_heads (status, id) WHERE status IN ('stuck', 'paused');

-- What a step forward writes; the view `saga_steps` shows it. What is the same for nearly every row is left out of it:
-- no retry, and an effect that came in the order of the steps.
-- No foreign key: a row is inserted by a statement that holds its saga's row, and the check would cost as much again.
CREATE TABLE saga_step_rows (
    saga_id          uuid NOT NULL,
    step_order       integer NOT NULL,
    write_no         integer NOT NULL,
    lease_epoch      bigint NOT NULL,
    executed_at      timestamptz,
    max_retry_count  integer NOT NULL,
    step_name        text NOT NULL,
    status           text NOT NULL CHECK (status IN ('executing', 'succeeded', 'failed', 'unknown', 'skipped',
                         'compensating', 'compensated', 'compensation_failed')),
    result           text,
    error_message    text,
    retry_count      integer,
    next_retry_at    timestamptz,
    compensated_at   timestamptz,
    evidence         text,
    undo_retry_count integer,
    completion_no    integer,
    resolved_by      text,
    PRIMARY KEY (saga_id, step_order)
);

-- For people and their tools.
CREATE VIEW saga_steps AS
SELECT saga_id, step_order, step_name, status, result, error_message, COALESCE(retry_count, 0) AS retry_count,
    max_retry_count, next_retry_at, executed_at, compensated_at, evidence,
    COALESCE(undo_retry_count, 0) AS undo_retry_count, COALESCE(completion_no, step_order) AS completion_no,
    saga_id || ':' || step_name || ':do' AS idempotency_key, resolved_by, lease_epoch, write_no
FROM saga_step_rows;

-- A saga is at its last step row; nothing else need be written for a step forward.
CREATE VIEW saga_instances AS
SELECT h.id, h.business_id, h.business_type, h.status,
    GREATEST(h.current_step, (SELECT max(s.step_order) FROM saga_step_rows s WHERE s.saga_id = h.id)) AS current_step,
    h.error_message, COALESCE(h.metadata, '{}') AS metadata, h.created_at,
    GREATEST(h.created_at, h.updated_at, (SELECT s.executed_at FROM saga_step_rows s WHERE s.saga_id = h.id
                                          ORDER BY s.step_order DESC LIMIT 1)) AS updated_at,
    CASE WHEN h.status = 'completed' THEN h.updated_at END AS completed_at,
    CASE WHEN h.status = 'compensated' THEN h.updated_at END AS compensated_at,
    h.definition, h.resume_status, h.input, h.input_hash, h.owner_id, h.lease_epoch,
    h.unresolved, h.row_version, h.stalled_claims, h.cancel_reason, h.pause_requested, h.run_at
FROM saga_heads h;

CREATE TABLE saga_workers (
    worker_id    uuid PRIMARY KEY,
    pid          bigint NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL
);

CREATE TABLE saga_definitions (
    fingerprint text PRIMARY KEY,
    saga_type   text NOT NULL,
    version     bigint NOT NULL,
    steps       jsonb NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE saga_audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    saga_id  uuid NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text NOT NULL,
    action   text NOT NULL,
    reason   text NOT NULL,
    before   text NOT NULL,
    after    text NOT NULL
);
CREATE INDEX saga_audit_by_saga ON saga_audit (saga_id);

INSERT INTO saga_schema (version) VALUES (3);
