//! The statements about owners: heartbeats, claims and releases.

/// A worker that takes its own saga back is alive, so that claim does not count as stalled.
///
/// Looks first and locks second: a row that changed in between is looked at again by the lock, but
/// the workers are not, so the new owner of a changed row could seem dead. A row that changed since it was read is left
/// for the next claim. More are seen than locked, because others lock some of them.
///
/// It goes from owner to owner of the index, not from saga to saga: the sagas of living workers cost nothing. Suspects
/// are looked for separately, and only if the request allows some: no index leads to them.
///
/// The claiming worker is alive, so it is not among the dead, even if its lease has expired: it drives the sagas that
/// it owns and does not name. It gets none unless its last heartbeat is younger than half of its lease: this statement
/// may have waited for a server that was away, and then the other workers could not send a heartbeat either. No wait
/// ends later than in an hour: a row whose time is more than 61 minutes away was written while the clock was ahead. The
/// minute is for `now()`, which is the beginning of this statement: the row may be younger.
pub(crate) const CLAIM: &str = "\
WITH RECURSIVE owners AS (
    (SELECT owner_id FROM saga_heads
     WHERE status IN ('pending', 'in_progress', 'committing', 'compensating') AND owner_id IS NOT NULL
     ORDER BY owner_id LIMIT 1)
    UNION ALL
    SELECT (SELECT h.owner_id FROM saga_heads h
            WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id > o.owner_id
            ORDER BY h.owner_id LIMIT 1)
    FROM owners o WHERE o.owner_id IS NOT NULL),
dead AS MATERIALIZED (
    SELECT o.owner_id FROM owners o
    WHERE o.owner_id <> $1 AND NOT EXISTS (
        SELECT 1 FROM saga_workers w WHERE w.worker_id = o.owner_id AND w.expires_at > clock_timestamp())),
due AS (
    (SELECT h.id, h.row_version, h.run_at, h.business_type, h.definition FROM saga_heads h
     WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id IS NULL
       AND h.run_at <= now() AND h.stalled_claims < $6 AND h.business_type || ' ' || h.definition = ANY ($3::text[])
     ORDER BY h.run_at LIMIT 4 * $4)
    UNION ALL
    (SELECT h.id, h.row_version, h.run_at, h.business_type, h.definition FROM saga_heads h
     WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id IS NULL
       AND h.run_at > now() + interval '61 minutes' AND h.stalled_claims < $6
       AND h.business_type || ' ' || h.definition = ANY ($3::text[])
     ORDER BY h.run_at LIMIT 4 * $4)
    UNION ALL
    SELECT of_dead.* FROM dead d CROSS JOIN LATERAL (
        SELECT h.id, h.row_version, h.run_at, h.business_type, h.definition FROM saga_heads h
        WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id = d.owner_id
          AND (h.run_at <= now() OR h.run_at > now() + interval '61 minutes') AND h.stalled_claims < $6
          AND h.business_type || ' ' || h.definition = ANY ($3::text[])
        ORDER BY h.run_at LIMIT 4 * $4) of_dead
    UNION ALL
    SELECT h.id, h.row_version, h.run_at, h.business_type, h.definition FROM saga_heads h
    WHERE h.id = ANY ($2::uuid[]) AND h.owner_id = $1 AND (h.run_at <= now() OR h.run_at > now() + interval '61 minutes')
      AND h.status IN ('pending', 'in_progress', 'committing', 'compensating')
      AND h.business_type || ' ' || h.definition = ANY ($3::text[])),
seen AS MATERIALIZED (SELECT DISTINCT ON (run_at, id) id, row_version FROM due ORDER BY run_at, id LIMIT 4 * $4),
suspects AS MATERIALIZED (
    (SELECT h.id, h.row_version, h.run_at FROM saga_heads h
     WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id IS NULL
       AND h.run_at <= now() AND h.stalled_claims >= $6 AND h.business_type || ' ' || h.definition = ANY ($3::text[])
     ORDER BY h.run_at LIMIT 4 * $7)
    UNION ALL
    (SELECT h.id, h.row_version, h.run_at FROM saga_heads h
     WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id IS NULL
       AND h.run_at > now() + interval '61 minutes' AND h.stalled_claims >= $6
       AND h.business_type || ' ' || h.definition = ANY ($3::text[])
     ORDER BY h.run_at LIMIT 4 * $7)
    UNION ALL
    SELECT of_dead.* FROM dead d CROSS JOIN LATERAL (
        SELECT h.id, h.row_version, h.run_at FROM saga_heads h
        WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating') AND h.owner_id = d.owner_id
          AND (h.run_at <= now() OR h.run_at > now() + interval '61 minutes') AND h.stalled_claims >= $6
          AND h.business_type || ' ' || h.definition = ANY ($3::text[])
        ORDER BY h.run_at LIMIT 4 * $7) of_dead),
fit AS MATERIALIZED (
    SELECT 1 FROM saga_workers w
    WHERE w.worker_id = $1 AND w.expires_at - clock_timestamp() > (w.expires_at - w.heartbeat_at) / 2),
alone AS (
    SELECT h.id, h.stalled_claims >= $5 AS poison
    FROM (SELECT * FROM suspects ORDER BY run_at, id LIMIT 4 * $7) s JOIN saga_heads h ON h.id = s.id
    WHERE h.row_version = s.row_version AND EXISTS (SELECT FROM fit) LIMIT LEAST($4, $7) FOR UPDATE OF h SKIP LOCKED),
others AS (
    SELECT h.id FROM seen JOIN saga_heads h ON h.id = seen.id
    WHERE h.row_version = seen.row_version AND EXISTS (SELECT FROM fit) LIMIT $4 - (SELECT count(*) FROM alone) FOR UPDATE OF h SKIP LOCKED),
locked AS (SELECT id, poison FROM alone UNION ALL SELECT id, false FROM others)
UPDATE saga_heads h SET
    lease_epoch = h.lease_epoch + 1, write_no = 0, row_version = h.row_version + 1, updated_at = clock_timestamp(),
    resume_status = CASE WHEN l.poison THEN h.status END,
    error_message = CASE WHEN l.poison
        THEN COALESCE(h.error_message || '; ', '') || 'poison: ' || h.stalled_claims
            || ' claims in a row ended without progress; see what its step does to the worker, then resume'
        ELSE h.error_message END,
    status = CASE WHEN l.poison THEN 'paused' WHEN h.status = 'pending' THEN 'in_progress' ELSE h.status END,
    owner_id = CASE WHEN l.poison THEN NULL ELSE $1 END,
    stalled_claims = h.stalled_claims + (NOT l.poison AND h.owner_id IS DISTINCT FROM $1)::int
FROM locked l WHERE h.id = l.id
RETURNING h.id, h.status, h.business_type, h.business_id";

pub(crate) const OWNED: &str = "\
SELECT id FROM saga_heads
WHERE owner_id = $1 AND status IN ('pending', 'in_progress', 'committing', 'compensating')";

/// Reads what operators ask of the sagas of a worker.
pub(crate) const ASKED: &str = "\
SELECT id::text AS id, cancel_reason, pause_requested::int::bigint AS pause_requested FROM saga_heads
WHERE owner_id = $1 AND status IN ('pending', 'in_progress', 'committing', 'compensating')
  AND (pause_requested OR cancel_reason IS NOT NULL)";

pub(crate) const FORGET_WORKER: &str = "DELETE FROM saga_workers WHERE worker_id = $1";

/// All but the rows that are held: one row must not keep the others.
pub(crate) const RELEASE_ALL: &str = "\
WITH free AS MATERIALIZED (
    SELECT id FROM saga_heads
    WHERE owner_id = $1 AND status IN ('pending', 'in_progress', 'committing', 'compensating') FOR UPDATE SKIP LOCKED)
UPDATE saga_heads h SET owner_id = NULL, stalled_claims = 0, row_version = h.row_version + 1, updated_at = clock_timestamp()
FROM free WHERE h.id = free.id RETURNING h.id";

/// The open sagas, by the two indexes that know them. A due saga without a living owner will be claimed soon, unless no
/// worker has its definition.
pub(crate) const CENSUS: &str = "\
SELECT c.business_type, c.status, count(*) AS sagas,
    (EXTRACT(EPOCH FROM clock_timestamp() - min(c.created_at)) * 1000)::bigint AS oldest_ms,
    count(*) FILTER (WHERE c.unrunnable) AS unrunnable
FROM (
    SELECT h.business_type, h.status, h.created_at,
        (h.run_at <= now() OR h.run_at > now() + interval '61 minutes')
        AND h.business_type || ' ' || h.definition <> ALL ($1::text[])
        AND NOT EXISTS (SELECT 1 FROM saga_workers w WHERE w.worker_id = h.owner_id AND w.expires_at > now())
            AS unrunnable
    FROM saga_heads h WHERE h.status IN ('pending', 'in_progress', 'committing', 'compensating')
    UNION ALL
    SELECT h.business_type, h.status, h.created_at, false
    FROM saga_heads h WHERE h.status IN ('stuck', 'paused')) c
GROUP BY c.business_type, c.status";
