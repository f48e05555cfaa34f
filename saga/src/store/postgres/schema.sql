-- Every time is the server's.
--
-- One row per saga, written when it starts, is claimed, turns, stops and ends. A step forward only inserts its own row:
-- `saga_instances` shows both together. What an end changes stands last, because the log of an update leaves out what
-- stays the same at its begin.
CREATE TABLE saga_heads (
    id              uuid PRIMARY KEY,
    business_id     text NOT NULL,
    business_type   text NOT NULL,
    definition      text NOT NULL,
    input           text NOT NULL,
    input_hash      text NOT NULL,
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_epoch     bigint NOT NULL DEFAULT 1,
    stalled_claims  integer NOT NULL DEFAULT 0,
    pause_requested boolean NOT NULL DEFAULT false,
    cancel_reason   text,
    status          text NOT NULL CHECK (status IN ('pending', 'in_progress', 'committing', 'compensating',
                        'stuck', 'paused', 'completed', 'compensated', 'aborted')),
    current_step    integer NOT NULL DEFAULT 0,
    unresolved      integer NOT NULL DEFAULT 0,
    row_version     bigint NOT NULL DEFAULT 1,
    write_no        bigint NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    owner_id        uuid,
    resume_status   text,
    error_message   text,
    completed_at    timestamptz,
    compensated_at  timestamptz,
    -- Begins with business_id, so that operators find a saga by it alone.
    UNIQUE (business_id, business_type),
    CONSTRAINT resume_status_iff_stopped CHECK ((status IN ('stuck', 'paused')) = (resume_status IS NOT NULL)),
    CONSTRAINT proven_end CHECK (status NOT IN ('completed', 'compensated') OR unresolved = 0),
    CONSTRAINT resting_has_no_owner CHECK (
        status IN ('pending', 'in_progress', 'committing', 'compensating') OR owner_id IS NULL)
) WITH (fillfactor = 75);

-- By owner first: a claim looks only at the sagas of workers that are dead, and at those without one.
CREATE INDEX saga_heads_active ON saga_heads (owner_id, run_at)
    WHERE status IN ('pending', 'in_progress', 'committing', 'compensating');
CREATE INDEX saga_heads_waiting_for_people ON saga_heads (status, id) WHERE status IN ('stuck', 'paused');

-- No foreign key: a row is inserted by a statement that holds its saga's row, and the check would cost as much again.
CREATE TABLE saga_steps (
    saga_id          uuid NOT NULL,
    step_order       integer NOT NULL,
    step_name        text NOT NULL,
    status           text NOT NULL CHECK (status IN ('executing', 'succeeded', 'failed', 'unknown', 'skipped',
                         'compensating', 'compensated', 'compensation_failed')),
    result           text,
    error_message    text,
    retry_count      integer NOT NULL DEFAULT 0,
    max_retry_count  integer NOT NULL DEFAULT 0,
    next_retry_at    timestamptz,
    executed_at      timestamptz,
    compensated_at   timestamptz,
    evidence         text,
    undo_retry_count integer NOT NULL DEFAULT 0,
    completion_no    integer NOT NULL,
    idempotency_key  text NOT NULL,
    resolved_by      text,
    lease_epoch      bigint NOT NULL,
    write_no         bigint NOT NULL,
    PRIMARY KEY (saga_id, step_order)
);

-- For people and their tools. A saga is at its last step row; nothing else need be written for a step forward.
CREATE VIEW saga_instances AS
SELECT h.id, h.business_id, h.business_type, h.status,
    GREATEST(h.current_step, (SELECT max(s.step_order) FROM saga_steps s WHERE s.saga_id = h.id)) AS current_step,
    h.error_message, h.metadata, h.created_at,
    GREATEST(h.updated_at, (SELECT s.executed_at FROM saga_steps s WHERE s.saga_id = h.id
                            ORDER BY s.step_order DESC LIMIT 1)) AS updated_at,
    h.completed_at, h.compensated_at, h.definition, h.resume_status, h.input, h.input_hash, h.owner_id, h.lease_epoch,
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
