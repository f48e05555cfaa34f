//! The people who operate sagas: they send requests to a running saga, and resolve one that waits for them.

use std::fmt;
use std::sync::Arc;

use super::gate::Gate;
use super::gated::GatedStore;
use super::instrumented_step::{World, instrument};
use super::promise::Promise;
use crate::core::Resolution;
use crate::definition::Saga;
use crate::error::SagaError;
use crate::orchestrator::{Cancelled, Operator, Orchestrator};
use crate::record::{Journal, StepRow};
use crate::status::{Status, StepStatus};

/// A request of a person to a saga that runs. To compensate it is the same request as to cancel it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Cancel,
    Pause,
}

/// The help of a person for a saga that is stuck or paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// `resume`, or `retry_now`.
    GoOn,
    /// `compensate`.
    TurnBack,
    /// `resolve_step`, by what the other side says.
    Settle,
    /// `abort`.
    Close,
}

impl Help {
    pub(super) const ALL: [Self; 4] = [Self::GoOn, Self::TurnBack, Self::Settle, Self::Close];
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancel => "turn back",
            Self::Pause => "pause",
        })
    }
}

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoOn => "lets it go on",
            Self::TurnBack => "turns it back",
            Self::Settle => "settles its open step",
            Self::Close => "closes it",
        })
    }
}

/// A process in which nothing runs but what people ask for.
pub(super) struct OperatorActor {
    operator: Operator,
    world: Arc<World>,
}

impl OperatorActor {
    pub(super) fn new(world: &Arc<World>, gate: &Arc<Gate>, saga: Saga) -> Self {
        let saga = instrument(saga, world, gate);
        let orchestrator = Orchestrator::new(GatedStore::new(world, gate)).register(saga).at_rest();
        Self { operator: orchestrator.operator("explorer"), world: Arc::clone(world) }
    }

    /// Asks the saga. A refusal promises nothing; only a promise is held against the saga.
    pub(super) async fn ask(&self, ask: Ask) {
        let name = self.world.name.as_str();
        let promise = match ask {
            Ask::Cancel => {
                self.operator.cancel(name, "explored", "explored").await.map(|answer| match answer {
                    Cancelled::ForCertain => Promise::TurnsForCertain,
                    Cancelled::Requested => Promise::Turns,
                })
            }
            Ask::Pause => {
                let paused = self.operator.pause(name, "explored", "explored").await;
                paused.map(|()| Promise::Pauses)
            }
        };
        if let Ok(promise) = promise {
            self.world.promise(promise);
        }
    }

    /// Helps the saga, and answers whether there was something to help.
    pub(super) async fn help(&self, help: Help) -> bool {
        let Some(journal) = self.world.journal().await else { return false };
        let status = journal.instance.status;
        if !matches!(status, Status::Stuck | Status::Paused) {
            return false;
        }
        // This precedes the help: a worker may read the decision before it is answered.
        self.world.forget_promises();
        let name = self.world.name.as_str();
        let helped = match help {
            Help::GoOn if status == Status::Paused => {
                self.operator.resume(name, "explored", "explored").await
            }
            Help::GoOn => self.operator.retry_now(name, "explored", "explored").await,
            Help::TurnBack => {
                self.operator.compensate(name, "explored", "explored").await.map(|_turned: Cancelled| ())
            }
            Help::Settle => self.settle(&journal).await,
            Help::Close => self.operator.abort(name, "explored", "explored").await,
        };
        helped.is_ok()
    }

    /// Says of the open step what the other side says of it.
    async fn settle(&self, journal: &Journal) -> Result<(), SagaError> {
        let is_open = |row: &&StepRow| {
            use StepStatus::{Compensating, CompensationFailed, Executing, Unknown};
            matches!(row.status, Unknown | Executing | Compensating | CompensationFailed)
        };
        let Some(row) = journal.steps.iter().rfind(is_open) else { return Err(SagaError::Stale) };
        let at = (row.order as usize).saturating_sub(1);
        let there = self.world.effect(at).present;
        let resolution = match (&row.output, self.world.output(at)) {
            // The person undoes it.
            (Some(_), _) => Resolution::Compensated,
            (None, Some(output)) if there => Resolution::Applied(output),
            (None, _) => Resolution::NotApplied,
        };
        let applied = matches!(resolution, Resolution::Applied(_));
        // Past the pivot what did not happen is done after all, and that person's word is the proof it needs.
        let again = journal.instance.resume_status == Some(Status::Committing);
        let evidence = "the ledger of the other side";
        let name = self.world.name.as_str();
        // The proof is recorded before the resolution: a worker may read the resolution before it is answered.
        if !applied && again {
            self.world.is_proven_absent(at);
        } else if !applied {
            self.world.ends(at);
        }
        self.operator.resolve_step(name, "explored", row.order, resolution, evidence).await
    }
}
