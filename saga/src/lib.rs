#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Runs sagas: every step happens, or every step is undone, or a person is told."
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod guide;

mod alert;
mod codec;
mod definition;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod machine;
mod metrics;
mod orchestrator;
mod policy;
mod record;
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
mod status;
mod step;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use codec::{Codec, CodecError, Place};
pub use definition::{AfterPivot, AnyStore, BeforePivot, Erased, NeedsReason, Saga, SagaBuilder, StepKind};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use definition::{Joins, LocalKind};
pub use engine::start::Started;
pub use error::{BuildError, Effect, ErrorKind, SagaError, StoreError};
pub use machine::{Illegal, Resolution, TRANSITIONS, Target, Transition, Trigger, transition};
pub use orchestrator::{Cancelled, Operator, Orchestrator, OrchestratorBuilder, Outcome, SagaView};
pub use policy::{Backoff, StepPolicy, WhenUnknown};
pub use record::{
    Change, ClaimRequest, Definition, Document, Heartbeat, Inserted, Instance, Intervened, Intervention,
    Journal, ListFilter, NewSaga, OpenCounts, Record, Requests, SagaId, Settled, StepRow, Verdict, Worker,
    WorkerId,
};
pub use status::{Status, StepStatus, UnknownStatus};
pub use step::context::StepContext;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use step::local::{LocalDatabase, LocalForwardStep, LocalStep};
pub use step::{Evidence, Executed, ForwardStep, Payload, Probe, Retry, SagaStep, StepError};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::StartIn;
pub use store::{LocalStore, LocalTransaction, LocalVerdict, MemoryStore, Runs, SagaStore, StartStatement};
#[cfg(feature = "postgres")]
pub use store::{PostgresStore, PostgresStoreBuilder};
#[cfg(feature = "sqlite")]
pub use store::{SqliteStore, SqliteStoreBuilder};
