//! Results and decisions.

/// All results of a batch. A mere step forward (`appends`) holds its saga's row while its step row goes in, so that no
/// claim can come between, but does not write it; every other record writes it. Each is fenced by itself, and step rows
/// are written only for those that passed. A lock wait ends in a fresh look at the row, so a claim in between wins. A
/// step row is never taken back to an older write.
pub(in super::super) const APPLY: &str = "\
WITH record AS (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::bigint[], $9::bigint[], $10::bigint[], $11::boolean[])
        AS r (id, epoch, write_no, was, status, resume, reason, current_step, unresolved, release, appends)),
held AS (
    SELECT h.id, r.epoch, r.write_no, h.cancel_reason, h.pause_requested
    FROM record r JOIN saga_heads h ON h.id = r.id
    WHERE r.appends AND h.lease_epoch = r.epoch AND h.status = r.was AND h.write_no < r.write_no
      AND h.error_message IS NULL AND h.unresolved = 0 AND h.stalled_claims = 0
    FOR SHARE OF h),
written AS (
    UPDATE saga_heads h SET
        status = r.status, resume_status = r.resume, error_message = r.reason, current_step = r.current_step,
        unresolved = r.unresolved, write_no = r.write_no, row_version = h.row_version + 1, stalled_claims = 0,
        updated_at = clock_timestamp(),
        owner_id = CASE WHEN r.release IS NULL AND r.status IN ('pending', 'in_progress', 'committing', 'compensating')
            THEN h.owner_id END,
        pause_requested = h.pause_requested AND r.status IN ('pending', 'in_progress', 'committing', 'compensating'),
        run_at = CASE WHEN r.release IS NULL THEN h.run_at
            ELSE clock_timestamp() + r.release * interval '1 millisecond' END,
        completed_at = CASE WHEN r.status = 'completed' THEN clock_timestamp() ELSE h.completed_at END,
        compensated_at = CASE WHEN r.status = 'compensated' THEN clock_timestamp() ELSE h.compensated_at END
    FROM record r
    WHERE NOT r.appends AND h.id = r.id AND h.lease_epoch = r.epoch AND h.status = r.was AND h.write_no < r.write_no
    RETURNING h.id, r.epoch, r.write_no, h.cancel_reason, h.pause_requested),
passed AS MATERIALIZED (SELECT * FROM held UNION ALL SELECT * FROM written),
steps AS (
    INSERT INTO saga_steps (saga_id, step_order, step_name, status, result, error_message, retry_count,
        max_retry_count, next_retry_at, executed_at, compensated_at, evidence, undo_retry_count, completion_no,
        idempotency_key, resolved_by, lease_epoch, write_no)
    SELECT p.id, s.step_order, s.step_name, s.status, s.result, s.error, s.retries, s.retries_max,
        clock_timestamp() + s.retry_in * interval '1 millisecond',
        CASE WHEN s.status = 'succeeded' THEN clock_timestamp() END,
        CASE WHEN s.status = 'compensated' THEN clock_timestamp() END,
        s.evidence, s.undo_retries, s.completion, s.key, s.resolved_by, p.epoch, p.write_no
    FROM unnest($12::uuid[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[],
        $19::bigint[], $20::bigint[], $21::text[], $22::bigint[], $23::bigint[], $24::text[], $25::text[])
        AS s (saga_id, step_order, step_name, status, result, error, retries, retries_max, retry_in, evidence,
            undo_retries, completion, key, resolved_by)
    JOIN passed p ON p.id = s.saga_id
    ON CONFLICT (saga_id, step_order) DO UPDATE SET
        status = excluded.status, result = excluded.result, error_message = excluded.error_message,
        retry_count = excluded.retry_count, max_retry_count = excluded.max_retry_count,
        next_retry_at = excluded.next_retry_at, executed_at = COALESCE(saga_steps.executed_at, excluded.executed_at),
        compensated_at = COALESCE(saga_steps.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
        undo_retry_count = excluded.undo_retry_count, completion_no = excluded.completion_no,
        resolved_by = excluded.resolved_by, lease_epoch = excluded.lease_epoch, write_no = excluded.write_no
    WHERE (saga_steps.lease_epoch, saga_steps.write_no) < (excluded.lease_epoch, excluded.write_no))
SELECT id, cancel_reason, pause_requested::int::bigint AS pause_requested FROM passed";

/// Where the refused ones stand: a second statement, because it must see what the first waited for.
pub(in super::super) const POSITIONS: &str = "\
SELECT h.id, h.lease_epoch, h.status, h.cancel_reason, h.pause_requested::int::bigint AS pause_requested,
    GREATEST(h.write_no, (SELECT max(s.write_no) FROM saga_steps s
                          WHERE s.saga_id = h.id AND s.lease_epoch = h.lease_epoch)) AS write_no
FROM saga_heads h WHERE h.id = ANY ($1)";

/// An operator's decision, its step rows and its audit row: one statement, so one transaction.
pub(in super::super) const DECIDE: &str = "\
WITH passed AS (
    UPDATE saga_heads SET
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
    WHERE id = $1 AND row_version = $2
    RETURNING id, lease_epoch, status),
steps AS (
    INSERT INTO saga_steps (saga_id, step_order, step_name, status, result, error_message, retry_count,
        max_retry_count, executed_at, compensated_at, evidence, undo_retry_count, completion_no, idempotency_key,
        resolved_by, lease_epoch, write_no)
    SELECT p.id, s.step_order, s.step_name, s.status, s.result, s.error, s.retries, s.retries_max,
        CASE WHEN s.status = 'succeeded' THEN clock_timestamp() END,
        CASE WHEN s.status = 'compensated' THEN clock_timestamp() END,
        s.evidence, s.undo_retries, s.completion, s.key, s.resolved_by, p.lease_epoch, 0
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
        lease_epoch = excluded.lease_epoch, write_no = excluded.write_no),
audit AS (
    INSERT INTO saga_audit (saga_id, actor, action, reason, before, after)
    SELECT id, $11, $12, $13, $14, status FROM passed)
SELECT lease_epoch FROM passed";
