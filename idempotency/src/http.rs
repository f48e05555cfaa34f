//! The tower layer: any `Service<http::Request<B>>` becomes safe to retry.
//!
//! The messages on the wire are in `docs/wire.md`. Start reading at `service.rs`, then `flow.rs`.

mod answer;
mod body;
mod config;
#[cfg(feature = "axum")]
mod extract;
mod fingerprint;
mod flow;
mod layer;
mod outer;
mod passage;
mod problem;
mod request;
mod route;
mod scope;
mod service;
mod tasks;
mod trailers;
mod verdict;
mod wait;

pub use body::ReplayBody;
#[cfg(feature = "axum")]
pub use extract::OrRelease;
pub use fingerprint::FingerprintRules;
#[cfg(any(test, fuzzing))]
pub(crate) use fingerprint::fuzzing;
pub use layer::IdempotencyLayer;
pub use problem::ProblemDetails;
pub use scope::{Refusal, Scoped, Unscoped};
pub use service::IdempotencyService;
pub use tasks::Tasks;
pub use verdict::Verdict;
