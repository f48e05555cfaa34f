-- Version 1. Every time is the server's.
CREATE TABLE saga_instances (
    id              uuid PRIMARY KEY,
    business_id     text NOT NULL,
    business_type   text NOT NULL,
    status          text NOT NULL CHECK (status IN ('pending', 'in_progress', 'committing', 'compensating',
                        'stuck', 'paused', 'completed', 'compensated', 'aborted')),
    current_step    integer NOT NULL DEFAULT 0,
    error_message   text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at    timestamptz,
    compensated_at  timestamptz,
    definition      text NOT NULL,
    resume_status   text,
    input           text NOT NULL,
    input_hash      text NOT NULL,
    owner_id        uuid,
    lease_epoch     bigint NOT NULL DEFAULT 1,
    write_no        bigint NOT NULL DEFAULT 0,
    unresolved      integer NOT NULL DEFAULT 0,
    row_version     bigint NOT NULL DEFAULT 1,
    stalled_claims  integer NOT NULL DEFAULT 0,
    cancel_reason   text,
    pause_requested boolean NOT NULL DEFAULT false,
    run_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Begins with business_id, so that operators find a saga by it alone.
    UNIQUE (business_id, business_type),
    CONSTRAINT resume_status_iff_stopped CHECK ((status IN ('stuck', 'paused')) = (resume_status IS NOT NULL)),
    CONSTRAINT proven_end CHECK (status NOT IN ('completed', 'compensated') OR unresolved = 0),
    CONSTRAINT resting_has_no_owner CHECK (
        status IN ('pending', 'in_progress', 'committing', 'compensating') OR owner_id IS NULL)
) WITH (fillfactor = 80);

CREATE INDEX saga_instances_due ON saga_instances (run_at)
    WHERE status IN ('pending', 'in_progress', 'committing', 'compensating');
CREATE INDEX saga_instances_owned ON saga_instances (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX saga_instances_waiting_for_people ON saga_instances (status, id) WHERE status IN ('stuck', 'paused');

CREATE TABLE saga_steps (
    saga_id          uuid NOT NULL REFERENCES saga_instances (id),
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
    PRIMARY KEY (saga_id, step_order)
);

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
