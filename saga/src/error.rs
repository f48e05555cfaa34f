//! Failures. Every error says what is known of its effect, because for money the question is not
//! "may I retry?" but "may it have happened?".

use std::sync::Arc;

use crate::record::SagaId;

/// The effect of a call that failed: nothing was changed, or that is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call wrote nothing.
    NotApplied,
    /// It may have been written.
    Unknown,
}

/// A failure between engine and database.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the saga store failed to {operation}: {source}")]
pub struct StoreError {
    operation: &'static str,
    effect: Effect,
    cause: Cause,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

/// The choices of a batch after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The store: no saga of the batch would fare better alone.
    Store,
    /// Another transaction holds a row.
    Contention,
    /// Perhaps one saga of the batch.
    Saga,
}

impl StoreError {
    /// An error of a call that certainly wrote nothing.
    pub fn not_applied(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, effect: Effect::NotApplied, cause: Cause::Store, source: shared(source) }
    }

    /// An error of a call that may have been applied: the answer was lost.
    pub fn ambiguous(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, effect: Effect::Unknown, cause: Cause::Store, source: shared(source) }
    }

    /// An error of a call that wrote nothing because a row of it was held for too long. Of a batch, the other
    /// sagas could have been written.
    pub fn contended(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { cause: Cause::Contention, ..Self::not_applied(operation, source) }
    }

    /// An error of a call that wrote nothing, and that the data of one saga may have caused. Of a batch, the other sagas
    /// could have been written.
    pub fn of_one_saga(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { cause: Cause::Saga, ..Self::not_applied(operation, source) }
    }

    /// The store panicked, as over data that it did not foresee.
    pub(crate) fn panicked(operation: &'static str, text: String) -> Self {
        let source = format!("it panicked: {text}");
        Self { cause: Cause::Saga, ..Self::ambiguous(operation, source) }
    }

    /// The same error of a call of which another part was written, or may have been: by an earlier try whose answer was
    /// lost, or for other sagas of the batch.
    pub(crate) fn after_a_write(self) -> Self {
        Self { effect: Effect::Unknown, ..self }
    }

    /// Tells whether another transaction held a row for too long.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.cause == Cause::Contention
    }

    /// Tells whether a smaller batch may succeed: the engine then writes each saga by itself.
    #[must_use]
    pub fn may_be_of_one_saga(&self) -> bool {
        self.cause != Cause::Store
    }

    /// Tells whether the call may have been applied. Every store call may be repeated either way.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }
}

/// Every saga of a batch gets the same error.
fn shared(
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Arc<dyn std::error::Error + Send + Sync> {
    let source: Box<dyn std::error::Error + Send + Sync> = source.into();
    source.into()
}

/// An error of an [`Orchestrator`](crate::Orchestrator).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// No saga of this name was registered in this process.
    #[error("no saga named {0:?} is registered: call `register` on the orchestrator before `start`")]
    UnknownSaga(String),
    /// The input is not of the type the saga was built for.
    #[error("the input does not fit saga {saga:?}: it expects {expected}")]
    WrongInput {
        /// The saga.
        saga: String,
        /// The type of its input.
        expected: &'static str,
    },
    /// The input cannot be stored.
    #[error("the input of saga {saga:?} cannot be stored: {reason}")]
    Unstorable {
        /// The saga.
        saga: String,
        /// The reason.
        reason: String,
    },
    /// A stored payload cannot be opened.
    #[error("the {what} of saga {saga} cannot be read: {why}")]
    Unreadable {
        /// The saga.
        saga: SagaId,
        /// Which payload.
        what: String,
        /// The reason.
        why: String,
    },
    /// The same business id was used before, with another input.
    #[error(
        "saga {saga:?} was already started for {business_id:?} with another input (id {existing}); use a new business id"
    )]
    InputConflict {
        /// The saga.
        saga: String,
        /// The business id.
        business_id: String,
        /// The saga that exists.
        existing: SagaId,
    },
    /// `start_in` was given a transaction of another kind of database than the orchestrator's store.
    #[error(
        "the transaction is on {transaction}, but the orchestrator's store is {store}: both must be the same database"
    )]
    OtherDatabase {
        /// The database of the transaction.
        transaction: &'static str,
        /// The store's kind.
        store: &'static str,
    },
    /// The saga is not there: its transaction was rolled back, or has not committed yet.
    #[error("saga {0} does not exist: the transaction that starts it must commit before `wait`")]
    NotFound(SagaId),
    /// No saga of that type and business id.
    #[error("there is no saga {saga:?} for {business_id:?}")]
    NoSuchSaga {
        /// The type.
        saga: String,
        /// The business id.
        business_id: String,
    },
    /// The verb does not apply in this state.
    #[error("{verb} is not possible: {why}")]
    Refused {
        /// The verb.
        verb: &'static str,
        /// The reason, and what is possible instead.
        why: String,
    },
    /// The saga changed while the operator looked at it.
    #[error("the saga changed in between: read it again, then decide")]
    Stale,
    /// This process is shutting down; another worker, or its next start, goes on.
    #[error("this worker is draining: the saga goes on with the next worker")]
    Draining,
    /// This process is shutting down, and starts nothing any more.
    #[error(
        "this worker is draining and starts nothing: nothing was written, start the saga on another worker"
    )]
    NotStarted,
    /// This worker drives as many sagas as it may, and none ended while the start waited.
    #[error(
        "this worker drives {in_flight} sagas, which is all it may, and none ended within {waited:?}: nothing was written; start again later, start on another worker, or raise `in_flight`"
    )]
    Busy {
        /// The number of sagas that it may drive.
        in_flight: usize,
        /// The time that the start waited.
        waited: std::time::Duration,
    },
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SagaError {
    /// Tells whether the call may have changed anything.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::Store(error) => error.effect(),
            Self::Draining => Effect::Unknown,
            _ => Effect::NotApplied,
        }
    }

    /// Tells which kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(_) | Self::Draining | Self::NotStarted | Self::Busy { .. } => ErrorKind::Unavailable,
            Self::InputConflict { .. } | Self::Stale => ErrorKind::Conflict,
            Self::NotFound(_) | Self::NoSuchSaga { .. } => ErrorKind::NotFound,
            Self::Refused { .. } => ErrorKind::Refused,
            _ => ErrorKind::Misuse,
        }
    }
}

/// The kinds of [`SagaError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store or this worker is not available now.
    Unavailable,
    /// Another caller was first, with something else.
    Conflict,
    /// There is no such saga.
    NotFound,
    /// The state of the saga does not allow it.
    Refused,
    /// The calling code is wrong.
    Misuse,
}

/// A definition or a setting that `build` or `start` refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A saga without steps.
    #[error("saga {0:?} has no steps")]
    Empty(String),
    /// Two steps of one name: the stored journal could not tell them apart.
    #[error("saga {saga:?} has two steps named {step:?}: names identify stored steps")]
    DuplicateStep {
        /// The saga.
        saga: String,
        /// The name.
        step: String,
    },
    /// A name that would not survive as part of a key or a header.
    #[error("{0:?} is not a usable name: 1 to 64 of the characters A-Z a-z 0-9 _ - .")]
    BadName(String),
    /// A reason that says nothing.
    #[error("step {0:?} has no compensation and no reason: say why it need not be undone")]
    NoReason(String),
    /// A step that reads an output which cannot be there yet.
    #[error("step {step:?} uses the output of {uses:?}, which is not a step before it")]
    NoOutputYet {
        /// The step.
        step: String,
        /// Whose output it reads.
        uses: String,
    },
    /// Two registered sagas with one name and one version.
    #[error("saga {0:?} is registered twice with the same version")]
    DuplicateSaga(String),
    /// A local step whose effect cannot commit together with its record.
    #[error(
        "step {step:?} of saga {saga:?} is a local step on {database}, and the store ({store}) has no transaction for it: use the saga store of that database"
    )]
    NoTransaction {
        /// The saga.
        saga: String,
        /// The step.
        step: &'static str,
        /// The database of its transaction.
        database: &'static str,
        /// The store's kind.
        store: &'static str,
    },
    /// A duration that cannot work.
    #[error("{0}")]
    BadSetting(&'static str),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}
