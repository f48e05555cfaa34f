//! The statements. `now` is always SQLite's; durations arrive as modifiers such as `+2.500 seconds`.

pub(super) const INSERT: &str = "\
INSERT INTO saga_instances (id, business_id, business_type, status, definition, input, input_hash, owner_id)
VALUES (?1, ?2, ?3, 'in_progress', ?4, ?5, ?6, ?7)
ON CONFLICT (business_id, business_type) DO UPDATE SET business_id = excluded.business_id
RETURNING id, input_hash";

pub(super) const BEAT: &str = "\
INSERT INTO saga_workers (worker_id, pid, heartbeat_at, expires_at)
VALUES (?1, ?2, strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now', ?3))
ON CONFLICT (worker_id) DO UPDATE
SET heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at";

pub(super) const HELD: &str = "\
SELECT COUNT(*) AS held FROM saga_workers
WHERE worker_id = ?1 AND expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now')";

pub(super) const FORGET_DEAD_WORKERS: &str = "\
DELETE FROM saga_workers WHERE expires_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')";

pub(super) const RELEASE_ALL: &str = "\
UPDATE saga_instances SET owner_id = NULL, stalled_claims = 0, row_version = row_version + 1,
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE owner_id = ?1";

pub(super) const RETIRE: &str = "DELETE FROM saga_workers WHERE worker_id = ?1";

pub(super) const DEFINE: &str = "\
INSERT INTO saga_definitions (fingerprint, saga_type, version, steps) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (fingerprint) DO UPDATE SET seen_at = strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// A cheap look without the write lock: most polls find nothing.
pub(super) const CLAIMABLE: &str = "\
SELECT id FROM saga_instances
WHERE status IN ('pending', 'in_progress', 'committing', 'compensating')
  AND run_at <= strftime('%Y-%m-%d %H:%M:%f', 'now')
  AND (owner_id IS NULL
       OR NOT EXISTS (SELECT 1 FROM saga_workers w WHERE w.worker_id = saga_instances.owner_id
                      AND w.expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now'))
       OR (owner_id = ?1 AND id IN (SELECT value FROM json_each(?2))))
  AND business_type || ' ' || definition IN (SELECT value FROM json_each(?3))
ORDER BY run_at LIMIT ?4";

/// A worker that takes its own saga back is alive, so that claim does not count as stalled.
pub(super) const CLAIM: &str = "\
UPDATE saga_instances SET
    lease_epoch = lease_epoch + 1, write_no = 0, row_version = row_version + 1,
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    resume_status = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN status END,
    error_message = CASE WHEN stalled_claims >= ?3
        THEN 'poison: ' || stalled_claims || ' claims in a row ended without progress; see what its step does to the worker, then resume'
        ELSE error_message END,
    status = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN 'paused' WHEN status = 'pending' THEN 'in_progress' ELSE status END,
    owner_id = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN NULL ELSE ?2 END,
    stalled_claims = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN stalled_claims ELSE stalled_claims + (owner_id IS NOT ?2) END
WHERE id IN (SELECT value FROM json_each(?1))
RETURNING id, status";

pub(super) const OWNED: &str = "SELECT id FROM saga_instances WHERE owner_id = ?1";

pub(super) const INSTANCES: &str = "\
SELECT id, business_type, business_id, definition, status, resume_status, error_message, current_step, input,
    input_hash, owner_id, lease_epoch, write_no, unresolved, row_version, stalled_claims, cancel_reason,
    pause_requested, CAST((julianday('now') - julianday(created_at)) * 86400000 AS INTEGER) AS age_ms
FROM saga_instances WHERE id IN (SELECT value FROM json_each(?1))";

pub(super) const FIND: &str = "SELECT id FROM saga_instances WHERE business_id = ?1 AND business_type = ?2";

pub(super) const LIST: &str = "\
SELECT id FROM saga_instances
WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR business_type = ?3)
ORDER BY id DESC LIMIT ?4";

pub(super) const STEPS: &str = "\
SELECT saga_id, step_order, step_name, status, result, error_message, retry_count, max_retry_count,
    undo_retry_count, completion_no, idempotency_key, evidence, resolved_by,
    CAST((julianday(next_retry_at) - julianday('now')) * 86400000 AS INTEGER) AS retry_in_ms
FROM saga_steps WHERE saga_id IN (SELECT value FROM json_each(?1)) ORDER BY saga_id, step_order";

pub(super) const APPLY: &str = "\
UPDATE saga_instances SET
    status = ?5, resume_status = ?6, error_message = ?7, current_step = ?8, unresolved = ?9, write_no = ?4,
    row_version = row_version + 1, stalled_claims = 0, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    owner_id = CASE WHEN ?10 IS NULL AND ?5 IN ('pending', 'in_progress', 'committing', 'compensating') THEN owner_id END,
    pause_requested = CASE WHEN ?5 IN ('pending', 'in_progress', 'committing', 'compensating') THEN pause_requested ELSE 0 END,
    run_at = CASE WHEN ?10 IS NULL THEN run_at ELSE strftime('%Y-%m-%d %H:%M:%f', 'now', ?10) END,
    completed_at = CASE WHEN ?5 = 'completed' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE completed_at END,
    compensated_at = CASE WHEN ?5 = 'compensated' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE compensated_at END
WHERE id = ?1 AND lease_epoch = ?2 AND status = ?3 AND write_no < ?4
RETURNING cancel_reason, pause_requested";

pub(super) const POSITION: &str = "\
SELECT lease_epoch, write_no, cancel_reason, pause_requested FROM saga_instances WHERE id = ?1";

pub(super) const STEP: &str = "\
INSERT INTO saga_steps (saga_id, step_order, step_name, status, result, error_message, retry_count,
    max_retry_count, next_retry_at, executed_at, compensated_at, evidence, undo_retry_count, completion_no,
    idempotency_key, resolved_by, lease_epoch)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
    CASE WHEN ?9 IS NULL THEN NULL ELSE strftime('%Y-%m-%d %H:%M:%f', 'now', ?9) END,
    CASE WHEN ?4 = 'succeeded' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') END,
    CASE WHEN ?4 = 'compensated' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') END,
    ?10, ?11, ?12, ?13, ?14, ?15)
ON CONFLICT (saga_id, step_order) DO UPDATE SET
    status = excluded.status, result = excluded.result, error_message = excluded.error_message,
    retry_count = excluded.retry_count, max_retry_count = excluded.max_retry_count,
    next_retry_at = excluded.next_retry_at, executed_at = COALESCE(saga_steps.executed_at, excluded.executed_at),
    compensated_at = COALESCE(saga_steps.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
    undo_retry_count = excluded.undo_retry_count, completion_no = excluded.completion_no,
    resolved_by = excluded.resolved_by, lease_epoch = excluded.lease_epoch";

pub(super) const DECIDE: &str = "\
UPDATE saga_instances SET
    status = ?3, resume_status = ?4, error_message = ?5, current_step = ?6, unresolved = ?7,
    lease_epoch = lease_epoch + 1, write_no = 0, row_version = row_version + 1, stalled_claims = 0,
    owner_id = NULL, pause_requested = 0, run_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE id = ?1 AND row_version = ?2
RETURNING lease_epoch";

pub(super) const REQUEST: &str = "\
UPDATE saga_instances SET
    cancel_reason = COALESCE(?3, cancel_reason), pause_requested = pause_requested OR ?4,
    row_version = row_version + 1, run_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE id = ?1 AND row_version = ?2
RETURNING lease_epoch";

pub(super) const AUDIT: &str = "\
INSERT INTO saga_audit (saga_id, actor, action, reason, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
