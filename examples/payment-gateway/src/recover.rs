//! After a crash: what became of a request whose process is gone?
//!
//! The row carries the idempotency record it was made under, so the answer is looked up, not guessed. No row means that
//! the transaction never committed; and it never will *with an effect of its own*, because the record is unique: a late
//! commit and the new attempt cannot both insert.

use std::marker::PhantomData;

use async_trait::async_trait;
use probity_idempotency::{Recover, RecoverContext, Recovered};
use probity_saga::Status;

use crate::answers::{Gateway, SagaRow, shown};

/// Finds the row of a lost attempt and renders the answer the client should have got.
pub(crate) struct FindRow<R> {
    gateway: Gateway,
    row: PhantomData<fn() -> R>,
}

impl<R: SagaRow> FindRow<R> {
    pub(crate) fn of(gateway: &Gateway) -> FindRow<R> {
        FindRow { gateway: gateway.clone(), row: PhantomData }
    }

    async fn look(&self, record: &str) -> Result<Recovered, Box<dyn std::error::Error + Send + Sync>> {
        let gateway = &self.gateway;
        let Some(row) = R::find_by_record(&gateway.pool, record).await? else {
            return Ok(Recovered::Absent);
        };
        if row.is_final() {
            return Ok(Recovered::Done(shown(&row)));
        }
        let Some(view) = gateway.sagas.get(R::SAGA, row.number()).await? else {
            return Ok(Recovered::Unknown);
        };
        // Waiting for a person may take days: say so now. Everything else is worth waiting for.
        let waits_for_a_person =
            matches!(view.instance.status, Status::Stuck | Status::Paused | Status::Aborted);
        if !waits_for_a_person {
            let started = gateway.rejoin::<R>(&view.instance.input, row.number()).await?;
            let _ = gateway.wait(&started).await?;
        }
        let Some(row) = R::find_by_record(&gateway.pool, record).await? else {
            return Ok(Recovered::Unknown);
        };
        // Not final yet: leave the key open, so that a later retry gets the final answer.
        Ok(if row.is_final() || waits_for_a_person {
            Recovered::Done(shown(&row))
        } else {
            Recovered::Unknown
        })
    }
}

#[async_trait]
impl<R: SagaRow> Recover for FindRow<R> {
    async fn recover(&self, cx: &RecoverContext) -> Recovered {
        match self.look(&cx.record_id()).await {
            Ok(recovered) => recovered,
            Err(error) => {
                tracing::warn!(%error, "the outcome of a lost request is still unknown");
                Recovered::Unknown
            }
        }
    }
}
