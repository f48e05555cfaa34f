//! The shared statements: many claims as one, and many writes by holders as one.

use crate::store::sql::statements::{may_be_taken, postgres_now, taken_over};

/// Looks first, because an `ON CONFLICT` that ends in no update still locks the row, and a lock is a write that has to
/// be flushed: replays only read.
///
/// The lengths are always right. The planner believes so little of them that it expects one row, and therefore goes by
/// the index, even when it planned while the table was empty.
///
/// The time is worked out once: as PostgreSQL does it, it costs as much as the rest of a row. In `ON CONFLICT` it is what
/// the row that was to be inserted says of its creation. Of a granted claim only what is new is sent back; of answers to
/// replay no more than a mebibyte and the one that exceeds it, so that many large ones are not in memory at once.
/// Answers that are left out are read by statements of their own.
pub(super) const CLAIM: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT set_config('lock_timeout', '100ms', true), ",
    postgres_now!(),
    " AS now), ",
    "seen AS MATERIALIZED (",
    "  SELECT a.*, clock.now, r.id IS NULL OR ",
    may_be_taken!("a", "clock.now"),
    " AS free, ",
    "    r.fingerprint AS r_fingerprint, r.effects AS r_effects, r.state AS r_state, r.token AS r_token, ",
    "    r.fence AS r_fence, r.attempt AS r_attempt, r.effect_at AS r_effect_at, r.lease_until AS r_lease_until, ",
    "    r.cap_until AS r_cap_until, r.expires_at AS r_expires_at, r.status AS r_status, r.headers AS r_headers, ",
    "    r.body AS r_body, r.location AS r_location, r.reason AS r_reason ",
    "  FROM clock CROSS JOIN unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[], ",
    "    $6::bigint[], $7::bigint[]) AS a (id, token, fingerprint, effects, lease, cap, retention) ",
    "  LEFT JOIN idempotency_records r ON r.id = a.id ",
    "  WHERE length(a.id) = 32 AND length(a.token) = 16), ",
    "taken AS (",
    "  INSERT INTO idempotency_records AS r (id, token, fingerprint, effects, state, attempt, created_at, ",
    "    lease_until, cap_until, expires_at) ",
    "  SELECT id, token, fingerprint, effects, 'in_flight', 1, now, now + lease, now + cap, now + cap + retention ",
    "  FROM seen WHERE free ORDER BY id ",
    "  ON CONFLICT (id) DO UPDATE SET ",
    taken_over!(),
    "WHERE ",
    may_be_taken!("excluded", "excluded.created_at"),
    "  RETURNING r.id, r.fence, r.attempt, r.lease_until, r.effect_at) ",
    "SELECT id, fence, attempt, lease_until, effect_at, (SELECT now FROM clock) AS now, ",
    "  NULL::bytea AS fingerprint, NULL::text AS effects, NULL::text AS state, NULL::bytea AS token, ",
    "  NULL::bigint AS cap_until, NULL::bigint AS expires_at, NULL::bigint AS status, NULL::bytea AS headers, ",
    "  NULL::bytea AS body, NULL::bytea AS location, NULL::text AS reason FROM taken ",
    "UNION ALL SELECT id, r_fence, r_attempt, r_lease_until, r_effect_at, now, r_fingerprint, r_effects, r_state, ",
    "  r_token, r_cap_until, r_expires_at, r_status, r_headers, r_body, r_location, r_reason ",
    "  FROM (SELECT *, sum(coalesce(length(r_body), 0)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING ",
    "    AND 1 PRECEDING) AS before FROM seen WHERE NOT free) AS found WHERE coalesce(before, 0) < 1048576"
);

/// Every kind of write, by what it leaves behind. See `CLAIM` about the lengths.
pub(super) const CHANGE: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT set_config('lock_timeout', '100ms', true), ",
    postgres_now!(),
    " AS now), ",
    "asked AS MATERIALIZED (",
    "  SELECT a.*, clock.now FROM clock CROSS JOIN unnest($1::bytea[], $2::bytea[], $3::text[], $4::bool[], ",
    "    $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[], $11::text[]) ",
    "    AS a (id, token, state, marks, lease, keep, status, headers, body, location, reason) ",
    "  WHERE length(a.id) = 32 AND length(a.token) = 16) ",
    "UPDATE idempotency_records r SET state = a.state, ",
    "  effect_at = CASE WHEN a.marks THEN a.now ELSE r.effect_at END, ",
    "  lease_until = CASE WHEN a.lease IS NULL THEN r.lease_until ",
    "    WHEN r.cap_until < a.now + a.lease THEN r.cap_until ELSE a.now + a.lease END, ",
    "  finished_at = CASE WHEN a.keep IS NULL THEN r.finished_at ELSE a.now END, ",
    "  expires_at = CASE WHEN a.keep IS NULL THEN r.expires_at ELSE a.now + a.keep END, ",
    "  status = a.status, headers = a.headers, body = a.body, location = a.location, reason = a.reason ",
    "FROM asked a WHERE r.id = a.id AND r.token = a.token AND r.state = 'in_flight' ",
    "  AND (r.effect_at IS NULL OR NOT (a.marks OR a.state = 'released')) ",
    "RETURNING r.id, r.lease_until - a.now AS lease_left"
);
