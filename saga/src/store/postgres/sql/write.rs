//! Results and decisions.

/// Mere steps forward. Each holds its saga's row while its step row goes in, so that no claim can come between, but
/// does not write it. A saga whose row has to change after all, or whose step has a row already, is left out.
pub(crate) const APPEND: &str = "\
WITH held AS MATERIALIZED (
    SELECT r.*, h.cancel_reason, h.pause_requested
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::bigint[], $15::text[])
        AS r (id, epoch, write_no, was, step_order, step_name, step_status, result, error, retries, retries_max,
            evidence, undo_retries, completion, resolved_by)
    JOIN saga_heads h ON h.id = r.id
    WHERE h.lease_epoch = r.epoch AND h.status = r.was AND h.write_no < r.write_no
      AND h.error_message IS NULL AND h.unresolved = 0 AND h.stalled_claims = 0
      AND NOT EXISTS (SELECT FROM saga_step_rows s WHERE s.saga_id = r.id AND s.step_order = r.step_order)
    FOR SHARE OF h),
steps AS (
    INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name,
        status, result, error_message, retry_count, evidence, undo_retry_count, completion_no, resolved_by)
    SELECT id, step_order, write_no, epoch, CASE WHEN step_status = 'succeeded' THEN clock_timestamp() END,
        retries_max, step_name, step_status, result, error, retries, evidence, undo_retries, completion, resolved_by
    FROM held)
SELECT id, cancel_reason, pause_requested::int::bigint AS pause_requested FROM held";

// A saga of which something was asked waits for nothing else; a request to turn back means nothing after the turn.
macro_rules! heads {
    () => {
        "\
WITH written AS (
    UPDATE saga_heads h SET
        status = r.status, resume_status = r.resume, error_message = r.reason, current_step = r.current_step,
        unresolved = r.unresolved, write_no = r.write_no, row_version = h.row_version + 1, stalled_claims = 0,
        updated_at = clock_timestamp(), owner_id = CASE WHEN r.keeps THEN h.owner_id END,
        pause_requested = h.pause_requested AND r.active,
        run_at = CASE WHEN r.release IS NULL THEN h.run_at
            WHEN h.pause_requested OR (h.cancel_reason IS NOT NULL AND r.status = 'in_progress' AND NOT r.turning)
            THEN clock_timestamp()
            ELSE clock_timestamp() + r.release * interval '1 millisecond' END"
    };
}

/// Results that write their saga's row, with at most one step row each. Each is fenced by itself, and its step row is
/// written only if it passed. A lock wait ends in a fresh look at the row, so a claim in between wins. A step row is
/// never taken back to an older write.
pub(crate) const APPLY: &str = concat!(
    heads!(),
    "
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::boolean[], $12::boolean[], $13::bigint[], $14::text[], $15::text[],
        $16::text[], $17::text[], $18::bigint[], $19::bigint[], $20::text[], $21::bigint[], $22::bigint[], $23::text[],
        $24::bigint[], $25::boolean[])
        AS r (id, epoch, write_no, was, status, resume, reason, current_step, unresolved, release, active, keeps,
            step_order, step_name, step_status, result, error, retries, retries_max, evidence, undo_retries, completion,
            resolved_by, retry_in, turning)
    LEFT JOIN saga_step_rows s ON s.saga_id = r.id AND s.step_order = r.step_order
    WHERE h.id = r.id AND h.lease_epoch = r.epoch AND h.status = r.was AND h.write_no < r.write_no
    RETURNING h.cancel_reason, h.pause_requested, r.*, s.saga_id IS NOT NULL AS replaces),
fresh AS (
    INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name,
        status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count,
        completion_no, resolved_by)
    SELECT id, step_order, write_no, epoch, CASE WHEN step_status = 'succeeded' THEN clock_timestamp() END, retries_max,
        step_name, step_status, result, error, retries, clock_timestamp() + retry_in * interval '1 millisecond',
        CASE WHEN step_status = 'compensated' THEN clock_timestamp() END, evidence, undo_retries, completion, resolved_by
    FROM written WHERE step_order IS NOT NULL AND NOT replaces),
replaced AS (
    UPDATE saga_step_rows s SET
        status = w.step_status, result = w.result, error_message = w.error, retry_count = w.retries,
        max_retry_count = w.retries_max, next_retry_at = clock_timestamp() + w.retry_in * interval '1 millisecond',
        executed_at = COALESCE(s.executed_at, CASE WHEN w.step_status = 'succeeded' THEN clock_timestamp() END),
        compensated_at = COALESCE(s.compensated_at, CASE WHEN w.step_status = 'compensated' THEN clock_timestamp() END),
        evidence = w.evidence, undo_retry_count = w.undo_retries, completion_no = w.completion,
        resolved_by = w.resolved_by, lease_epoch = w.epoch, write_no = w.write_no
    FROM written w
    WHERE w.replaces AND s.saga_id = w.id AND s.step_order = w.step_order
      AND (s.lease_epoch, s.write_no) < (w.epoch, w.write_no))
SELECT id, cancel_reason, pause_requested::int::bigint AS pause_requested FROM written"
);

macro_rules! several {
    ($fence:literal) => {
        concat!(
            heads!(),
    "
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::boolean[], $12::boolean[], $26::boolean[])
        AS r (id, epoch, write_no, was, status, resume, reason, current_step, unresolved, release, active, keeps,
            turning)
    WHERE h.id = r.id AND h.lease_epoch = r.epoch AND h.status = r.was AND h.write_no < r.write_no",
            $fence,
            "
    RETURNING h.id, r.epoch, r.write_no, h.cancel_reason, h.pause_requested),
steps AS (
    INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name,
        status, result, error_message, retry_count, next_retry_at, compensated_at, evidence, undo_retry_count,
        completion_no, resolved_by)
    SELECT w.id, s.step_order, w.write_no, w.epoch, CASE WHEN s.status = 'succeeded' THEN clock_timestamp() END,
        s.retries_max, s.step_name, s.status, s.result, s.error, s.retries,
        clock_timestamp() + s.retry_in * interval '1 millisecond',
        CASE WHEN s.status = 'compensated' THEN clock_timestamp() END, s.evidence, s.undo_retries, s.completion,
        s.resolved_by
    FROM unnest($13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[], $19::bigint[],
        $20::text[], $21::bigint[], $22::bigint[], $23::text[], $24::bigint[], $25::uuid[])
        AS s (step_order, step_name, status, result, error, retries, retries_max, evidence, undo_retries, completion,
            resolved_by, retry_in, saga_id)
    JOIN written w ON w.id = s.saga_id
    ON CONFLICT (saga_id, step_order) DO UPDATE SET
        status = excluded.status, result = excluded.result, error_message = excluded.error_message,
        retry_count = excluded.retry_count, max_retry_count = excluded.max_retry_count,
        next_retry_at = excluded.next_retry_at,
        executed_at = COALESCE(saga_step_rows.executed_at, excluded.executed_at),
        compensated_at = COALESCE(saga_step_rows.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
        undo_retry_count = excluded.undo_retry_count, completion_no = excluded.completion_no,
        resolved_by = excluded.resolved_by, lease_epoch = excluded.lease_epoch, write_no = excluded.write_no
    WHERE (saga_step_rows.lease_epoch, saga_step_rows.write_no) < (excluded.lease_epoch, excluded.write_no))
SELECT id, cancel_reason, pause_requested::int::bigint AS pause_requested FROM written"
        )
    };
}

/// The same as `APPLY`, for the few records that write several step rows.
pub(crate) const APPLY_SEVERAL: &str = several!("");

/// The record of a local step, in its transaction: the saga's row is always written, so that a repetition waits
/// for the row, sees the number, and is refused. It passes only in the transaction that was begun for the step.
pub(crate) const LOCAL: &str =
    several!("\n      AND current_setting('probity_saga.local_step', true) = 'open'");

/// Reads the positions of the sagas whose records were refused. It is a second statement, because it must see what
/// the first waited for.
pub(crate) const POSITIONS: &str = "\
SELECT h.id, h.lease_epoch, h.status, h.cancel_reason, h.pause_requested::int::bigint AS pause_requested,
    GREATEST(h.write_no, (SELECT max(s.write_no) FROM saga_step_rows s
                          WHERE s.saga_id = h.id AND s.lease_epoch = h.lease_epoch))::bigint AS write_no
FROM saga_heads h WHERE h.id = ANY ($1)";

/// An operator's decision, its step rows and its audit row: one statement, so one transaction.
pub(crate) const DECIDE: &str = "\
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
    WHERE id = $1 AND row_version = $2 AND NOT ($26 AND EXISTS (
        SELECT FROM saga_workers w WHERE w.worker_id = owner_id AND w.expires_at > clock_timestamp()))
    RETURNING id, lease_epoch, status),
steps AS (
    INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, executed_at, max_retry_count, step_name,
        status, result, error_message, retry_count, compensated_at, evidence, undo_retry_count, completion_no,
        resolved_by)
    SELECT p.id, s.step_order, 0, p.lease_epoch, CASE WHEN s.status = 'succeeded' THEN clock_timestamp() END,
        s.retries_max, s.step_name, s.status, s.result, s.error, s.retries,
        CASE WHEN s.status = 'compensated' THEN clock_timestamp() END, s.evidence, s.undo_retries, s.completion,
        s.resolved_by
    FROM passed p, unnest($15::bigint[], $16::text[], $17::text[], $18::text[], $19::text[], $20::bigint[],
        $21::bigint[], $22::text[], $23::bigint[], $24::bigint[], $25::text[])
        AS s (step_order, step_name, status, result, error, retries, retries_max, evidence, undo_retries, completion,
            resolved_by)
    ON CONFLICT (saga_id, step_order) DO UPDATE SET
        status = excluded.status, result = excluded.result, error_message = excluded.error_message,
        retry_count = excluded.retry_count, next_retry_at = NULL,
        executed_at = COALESCE(saga_step_rows.executed_at, excluded.executed_at),
        compensated_at = COALESCE(saga_step_rows.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
        undo_retry_count = excluded.undo_retry_count, resolved_by = excluded.resolved_by,
        lease_epoch = excluded.lease_epoch, write_no = excluded.write_no),
audit AS (
    INSERT INTO saga_audit (saga_id, actor, action, reason, before, after)
    SELECT id, $11, $12, $13, $14, status FROM passed)
SELECT lease_epoch FROM passed";
