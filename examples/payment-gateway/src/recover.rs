//! The repetition of a request whose answer is not recorded: its process is gone, or the answer was not final.
//!
//! The row carries the idempotency record it was made under, so the answer is looked up, not guessed. No row means that
//! the transaction never committed; and it never will *with an effect of its own*, because the record is unique: a late
//! commit and the new attempt cannot both insert.

use std::marker::PhantomData;

use async_trait::async_trait;
use probity_idempotency::{Recover, RecoverContext, Recovered};

use crate::answers::{Gateway, SagaRow, repeated};

/// Finds the row that an attempt made, and renders it as it is now.
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
        let Some(mut row) = R::find_by_record(&gateway.pool, record).await? else {
            return Ok(Recovered::Absent);
        };
        if !row.is_final() {
            let Some(view) = gateway.sagas.get(R::SAGA, row.number()).await? else {
                return Ok(Recovered::Unknown);
            };
            let started = gateway.rejoin::<R>(&view.instance.input, row.number()).await?;
            // It ends at once for a saga that waits for a person.
            let _ = gateway.wait(&started).await?;
            row = R::find_by_record(&gateway.pool, record).await?.ok_or("a committed row cannot be found")?;
        }
        Ok(repeated(&row))
    }
}

#[async_trait]
impl<R: SagaRow> Recover for FindRow<R> {
    async fn recover(&self, cx: &RecoverContext) -> Recovered {
        match self.look(&cx.record_id()).await {
            Ok(recovered) => recovered,
            Err(error) => {
                tracing::warn!(%error, "the outcome of a request is still unknown");
                Recovered::Unknown
            }
        }
    }
}
