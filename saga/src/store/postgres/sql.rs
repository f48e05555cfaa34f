//! The statements. One per batch: lists arrive as arrays, durations as milliseconds, and every time
//! is the server's.

pub(super) const INSERT_ONE: &str = "\
INSERT INTO saga_instances (id, business_id, business_type, status, definition, input, input_hash, owner_id)
VALUES ($1::uuid, $2, $3, 'in_progress', $4, $5, $6, $7::uuid)
ON CONFLICT (business_id, business_type) DO UPDATE SET business_id = excluded.business_id
RETURNING id::text AS id, input_hash, business_id, business_type";

pub(super) const INSERT_MANY: &str = "\
INSERT INTO saga_instances (id, business_id, business_type, status, definition, input, input_hash, owner_id)
SELECT n.id::uuid, n.business_id, n.business_type, 'in_progress', n.definition, n.input, n.input_hash, n.owner::uuid
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS n (id, business_id, business_type, definition, input, input_hash, owner)
ORDER BY n.business_id, n.business_type
ON CONFLICT (business_id, business_type) DO UPDATE SET business_id = excluded.business_id
RETURNING id::text AS id, input_hash, business_id, business_type";

/// The expiry is computed after the row lock was granted, so that no lease is born expired.
pub(super) const BEAT: &str = "\
WITH before AS (SELECT expires_at > clock_timestamp() AS held FROM saga_workers WHERE worker_id = $1::uuid),
dead AS (DELETE FROM saga_workers WHERE worker_id <> $1::uuid AND expires_at < clock_timestamp() - interval '1 day'),
beat AS (
    INSERT INTO saga_workers (worker_id, pid, heartbeat_at, expires_at)
    VALUES ($1::uuid, $2, clock_timestamp(), clock_timestamp() + $3 * interval '1 millisecond')
    ON CONFLICT (worker_id) DO UPDATE
    SET heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + $3 * interval '1 millisecond')
SELECT COALESCE((SELECT held FROM before), false) AS held";

pub(super) const RETIRE: &str = "\
WITH gone AS (DELETE FROM saga_workers WHERE worker_id = $1::uuid)
UPDATE saga_instances SET owner_id = NULL, stalled_claims = 0, row_version = row_version + 1, updated_at = clock_timestamp()
WHERE owner_id = $1::uuid";

pub(super) const DEFINE: &str = "\
INSERT INTO saga_definitions (fingerprint, saga_type, version, steps) VALUES ($1, $2, $3, $4::jsonb)
ON CONFLICT (fingerprint) DO UPDATE SET seen_at = clock_timestamp()";

/// A worker that takes its own saga back is alive, so that claim does not count as stalled.
///
/// Looks first and locks second: a row that changed in between is looked at again by the lock, but
/// the workers are not, so the new owner of a changed row could seem dead. Whatever moved since it
/// was seen is left for the next look. More are seen than locked, because others lock some of them.
pub(super) const CLAIM: &str = "\
WITH seen AS MATERIALIZED (
    SELECT i.id, i.row_version FROM saga_instances i
    WHERE i.status IN ('pending', 'in_progress', 'committing', 'compensating') AND i.run_at <= now()
      AND (i.owner_id IS NULL
           OR NOT EXISTS (SELECT 1 FROM saga_workers w WHERE w.worker_id = i.owner_id AND w.expires_at > clock_timestamp())
           OR (i.owner_id = $1::uuid AND i.id = ANY ($2::uuid[])))
      AND i.business_type || ' ' || i.definition = ANY ($3::text[])
    ORDER BY i.run_at LIMIT 4 * $4),
due AS (
    SELECT i.id FROM seen JOIN saga_instances i ON i.id = seen.id
    WHERE i.row_version = seen.row_version LIMIT $4 FOR UPDATE OF i SKIP LOCKED)
UPDATE saga_instances i SET
    lease_epoch = i.lease_epoch + 1, write_no = 0, row_version = i.row_version + 1, updated_at = clock_timestamp(),
    resume_status = CASE WHEN i.stalled_claims >= $5 AND i.owner_id IS DISTINCT FROM $1::uuid THEN i.status END,
    error_message = CASE WHEN i.stalled_claims >= $5
        THEN 'poison: ' || i.stalled_claims || ' claims in a row ended without progress; see what its step does to the worker, then resume'
        ELSE i.error_message END,
    status = CASE WHEN i.stalled_claims >= $5 AND i.owner_id IS DISTINCT FROM $1::uuid THEN 'paused' WHEN i.status = 'pending' THEN 'in_progress' ELSE i.status END,
    owner_id = CASE WHEN i.stalled_claims >= $5 AND i.owner_id IS DISTINCT FROM $1::uuid THEN NULL ELSE $1::uuid END,
    stalled_claims = CASE WHEN i.stalled_claims >= $5 AND i.owner_id IS DISTINCT FROM $1::uuid THEN i.stalled_claims ELSE i.stalled_claims + (i.owner_id IS DISTINCT FROM $1::uuid)::int END
FROM due WHERE i.id = due.id
RETURNING i.id::text AS id, i.status";

pub(super) const OWNED: &str = "SELECT id::text AS id FROM saga_instances WHERE owner_id = $1::uuid";

pub(super) const INSTANCES: &str = "\
SELECT id::text AS id, business_type, business_id, definition, status, resume_status, error_message,
    current_step::bigint AS current_step, input, input_hash, owner_id::text AS owner_id, lease_epoch, write_no,
    unresolved::bigint AS unresolved, row_version, stalled_claims::bigint AS stalled_claims, cancel_reason,
    pause_requested::int::bigint AS pause_requested,
    (EXTRACT(EPOCH FROM clock_timestamp() - created_at) * 1000)::bigint AS age_ms
FROM saga_instances WHERE id = ANY ($1::uuid[])";

pub(super) const STEPS: &str = "\
SELECT saga_id::text AS saga_id, step_order::bigint AS step_order, step_name, status, result, error_message,
    retry_count::bigint AS retry_count, max_retry_count::bigint AS max_retry_count,
    undo_retry_count::bigint AS undo_retry_count, completion_no::bigint AS completion_no, idempotency_key, evidence,
    resolved_by, (EXTRACT(EPOCH FROM next_retry_at - clock_timestamp()) * 1000)::bigint AS retry_in_ms
FROM saga_steps WHERE saga_id = ANY ($1::uuid[]) ORDER BY saga_id, step_order";

pub(super) const FIND: &str =
    "SELECT id::text AS id FROM saga_instances WHERE business_id = $1 AND business_type = $2";

pub(super) const LIST: &str = "\
SELECT id::text AS id FROM saga_instances
WHERE ($1::uuid IS NULL OR id < $1::uuid) AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR business_type = $3)
ORDER BY id DESC LIMIT $4";

/// All results of a batch: each saga's row is fenced by itself, and step rows are written only for
/// the sagas that passed. A lock wait ends in a fresh look at the row, so a claim in between wins.
pub(super) const APPLY: &str = "\
WITH record AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::bigint[], $9::bigint[], $10::bigint[])
        AS r (id, epoch, write_no, was, status, resume, reason, current_step, unresolved, release)),
passed AS (
    UPDATE saga_instances i SET
        status = r.status, resume_status = r.resume, error_message = r.reason, current_step = r.current_step,
        unresolved = r.unresolved, write_no = r.write_no, row_version = i.row_version + 1, stalled_claims = 0,
        updated_at = clock_timestamp(),
        owner_id = CASE WHEN r.release IS NULL AND r.status IN ('pending', 'in_progress', 'committing', 'compensating')
            THEN i.owner_id END,
        pause_requested = i.pause_requested AND r.status IN ('pending', 'in_progress', 'committing', 'compensating'),
        run_at = CASE WHEN r.release IS NULL THEN i.run_at
            ELSE clock_timestamp() + r.release * interval '1 millisecond' END,
        completed_at = CASE WHEN r.status = 'completed' THEN clock_timestamp() ELSE i.completed_at END,
        compensated_at = CASE WHEN r.status = 'compensated' THEN clock_timestamp() ELSE i.compensated_at END
    FROM record r
    WHERE i.id = r.id::uuid AND i.lease_epoch = r.epoch AND i.status = r.was AND i.write_no < r.write_no
    RETURNING i.id, i.lease_epoch, i.cancel_reason, i.pause_requested),
steps AS (
    INSERT INTO saga_steps (saga_id, step_order, step_name, status, result, error_message, retry_count,
        max_retry_count, next_retry_at, executed_at, compensated_at, evidence, undo_retry_count, completion_no,
        idempotency_key, resolved_by, lease_epoch)
    SELECT p.id, s.step_order, s.step_name, s.status, s.result, s.error, s.retries, s.retries_max,
        clock_timestamp() + s.retry_in * interval '1 millisecond',
        CASE WHEN s.status = 'succeeded' THEN clock_timestamp() END,
        CASE WHEN s.status = 'compensated' THEN clock_timestamp() END,
        s.evidence, s.undo_retries, s.completion, s.key, s.resolved_by, p.lease_epoch
    FROM unnest($11::text[], $12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[],
        $18::bigint[], $19::bigint[], $20::text[], $21::bigint[], $22::bigint[], $23::text[], $24::text[])
        AS s (saga_id, step_order, step_name, status, result, error, retries, retries_max, retry_in, evidence,
            undo_retries, completion, key, resolved_by)
    JOIN passed p ON p.id = s.saga_id::uuid
    ON CONFLICT (saga_id, step_order) DO UPDATE SET
        status = excluded.status, result = excluded.result, error_message = excluded.error_message,
        retry_count = excluded.retry_count, max_retry_count = excluded.max_retry_count,
        next_retry_at = excluded.next_retry_at, executed_at = COALESCE(saga_steps.executed_at, excluded.executed_at),
        compensated_at = COALESCE(saga_steps.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
        undo_retry_count = excluded.undo_retry_count, completion_no = excluded.completion_no,
        resolved_by = excluded.resolved_by, lease_epoch = excluded.lease_epoch)
SELECT id::text AS id, cancel_reason, pause_requested::int::bigint AS pause_requested FROM passed";

/// Where the refused ones stand: a second statement, because it must see what the first waited for.
pub(super) const POSITIONS: &str = "\
SELECT id::text AS id, lease_epoch, write_no, cancel_reason, pause_requested::int::bigint AS pause_requested
FROM saga_instances WHERE id = ANY ($1::uuid[])";

/// An operator's decision, its step rows and its audit row: one statement, so one transaction.
pub(super) const DECIDE: &str = "\
WITH passed AS (
    UPDATE saga_instances SET
        status = CASE WHEN $3 THEN $4 ELSE status END,
        resume_status = CASE WHEN $3 THEN $5 ELSE resume_status END,
        error_message = CASE WHEN $3 THEN $6 ELSE error_message END,
        current_step = CASE WHEN $3 THEN $7::bigint ELSE current_step END,
        unresolved = CASE WHEN $3 THEN $8::bigint ELSE unresolved END,
        lease_epoch = lease_epoch + $3::int, write_no = CASE WHEN $3 THEN 0 ELSE write_no END,
        owner_id = CASE WHEN $3 THEN NULL ELSE owner_id END,
        stalled_claims = CASE WHEN $3 THEN 0 ELSE stalled_claims END,
        cancel_reason = COALESCE($9, cancel_reason), pause_requested = (pause_requested AND NOT $3) OR $10,
        row_version = row_version + 1, run_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE id = $1::uuid AND row_version = $2
    RETURNING id, lease_epoch, status),
steps AS (
    INSERT INTO saga_steps (saga_id, step_order, step_name, status, result, error_message, retry_count,
        max_retry_count, executed_at, compensated_at, evidence, undo_retry_count, completion_no, idempotency_key,
        resolved_by, lease_epoch)
    SELECT p.id, s.step_order, s.step_name, s.status, s.result, s.error, s.retries, s.retries_max,
        CASE WHEN s.status = 'succeeded' THEN clock_timestamp() END,
        CASE WHEN s.status = 'compensated' THEN clock_timestamp() END,
        s.evidence, s.undo_retries, s.completion, s.key, s.resolved_by, p.lease_epoch
    FROM passed p, unnest($15::bigint[], $16::text[], $17::text[], $18::text[], $19::text[], $20::bigint[],
        $21::bigint[], $22::text[], $23::bigint[], $24::bigint[], $25::text[], $26::text[])
        AS s (step_order, step_name, status, result, error, retries, retries_max, evidence, undo_retries, completion,
            key, resolved_by)
    ON CONFLICT (saga_id, step_order) DO UPDATE SET
        status = excluded.status, result = excluded.result, error_message = excluded.error_message,
        retry_count = excluded.retry_count, next_retry_at = NULL,
        executed_at = COALESCE(saga_steps.executed_at, excluded.executed_at),
        compensated_at = COALESCE(saga_steps.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
        undo_retry_count = excluded.undo_retry_count, resolved_by = excluded.resolved_by,
        lease_epoch = excluded.lease_epoch),
audit AS (
    INSERT INTO saga_audit (saga_id, actor, action, reason, before, after)
    SELECT id, $11, $12, $13, $14, status FROM passed)
SELECT lease_epoch FROM passed";
