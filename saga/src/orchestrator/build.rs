//! The builder of an orchestrator.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{Handle, Orchestrator, OrchestratorBuilder};
use crate::codec::{Codec, Sealer};
use crate::definition::{AnyLocal, Saga, is_usable};
use crate::engine::trace_context::TraceContext;
use crate::engine::{Engine, Settings};
use crate::error::BuildError;
use crate::metrics;
use crate::record::WorkerId;
use crate::store::{Runs, SagaStore};

/// The numbers of sagas or calls at once that a worker can be told. A semaphore takes more, but not any number.
const AT_ONCE: RangeInclusive<usize> = 1..=1_000_000;

impl<S: ?Sized> OrchestratorBuilder<S> {
    pub(super) fn on(store: Arc<dyn SagaStore>) -> Self {
        Self {
            store,
            settings: Settings::default(),
            sealer: Sealer::default(),
            sagas: Vec::new(),
            tracing: TraceContext::default(),
            kind: PhantomData,
        }
    }

    /// Sets how long a dead worker's sagas wait for another worker (30 seconds unless set). It is
    /// renewed at a third of this time.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Sets how often the worker looks for sagas that no worker drives (1 second unless set, an hour at most).
    pub fn poll(mut self, poll: Duration) -> Self {
        self.settings.poll = poll;
        self
    }

    /// Sets how many sagas this worker drives at once (1024 unless set, a million at most). Above it a start waits for
    /// [`start_patience`](Self::start_patience). A step that starts or waits for another saga of the same orchestrator
    /// lends its permit for that time.
    pub fn in_flight(mut self, sagas: usize) -> Self {
        self.settings.in_flight = sagas;
        self
    }

    /// Sets how long a start waits while the limit of sagas in flight is reached, before it is answered by
    /// [`SagaError::Busy`](crate::SagaError::Busy) (30 seconds unless set; nothing answers at once).
    pub fn start_patience(mut self, patience: Duration) -> Self {
        self.settings.start_patience = patience;
        self
    }

    /// Sets how many calls of this worker a provider may have at the same time: of steps whose policy names it
    /// ([`StepPolicy::provider`](crate::StepPolicy::provider)). Unless set, half of `in_flight`; a million at most. A saga whose turn does
    /// not come within a second is given up for some seconds, without memory and without a failure.
    pub fn provider_limit(mut self, provider: impl Into<String>, calls: usize) -> Self {
        self.settings.provider_limits.insert(provider.into(), calls);
        self
    }

    /// Sets the first pause between two tries of a provider that could not be reached three times in a row (1 second
    /// unless set). Each pause is twice as long as the one before, up to thirty times the first. Until a try reaches the
    /// provider, this worker makes no other call to it.
    pub fn provider_pause(mut self, first: Duration) -> Self {
        self.settings.provider_pause = first;
        self
    }

    /// Sets how long `drain` waits for running steps (10 seconds unless set).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Seals inputs and outputs before they are stored; without it they are plain JSON. Every worker of
    /// a database needs a codec that opens what the others seal.
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.sealer = Sealer(Some(Arc::new(codec)));
        self
    }

    /// Connects sagas to the traces of the program.
    ///
    /// `current` names the trace of the caller of a start, at most 255 bytes without NUL; the text is stored with the saga.
    /// `join` gets the span of each drive of such a saga with that text, and true if the saga was driven before: after a
    /// crash, a wait or an operator's decision.
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<String> + Send + Sync + 'static,
        join: impl Fn(&tracing::Span, &str, bool) + Send + Sync + 'static,
    ) -> Self {
        self.tracing = TraceContext { current: Arc::new(current), join: Arc::new(join) };
        self
    }

    /// Registers a saga. Several versions of one name may be registered: new sagas start with the
    /// highest, and each open saga goes on with the definition it began with.
    ///
    /// A saga with local steps runs only on a store in their database.
    pub fn register<D>(mut self, saga: Saga<D>) -> Self
    where
        S: Runs<D>,
    {
        self.sagas.push(saga.unchecked());
        self
    }

    /// Starts the worker: its lease, and the search for sagas that no worker drives.
    ///
    /// # Cancel safety
    /// Dropped, the worker may be left in the store; its lease runs out.
    ///
    /// # Errors
    /// [`BuildError`] if a setting or the registered sagas cannot be right, or the store fails.
    pub async fn start(self) -> Result<Orchestrator, BuildError> {
        let Self { store, settings, sealer, sagas, tracing, kind: _ } = self;
        if settings.lease < Duration::from_millis(100) || settings.lease > Duration::from_secs(3600) {
            return Err(BuildError::BadSetting("a lease must be between 100 ms and an hour"));
        }
        if settings.poll.is_zero() || settings.poll > Duration::from_secs(3600) {
            return Err(BuildError::BadSetting("the poll interval must be above zero and at most an hour"));
        }
        if sealer.0.as_ref().is_some_and(|codec| !is_usable(codec.key_id())) {
            return Err(BuildError::BadSetting("a codec's key id must be 1 to 64 of A-Z a-z 0-9 _ - ."));
        }
        if !AT_ONCE.contains(&settings.in_flight) {
            return Err(BuildError::BadSetting("1 to 1,000,000 sagas must be allowed in flight"));
        }
        if settings.provider_limits.values().any(|calls| !AT_ONCE.contains(calls)) {
            return Err(BuildError::BadSetting("1 to 1,000,000 calls must be allowed to a provider"));
        }
        if settings.provider_pause.is_zero() || settings.provider_pause > Duration::from_secs(3600) {
            return Err(BuildError::BadSetting(
                "the pause of a provider must be longer than nothing, and an hour at most",
            ));
        }
        for (at, saga) in sagas.iter().enumerate() {
            let same = |other: &Saga| other.name() == saga.name() && other.version == saga.version;
            if sagas[..at].iter().any(same) {
                return Err(BuildError::DuplicateSaga(saga.name().into()));
            }
        }
        check_local_steps(&*store, &sagas)?;
        let definitions: Vec<_> = sagas.iter().map(|saga| saga.definition.clone()).collect();
        store.define(&definitions).await?;
        metrics::describe();
        let engine = Engine::new(store, WorkerId::generate(), settings, sealer, sagas, tracing);
        let handle = Arc::new(Handle { engine: Arc::clone(&engine) });
        engine.begin_work().await?;
        Ok(Orchestrator { handle })
    }
}

/// Checks that the store has transactions for the local steps, which the type of a store behind `dyn` does not tell.
fn check_local_steps(store: &dyn SagaStore, sagas: &[Saga]) -> Result<(), BuildError> {
    for saga in sagas {
        for step in &saga.steps {
            let Some(database) = step.local().map(AnyLocal::database) else { continue };
            if store.local().is_none() || store.backend() != database {
                let (saga, step) = (saga.name().into(), step.name());
                return Err(BuildError::NoTransaction { saga, step, database, store: store.backend() });
            }
        }
    }
    Ok(())
}
