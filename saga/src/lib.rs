#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Runs sagas: every step happens, or every step is undone, or a person is told."
)]
#![forbid(unsafe_code)]

pub mod guide;

mod codec;
mod context;
mod engine;
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod local_step;
mod machine;
mod orchestrator;
mod plan;
mod policy;
mod record;
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
mod step;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use codec::{Codec, CodecError, Place};
pub use context::StepContext;
pub use error::{BuildError, Effect, ErrorKind, SagaError, StoreError};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use local_step::{LocalDatabase, LocalForwardStep, LocalStep};
pub use machine::{
    Illegal, Resolution, Status, StepStatus, TRANSITIONS, Target, Transition, Trigger, UnknownStatus,
    transition,
};
pub use orchestrator::{Cancelled, Operator, Orchestrator, OrchestratorBuilder, Outcome, SagaView, Started};
pub use plan::{AfterPivot, AnyStore, BeforePivot, Erased, NeedsReason, Saga, SagaBuilder, StepKind};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use plan::{Joins, LocalKind};
pub use policy::{Backoff, StepPolicy, WhenUnknown};
pub use record::{
    Beat, Census, Change, ClaimRequest, Definition, Document, Inserted, Instance, Intervened, Intervention,
    Journal, ListFilter, NewSaga, Record, Requests, Rested, SagaId, StepRow, Verdict, Worker, WorkerId,
};
pub use step::{Evidence, Executed, ForwardStep, Payload, Probe, Retry, SagaStep, StepError};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::StartIn;
pub use store::{LocalStore, LocalTransaction, LocalVerdict, MemoryStore, Runs, SagaStore, StartStatement};
#[cfg(feature = "postgres")]
pub use store::{PostgresStore, PostgresStoreBuilder};
#[cfg(feature = "sqlite")]
pub use store::{SqliteStore, SqliteStoreBuilder};
