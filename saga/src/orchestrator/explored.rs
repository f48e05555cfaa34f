//! Functions of an orchestrator for the crash explorer and for the tests of the engine.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::{Handle, Orchestrator, OrchestratorBuilder};
use crate::engine::Engine;
use crate::engine::start::{Started, accept};
use crate::error::{SagaError, StoreError};
use crate::record::WorkerId;

impl<S: ?Sized> OrchestratorBuilder<S> {
    /// For the verbs of operators alone: it keeps no lease and takes no saga over.
    pub(crate) fn at_rest(self) -> Orchestrator {
        let Self { store, settings, sealer, sagas, tracing, kind: _ } = self;
        let engine = Engine::new(store, WorkerId::generate(), settings, sealer, sagas, tracing);
        Orchestrator { handle: Arc::new(Handle { engine }) }
    }
}

impl Orchestrator {
    pub(crate) async fn start_unattended<I>(
        &self,
        saga: &str,
        business_id: &str,
        input: &I,
    ) -> Result<Started, SagaError>
    where
        I: Serialize + Send + Sync + 'static,
    {
        let new = self.new_saga(saga, business_id, input)?;
        let inserted = self.handle.engine.store.insert(std::slice::from_ref(&new)).await?.pop();
        let inserted = inserted.ok_or_else(|| StoreError::ambiguous("insert a saga", "no answer"))?;
        accept(&new, &inserted)
    }

    /// Tells whether this worker drives nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.handle.engine.active_count() == 0
    }

    /// Lets the lease lapse, as if its length had passed since the last heartbeat.
    pub(crate) fn forget_lease(&self) {
        self.handle.engine.lease.lapsed(Instant::now());
    }
}
