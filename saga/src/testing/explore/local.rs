//! Local steps under observation. Their points are before the transaction, before the commit and after it; on the
//! ledger is what a commit was answered for.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::fate::Fate;
use super::gate::Gate;
use super::gated::GatedStore;
use super::instrumented_step::{InstrumentedStep, World};
use crate::definition::{Answer, AnyInput, AnyLocal, LocalConnection};
use crate::error::StoreError;
use crate::record::{Document, Record};
use crate::step::context::Frame;
use crate::step::{Evidence, StepError};
use crate::store::{LocalStore, LocalTransaction, LocalVerdict};

struct GatedTransaction {
    inner: Box<dyn LocalTransaction>,
    gate: Arc<Gate>,
    world: Arc<World>,
}

#[async_trait]
impl LocalStore for GatedStore {
    async fn begin(&self, limit: Duration) -> Result<Box<dyn LocalTransaction>, StoreError> {
        let local = self.inner.local();
        let local = local.ok_or_else(|| StoreError::not_applied("begin a local step", "no transactions"))?;
        self.gate.write_point("before a local step begins").await;
        let inner = local.begin(limit).await?;
        Ok(Box::new(GatedTransaction { inner, gate: Arc::clone(&self.gate), world: Arc::clone(&self.world) }))
    }
}

#[async_trait]
impl LocalTransaction for GatedTransaction {
    fn connection(&mut self) -> &mut (dyn Any + Send) {
        self.inner.connection()
    }

    async fn commit(self: Box<Self>, record: &Record) -> Result<LocalVerdict, StoreError> {
        let Self { inner, gate, world } = *self;
        // A worker that is cut off here loses its transaction: by its death, or because the database gives up on it.
        let Some(inner) = gate.write_point_holding(inner, "before a local step commits").await else {
            return Err(StoreError::not_applied("commit a local step", "the transaction was given up"));
        };
        let answer = inner.commit(record).await;
        if let Ok(LocalVerdict::Applied(_)) = answer {
            world.committed(record);
        }
        gate.write_point("after a local step committed").await;
        answer
    }
}

impl AnyLocal for InstrumentedStep {
    fn database(&self) -> &'static str {
        self.inner.local().map_or("none", AnyLocal::database)
    }

    fn execute<'a>(
        &'a self,
        input: AnyInput,
        frame: Frame,
        connection: &'a mut LocalConnection,
    ) -> Answer<'a, Document> {
        Box::pin(async move {
            if !self.gate.is_zombie() {
                // A call without a record has no effect, so the next one counts as the first.
                self.world.check_execute(self.at, true).await;
            }
            let first = self.world.is_first_call(self.at);
            let last = self.at + 1 == self.world.shape.steps.len();
            match self.world.fate {
                Fate::Refused(at) if at == self.at => Err(StepError::rejected("refused")),
                Fate::UndoLost(_) | Fate::UndoRefused(_) if last => Err(StepError::rejected("refused")),
                Fate::RequestLost(at) if at == self.at && first => Err(StepError::retryable("lost")),
                fate => {
                    let step = self.inner.local().ok_or_else(|| StepError::fatal("not a local step"))?;
                    let answer = step.execute(input, self.world.watches(frame), connection).await;
                    match fate {
                        Fate::AnswerLost(at) if at == self.at && first => Err(StepError::retryable("lost")),
                        _ => answer,
                    }
                }
            }
        })
    }

    fn compensate<'a>(
        &'a self,
        input: AnyInput,
        frame: Frame,
        done: Document,
        connection: &'a mut LocalConnection,
    ) -> Answer<'a, Evidence> {
        Box::pin(async move {
            if !self.gate.is_zombie() {
                self.world.check_compensate(self.at).await;
            }
            let refused = self.world.fate == Fate::UndoRefused(self.at);
            if refused && self.world.is_first_undo(self.at) {
                return Err(StepError::rejected("refused"));
            }
            let step = self.inner.local().ok_or_else(|| StepError::fatal("not a local step"))?;
            step.compensate(input, self.world.watches(frame), done, connection).await
        })
    }
}
