//! The statements. One per batch: lists arrive as arrays, durations as milliseconds, and every time
//! is the server's.

mod claim;
mod write;

pub(super) use claim::{ASKED, CENSUS, CLAIM, FORGET_WORKER, OWNED, RELEASE_ALL};
pub(super) use write::{APPEND, APPLY, APPLY_SEVERAL, DECIDE, LOCAL, POSITIONS};

pub(super) const INSERT_ONE: &str = "\
INSERT INTO saga_heads (id, business_id, business_type, status, definition, input, input_hash, owner_id, metadata)
VALUES ($1, $2, $3, 'in_progress', $4, $5, $6, $7,
    CASE WHEN $8::text IS NOT NULL THEN jsonb_build_object('trace', $8::text) END)
ON CONFLICT (business_id, business_type) DO UPDATE SET business_id = excluded.business_id
RETURNING id, input_hash, business_id, business_type";

/// The sagas whose business id is free. Without `ON CONFLICT`, which would write a record more for each into the log;
/// a start that loses a race for a business id fails by its unique index.
pub(super) const INSERT_MANY: &str = "\
INSERT INTO saga_heads (id, business_id, business_type, status, definition, input, input_hash, owner_id, metadata)
SELECT n.id, n.business_id, n.business_type, 'in_progress', n.definition, n.input, n.input_hash, n.owner,
    CASE WHEN n.trace IS NOT NULL THEN jsonb_build_object('trace', n.trace) END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[])
    AS n (id, business_id, business_type, definition, input, input_hash, owner, trace)
WHERE NOT EXISTS (
    SELECT FROM saga_heads h WHERE h.business_id = n.business_id AND h.business_type = n.business_type)
RETURNING id";

pub(super) const INSERTED_BEFORE: &str = "\
SELECT h.id, h.input_hash, h.business_id, h.business_type
FROM unnest($1::text[], $2::text[]) AS n (business_id, business_type)
JOIN saga_heads h ON h.business_id = n.business_id AND h.business_type = n.business_type";

/// The expiry is computed after the row lock was granted, so that no lease is born expired. A beat of another worker from
/// the future was written while the clock was ahead: it counts from now, so that a dead worker is dead a lease later, and
/// a living one has that long to beat again.
pub(super) const BEAT: &str = "\
WITH before AS (SELECT expires_at > clock_timestamp() AS held FROM saga_workers WHERE worker_id = $1),
dead AS (DELETE FROM saga_workers WHERE worker_id <> $1 AND expires_at < clock_timestamp() - interval '1 day'),
ahead AS (
    UPDATE saga_workers
    SET heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + (expires_at - heartbeat_at)
    WHERE worker_id <> $1 AND heartbeat_at > clock_timestamp() + interval '1 minute'),
beat AS (
    INSERT INTO saga_workers (worker_id, pid, heartbeat_at, expires_at)
    VALUES ($1, $2, clock_timestamp(), clock_timestamp() + $3 * interval '1 millisecond')
    ON CONFLICT (worker_id) DO UPDATE
    SET heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + $3 * interval '1 millisecond')
SELECT COALESCE((SELECT held FROM before), false) AS held";

pub(super) const DEFINE: &str = "\
INSERT INTO saga_definitions (fingerprint, saga_type, version, steps) VALUES ($1, $2, $3, $4::jsonb)
ON CONFLICT (fingerprint) DO UPDATE SET seen_at = clock_timestamp()";

/// Reads the position of a saga: from its own row, or from a step row that was inserted since.
pub(super) const INSTANCES: &str = "\
SELECT h.id::text AS id, h.business_type, h.business_id, h.definition, h.status, h.resume_status, h.error_message,
    GREATEST(h.current_step, (SELECT max(s.step_order) FROM saga_step_rows s WHERE s.saga_id = h.id))::bigint
        AS current_step,
    h.input, h.input_hash, h.owner_id::text AS owner_id, h.lease_epoch,
    GREATEST(h.write_no, (SELECT max(s.write_no) FROM saga_step_rows s
                          WHERE s.saga_id = h.id AND s.lease_epoch = h.lease_epoch))::bigint AS write_no,
    h.unresolved::bigint AS unresolved, h.row_version::bigint AS row_version, h.stalled_claims::bigint AS stalled_claims, h.cancel_reason,
    h.pause_requested::int::bigint AS pause_requested,
    (EXTRACT(EPOCH FROM clock_timestamp() - h.created_at) * 1000)::bigint AS age_ms,
    h.metadata ->> 'trace' AS trace
FROM saga_heads h WHERE h.id = ANY ($1)";

/// Reads the settled sagas by their own rows: every end or stop of a saga writes its row.
pub(super) const RESTED: &str = "\
SELECT id::text AS id, status, current_step::bigint AS current_step, error_message
FROM saga_heads WHERE id = ANY ($1) AND status NOT IN ('pending', 'in_progress', 'committing', 'compensating')";

pub(super) const STEPS: &str = "\
SELECT saga_id::text AS saga_id, step_order::bigint AS step_order, step_name, status, result, error_message,
    COALESCE(retry_count, 0)::bigint AS retry_count, max_retry_count::bigint AS max_retry_count,
    COALESCE(undo_retry_count, 0)::bigint AS undo_retry_count,
    COALESCE(completion_no, step_order)::bigint AS completion_no, evidence, resolved_by,
    (EXTRACT(EPOCH FROM next_retry_at - clock_timestamp()) * 1000)::bigint AS retry_in_ms
FROM saga_step_rows WHERE saga_id = ANY ($1) ORDER BY saga_id, step_order";

pub(super) const FIND: &str = "SELECT id FROM saga_heads WHERE business_id = $1 AND business_type = $2";

pub(super) const LIST: &str = "\
SELECT id FROM saga_heads
WHERE ($1::uuid IS NULL OR id < $1) AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR business_type = $3)
ORDER BY id DESC LIMIT $4";

/// By the order of the primary key: ids begin with the time at which a saga was started, by a clock that may be a day
/// wrong.
pub(super) const PURGE: &str = "\
WITH old AS MATERIALIZED (
    SELECT id FROM saga_heads
    -- A SELECT of its own is computed once, so that the index can use it.
    WHERE id < (SELECT (lpad(to_hex((EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint - $1 + 86400000), 12, '0')
                        || '00000000000000000000')::uuid)
      AND status IN ('completed', 'compensated') AND updated_at <= clock_timestamp() - $1 * interval '1 millisecond'
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED),
steps AS (DELETE FROM saga_step_rows s USING old WHERE s.saga_id = old.id)
DELETE FROM saga_heads h USING old WHERE h.id = old.id RETURNING h.id";
