#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Runs sagas: every step happens, or every step is undone, or a person is told."
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod guide;

mod alert;
pub mod codec;
mod core;
pub mod definition;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
mod orchestrator;
mod policy;
mod record;
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
mod status;
mod step;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::core::Resolution;
pub use self::core::transitions;
pub use definition::Saga;
pub use engine::start::Started;
pub use error::{BuildError, Effect, ErrorKind, SagaError};
pub use orchestrator::{Cancelled, Operator, Orchestrator, OrchestratorBuilder, Outcome, SagaView};
pub use policy::{Backoff, StepPolicy, WhenUnknown};
pub use record::{ListFilter, SagaId};
pub use status::{Status, StepStatus};
pub use step::context::StepContext;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use step::local::{LocalForwardStep, LocalStep};
pub use step::{Evidence, Executed, ForwardStep, Probe, Retry, SagaStep, StepError};
pub use store::MemoryStore;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
