//! The statements. `now` is always SQLite's; durations arrive as modifiers such as `+2.500 seconds`.

pub(super) const INSERT: &str = "\
INSERT INTO saga_heads (id, business_id, business_type, status, definition, input, input_hash, owner_id, metadata)
VALUES (?1, ?2, ?3, 'in_progress', ?4, ?5, ?6, ?7, iif(?8 IS NULL, '{}', json_object('trace', ?8)))
ON CONFLICT (business_id, business_type) DO UPDATE SET business_id = excluded.business_id
RETURNING id, input_hash";

/// The same for a batch. `WHERE true` tells the parser that no join condition follows.
pub(super) const INSERT_MANY: &str = "\
INSERT INTO saga_heads (id, business_id, business_type, status, definition, input, input_hash, owner_id, metadata)
SELECT s.value ->> 0, s.value ->> 1, s.value ->> 2, 'in_progress', s.value ->> 3, s.value ->> 4, s.value ->> 5,
    s.value ->> 6, iif(s.value ->> 7 IS NULL, '{}', json_object('trace', s.value ->> 7))
FROM json_each(?1) s WHERE true
ON CONFLICT (business_id, business_type) DO UPDATE SET business_id = excluded.business_id
RETURNING id, input_hash, business_id, business_type";

pub(super) const BEAT: &str = "\
INSERT INTO saga_workers (worker_id, pid, heartbeat_at, expires_at)
VALUES (?1, ?2, strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now', ?3))
ON CONFLICT (worker_id) DO UPDATE
SET heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at";

pub(super) const HELD: &str = "\
SELECT COUNT(*) AS held FROM saga_workers
WHERE worker_id = ?1 AND expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// A beat of another worker from the future was written while the clock was ahead: it counts from now, so that a dead
/// worker is dead a lease later, and a living one has that long to beat again.
pub(super) const REBASE_WORKERS: &str = "\
UPDATE saga_workers SET heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    expires_at = strftime('%Y-%m-%d %H:%M:%f', 'now',
        printf('%+f seconds', (julianday(expires_at) - julianday(heartbeat_at)) * 86400))
WHERE worker_id <> ?1 AND heartbeat_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 minute')";

pub(super) const FORGET_DEAD_WORKERS: &str = "\
DELETE FROM saga_workers WHERE expires_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')";

pub(super) const RELEASE_ALL: &str = "\
UPDATE saga_heads SET owner_id = NULL, stalled_claims = 0, row_version = row_version + 1,
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE owner_id = ?1 AND status IN ('pending', 'in_progress', 'committing', 'compensating')";

pub(super) const RETIRE: &str = "DELETE FROM saga_workers WHERE worker_id = ?1";

pub(super) const DEFINE: &str = "\
INSERT INTO saga_definitions (fingerprint, saga_type, version, steps) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (fingerprint) DO UPDATE SET seen_at = strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// A cheap look without the write lock: most polls find nothing. It goes from owner to owner of the index, not from
/// saga to saga: what living workers drive costs nothing. Of those that may have killed their workers only a few go.
///
/// The worker that claims is alive, so it is not among the dead, whatever its lease says: what it owns and does not
/// name, it drives. It gets nothing unless it has beaten within the last half of its lease: it may have waited for the
/// file, and then the others have not beaten either. No wait ends later than in an hour: a row that says so was written
/// while the clock was ahead.
pub(super) const CLAIMABLE: &str = "\
WITH RECURSIVE owners (owner_id) AS (
    SELECT min(owner_id) FROM saga_heads
    WHERE status IN ('pending', 'in_progress', 'committing', 'compensating') AND owner_id IS NOT NULL
    UNION ALL
    SELECT (SELECT min(h.owner_id) FROM saga_heads h
            WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id > o.owner_id)
    FROM owners o WHERE o.owner_id IS NOT NULL),
due (id, run_at, suspect) AS MATERIALIZED (
SELECT id, run_at, stalled_claims >= ?5 FROM saga_heads
WHERE status IN ('pending', 'in_progress', 'committing', 'compensating') AND owner_id IS NULL
  AND run_at <= strftime('%Y-%m-%d %H:%M:%f', 'now')
  AND business_type || ' ' || definition IN (SELECT value FROM json_each(?3))
UNION
SELECT id, run_at, stalled_claims >= ?5 FROM saga_heads
WHERE status IN ('pending', 'in_progress', 'committing', 'compensating') AND owner_id IS NULL
  AND run_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '+61 minutes')
  AND business_type || ' ' || definition IN (SELECT value FROM json_each(?3))
UNION
SELECT h.id, h.run_at, h.stalled_claims >= ?5 AND o.owner_id <> ?1 FROM owners o CROSS JOIN saga_heads h
WHERE h.owner_id = o.owner_id AND h.status IN ('pending', 'in_progress', 'committing', 'compensating')
  AND (h.run_at <= strftime('%Y-%m-%d %H:%M:%f', 'now')
       OR h.run_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '+61 minutes'))
  AND CASE o.owner_id WHEN ?1 THEN h.id IN (SELECT value FROM json_each(?2))
      ELSE NOT EXISTS (SELECT 1 FROM saga_workers w WHERE w.worker_id = o.owner_id
                       AND w.expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now')) END
  AND h.business_type || ' ' || h.definition IN (SELECT value FROM json_each(?3))
)
SELECT id FROM (
    SELECT * FROM (SELECT * FROM due WHERE suspect ORDER BY run_at LIMIT ?6)
    UNION ALL
    SELECT * FROM (SELECT * FROM due WHERE NOT suspect ORDER BY run_at LIMIT ?4))
WHERE EXISTS (
    SELECT 1 FROM saga_workers w
    WHERE w.worker_id = ?1
      AND julianday(w.expires_at) - julianday('now') > (julianday(w.expires_at) - julianday(w.heartbeat_at)) / 2)
ORDER BY suspect DESC, run_at LIMIT ?4";

/// A worker that takes its own saga back is alive, so that claim does not count as stalled.
pub(super) const CLAIM: &str = "\
UPDATE saga_heads SET
    lease_epoch = lease_epoch + 1, write_no = 0, row_version = row_version + 1,
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    resume_status = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN status END,
    error_message = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2
        THEN COALESCE(error_message || '; ', '') || 'poison: ' || stalled_claims || ' claims in a row ended without progress; see what its step does to the worker, then resume'
        ELSE error_message END,
    status = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN 'paused' WHEN status = 'pending' THEN 'in_progress' ELSE status END,
    owner_id = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN NULL ELSE ?2 END,
    stalled_claims = CASE WHEN stalled_claims >= ?3 AND owner_id IS NOT ?2 THEN stalled_claims ELSE stalled_claims + (owner_id IS NOT ?2) END
WHERE id IN (SELECT value FROM json_each(?1))
RETURNING id, status, business_type, business_id";

/// The open sagas, by the two indexes that know them. A due saga without a living owner will be claimed soon, unless no
/// worker has its definition.
pub(super) const CENSUS: &str = "\
SELECT c.business_type, c.status, COUNT(*) AS sagas, SUM(c.unrunnable) AS unrunnable,
    CAST((julianday('now') - julianday(min(c.created_at))) * 86400000 AS INTEGER) AS oldest_ms
FROM (
    SELECT business_type, status, created_at,
        (run_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') OR run_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '+61 minutes'))
        AND business_type || ' ' || definition NOT IN (SELECT value FROM json_each(?1))
        AND NOT EXISTS (SELECT 1 FROM saga_workers w WHERE w.worker_id = owner_id
                        AND w.expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now')) AS unrunnable
    FROM saga_heads WHERE status IN ('pending', 'in_progress', 'committing', 'compensating')
    UNION ALL
    SELECT business_type, status, created_at, 0 FROM saga_heads WHERE status IN ('stuck', 'paused')) c
GROUP BY c.business_type, c.status";

pub(super) const OWNED: &str = "\
SELECT id FROM saga_heads
WHERE owner_id = ?1 AND status IN ('pending', 'in_progress', 'committing', 'compensating')";

/// Reads what operators ask of the sagas of a worker.
pub(super) const ASKED: &str = "\
SELECT id, cancel_reason, pause_requested FROM saga_heads
WHERE owner_id = ?1 AND status IN ('pending', 'in_progress', 'committing', 'compensating')
  AND (pause_requested OR cancel_reason IS NOT NULL)";

/// Reads the position of a saga: from its own row, or from a step row that was inserted since.
pub(super) const INSTANCES: &str = "\
SELECT h.id, h.business_type, h.business_id, h.definition, h.status, h.resume_status, h.error_message,
    max(h.current_step, (SELECT COALESCE(max(s.step_order), 0) FROM saga_steps s WHERE s.saga_id = h.id)) AS current_step,
    h.input, h.input_hash, h.owner_id, h.lease_epoch,
    max(h.write_no, (SELECT COALESCE(max(s.write_no), 0) FROM saga_steps s
                     WHERE s.saga_id = h.id AND s.lease_epoch = h.lease_epoch)) AS write_no,
    h.unresolved, h.row_version, h.stalled_claims, h.cancel_reason, h.pause_requested,
    CAST((julianday('now') - julianday(h.created_at)) * 86400000 AS INTEGER) AS age_ms,
    iif(json_valid(h.metadata), h.metadata ->> 'trace', NULL) AS trace
FROM saga_heads h WHERE h.id IN (SELECT value FROM json_each(?1))";

/// Reads the settled sagas by their own rows: every end or stop of a saga writes its row.
pub(super) const RESTED: &str = "\
SELECT id, status, current_step, error_message FROM saga_heads
WHERE id IN (SELECT value FROM json_each(?1))
  AND status NOT IN ('pending', 'in_progress', 'committing', 'compensating')";

pub(super) const FIND: &str = "SELECT id FROM saga_heads WHERE business_id = ?1 AND business_type = ?2";

pub(super) const LIST: &str = "\
SELECT id FROM saga_heads
WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR business_type = ?3)
ORDER BY id DESC LIMIT ?4";

pub(super) const STEPS: &str = "\
SELECT saga_id, step_order, step_name, status, result, error_message, retry_count, max_retry_count,
    undo_retry_count, completion_no, evidence, resolved_by,
    CAST((julianday(next_retry_at) - julianday('now')) * 86400000 AS INTEGER) AS retry_in_ms
FROM saga_steps WHERE saga_id IN (SELECT value FROM json_each(?1)) ORDER BY saga_id, step_order";

/// The rows of sagas, for the records of a batch that are more than a step forward. A saga of which something was asked
/// waits for nothing else; a request to turn back means nothing after the turn.
pub(super) const APPLY: &str = "\
UPDATE saga_heads SET
    status = r.status, resume_status = r.resume, error_message = r.reason, current_step = r.current_step,
    unresolved = r.unresolved, write_no = r.write_no, row_version = row_version + 1, stalled_claims = 0,
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    owner_id = CASE WHEN r.release IS NULL AND r.status IN ('pending', 'in_progress', 'committing', 'compensating') THEN owner_id END,
    pause_requested = CASE WHEN r.status IN ('pending', 'in_progress', 'committing', 'compensating') THEN pause_requested ELSE 0 END,
    run_at = CASE WHEN r.release IS NULL THEN run_at
        WHEN pause_requested OR (cancel_reason IS NOT NULL AND r.status = 'in_progress' AND NOT r.turning) THEN strftime('%Y-%m-%d %H:%M:%f', 'now')
        ELSE strftime('%Y-%m-%d %H:%M:%f', 'now', r.release) END,
    completed_at = CASE WHEN r.status = 'completed' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE completed_at END,
    compensated_at = CASE WHEN r.status = 'compensated' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE compensated_at END
FROM (SELECT value ->> 'saga' AS saga, value ->> 'epoch' AS epoch, value ->> 'write_no' AS write_no,
          value ->> 'from' AS was, value ->> 'status' AS status, value ->> 'resume' AS resume,
          value ->> 'reason' AS reason, value ->> 'current_step' AS current_step,
          value ->> 'unresolved' AS unresolved, value ->> 'release' AS release, value ->> 'turning' AS turning
      FROM json_each(?1)) r
WHERE id = r.saga AND lease_epoch = r.epoch AND saga_heads.status = r.was AND saga_heads.write_no < r.write_no
RETURNING id, cancel_reason, pause_requested";

pub(super) const POSITIONS: &str = "\
SELECT h.id, h.lease_epoch, h.status, h.cancel_reason, h.pause_requested,
    max(h.write_no, (SELECT COALESCE(max(s.write_no), 0) FROM saga_steps s
                     WHERE s.saga_id = h.id AND s.lease_epoch = h.lease_epoch)) AS write_no
FROM saga_heads h WHERE h.id IN (SELECT value FROM json_each(?1))";

/// The step rows of a batch: those of sagas whose row was just written, or decided on, with this number, and mere
/// steps forward, which are fenced here. A step row is never taken back to an older write.
pub(super) const STEPS_IN: &str = "\
INSERT INTO saga_steps (saga_id, step_order, step_name, status, result, error_message, retry_count,
    max_retry_count, next_retry_at, executed_at, compensated_at, evidence, undo_retry_count, completion_no,
    idempotency_key, resolved_by, lease_epoch, write_no)
SELECT h.id, s.value ->> 'order', s.value ->> 'name', s.value ->> 'status', s.value ->> 'output', s.value ->> 'error',
    s.value ->> 'retries', s.value ->> 'retries_max',
    CASE WHEN s.value ->> 'retry_in' IS NOT NULL
        THEN strftime('%Y-%m-%d %H:%M:%f', 'now', s.value ->> 'retry_in') END,
    CASE WHEN s.value ->> 'status' = 'succeeded' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') END,
    CASE WHEN s.value ->> 'status' = 'compensated' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') END,
    s.value ->> 'evidence', s.value ->> 'undo_retries', s.value ->> 'completion',
    h.id || ':' || (s.value ->> 'name') || ':do', s.value ->> 'resolved_by', h.lease_epoch, s.value ->> 'write_no'
FROM json_each(?1) s CROSS JOIN saga_heads h
WHERE h.id = s.value ->> 'saga' AND h.lease_epoch = s.value ->> 'epoch'
  AND CASE WHEN s.value ->> 'appends_to' IS NULL THEN h.write_no = s.value ->> 'write_no'
      ELSE h.status = s.value ->> 'appends_to' AND h.write_no < s.value ->> 'write_no'
          AND h.error_message IS NULL AND h.unresolved = 0 AND h.stalled_claims = 0 END
ON CONFLICT (saga_id, step_order) DO UPDATE SET
    status = excluded.status, result = excluded.result, error_message = excluded.error_message,
    retry_count = excluded.retry_count, max_retry_count = excluded.max_retry_count,
    next_retry_at = excluded.next_retry_at, executed_at = COALESCE(saga_steps.executed_at, excluded.executed_at),
    compensated_at = COALESCE(saga_steps.compensated_at, excluded.compensated_at), evidence = excluded.evidence,
    undo_retry_count = excluded.undo_retry_count, completion_no = excluded.completion_no,
    resolved_by = excluded.resolved_by, lease_epoch = excluded.lease_epoch, write_no = excluded.write_no
WHERE (saga_steps.lease_epoch, saga_steps.write_no) < (excluded.lease_epoch, excluded.write_no)
RETURNING saga_id AS id, (SELECT h.cancel_reason FROM saga_heads h WHERE h.id = saga_id) AS cancel_reason,
    (SELECT h.pause_requested FROM saga_heads h WHERE h.id = saga_id) AS pause_requested";

pub(super) const DECIDE: &str = "\
UPDATE saga_heads SET
    status = ?3, resume_status = ?4, error_message = ?5, current_step = ?6, unresolved = ?7,
    lease_epoch = lease_epoch + 1, write_no = 0, row_version = row_version + 1, stalled_claims = 0,
    owner_id = NULL, cancel_reason = COALESCE(?9, cancel_reason), pause_requested = ?10, run_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE id = ?1 AND row_version = ?2 AND NOT (?8 AND EXISTS (
    SELECT 1 FROM saga_workers w
    WHERE w.worker_id = saga_heads.owner_id AND w.expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now')))
RETURNING lease_epoch";

pub(super) const REQUEST: &str = "\
UPDATE saga_heads SET
    cancel_reason = COALESCE(?3, cancel_reason), pause_requested = pause_requested OR ?4,
    row_version = row_version + 1, run_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
    updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE id = ?1 AND row_version = ?2
RETURNING lease_epoch";

pub(super) const AUDIT: &str = "\
INSERT INTO saga_audit (saga_id, actor, action, reason, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// By the order of the primary key: ids begin with the time at which a saga was started, by a clock that may be a day
/// wrong.
pub(super) const OLD: &str = "\
SELECT id FROM saga_heads
WHERE id < (SELECT substr(hex, 1, 8) || '-' || substr(hex, 9, 4)
            FROM (SELECT printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - ?1 + 86400000) AS hex))
  AND status IN ('completed', 'compensated') AND updated_at <= strftime('%Y-%m-%d %H:%M:%f', 'now', ?2)
ORDER BY id LIMIT ?3";

pub(super) const FORGET_STEPS: &str =
    "DELETE FROM saga_steps WHERE saga_id IN (SELECT value FROM json_each(?1))";

pub(super) const FORGET: &str = "DELETE FROM saga_heads WHERE id IN (SELECT value FROM json_each(?1))";
