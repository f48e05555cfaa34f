//! Many claims as one statement: it looks at every record, and claims those that are free.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, Row, ValueRef};

use super::classify::classify;
use super::group_commit::Job;
use super::rows::decode;
use crate::core::claim::{Answer, Claim, Grant};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::machine::{self, Decision, Entry, Phase};
use crate::error::{StoreError, Unreadable};
use crate::store::manager::IdempotencyManager;
use crate::store::sql::SqlStore;
use crate::store::sql::names::Set;

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
            // The cap and the expiry are read by no answer here; the store keeps them.
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
            // An unreadable record is an error of its own call only, which is sent by itself.
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
        match machine::claim(Some(entry), self, *now, 0) {
            Decision::Answer(answer) => Some(answer),
            Decision::Write(..) => None,
        }
    }

    async fn run_alone(&self, store: &SqlStore<Postgres>) -> Result<Answer, StoreError> {
        store.claim(self).await
    }
}
