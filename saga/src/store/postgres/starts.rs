//! Starts: many by one statement, each of a business id once.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{PostgresStore, id, sql, uuids};
use crate::error::StoreError;
use crate::record::{Inserted, NewSaga, SagaId};
use crate::store::rows::store_error;

impl PostgresStore {
    pub(super) async fn insert_all(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        let failed = |error| store_error("insert sagas", error);
        let mut keys = HashSet::with_capacity(sagas.len());
        let mut first: Vec<&NewSaga> = sagas.iter().filter(|saga| keys.insert(business_key(saga))).collect();
        // Two workers that start the same sagas wait for each other in one order.
        first.sort_unstable_by_key(|saga| business_key(saga));
        let mut tries = 0;
        let created = loop {
            match self.insert_new(&first).await {
                // Another start was faster; the next look sees which.
                Err(error) if is_taken(&error) && tries < 3 => tries += 1,
                created => break created.map_err(failed)?,
            }
        };
        let before: Vec<&NewSaga> = sagas.iter().filter(|saga| !created.contains(&saga.id)).collect();
        let answers = self.answers(sagas, &before, &created).await;
        // The created sagas stay, even if the query for the others fails.
        answers
            .map_err(failed)
            .map_err(|error| if created.is_empty() { error } else { error.after_a_write() })
    }

    async fn answers(
        &self,
        sagas: &[NewSaga],
        before: &[&NewSaga],
        created: &HashSet<SagaId>,
    ) -> Result<Vec<Inserted>, sqlx::Error> {
        let found = if before.is_empty() { Vec::new() } else { self.inserted_before(before).await? };
        let mut existing = HashMap::with_capacity(found.len());
        for row in &found {
            let key: (&str, &str) = (row.try_get("business_id")?, row.try_get("business_type")?);
            existing.insert(key, row);
        }
        let answer = |saga: &NewSaga| match existing.get(&business_key(saga)) {
            _ if created.contains(&saga.id) => Ok(Inserted::Created),
            Some(row) => inserted(saga, row),
            None => Err(sqlx::Error::RowNotFound),
        };
        sagas.iter().map(answer).collect()
    }

    async fn insert_new(&self, sagas: &[&NewSaga]) -> Result<HashSet<SagaId>, sqlx::Error> {
        let column = |of: fn(&NewSaga) -> &str| sagas.iter().map(|saga| of(saga)).collect::<Vec<&str>>();
        let insert = self
            .query(sql::INSERT_MANY)
            .bind(uuids(sagas.iter().map(|saga| saga.id)))
            .bind(column(|saga| &saga.business_id))
            .bind(column(|saga| &saga.saga_type))
            .bind(column(|saga| &saga.definition))
            .bind(column(|saga| saga.input.as_json()))
            .bind(column(|saga| &saga.input_hash))
            .bind(sagas.iter().map(|saga| saga.owner.as_uuid()).collect::<Vec<Uuid>>())
            .bind(sagas.iter().map(|saga| saga.trace.as_deref()).collect::<Vec<Option<&str>>>());
        self.rows(insert).await?.iter().map(id).collect()
    }

    async fn inserted_before(&self, sagas: &[&NewSaga]) -> Result<Vec<PgRow>, sqlx::Error> {
        let (ids, types): (Vec<&str>, Vec<&str>) = sagas.iter().map(|saga| business_key(saga)).unzip();
        self.rows(self.query(sql::INSERTED_BEFORE).bind(ids).bind(types)).await
    }
}

/// In the order of the index that keeps it unique.
fn business_key(saga: &NewSaga) -> (&str, &str) {
    (&saga.business_id, &saga.saga_type)
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

pub(super) fn inserted(saga: &NewSaga, row: &PgRow) -> Result<Inserted, sqlx::Error> {
    let id = id(row)?;
    if id == saga.id {
        return Ok(Inserted::Created);
    }
    Ok(Inserted::Exists { id, input_hash: row.try_get("input_hash")? })
}
