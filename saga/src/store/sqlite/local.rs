//! Transactions for local steps, on the connection that writes everything: SQLite has one writer anyway.
//!
//! Invariant: a savepoint that is the first thing in the transaction is still there before the record is written. SQLite
//! ends a transaction by itself after some errors, and a record after that would be a transaction of its own.

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};

use super::{SqliteStore, is_about_the_record, write};
use crate::error::{Effect, StoreError};
use crate::record::{Record, Verdict};
use crate::store::local::ENDED_BY_THE_STEP;
use crate::store::local::{LocalStore, LocalTransaction, LocalVerdict};
use crate::store::rows::{is_gone, store_error};
use crate::store::tables::Tables;

struct Open {
    tx: Transaction<'static, Sqlite>,
    tables: Tables,
}

#[async_trait]
impl LocalStore for SqliteStore {
    async fn begin(&self, _limit: Duration) -> Result<Box<dyn LocalTransaction>, StoreError> {
        let begun = self.writer.begin_with("BEGIN IMMEDIATE; SAVEPOINT probity_saga_local_step").await;
        let tx = begun.map_err(|error| StoreError::not_applied("begin a local step", error))?;
        Ok(Box::new(Open { tx, tables: self.tables.clone() }))
    }
}

#[async_trait]
impl LocalTransaction for Open {
    fn connection(&mut self) -> &mut (dyn Any + Send) {
        &mut *self.tx
    }

    async fn commit(self: Box<Self>, record: &Record) -> Result<LocalVerdict, StoreError> {
        let Self { mut tx, tables } = *self;
        let begun = sqlx::query("RELEASE probity_saga_local_step").execute(&mut *tx).await;
        if let Err(error) = begun {
            return if is_gone(&error) {
                Err(StoreError::not_applied("record a local step", error))
            } else {
                Ok(LocalVerdict::Refused(ENDED_BY_THE_STEP.into()))
            };
        }
        // The saga's row is written too, so that a repeated number is refused.
        let verdicts = match write(&tables, &mut tx, std::slice::from_ref(record), true).await {
            Ok(verdicts) => verdicts,
            Err(error) if is_about_the_record(&error) => {
                return Ok(LocalVerdict::Refused(error.to_string()));
            }
            Err(error) => return Err(StoreError::not_applied("record a local step", error)),
        };
        let Some(Verdict::Applied(requests)) = verdicts.into_values().next() else {
            return Ok(LocalVerdict::Fenced);
        };
        match tx.commit().await {
            Ok(()) => Ok(LocalVerdict::Applied(requests)),
            Err(error) => {
                let (text, about) = (error.to_string(), is_about_the_record(&error));
                let error = store_error("commit a local step", error);
                let deferred = about && error.effect() == Effect::NotApplied;
                if deferred { Ok(LocalVerdict::RolledBack(text)) } else { Err(error) }
            }
        }
    }
}
