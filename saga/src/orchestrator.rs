//! The entry point of the crate: it starts sagas, waits for them, reads them and resolves them.
//!
//! Start at [`Orchestrator`]; `build.rs` has its settings, `operate.rs` the verbs of operators, and
//! `engine/start.rs` how an inserted row becomes a drive.

mod build;
#[cfg(feature = "testing")]
mod explored;
mod operate;

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use operate::{Cancelled, Operator};

use crate::codec::{Place, Sealer};
use crate::definition::Saga;
use crate::engine::notifier::Notification;
use crate::engine::start::{Started, insert_and_drive};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::engine::start::{accept, count_start};
use crate::engine::trace_context::TraceContext;
use crate::engine::writer::Unanswered;
use crate::engine::{Engine, Settings, Stop};
use crate::error::SagaError;
use crate::record::{Document, Instance, Journal, ListFilter, NewSaga, SagaId, StepRow, WorkerId, unquoted};
use crate::shield::Shield;
use crate::status::Status;
use crate::store::SagaStore;

/// A saga with its steps, as `get` shows it. Payloads are redacted in `Debug`.
pub type SagaView = Journal;

/// Starts and drives sagas; one per process and database. Cheap to clone.
///
/// It works in the background from [`start`](OrchestratorBuilder::start) on: it keeps a lease in
/// the store, and takes over every saga whose worker is gone. End it with
/// [`drain`](Orchestrator::drain); dropping the last clone is like a crash, after which the sagas
/// go on when the lease has run out.
#[derive(Clone)]
pub struct Orchestrator {
    handle: Arc<Handle>,
}

struct Handle {
    engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.stop(Stop::Stopped);
    }
}

/// The settings and sagas of an orchestrator before it starts.
#[must_use = "nothing runs before `start`"]
pub struct OrchestratorBuilder<S: ?Sized = dyn SagaStore> {
    store: Arc<dyn SagaStore>,
    settings: Settings,
    sealer: Sealer,
    sagas: Vec<Saga>,
    tracing: TraceContext,
    kind: PhantomData<fn(&S)>,
}

/// The status in which a saga came to rest. `Stuck` and `Paused` are not the end: an operator lets it go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a saga that is not completed needs an answer to the caller"]
pub enum Outcome {
    /// Every step happened.
    Completed,
    /// Every effect was undone, with evidence.
    Compensated {
        /// The reason for which it turned back.
        reason: String,
    },
    /// It cannot go on by itself: it is unknown whether its last effect happened, or an undo failed.
    Stuck {
        /// The step it is at, from 1.
        step: u32,
        /// The reason.
        reason: String,
    },
    /// An operator or a fatal error stopped it.
    Paused {
        /// The reason.
        reason: String,
    },
    /// An operator closed it with open effects.
    Aborted {
        /// The reason.
        reason: String,
    },
}

impl Orchestrator {
    /// Begins to set up an orchestrator on a store.
    #[expect(clippy::new_ret_no_self, reason = "the orchestrator exists only after `start`")]
    pub fn new<S: SagaStore>(store: S) -> OrchestratorBuilder<S> {
        OrchestratorBuilder::on(Arc::new(store))
    }

    /// Begins to set up an orchestrator on a store that others use as well. `start` checks that the store can run the
    /// local steps of its sagas.
    pub fn shared(store: Arc<dyn SagaStore>) -> OrchestratorBuilder {
        OrchestratorBuilder::on(store)
    }

    /// Starts a saga. When it answers, the saga is durable and runs, also if the caller goes away. A start with the
    /// same business id and input is the same saga.
    ///
    /// Waits while the limit of sagas in flight is reached, for
    /// [`start_patience`](OrchestratorBuilder::start_patience) at most.
    ///
    /// # Cancel safety
    /// If it is dropped while it waits for the limit, nothing happened. If it is dropped later, the saga is still
    /// started, and runs.
    ///
    /// # Errors
    /// [`SagaError::InputConflict`] if the business id was used with another input;
    /// [`SagaError::NotStarted`] if this worker drains, also while the call waits; [`SagaError::Busy`] if the limit of
    /// sagas in flight was reached for too long; errors of the
    /// store say by [`effect`](SagaError::effect) whether the saga may have been started.
    pub async fn start<I>(&self, saga: &str, business_id: &str, input: &I) -> Result<Started, SagaError>
    where
        I: Serialize + Send + Sync + 'static,
    {
        let new = self.new_saga(saga, business_id, input)?;
        let _lent = self.handle.engine.lend();
        Ok(self.begin(new, false).await?.0)
    }

    /// With `waits`, also the news of a saga that this call began, subscribed to before a worker drives it.
    async fn begin(
        &self,
        new: NewSaga,
        waits: bool,
    ) -> Result<(Started, Option<oneshot::Receiver<Notification>>), SagaError> {
        let engine = &self.handle.engine;
        let permit = engine.room_to_start().await?;
        // From here on the row may be there: without this task no worker would know that no step has begun.
        Shield::new(insert_and_drive(Arc::clone(engine), new, permit, waits)).await
    }

    /// Starts a saga inside the caller's transaction, with one INSERT: both commit, or neither.
    /// After the commit call [`wait`](Self::wait); if no call does, this worker runs it anyway, a
    /// moment later, and if this process dies, the next one does.
    ///
    /// # Cancel safety
    /// The same as for every statement of the transaction: roll it back.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start); and [`SagaError::OtherDatabase`] if the transaction cannot be
    /// one of the orchestrator's database.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub async fn start_in<'c, E, I>(
        &self,
        executor: E,
        saga: &str,
        business_id: &str,
        input: &I,
    ) -> Result<Started, SagaError>
    where
        E: sqlx::Executor<'c> + 'c,
        E::Database: crate::store::StartIn,
        I: Serialize + Send + Sync + 'static,
    {
        use sqlx::Database as _;
        let (transaction, store) = (E::Database::NAME, self.handle.engine.store.backend());
        if transaction != store {
            return Err(SagaError::OtherDatabase { transaction, store });
        }
        let new = self.new_saga(saga, business_id, input)?;
        let statement = self.handle.engine.store.start_statement();
        let inserted =
            <E::Database as crate::store::StartIn>::insert_in(executor, statement, new.clone()).await?;
        count_start(&self.handle.engine, &new);
        accept(&new, &inserted)
    }

    /// Waits until a started saga comes to rest. After [`start_in`](Self::start_in) it is also what
    /// drives it, so call it after the commit.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the saga.
    ///
    /// # Errors
    /// [`SagaError::NotFound`] before the commit or after a rollback; [`SagaError::Draining`] if
    /// this worker ends before the saga does.
    pub async fn wait(&self, started: &Started) -> Result<Outcome, SagaError> {
        let engine = &self.handle.engine;
        let id = started.id();
        let _lent = engine.lend();
        let news = engine.notifier.subscribe(id);
        let turn = started.take_turn();
        let reservation = if turn.is_ours { engine.reserve(id) } else { None };
        if reservation.is_some() || !engine.is_active(id) {
            let term = engine.lease.term();
            let journal = engine.store.load(&[id]).await?.pop().ok_or(SagaError::NotFound(id))?;
            turn.used();
            if let Some(news) = Notification::of(&journal.instance) {
                return outcome(news);
            }
            let Instance { owner, epoch, write_no, .. } = journal.instance;
            let untouched = owner == Some(engine.worker) && epoch == 1 && write_no == 0;
            match reservation {
                Some(reservation) if untouched => engine.spawn(reservation, None, journal, true, term),
                // A reservation held during the wait would keep the notification of another worker's end away.
                elsewhere => drop(elsewhere),
            }
        }
        if engine.stopping() == Stop::Stopped {
            return Err(SagaError::Draining);
        }
        wait_for(news).await
    }

    /// Starts a saga and waits until it comes to rest.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop a saga that was started.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`wait`](Self::wait).
    pub async fn run<I>(&self, saga: &str, business_id: &str, input: &I) -> Result<Outcome, SagaError>
    where
        I: Serialize + Send + Sync + 'static,
    {
        let new = self.new_saga(saga, business_id, input)?;
        let lent = self.handle.engine.lend();
        match self.begin(new, true).await? {
            (_, Some(_)) if self.handle.engine.stopping() == Stop::Stopped => Err(SagaError::Draining),
            (_, Some(news)) => wait_for(news).await,
            (started, None) => {
                drop(lent);
                self.wait(&started).await
            }
        }
    }

    /// Looks at one saga.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn get(&self, saga: &str, business_id: &str) -> Result<Option<SagaView>, SagaError> {
        Ok(self.handle.engine.store.find(saga, business_id).await?)
    }

    /// The view with its input and outputs as plain JSON, if a [`Codec`](crate::codec::Codec) sealed them.
    ///
    /// # Errors
    /// [`SagaError::Unreadable`] for the first document that cannot be opened.
    pub fn opened(&self, mut view: SagaView) -> Result<SagaView, SagaError> {
        let sealer = &self.handle.engine.sealer;
        let Instance { id, saga_type, input, .. } = &mut view.instance;
        let open = |stored: &mut Document, output_of: Option<&str>| {
            let place = Place { saga_type, saga: *id, output_of };
            let what = output_of.map_or_else(|| "input".into(), |step| format!("output of {step}"));
            let opened = sealer.open_plain(&place, stored);
            *stored = opened.map_err(|why| SagaError::Unreadable { saga: *id, what, why })?;
            Ok::<(), SagaError>(())
        };
        open(input, None)?;
        for StepRow { name, output, .. } in &mut view.steps {
            if let Some(output) = output {
                open(output, Some(&**name))?;
            }
        }
        Ok(view)
    }

    /// Lists sagas, newest first; the next page starts before the last id of this one.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, SagaError> {
        Ok(self.handle.engine.store.list(filter).await?)
    }

    /// Tells how long a saga is past the [deadline](crate::definition::SagaBuilder::deadline) of its definition, if it is
    /// still open and this process knows its definition.
    #[must_use]
    pub fn overdue(&self, instance: &Instance) -> Option<Duration> {
        let plan = self.handle.engine.plan(&instance.saga_type, &instance.definition)?;
        let late = instance.age.checked_sub(plan.deadline?)?;
        (!instance.status.is_terminal()).then_some(late)
    }

    /// Ends this worker cleanly: starts nothing new, waits (up to the grace) for the steps that are
    /// running, gives every saga back at once, and removes the worker. Call it before the process
    /// ends, so that the next one need not wait for the lease to run out. With a database that does not answer it takes up
    /// to a third of the lease longer than the grace, and then the time limits of the store.
    ///
    /// # Cancel safety
    /// Dropped, the worker stays in draining; call it again.
    ///
    /// # Errors
    /// If the store cannot be used: the lease then runs out by itself.
    pub async fn drain(&self) -> Result<(), SagaError> {
        let engine = &self.handle.engine;
        engine.stop(Stop::Draining);
        let idle = async {
            while engine.active_count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(engine.settings.grace, idle).await.is_err() {
            tracing::warn!(
                sagas = engine.active_count(),
                "the drain ended while saga steps were running; the next worker probes them"
            );
        }
        engine.stop(Stop::Stopped);
        let retired = engine.retire().await;
        engine.notifier.notify_all(&Notification::Draining);
        retired?;
        Ok(())
    }

    /// The identity of this worker.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.handle.engine.worker
    }

    fn new_saga<I>(&self, saga: &str, business_id: &str, input: &I) -> Result<NewSaga, SagaError>
    where
        I: Serialize + Send + Sync + 'static,
    {
        let engine = &self.handle.engine;
        if engine.stopping() > Stop::Running {
            return Err(SagaError::NotStarted);
        }
        let plan = engine.newest(saga).ok_or_else(|| SagaError::UnknownSaga(saga.into()))?;
        if plan.input.id != TypeId::of::<I>() {
            return Err(SagaError::WrongInput { saga: saga.into(), expected: plan.input.name });
        }
        let unstorable = |reason: String| SagaError::Unstorable { saga: saga.into(), reason };
        if business_id.is_empty() || business_id.len() > 255 || business_id.contains('\0') {
            return Err(unstorable("the business id must have 1 to 255 bytes and no NUL".into()));
        }
        let id = SagaId::generate();
        let plain = Document::encode(input).map_err(|error| unstorable(unquoted(&error)))?;
        let input_hash = engine.sealer.digest(&plain);
        let place = Place { saga_type: saga, saga: id, output_of: None };
        let input = engine.sealer.seal_plain(&place, plain);
        let input = input.map_err(|error| unstorable(error.to_string()))?;
        Ok(NewSaga {
            id,
            saga_type: saga.into(),
            business_id: business_id.into(),
            definition: plan.fingerprint().into(),
            input_hash,
            input,
            owner: engine.worker,
            trace: engine.tracing.current(),
        })
    }
}

impl fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = &self.handle.engine;
        f.debug_struct("Orchestrator")
            .field("worker", &engine.worker)
            .field("driving", &engine.active_count())
            .finish_non_exhaustive()
    }
}

impl<S: ?Sized> fmt::Debug for OrchestratorBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

async fn wait_for(news: oneshot::Receiver<Notification>) -> Result<Outcome, SagaError> {
    outcome(news.await.unwrap_or(Notification::Draining))
}

fn outcome(news: Notification) -> Result<Outcome, SagaError> {
    let Notification::Settled { status, step, reason } = news else {
        return Err(SagaError::Draining);
    };
    let reason = reason.unwrap_or_default();
    Ok(match status {
        Status::Completed => Outcome::Completed,
        Status::Compensated => Outcome::Compensated { reason },
        Status::Stuck => Outcome::Stuck { step, reason },
        Status::Aborted => Outcome::Aborted { reason },
        Status::Paused | Status::Pending | Status::InProgress | Status::Committing | Status::Compensating => {
            Outcome::Paused { reason }
        }
    })
}

impl From<Unanswered> for SagaError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Lost => Self::Draining,
            Unanswered::Store(error) => Self::Store(error),
        }
    }
}
