//! Many writes by holders as one statement.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgConnection, Postgres, Row};

use super::classify::classify;
use super::group_commit::Job;
use crate::core::claim::{Renewed, State, Written};
use crate::core::identity::RecordId;
use crate::core::machine::{RELEASED_FOR, micros};
use crate::core::recording::{Recording, Tombstone};
use crate::error::StoreError;
use crate::store::manager::IdempotencyManager;
use crate::store::sql::SqlStore;
use crate::store::sql::names::Set;
use crate::token::Holder;

/// A write by a holder, on its way.
pub(crate) struct Change {
    pub(crate) holder: Holder,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Renew(Duration),
    Mark,
    Complete(Recording, Duration),
    Tombstone(Tombstone, Duration),
    Release,
}

/// The answer to a write.
pub(crate) enum Changed {
    Written(Written),
    Renewed(Renewed),
}

impl Change {
    const fn state(&self) -> State {
        match self.kind {
            Kind::Renew(_) | Kind::Mark => State::InFlight,
            Kind::Complete(..) => State::Completed,
            Kind::Tombstone(..) => State::Tombstoned,
            Kind::Release => State::Released,
        }
    }

    const fn keep(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Renew(_) | Kind::Mark => None,
            Kind::Complete(_, retention) | Kind::Tombstone(_, retention) => Some(*retention),
            Kind::Release => Some(RELEASED_FOR),
        }
    }

    const fn lease(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Renew(lease) => Some(*lease),
            _ => None,
        }
    }

    const fn recording(&self) -> Option<&Recording> {
        match &self.kind {
            Kind::Complete(recording, _) => Some(recording),
            _ => None,
        }
    }

    const fn tombstone(&self) -> Option<&Tombstone> {
        match &self.kind {
            Kind::Tombstone(tombstone, _) => Some(tombstone),
            _ => None,
        }
    }

    fn status(&self) -> Option<i64> {
        let recorded = self.recording().map(Recording::status);
        recorded.or_else(|| self.tombstone().map(|tombstone| tombstone.status)).map(i64::from)
    }
}

impl Job for Change {
    type Answer = Changed;
    /// The rest of the lease. The outcome of a write that was applied; there is none for the others.
    type Outcome = Duration;

    fn record(&self) -> RecordId {
        self.holder.record
    }

    fn payload(&self) -> usize {
        self.recording().map_or(0, Recording::size)
    }

    async fn run(
        on: &mut PgConnection,
        set: &'static Set,
        changes: &[&Self],
    ) -> Result<HashMap<RecordId, Duration>, StoreError> {
        fn column<'a, T>(changes: &[&'a Change], of: impl Fn(&'a Change) -> T) -> Vec<T> {
            changes.iter().map(|change| of(change)).collect()
        }
        let bounded =
            |time: Option<Duration>| time.map(|time| i64::try_from(micros(time)).unwrap_or(i64::MAX));
        let headers = column(changes, |change| change.recording().map(Recording::encode_headers));
        let [_, change] = set.shared;
        let rows = sqlx::query(change.text)
            .persistent(change.persistent)
            .bind(column(changes, |change| change.holder.record.as_bytes().as_slice()))
            .bind(column(changes, |change| change.holder.token.as_bytes().as_slice()))
            .bind(column(changes, |change| change.state().as_str()))
            .bind(column(changes, |change| matches!(change.kind, Kind::Mark)))
            .bind(column(changes, |change| bounded(change.lease())))
            .bind(column(changes, |change| bounded(change.keep())))
            .bind(column(changes, Change::status))
            .bind(headers)
            .bind(column(changes, |change| change.recording().map(|recording| &recording.bytes()[..])))
            .bind(column(changes, |change| {
                change.tombstone().and_then(|tombstone| tombstone.location.as_deref())
            }))
            .bind(column(changes, |change| change.tombstone().map(|tombstone| tombstone.reason.as_str())))
            .fetch_all(on)
            .await
            .map_err(classify)?;
        let mut applied = HashMap::with_capacity(rows.len());
        for row in rows {
            let id: [u8; 32] = row.try_get("id").map_err(classify)?;
            let left: i64 = row.try_get("lease_left").map_err(classify)?;
            applied.insert(RecordId::from_bytes(id), Duration::from_micros(u64::try_from(left).unwrap_or(0)));
        }
        Ok(applied)
    }

    fn answer(&self, lease_left: &Duration, leads: bool) -> Option<Changed> {
        leads.then_some(match self.kind {
            Kind::Renew(_) => Changed::Renewed(Renewed::Held(*lease_left)),
            _ => Changed::Written(Written::Applied),
        })
    }

    async fn run_alone(&self, store: &SqlStore<Postgres>) -> Result<Changed, StoreError> {
        let holder = &self.holder;
        match &self.kind {
            Kind::Renew(lease) => return Ok(Changed::Renewed(store.renew(holder, *lease).await?)),
            Kind::Mark => store.mark_effect(holder).await,
            Kind::Complete(recording, retention) => store.complete(holder, recording, *retention).await,
            Kind::Tombstone(tombstone, retention) => store.tombstone(holder, tombstone, *retention).await,
            Kind::Release => store.release(holder).await,
        }
        .map(Changed::Written)
    }
}
