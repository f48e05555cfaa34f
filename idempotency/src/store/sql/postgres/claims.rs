//! Many claims as one statement: it looks at every record, and claims those that are free.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row, ValueRef};

use super::{classify, decode};
use crate::error::Unreadable;
use crate::machine::{self, Begin, Entry, Phase};
use crate::store::sql::PostgresStore;
use crate::store::sql::group::Job;
use crate::store::sql::names::Set;
use crate::store::sql::statements::{may_be_taken, postgres_now, taken_over};
use crate::{Answer, Claim, Fence, Grant, IdempotencyManager, RecordId, StoreError};

/// Looks first, because an `ON CONFLICT` that ends in no update still locks the row, and a lock is a write that has to
/// be flushed: replays only read.
///
/// The lengths are always right. The planner believes so little of them that it expects one row, and therefore goes by
/// the index, even when it planned while the table was empty.
///
/// The time is worked out once: as PostgreSQL does it, it costs as much as the rest of a row. In `ON CONFLICT` it is what
/// the row that was to be inserted says of its creation. Of a granted claim only what is new is sent back; of answers to
/// replay no more than a mebibyte and the one that exceeds it, so that many large ones are not in memory at once. Those
/// left out are asked for by statements of their own.
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

/// A record as the statement left it.
pub(crate) struct Left {
    entry: Entry,
    now: u64,
    granted: bool,
}

impl Left {
    /// Reads the row of one of `claims`, which are in order.
    fn read(row: &PgRow, record: RecordId, claims: &[&Claim]) -> Result<Self, StoreError> {
        if !row.try_get_raw("state").map_err(classify)?.is_null() {
            let (entry, now) = decode(row)?.into_entry()?;
            return Ok(Self { entry, now, granted: false });
        }
        let place = claims.binary_search_by_key(&record, |claim| claim.record);
        let claim = claims[place.map_err(|_| Unreadable("record"))?];
        let integer = |name| Ok::<_, StoreError>(row.try_get::<i64, _>(name).map_err(classify)?);
        let time = |name| Ok::<_, StoreError>(u64::try_from(integer(name)?).map_err(|_| Unreadable("time"))?);
        let marked = row.try_get::<Option<i64>, _>("effect_at").map_err(classify)?.is_some();
        let entry = Entry {
            fingerprint: claim.fingerprint,
            effects: claim.effects,
            token: claim.token,
            fence: Fence(time("fence")?),
            attempt: u32::try_from(integer("attempt")?).map_err(|_| Unreadable("attempt"))?,
            marked,
            lease_until: time("lease_until")?,
            // Nobody but this attempt asks for its end, and it asks the store.
            cap_until: u64::MAX,
            expires_at: u64::MAX,
            phase: Phase::InFlight,
        };
        Ok(Self { entry, now: time("now")?, granted: true })
    }
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

    async fn run(
        on: &mut PgConnection,
        set: &'static Set,
        claims: &[&Self],
    ) -> Result<HashMap<RecordId, Left>, StoreError> {
        let bytes = |of: fn(&Claim) -> &[u8]| claims.iter().map(|claim| of(claim)).collect::<Vec<_>>();
        let micros = |of: fn(&Claim) -> Duration| {
            let bounded = |claim: &&Claim| i64::try_from(machine::micros(of(claim))).unwrap_or(i64::MAX);
            claims.iter().map(bounded).collect::<Vec<_>>()
        };
        let [claim, _] = set.shared;
        let rows = sqlx::query(claim.text)
            .persistent(claim.persistent)
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
            let record = RecordId::from_bytes(row.try_get("id").map_err(classify)?);
            let Ok(read) = Left::read(&row, record, claims) else { continue };
            left.insert(record, read);
        }
        Ok(left)
    }

    fn answer(&self, left: &Left, leads: bool) -> Option<Answer> {
        let Left { entry, now, granted } = left;
        if *granted && leads {
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
