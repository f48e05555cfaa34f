//! Many claims as one statement: it looks at every record, and claims those that are free.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgConnection, Row};

use super::{classify, decode};
use crate::machine::{self, Begin, Entry, Phase};
use crate::store::sql::PostgresStore;
use crate::store::sql::group::Job;
use crate::store::sql::statements::{may_be_taken, postgres_now, taken_over};
use crate::{Answer, Claim, Fence, Grant, IdempotencyManager, RecordId, StoreError};

/// Looks first, because an `ON CONFLICT` that ends in no update still locks the row, and a lock is a write that has to
/// be flushed: replays only read.
///
/// The lengths are always right. The planner believes so little of them that it expects one row, and therefore goes by
/// the index, even when it planned while the table was empty.
const CLAIM: &str = concat!(
    "WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', '100ms', true)), ",
    "seen AS MATERIALIZED (",
    "  SELECT a.*, r.id IS NULL OR ",
    may_be_taken!("a", postgres_now!()),
    " AS free, ",
    "    r.fingerprint AS r_fingerprint, r.effects AS r_effects, r.state AS r_state, r.token AS r_token, ",
    "    r.fence AS r_fence, r.attempt AS r_attempt, r.effect_at AS r_effect_at, r.lease_until AS r_lease_until, ",
    "    r.cap_until AS r_cap_until, r.expires_at AS r_expires_at, r.status AS r_status, r.headers AS r_headers, ",
    "    r.body AS r_body, r.location AS r_location, r.reason AS r_reason ",
    "  FROM patience CROSS JOIN unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[], ",
    "    $6::bigint[], $7::bigint[]) AS a (id, token, fingerprint, effects, lease, cap, retention) ",
    "  LEFT JOIN idempotency_records r ON r.id = a.id ",
    "  WHERE length(a.id) = 32 AND length(a.token) = 16), ",
    "taken AS (",
    "  INSERT INTO idempotency_records AS r (id, token, fingerprint, effects, state, fence, attempt, created_at, ",
    "    lease_until, cap_until, expires_at) ",
    "  SELECT id, token, fingerprint, effects, 'in_flight', ",
    postgres_now!(),
    ", 1, ",
    postgres_now!(),
    ", ",
    postgres_now!(),
    " + lease, ",
    postgres_now!(),
    " + cap, ",
    postgres_now!(),
    " + cap + retention ",
    "  FROM seen WHERE free ORDER BY id ",
    "  ON CONFLICT (id) DO UPDATE SET ",
    taken_over!(),
    "WHERE ",
    may_be_taken!("excluded", postgres_now!()),
    "  RETURNING r.*) ",
    "SELECT id, true AS granted, fingerprint, effects, state, token, fence, attempt, effect_at, lease_until, ",
    "  cap_until, expires_at, status, headers, body, location, reason, ",
    postgres_now!(),
    " AS now FROM taken ",
    "UNION ALL SELECT id, false, r_fingerprint, r_effects, r_state, r_token, r_fence, r_attempt, r_effect_at, ",
    "  r_lease_until, r_cap_until, r_expires_at, r_status, r_headers, r_body, r_location, r_reason, ",
    postgres_now!(),
    "  FROM seen WHERE NOT free"
);

/// A record as the statement left it.
pub(crate) struct Left {
    entry: Entry,
    now: u64,
    granted: bool,
}

impl Job for Claim {
    type Answer = Answer;
    type Outcome = Left;

    fn record(&self) -> RecordId {
        self.record
    }

    fn payload(&self) -> usize {
        0
    }

    async fn run(on: &mut PgConnection, claims: &[&Self]) -> Result<HashMap<RecordId, Left>, StoreError> {
        let bytes = |of: fn(&Claim) -> &[u8]| claims.iter().map(|claim| of(claim)).collect::<Vec<_>>();
        let micros = |of: fn(&Claim) -> Duration| {
            let bounded = |claim: &&Claim| i64::try_from(machine::micros(of(claim))).unwrap_or(i64::MAX);
            claims.iter().map(bounded).collect::<Vec<_>>()
        };
        let rows = sqlx::query(CLAIM)
            .bind(bytes(|claim| claim.record.as_bytes()))
            .bind(bytes(|claim| claim.token.as_bytes()))
            .bind(bytes(|claim| claim.fingerprint.as_bytes()))
            .bind(claims.iter().map(|claim| claim.effects.as_str()).collect::<Vec<_>>())
            .bind(micros(|claim| claim.terms.lease))
            .bind(micros(|claim| claim.terms.lease_cap.max(claim.terms.lease)))
            .bind(micros(|claim| claim.terms.retention))
            .fetch_all(on)
            .await
            .map_err(classify)?;
        let mut left = HashMap::with_capacity(rows.len());
        for row in rows {
            // A record that cannot be read is one caller's error: that of its own statement.
            let Ok((entry, now)) = decode(&row).and_then(|row| row.into_entry()) else { continue };
            let id: [u8; 32] = row.try_get("id").map_err(classify)?;
            let granted = row.try_get("granted").map_err(classify)?;
            left.insert(RecordId::from_bytes(id), Left { entry, now, granted });
        }
        Ok(left)
    }

    fn answer(&self, left: &Left, leads: bool) -> Option<Answer> {
        let Left { entry, now, granted } = left;
        if *granted && leads {
            debug_assert!(entry.phase == Phase::InFlight && entry.token == self.token);
            return Some(Answer::Acquired(Grant {
                fence: Fence(entry.fence.0),
                attempt: entry.attempt,
                lease: Duration::from_micros(entry.lease_until.saturating_sub(*now)),
            }));
        }
        match machine::begin(Some(entry), self, *now, 0) {
            Begin::Answer(answer) => Some(answer),
            Begin::Write(..) => None,
        }
    }

    async fn run_alone(&self, store: &PostgresStore) -> Result<Answer, StoreError> {
        store.begin(self).await
    }
}
